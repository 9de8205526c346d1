"""Classes of normalisation layers."""

from torch import nn

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)
"""Layers that normalise by batch statistics, and by running statistics in evaluation."""

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)

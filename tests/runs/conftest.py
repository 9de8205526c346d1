"""The fixtures of inference serve its runs too."""

from tests.inference.conftest import save_checkpoint

__all__ = ["save_checkpoint"]

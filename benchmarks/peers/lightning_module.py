"""A LightningModule as Lightning's documentation writes one for transfer learning: a backbone and a head."""

import lightning as L
import torch
from task import HEAD_LR, PARTS, WEIGHT_DECAY, Task
from torch import nn


class TransferModel(L.LightningModule):
    """A torchvision network as `backbone`, without its head, and `head`."""

    def __init__(self, task: Task, classes: int) -> None:
        super().__init__()
        network = task.network(classes)
        self.head = getattr(network, PARTS[task.model][0][0])
        if task.model == "mobilenet_v2":
            self.backbone = nn.Sequential(network.features, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        else:
            self.backbone = nn.Sequential(*list(network.children())[:-1], nn.Flatten())
        self._blocks = [[network.get_submodule(name) for name in part] for part in PARTS[task.model][1:]]

    def blocks(self, depth: int) -> list[nn.Module]:
        """Return the modules of the part that is `depth` parts below the head, from 1."""
        return self._blocks[depth - 1]

    def forward(self, images):
        return self.head(self.backbone(images))

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        trainable = filter(lambda parameter: parameter.requires_grad, self.parameters())
        return torch.optim.AdamW(trainable, lr=HEAD_LR, weight_decay=WEIGHT_DECAY)

"""Random draws that a resume repeats: every step's are a function of seed, epoch, batch and rank."""

import struct
from hashlib import blake2b
from typing import Any

import lightning as L
import torch


class SeededSteps(L.Callback):
    """Seeds torch anew before each training step, so that dropout draws the same after a resume.

    Args:
        seed: The run's seed.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the step."""
        place = struct.pack("<4q", self._seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        seed = int.from_bytes(blake2b(place, digest_size=8).digest(), "little") >> 1
        # Not torch.manual_seed, which formats a stack for each kind of device that is not in use.
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif pl_module.device.type != "cpu":
            torch.manual_seed(seed)

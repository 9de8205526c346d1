"""The device of a configuration, for work outside a Trainer."""

import torch

from unfreeze.config.schema import Config
from unfreeze.inference.device import DEVICES, claim_device


def device_of(config: Config) -> torch.device:
    """Return the device that `trainer.accelerator` names, and set up this process for inference on it.

    Raises:
        UnfreezeError: If this machine has no such device.
    """
    accelerator = str(config.trainer.get("accelerator") or "auto")
    name = "cuda" if accelerator == "gpu" else accelerator
    return claim_device(name if name in DEVICES else "auto")

"""Files of this package: the weights and preprocessing of the bundled backbone; see README.md for their origin."""

from pathlib import Path
from typing import Any

TINY_WEIGHTS = Path(__file__).with_name("tiny.safetensors")
TINY_ARCHITECTURE = "shufflenet_v2_x0_5"
TINY_PREPROCESSING: dict[str, Any] = {
    "resize_px": 64,
    "crop_px": 64,
    "interpolation": "bilinear",
    "mean": [0.491, 0.482, 0.447],
    "std": [0.247, 0.243, 0.262],
}

ARCHITECTURES = Path(__file__).with_name("architectures.jsonl")
"""Facts about torchvision's classifiers that can be read without torch, one line of JSON each."""

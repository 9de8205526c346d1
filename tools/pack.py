"""Pack a run of `experiment=pretrain_tiny` as the bundled weights: `python tools/pack.py outputs/<run>`."""

import json
import sys
from pathlib import Path

from safetensors.torch import save_file

from unfreeze.assets import TINY_WEIGHTS
from unfreeze.models.checkpoint import load_classifier


def pack(run: Path, target: Path = TINY_WEIGHTS) -> None:
    """Write the backbone of a run's best checkpoint in half precision, with its metrics in the header.

    Args:
        run: Directory of the run.
        target: Path of the .safetensors file to write.
    """
    classifier = load_classifier(run)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    backbone = {
        key: value.half().contiguous() if value.is_floating_point() else value
        for key, value in classifier.network.state_dict().items()
        if not key.startswith(f"{classifier.heads[0]}.") and not key.endswith("num_batches_tracked")
    }
    header = {
        "architecture": "shufflenet_v2_x0_5",
        "recipe": "experiment=pretrain_tiny",
        "test_acc": f"{result['test']['acc']:.4f}",
        "seed": str(result["seed"]),
        "data": result["data"]["fingerprint"],
    }
    save_file(backbone, target, metadata=header)


if __name__ == "__main__":
    pack(Path(sys.argv[1]))

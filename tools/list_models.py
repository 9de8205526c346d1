"""Write models.csv, the catalogue of `unfreeze models`: `python tools/list_models.py`.

Parameters and multiply-adds are counted on the meta device with PyTorch's flop counter, at the published input size;
top-1 accuracies on ImageNet-1K are those that torchvision publishes with its weights.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch.utils.flop_counter import FlopCounterMode

from unfreeze.errors import first_line
from unfreeze.models.architecture import find_architecture
from unfreeze.models.catalog import CATALOG, COLUMNS
from unfreeze.models.spec import ModelSpec


def torchvision_rows() -> Iterator[list[object]]:
    """Yield a row for each classifier of torchvision."""
    from torchvision.models import get_model_weights

    from unfreeze.models.torchvision_models import classifier_names

    for name in classifier_names():
        weights = get_model_weights(name).DEFAULT
        top1 = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        yield ["torchvision", name, *_counted(ModelSpec(name)), top1, Path(urlparse(weights.url).path).name]


def timm_rows() -> Iterator[list[object]]:
    """Yield a row for each published weights of timm, and for each network without any."""
    import timm

    published = timm.list_models(pretrained=True)
    without = sorted(set(timm.list_models()) - {name.partition(".")[0] for name in published})
    counted: dict[tuple[object, ...], list[object]] = {}
    for name in [*published, *without]:
        config = timm.get_pretrained_cfg(name)
        values = config.to_dict() if config is not None else {}  # type: ignore[no-untyped-call]
        key = (name.partition(".")[0], values.get("input_size"), values.get("num_classes"))
        if key not in counted:
            counted[key] = _counted(ModelSpec(name, "timm"))
        if counted[key][0] == "":
            continue
        weights = values.get("hf_hub_id") or Path(urlparse(values.get("url") or "").path).name
        yield ["timm", name, *counted[key], "", weights if name in published else ""]


def _counted(spec: ModelSpec) -> list[object]:
    """Return parameters, multiply-adds of an image in billions, and the side of the image in px; blank if unknown."""
    # Some networks can't be built alone, or not on the meta device, and raise any exception.
    try:
        architecture = find_architecture(spec)
        size = architecture.preprocessing().crop_px
        network = architecture.skeleton(size).eval().requires_grad_(False)
    except Exception as error:
        sys.stderr.write(f"{spec.name}: left out: {first_line(error)}\n")
        return ["", "", ""]
    parameters = sum(parameter.numel() for parameter in network.parameters())
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 3, size, size, device="meta"))
    except Exception as error:
        sys.stderr.write(f"{spec.name}: not counted: {first_line(error)}\n")
        return [parameters, "", size]
    return [parameters, f"{counter.get_total_flops() / 2e9:.3g}", size]


def main() -> None:
    """Write the table."""
    with CATALOG.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(torchvision_rows())
        writer.writerows(timm_rows())


if __name__ == "__main__":
    main()

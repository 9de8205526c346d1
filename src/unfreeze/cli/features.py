"""`unfreeze features`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.options import Batch, ConfigDir, Device, Model, TrustRepo, Weights
from unfreeze.config.compose import compose_config
from unfreeze.config.overrides import override_key
from unfreeze.errors import UnfreezeError
from unfreeze.models.model_argument import check_model, is_run
from unfreeze.system.cores import use_passive_wait

_SPLITS = ("train", "val", "test", "all")


def features(
    model: Model,
    out: Annotated[Path, typer.Option(help="The file: .npz or .safetensors")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Other images than the run's own, as for train.py: data=... data.root=..."),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="A layer group or a module; default the input of the head")] = None,
    pool: Annotated[str, typer.Option(metavar="avg|none", help="Mean over positions, or all positions")] = "avg",
    split: Annotated[str, typer.Option(metavar="train|val|test|all", help="The images")] = "all",
    weights: Weights = None,
    config_dir: ConfigDir = None,
    batch_size: Batch = 64,
    device: Device = "auto",
    trust_repo: TrustRepo = False,
) -> None:
    """Write the features of a data set to a file, with labels, paths and splits."""
    check_model(model, weights)
    typed = list(overrides or [])
    _check_request(model, typed, split=split, out=out)
    composed = compose_config(typed, config_dir) if typed else None
    use_passive_wait()
    from unfreeze.runs.features import extract_features

    shape = extract_features(
        model,
        typed,
        composed,
        layer=layer,
        pool=pool,
        split=split,
        out=out,
        weights=weights,
        device=device,
        batch_size=batch_size,
        trust_repo=trust_repo,
    )
    sys.stdout.write(f"  {' x '.join(map(str, shape))} float32 · {out}\n")


def _check_request(model: str, typed: Sequence[str], *, split: str, out: Path) -> None:
    """Refuse what can be refused before anything is loaded.

    Args:
        model: A run, a checkpoint, or the name of a network.
        typed: Overrides.
        split: "all", or of which images.
        out: The file.

    Raises:
        UnfreezeError: If the file can't be written, or it is not said of which images.
    """
    from unfreeze.inference.feature_file import check_file  # NumPy, which --help does without

    check_file(out)
    if split not in _SPLITS:
        raise UnfreezeError(f"--split: got {split!r}, want one of {', '.join(_SPLITS)}")
    keys = [override_key(override) for override in typed]
    if typed and "data" not in keys:
        own = ", or nothing for the run's own images" if is_run(model) else ""
        raise UnfreezeError(f"features: got {typed[0]} without data=...; type data=imagefolder data.root=...{own}")
    if not typed and not is_run(model):
        raise UnfreezeError(f"features: {model!r} has no images of its own; type data=imagefolder data.root=...")
    if "data.image_size" in keys and is_run(model):
        raise UnfreezeError("data.image_size: a run sees its images at its own size; leave it out")

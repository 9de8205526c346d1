"""`unfreeze predict`."""

from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.options import Batch, Device, Model, TrustRepo, Weights
from unfreeze.models.model_argument import check_model
from unfreeze.system.cores import use_passive_wait


def predict(
    model: Model,
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders, patterns; - reads a list")],
    form: Annotated[
        str | None, typer.Option("--format", metavar="table|csv|jsonl", help="Default: by the suffix of --out")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, help="Classes per image, the most probable first")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Output file instead of standard output")] = None,
    null: Annotated[
        bool, typer.Option("--null", "-0", help="Listed paths end in a zero byte instead of a line feed")
    ] = False,
    weights: Weights = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding processes; default one per core")] = None,
    batch_size: Batch = 64,
    device: Device = "auto",
    trust_repo: TrustRepo = False,
) -> None:
    """Predict the classes of images: path, rank, class, probability; exit code 1 if a file can't be read."""
    check_model(model, weights)
    use_passive_wait()
    from unfreeze.inference.predict_files import format_of, open_loader, predict_files

    form = format_of(form, out)
    loader = open_loader(
        model, weights=weights, device=device, batch_size=batch_size, workers=workers, trust_repo=trust_repo
    )
    if predict_files(paths, loader, form=form, top_k=top_k, out=out, is_null=null):
        raise SystemExit(1)

"""Networks: which there are, what they say of images, what they see in them."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.options import Batch, ConfigDir, Device, Model, TrustRepo, Weights, console, print_json
from unfreeze.config.compose import compose_config


def models(
    pattern: Annotated[str | None, typer.Argument(help="Part of a name, or a pattern such as 'vit_*'")] = None,
    source: Annotated[str | None, typer.Option(metavar="torchvision|timm", help="From there only")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")] = False,
) -> None:
    """List networks by name: size, cost, input, published accuracy, and whether weights are on this machine."""
    from dataclasses import asdict

    from unfreeze.models.catalog import list_networks

    listed = list_networks(pattern, source=source)
    if as_json:
        print_json([asdict(each) for each in listed])
    else:
        from unfreeze.models.catalog_text import print_networks

        print_networks(listed, console())


def predict(
    model: Model,
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders, patterns; - reads a list")],
    form: Annotated[str | None, typer.Option("--format", metavar="table|csv|jsonl", help="Else as --out ends")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, help="Classes per image, the likeliest first")] = None,
    out: Annotated[Path | None, typer.Option(help="A file for the rows, in place of standard output")] = None,
    null: Annotated[bool, typer.Option("--null", "-0", help="A zero byte ends each listed path, not a line")] = False,
    weights: Weights = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode; else one per core")] = None,
    batch_size: Batch = 64,
    device: Device = "auto",
    trust_repo: TrustRepo = False,
) -> None:
    """Say what images show: path, rank, class, probability; exit code 1 where a file can't be read."""
    from unfreeze.models.model_argument import check_model
    from unfreeze.system.cores import wait_asleep

    check_model(model, weights)
    wait_asleep()
    from unfreeze.inference.predict_files import format_of, open_feeder, predict_files

    form = format_of(form, out)
    feeder = open_feeder(
        model, weights=weights, device=device, batch_size=batch_size, workers=workers, trust_repo=trust_repo
    )
    if predict_files(paths, feeder, form=form, top_k=top_k, out=out, is_null=null):
        raise SystemExit(1)


def features(
    model: Model,
    out: Annotated[Path, typer.Option(help="The file: .npz or .safetensors")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Other images than the run's own, as for train.py: data=... data.root=..."),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="A layer group or a module; else what the head sees")] = None,
    pool: Annotated[str, typer.Option(metavar="avg|none", help="The mean over positions, or all of them")] = "avg",
    split: Annotated[str, typer.Option(metavar="train|val|test|all", help="Of these images")] = "all",
    weights: Weights = None,
    config_dir: ConfigDir = None,
    batch_size: Batch = 64,
    device: Device = "auto",
    trust_repo: TrustRepo = False,
) -> None:
    """Write what a network sees in the images of a data set into a file, with labels, paths and splits."""
    from unfreeze.models.model_argument import check_model
    from unfreeze.system.cores import wait_asleep

    check_model(model, weights)
    typed = list(overrides or [])
    composed = compose_config(typed, config_dir) if typed else None
    wait_asleep()
    from unfreeze.runs.features import check_request, extract_features

    check_request(model, typed, split=split, out=out)
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

"""`unfreeze export`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.options import TrustRepo, silence_warnings


def export(
    run: Annotated[Path, typer.Argument(help="A run's directory, or a .ckpt file")],
    to: Annotated[str, typer.Option(metavar="onnx|torch|safetensors", help="The format")],
    out: Annotated[Path | None, typer.Option(help="Output file; default in the run's exports/")] = None,
    preprocessing: Annotated[
        str,
        typer.Option(metavar="inside|outside", help="inside: the file takes uint8 images and returns probabilities"),
    ] = "outside",
    license_name: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="License in the model card, such as apache-2.0")
    ] = None,
    trust_repo: TrustRepo = False,
) -> None:
    """Export a run's network for other programs, checked against the original, with a model card."""
    from unfreeze.runs.export import describe_export, export_run

    silence_warnings()
    exported = export_run(
        run, to=to, out=out, preprocessing=preprocessing, license_name=license_name, trust_repo=trust_repo
    )
    sys.stdout.write("\n".join(describe_export(exported)) + "\n")

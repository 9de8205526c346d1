"""Arguments and options that several commands have, and where they write tables."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Overrides = Annotated[
    list[str] | None, typer.Argument(help="Overrides as for train.py, such as model=resnet50 data=imagefolder")
]
ConfigDir = Annotated[
    Path | None, typer.Option("--config-dir", help="A folder of your own configs, searched before conf/")
]
Run = Annotated[Path, typer.Argument(help="A run's directory")]
Model = Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run's directory, a .ckpt file, or a name")]
Batch = Annotated[int, typer.Option("--batch-size", min=1, help="Images per forward pass")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Device; auto is a GPU if there is one")]
Weights = Annotated[Path | None, typer.Option(help="A file of the named network's published weights")]
TrustRepo = Annotated[bool, typer.Option("--trust-repo", help="Allow the code of a hub's repository to run")]


def console() -> "Console":
    """Return where tables go: as wide as the terminal, 120 columns where there is none."""
    from rich.console import Console

    found = Console()
    return found if found.is_terminal else Console(width=120)


def print_json(value: Any) -> None:
    """Write plain values for programs."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def silence_warnings() -> None:
    """Write Lightning's warnings to the log only."""
    import logging

    logging.captureWarnings(True)

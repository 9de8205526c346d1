"""The `unfreeze` command: verbs on runs, models and data."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfreeze.errors import UnfreezeError

if TYPE_CHECKING:
    from omegaconf import DictConfig

app = typer.Typer(
    name="unfreeze",
    help="Transfer learning on images with staged unfreezing. Runs are started by python train.py.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Make Typer expect a verb, though there may be one only."""


Overrides = Annotated[
    list[str] | None, typer.Argument(help="The same as for train.py, such as model=resnet50 data=imagefolder")
]
ConfigDir = Annotated[
    Path | None, typer.Option("--config-dir", help="A folder of your own configs, searched before conf/")
]


@app.command(context_settings={"ignore_unknown_options": True})
def plan(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Print the layer groups, what trains when and at which rates; train nothing."""
    from unfreeze.run import check_values, plan_of
    from unfreeze.training.plan_text import format_plan

    typed = list(overrides or [])
    config = check_values(_compose(typed, config_dir), typed)
    sys.stdout.write(format_plan(plan_of(config), augment=config.augment.name) + "\n")


@app.command(context_settings={"ignore_unknown_options": True})
def audit(
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all names, instead of tables")] = False,
    min_per_class: Annotated[
        int, typer.Option("--min-per-class", min=1, help="Report classes with fewer images to train on")
    ] = 20,
    near: Annotated[
        bool,
        typer.Option("--near/--no-near", help="Look for near-equal images (a minute for 100,000, four for 200,000)"),
    ] = True,
) -> None:
    """Say what is wrong with the images; exit code 1 where something would mislead a result."""
    from rich.console import Console

    from unfreeze.build import audit_data
    from unfreeze.data.audit.text import print_audit
    from unfreeze.run import check_values

    typed = list(overrides or [])
    report = audit_data(check_values(_compose(typed, config_dir), typed), min_per_class=min_per_class, near=near)
    if as_json:
        sys.stdout.write(json.dumps(report.to_dict(), indent=2) + "\n")
    else:
        console = Console()
        print_audit(report, console if console.is_terminal else Console(width=120))
    if report.problems:
        raise SystemExit(1)


def _compose(overrides: list[str], config_dir: Path | None) -> "DictConfig":
    """Compose a configuration as train.py does."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    from unfreeze.arguments import expand_arguments
    from unfreeze.resolvers import register_resolvers

    register_resolvers()
    expanded = expand_arguments(overrides)
    if config_dir is not None:
        expanded.append(f"hydra.searchpath=[file://{config_dir.absolute()}]")
    try:
        with initialize_config_dir(config_dir=str(conf_folder()), version_base="1.3"):
            return compose("config", overrides=expanded)
    except HydraException as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None


def conf_folder() -> Path:
    """Return the folder of configs: the checkout's, or the one that the wheel carries."""
    carried = Path(__file__).with_name("conf")
    return carried if carried.is_dir() else Path(__file__).parents[2] / "conf"


def main() -> None:
    """Run a verb; what a person can mend ends in one line and exit code 2."""
    try:
        app()
    except UnfreezeError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""The `unfreeze` command: verbs on runs, models and data."""

import os
import sys

import typer

from unfreeze.commands import networks, planning, runs
from unfreeze.commands.cache import cache_app
from unfreeze.errors import UnfreezeError

app = typer.Typer(
    name="unfreeze",
    help="Transfer learning on images with staged unfreezing. Runs are started by python train.py.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # half of what `unfreeze --help` would take is the import of what draws its boxes
)
_TAKES_OVERRIDES = {"ignore_unknown_options": True}

app.command(context_settings=_TAKES_OVERRIDES)(planning.plan)
app.command(context_settings=_TAKES_OVERRIDES)(planning.audit)
app.command()(runs.soup)
app.command()(runs.report)
app.command(context_settings=_TAKES_OVERRIDES)(runs.evaluate)
app.command()(runs.compare_runs)
app.command()(runs.export)
app.command()(networks.models)
app.command()(networks.predict)
app.command(context_settings=_TAKES_OVERRIDES)(networks.features)
app.add_typer(cache_app, name="cache")


def main() -> None:
    """Run a verb; what a person can mend ends in one line and exit code 2."""
    try:
        app()
    except UnfreezeError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()

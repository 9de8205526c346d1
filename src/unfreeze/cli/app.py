"""The `unfreeze` command: verbs on runs, models and data."""

import signal
import sys
from typing import Any, NoReturn

import typer

from unfreeze.cli.audit import audit
from unfreeze.cli.cache import cache_app
from unfreeze.cli.compare_runs import compare_runs
from unfreeze.cli.evaluate import evaluate
from unfreeze.cli.export import export
from unfreeze.cli.features import features
from unfreeze.cli.models import models
from unfreeze.cli.plan import plan
from unfreeze.cli.predict import predict
from unfreeze.cli.report import report
from unfreeze.cli.soup import soup
from unfreeze.cli.train import train
from unfreeze.errors import UnfreezeError
from unfreeze.system.terminal import flush_output, open_output

app = typer.Typer(
    name="unfreeze",
    help="Transfer learning on images with staged unfreezing. unfreeze train starts a run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # half of what `unfreeze --help` would take is the import of what draws its boxes
)
_TAKES_OVERRIDES = {"ignore_unknown_options": True}

app.command(context_settings={**_TAKES_OVERRIDES, "help_option_names": []})(train)
app.command(context_settings=_TAKES_OVERRIDES)(plan)
app.command(context_settings=_TAKES_OVERRIDES)(audit)
app.command()(soup)
app.command()(report)
app.command(context_settings=_TAKES_OVERRIDES)(evaluate)
app.command()(compare_runs)
app.command()(export)
app.command()(models)
app.command()(predict)
app.command(context_settings=_TAKES_OVERRIDES)(features)
app.add_typer(cache_app, name="cache")


_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Of the click that typer carries."""


def main() -> None:
    """Run a verb; what a person can mend ends in one line and exit code 2."""
    open_output()
    try:
        _run_command()
    finally:
        flush_output()


def _run_command() -> NoReturn:
    try:
        raise SystemExit(app(standalone_mode=False))
    except _UsageError as error:
        _refuse_usage(error)
    except typer.Abort:
        raise SystemExit(128 + signal.SIGINT) from None
    except UnfreezeError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:  # the reader has left
        raise SystemExit(0) from None


def _refuse_usage(error: Any) -> NoReturn:
    """Print the error of a command line in one line, or the help of a command that lacks its arguments."""
    command = error.ctx.command_path if error.ctx else "unfreeze"
    message = " ".join(error.format_message().split())
    if not message or "Usage:" in message:
        sys.stderr.write(f"{error.format_message()}\n")
    else:
        sys.stderr.write(f"error: {command}: {message.rstrip('.')}; {command} --help lists what there is\n")
    raise SystemExit(2) from None


if __name__ == "__main__":
    main()

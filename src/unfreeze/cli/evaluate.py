"""`unfreeze evaluate`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.options import Run, TrustRepo, silence_warnings
from unfreeze.config.compose import compose_config
from unfreeze.config.overrides import override_key
from unfreeze.errors import UnfreezeError
from unfreeze.results.run_directory import RunDirectory, check_checkpoint
from unfreeze.results.summary import format_test
from unfreeze.system.files import refuse_occupied, shown_path


def evaluate(
    run: Run,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Other images, such as data=imagefolder data.root=more")
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="val|test", help="The images; default test")] = None,
    out: Annotated[Path | None, typer.Option(help="Output folder; default evaluations/ in the run")] = None,
    trust_repo: TrustRepo = False,
) -> None:
    """Evaluate a run on its own images or on others with the same classes, and write a report beside it."""
    silence_warnings()
    if split not in (None, "val", "test"):
        raise UnfreezeError(f"evaluate: --split: got {split!r}, want val or test")
    typed, directory = list(overrides or []), RunDirectory(run)
    _check_only_data(typed)
    check_checkpoint(directory.best)
    if out is not None:
        refuse_occupied(out, verb="evaluate")
    data = compose_config(typed, None).data if typed else None
    from unfreeze.runs.evaluate import evaluate_run

    place = evaluate_run(directory, data=data, typed=typed, split=split, out=out, trust_repo=trust_repo)  # type: ignore[arg-type]
    for line in format_test(place.read_result()):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"\n  {shown_path(place.report_file.absolute())}\n")


def _check_only_data(typed: Sequence[str]) -> None:
    """Refuse what an evaluation can't change.

    Raises:
        UnfreezeError: Naming it.
    """
    for override in typed:
        key = override_key(override)
        if key != "data" and not key.startswith("data."):
            raise UnfreezeError(
                f"evaluate: {key!r} is what the run was trained with, and stays; want data=... and data.<key>=..."
            )
        if key == "data.image_size":
            raise UnfreezeError("evaluate: data.image_size is what the network was trained for, and stays")

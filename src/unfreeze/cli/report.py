"""`unfreeze report`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.options import TrustRepo, silence_warnings
from unfreeze.results.lock import DirectoryInUseError
from unfreeze.results.run_directory import RunDirectory, runs_in
from unfreeze.system.files import shown_path


def report(
    folder: Annotated[Path, typer.Argument(help="A run's directory, or one with runs in it")],
    trust_repo: TrustRepo = False,
) -> None:
    """Write report.html and the figures of a run, or of all runs in a folder, again."""
    silence_warnings()
    runs = runs_in(folder)
    for run in runs:
        RunDirectory(run).read_result()
    from unfreeze.runs.report import report_run

    for run in runs:
        try:
            missing = report_run(RunDirectory(run), trust_repo=trust_repo)
        except DirectoryInUseError as in_use:
            if len(runs) == 1:
                raise
            sys.stdout.write(f"  left out: {in_use}\n")
            continue
        sys.stdout.write(f"  {shown_path(RunDirectory(run.absolute()).report_file)}\n")
        if missing is not None:
            sys.stdout.write(f"    without its images: {missing}\n")

"""`unfreeze compare-runs`."""

from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.options import console, print_json
from unfreeze.results.run_directory import RunDirectory


def compare_runs(
    first: Annotated[Path, typer.Argument(help="A run's directory, or one of its evaluations")],
    second: Annotated[Path, typer.Argument(help="Another run or evaluation")],
    split: Annotated[str, typer.Option(metavar="val|test", help="The images")] = "test",
    out: Annotated[Path | None, typer.Option(help="A CSV file for the images with different predictions")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON with all images instead of a table")] = False,
) -> None:
    """Compare two runs on the images that both were evaluated on, with a test of significance."""
    from dataclasses import asdict

    for run in (first, second):
        RunDirectory(run).read_result()
    from unfreeze.evaluation.comparison import compare_directories, write_differences
    from unfreeze.evaluation.comparison_text import print_comparison

    comparison = compare_directories(first, second, split)
    if out is not None:
        write_differences(comparison, out)
    if as_json:
        print_json({**asdict(comparison), "sentence": comparison.sentence})
    else:
        print_comparison(comparison, (str(first), str(second)), console())

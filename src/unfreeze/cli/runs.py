"""After a run: its page, its judgement on other images, what it is beside another, its files."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from unfreeze.cli.options import Run, TrustRepo, console, print_json, silence_warnings
from unfreeze.config.compose import compose_config
from unfreeze.errors import UnfreezeError


def soup(
    folder: Annotated[Path, typer.Argument(help="A sweep's directory, or that of a run with keep_best=3")],
    out: Annotated[Path | None, typer.Option(help="Where it goes; soup/ in the folder, if not said")] = None,
    trust_repo: TrustRepo = False,
) -> None:
    """Average the best checkpoints of a sweep or a run, as far as validation gains; test the average once."""
    from unfreeze.runs.announce import shown_path
    from unfreeze.runs.ingredients import ingredient_files

    silence_warnings()
    ingredient_files(folder)
    from unfreeze.runs.soup import make_soup

    result = make_soup(folder, out=out, say=lambda line: print(line, flush=True), trust_repo=trust_repo)
    metric = str(result["monitor"])
    tested = f" · test accuracy {result['test']['acc']:.4f}" if result["test"] else ""
    sys.stdout.write(
        f"  {len(result['ingredients'])} of {len(result['ingredients']) + len(result['left_out'])} averaged · "
        f"{metric} {result['val'][metric.removeprefix('val/')]:.4f}{tested}\n"
        f"  {shown_path((out or folder / 'soup').absolute())}\n"
    )


def report(
    folder: Annotated[Path, typer.Argument(help="A run's directory, or one with runs in it")],
    trust_repo: TrustRepo = False,
) -> None:
    """Write report.html and the pictures of a run, or of all runs in a folder, anew."""
    from unfreeze.results.lock import DirectoryInUseError
    from unfreeze.runs.announce import shown_path
    from unfreeze.runs.reopen import report_run, runs_in

    silence_warnings()
    runs = runs_in(folder)
    for run in runs:
        try:
            missing = report_run(run, trust_repo=trust_repo)
        except DirectoryInUseError as in_use:
            if len(runs) == 1:
                raise
            sys.stdout.write(f"  left out: {in_use}\n")
            continue
        sys.stdout.write(f"  {shown_path(run.absolute() / 'report.html')}\n")
        if missing is not None:
            sys.stdout.write(f"    without its images: {missing}\n")


def evaluate(
    run: Run,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Other images, such as data=imagefolder data.root=more")
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="val|test", help="Which images; test, if not said")] = None,
    out: Annotated[Path | None, typer.Option(help="Where it goes; evaluations/ in the run, if not said")] = None,
    trust_repo: TrustRepo = False,
) -> None:
    """Judge a run again, on its own images or on others with the same classes, and write a report beside it."""
    from unfreeze.runs.announce import shown_path
    from unfreeze.runs.evaluate import check_only_data, evaluate_run
    from unfreeze.system.files import read_json

    silence_warnings()
    if split not in (None, "val", "test"):
        raise UnfreezeError(f"evaluate: --split: got {split!r}, want val or test")
    typed = list(overrides or [])
    check_only_data(typed)
    data = compose_config(typed, None).data if typed else None
    place = evaluate_run(run, data=data, typed=typed, split=split, out=out, trust_repo=trust_repo)  # type: ignore[arg-type]
    from unfreeze.evaluation.result import describe_test

    for line in describe_test(read_json(place / "result.json")):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"\n  {shown_path((place / 'report.html').absolute())}\n")


def compare_runs(
    first: Annotated[Path, typer.Argument(help="A run's directory, or one of its evaluations")],
    second: Annotated[Path, typer.Argument(help="Another one")],
    split: Annotated[str, typer.Option(metavar="val|test", help="Which images")] = "test",
    out: Annotated[Path | None, typer.Option(help="A CSV file for the images on which they differ")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all images, instead of a table")] = False,
) -> None:
    """Say whether one of two runs is better on the images that both were judged on, and where they differ."""
    from dataclasses import asdict

    from unfreeze.system.files import read_json

    for run in (first, second):
        read_json(run / "result.json")
    from unfreeze.evaluation.comparison import compare_kept, write_differences
    from unfreeze.evaluation.comparison_text import print_comparison

    comparison = compare_kept(first, second, split)
    if out is not None:
        write_differences(comparison, out)
    if as_json:
        print_json({**asdict(comparison), "sentence": comparison.sentence})
    else:
        print_comparison(comparison, (str(first), str(second)), console())


def export(
    run: Annotated[Path, typer.Argument(help="A run's directory, or a .ckpt file")],
    to: Annotated[str, typer.Option(metavar="onnx|torch|safetensors", help="The format")],
    out: Annotated[Path | None, typer.Option(help="The file; one in the run's exports/, if not said")] = None,
    preprocessing: Annotated[
        str, typer.Option(metavar="inside|outside", help="Inside: it takes uint8 images and gives probabilities")
    ] = "outside",
    license_name: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="For the model card, such as apache-2.0")
    ] = None,
    trust_repo: TrustRepo = False,
) -> None:
    """Write a run's network for other programs, checked against the original, with a model card beside it."""
    from unfreeze.runs.export import describe_export, export_run

    silence_warnings()
    exported = export_run(
        run, to=to, out=out, preprocessing=preprocessing, license_name=license_name, trust_repo=trust_repo
    )
    sys.stdout.write("\n".join(describe_export(exported)) + "\n")

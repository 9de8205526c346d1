"""The `unfreeze` command: verbs on runs, models and data."""

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfreeze.errors import UnfreezeError

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from rich.console import Console

    from unfreeze.cachefolder import CacheFolder

app = typer.Typer(
    name="unfreeze",
    help="Transfer learning on images with staged unfreezing. Runs are started by python train.py.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # half of what `unfreeze --help` would take is the import of what draws its boxes
)
cache_app = typer.Typer(
    help="What later runs use again: decoded images, features of frozen backbones.", rich_markup_mode=None
)
app.add_typer(cache_app, name="cache")


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
    from unfreeze.run import check_values, describe_plan

    typed = list(overrides or [])
    sys.stdout.write(describe_plan(check_values(_compose(typed, config_dir), typed)) + "\n")


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
    from unfreeze.build import audit_data
    from unfreeze.data.audit.text import print_audit
    from unfreeze.run import check_values

    typed = list(overrides or [])
    report = audit_data(check_values(_compose(typed, config_dir), typed), min_per_class=min_per_class, near=near)
    if as_json:
        sys.stdout.write(json.dumps(report.to_dict(), indent=2) + "\n")
    else:
        print_audit(report, _console())
    if report.problems:
        raise SystemExit(1)


CacheDir = Annotated[
    Path | None, typer.Option("--dir", help="The cache.dir of your runs, if not the default, ~/.cache/unfreeze")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with whole keys, instead of a table")]


@cache_app.callback(invoke_without_command=True)
def _cache(context: typer.Context, folder: CacheDir = None, as_json: AsJson = False) -> None:
    """List what later runs use again; `unfreeze cache clear` removes of it."""
    context.obj = folder
    if context.invoked_subcommand is None:
        list_cache(context, None, as_json)


@app.command()
def soup(
    folder: Annotated[Path, typer.Argument(help="A sweep's directory, or that of a run with keep_best=3")],
    out: Annotated[Path | None, typer.Option(help="Where it goes; soup/ in the folder, if not said")] = None,
    trust_repo: Annotated[bool, typer.Option("--trust-repo", help="Let code of a hub's repository run")] = False,
) -> None:
    """Average the best checkpoints of a sweep or a run, as far as validation gains; test the average once."""
    import logging

    from unfreeze.announce import shown_path
    from unfreeze.soup import make_soup

    logging.captureWarnings(True)  # what Lightning says of a loop is not for whoever asks for an average
    result = make_soup(folder, out=out, say=lambda line: print(line, flush=True), trust_repo=trust_repo)
    metric = str(result["monitor"])
    tested = f" · test accuracy {result['test']['acc']:.4f}" if result["test"] else ""
    sys.stdout.write(
        f"  {len(result['ingredients'])} of {len(result['ingredients']) + len(result['left_out'])} averaged · "
        f"{metric} {result['val'][metric.removeprefix('val/')]:.4f}{tested}\n"
        f"  {shown_path((out or folder / 'soup').absolute())}\n"
    )


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run's directory, or one with runs in it")],
    trust_repo: Annotated[bool, typer.Option("--trust-repo", help="Let code of a hub's repository run")] = False,
) -> None:
    """Write report.html and the pictures of a run, or of all runs in a folder, anew."""
    import logging

    from unfreeze.announce import shown_path
    from unfreeze.reopening import report_run, runs_in

    logging.captureWarnings(True)
    for run in runs_in(folder):
        missing = report_run(run, trust_repo=trust_repo)
        sys.stdout.write(f"  {shown_path(run.absolute() / 'report.html')}\n")
        if missing is not None:
            sys.stdout.write(f"    without its images: {missing}\n")


@app.command(context_settings={"ignore_unknown_options": True})
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's directory")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Other images, such as data=imagefolder data.root=more")
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="val|test", help="Which images; test, if not said")] = None,
    out: Annotated[Path | None, typer.Option(help="Where it goes; evaluations/ in the run, if not said")] = None,
    trust_repo: Annotated[bool, typer.Option("--trust-repo", help="Let code of a hub's repository run")] = False,
) -> None:
    """Judge a run again, on its own images or on others with the same classes, and write a report beside it."""
    import logging

    from unfreeze.announce import shown_path
    from unfreeze.evaluating import check_only_data, evaluate_run
    from unfreeze.evaluation.result import describe_test
    from unfreeze.files import read_json

    logging.captureWarnings(True)
    if split not in (None, "val", "test"):
        raise UnfreezeError(f"evaluate: --split: got {split!r}, want val or test")
    typed = list(overrides or [])
    check_only_data(typed)
    data = _compose(typed, None).data if typed else None
    place = evaluate_run(run, data=data, typed=typed, split=split, out=out, trust_repo=trust_repo)  # type: ignore[arg-type]
    for line in describe_test(read_json(place / "result.json")):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"\n  {shown_path((place / 'report.html').absolute())}\n")


@app.command("compare-runs")
def compare_runs(
    first: Annotated[Path, typer.Argument(help="A run's directory, or one of its evaluations")],
    second: Annotated[Path, typer.Argument(help="Another one")],
    split: Annotated[str, typer.Option(metavar="val|test", help="Which images")] = "test",
    out: Annotated[Path | None, typer.Option(help="A CSV file for the images on which they differ")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all images, instead of a table")] = False,
) -> None:
    """Say whether one of two runs is better on the images that both were judged on, and where they differ."""
    from dataclasses import asdict

    from unfreeze.evaluation.comparing import compare_kept, write_differences
    from unfreeze.evaluation.comparing_text import print_comparison

    comparison = compare_kept(first, second, split)
    if out is not None:
        write_differences(comparison, out)
    if as_json:
        sys.stdout.write(json.dumps({**asdict(comparison), "sentence": comparison.sentence}, indent=1) + "\n")
    else:
        print_comparison(comparison, (str(first), str(second)), _console())


@app.command()
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
    trust_repo: Annotated[bool, typer.Option("--trust-repo", help="Let code of a hub's repository run")] = False,
) -> None:
    """Write a run's network for other programs, checked against the original, with a model card beside it."""
    import logging

    from unfreeze.exporting import describe_export, export_run

    logging.captureWarnings(True)  # what Lightning says of a loop is not for whoever exports
    exported = export_run(
        run, to=to, out=out, preprocessing=preprocessing, license_name=license_name, trust_repo=trust_repo
    )
    sys.stdout.write("\n".join(describe_export(exported)) + "\n")


@app.command()
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
        sys.stdout.write(json.dumps([asdict(each) for each in listed], indent=1) + "\n")
    else:
        from unfreeze.models.catalog_text import print_networks

        print_networks(listed, _console())


Batch = Annotated[int, typer.Option("--batch-size", min=1, help="Images that pass through the network together")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where it computes; auto is a GPU if there is")]
TrustRepo = Annotated[bool, typer.Option("--trust-repo", help="Let code of a hub's repository run")]


@app.command()
def predict(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run's directory, a .ckpt file, or a name")],
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, folders, patterns; - reads a list")],
    form: Annotated[str | None, typer.Option("--format", metavar="table|csv|jsonl", help="Else as --out ends")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, help="Classes per image, the likeliest first")] = None,
    out: Annotated[Path | None, typer.Option(help="A file for the rows, in place of standard output")] = None,
    null: Annotated[bool, typer.Option("--null", "-0", help="A zero byte ends each listed path, not a line")] = False,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that decode; else one per core")] = None,
    batch_size: Batch = 64,
    device: Device = "auto",
    trust_repo: TrustRepo = False,
) -> None:
    """Say what images show: path, rank, class, probability; exit code 1 where a file can't be read."""
    from unfreeze.cores import wait_asleep

    wait_asleep()
    from unfreeze.inference.command import format_of, open_feeder, predict_files

    form = format_of(form, out)
    feeder = open_feeder(model, device=device, batch_size=batch_size, workers=workers, trust_repo=trust_repo)
    if predict_files(paths, feeder, form=form, top_k=top_k, out=out, is_null=null):
        raise SystemExit(1)


@app.command(context_settings={"ignore_unknown_options": True})
def features(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run's directory, a .ckpt file, or a name")],
    out: Annotated[Path, typer.Option(help="The file: .npz or .safetensors")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Other images than the run's own, as for train.py: data=... data.root=..."),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="A layer group or a module; else what the head sees")] = None,
    pool: Annotated[str, typer.Option(metavar="avg|none", help="The mean over positions, or all of them")] = "avg",
    split: Annotated[str, typer.Option(metavar="train|val|test|all", help="Of these images")] = "all",
    config_dir: ConfigDir = None,
    batch_size: Batch = 64,
    device: Device = "auto",
    trust_repo: TrustRepo = False,
) -> None:
    """Write what a network sees in the images of a data set into a file, with labels, paths and splits."""
    from unfreeze.cores import wait_asleep

    wait_asleep()
    from unfreeze.extracting import check_request, extract_features

    typed = list(overrides or [])
    check_request(model, typed, split=split, out=out)
    shape = extract_features(
        model,
        typed,
        _compose(typed, config_dir) if typed else None,
        layer=layer,
        pool=pool,
        split=split,
        out=out,
        device=device,
        batch_size=batch_size,
        trust_repo=trust_repo,
    )
    sys.stdout.write(f"  {' x '.join(map(str, shape))} float32 · {out}\n")


@cache_app.command("list")
def list_cache(context: typer.Context, folder: CacheDir = None, as_json: AsJson = False) -> None:
    """List the entries: kind, key, what they hold, size, when they were last used, and whether a run uses them now."""
    from unfreeze.cachelist import entries_json, print_entries

    cache = _cache_folder(folder or context.obj)
    items = cache.entries()
    if as_json:
        sys.stdout.write(json.dumps(entries_json(items, cache), indent=2) + "\n")
    else:
        print_entries(items, cache, _console(), now=time.time())


@cache_app.command("clear")
def clear_cache(
    context: typer.Context,
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="Keys, or how they begin")] = None,
    kind: Annotated[str | None, typer.Option(metavar="decoded|features", help="Of this kind only")] = None,
    older_than: Annotated[
        float | None, typer.Option("--older-than", min=0, metavar="DAYS", help="Not used for so many days")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that is not in use")] = False,
    folder: CacheDir = None,
) -> None:
    """Remove the entries for which all that is typed holds; what a run uses stays."""
    from unfreeze.cachelist import clear_entries, select_entries

    cache = _cache_folder(folder or context.obj)
    selected = select_entries(
        cache.entries(),
        prefixes=keys or [],
        kind=kind,
        older_than_days=older_than,
        everything=everything,
        now=time.time(),
    )
    if not clear_entries(selected, cache, _console()):
        raise SystemExit(1)


def _cache_folder(asked: Path | None) -> "CacheFolder":
    """Return the cache folder of the configuration, or another one with the same cap."""
    import yaml

    from unfreeze.cachefolder import CacheFolder, cache_root

    # Read as it stands: to compose all of the configuration takes longer than to list the folder.
    configured = yaml.safe_load((conf_folder() / "config.yaml").read_text(encoding="utf-8"))["cache"]
    if asked is not None and not asked.is_dir():
        raise UnfreezeError(f"cache: --dir: there is no folder {str(asked)!r}; type the cache.dir of your runs")
    return CacheFolder(asked or cache_root(configured["dir"]), configured["gb"])


def _console() -> "Console":
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=120)


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


if __name__ == "__main__":
    main()

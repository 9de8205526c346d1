"""Times what a table of 200,000 labelled rows takes until its splits are cut, and how much memory.

    .venv/bin/python benchmarks/splits.py
    .venv/bin/python benchmarks/splits.py --rows 400000 --groups 120000

The memory is the most that Python and NumPy held beyond what they held before (tracemalloc, in a run of its own, since
tracing slows what it traces), beside the growth of the whole process, polars' own memory included. Each figure is the
median of the repetitions.
"""

import argparse
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl

from results import RESULTS, publish, table
from unfreeze.data.sources.manifest import manifest_source
from unfreeze.data.sources.source import ImageSource
from unfreeze.data.splits.splits import build_splits


def write_tables(folder: Path, options: argparse.Namespace) -> None:
    random = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "image": [f"part{row % 100:02}/image_{row:06}.jpg" for row in range(options.rows)],
            "label": [f"class {label}" for label in random.integers(0, options.classes, options.rows)],
            "group": [f"patient {group}" for group in random.integers(0, options.groups, options.rows)],
        }
    )
    frame.write_csv(folder / "photos.csv")
    frame.write_parquet(folder / "photos.parquet")


def cut(source: ImageSource, *, grouped: bool, folds: int | None) -> None:
    build_splits(
        source.splits,
        source.strata,
        val_fraction=0.1,
        test_fraction=0.1,
        folds=folds,
        fold=None if folds is None else 0,
        groups=source.groups if grouped else None,
    )


def measure(step: str, path: Path, traced: bool) -> float:
    """Return the seconds that a step takes, or the most MB that it holds."""
    work: dict[str, Callable[[ImageSource], object]] = {
        "read": lambda _: manifest_source(path),
        "splits": lambda source: cut(source, grouped=False, folds=None),
        "splits, 5 folds": lambda source: cut(source, grouped=False, folds=5),
        "splits by groups": lambda source: cut(source, grouped=True, folds=None),
        "splits by groups, 5 folds": lambda source: cut(source, grouped=True, folds=5),
    }
    source = manifest_source(path)
    if not traced:
        started = time.perf_counter()
        work[step](source)
        return time.perf_counter() - started
    tracemalloc.start()
    work[step](source)
    return tracemalloc.get_traced_memory()[1] / 1e6


def growth_mb(path: Path) -> float:
    """Return by how much a fresh process grows at the most when it reads a table and cuts splits by groups."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_growth_mb, (path,))


def _growth_mb(path: Path) -> float:
    # Not ru_maxrss, which a process has from the one that started it.
    before = _memory_mb("VmHWM")
    cut(manifest_source(path), grouped=True, folds=None)
    return _memory_mb("VmHWM") - before


def _memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--groups", type=int, default=60_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the section is kept")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tables(folder, options)
        tables = {suffix: folder / f"photos.{suffix}" for suffix in ("csv", "parquet")}
        steps = [(f"read {suffix}", "read", path) for suffix, path in tables.items()]
        cuts = ("splits", "splits, 5 folds", "splits by groups", "splits by groups, 5 folds")
        steps += [(step, step, tables["csv"]) for step in cuts]
        rows = []
        for shown, step, path in steps:
            seconds = statistics.median(measure(step, path, traced=False) for _ in range(options.repeat))
            rows.append([shown, f"{seconds:.2f}", f"{_traced_alone(step, path):.0f}"])
        for suffix, path in tables.items():
            rows.append([f"whole process, {suffix} and splits by groups", "", f"{growth_mb(path):.0f}"])
    size = f"{options.rows:,} rows, {options.classes:,} classes, {options.groups:,} groups"
    lines = table([size, "s", "peak MB"], rows)
    publish("splits", lines, versions={"polars": pl.__version__}, file=options.out)


def _traced_alone(step: str, path: Path) -> float:
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (step, path, True))


if __name__ == "__main__":
    main()

"""A comparison of two runs as text for a terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unfreeze.evaluation.comparison import Comparison

_SHOWN = 20


def print_comparison(comparison: Comparison, names: tuple[str, str], console: Console) -> None:
    """Print the result, and some of the images that differ, those that one run has right first."""
    count = comparison.images
    console.print(f"\n  {count:,} images evaluated by both", highlight=False)
    for name, accuracy, alone in zip(
        names, comparison.accuracies, (comparison.only_first, comparison.only_second), strict=True
    ):
        line = f"  {accuracy:.4f}  {round(accuracy * count):,} right, {alone:,} of them only this run  {name}"
        console.print(Text(line), soft_wrap=True)
    console.print(f"\n  {comparison.sentence}\n", highlight=False)
    if not comparison.differences:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("image", "true", "first", "second", "right"):
        table.add_column(heading, overflow="fold")
    ordered = sorted(comparison.differences, key=lambda each: each.right == "neither")
    for each in ordered[:_SHOWN]:
        table.add_row(*(Text(cell) for cell in (each.image, each.true, each.first, each.second, each.right)))
    console.print(table)
    if len(ordered) > _SHOWN:
        console.print(f"  and {len(ordered) - _SHOWN:,} more; --out differences.csv has all of them", highlight=False)

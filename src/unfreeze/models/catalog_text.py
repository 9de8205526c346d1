"""Table of the networks in the catalogue."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unfreeze.models.catalog import ListedNetwork


def print_networks(listed: Sequence[ListedNetwork], console: Console) -> None:
    """Print networks as a table, and their number."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("source")
    table.add_column("model.name", overflow="fold")
    for name in ("parameters", "GFLOPs", "px", "top-1", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for each in listed:
        table.add_row(
            each.source,
            Text(each.name),
            f"{each.parameters / 1e6:,.1f} M" if each.parameters is not None else "-",
            f"{each.gmacs:,.2f}" if each.gmacs is not None else "-",
            str(each.image_size),
            f"{each.top1:.1f}" if each.top1 is not None else "-",
            "weights here" if each.is_cached else "",
        )
    console.print(table, highlight=False)
    console.print(
        f"  {len(listed):,} networks; GFLOPs count a multiply-add once, as papers do; top-1 on ImageNet-1K in percent "
        "where it is published with the weights",
        highlight=False,
    )

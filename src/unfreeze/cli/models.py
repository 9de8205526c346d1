"""`unfreeze models`."""

from typing import Annotated

import typer

from unfreeze.cli.options import console, print_json


def models(
    pattern: Annotated[str | None, typer.Argument(help="Part of a name, or a pattern such as 'vit_*'")] = None,
    source: Annotated[str | None, typer.Option(metavar="torchvision|timm", help="Only this source")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")] = False,
) -> None:
    """List networks by name: size, cost, input, published accuracy, and whether weights are on this machine."""
    from dataclasses import asdict

    from unfreeze.models.catalog import list_networks

    listed = list_networks(pattern, source=source)
    if as_json:
        print_json([asdict(each) for each in listed])
    else:
        from unfreeze.models.catalog_text import print_networks

        print_networks(listed, console())

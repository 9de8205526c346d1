"""`unfreeze cache`: what later runs use again."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfreeze.cli.options import console, print_json
from unfreeze.config.compose import conf_folder
from unfreeze.errors import UnfreezeError

if TYPE_CHECKING:
    from unfreeze.cache.folder import CacheFolder

cache_app = typer.Typer(
    help="What later runs use again: decoded images, features of frozen backbones.", rich_markup_mode=None
)

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


@cache_app.command("list")
def list_cache(context: typer.Context, folder: CacheDir = None, as_json: AsJson = False) -> None:
    """List the entries: kind, key, what they hold, size, when they were last used, and whether a run uses them now."""
    from unfreeze.cache.listing import entries_json, print_entries

    cache = _folder(folder or context.obj)
    items = cache.entries()
    if as_json:
        print_json(entries_json(items, cache))
    else:
        print_entries(items, cache, console(), now=time.time())


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
    from unfreeze.cache.listing import clear_entries, select_entries

    cache = _folder(folder or context.obj)
    selected = select_entries(
        cache.entries(),
        prefixes=keys or [],
        kind=kind,
        older_than_days=older_than,
        everything=everything,
        now=time.time(),
    )
    if not clear_entries(selected, cache, console()):
        raise SystemExit(1)


def _folder(asked: Path | None) -> "CacheFolder":
    """Return the cache folder of the configuration, or another one with the same cap."""
    import yaml

    from unfreeze.cache.folder import CacheFolder, cache_root

    # Read as it stands: to compose all of the configuration takes longer than to list the folder.
    configured = yaml.safe_load((conf_folder() / "config.yaml").read_text(encoding="utf-8"))["cache"]
    if asked is not None and not asked.is_dir():
        raise UnfreezeError(f"cache: --dir: there is no folder {str(asked)!r}; type the cache.dir of your runs")
    return CacheFolder(asked or cache_root(configured["dir"]), configured["gb"])

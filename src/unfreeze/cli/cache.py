"""`unfreeze cache`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unfreeze.cli.options import console, print_json
from unfreeze.config.compose import conf_folder
from unfreeze.errors import UnfreezeError
from unfreeze.system.files import cache_root

if TYPE_CHECKING:
    from unfreeze.cache.folder import CacheFolder

cache_app = typer.Typer(
    help="Cached data of later runs: decoded images, features of frozen backbones.", rich_markup_mode=None
)

CacheDir = Annotated[Path | None, typer.Option("--dir", help="The cache.dir of your runs; default ~/.cache/unfreeze")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON with full keys instead of a table")]


@cache_app.callback(invoke_without_command=True)
def _cache(context: typer.Context, folder: CacheDir = None, as_json: AsJson = False) -> None:
    """List the cached entries; `unfreeze cache clear` removes some of them."""
    context.obj = folder
    if context.invoked_subcommand is None:
        list_cache(context, None, as_json)


@cache_app.command("list")
def list_cache(context: typer.Context, folder: CacheDir = None, as_json: AsJson = False) -> None:
    """List the entries: kind, key, content, size, last use, and whether a run uses them now."""
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
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="Keys, or prefixes of keys")] = None,
    kind: Annotated[str | None, typer.Option(metavar="decoded|features", help="Only entries of this kind")] = None,
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", min=0, metavar="DAYS", help="Only entries not used for this many days"),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All entries that are not in use")] = False,
    folder: CacheDir = None,
) -> None:
    """Remove the entries that match all options; entries in use stay."""
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

    from unfreeze.cache.folder import CacheFolder

    # Read as it stands: to compose all of the configuration takes longer than to list the folder.
    configured = yaml.safe_load((conf_folder() / "config.yaml").read_text(encoding="utf-8"))["cache"]
    if asked is not None and not asked.is_dir():
        raise UnfreezeError(f"cache: --dir: there is no folder {str(asked)!r}; type the cache.dir of your runs")
    return CacheFolder(asked or cache_root(configured["dir"]), configured["gb"])

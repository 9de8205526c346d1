"""Listing and clearing of the cache: a table of entries, and their selection."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unfreeze.cache.folder import KINDS, CachedItem, CacheFolder
from unfreeze.errors import UnfreezeError, suggest
from unfreeze.system.text import size_text

_DAY_S = 86400.0
_SHORT = 8


def print_entries(items: Sequence[CachedItem], cache: CacheFolder, console: Console, *, now: float) -> None:
    """Print all entries, the most recently used first, and their total size.

    Args:
        items: The entries.
        cache: The cache folder.
        console: The console to print to.
        now: The current time, in seconds since 1970.
    """
    if not items:
        _print(console, f"  nothing is cached in {cache.root}")
        return
    table = Table(box=SIMPLE_HEAD)
    for name in ("kind", "key", "holds"):
        table.add_column(name, overflow="fold")
    for name in ("size", "last used", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for item in sorted(items, key=lambda item: -item.last_used):
        cells = item.kind, item.key[:_SHORT], describe(item), size_text(item.nbytes), ago(now - item.last_used)
        table.add_row(*map(Text, cells), Text("in use", style="green") if item.in_use else "")
    console.print(table, highlight=False)
    total = sum(item.nbytes for item in items)
    _print(console, f"  {count_text(len(items))}, {size_text(total)} of cache.gb={cache.gb:g}, in {cache.root}")


def entries_json(items: Sequence[CachedItem], cache: CacheFolder) -> dict[str, Any]:
    """Return all entries as plain values."""
    return {
        "folder": str(cache.root),
        "cap_bytes": int(cache.gb * 1e9),
        "bytes": sum(item.nbytes for item in items),
        "entries": [
            {
                "kind": item.kind,
                "key": item.key,
                "bytes": item.nbytes,
                "last_used": datetime.fromtimestamp(item.last_used, UTC).isoformat(timespec="seconds"),
                "in_use": item.in_use,
                "meta": item.meta,
            }
            for item in items
        ],
    }


def select_entries(
    items: Sequence[CachedItem],
    *,
    prefixes: Sequence[str],
    kind: str | None,
    older_than_days: float | None,
    everything: bool,
    now: float,
) -> list[CachedItem]:
    """Return the entries that match all given conditions.

    Args:
        items: All entries.
        prefixes: Beginnings of keys, any of which may match; empty for all keys.
        kind: Kind of the content; None for all.
        older_than_days: Least number of days since the last use; None for any.
        everything: Select all entries; excludes other conditions.
        now: The current time, in seconds since 1970.

    Raises:
        UnfreezeError: If there is no condition, conditions are contradictory, or a key or kind does not exist.
    """
    _check_selection(items, prefixes, kind, older_than_days=older_than_days, everything=everything)
    latest = now - older_than_days * _DAY_S if older_than_days is not None else math.inf
    return [
        item
        for item in items
        if (not prefixes or any(_begins(item, prefix) for prefix in prefixes))
        and kind in (None, item.kind)
        and item.last_used <= latest
    ]


def _check_selection(
    items: Sequence[CachedItem],
    prefixes: Sequence[str],
    kind: str | None,
    *,
    older_than_days: float | None,
    everything: bool,
) -> None:
    is_narrowed = bool(prefixes) or kind is not None or older_than_days is not None
    if not is_narrowed and not everything:
        raise UnfreezeError(
            "cache clear: nothing was selected; type a KEY as `unfreeze cache` lists it, "
            f"--kind {'|'.join(KINDS)}, --older-than DAYS, or --all"
        )
    if is_narrowed and everything:
        raise UnfreezeError("cache clear: --all selects everything; leave it out, or leave out the other conditions")
    if kind is not None and kind not in KINDS:
        raise UnfreezeError(f"cache clear: --kind: got {kind!r}, want one of {', '.join(KINDS)}")
    for prefix in prefixes:
        if not prefix or not any(_begins(item, prefix) for item in items):
            keys = suggest(prefix, [item.key[:_SHORT] for item in items]) or "none"
            raise UnfreezeError(f"cache clear: no key begins with {prefix!r}; keys: {keys}")


def clear_entries(selected: Sequence[CachedItem], cache: CacheFolder, console: Console) -> bool:
    """Remove entries that are not in use, and print each result; return whether no removal failed."""
    if not selected:
        _print(console, "  no entry matches; nothing was removed")
        return True
    freed, in_use, failed = [], 0, 0
    for item in selected:
        name = f"{item.kind} {item.key[:_SHORT]}  {describe(item)}, {size_text(item.nbytes)}"
        try:
            is_removed = cache.remove(item)
        except OSError as error:
            failed += 1
            _print(console, f"  can't be removed ({error.strerror}): {name}")
            continue
        freed += [item.nbytes] * is_removed
        in_use += not is_removed
        _print(console, f"  {'removed' if is_removed else 'not removed, in use'}: {name}")
    remaining = f"; {count_text(in_use)} in use" if in_use else ""
    _print(console, f"  {count_text(len(freed))} removed, {size_text(sum(freed))}{remaining}")
    return not failed


def describe(item: CachedItem) -> str:
    """Return the description of an entry on one line: its strings, counts with their units, and lists."""
    parts = []
    for name, value in item.meta.items():
        match value:
            case _ if name == "created":
                continue
            case bool():
                parts += [name] * value
            case int():
                parts.append(f"{value:,} {name}")
            case list():
                parts += [", ".join(map(str, value))] * bool(value)
            case _:
                parts.append(str(value))
    return " · ".join(parts) or "no description"


def ago(seconds: float) -> str:
    """Return a duration in its largest whole unit, such as "2 days ago"."""
    for unit, length_s in (("day", _DAY_S), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= length_s:
            count = int(seconds // length_s)
            return f"{count:,} {unit}{'s' * (count != 1)} ago"
    return "just now"


def count_text(count: int) -> str:
    """Return a number of entries in words."""
    return f"{count:,} {'entry' if count == 1 else 'entries'}"


def _begins(item: CachedItem, prefix: str) -> bool:
    return item.key.startswith(prefix.lower())


def _print(console: Console, line: str) -> None:
    console.print(Text(line), highlight=False, soft_wrap=True)

"""The cache folder as a person sees it: a table of entries, and the words that select some of them."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from unfreeze.cache.folder import KINDS, CachedItem, CacheFolder, size_text
from unfreeze.errors import UnfreezeError, suggest

_DAY_S = 86400.0
_SHORT = 8


def print_entries(items: Sequence[CachedItem], cache: CacheFolder, console: Console, *, now: float) -> None:
    """Print all entries, the one used last first, and what they take.

    Args:
        items: The entries.
        cache: Where they are.
        console: Where to print.
        now: In seconds since 1970.
    """
    if not items:
        _print(console, f"  nothing is kept in {cache.root}")
        return
    table = Table(box=SIMPLE_HEAD)
    for name in ("kind", "key", "holds"):
        table.add_column(name, overflow="fold")
    for name in ("size", "last used", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for item in sorted(items, key=lambda item: -item.last_used):
        cells = item.kind, item.key[:_SHORT], holds(item), size_text(item.nbytes), ago(now - item.last_used)
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
    """Return the entries to clear: those for which all that was typed holds.

    Args:
        items: All entries.
        prefixes: Beginnings of keys, any of which will do; none for all keys.
        kind: Of what they hold; None for all.
        older_than_days: Days since they were last used; None for any.
        everything: What a person types who means all of them.
        now: In seconds since 1970.

    Raises:
        UnfreezeError: If nothing was typed, what was typed contradicts itself, or a key or kind is not there.
    """
    narrowed = bool(prefixes) or kind is not None or older_than_days is not None
    if not narrowed and not everything:
        raise UnfreezeError(
            "cache clear: nothing was selected; type a KEY as `unfreeze cache` lists it, "
            f"--kind {'|'.join(KINDS)}, --older-than DAYS, or --all"
        )
    if narrowed and everything:
        raise UnfreezeError("cache clear: --all is everything; leave it out, or leave out what else was typed")
    if kind is not None and kind not in KINDS:
        raise UnfreezeError(f"cache clear: --kind: got {kind!r}, want one of {', '.join(KINDS)}")
    for prefix in prefixes:
        if not prefix or not any(_begins(item, prefix) for item in items):
            keys = suggest(prefix, [item.key[:_SHORT] for item in items]) or "none"
            raise UnfreezeError(f"cache clear: no key begins with {prefix!r}; keys: {keys}")
    latest = now - older_than_days * _DAY_S if older_than_days is not None else math.inf
    return [
        item
        for item in items
        if (not prefixes or any(_begins(item, prefix) for prefix in prefixes))
        and kind in (None, item.kind)
        and item.last_used <= latest
    ]


def clear_entries(selected: Sequence[CachedItem], cache: CacheFolder, console: Console) -> bool:
    """Remove entries, but for those in use, and print what becomes of each; return whether all might be removed."""
    if not selected:
        _print(console, "  no entry is such; nothing was removed")
        return True
    freed, kept, refused = [], 0, 0
    for item in selected:
        name = f"{item.kind} {item.key[:_SHORT]}  {holds(item)}, {size_text(item.nbytes)}"
        try:
            is_gone = cache.remove(item)
        except OSError as error:
            refused += 1
            _print(console, f"  stays, can't be removed ({error.strerror}): {name}")
            continue
        freed += [item.nbytes] * is_gone
        kept += not is_gone
        _print(console, f"  {'removed' if is_gone else 'stays, in use'}: {name}")
    stays = f"; {count_text(kept)} in use" if kept else ""
    _print(console, f"  {count_text(len(freed))} removed, {size_text(sum(freed))}{stays}")
    return not refused


def holds(item: CachedItem) -> str:
    """Return what an entry holds, in a line: its strings, numbers with what they count, and lists."""
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
    """Return a time that has passed, in the largest whole unit."""
    for unit, length_s in (("day", _DAY_S), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= length_s:
            count = int(seconds // length_s)
            return f"{count:,} {unit}{'s' * (count != 1)} ago"
    return "just now"


def count_text(count: int) -> str:
    """Return a number of entries."""
    return f"{count:,} {'entry' if count == 1 else 'entries'}"


def _begins(item: CachedItem, prefix: str) -> bool:
    return item.key.startswith(prefix.lower())


def _print(console: Console, line: str) -> None:
    console.print(Text(line), highlight=False, soft_wrap=True)

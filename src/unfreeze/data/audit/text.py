"""Text of an audit report."""

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from unfreeze.data.audit.audit import AuditReport, Duplicates, count_pairs
from unfreeze.data.sources.source import SPLIT_NAMES

_BAR_WIDTH = 24
_EIGHTHS = " ▏▎▍▌▋▊▉"
_MOST_ROWS = 40
_MOST_NAMES = 10


def print_audit(report: AuditReport, console: Console) -> None:
    """Print facts and classes as tables, then duplicates, and the problems last."""
    console.print(Group(_facts(report), _classes(report)), highlight=False)
    for line in [*_duplicates(report), *_problems(report)]:
        console.print(line, highlight=False, soft_wrap=True)


def _facts(report: AuditReport) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    sizes = report.sizes
    shown = " · ".join(
        f"{name} {sizes[name]['width']}x{sizes[name]['height']}" for name in ("smallest", "median", "largest")
    )
    small = f" · {sizes['below_32_px']:,} with a side below 32 px" if sizes["below_32_px"] else ""
    rows = [
        (report.name, f"{report.images:,} images, {len(report.classes):,} classes"),
        ("sizes", f"{shown} px · {sizes['different']:,} different{small}"),
        ("files", " · ".join(f"{count:,} {kind}" for kind, count in report.kinds.items())),
        ("imbalance", f"{report.imbalance:.1f} : 1, largest to smallest class of train"),
    ]
    if report.cut:
        rows.append(("splits", f"{' and '.join(report.cut)} held out from train"))
    if report.ignored:
        rows.append(("ignored", f"{len(report.ignored):,} by name: {_some(report.ignored)}"))
    rows += [("" if number else "note", note) for number, note in enumerate(report.notes)]
    for name, text in rows:
        table.add_row(Text(name), Text(text))
    return table


def _classes(report: AuditReport) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=True)
    table.add_column("class")
    for split in SPLIT_NAMES:
        table.add_column(split, justify="right")
    table.add_column("", min_width=_BAR_WIDTH)
    most = max(1, *(counts["train"] for counts in report.classes.values()))
    left_out = len(report.classes) - _MOST_ROWS
    shown = list(report.classes)
    if left_out > 0:
        shown.sort(key=lambda name: -report.classes[name]["train"])
        shown[_MOST_ROWS // 2 : -_MOST_ROWS // 2] = []
    for number, name in enumerate(shown):
        if left_out > 0 and number == _MOST_ROWS // 2:
            table.add_row(f"... {left_out:,} more", *[""] * (len(SPLIT_NAMES) + 1))
        counts = report.classes[name]
        bar = Text(_bar(counts["train"] / most), style="red" if name in report.near_empty else "cyan")
        table.add_row(Text(name), *(f"{counts[split]:,}" if counts[split] else "-" for split in SPLIT_NAMES), bar)
    return table


def _duplicates(report: AuditReport) -> list[Text]:
    lines = []
    for kind, found in (("equal", report.exact), ("near-equal", report.near)):
        if found is None:
            lines.append(Text(f"  {kind} images: not searched for"))
            continue
        lines.append(Text(f"  {kind} images: {_pairs(found)}"))
        lines += [Text(f"    {first}  =  {second}") for first, second in found.examples]
    if sum(counts["test"] for counts in report.classes.values()):
        lines.append(Text(f"  {report.test_in_train:.2%} of the test images are also in train"))
    return lines


def _pairs(found: Duplicates) -> str:
    pairs = [f"{count_pairs(count)} within {split}" for split, count in found.within.items() if count]
    pairs += [f"{count_pairs(count)} across {' and '.join(splits.split())}" for splits, count in found.across.items()]
    return ", ".join(pairs) or "none"


def _problems(report: AuditReport) -> list[Text]:
    lines = [Text("")]
    if report.near_empty:
        few = [f"{name} ({count})" for name, count in report.near_empty.items()]
        lines.append(Text(f"  ! classes with fewer than {report.min_per_class} training images: {_some(few)}"))
    lines += [Text(f"  ! {problem}", style="bold red") for problem in report.problems]
    lines += [Text(f"      {name}: {reason}") for name, reason in report.unreadable.items()]
    return lines if len(lines) > 1 else [Text(""), Text("  no problems found", style="green")]


def _bar(share: float) -> str:
    eighths = round(share * _BAR_WIDTH * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _some(names: "list[str] | tuple[str, ...]") -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")

"""Markdown text and tables, with names of classes escaped."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$:@])")
_FIRST_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"
_RIGHT_TO_LEFT = {"R", "AL", "AN"}
_OVERRIDES = {"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"}
_JOINERS = "\u200c\u200d"


def plain(text: str) -> str:
    """Return text on one line, escaped for Markdown and HTML.

    Invisible and bidirectional control characters are replaced with their code points. Right-to-left text is enclosed
    in isolates, so that it does not reorder the text after it.
    """
    shown = "".join(map(_shown, text))
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shown = _MARKUP.sub(r"\\\1", shown)
    if any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in text):
        return f"{_FIRST_ISOLATE}{shown}{_POP_ISOLATE}"
    return shown


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; its cells are Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _shown(character: str) -> str:
    if character in "\n\r\t":
        return " "
    hidden = unicodedata.category(character) in _OVERRIDES and character not in _JOINERS
    return f"U+{ord(character):04X}" if hidden else character

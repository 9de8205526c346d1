"""Text in Markdown, whatever a person has called a class."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$:@])")
_FIRST_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"
_RIGHT_TO_LEFT = {"R", "AL", "AN"}
_OVERRIDES = {"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"}
_JOINERS = "\u200c\u200d"


def plain(text: str) -> str:
    """Return text on one line of which nothing is taken for Markdown or HTML.

    Characters that show nothing or turn the direction of writing are shown by their code. Text that runs from right to
    left is set apart, so that what follows stays where it is.
    """
    shown = "".join(map(_shown, text))
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shown = _MARKUP.sub(r"\\\1", shown)
    if any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in text):
        return f"{_FIRST_ISOLATE}{shown}{_POP_ISOLATE}"
    return shown


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; its cells are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _shown(character: str) -> str:
    if character in "\n\r\t":
        return " "
    hidden = unicodedata.category(character) in _OVERRIDES and character not in _JOINERS
    return f"U+{ord(character):04X}" if hidden else character

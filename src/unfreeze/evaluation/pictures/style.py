"""How every picture looks, and how it becomes a file or a part of a page."""

import functools
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito 2008: told apart with any colour vision.
BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW)
INK, GREY, PAPER = "#1f2328", "#767676", "#ffffff"
DPI = 150
WIDTH_IN = 5.6
"""Of every chart but those of very many classes: their text has one size on a page, and is readable on a phone."""

_RC: Any = {
    "text.parse_math": False,  # a class may be called $x_1$
    "axes.unicode_minus": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": False,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "font.size": 10,
    "legend.fontsize": 9,
    "axes.titlesize": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "unfreeze",
}
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_LINE = re.compile(r"[\s\x00-\x1f\x7f]+")

Given = ParamSpec("Given")
Drawn = TypeVar("Drawn")


def styled(draw: Callable[Given, Drawn]) -> Callable[Given, Drawn]:
    """Let a function draw in the style of this project, whatever the process has chosen for its own pictures."""

    @functools.wraps(draw)
    def drawing(*args: Given.args, **kwargs: Given.kwargs) -> Drawn:
        with mpl.rc_context(_RC):
            drawn = draw(*args, **kwargs)
            if isinstance(drawn, Figure):
                with _any_characters():
                    drawn.draw_without_rendering()
                drawn.set_layout_engine("none")  # what is laid out stays, whatever it becomes a file of
            return drawn

    return drawing


def new_figure(height_in: float, *, width_in: float = WIDTH_IN) -> Figure:
    """Return an empty figure that no window shows."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes, *, grid: str | None = "both") -> None:
    """Leave out the lines that say nothing, and draw a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    if grid is not None:
        axes.grid(visible=True, axis=grid)  # type: ignore[arg-type]
        axes.set_axisbelow(True)


def shown(name: str, most: int = 24) -> str:
    """Return a name in one line of so many characters at most, its end kept too."""
    text = _LINE.sub(" ", name).strip() or "''"
    if len(text) <= most:
        return text
    tail = most // 4
    return f"{text[: most - tail - 1]}{_ELLIPSIS}{text[-tail:]}"


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_RC), _any_characters():
        figure.savefig(path, dpi=DPI, facecolor=PAPER)


def to_svg(figure: Figure, *, label: str) -> str:
    """Return a figure as an element of a page: its text is text, its ink is the page's.

    Args:
        figure: What to show.
        label: What a screen reader says of it; without markup.
    """
    out = StringIO()
    with mpl.rc_context(_RC), _any_characters():
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'^<svg[^>]*?viewBox="([^"]+)"[^>]*>', _opening(label), svg, count=1, flags=re.DOTALL)
    return svg.replace(INK, "currentColor")


def _opening(label: str) -> str:
    quoted = label.replace("\\", "").replace('"', "'").replace("<", "").replace("&", "and")
    return (
        rf'<svg xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="\1" role="img" aria-label="{quoted}" '
        'style="width: 100%; height: auto">'
    )


@contextmanager
def _any_characters() -> Iterator[None]:
    """Keep matplotlib from remarking on characters that its font has not: it draws boxes, and a browser draws them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield

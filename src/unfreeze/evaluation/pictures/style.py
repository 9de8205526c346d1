"""Style of all pictures, and their output as PNG or inline SVG."""

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

# Okabe and Ito 2008: distinguishable with any colour vision.
BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW)
INK, GREY, PAPER = "#1f2328", "#767676", "#ffffff"
DPI = 150
WIDTH_IN = 5.6
"""Width of all charts except those of very many classes; keeps text one size on a page, and readable on a phone."""

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

Params = ParamSpec("Params")
Drawn = TypeVar("Drawn")


def styled(draw: Callable[Params, Drawn]) -> Callable[Params, Drawn]:
    """Decorate a drawing function to use this project's style instead of the process's rcParams."""

    @functools.wraps(draw)
    def drawing(*args: Params.args, **kwargs: Params.kwargs) -> Drawn:
        with mpl.rc_context(_RC):
            drawn = draw(*args, **kwargs)
            if isinstance(drawn, Figure):
                with _any_characters():
                    drawn.draw_without_rendering()
                drawn.set_layout_engine("none")  # keep this layout in every output format
            return drawn

    return drawing


def new_figure(height_in: float, *, width_in: float = WIDTH_IN) -> Figure:
    """Return an empty figure that is not attached to a window."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes, *, grid: str | None = "both") -> None:
    """Hide the top and right spines, and draw a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    if grid is not None:
        axes.grid(visible=True, axis=grid)  # type: ignore[arg-type]
        axes.set_axisbelow(True)


def shown(name: str, limit: int = 24) -> str:
    """Return a name shortened to one line of at most `limit` characters; its middle is left out."""
    text = _LINE.sub(" ", name).strip() or "''"
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail - 1]}{_ELLIPSIS}{text[-tail:]}"


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_RC), _any_characters():
        figure.savefig(path, dpi=DPI, facecolor=PAPER)


def to_svg(figure: Figure, *, label: str) -> str:
    """Return a figure as an inline SVG element with selectable text and the text colour of the page.

    Args:
        figure: The figure.
        label: Label for screen readers, without markup.
    """
    out = StringIO()
    with mpl.rc_context(_RC), _any_characters():
        no_metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(out, format="svg", transparent=True, metadata=no_metadata)
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
    """Silence matplotlib's warnings of glyphs missing from its font; browsers substitute another font."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield

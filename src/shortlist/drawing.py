"""Figures drawn by matplotlib (extra `plots`), without its global state.

The user's matplotlib settings are not used, and the same figure has the same bytes in
every run.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from shortlist.packages import need_package

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib has no `currentColor`: this placeholder is replaced in the SVG.
INK = "#010203"
BLUE, ORANGE, GREEN = "#4a86d8", "#dd7f1e", "#35a07a"
SERIES = (BLUE, ORANGE, GREEN, "#8e63c4", "#c4474f", "#7d7d7d", "#a98b2d", "#3aa6b9")
_STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # with the metrics of which it is laid out
    "font.size": 9,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "legend.frameon": False,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextlib.contextmanager
def canvas(name: str, size: tuple[float, float]) -> Iterator[Figure]:
    """An empty figure, to be drawn and saved within the context.

    Args:
        name: unique within a page; it makes the ids of an SVG the same in every run.
        size: width and height, inches.

    Raises:
        ResourceError: matplotlib is not installed (`package-missing`).
    """
    need_package("matplotlib", "plots")
    import matplotlib.figure
    import matplotlib.style

    settings = {**_STYLE, "svg.hashsalt": name}
    with matplotlib.style.context(["default", settings]):
        yield matplotlib.figure.Figure(figsize=size)


def is_png_of_ours(head: bytes) -> bool:
    """Whether a file that begins with these bytes is an image of `png_of`."""
    if not head.startswith(b"\x89PNG\r\n\x1a\n"):
        return False
    # A header, the resolution and the data; cameras and editors write more than that.
    resolution = b"pHYs\0\0\x16\x25\0\0\x16\x25\1"
    return head[37:50] == resolution and head[58:62] == b"IDAT"


def png_of(figure: Figure) -> bytes:
    """The figure as a PNG on white, the same bytes in every run."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # The font may lack characters of a name; they are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing", module=".*")
        figure.savefig(
            stream,
            format="png",
            dpi=144,
            transparent=False,
            facecolor="white",
            metadata={"Software": None},
        )
    return stream.getvalue()


def finish(axes: Axes, *, across: bool = False) -> None:
    """Draws grid lines behind the data: horizontal, or vertical with `across`."""
    axes.grid(axis="x" if across else "y")
    axes.set_axisbelow(True)


def short_number(value: float) -> str:
    """A number of at most four digits: 1500 is 1.5k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:.4g}"

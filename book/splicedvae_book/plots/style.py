"""The look of all figures, and what panels are drawn with."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib_inline.backend_inline import set_matplotlib_formats

#: Cell types in developmental order, each with its colour everywhere: the palette of Okabe and
#: Ito (2008), readable without colour vision, with grey in place of its yellow.
COLOURS = {
    "Ductal": "#999999",
    "Ngn3 low EP": "#56B4E9",
    "Ngn3 high EP": "#0072B2",
    "Pre-endocrine": "#CC79A7",
    "Beta": "#009E73",
    "Alpha": "#D55E00",
    "Delta": "#E69F00",
    "Epsilon": "#000000",
}
INK, BLUE, ORANGE, GREEN = "#222222", "#0072B2", "#D55E00", "#009E73"
#: Where a field or a score comes from, each with its colour.
ROLES = {
    "truth": INK,
    "ours": ORANGE,
    "baseline": BLUE,
    "null": "#999999",
    "ceiling": GREEN,
    "paper": "#CC79A7",
}


def use_style() -> None:
    """Set the look of all figures: sharp, and on opaque white, which reads on a dark page too."""
    if get_ipython() is not None:
        set_matplotlib_formats("retina")
    plt.rcdefaults()
    plt.rcParams.update(
        {
            "figure.figsize": (6.4, 3.8),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "font.size": 11,
            "axes.titlesize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, "#56B4E9", "#E69F00"]),
            "legend.frameon": False,
        }
    )


def _panel(ax: Axes | None, **labels) -> Axes:
    ax = plt.figure().add_subplot() if ax is None else ax
    ax.set(**labels)
    return ax


def _canvas(ax: Axes | None, width: float, height: float) -> Axes:
    ax = plt.figure(figsize=(width, height)).add_subplot() if ax is None else ax
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return ax


def _arrow(ax: Axes, start: tuple, end: tuple, colour: str = INK, **style) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 0, **style}
    ax.annotate("", end, start, arrowprops=style)


def _box(ax: Axes, x: float, y: float, text: str, colour: str, size: int = 11) -> None:
    frame = {"boxstyle": "round,pad=0.4", "fc": "white", "ec": colour, "lw": 2}
    ax.text(x, y, text, ha="center", va="center", size=size, bbox=frame)


def _role_colour(name: str, roles: Mapping[str, str] | None) -> str:
    default = "ours" if name.startswith("SplicedVAE") else "baseline"
    return ROLES[(roles or {}).get(name, default)]

"""Drawings: the life of an mRNA, the model, and the two ways from counts to arrows."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from splicedvae.velocity.metrics import EDGES

from .style import BLUE, COLOURS, GREEN, INK, ORANGE, _arrow, _box, _canvas, _panel


def splicing_diagram(ax: Axes | None = None) -> Axes:
    """Draw the life of an mRNA: transcribed with its introns, spliced, degraded.

    Parameters
    ----------
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _canvas(ax, 8.2, 1.5)
    for x, text in ((0.3, "gene"), (2.8, "unspliced, $u$"), (5.6, "spliced, $s$"), (7.9, "gone")):
        ax.text(x, 1.1 if "," in text else 0.65, text, ha="center", va="center", size=13)
    ax.plot([2.3, 3.3], [0.65, 0.65], color=ORANGE, lw=4)  # the intron
    for x in (2.0, 3.1, 5.1, 5.6):
        ax.add_patch(plt.Rectangle((x, 0.5), 0.5, 0.3, fc=BLUE, ec="white", zorder=2))
    for x, rate, name in (
        (0.7, r"$\alpha$", "transcription"),
        (3.8, r"$\beta u$", "splicing"),
        (6.3, r"$\gamma s$", "degradation"),
    ):
        _arrow(ax, (x, 0.65), (x + 1.1, 0.65))
        ax.text(x + 0.55, 0.75, rate, ha="center", va="bottom", size=13)
        ax.text(x + 0.55, 0.5, name, ha="center", va="top", size=10)
    ax.text(2.8, 0.35, "exon, intron, exon", ha="center", va="top", size=9, color="#555555")
    ax.text(5.6, 0.35, "exon, exon", ha="center", va="top", size=9, color="#555555")
    return ax


def architecture(ax: Axes | None = None) -> Axes:
    """Draw scVI and the splicing head, with the shape of each tensor.

    Parameters
    ----------
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _canvas(ax, 9.4, 3.1)
    for x, y, colour, text in (
        (0.7, 2.2, INK, "counts $x$\n$(B, G)$"),
        (2.4, 2.2, BLUE, "encoder\n$G \\to H \\to 2L$"),
        (4.2, 2.2, INK, "latent $z$\n$(B, L)$"),
        (6.2, 2.2, GREEN, "decoder\n$L \\to H \\to G$"),
        (8.4, 2.2, GREEN, r"means $\ell\rho$" + "\n$(B, G)$"),
        (6.2, 0.8, ORANGE, "splicing head\n$L + K \\to G$"),
        (8.4, 0.8, ORANGE, "ratios $\\hat p$\n$(B, G)$"),
    ):
        _box(ax, x, y, text, colour, 12)
    for start, end in ((1.3, 1.6), (3.2, 3.55), (4.85, 5.35), (7.05, 7.7)):
        _arrow(ax, (start, 2.2), (end, 2.2))
    _arrow(ax, (4.6, 1.8), (5.3, 1.0), ORANGE)
    _arrow(ax, (7.05, 0.8), (7.75, 0.8), ORANGE)
    _arrow(ax, (0.7, 1.8), (5.3, 0.7), "#777777", ls="--", connectionstyle="angle,angleB=0")
    ax.text(2.9, 0.78, "$K$ components, own count", ha="center", size=11, color="#555555")
    prior = r"$w_g \sim \mathcal{N}(C\, l_g, \sigma_g^2)$"
    ax.text(6.2, 0.15, prior, ha="center", size=12, color=ORANGE)
    for y, colour, law in (
        (2.75, GREEN, r"$x \sim \mathrm{NB}(\ell\rho, \phi)$"),
        (0.15, ORANGE, r"$s \sim \mathrm{Binomial}(n, \hat p)$"),
    ):
        ax.text(8.4, y, law, ha="center", size=12, color=colour)
    return ax


def residual(ax: Axes | None = None) -> Axes:
    """Draw what a velocity is in one gene: how far a cell is above or below the line at rest.

    Parameters
    ----------
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax, xlabel="spliced, $M_s$", ylabel="unspliced, $M_u$", xlim=(0, 1), ylim=(0, 0.7))
    slope, t = 0.5, np.linspace(0, 9, 200)
    up = 1 - np.exp(-t), 1 - np.exp(-0.5 * t) - (np.exp(-0.5 * t) - np.exp(-t))
    ax.plot(0.92 * up[1], 0.46 * up[0], color="#bbbbbb", lw=1)
    ax.plot(0.92 * (1 - up[1]), 0.46 * (1 - up[0]), color="#bbbbbb", lw=1)
    ax.plot([0, 1], [0, slope], color=INK, lw=1.5)
    ax.text(0.98, slope + 0.02, r"$M_u = \gamma M_s$: at rest", ha="right", va="bottom", size=11)
    for x, y, colour, text in (
        (0.25, 0.36, ORANGE, "$v > 0$:\nmore is made than lost"),
        (0.68, 0.13, BLUE, "$v < 0$:\nmore is lost than made"),
    ):
        ax.plot(x, y, "o", color=colour, ms=9, zorder=3)
        _arrow(ax, (x, slope * x), (x, y), colour)
        above = y > slope * x
        place = (x, y + 0.04) if above else (x, y - 0.04)
        ax.text(*place, text, ha="center", va="bottom" if above else "top", color=colour, size=11)
    ax.set(xticks=[], yticks=[])
    return ax


def hierarchy(edges: Sequence[tuple[str, str]] = EDGES, ax: Axes | None = None) -> Axes:
    """Draw which cell type comes from which (the paper, Fig. 2A).

    Parameters
    ----------
    edges
        Pairs of cell types, one before the other; together they are a tree.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    children: dict[str, list[str]] = {}
    for a, b in edges:
        children.setdefault(a, []).append(b)
    (root,) = children.keys() - {b for _, b in edges}
    places: dict[str, tuple[float, float]] = {}

    def put(name: str, depth: int, row: float) -> float:
        """Place a type and what comes from it; give the next free row."""
        start = row
        for child in children.get(name, []):
            row = put(child, depth + 1, row)
        row = max(row, start + 1)
        places[name] = 0.7 + 1.75 * depth, (start + row - 1) / 2
        return row

    rows = put(root, 0, 0)
    ax = _canvas(ax, 0.9 + max(x for x, _ in places.values()), 0.62 * rows)
    places = {name: (x, 0.62 * (rows - 0.5 - y)) for name, (x, y) in places.items()}
    for a, b in edges:
        _arrow(ax, places[a], places[b], "#777777", shrinkA=44, shrinkB=44)
    for name, (x, y) in places.items():
        text = name.replace(" EP", "\nEP").replace("-e", "-\ne")
        _box(ax, x, y, text, COLOURS.get(name, INK))
    return ax


def pipelines(ax: Axes | None = None) -> Axes:
    """Draw Velo-Predictor's way to a direction and SplicedVAE's (the paper, Fig. 1A and B).

    Parameters
    ----------
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _canvas(ax, 8.2, 4.6)
    rows = {
        "Velo-Predictor": (
            3.1,
            BLUE,
            (
                "spliced\ncounts",
                "boosted trees,\nthen a logistic\nregression",
                "one of four\nquadrants",
            ),
            ("true $s$ and $u$", "scVelo,\narrows on a UMAP", "cut into\nquadrants"),
        ),
        "SplicedVAE": (
            0.75,
            ORANGE,
            ("total\ncounts", "scVI with a\nsplicing head", "ratios, then\nscVelo: arrows"),
            ("true $s$ and $u$", None, None),
        ),
    }
    for name, (y, colour, way, labels) in rows.items():
        ax.text(0.1, y + 1.35, name, size=13, weight="bold", color=colour)
        for x, text in zip((0.9, 3.6, 6.7), way, strict=True):
            _box(ax, x, y, text, colour)
        for start, end in ((1.6, 2.55), (4.7, 5.75)):
            _arrow(ax, (start, y), (end, y), colour)
        where = (0.9, 3.6, 6.7)
        for x, text in zip(where, labels, strict=True):
            if text:
                ax.text(x, y + 1.02, text, ha="center", va="center", size=10, color="#555555")
        if labels[1]:
            for start, end in ((1.5, 2.7), (4.6, 6.0)):
                _arrow(ax, (start, y + 1.02), (end, y + 1.02), "#999999", ls="--")
            _arrow(ax, (6.7, y + 0.82), (6.7, y + 0.42), "#999999", ls="--")
        else:
            _arrow(ax, (1.5, y + 1.02), (3.6, y + 0.45), "#999999", ls="--")
    ax.text(7.35, 3.72, "labels", size=10, color="#555555")
    ax.text(2.75, 1.72, "teach the head", size=10, color="#555555")
    return ax

"""Drawings: the life of an mRNA, and the model."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from .style import BLUE, GREEN, INK, ORANGE, _arrow, _canvas


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
        frame = {"boxstyle": "round,pad=0.4", "fc": "white", "ec": colour, "lw": 2}
        ax.text(x, y, text, ha="center", va="center", size=12, bbox=frame)
    for start, end in ((1.3, 1.6), (3.2, 3.55), (4.85, 5.35), (7.05, 7.7)):
        _arrow(ax, (start, 2.2), (end, 2.2))
    _arrow(ax, (4.6, 1.8), (5.3, 1.0), ORANGE)
    _arrow(ax, (7.05, 0.8), (7.75, 0.8), ORANGE)
    _arrow(ax, (0.7, 1.8), (5.3, 0.7), "#777777", ls="--", connectionstyle="angle,angleB=0")
    ax.text(2.9, 0.78, "$K$ components, own count", ha="center", size=11, color="#555555")
    prior = r"$w_g \sim \mathcal{N}(C\, l_g, \sigma_g^2)$"
    ax.text(6.2, 0.15, prior, ha="center", size=12, color=ORANGE)
    for y, colour, law in (
        (2.75, GREEN, r"$x \sim \mathrm{NB}(\ell\rho, \theta)$"),
        (0.15, ORANGE, r"$s \sim \mathrm{Binomial}(n, \hat p)$"),
    ):
        ax.text(8.4, y, law, ha="center", size=12, color=colour)
    return ax

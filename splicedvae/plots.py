"""Figures: one function per panel, from arrays and tables to matplotlib Axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.stats import binom

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
INK, BLUE, ORANGE, GREEN, GREY = "#222222", "#0072B2", "#D55E00", "#009E73", "#999999"


def use_style() -> None:
    """Set the look of all figures: opaque white, so that they read on a dark page too."""
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
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", GREY]),
            "legend.frameon": False,
        }
    )


def _panel(ax: Axes | None, **labels: str) -> Axes:
    ax = plt.figure().add_subplot() if ax is None else ax
    ax.set(**labels)
    return ax


def _box(ax: Axes, x: float, y: float, text: str, colour: str = INK, **kwargs) -> None:
    frame = {"boxstyle": "round,pad=0.45", "fc": "white", "ec": colour, "lw": 1.6}
    ax.text(x, y, text, ha="center", va="center", color=INK, bbox=frame, **kwargs)


def _arrow(ax: Axes, start: tuple, end: tuple, text: str = "", colour: str = INK, **kw) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.4, **kw})
    middle = np.add(start, end) / 2
    ax.text(*middle + (0, 0.12), text, ha="center", va="bottom", color=colour)


def _canvas(ax: Axes | None, width: float, height: float) -> Axes:
    ax = plt.figure(figsize=(width, height)).add_subplot() if ax is None else ax
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.axis("off")
    return ax


def splicing_diagram(ax: Axes | None = None) -> Axes:
    """Draw the life of an mRNA: made with its introns, spliced, degraded.

    Parameters
    ----------
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _canvas(ax, 8.4, 2.3)
    for x, title, intron in ((3.1, "unspliced, $u$", True), (5.9, "spliced, $s$", False)):
        parts = (
            [(-0.8, 0.5, BLUE), (-0.3, 0.6, None), (0.3, 0.5, BLUE)]
            if intron
            else [
                (-0.5, 0.5, BLUE),
                (0.0, 0.5, BLUE),
            ]
        )
        for start, width, colour in parts:
            if colour:
                ax.add_patch(plt.Rectangle((x + start, 1.0), width, 0.3, fc=colour, ec="white"))
            else:
                ax.plot([x + start, x + start + width], [1.15, 1.15], color=ORANGE, lw=3)
        ax.text(x, 1.5, title, ha="center", color=INK)
    ax.text(3.1, 0.62, "exon – intron – exon", ha="center", color=GREY, fontsize=9)
    ax.text(5.9, 0.62, "exon – exon", ha="center", color=GREY, fontsize=9)
    ax.text(0.6, 1.15, "gene", ha="center", va="center", color=INK)
    ax.text(7.9, 1.15, "gone", ha="center", va="center", color=GREY)
    for start, end, rate, name in (
        (1.0, 2.2, r"$\alpha$", "transcription"),
        (4.0, 5.3, r"$\beta\,u$", "splicing"),
        (6.5, 7.5, r"$\gamma\,s$", "degradation"),
    ):
        _arrow(ax, (start, 1.15), (end, 1.15), rate)
        ax.text((start + end) / 2, 0.2, name, ha="center", color=INK, fontsize=10)
    return ax


def ratio_against_depth(s: np.ndarray, n: np.ndarray, p: float, ax: Axes | None = None) -> Axes:
    """One gene: each cell's ratio against its n, and where 95 % would lie by chance.

    Parameters
    ----------
    s, n
        Spliced and total counts (cells,).
    p
        The ratio that the binomial band assumes in every cell.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax, xlabel="molecules, $n$", ylabel="observed ratio, $r = s / n$")
    grid = np.arange(1, n.max() + 1)
    low, high = (binom.ppf(q, grid, p) / grid for q in (0.025, 0.975))
    ax.fill_between(grid, low, high, step="mid", color=BLUE, alpha=0.2, lw=0, label="95 % band")
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(n))
    seen = n > 0
    ax.plot(
        (n + jitter)[seen],
        (s / np.maximum(n, 1))[seen],
        "o",
        ms=2.5,
        alpha=0.35,
        color=INK,
        mew=0,
        label="a cell",
    )
    ax.axhline(p, color=ORANGE, label="gene mean")
    ax.legend(loc="lower right")
    return ax


def ratio_by_cluster(ratio: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """A violin per cell type: its genes' pooled ratios, with quartiles (the paper, Fig. 3A).

    Parameters
    ----------
    ratio
        Genes × cell types; missing where a gene has too few counts.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    names = [name for name in COLOURS if name in ratio]
    ax = _panel(ax, ylabel="pooled ratio of a gene")
    values = [ratio[name].dropna() for name in names]
    violins = ax.violinplot(values, showextrema=False, widths=0.85)
    for body, name in zip(violins["bodies"], names, strict=True):
        body.set(facecolor=COLOURS[name], alpha=0.75, edgecolor=INK)
    for x, value in enumerate(values, 1):
        low, middle, high = np.quantile(value, [0.25, 0.5, 0.75])
        ax.vlines(x, low, high, color=INK, lw=3)
        ax.plot(x, middle, "o", color="white", mec=INK, ms=5)
    ax.set_xticks(range(1, len(names) + 1), names, rotation=35, ha="right")
    ax.set_ylim(0, 1)
    return ax


def error_bound(scores: pd.DataFrame, paper: tuple[float, float], ax: Axes | None = None) -> Axes:
    """RMSE against r, and for each target the curve SD √(1 − r²) that no predictor goes below.

    Parameters
    ----------
    scores
        A line per target, with columns ``sd``, ``rmse`` and ``r``.
    paper
        The paper's r and RMSE.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax, xlabel="Pearson $r$", ylabel="RMSE", xlim=(0, 1), ylim=(0, None))
    r = np.linspace(0, 1, 400)
    for colour, (name, row) in zip(
        (BLUE, GREEN, "#CC79A7", "#E69F00"), scores.iterrows(), strict=False
    ):
        ax.plot(r, row["sd"] * np.sqrt(1 - r**2), color=colour, label=f"{name}: lower bound")
        ax.plot(row["r"], row["rmse"], "o", color=colour, mec=INK, ms=8)
    ax.plot([], [], "o", color="white", mec=INK, ms=8, label="gene mean")
    ax.plot(*paper, "*", color=ORANGE, mec=INK, ms=17, ls="", label="the paper")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=10)
    return ax


def architecture(ax: Axes | None = None) -> Axes:
    """Draw scVI with the splicing head, with the shape of each tensor.

    Parameters
    ----------
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _canvas(ax, 11, 4.2)
    for x, y, text, colour in (
        (0.9, 2.9, "counts $x$\n$(B, G)$", INK),
        (2.8, 2.9, "encoder\n$G \\to 128 \\to 2L$", BLUE),
        (4.9, 2.9, "$q(z \\mid x)$\n$\\mu, \\sigma\\;(B, L)$", BLUE),
        (6.5, 2.9, "$z$\n$(B, L)$", INK),
        (8.3, 2.9, "NB decoder\n$L \\to 128 \\to G$", GREEN),
        (10.2, 2.9, "$\\ell\\rho,\\ \\theta$\n$(B, G)$", GREEN),
        (8.3, 1.0, "splicing head\n$L \\to G$", ORANGE),
        (10.2, 1.0, "ratio $p$\n$(B, G)$", ORANGE),
    ):
        _box(ax, x, y, text, colour, fontsize=11)
    for start, end in ((1.5, 1.85), (3.8, 4.15), (5.65, 6.05), (6.95, 7.3), (9.3, 9.65)):
        _arrow(ax, (start, 2.9), (end, 2.9))
    _arrow(ax, (6.7, 2.4), (7.35, 1.2), colour=ORANGE)
    _arrow(ax, (9.25, 1.0), (9.6, 1.0), colour=ORANGE)
    _arrow(ax, (0.9, 2.4), (7.3, 0.85), colour=GREY, ls="--", connectionstyle="angle,angleB=0")
    ax.text(3.9, 0.95, "each gene's own total", ha="center", color="#666666")
    ax.text(10.2, 3.6, "$x \\sim \\mathrm{NB}$", ha="center", color=GREEN)
    ax.text(10.2, 0.25, "$s \\sim \\mathrm{Binomial}(n, p)$", ha="center", color=ORANGE)
    ax.text(5.0, 3.8, "scVI", ha="center", color=INK, weight="bold")
    ax.text(8.3, 0.25, "new", ha="center", color=ORANGE, weight="bold")
    return ax


def history(curves: Mapping[str, Sequence[float]], score: str, ax: Axes | None = None) -> Axes:
    """A score by epoch on training and validation cells.

    Parameters
    ----------
    curves
        ``model.history``, or lists under the same names.
    score
        Such as ``"elbo"``: what stands before ``_train`` and ``_validation``.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax, xlabel="epoch", ylabel=score.replace("_", " "))
    for part, style in (("train", "-"), ("validation", "--")):
        values = np.ravel(curves[f"{score}_{part}"]).astype(float)
        ax.plot(range(1, len(values) + 1), values, style, label=part)
    ax.legend()
    return ax

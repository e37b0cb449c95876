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
INK, BLUE, ORANGE, GREEN = "#222222", "#0072B2", "#D55E00", "#009E73"


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
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9"]),
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


def ratio_against_depth(s: np.ndarray, n: np.ndarray, p: float, ax: Axes | None = None) -> Axes:
    """One gene: ratios against n, dots as large as the cells are many, and a binomial band.

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
    ax = _panel(ax, xlabel="molecules in the cell, $n$", ylabel="observed ratio, $r = s / n$")
    grid = np.arange(1, n.max() + 1)
    low, high = (binom.ppf(q, grid, p) / grid for q in (0.025, 0.975))
    ax.bar(grid, high - low, 0.9, low, color=BLUE, alpha=0.2, label="95 % by chance")
    (sizes, many), cells = np.unique([s, n], axis=1, return_counts=True)
    seen = many > 0
    points = many[seen], sizes[seen] / many[seen]
    areas = 4 + 250 * cells[seen] / cells[seen].max()
    ax.scatter(*points, areas, color=INK, lw=0, label="cells")
    ax.set_ylim(-0.06, 1.06)
    ax.axhline(p, color=ORANGE, label="gene mean")
    ax.locator_params(axis="x", integer=True)
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
    names = [name for name in COLOURS if name in ratio and ratio[name].notna().any()]
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
    ax = _panel(ax, xlabel="Pearson $r$", ylabel="RMSE", xlim=(0, 1))
    r = np.linspace(0, 1, 400)
    for name, row in scores.iterrows():
        (line,) = ax.plot(r, row["sd"] * np.sqrt(1 - r**2), label=f"{name}: bound")
        ax.plot(row["r"], row["rmse"], "o", color=line.get_color(), mec=INK, ms=9)
    ax.plot([], [], "o", color="white", mec=INK, ms=9, label="gene mean")
    ax.plot(*paper, "*", color="#F0E442", mec=INK, ms=17, label="the paper")
    ax.set_ylim(0, None)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=10)
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
        (6.2, 0.8, ORANGE, "splicing head\n$L \\to G$"),
        (8.4, 0.8, ORANGE, "ratios $p$\n$(B, G)$"),
    ):
        frame = {"boxstyle": "round,pad=0.4", "fc": "white", "ec": colour, "lw": 2}
        ax.text(x, y, text, ha="center", va="center", size=12, bbox=frame)
    for start, end in ((1.3, 1.6), (3.2, 3.55), (4.85, 5.35), (7.05, 7.7)):
        _arrow(ax, (start, 2.2), (end, 2.2))
    _arrow(ax, (4.6, 1.8), (5.3, 1.0), ORANGE)
    _arrow(ax, (7.05, 0.8), (7.75, 0.8), ORANGE)
    _arrow(ax, (0.7, 1.8), (5.3, 0.7), "#777777", ls="--", connectionstyle="angle,angleB=0")
    ax.text(2.9, 0.78, "each gene's own total", ha="center", size=11, color="#555555")
    for y, colour, law in (
        (2.75, GREEN, r"$x \sim \mathrm{NB}(\ell\rho, \theta)$"),
        (0.15, ORANGE, r"$s \sim \mathrm{Binomial}(n, p)$"),
    ):
        ax.text(8.4, y, law, ha="center", size=12, color=colour)
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
    label = {"elbo": "negative ELBO", "ratio_pearson_r": "ratio, Pearson r"}.get(score)
    ax = _panel(ax, xlabel="epoch", ylabel=label or score.replace("_", " "))
    for part, style in (("train", "-"), ("validation", "--")):
        values = np.ravel(curves[f"{score}_{part}"]).astype(float)
        ax.plot(range(1, len(values) + 1), values, style, label=part)
    ax.locator_params(axis="x", integer=True)
    ax.legend()
    return ax


def embedding(coordinates: np.ndarray, labels: pd.Series, ax: Axes | None = None) -> Axes:
    """Draw cells on two coordinates, each cell type in its colour.

    Parameters
    ----------
    coordinates
        (cells, 2).
    labels
        Cell types, (cells,).
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax)
    labels = np.asarray(labels)
    known = [name for name in COLOURS if name in labels]
    for name in known + sorted(set(labels) - set(known)):
        here = labels == name
        ax.scatter(*coordinates[here].T, s=4, lw=0, label=name, color=COLOURS.get(name, INK))
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
    ax.spines[:].set_visible(False)
    return ax


def scores_over_seeds(
    scores: pd.DataFrame,
    score: str,
    models: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Draw one score of several models, a dot per seed and a bar at their mean.

    Parameters
    ----------
    scores
        Index (model, seed), a column per score.
    score
        The column.
    models
        From top to bottom; names that start with "SplicedVAE" are drawn in another colour.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax, xlabel=score)
    for row, name in enumerate(models):
        values = scores.loc[name, score].to_numpy()
        colour = ORANGE if name.startswith("SplicedVAE") else BLUE
        ax.plot(values, np.full(len(values), row), "o", color=colour, alpha=0.6, ms=6, mew=0)
        ax.plot([values.mean()] * 2, [row - 0.3, row + 0.3], color=colour, lw=2.5)
    ax.axvline(0, color=INK, lw=0.8)
    ax.set_yticks(range(len(models)), models)
    ax.invert_yaxis()
    return ax


def gene_differences(difference: pd.Series, counts: pd.Series, ax: Axes | None = None) -> Axes:
    """Draw a difference per gene against how well the gene is counted.

    Parameters
    ----------
    difference
        Of two models, indexed by gene.
    counts
        Mean total count per cell, indexed by gene.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax, xscale="log", xlabel="mean count per cell", ylabel="difference, nats per cell")
    ax.scatter(counts[difference.index], difference, s=6, lw=0, alpha=0.6, color=BLUE)
    ax.axhline(0, color=INK, lw=0.8)
    ax.axhline(difference.mean(), color=ORANGE, lw=2)
    return ax

"""Panels of training and of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from splicedvae.metrics import paired_interval

from .style import BLUE, INK, ORANGE, ROLES, _panel, _role_colour


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


def scores_over_seeds(
    scores: pd.DataFrame,
    score: str,
    models: Sequence[str],
    roles: Mapping[str, str] | None = None,
    intervals: bool = False,
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
        From top to bottom.
    roles
        As in :func:`cell_scores`, by model.
    intervals
        Add the 95 % t-interval of the mean where there are two seeds or more.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax, xlabel=score)
    for row, name in enumerate(models):
        values = scores.loc[name, score].to_numpy()
        colour = _role_colour(name, roles)
        if intervals and len(values) > 1:
            _, low, high = paired_interval(values, np.zeros(len(values)))
            ax.barh(row, high - low, 0.6, low, color=colour, alpha=0.25, lw=0)
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


def gene_overlap(table: Mapping[str, float], ax: Axes | None = None) -> Axes:
    """Draw what a checkpoint and some cells share.

    Parameters
    ----------
    table
        Of :class:`splicedvae.census.genes.Overlap`.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax, xlim=(0, 1), xlabel="share")
    bars = {
        "checkpoint's genes": "share of the checkpoint",
        "cells' genes": "share of the cells' genes",
        "cells' counts": "share of the counts",
    }
    values = [table[key] for key in bars.values()]
    ax.barh(list(bars), values, color=BLUE, label="shared")
    ax.barh(list(bars), [1 - v for v in values], left=values, color=ROLES["null"], label="not")
    for row, value in enumerate(values):
        ax.text(0.02, row, f"{value:.1%}", color="white", va="center")
    ax.invert_yaxis()
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=2)
    return ax


def by_epoch(curves: Mapping[str, Sequence[Sequence[float]]], ax: Axes | None = None) -> Axes:
    """Draw a score by epoch for several ways to train, a line per seed.

    Parameters
    ----------
    curves
        By name, a list of scores for each seed.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax, xlabel="epoch")
    for colour, (name, seeds) in zip((INK, ORANGE, BLUE), curves.items(), strict=False):
        for i, values in enumerate(seeds):
            label = None if i else name
            ax.plot(range(1, len(values) + 1), values, color=colour, lw=1, alpha=0.7, label=label)
    return ax


def by_cells(scores: pd.DataFrame, score: str, ax: Axes | None = None) -> Axes:
    """Draw a score by the number of training cells, a dot per seed and a line through the means.

    Parameters
    ----------
    scores
        Columns ``start``, ``cells`` and the score.
    score
        The column.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax, xscale="log", xlabel="training cells", ylabel=score)
    groups = scores.groupby("start", sort=False)
    for colour, (name, group) in zip((INK, ORANGE, BLUE), groups, strict=False):
        means = group.groupby("cells")[score].mean()
        ax.plot(group["cells"], group[score], "o", color=colour, ms=4, mew=0, alpha=0.5)
        ax.plot(means.index, means, "-", color=colour, label=name)
    ax.minorticks_off()
    ax.set_xticks(sorted(scores["cells"].unique()), sorted(scores["cells"].unique()))
    return ax

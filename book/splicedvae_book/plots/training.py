"""Panels of training and of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from splicedvae.metrics import paired_interval

from .style import BLUE, INK, ORANGE, _panel, _role_colour


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

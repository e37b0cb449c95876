"""Panels of futures: paths over an embedding, fates in a triangle, a curve of reliability."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from sklearn.neighbors import NearestNeighbors

from .data import _by_cluster
from .style import INK, ORANGE, ROLES, _panel
from .velocity import _frame

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])


def fans(
    points: np.ndarray,
    labels: pd.Series,
    places: np.ndarray,
    paths: np.ndarray,
    n_neighbors: int = 5,
    ax: Axes | None = None,
) -> Axes:
    """Draw paths of futures over an embedding, each point at the mean of its nearest cells.

    Parameters
    ----------
    points
        Cells on the embedding (cells, 2).
    labels
        Their clusters (cells,).
    places
        Their places in the space of the paths (cells, dimensions).
    paths
        (draws, times, followed cells, dimensions), see
        :meth:`splicedvae.futures.model.Futures.paths`.
    n_neighbors
        Cells whose mean a point is drawn at.
    ax
        Where to draw.

    Returns
    -------
    The axes, with a dot where each cell starts.
    """
    ax = _panel(ax)
    _by_cluster(ax, points, labels, s=10, alpha=0.35)
    tree = NearestNeighbors(n_neighbors=n_neighbors).fit(places)
    near = tree.kneighbors(paths.reshape(-1, paths.shape[-1]), return_distance=False)
    drawn = points[near].mean(1).reshape(*paths.shape[:3], 2)
    for cell in range(drawn.shape[2]):
        for path in drawn[:, :, cell]:
            ax.plot(*path.T, color=INK, lw=0.6, alpha=0.4)
        ax.plot(*drawn[0, 0, cell], "o", color=ORANGE, mec=INK, ms=7, zorder=5)
    _frame(ax, points)
    return ax


def fate_triangle(fates: pd.DataFrame, labels: pd.Series, ax: Axes | None = None) -> Axes:
    """Draw each cell between three fates, nearer to those that are likelier.

    Parameters
    ----------
    fates
        Probabilities (cells, three fates); rows are scaled to sum to 1.
    labels
        Clusters of the cells.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax)
    shares = fates.to_numpy()
    shares = shares / np.maximum(shares.sum(1, keepdims=True), 1e-12)
    ax.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, color=INK, lw=1)
    _by_cluster(ax, shares @ CORNERS, labels, s=16, alpha=0.6)
    for name, corner, side in zip(fates, CORNERS, ("top", "top", "bottom"), strict=True):
        ax.annotate(
            name,
            corner,
            (0, -5 if side == "top" else 5),
            textcoords="offset points",
            ha="center",
            va=side,
        )
    _frame(ax, np.vstack([CORNERS, [[0.5, -0.08], [0.5, 0.95]]]))
    return ax


def reliability_curve(
    curves: Mapping[str, tuple], roles: Mapping[str, str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw how often what was given a probability came true; on the diagonal, as often as told.

    Parameters
    ----------
    curves
        Name: what :func:`splicedvae.metrics.reliability` gives.
    roles
        Name: role, which decides the colour, see ``splicedvae_book.plots.ROLES``.
    ax
        Where to draw.

    Returns
    -------
    The axes; a larger dot holds more cells.
    """
    ax = _panel(ax, xlabel="told probability", ylabel="observed share")
    ax.plot([0, 1], [0, 1], "--", color=INK, lw=1)
    for name, (told, seen, share) in curves.items():
        colour = ROLES[(roles or {}).get(name, "ours")]
        ax.plot(told, seen, color=colour, lw=1.5, label=name)
        ax.scatter(told, seen, s=15 + 150 * np.asarray(share), color=colour, alpha=0.7, lw=0)
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    ax.set_aspect("equal")
    ax.legend(loc="upper left")
    return ax

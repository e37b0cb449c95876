"""Panels of velocity fields."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke
from scipy.special import i0e
from scipy.stats import gaussian_kde

from splicedvae.velocity.steady_state import quiet_scvelo

from .data import _by_cluster
from .style import COLOURS, INK, ORANGE, _panel, _role_colour

CONCENTRATION = 30  # of the kernel that smooths a rose: a standard deviation of 10 degrees


def _frame(ax: Axes, points: np.ndarray) -> None:
    low, high = points.min(0), points.max(0)
    margin = 0.04 * (high - low).max()
    (left, bottom), (right, top) = low - margin, high + margin
    ax.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="box")
    ax.spines[:].set_visible(False)


def _named(ax: Axes, points: np.ndarray, labels: pd.Series, above: float = 0) -> None:
    """Write each cluster's name in its middle, or some points above it."""
    middle = pd.DataFrame(points).groupby(labels.to_numpy(), observed=True).median()
    style = {"ha": "center", "va": "bottom" if above else "center", "size": 9, "zorder": 5}
    halo = {"path_effects": [withStroke(linewidth=3, foreground="white")]}
    for name, place in middle.iterrows():
        ax.annotate(name, place, (0, above), textcoords="offset points", **style, **halo)


def _coloured(points: np.ndarray, values: np.ndarray, label: str, ax: Axes | None, **style) -> Axes:
    """Cells coloured by a number, the largest on top."""
    ax = _panel(ax)
    order = np.argsort(np.abs(values))
    dots = ax.scatter(*points[order].T, s=8, lw=0, c=values[order], **style)
    ax.figure.colorbar(dots, ax=ax, label=label, shrink=0.7, pad=0.02)
    _frame(ax, points)
    return ax


def stream(
    adata: AnnData,
    vkey: str = "velocity",
    basis: str = "umap",
    cluster_key: str = "clusters",
    ax: Axes | None = None,
) -> Axes:
    """Draw streamlines of a velocity among named cells, by scVelo (the paper, Fig. 3H and I).

    Parameters
    ----------
    adata
        Cells with a velocity, see :func:`splicedvae.velocity.fit`; they stay as they are.
    vkey, basis
        Name of the velocity and of the embedding.
    cluster_key
        Column of ``obs`` with the clusters.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    points, arrows = (np.asarray(adata.obsm[k])[:, :2] for k in (f"X_{basis}", f"{vkey}_{basis}"))
    ax = _panel(ax)
    _by_cluster(ax, points, adata.obs[cluster_key], s=14, alpha=0.5)
    _named(ax, points, adata.obs[cluster_key])
    cells = AnnData(obs=adata.obs[[]], obsm={f"X_{basis}": points})  # scVelo writes colours
    style = {"density": 1.2, "linewidth": 0.9, "arrow_size": 0.8, "arrow_color": INK}
    given = {"basis": basis, "V": arrows, "vkey": vkey, "size": 0, "title": ""}
    with quiet_scvelo() as scv:
        scv.pl.velocity_embedding_stream(cells, ax=ax, show=False, **given, **style)
    _frame(ax, points)
    return ax


def field_angles(
    angles: Mapping[str, np.ndarray],
    roles: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a rose for each field: how often arrows point where (the paper, Fig. 3J).

    The area is the share of cells. The dashed circle is a field that points everywhere alike, and
    a curve reaches 4× where arrows are four times as dense.

    Parameters
    ----------
    angles
        Field: degrees clockwise from north, (cells,).
    roles
        As in :func:`cell_scores`; without them each field has a colour of its own.
    ax
        Polar axes.

    Returns
    -------
    The axes.
    """
    ax = plt.figure(figsize=(4.4, 4.8)).add_subplot(projection="polar") if ax is None else ax
    grid = np.linspace(0, 2 * np.pi, 361)
    for name, degrees in angles.items():
        kernel = CONCENTRATION * (np.cos(grid - np.radians(degrees)[:, None]) - 1)
        radius = np.sqrt(np.exp(kernel).mean(0) / i0e(CONCENTRATION))
        ax.plot(grid, radius, lw=2, label=name, color=_role_colour(name, roles) if roles else None)
    ax.plot(grid, np.ones_like(grid), "--", color=INK, lw=1)
    ax.set(theta_zero_location="N", theta_direction=-1, rlabel_position=135)
    ax.set_xticks(np.radians([0, 90, 180, 270]), ["N", "E", "S", "W"])
    ax.set_yticks([1, 2], ["1×", "4×"])
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08))
    return ax


def cell_scores(
    values: Mapping[str, np.ndarray],
    roles: Mapping[str, str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how a score such as the cosine is distributed over cells, by field (Fig. 3F).

    Parameters
    ----------
    values
        Field: score of each cell, (cells,); from top to bottom.
    roles
        Field: ``"truth"``, ``"ours"``, ``"baseline"``, ``"null"`` or ``"ceiling"``, which decides
        its colour; unless given, ours if the name starts with "SplicedVAE", else baseline.
    ax
        Where to draw.

    Returns
    -------
    The axes, with the density, the quartiles (bar) and the mean (dot) of each field.
    """
    ax = _panel(ax)
    for row, (name, value) in enumerate(values.items()):
        grid = np.linspace(value.min(), value.max(), 200)
        density = gaussian_kde(value)(grid)
        top = row - 0.85 * density / density.max()
        ax.fill_between(grid, row, top, color=_role_colour(name, roles), alpha=0.6, lw=0)
        ax.plot(np.quantile(value, [0.25, 0.75]), [row] * 2, color=INK, lw=3)
        ax.plot(value.mean(), row, "o", color="white", mec=INK, ms=6)
    ax.axvline(0, color=INK, lw=0.8)
    ax.set_yticks(range(len(values)), list(values))
    ax.invert_yaxis()
    return ax


def phase_portrait(
    adata: AnnData,
    gene: str,
    vkey: str = "velocity",
    cluster_key: str = "clusters",
    ax: Axes | None = None,
) -> Axes:
    """Draw a gene's unspliced against spliced abundance, and the line of its steady state.

    Parameters
    ----------
    adata
        Cells with a velocity, see :func:`splicedvae.velocity.fit`.
    gene
        Its name.
    vkey
        Name of the velocity.
    cluster_key
        Column of ``obs`` with the clusters.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    column = adata.var_names.get_loc(gene)
    moments = np.column_stack([adata.layers[name][:, column] for name in ("Ms", "Mu")])
    ax = _panel(ax, xlabel=f"{gene}, spliced", ylabel=f"{gene}, unspliced")
    _by_cluster(ax, moments, adata.obs[cluster_key])
    ax.axline((0, 0), slope=adata.var.loc[gene, f"{vkey}_gamma"], color=INK, lw=1.2)
    return ax


def gene_velocity(
    adata: AnnData,
    gene: str,
    vkey: str = "velocity",
    basis: str = "umap",
    ax: Axes | None = None,
) -> Axes:
    """Draw one gene's velocity on the embedding (the paper, Fig. 3L).

    Parameters
    ----------
    adata
        Cells with a velocity, see :func:`splicedvae.velocity.fit`.
    gene
        Its name.
    vkey, basis
        Name of the velocity and of the embedding.
    ax
        Where to draw.

    Returns
    -------
    The axes; colours end at the 98 % quantile of the magnitude.
    """
    values = adata.layers[vkey][:, adata.var_names.get_loc(gene)]
    limit = np.quantile(np.abs(values), 0.98)
    style = {"cmap": "coolwarm", "vmin": -limit, "vmax": limit}
    points = np.asarray(adata.obsm[f"X_{basis}"])[:, :2]
    return _coloured(points, values, f"velocity of {gene}", ax, **style)


def transitions(
    coordinates: np.ndarray, labels: pd.Series, confidence: pd.DataFrame, ax: Axes | None = None
) -> Axes:
    """Draw cell types and the ways between them, as wide as they are certain (Fig. 3M).

    Parameters
    ----------
    coordinates
        (cells, 2).
    labels
        Cell types, (cells,).
    confidence
        Of the way from a row's cell type to a column's; 0 for none. After
        ``scv.tl.paga(adata, groups="clusters")`` it is
        ``scv.get_df(adata, "paga/transitions_confidence").T``.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax)
    _by_cluster(ax, coordinates, labels, s=10, alpha=0.25)
    _frame(ax, coordinates)
    centres = {}
    for dots in list(ax.collections):
        name, centre = dots.get_label(), np.median(np.asarray(dots.get_offsets()), axis=0)
        dots.set_label("")
        ax.scatter(*centre, s=170, color=COLOURS.get(name, INK), ec="white", label=name, zorder=3)
        centres[name] = centre
    _named(ax, coordinates, labels, 8)
    widths = 0.5 + 4 * confidence / confidence.to_numpy().max()
    style = {"arrowstyle": "-|>", "mutation_scale": 15, "color": INK, "zorder": 4}
    bend = {"shrinkA": 7, "shrinkB": 8, "connectionstyle": "arc3,rad=0.1"}
    for a, row in confidence.iterrows():
        for b in row.index[row > 0]:
            lw = widths.loc[a, b]
            ax.add_patch(FancyArrowPatch(centres[a], centres[b], lw=lw, **style, **bend))
    return ax


def uncertainty(
    coordinates: np.ndarray, spread: np.ndarray, worst: float = 0.05, ax: Axes | None = None
) -> Axes:
    """Draw how far a cell's sampled directions disagree; those that do so most have a ring.

    Parameters
    ----------
    coordinates
        (cells, 2).
    spread
        Circular spread of its arrows, 1 − the length of their mean direction, (cells,): 0 if they
        are parallel, near 1 if they point everywhere.
    worst
        Share of the cells to mark.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _coloured(coordinates, spread, "circular spread", ax, cmap="viridis_r", vmin=0)
    marked = coordinates[spread >= np.quantile(spread, 1 - worst)]
    ax.scatter(*marked.T, s=34, fc="none", ec=ORANGE, lw=1)
    return ax

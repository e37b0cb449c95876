"""Panels of counts and ratios, and of cells on two coordinates."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.stats import binom

from splicedvae.simulate import kinetics

from .style import BLUE, COLOURS, GREEN, INK, ORANGE, ROLES, _panel


def switched_on_and_off(gamma: float = 1.2, t_off: float = 8.0) -> np.ndarray:
    """A gene that is switched on at 0 and off later: u and s, their ratio, the phase portrait.

    Parameters
    ----------
    gamma
        Degradation rate in units of the splicing rate.
    t_off
        When it is switched off, in units of one over the splicing rate.

    Returns
    -------
    The three axes.
    """
    on, off = np.linspace(0, t_off, 400), np.linspace(0, 0.75 * t_off, 300)
    rising = np.array(kinetics(0.05, 0.05 / gamma, 1.0, gamma, on))
    falling = np.array(kinetics(*rising[:, -1], 0.05, gamma, off))
    time = np.concatenate([on, t_off + off])
    u, s = np.concatenate([rising, falling], axis=1)
    axes = plt.figure(figsize=(9.6, 3.2)).subplots(1, 3)
    axes[0].plot(time, u, color=ORANGE, label="unspliced, $u$")
    axes[0].plot(time, s, color=BLUE, label="spliced, $s$")
    axes[0].legend(loc="upper right", bbox_to_anchor=(1.02, 1.18), ncols=2, columnspacing=1)
    axes[0].set(xlabel=r"time, in $1/\beta$", ylabel="molecules, relative", ylim=(0, 1.25))
    axes[1].plot(time, s / (s + u), color=INK)
    axes[1].axhline(1 / (1 + gamma), color=ROLES["null"], ls="--")
    axes[1].text(time[-1], 1 / (1 + gamma) - 0.04, "at rest", ha="right", color="#666666")
    axes[1].set(xlabel=r"time, in $1/\beta$", ylabel="ratio, $p = s / (s + u)$")
    for part, name, colour, at in ((rising, "on", GREEN, 60), (falling, "off", INK, 45)):
        axes[2].plot(part[1], part[0], color=colour, label=f"switched {name}")
        here, there = part[::-1, at], part[::-1, at + 12]
        axes[2].annotate("", there, here, arrowprops={"arrowstyle": "-|>", "color": colour})
    rest = np.array([0, s.max()])
    axes[2].plot(rest, gamma * rest, color=ROLES["null"], ls="--", label="at rest")
    axes[2].set(xlabel="spliced, $s$", ylabel="unspliced, $u$")
    axes[2].legend(loc="lower right", fontsize=9)
    return axes


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
    ax.axhline(p, color=ROLES["null"], lw=2, label="gene mean")
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
        A line per target, with columns ``sd``, ``rmse`` and ``R``.
    paper
        The paper's R and RMSE.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax, xlabel="Pearson correlation $R$", ylabel="RMSE", xlim=(0, 1))
    r = np.linspace(0, 1, 400)
    for name, row in scores.iterrows():
        (line,) = ax.plot(r, row["sd"] * np.sqrt(1 - r**2), label=f"{name}: bound")
        ax.plot(row["R"], row["rmse"], "o", color=line.get_color(), mec=INK, ms=9)
    ax.plot([], [], "o", color="white", mec=INK, ms=9, label="gene mean")
    ax.plot(*paper, "*", color=ROLES["paper"], mec=INK, ms=17, label="the paper")
    ax.set_ylim(0, None)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=10)
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
    ax = _panel(ax, xticks=[], yticks=[])
    _by_cluster(ax, coordinates, labels)
    ax.set_aspect("equal", adjustable="datalim")
    ax.spines[:].set_visible(False)
    return ax


def _by_cluster(ax: Axes, points: np.ndarray, labels: pd.Series, **style) -> None:
    """Dots, each cell type in its colour and under its name."""
    labels, style = np.asarray(labels), {"s": 4, "lw": 0} | style
    known = [name for name in COLOURS if name in labels]
    for name in known + sorted(set(labels) - set(known)):
        colour = COLOURS.get(name, INK)
        ax.scatter(*points[labels == name].T, color=colour, label=name, **style)

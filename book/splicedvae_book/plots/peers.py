"""Panels on methods that claim a velocity without the two counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.optimize import linear_sum_assignment

from splicedvae.velocity.peers.nosplicevelo import CURVES, GRID

from .style import BLUE, GREEN, INK, ORANGE, ROLES, _arrow, _panel


def ideas(axes: Sequence[Axes], seed: int = 0) -> None:
    """Sketch what five methods take for a velocity, on simulated points.

    Parameters
    ----------
    axes
        Five panels: scTour, VelOT, TFvelo, noSpliceVelo, cascade forest.
    seed
        Seed of the points.
    """
    rng = np.random.default_rng(seed)
    for ax, name in zip(
        axes, ("scTour", "VelOT", "TFvelo", "noSpliceVelo", "cascade forest"), strict=True
    ):
        ax.set(title=name, xticks=[], yticks=[])
    x = np.sort(rng.uniform(0, 3, 60))
    path = np.c_[x, np.sin(x) + rng.normal(0, 0.08, 60)]
    axes[0].scatter(*path.T, s=12, c=x, cmap="cividis")
    _arrow(axes[0], (0.7, 0.25), (1.7, 0.6), BLUE)
    _arrow(axes[0], (1.7, 0.3), (0.7, -0.05), ORANGE)
    axes[0].set(xlabel="latent 1", ylabel="latent 2")
    early, late = (rng.normal(0, 0.3, (8, 2)) + shift for shift in ([0, 0], [1.6, 0.8]))
    cost = ((early[:, None] - late[None]) ** 2).sum(-1)
    for i, j in zip(*linear_sum_assignment(cost), strict=True):
        _arrow(axes[1], early[i], late[j], "#999999", lw=0.8)
    axes[1].plot(*early.T, "o", color=BLUE)
    axes[1].plot(*late.T, "o", color=GREEN)
    axes[1].set(xlabel="component 1", ylabel="component 2")
    angle = rng.uniform(0, 2 * np.pi, 80)
    radius = 1 + rng.normal(0, 0.06, 80)
    axes[2].plot(radius * np.cos(angle), radius * np.sin(angle), ".", color=BLUE)
    _arrow(axes[2], (1.3, -0.3), (1.3, 0.3), ORANGE)
    axes[2].set(xlabel="made − lost", ylabel="expression", aspect="equal", xlim=(-1.5, 1.5))
    q = rng.uniform(0, 1, 40)
    axes[3].plot(q, 2 * q - q**2 + rng.normal(0, 0.03, 40), ".", color=BLUE)
    axes[3].plot(q, q**2 + rng.normal(0, 0.03, 40), ".", color=ORANGE)
    for half in (slice(0, len(GRID)), slice(len(GRID), None)):
        axes[3].plot(*CURVES[half].T, color=INK, lw=1)
    axes[3].text(0.1, 0.75, "rising", color=BLUE)
    axes[3].text(0.6, 0.1, "falling", color=ORANGE)
    axes[3].set(xlabel="mean", ylabel="variance − mean")
    axes[4].set(xlim=(0, 3.2), ylim=(0, 1), xlabel="layers →")
    for step, label in enumerate(("genes", "+ classes", "+ classes")):
        axes[4].text(step + 0.1, 0.75, label, fontsize=8)
        for tree in range(4):
            axes[4].plot(step + 0.25, 0.15 + 0.15 * tree, "^", color=GREEN, ms=9)
        if step < 2:
            _arrow(axes[4], (step + 0.45, 0.38), (step + 1.05, 0.38))


def cosine_and_cbdir(scores: pd.DataFrame, names: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw CBDir against the cosine with the truth, a dot per method and seed.

    Parameters
    ----------
    scores
        Index (model, seed), with the columns ``cosine`` and ``cbdir``.
    names
        Of the methods; the last one is the reference, whose CBDir is a line.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax, xlabel="cosine with the velocity from true counts", ylabel="CBDir")
    *methods, reference = names
    said = []  # places of labels, so that none covers another
    for name in scores.loc[methods, "cbdir"].groupby("model").mean().sort_values().index:
        rows = scores.loc[name]
        ours = name.startswith("SplicedVAE")
        colour = ROLES["ours" if ours else "null" if name.startswith("null") else "baseline"]
        ax.plot(rows["cosine"], rows["cbdir"], "o", color=colour, alpha=0.7, mew=0, zorder=4)
        label = name.split(",")[0].removeprefix("null: ") + ", turned" * ("turned" in name)
        right, height = rows["cosine"].max() + 0.015, rows["cbdir"].mean()
        height = max([height, *(y + 0.06 for x, y in said if abs(x - right) < 0.2)])
        ax.text(
            right,
            height,
            label,
            fontsize=8,
            va="center",
            bbox={"fc": "white", "ec": "none", "pad": 1, "alpha": 0.8},  # over the two lines
        )
        said.append((right, height))
    ax.axhline(scores.loc[reference, "cbdir"].mean(), ls="--", color=INK, lw=1)
    ax.axvline(0, color=INK, lw=0.8)
    return ax

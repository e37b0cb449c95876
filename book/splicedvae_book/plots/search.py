"""Panels of hyperparameter searches, in the look of the other figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from .style import BLUE, INK, ORANGE, ROLES, _panel


def search_history(
    gain: pd.Series, pruned: pd.Series, lines: Mapping[str, float], ax: Axes | None = None
) -> Axes:
    """Draw what each configuration gains, and the best so far.

    Parameters
    ----------
    gain
        Of complete configurations, by number; more is better.
    pruned
        The same of pruned ones, when they were pruned.
    lines
        Values of models that no search chose, by name.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax, xlabel="configuration")
    ax.plot(pruned.index, pruned, "x", color=ROLES["null"], ms=5, label="pruned")
    ax.plot(gain.index, gain, "o", color=BLUE, ms=4, mew=0, alpha=0.8, label="complete")
    ax.step(gain.index, gain.cummax(), where="post", color=ORANGE, label="best so far")
    for (name, value), style in zip(lines.items(), ("-", "--", ":", "-."), strict=False):
        ax.axhline(value, ls=style, color=INK, lw=1, label=name)
    ax.locator_params(axis="x", integer=True)
    return ax


def _ticks(values: pd.Series) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Positions of values in [0, 1], and of the ticks, with their labels."""
    seen = sorted(values.unique())
    if not pd.api.types.is_numeric_dtype(values) or len(seen) < 2:
        codes = {value: i / max(1, len(seen) - 1) for i, value in enumerate(seen)}
        return (
            values.map(codes).to_numpy(),
            np.array(list(codes.values())),
            [str(v).replace("_", "\n") for v in seen],
        )
    scale = np.log if seen[0] > 0 and seen[-1] / seen[0] >= 10 else np.asarray
    low, high = scale(seen[0]), scale(seen[-1])
    if len(seen) > 7:  # a range
        seen = np.geomspace(*seen[:: len(seen) - 1], 3) if scale is np.log else [seen[0], seen[-1]]
    ticks = (scale(np.array(seen, dtype=float)) - low) / (high - low)
    return (
        (scale(values.to_numpy()) - low) / (high - low),
        ticks,
        [f"{v:.0f}" if v >= 10 else f"{v:.2g}" for v in seen],
    )


def parallel_coordinates(
    parameters: pd.DataFrame, gain: pd.Series, best: Sequence[int], ax: Axes | None = None
) -> Axes:
    """Draw each configuration as a line through its parameters, and at the end its gain.

    Parameters
    ----------
    parameters
        Index configurations, a column per parameter.
    gain
        By configuration; more is better.
    best
        Configurations to point out.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = plt.figure(figsize=(8.4, 4.2)).add_subplot() if ax is None else ax
    frame = parameters.assign(rank=gain.rank(pct=True))
    places = {}
    for x, name in enumerate(frame):
        places[name], ticks, labels = _ticks(frame[name])
        ax.axvline(x, color=INK, lw=0.8)
        for tick, label in zip(ticks, labels, strict=True) if name != "rank" else ():
            box = {"facecolor": "white", "alpha": 0.85, "lw": 0, "pad": 0.8}
            ax.text(x + 0.04, tick, label, fontsize=8, va="center", bbox=box, zorder=5)
    lines = pd.DataFrame(places, index=frame.index)
    for number, line in lines.iterrows():
        top = number in best
        jitter = 0 if top else np.random.default_rng(number).normal(0, 0.012)
        style = {"color": ORANGE, "lw": 2, "zorder": 4} if top else {"color": BLUE, "lw": 0.6}
        alpha = 1 if top else 0.25
        ax.plot(np.arange(len(line)), line.to_numpy() + jitter, alpha=alpha, **style)
    names = [name.replace("_", "\n") for name in parameters] + ["rank\non val"]
    ax.set_xticks(range(len(names)), names, fontsize=9)
    ax.set_yticks([])
    ax.set_xlim(-0.3, len(names) - 0.7)
    ax.spines[:].set_visible(False)
    return ax


def slices(parameters: pd.DataFrame, gain: pd.Series, axes: Sequence[Axes]) -> None:
    """Draw the gain against each parameter, with the median of each value or third of a range.

    Parameters
    ----------
    parameters
        Index configurations, a column per parameter.
    gain
        By configuration; more is better.
    axes
        One per parameter.
    """
    for name, ax in zip(parameters, axes, strict=True):
        at, ticks, labels = _ticks(parameters[name])
        jitter = np.random.default_rng(0).uniform(-0.03, 0.03, len(at))
        ax.plot(at + jitter, gain.loc[parameters.index], "o", color=BLUE, ms=3, mew=0, alpha=0.6)
        few = len(np.unique(at)) <= 7
        groups = at if few else np.clip(np.floor(at * 3), 0, 2) / 3 + 1 / 6
        medians = pd.Series(gain.loc[parameters.index].to_numpy()).groupby(groups).median()
        ax.plot(medians.index, medians, "_", color=ORANGE, ms=16, mew=2.5)
        ax.set_xticks(ticks, labels, fontsize=8)
        ax.set_title(name, fontsize=10)
        ax.axhline(0, color=INK, lw=0.8)
        ax.set_xlim(-0.12, 1.12)


def shrinkage(stages: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw what becomes of the chosen configurations' gain when they are tried again.

    Parameters
    ----------
    stages
        Index configurations; a column per stage, in order.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ax = _panel(ax)
    for _, line in stages.iterrows():
        ax.plot(range(len(line)), line, "o-", color=ORANGE, alpha=0.7, ms=5, mew=0)
    ax.plot(range(stages.shape[1]), stages.mean(), "s-", color=INK, lw=2, label="their mean")
    ax.set_xticks(range(stages.shape[1]), stages.columns)
    ax.margins(0.1, 0.3)
    return ax

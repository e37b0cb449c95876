"""Panels of the atlas: who is in the corpus, how well the stream mixes, what it costs."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from .style import BLUE, GREEN, INK, ORANGE, ROLES, _panel

_WAYS = (ROLES["null"], ORANGE, BLUE, GREEN)


def shares_by_rank(shares: pd.DataFrame, named: int = 2, ax: Axes | None = None) -> Axes:
    """Draw each group's share of the cells, from the largest group to the smallest.

    Parameters
    ----------
    shares
        Index groups, a column per way to sample; the first column gives the order.
    named
        How many of the largest are named.
    ax
        Where to draw.

    Returns
    -------
    The axes, logarithmic in the share.
    """
    ax = _panel(ax, yscale="log", xlabel="tissue, by its cells", ylabel="share of the cells, %")
    shares = shares.sort_values(shares.columns[0], ascending=False)
    for name, colour in zip(shares, _WAYS, strict=False):
        ax.plot(range(1, len(shares) + 1), 100 * shares[name], ".-", color=colour, label=name)
    for place, (name, share) in enumerate(shares.iloc[:named, 0].items(), start=1):
        at = {"xytext": (5, 3), "textcoords": "offset points", "fontsize": 9, "color": INK}
        ax.annotate(name, (place, 100 * share), **at)
    return ax


def mixing(entropy: pd.DataFrame, ideal: float, ax: Axes | None = None) -> Axes:
    """Draw how well minibatches mix groups, by how many blocks are read together.

    Parameters
    ----------
    entropy
        Mean entropy of the groups in a minibatch, in nats: index the number of blocks, a column
        per way to store.
    ideal
        The same for minibatches drawn from all cells at random.
    ax
        Where to draw.

    Returns
    -------
    The axes.
    """
    ylabel = "entropy of tissues\nin a minibatch, nats"
    ax = _panel(ax, xlabel="blocks read together", ylabel=ylabel)
    ax.set_xscale("log", base=2)
    for name, colour in zip(entropy, (ORANGE, BLUE), strict=False):
        ax.plot(entropy.index, entropy[name], "o-", color=colour, label=name)
    ax.axhline(ideal, color=INK, lw=1, ls="--", label="cells drawn at random")
    ax.set_ylim(bottom=0)
    ax.set_xticks(entropy.index, [f"{n}" for n in entropy.index])
    ax.minorticks_off()
    return ax


def extrapolation(
    measured: pd.Series, predicted: pd.Series, fitted: int, ax: Axes | None = None, **labels
) -> Axes:
    """Draw what runs of several sizes took, and the line through the smaller ones.

    Parameters
    ----------
    measured
        By number of cells.
    predicted
        The same as the cost model has it, also where nothing was measured.
    fitted
        How many of the smallest runs the cost model has seen.
    ax
        Where to draw.
    **labels
        Of the axes.

    Returns
    -------
    The axes, both logarithmic.
    """
    ax = _panel(ax, xscale="log", yscale="log", xlabel="cells", **labels)
    ax.plot(predicted.index, predicted, "--", color=ROLES["null"], label="cost model")
    seen, held_out = measured.iloc[:fitted], measured.iloc[fitted:]
    ax.plot(seen.index, seen, "o", color=BLUE, label="measured, fitted")
    ax.plot(held_out.index, held_out, "s", color=ORANGE, label="measured, not fitted")
    return ax

"""Pairs of places, now and next, that a model of futures learns from.

Each source has the method ``draw(n, rng)``. It gives n pairs: the place now, the place next, both
(n, dimensions), the time now and the time between, both (n,).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from ..checks import numbers
from ..velocity.steady_state import quiet_scvelo

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def transition_matrix(adata: AnnData, vkey: str) -> sparse.csr_matrix:
    """How likely each neighbour is a cell's next place, by scVelo's graph of a velocity.

    Parameters
    ----------
    adata
        Cells with a velocity, see :func:`splicedvae.velocity.fit`.
    vkey
        Name of the velocity.

    Returns
    -------
    Matrix (cells, cells) whose rows sum to 1.

    Raises
    ------
    KeyError
        There is no such velocity, or it has no graph.
    ValueError
        The graph is of other cells, or leads nowhere.
    """
    if (name := f"{vkey}_graph") not in adata.uns:
        raise KeyError(f"There is no uns[{name!r}]; run sv.velocity.fit with vkey={vkey!r} first.")
    shape = adata.uns[name].shape
    if shape != (adata.n_obs, adata.n_obs):
        raise ValueError(
            f"uns[{name!r}] joins {shape[0]} cells, here are {adata.n_obs}; run sv.velocity.fit "
            "on these cells."
        )
    with quiet_scvelo() as scv:
        matrix = sparse.csr_matrix(scv.utils.get_transition_matrix(adata, vkey=vkey))
    rows = np.asarray(matrix.sum(axis=1)).ravel()
    if not np.isfinite(rows).all() or not rows.any():
        raise ValueError(f"Velocity {vkey!r} leads from no cell to another; fit it again.")
    stuck = sparse.diags_array((rows == 0).astype(float))  # a cell without a way stays
    rows[rows == 0] = 1
    return sparse.csr_matrix(sparse.diags_array(1 / rows) @ matrix + stuck)


def next_cells(
    matrix: sparse.csr_matrix, cells: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """One step of a random walk from each of some cells.

    Parameters
    ----------
    matrix
        From :func:`transition_matrix`.
    cells
        Positions (any shape).
    rng
        Draws the steps.

    Returns
    -------
    Positions of the same shape.
    """
    ends = np.cumsum(matrix.data)
    before = np.concatenate([[0.0], ends])[matrix.indptr]  # the sum before each row
    low, high = before[cells], before[np.asarray(cells) + 1]
    place = np.searchsorted(ends, low + (high - low) * rng.random(np.shape(cells)), side="right")
    # rounding must not lead into the next row
    return matrix.indices[np.minimum(place, matrix.indptr[np.asarray(cells) + 1] - 1)]


class Transitions:
    """Pairs from a velocity: a cell, and a neighbour that velocity points to.

    Time is counted in steps, so one step lies between the two.

    Parameters
    ----------
    adata
        Cells with the velocities.
    places
        Where they lie (cells, dimensions).
    vkeys
        Names of the velocities. Several, such as draws of a model's weights, are mixed: what is
        not known of the velocity then spreads the pairs.
    """

    timed = False

    def __init__(self, adata: AnnData, places: np.ndarray, vkeys: Sequence[str]):
        self.places = places
        matrices = [transition_matrix(adata, vkey) for vkey in vkeys]
        self.matrix = sparse.csr_matrix(sum(matrices) / len(matrices))

    def draw(self, n: int, rng: np.random.Generator) -> Drawn:
        """Draw pairs.

        Parameters
        ----------
        n
            How many.
        rng
            Draws them.

        Returns
        -------
        Now, next, time and time between, see the module.
        """
        now = rng.integers(len(self.places), size=n)
        following = next_cells(self.matrix, now, rng)
        return self.places[now], self.places[following], np.zeros(n), np.ones(n)


class Days:
    """Pairs from cells of several days: each day is moved to the next one with the least effort.

    The pairs of a draw are an optimal assignment by squared distance (Tong et al. 2024, minibatch
    optimal transport), which SciPy finds.

    Parameters
    ----------
    adata
        The cells.
    places
        Where they lie (cells, dimensions).
    time_key
        Column of ``obs`` with the day, a number.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        It does not hold numbers, or holds one day only.
    """

    timed = True

    def __init__(self, adata: AnnData, places: np.ndarray, time_key: str):
        self.places = places
        self.time = numbers(adata, time_key, "day")
        self.days = np.unique(self.time)
        if len(self.days) < 2:
            raise ValueError(
                f"obs[{time_key!r}] holds one day only, {self.days[0]:g}; optimal transport needs "
                "cells of two days. Leave time_key out to learn from the velocity."
            )
        self._cells = [np.flatnonzero(self.time == day) for day in self.days]

    def draw(self, n: int, rng: np.random.Generator) -> Drawn:
        """Draw pairs of one day and the next, which two is drawn too.

        Parameters
        ----------
        n
            How many.
        rng
            Draws them.

        Returns
        -------
        Now, next, time and time between, see the module.
        """
        k = rng.integers(len(self.days) - 1)
        now, following = (self.places[rng.choice(self._cells[i], n)] for i in (k, k + 1))
        _, match = linear_sum_assignment(cdist(now, following, "sqeuclidean"))
        gap = self.days[k + 1] - self.days[k]
        return now, following[match], np.full(n, self.days[k]), np.full(n, gap)

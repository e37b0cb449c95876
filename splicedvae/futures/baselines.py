"""Futures that need no model of them: what a distribution must beat to be worth its training.

All give draws (draws, cells, dimensions), as :meth:`splicedvae.futures.model.Futures.sample` does.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from .pairs import next_cells


def stay_put(places: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Each cell stays where it is.

    Parameters
    ----------
    places
        Of all cells (all cells, dimensions).
    cells
        Positions of those to follow.

    Returns
    -------
    One draw (1, cells, dimensions).
    """
    return places[cells][None]


def carried_on(
    matrix: sparse.csr_matrix, places: np.ndarray, cells: np.ndarray, steps: float
) -> np.ndarray:
    """Each cell goes on along its arrow, the mean step of its transitions.

    Parameters
    ----------
    matrix
        From :func:`splicedvae.futures.pairs.transition_matrix`.
    places, cells
        As for :func:`stay_put`.
    steps
        How many mean steps.

    Returns
    -------
    One draw (1, cells, dimensions).
    """
    return (places + steps * (matrix @ places - places))[cells][None]


def random_walk(
    matrix: sparse.csr_matrix,
    places: np.ndarray,
    cells: np.ndarray,
    steps: int,
    n: int = 50,
    seed: int = 0,
) -> np.ndarray:
    """Each cell walks from neighbour to neighbour, which is what CellRank's chains do.

    Parameters
    ----------
    matrix, places, cells
        As for :func:`carried_on`.
    steps
        Transitions.
    n
        Walks per cell.
    seed
        Of the walks.

    Returns
    -------
    Draws (n, cells, dimensions).
    """
    rng = np.random.default_rng(seed)
    at = np.tile(cells, (n, 1))
    for _ in range(steps):
        at = next_cells(matrix, at, rng)
    return places[at]


def transfer(
    known: np.ndarray, known_futures: np.ndarray, places: np.ndarray, n_neighbors: int = 5
) -> np.ndarray:
    """Each cell has the futures of its nearest cells whose futures are known.

    Nobody has these futures outside of a simulation: this is a yardstick, not a rival.

    Parameters
    ----------
    known
        Places of the cells whose futures are known (known cells, dimensions).
    known_futures
        Their futures (draws, known cells, dimensions).
    places
        Of the cells to follow (cells, dimensions).
    n_neighbors
        How many lend their futures.

    Returns
    -------
    Draws (draws × n_neighbors, cells, dimensions).
    """
    near = NearestNeighbors(n_neighbors=n_neighbors).fit(known).kneighbors(places)[1]
    return np.concatenate([known_futures[:, near[:, k]] for k in range(n_neighbors)])

"""Which state a place belongs to, by the cells around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsClassifier

ELSEWHERE = "elsewhere"


def nearest_states(
    places: np.ndarray, labels: pd.Series, terminal: Sequence[str], n_neighbors: int = 15
) -> Callable[[np.ndarray], np.ndarray]:
    """Learn which states lie where.

    Parameters
    ----------
    places
        Of cells (cells, dimensions).
    labels
        Their states (cells,); cells without a value are not asked.
    terminal
        Two or more states; all others are ``"elsewhere"``.
    n_neighbors
        Labelled cells that are asked about a place.

    Returns
    -------
    A function from places (..., dimensions) to shares (..., states), ``"elsewhere"`` last.

    Raises
    ------
    KeyError
        There is no such state.
    ValueError
        There are fewer than two.
    """
    terminal = list(terminal)
    if len(set(terminal)) < 2:
        raise ValueError(
            f"terminal={terminal} names fewer than two states: with one, each cell's fate is "
            "certain. Name two or more."
        )
    known = labels.notna().to_numpy()
    found = labels[known].astype(str)
    if missing := [name for name in terminal if name not in set(found)]:
        raise KeyError(f"There is no state {missing}; there are {sorted(set(found))}.")
    code = {name: k for k, name in enumerate(terminal)}
    codes = np.array([code.get(name, len(terminal)) for name in found])
    tree = KNeighborsClassifier(min(n_neighbors, len(codes))).fit(places[known], codes)

    def shares(asked: np.ndarray) -> np.ndarray:
        result = np.zeros((*asked.shape[:-1], len(terminal) + 1))
        result[..., tree.classes_] = tree.predict_proba(asked.reshape(-1, asked.shape[-1])).reshape(
            *asked.shape[:-1], -1
        )
        return result

    return shares

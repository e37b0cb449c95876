"""How good a distribution over futures is: proper scores, calibration and distances of two clouds.

Drawn futures are arrays (draws, cells, dimensions); a true future may be one draw or several.
Proper scores are best, on average, for the true distribution and for no other.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist


def _draws(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 3 or not values.size or not np.isfinite(values).all():
        raise ValueError(
            f"{name} has shape {values.shape}; give finite draws × cells × dimensions."
        )
    return values


def energy_score(drawn: np.ndarray, true: np.ndarray) -> np.ndarray:
    r"""Energy score of each cell's drawn futures (Gneiting & Raftery 2007, eq. 22); 0 is best.

    .. math:: \mathrm{E} \|X - y\| - \tfrac12 \, \mathrm{E} \|X - X'\|

    X and X' are two different draws, so that the mean over draws is unbiased. Of one draw it is
    the distance to the truth.

    Parameters
    ----------
    drawn
        Futures (draws, cells, dimensions).
    true
        True futures (true draws, cells, dimensions), over which the score is averaged.

    Returns
    -------
    Array (cells,), in the units of the space.

    Raises
    ------
    ValueError
        Shapes disagree, or values are missing.
    """
    drawn, true = _draws("drawn", drawn), _draws("true", true)
    if drawn.shape[1:] != true.shape[1:]:
        raise ValueError(f"drawn {drawn.shape} and true {true.shape} are of other cells or spaces.")
    n, result = len(drawn), np.empty(drawn.shape[1])
    for cell in range(len(result)):
        x, y = drawn[:, cell], true[:, cell]
        spread = cdist(x, x).sum() / (n * (n - 1)) if n > 1 else 0.0
        result[cell] = cdist(x, y).mean() - spread / 2
    return result


def _fates(probability: np.ndarray, fate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p, fate = np.asarray(probability, dtype=np.float64), np.asarray(fate)
    bad = p.ndim != 2 or not np.isfinite(p).all() or (p < 0).any()
    if bad or not np.allclose(p.sum(1), 1, atol=1e-4):
        raise ValueError(
            "probability must be cells × fates, not negative, with rows that sum to 1."
        )
    if fate.shape == p.shape[:1] and fate.dtype.kind in "iu":
        if fate.min() < 0 or fate.max() >= p.shape[1]:
            raise ValueError(f"fate names {fate.max()}; there are fates 0 to {p.shape[1] - 1}.")
        return p, np.eye(p.shape[1])[fate]
    fate = fate.astype(np.float64)
    if fate.shape != p.shape or not np.allclose(fate.sum(1), 1, atol=1e-4):
        raise ValueError(
            f"fate has shape {fate.shape}; give one whole number for each of the {len(p)} cells, "
            f"or shares of shape {p.shape}."
        )
    return p, fate


def fate_log_loss(probability: np.ndarray, fate: np.ndarray, floor: float = 1e-3) -> float:
    r"""Mean negative log-probability of what happened, in nats: :math:`-\sum_k f_k \log p_k`.

    Parameters
    ----------
    probability
        Predicted (cells, fates); rows sum to 1.
    fate
        Which fate it was (cells,), or the shares of a cell's descendants (cells, fates).
    floor
        Least probability, so that a fate of which no draw told costs much and not infinitely much.

    Returns
    -------
    Its mean over cells.

    Raises
    ------
    ValueError
        Rows don't sum to 1, or shapes disagree.
    """
    p, fate = _fates(probability, fate)
    p = np.maximum(p, floor)
    return float(-(fate * np.log(p / p.sum(1, keepdims=True))).sum(1).mean())


def brier(probability: np.ndarray, fate: np.ndarray) -> float:
    r"""Brier score :math:`\tfrac12 \sum_k (p_k - f_k)^2`, for two fates :math:`(p_1 - f_1)^2`.

    Parameters
    ----------
    probability, fate
        As for :func:`fate_log_loss`.

    Returns
    -------
    Its mean over cells, from 0, the best, to 1.

    Raises
    ------
    ValueError
        As for :func:`fate_log_loss`.
    """
    p, fate = _fates(probability, fate)
    return float(((p - fate) ** 2).sum(1).mean() / 2)


def reliability(
    probability: np.ndarray, fate: np.ndarray, n_bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reliability curve: how often what was given a probability came true.

    Every cell counts once for each fate. Bins are equally wide.

    Parameters
    ----------
    probability, fate
        As for :func:`fate_log_loss`.
    n_bins
        Bins of [0, 1].

    Returns
    -------
    Of each bin that is not empty: mean probability, observed frequency, and share of the entries.

    Raises
    ------
    ValueError
        As for :func:`fate_log_loss`.
    """
    p, fate = (x.ravel() for x in _fates(probability, fate))
    bins = np.minimum((p * n_bins).astype(int), n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    held = count > 0
    means = [np.bincount(bins, x, n_bins)[held] / count[held] for x in (p, fate)]
    return means[0], means[1], count[held] / len(p)


def calibration_error(probability: np.ndarray, fate: np.ndarray, n_bins: int = 10) -> float:
    """Expected calibration error: mean distance of the reliability curve from the diagonal.

    Parameters
    ----------
    probability, fate, n_bins
        As for :func:`reliability`.

    Returns
    -------
    Bins weigh as much as they have entries; 0 is best.

    Raises
    ------
    ValueError
        As for :func:`fate_log_loss`.
    """
    p, frequency, share = reliability(probability, fate, n_bins)
    return float((share * np.abs(p - frequency)).sum())


def sliced_wasserstein(
    a: np.ndarray, b: np.ndarray, n_directions: int = 200, seed: int = 0
) -> float:
    r"""Sliced 2-Wasserstein distance of two clouds (Bonneel et al. 2015).

    The root of the mean, over random directions, of the squared :math:`W_2` of the two clouds'
    projections, which sorting gives exactly.

    Parameters
    ----------
    a, b
        Points (points, dimensions); their numbers may differ.
    n_directions
        Directions on the unit sphere.
    seed
        Of the directions.

    Returns
    -------
    Distance, in the units of the space.

    Raises
    ------
    ValueError
        The clouds have other dimensions.
    """
    a, b = _clouds(a, b)
    directions = np.random.default_rng(seed).normal(size=(a.shape[1], n_directions))
    directions /= np.linalg.norm(directions, axis=0)
    # exact for any two sizes: both quantile functions are steps, which change at these shares
    ends = np.unique(np.concatenate([np.arange(1, len(x) + 1) / len(x) for x in (a, b)]).round(12))
    width, middle = np.diff(ends, prepend=0), ends - np.diff(ends, prepend=0) / 2
    x, y = (np.sort(z @ directions, axis=0)[(middle * len(z)).astype(int)] for z in (a, b))
    return float(np.sqrt((width[:, None] * (x - y) ** 2).sum(0).mean()))


def mmd(a: np.ndarray, b: np.ndarray, bandwidth: float | None = None) -> float:
    r"""Squared maximum mean discrepancy of two clouds, unbiased (Gretton et al. 2012, eq. 3).

    The kernel is Gaussian, :math:`k(x, y) = \exp(-\|x - y\|^2 / 2 h^2)`.

    Parameters
    ----------
    a, b
        Points (points, dimensions), two or more each.
    bandwidth
        h; None for the median distance between points of the two clouds together.

    Returns
    -------
    About 0 for the same distribution; it may be negative.

    Raises
    ------
    ValueError
        The clouds have other dimensions, or one has a single point.
    """
    a, b = _clouds(a, b)
    if min(len(a), len(b)) < 2:
        raise ValueError("Each cloud needs two points or more.")
    if bandwidth is None:
        both = np.concatenate([a, b])
        bandwidth = np.median(cdist(both, both)[np.triu_indices(len(both), 1)])
    within_a, within_b, across = (
        np.exp(-cdist(x, y, "sqeuclidean") / (2 * bandwidth**2))
        for x, y in ((a, a), (b, b), (a, b))
    )
    n, m = len(a), len(b)
    return float(
        (within_a.sum() - n) / (n * (n - 1))
        + (within_b.sum() - m) / (m * (m - 1))
        - 2 * across.mean()
    )


def _clouds(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.asarray(x, dtype=np.float64) for x in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not (len(a) and len(b)):
        raise ValueError(f"a {a.shape} and b {b.shape} must be points × the same dimensions.")
    return a, b

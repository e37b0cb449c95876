"""Penalised binomial regression of many genes at once."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from ._entries import clipped


def linear_ratio(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ratios (cells, genes) of features (cells, d) and weights (1 + d, genes), intercept first."""
    return clipped(expit(weights[0] + x @ weights[1:]))


def ridge_binomial(
    x: np.ndarray,
    spliced: np.ndarray,
    total: np.ndarray,
    l2: float,
    weights: np.ndarray,
    max_iter: int = 50,
    tol: float = 1e-8,
) -> np.ndarray:
    """Penalised binomial regressions of many genes at once, by Newton's method.

    Parameters
    ----------
    x
        Features (cells, d).
    spliced, total
        Counts (cells, genes): s and n = s + u.
    l2
        Penalty on the d slopes; the intercept is free.
    weights
        Start (1 + d, genes), intercept first. Genes seen only spliced or only unspliced keep it.
    max_iter
        Largest number of Newton steps.
    tol
        A gene is done when its Newton decrement, twice the log-likelihood still to gain, is
        smaller.

    Returns
    -------
    Array (1 + d, genes).
    """
    z = np.column_stack([np.ones(len(x)), x])
    width = z.shape[1]
    rows, cols = np.tril_indices(width)
    # Single precision suffices for the curvature: it steers the steps, the gradient ends them.
    products = (z[:, rows] * z[:, cols]).astype(np.float32)
    penalty = np.full((width, 1), float(l2))
    penalty[0] = 0

    def objective(w: np.ndarray, eta: np.ndarray, genes: np.ndarray) -> np.ndarray:
        gain = spliced[:, genes] * eta - total[:, genes] * np.logaddexp(0, eta)
        return gain.sum(0) - (penalty * w**2).sum(0) / 2

    weights = weights.copy()
    sums = spliced.sum(0)
    active = np.flatnonzero((sums > 0) & (sums < total.sum(0)))
    for _ in range(max_iter):
        if not len(active):
            break
        w = weights[:, active]
        eta = z @ w
        p = expit(eta)
        gradient = z.T @ (spliced[:, active] - total[:, active] * p) - penalty * w
        curvature = (total[:, active] * p * (1 - p)).astype(np.float32)
        hessian = np.empty((len(active), width, width))
        hessian[:, rows, cols] = hessian[:, cols, rows] = curvature.T @ products
        hessian += np.diag(penalty[:, 0])
        step = np.linalg.solve(hessian, gradient.T[..., None])[..., 0].T
        decrement = (gradient * step).sum(0)
        before, size = objective(w, eta, active), np.ones(len(active))
        for _ in range(20):  # halve the step of a gene that overshoots
            trial = w + size * step
            worse = objective(trial, z @ trial, active) < before - 1e-9 * np.abs(before)
            if not worse.any():
                break
            size[worse] /= 2
        weights[:, active] = w + np.where(worse, 0, size) * step
        active = active[(decrement > tol) & ~worse]
    return weights

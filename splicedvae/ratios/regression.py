"""Binomial regressions of many genes at once by Newton's method: penalised, and hierarchical."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.special import expit

from ._entries import clipped

DEGREES = 8  # of freedom of the prior over genes: few genes follow the state far more than most
START_VARIANCE = 1e-3  # of a slope on a feature of variance 1, before it is estimated
INTERCEPT_VARIANCE = 1.0  # of an intercept about the gene's mean logit
LOADING_PENALTY = 30.0  # on what loadings say of slopes, in genes
LONGEST_STEP = 2.0  # of a weight in one Newton step
TOLERANCE = 0.005  # EM ends when no more than this share of the weights' norm still moves
MIN_VARIANCE = 1e-6  # of offsets, where all genes' are alike
SURE = 1e-6  # a mode is found when no gene's Newton step is longer
GENES_AT_ONCE = 512  # bounds memory: a few dense arrays of all cells and so many genes


def linear_ratio(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ratios that a regression predicts.

    Parameters
    ----------
    x
        Features (cells, d).
    weights
        (1 + d, genes), the intercept first.

    Returns
    -------
    Array (cells, genes), a little away from 0 and 1.
    """
    return clipped(expit(weights[0] + x @ weights[1:]))


class _Design:
    """Features (cells, d), common to all genes, with an intercept in front; and their products."""

    def __init__(self, x: np.ndarray):
        self.z = np.column_stack([np.ones(len(x), x.dtype), x])
        self.rows, self.cols = np.tril_indices(self.z.shape[1])
        # Single precision suffices for the curvature: it steers the steps, the gradient ends them.
        self.products = (self.z[:, self.rows] * self.z[:, self.cols]).astype(np.float32)

    def derivatives(
        self, residual: np.ndarray, curvature: np.ndarray, own: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (genes, width) of the log-likelihood, and minus its Hessian.

        Its first derivatives by the logits, minus the second ones in single precision, and `own`, a
        last feature of which each gene has its own, are (cells, genes).
        """
        shared, n_genes = self.z.shape[1], residual.shape[1]
        width = shared + (own is not None)
        gradient = np.empty((n_genes, width), self.z.dtype)
        hessian = np.empty((n_genes, width, width), self.z.dtype)
        gradient[:, :shared] = residual.T @ self.z
        products = curvature.T @ self.products
        hessian[:, self.rows, self.cols] = hessian[:, self.cols, self.rows] = products
        if own is not None:
            gradient[:, -1] = (residual * own).sum(0)
            curvature = curvature * own
            hessian[:, -1, :shared] = hessian[:, :shared, -1] = curvature.T @ self.z
            hessian[:, -1, -1] = (curvature * own).sum(0)
        return gradient, hessian


def ridge_binomial(
    x: np.ndarray,
    spliced: np.ndarray,
    total: np.ndarray,
    l2: float,
    weights: np.ndarray,
    max_iter: int = 50,
    tol: float = 1e-4,
) -> np.ndarray:
    """Penalised binomial regressions of many genes at once.

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
    design = _Design(x)
    z = design.z
    penalty = np.full((z.shape[1], 1), float(l2))
    penalty[0] = 0

    weights, sums = weights.copy(), spliced.sum(0)
    active = np.flatnonzero((sums > 0) & (sums < total.sum(0)))
    # entries, gene by gene: where nothing was counted, nothing is to be gained
    gene, cell = np.nonzero(total[:, active].T)
    s, n = spliced[cell, active[gene]], total[cell, active[gene]]

    def objective(w: np.ndarray, eta: np.ndarray) -> np.ndarray:
        first = np.searchsorted(gene, np.arange(w.shape[1]))
        gain = np.add.reduceat(s * eta - n * np.logaddexp(0, eta), first)
        return gain - (penalty * w**2).sum(0) / 2

    w = weights[:, active]
    eta = (z @ w)[cell, gene]
    value = objective(w, eta) if len(active) else None
    for _ in range(max_iter):
        if not len(active):
            break
        p, shape = expit(eta), (len(z), len(active))
        residual, curvature = np.zeros(shape), np.zeros(shape, np.float32)
        residual[cell, gene], curvature[cell, gene] = s - n * p, n * p * (1 - p)
        gradient, hessian = design.derivatives(residual, curvature)
        gradient = gradient.T - penalty * w
        hessian += np.diag(penalty[:, 0])
        step = np.linalg.solve(hessian, gradient.T[..., None])[..., 0].T
        decrement = (gradient * step).sum(0)
        size = np.ones(len(active))
        for _ in range(20):  # halve the step of a gene that overshoots
            trial = w + size * step
            eta = (z @ trial)[cell, gene]
            reached = objective(trial, eta)
            worse = reached < value - 1e-9 * np.abs(value)
            if not worse.any():
                break
            size[worse] /= 2
        weights[:, active] = np.where(worse, w, trial)
        going = (decrement > tol) & ~worse
        active, w, value = active[going], trial[:, going], reached[going]
        kept = going[gene]
        cell, s, n, eta = cell[kept], s[kept], n[kept], eta[kept]
        gene = (np.cumsum(going) - 1)[gene[kept]]
    return weights


def hierarchical_binomial(
    x: np.ndarray,
    own: tuple[sparse.csc_matrix, np.ndarray, np.ndarray] | None,
    spliced: sparse.csc_matrix,
    total: sparse.csc_matrix,
    logit: np.ndarray,
    loadings: np.ndarray,
    n_iter: int = 100,
) -> np.ndarray:
    r"""Binomial regressions whose slopes have a common prior that is estimated from all genes.

    .. math:: \mathrm{logit}\, p_{cg} = a_g + w_g \cdot (x_c, o_{cg}), \qquad
              w_g \sim t_\nu(B\, l_g, \Sigma), \quad a_g \sim \mathcal N(\bar a_g, 1)

    With Laplace's approximation of each gene's posterior, EM maximises the marginal likelihood in
    :math:`B` and :math:`\Sigma`; the t distribution, a normal with a scale per gene, lets few genes
    follow the state far more than most do. :math:`B l_g` says what a gene's loadings, its
    covariances in total expression with the features, tell of its slopes. :math:`\Sigma` is drawn
    to its own diagonal, as if by as many further genes as there are slopes: where genes are few,
    which slopes go together is mostly noise.

    Parameters
    ----------
    x
        Features (cells, d), standardised.
    own
        The feature of which each gene has its own: values (cells, genes), and mean and standard
        deviation of each gene (genes,), by which they are standardised; or None.
    spliced, total
        Counts (cells, genes): s and n = s + u.
    logit
        Mean :math:`\bar a` of each gene (genes,).
    loadings
        :math:`l_g` (genes, k), to which a 1 is added.
    n_iter
        Steps of EM, at most.

    Returns
    -------
    Posterior modes (genes, 1 + d), or (genes, 2 + d) with `own`: intercept, slopes, own slope.
    """
    design = _Design(x.astype(np.float32))
    n_genes, width = len(logit), design.z.shape[1] + (own is not None)
    weights, mean = np.zeros((2, n_genes, width), np.float32)
    posterior = np.empty((n_genes, width, width), np.float32)
    scale = np.ones(n_genes, np.float32)  # of each gene's prior precision
    covariance = np.diag([INTERCEPT_VARIANCE, *[START_VARIANCE] * (width - 1)])
    size = loadings.std(0)
    size[size < 1e-6] = 1  # as of a feature that is constant
    known = np.column_stack([np.ones(n_genes), loadings / size])
    for i in range(n_iter):
        precision, before = np.linalg.inv(covariance).astype(np.float32), weights.copy()
        for genes in np.array_split(np.arange(n_genes), -(-n_genes // GENES_AT_ONCE)):
            s, n, o = spliced[:, genes].toarray(), total[:, genes].toarray(), None
            if own is not None:
                o = (own[0][:, genes].toarray() - own[1][genes]) / own[2][genes]
            tau = scale[genes, None]
            for _ in range(1 if i else 3):  # later ones start next to the mode
                w = weights[genes]
                eta = logit[genes] + design.z @ w[:, : design.z.shape[1]].T
                eta = eta if o is None else eta + o * w[:, -1]
                p = expit(eta)
                curvature = (n * p * (1 - p)).astype(np.float32)
                gradient, hessian = design.derivatives(s - n * p, curvature, o)
                gradient -= tau * ((w - mean[genes]) @ precision)
                hessian += tau[..., None] * precision
                step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
                longest = np.abs(step).max(1, keepdims=True)
                weights[genes] = w + step * (LONGEST_STEP / np.maximum(longest, LONGEST_STEP))
            posterior[genes] = np.linalg.inv(hessian)
        if np.linalg.norm(weights - before) < TOLERANCE * np.linalg.norm(weights):
            break
        # the prior: regression of slopes on loadings, then the spread about it
        right = (known * scale[:, None]).T
        penalty = LOADING_PENALTY * np.eye(known.shape[1])
        mean = (known @ np.linalg.solve(right @ known + penalty, right @ weights)).astype("f4")
        mean[:, 0] = 0
        away = weights - mean
        spread = posterior + away[:, :, None] * away[:, None, :]  # (genes, width, width)
        distance = np.einsum("gij,ij->g", spread, precision)
        scale = ((DEGREES + width) / (DEGREES + distance)).astype("f4")
        sums = np.einsum("g,gij->ij", scale, spread).astype(np.float64)
        covariance = (sums + width * np.diag(np.diag(sums)) / n_genes) / (n_genes + width)
        covariance[0], covariance[:, 0] = 0, 0
        covariance[0, 0] = INTERCEPT_VARIANCE
    weights[:, 0] += logit
    return weights


def gene_offsets(
    logit: np.ndarray, spliced: np.ndarray, total: np.ndarray, n_iter: int = 500
) -> tuple[np.ndarray, np.ndarray, float, float]:
    r"""How far each gene's logit lies from a prediction, with a prior that all genes share.

    .. math:: \mathrm{logit}\, p_{cg} = f_{cg} + \delta_g, \qquad
              \delta_g \sim \mathcal N(\mu, \tau^2)

    With Laplace's approximation of each gene's posterior, EM maximises the marginal likelihood in
    :math:`\mu` and :math:`\tau`: the fewer molecules a gene has, the more its offset is drawn to
    the mean of all genes' (empirical Bayes, Morris 1983).

    Parameters
    ----------
    logit
        Predicted f, (cells, genes).
    spliced, total
        Counts (cells, genes): s and n = s + u, whole or weighted. Genes without counts have the
        prior's offset.
    n_iter
        Steps of EM, at most, each with a Newton step of all genes.

    Returns
    -------
    Mode and standard deviation of each gene's offset, (genes,) each; mean and width of the prior.
    """
    cell, gene = np.nonzero(total)
    f, s, n = logit[cell, gene], spliced[cell, gene], total[cell, gene]
    counted = np.bincount(gene, minlength=logit.shape[1]) > 0
    offset, mean, variance = np.zeros(len(counted)), 0.0, 1.0

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(gene, values, minlength=len(counted))

    def newton(offset: np.ndarray) -> tuple[np.ndarray, ...]:
        """One step of all genes, how long it was, and the curvature where it began."""
        p = expit(f + offset[gene])
        curvature = sums(n * p * (1 - p)) + 1 / variance
        step = (sums(s - n * p) - (offset - mean) / variance) / curvature
        return offset + np.clip(step, -LONGEST_STEP, LONGEST_STEP), step, curvature

    for i in range(n_iter):
        offset, step, curvature = newton(offset)
        if i < 3:  # first near the mode
            continue
        before = mean, variance
        mean = offset[counted].mean()
        variance = max((1 / curvature + (offset - mean) ** 2)[counted].mean(), MIN_VARIANCE)
        moved = max(abs(mean - before[0]), abs(variance / before[1] - 1))
        if moved < 1e-4 and np.abs(step).max() < 1e-3:
            break
    for _ in range(50):
        offset, step, curvature = newton(offset)
        if np.abs(step).max() < SURE:
            break
    return offset, curvature**-0.5, float(mean), float(variance**0.5)

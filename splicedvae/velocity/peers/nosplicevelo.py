r"""noSpliceVelo (Mahajan & Maslov 2024), written anew from the paper, on scvi-tools' VAE.

Genes are transcribed in bursts. After a switch, mean and variance relax to a new steady state, the
variance faster; with :math:`p = e^{-\gamma t}` and the excess :math:`e = \sigma^2 - \mu`,

.. math:: \mu = \mu_\infty + (\mu_0 - \mu_\infty)\, p, \qquad
          e = e_\infty + (e_0 - e_\infty)\, p^2 .

A gene has two steady states, low and high. In the plane of
:math:`q = (\mu - \mu_\mathrm{low}) / (\mu_\mathrm{high} - \mu_\mathrm{low})` and the excess on the
same scale, the way up is :math:`2q - q^2` and the way down :math:`q^2`: which of the two a cell
lies on is its direction, and its velocity is :math:`\gamma (\mu_\infty - \mu)`.

The authors fit this by a second VAE. Here it is expectation maximisation: each cell goes to the
nearest point of the two curves, and the steady states follow by least squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scvi
import torch
from anndata import AnnData
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors

from ...ratios._features import median_depth
from ._shared import counts_of

MAX_RMSE, MIN_BURST = 0.1, 2.0  # of a gene that takes part, as published
N_CELLS = 800  # with more of them, fewer epochs make as many steps
GRID = np.linspace(0, 1, 201)  # of q along a curve
CURVES = np.concatenate([np.c_[GRID, 2 * GRID - GRID**2], np.c_[GRID, GRID**2]])


@dataclass
class Fit:
    """Parameters of the model.

    Attributes
    ----------
    mean, excess
        Of the low and the high steady state, each (2, genes).
    gamma
        Rate of loss of each gene (genes,), with geometric mean 1: the plane knows no hours.
    rising
        Whether a cell is on the way up (cells, genes).
    rmse
        Root mean square distance from the curves, on the scale of the steady states (genes,).
    velocity
        :math:`\\gamma (\\mu_\\infty - \\mu)` (cells, genes).
    """

    mean: np.ndarray
    excess: np.ndarray
    gamma: np.ndarray
    rising: np.ndarray
    rmse: np.ndarray
    velocity: np.ndarray


def fit(mean: np.ndarray, variance: np.ndarray, n_iter: int = 20) -> Fit:
    """Steady states, directions and rates from each cell's mean and variance.

    Parameters
    ----------
    mean, variance
        Of the counts of each cell and gene (cells, genes).
    n_iter
        Rounds of expectation maximisation.

    Returns
    -------
    The fit.

    Raises
    ------
    ValueError
        Shapes disagree, or a gene's mean does not vary.
    """
    if mean.shape != variance.shape or mean.ndim != 2:
        raise ValueError(f"mean {mean.shape} and variance {variance.shape} must be (cells, genes).")
    if (np.ptp(mean, axis=0) <= 0).any():
        raise ValueError("A gene has the same mean in all cells; leave it out.")
    excess, tree = variance - mean, cKDTree(CURVES)
    ends = np.quantile(mean, [0.01, 0.99], axis=0)
    low, high = (
        np.array([np.median(e[pick], axis=0) for e, pick in zip(excess.T, picked, strict=True)])
        for picked in ((mean <= ends[0]).T, (mean >= ends[1]).T)
    )
    heights = np.stack([low, high])
    for _ in range(n_iter):
        distance, nearest = tree.query(
            np.stack([_scaled(mean, ends), _scaled(excess, heights)], axis=-1)
        )
        q, w = CURVES[nearest].transpose(2, 0, 1)
        ends, heights = _ends(mean, q), _ends(excess, w)
    rising = nearest < len(GRID)
    q = _scaled(mean, ends).clip(0.01, 0.99)
    gamma = _rates(-np.log(np.where(rising, 1 - q, q)))
    velocity = gamma * (np.where(rising, ends[1], ends[0]) - mean)
    return Fit(ends, heights, gamma, rising, np.sqrt((distance**2).mean(0)), velocity)


def _scaled(x: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """0 at the low steady state, 1 at the high one."""
    gap = ends[1] - ends[0]
    return (x - ends[0]) / np.where(np.abs(gap) > 1e-9, gap, 1e-9)


def _ends(x: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Values at q = 0 and q = 1 by least squares, for each gene (2, genes)."""
    centred = q - q.mean(0)
    slope = (centred * x).mean(0) / np.maximum((centred**2).mean(0), 1e-9)
    start = x.mean(0) - slope * q.mean(0)
    return np.stack([start, start + slope])


def _rates(elapsed: np.ndarray, n_iter: int = 10) -> np.ndarray:
    r"""Rates of genes, if cells share one clock: :math:`-\log p_{cg} = \gamma_g t_c`."""
    logged = np.log(elapsed)
    inner = (elapsed > 0.05) & (elapsed < 3)  # near a steady state, the time says nothing
    weight = inner / np.maximum(inner.sum(0), 1)
    gene, cell = np.zeros(elapsed.shape[1]), np.zeros(elapsed.shape[0])
    for _ in range(n_iter):
        cell = (inner * (logged - gene)).sum(1) / np.maximum(inner.sum(1), 1)
        gene = (weight * (logged - cell[:, None])).sum(0)
        gene -= gene.mean()
    return np.exp(gene)


def velocity(
    cells: AnnData, max_epochs: int = 150, n_neighbors: int = 30, seed: int = 0
) -> np.ndarray:
    r"""Velocity of the genes that the model fits, by :func:`fit` on what a VAE has learnt.

    The VAE is scvi-tools', negative binomial with a dispersion :math:`\theta` of each gene and
    cell: :math:`\sigma^2 = \mu (1 + B)` with burst size :math:`B = \mu / \theta`. Both are averaged
    over neighbours in its latent space.

    Parameters
    ----------
    cells
        Cells with raw counts in ``layers["total"]``.
    max_epochs
        Of the VAE, for up to 800 cells; more cells get fewer epochs and as many steps. The authors
        take up to 10,000 epochs, on a GPU.
    n_neighbors
        Neighbours that are averaged.
    seed
        Seed of the VAE.

    Returns
    -------
    Velocity (cells, genes), size-normalised counts per unit of time; NaN in genes whose distance
    from the curves is above 0.1 or whose largest burst is below 2.

    Raises
    ------
    ValueError
        Fewer than two genes are fitted.

    References
    ----------
    Mahajan & Maslov, bioRxiv (2024).
    """
    counts = counts_of(cells)
    view = AnnData(counts, obs=cells.obs[[]], var=cells.var[[]])
    with torch.random.fork_rng(devices=[]):
        scvi.settings.seed = seed
        scvi.model.SCVI.setup_anndata(view)
        model = scvi.model.SCVI(view, dispersion="gene-cell", gene_likelihood="nb")
        epochs = int(np.ceil(max_epochs * min(1, N_CELLS / view.n_obs)))
        model.train(epochs, train_size=1.0, enable_progress_bar=False, accelerator="cpu")
        mean = model.get_normalized_expression(
            library_size=median_depth(counts), return_numpy=True
        ).astype(np.float64)
        given = model.get_likelihood_parameters()
        latent = model.get_latent_representation()
    burst = mean / given["dispersions"]
    index = NearestNeighbors(n_neighbors=min(n_neighbors, cells.n_obs)).fit(latent)
    graph = index.kneighbors_graph(latent)
    graph = graph / graph.sum(1)
    mean, variance = graph @ mean, graph @ (mean * (1 + burst))
    found = fit(mean, variance)
    largest = ((variance - mean) / mean).max(0)
    kept = (found.rmse <= MAX_RMSE) & (largest >= MIN_BURST)
    if kept.sum() < 2:
        raise ValueError(
            f"{kept.sum()} genes lie on the curves (distance at most {MAX_RMSE}, burst at least "
            f"{MIN_BURST}); two are needed."
        )
    return np.where(kept, found.velocity, np.nan)

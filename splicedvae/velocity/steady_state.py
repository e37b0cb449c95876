r"""The slope of the steady state, by which velocity is read from spliced and unspliced counts.

scVelo's stochastic model (Bergen et al. 2020) reads velocity as the residual of a line through the
origin, :math:`v = M_u - \gamma M_s`, from size-normalised counts averaged over neighbours. It is
scVelo's own code but for :func:`stochastic_gamma`, whose loop over genes fails there with numpy 2.4
and newer, and for the averages, which there take the time of two sparse matrices' product.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from anndata import AnnData
from scipy import sparse
from tqdm.auto import tqdm

from ..ratios._entries import clipped

PERCENTILE = 95  # the cells above it decide the slope, scVelo's default
DELAY = 3  # seconds after which a bar is shown
MIN_R2, MIN_GAMMA = 0.01, 0.01  # scVelo's bounds for a velocity gene


@contextmanager
def quiet_scvelo() -> Iterator:
    """Silence scVelo: neither its messages nor warnings get out.

    Yields
    ------
    The package ``scvelo``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import scvelo as scv

        verbosity, scv.settings.verbosity = scv.settings.verbosity, 0
        try:
            yield scv
        finally:
            scv.settings.verbosity = verbosity


def stochastic_gamma(
    ms: np.ndarray, mu: np.ndarray, mss: np.ndarray, mus: np.ndarray, residual: np.ndarray
) -> np.ndarray:
    r"""Slope of scVelo's stochastic model (Bergen et al. 2020), all genes at once.

    Generalised least squares of two equations, :math:`M_u = \gamma M_s` on the cells at the top
    and :math:`2 M_{us} + M_u = \gamma (2 M_{ss} - M_s)` on all, each divided by the standard
    deviation of its own residual.

    Parameters
    ----------
    ms, mu
        Mean spliced and unspliced abundance over neighbours (cells, genes).
    mss, mus
        Mean of spliced squared, and of spliced times unspliced (cells, genes).
    residual
        Of the first equation alone (cells, genes).

    Returns
    -------
    Array (genes,); 0 where nothing decides it.
    """

    def top(x: np.ndarray) -> np.ndarray:
        return x >= np.percentile(x, PERCENTILE, axis=0)

    def shape(x: np.ndarray) -> np.ndarray:
        return x / np.maximum(x.max(0), 1e-3)

    extreme = top(shape(ms) + shape(mu)) | top(ms)
    x2, y2 = 2 * mss - ms, 2 * mus + mu
    with np.errstate(divide="ignore", invalid="ignore"):
        slope2 = (x2 * y2).sum(0) / (x2 * x2).sum(0)
        precision, precision2 = residual.std(0) ** -2, (y2 - slope2 * x2).std(0) ** -2
        xy = precision * (extreme * ms * mu).sum(0) + precision2 * (x2 * y2).sum(0)
        xx = precision * (extreme * ms * ms).sum(0) + precision2 * (x2 * x2).sum(0)
        return np.nan_to_num(xy / xx, posinf=0, neginf=0)


def smoothed(adata: AnnData, spliced: sparse.csr_matrix, unspliced: sparse.csr_matrix) -> AnnData:
    """Size-normalise counts and average them over a neighbour graph: scVelo's first moments.

    Parameters
    ----------
    adata
        Cells with a neighbour graph.
    spliced, unspliced
        Counts, or expected counts (cells, genes).

    Returns
    -------
    Cells with the normalised ``spliced`` and ``unspliced`` and the moments ``Ms`` and ``Mu``.
    """
    layers = {"spliced": spliced.copy(), "unspliced": unspliced.copy()}  # scVelo writes into them
    cells = AnnData(spliced.copy(), obs=adata.obs[[]], layers=layers)
    cells.uns["neighbors"] = adata.uns["neighbors"]
    for name in ("connectivities", "distances"):
        cells.obsp[name] = adata.obsp[name]
    with quiet_scvelo() as scv:
        scv.pp.normalize_per_cell(cells, enforce=True)
    s, u = (cells.layers[name].toarray() for name in ("spliced", "unspliced"))
    cells.layers["Ms"], cells.layers["Mu"] = _averages(cells, s, u)
    return cells


def _averages(cells: AnnData, *values: np.ndarray) -> Iterator[np.ndarray]:
    """Of each cell and its neighbours, by scVelo's weights (cells, genes)."""
    with quiet_scvelo():
        from scvelo.preprocessing.neighbors import get_connectivities

        weights = get_connectivities(cells)
    return (np.asarray(weights @ x, dtype=np.float32) for x in values)


def slopes(
    adata: AnnData,
    spliced: sparse.csr_matrix,
    unspliced: sparse.csr_matrix,
    n_draws: int = 20,
    seed: int = 0,
    concentration: np.ndarray | None = None,
    progress: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slopes of the steady state, from counts or, for expected counts, from draws of them.

    Parameters
    ----------
    adata
        Cells with a neighbour graph.
    spliced, unspliced
        Counts, or expected counts (cells, genes).
    n_draws
        Draws of counts, if there are fractions; 0 takes the expectations for counts.
    seed
        Of the draws.
    concentration
        Beta-binomial concentration of each gene (genes,); None for binomial draws.
    progress
        Show a bar, if it takes long.

    Returns
    -------
    Stochastic slope, slope on the top cells alone, and r² of the latter, each (genes,); the means
    over draws.
    """
    pairs = [(spliced, unspliced)]
    if n_draws and not (_whole(spliced) and _whole(unspliced)):
        pairs = draws(spliced, unspliced, n_draws, seed, concentration)
        pairs = tqdm(pairs, "slopes", n_draws, unit="draw", delay=DELAY, disable=not progress)
    return tuple(np.mean([_slopes(smoothed(adata, *pair)) for pair in pairs], axis=0))


def _slopes(cells: AnnData) -> np.ndarray:
    s, u = (cells.layers[name].toarray() for name in ("spliced", "unspliced"))
    second = _averages(cells, s * s, s * u)
    with quiet_scvelo():
        from scvelo.tools.velocity import Velocity

        steady = Velocity(cells, r2_adjusted=None)
        steady.compute_deterministic(perc=[5, PERCENTILE])
    matrices = steady._Ms, steady._Mu, *second, steady._residual
    gamma = stochastic_gamma(*(x.astype(np.float64) for x in matrices))
    return np.stack([gamma, steady._gamma, steady._r2])


def draws(
    spliced: sparse.csr_matrix,
    unspliced: sparse.csr_matrix,
    n_draws: int,
    seed: int = 0,
    concentration: np.ndarray | None = None,
) -> Iterator[tuple[sparse.csr_matrix, sparse.csr_matrix]]:
    r"""Counts that have these expectations.

    Given whole totals, :math:`s \sim \mathrm{Binomial}(n, q)` and :math:`q \sim
    \mathrm{Beta}\big(p c, (1 - p) c\big)`, with p the share of spliced in the expectations; totals
    that are not whole are Poisson, unless one layer is whole: then it is taken to be counted
    already, and the other is Poisson.

    Parameters
    ----------
    spliced, unspliced
        Expected counts (cells, genes).
    n_draws
        Number of draws.
    seed
        Of the draws.
    concentration
        c of each gene (genes,); None for :math:`q = p`, binomial draws.

    Yields
    ------
    Spliced and unspliced counts (cells, genes).
    """
    rng = np.random.default_rng(seed)
    pair = spliced, unspliced
    total = spliced + unspliced
    n = np.rint(total.data)
    counted = np.allclose(total.data, n, atol=1e-3)  # up to float32 sums
    if not counted and any(map(_whole, pair)):
        for _ in range(n_draws):
            yield tuple(x if _whole(x) else _like(x, rng.poisson(x.data)) for x in pair)
        return
    p = clipped(np.asarray(spliced[total.nonzero()], dtype=float).ravel() / total.data)
    c = None if concentration is None else concentration[total.indices]
    for _ in range(n_draws):
        drawn = n if counted else rng.poisson(total.data)
        q = p if c is None else rng.beta(p * c, (1 - p) * c)
        s = rng.binomial(drawn.astype(int), q)
        yield _like(total, s), _like(total, drawn - s)


def _like(layer: sparse.csr_matrix, data: np.ndarray) -> sparse.csr_matrix:
    """Other values in the same places."""
    return sparse.csr_matrix((data.astype(np.float32), layer.indices, layer.indptr), layer.shape)


def _whole(layer: sparse.csr_matrix) -> bool:
    return bool((layer.data == np.rint(layer.data)).all())

"""Ceilings: the scores that the true ratios would get on counts of this depth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.special import betaln

from ..counts import Counts
from ._entries import (
    Entries,
    checked_genes,
    checked_pair,
    checked_ratio,
    clipped,
    deviance_explained,
    pooled_scores,
    within_gene_scores,
)

_CONCENTRATIONS = np.geomspace(0.05, 5000, 47)  # grid of c
_OVERDISPERSIONS = np.linspace(0, 0.9995, 100) ** 2  # grid of phi, even in the correlation it gives


def fit_concentration(spliced: Counts, unspliced: Counts, mean: np.ndarray) -> np.ndarray:
    r"""Beta-binomial concentration c of each gene.

    .. math:: p \sim \mathrm{Beta}\big(m c, (1 - m) c\big), \quad s \sim \mathrm{Binomial}(n, p),
              \qquad \mathrm{Var}\, p = \varphi\, m (1 - m), \quad \varphi = \frac{1}{1 + c}

    The likelihood of each gene is read on a grid of c; the distribution of c over genes is the
    nonparametric empirical Bayes mixture on that grid (Kiefer & Wolfowitz 1956, fitted by EM), so
    genes of low depth borrow from the rest. Entries with n = 1 say nothing on c.

    Parameters
    ----------
    spliced, unspliced
        Raw counts (cells, genes).
    mean
        Mean ratio m of each gene (genes,).

    Returns
    -------
    Array (genes,): :math:`1 / \varphi - 1` for the posterior mean of the overdispersion
    :math:`\varphi`.

    Raises
    ------
    ValueError
        Shapes disagree or counts are not raw counts.
    """
    s, u = checked_pair(spliced, unspliced)
    both = s + 1j * u  # sparse all along, since there may be many cells
    s, u = both.data.real, both.data.imag
    posterior = _concentration_posterior(both.indices, s, u, mean, both.shape)
    return 1 / (posterior @ (1 / (1 + _CONCENTRATIONS))) - 1


def _concentration_posterior(
    gene: np.ndarray, s: np.ndarray, u: np.ndarray, mean: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Posterior (genes, grid) of the concentration, from entries; those with n = 1 are not read."""
    n_genes, mean = shape[1], np.asarray(mean)
    if mean.shape != (n_genes,):
        raise ValueError(f"mean has shape {mean.shape}; give one ratio per gene, ({n_genes},)")
    mean = clipped(checked_ratio("mean", mean, shape)[0])
    deep = s + u >= 2
    kinds = pd.DataFrame({"gene": gene[deep], "s": s[deep], "u": u[deep]}).value_counts(sort=False)
    gene, s, u = (kinds.index.get_level_values(i).to_numpy() for i in range(3))
    a, b = (np.outer(x, _CONCENTRATIONS) for x in (mean[gene], 1 - mean[gene]))
    terms = kinds.to_numpy()[:, None] * (betaln(s[:, None] + a, u[:, None] + b) - betaln(a, b))
    to_gene = sp.csr_array(
        (np.ones(len(gene)), (gene, np.arange(len(gene)))), shape=(n_genes, len(gene))
    )
    return _mixture_posterior(to_gene @ terms)


def _mixture_posterior(log_likelihood: np.ndarray, n_iter: int = 1000) -> np.ndarray:
    """Posterior (items, grid) under the mixture over the grid that EM fits to all items."""
    likelihood = np.exp(log_likelihood - log_likelihood.max(1, keepdims=True))
    weights = np.full(likelihood.shape[1], 1 / likelihood.shape[1])
    for _ in range(n_iter):
        posterior = likelihood * weights
        posterior /= posterior.sum(1, keepdims=True)
        weights = posterior.mean(0)
    return posterior


def bootstrap_ceiling(
    spliced: Counts,
    unspliced: Counts,
    mean: np.ndarray,
    genes: np.ndarray | None = None,
    n_draws: int = 5,
    seed: int = 0,
) -> dict[str, float]:
    """Scores that the true p would get, by parametric bootstrap from a fitted beta-binomial.

    Every observed entry keeps its n; the gene's concentration is drawn from its posterior
    (`fit_concentration`), p from the beta distribution and s from Binomial(n, p); p is then
    scored on s. All overdispersion counts as predictable, also what no other gene's counts could
    tell, so this is an upper bound; it belongs to these cells and genes.

    Parameters
    ----------
    spliced, unspliced
        Raw counts (cells, genes).
    mean
        Pooled training ratio (genes,).
    genes
        Boolean (genes,) as in `ratio_report`.
    n_draws
        Number of bootstrap draws to average.
    seed
        Seed of the draws.

    Returns
    -------
    Dict of ``rmse_observed``, ``r_observed``, ``d2``, ``within_gene_r``,
    ``within_gene_r_median``, ``within_gene_r_min_counts_2`` and its median, named as in
    `ratio_report`.

    Raises
    ------
    ValueError
        As `ratio_report`.
    """
    entries = Entries(spliced, unspliced)
    genes = checked_genes(genes, entries)
    posterior = _concentration_posterior(entries.gene, entries.s, entries.u, mean, entries.shape)
    mean = clipped(np.asarray(mean, dtype=np.float64))[entries.gene]
    rng = np.random.default_rng(seed)
    cumulative = posterior.cumsum(1)
    draws = []
    for _ in range(n_draws):
        picked = (cumulative < rng.uniform(size=(len(posterior), 1))).sum(1)
        m = _CONCENTRATIONS[np.minimum(picked, len(_CONCENTRATIONS) - 1)][entries.gene]
        p = clipped(rng.beta(mean * m, (1 - mean) * m))
        entries.s = rng.binomial(entries.n.astype(int), p).astype(float)
        entries.u = entries.n - entries.s
        entries.r = entries.s / entries.n
        pooled = pooled_scores("observed", entries.r, p, mean)
        draws.append(
            {name: pooled[name] for name in ("rmse_observed", "r_observed")}
            | {"d2": deviance_explained(entries, p, mean)}
            | within_gene_scores(entries, p, genes)
        )
    names = (name for name in draws[0] if name != "n_within_genes")
    return {name: float(np.mean([draw[name] for draw in draws])) for name in names}


def thinning_ceiling(
    spliced: Counts, unspliced: Counts, genes: np.ndarray | None = None, seed: int = 0
) -> dict[str, float]:
    r"""Within-gene r that the true p would get on entries n >= 2, by thinning to two molecules.

    Two molecules of an entry, drawn without replacement, are the smallest half-and-half split.
    Both are spliced with probability :math:`m^2 + \varphi m (1 - m)`, where m is the gene's mean
    and :math:`\varphi m (1 - m)` the variance of p over cells, whatever the distribution of p. That
    gives each gene an exact likelihood of :math:`\varphi`; its mixture over genes is fitted as in
    `fit_concentration`. In a gene the true p then reaches

    .. math:: \mathrm{cor}(p, r) = \sqrt{\frac{\varphi}{\varphi + (1 - \varphi)\, \mathrm{E}[1/n]}},
              \quad \text{as} \quad
              \mathrm{Var}\, r = m (1 - m) \big(\varphi + (1 - \varphi)\, \mathrm{E}[1/n]\big).

    The textbook route, halves :math:`s' \sim \mathrm{Binomial}(s, 1/2)` and :math:`u' \sim
    \mathrm{Binomial}(u, 1/2)` with correlation R and :math:`\sqrt{2 R / (1 + R)}` at full depth, is
    not taken: it asks that doubling the depth halves the noise, but halves have n' >= 1 and
    E[1 / n'] < 2 E[1 / n]; and one R for genes of unequal :math:`\varphi` puts the root of a mean
    for a mean of roots, off by up to 0.08 in simulations.

    Parameters
    ----------
    spliced, unspliced
        Raw counts (cells, genes).
    genes
        Boolean (genes,) as in `ratio_report`.
    seed
        Seed of the thinning.

    Returns
    -------
    Dict of ``within_gene_r_min_counts_2``, to be held against that key of `ratio_report` on the
    same genes and no other score.

    Raises
    ------
    ValueError
        As `ratio_report`.
    """
    entries = Entries(spliced, unspliced)
    genes = checked_genes(genes, entries)
    everywhere, deep = entries.n >= 1, entries.n >= 2
    count = entries.per_gene(np.ones_like(entries.n), deep)
    if not count[genes].any():
        raise ValueError("spliced and unspliced have no entry with n >= 2 in genes to thin")
    observed = entries.per_gene(np.ones_like(entries.n), everywhere)
    m = clipped(entries.per_gene(entries.r, everywhere) / np.maximum(observed, 1))[:, None]

    molecules = (x[deep].astype(int) for x in (entries.s, entries.u))
    n_spliced = np.random.default_rng(seed).hypergeometric(*molecules, 2)
    pairs = np.zeros((entries.shape[1], 3))
    np.add.at(pairs, (entries.gene[deep], n_spliced), 1)
    covariance = _OVERDISPERSIONS * m * (1 - m)
    log_probabilities = (
        np.log((1 - m) ** 2 + covariance),
        np.log(2 * (m * (1 - m) - covariance)),
        np.log(m**2 + covariance),
    )
    posterior = _mixture_posterior(
        sum(pairs[genes, j, None] * log_p[genes] for j, log_p in enumerate(log_probabilities))
    )
    noise = (entries.per_gene(1 / entries.n, deep) / np.maximum(count, 1))[genes, None]
    explained = _OVERDISPERSIONS / (_OVERDISPERSIONS + (1 - _OVERDISPERSIONS) * noise)
    r = (posterior * np.sqrt(explained)).sum(1)
    r[entries.correlations(entries.r, deep)[0][genes] == 0] = 0  # r constant: scores count it as 0
    return {"within_gene_r_min_counts_2": float(r @ count[genes] / count[genes].sum())}

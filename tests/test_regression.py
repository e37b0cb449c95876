"""Hierarchical binomial regressions: derivatives, modes, and what the prior learns from genes."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.optimize import minimize

from splicedvae.ratios import regression
from splicedvae.ratios.regression import _Design, hierarchical_binomial, ridge_binomial

N, G, D = 200, 240, 3
UNCOUNTED = np.arange(3)  # genes of which nothing was counted
# Slopes of the simulated genes: what loadings say (the first row is said of all), spread about it
MEAN = np.array([[0.3, 0.0, 0.0], [0.0, -0.4, 0.0], [0.0, 0.0, 0.2], [0.2, 0.0, 0.0]])
SPREAD = np.array([0.3, 0.02, 0.15])


def csc(values):
    return sparse.csc_matrix(np.asarray(values, dtype=np.float32))


@pytest.fixture(scope="module")
def genes():
    """Simulated counts of genes whose slopes are drawn from the prior that is to be found."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D))
    x = (x - x.mean(0)) / x.std(0)
    loadings = rng.normal(size=(G, D))
    loadings[UNCOUNTED[2]] = loadings[UNCOUNTED[:2]].mean(0)
    expected = np.column_stack([np.ones(G), loadings]) @ MEAN
    heavy = np.sqrt(regression.DEGREES / rng.chisquare(regression.DEGREES, (G, 1)))
    slopes = expected + heavy * SPREAD * rng.normal(size=(G, D))
    logit = rng.normal(1.0, 0.7, G)
    total = rng.poisson(rng.gamma(1.0, 1.5, G), (N, G))
    total[:, UNCOUNTED] = 0
    spliced = rng.binomial(total, 1 / (1 + np.exp(-(logit + x @ slopes.T))))
    return {
        "data": (x, None, csc(spliced), csc(total), logit.astype(np.float32), loadings),
        "slopes": slopes,
        "expected": expected,
    }


@pytest.fixture(scope="module")
def fitted(genes):
    return hierarchical_binomial(*genes["data"])


@pytest.mark.parametrize("with_own", [False, True])
def test_derivatives_against_automatic_ones(with_own):
    rng = np.random.default_rng(0)
    x, own = rng.normal(size=(30, D)), rng.normal(size=(30, 4)) if with_own else None
    total = rng.poisson(3, (30, 4))
    spliced = rng.binomial(total, 0.7)
    weights = rng.normal(size=(4, 1 + D + with_own))
    eta = weights[:, 0] + x @ weights[:, 1 : 1 + D].T
    if with_own:
        eta = eta + own * weights[:, -1]
    p = 1 / (1 + np.exp(-eta))
    curvature = (total * p * (1 - p)).astype(np.float32)
    gradient, hessian = _Design(x).derivatives(spliced - total * p, curvature, own)
    for gene in range(4):
        columns = [np.ones(30), *x.T] + ([own[:, gene]] if with_own else [])
        design = torch.tensor(np.column_stack(columns))
        s, n = (torch.tensor(counts[:, gene]) for counts in (spliced, total))

        def likelihood(w, design=design, s=s, n=n):
            logit = design @ w
            return (s * logit - n * torch.nn.functional.softplus(logit)).sum()

        w = torch.tensor(weights[gene])
        automatic = torch.autograd.functional.jacobian(likelihood, w)
        np.testing.assert_allclose(gradient[gene], automatic, rtol=1e-10, atol=1e-10)
        automatic = torch.autograd.functional.hessian(likelihood, w)
        np.testing.assert_allclose(-hessian[gene], automatic, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("with_own", [False, True])
def test_modes_under_the_first_prior_against_scipy(genes, with_own):
    """Before anything is estimated the prior is known: normal, of mean 0."""
    x, _, spliced, total, logit, loadings = genes["data"]
    rng = np.random.default_rng(1)
    values, centre, spread = rng.normal(2, 3, (N, G)), np.full(G, 2.0), np.full(G, 3.0)
    own = (csc(values), centre, spread) if with_own else None
    weights = hierarchical_binomial(x, own, spliced, total, logit, loadings, n_iter=1)
    assert weights.shape == (G, 1 + D + with_own)
    start = np.zeros(1 + D + with_own)
    variance = np.full(len(start), regression.START_VARIANCE)
    variance[0] = regression.INTERCEPT_VARIANCE
    for gene in range(0, G, 24):
        columns = [np.ones(N), *x.T] + ([(values[:, gene] - 2) / 3] if with_own else [])
        z = np.column_stack(columns)
        s, n = (counts[:, [gene]].toarray().ravel() for counts in (spliced, total))

        def loss(w, z=z, s=s, n=n, gene=gene):
            eta = logit[gene] + z @ w
            return (n * np.logaddexp(0, eta) - s * eta).sum() + (w**2 / variance).sum() / 2

        mode = minimize(loss, start, tol=1e-10).x + logit[gene] * (np.arange(len(start)) == 0)
        np.testing.assert_allclose(weights[gene], mode, atol=1e-3)


def test_slopes_are_nearer_than_those_of_any_ridge(genes, fitted):
    x, _, spliced, total, logit, _ = genes["data"]
    counted = np.setdiff1d(np.arange(G), UNCOUNTED)

    def error(slopes):  # (genes, d)
        return np.square(slopes - genes["slopes"])[counted].mean()

    start = np.vstack([logit, np.zeros((D, G))])
    ridge = [
        error(ridge_binomial(x, spliced.toarray(), total.toarray(), l2, start)[1:].T)
        for l2 in np.geomspace(1, 1000, 10)
    ]
    assert 0 < np.argmin(ridge) < len(ridge) - 1  # the grid holds the best
    assert error(fitted[:, 1:]) < 0.6 * min(ridge)


def test_a_gene_without_counts_has_the_mean_of_the_prior(genes, fitted):
    logit = genes["data"][4]
    np.testing.assert_array_equal(fitted[UNCOUNTED, 0], logit[UNCOUNTED])
    slopes = fitted[UNCOUNTED, 1:]
    # which is linear in the loadings; those of the third are the mean of those of the first two
    np.testing.assert_allclose(slopes[2], slopes[:2].mean(0), atol=1e-5)
    assert np.ptp(slopes, axis=0).min() > 0.1


def test_prior_is_found(genes, monkeypatch):
    """Mean and spread of the simulated slopes, where nothing holds the mean back."""
    monkeypatch.setattr(regression, "LOADING_PENALTY", 0.0)
    slopes = hierarchical_binomial(*genes["data"], n_iter=60)[:, 1:]
    np.testing.assert_allclose(slopes[UNCOUNTED], genes["expected"][UNCOUNTED], atol=0.08)
    # modes spread a little less than slopes do, whose t distribution is wider than its scale
    away = (slopes - genes["expected"]).std(0)
    assert 0.5 * SPREAD[0] < away[0] < 1.5 * SPREAD[0]
    assert 0.5 * SPREAD[2] < away[2] < 1.5 * SPREAD[2]
    assert away[1] < 2 * SPREAD[1]


def test_few_cells_are_given_time(genes):
    """The prior starts narrow, and widens slowly where cells say little: EM must not stop there."""
    x, own, spliced, total, logit, loadings = genes["data"]
    few = x[:50], own, spliced[:50], total[:50], logit, loadings
    error = {
        n: np.square(hierarchical_binomial(*few, n_iter=n)[:, 1:] - genes["slopes"]).mean()
        for n in (15, 100, 200)
    }
    assert error[15] > 2 * error[200]
    assert error[100] < 1.1 * error[200]


def test_which_slopes_go_together_is_not_read_from_few_genes():
    """Independent slopes of 12 genes, against a ridge that is told how wide they spread."""
    rng, squares = np.random.default_rng(5), {"ours": [], "ridge": []}
    for _ in range(20):
        x, slopes = rng.normal(size=(N, 8)), 0.5 * rng.normal(size=(12, 8))
        total = rng.poisson(1, (N, 12)).astype(float)
        spliced = csc(rng.binomial(total.astype(int), 1 / (1 + np.exp(-(x @ slopes.T)))))
        logit, loadings = np.zeros(12, np.float32), np.zeros((12, 1))
        ours = hierarchical_binomial(x, None, spliced, csc(total), logit, loadings)[:, 1:]
        ridge = ridge_binomial(x, spliced.toarray(), total, 1 / 0.5**2, np.zeros((9, 12)))[1:].T
        squares["ours"].append(np.square(ours - slopes).mean())
        squares["ridge"].append(np.square(ridge - slopes).mean())
    assert np.mean(squares["ours"]) < 1.2 * np.mean(squares["ridge"])


def test_slopes_of_the_own_feature():
    """One more slope per gene, of its own feature: it is found where it is, and not elsewhere."""
    rng = np.random.default_rng(2)
    x, values = rng.normal(size=(N, 1)), rng.normal(5, 2, (N, G))
    truth = np.where(np.arange(G) % 2, 0.8, 0.0)
    total = np.full((N, G), 4)
    eta = truth * (values - 5) / 2
    spliced = csc(rng.binomial(total, 1 / (1 + np.exp(-eta))))
    own = (csc(values), np.full(G, 5.0), np.full(G, 2.0))
    data = (x, own, spliced, csc(total), np.zeros(G, np.float32), rng.normal(size=(G, 1)))
    weights = hierarchical_binomial(*data)
    np.testing.assert_allclose(weights[:, -1], truth, atol=0.3)
    np.testing.assert_allclose(weights[:, 1], 0, atol=0.2)


def test_genes_at_once_only_bound_memory(genes, fitted, monkeypatch):
    monkeypatch.setattr(regression, "GENES_AT_ONCE", 7)
    again = hierarchical_binomial(*genes["data"])
    np.testing.assert_allclose(again, fitted, atol=1e-4)


def test_a_constant_feature_says_nothing(genes, fitted):
    """Such as the column of a batch without training cells."""
    x, own, spliced, total, logit, loadings = genes["data"]
    zeros = np.zeros((N, 1)), np.zeros((G, 1))
    x, loadings = np.hstack([x, zeros[0]]), np.hstack([loadings, zeros[1]])
    weights = hierarchical_binomial(x, own, spliced, total, logit, loadings)
    np.testing.assert_allclose(weights[:, -1], 0, atol=1e-6)
    np.testing.assert_allclose(weights[:, :-1], fitted, atol=0.02)


def test_one_gene_alone():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(N, 1))
    total = np.full((N, 1), 6)
    spliced = csc(rng.binomial(total, 1 / (1 + np.exp(-x))))
    weights = hierarchical_binomial(x, None, spliced, csc(total), np.zeros(1), np.ones((1, 1)))
    np.testing.assert_allclose(weights[0], [0, 1], atol=0.2)

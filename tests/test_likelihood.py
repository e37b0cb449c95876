"""The negative binomial of counts, against SciPy and scvi-tools."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from scvi.distributions import NegativeBinomial

from splicedvae.likelihood import QuickNegativeBinomial, digamma, log_gamma


def test_log_gamma_and_its_derivative():
    a = torch.logspace(-6, 6, 500, dtype=torch.float64)
    np.testing.assert_allclose(log_gamma(a), scipy.special.gammaln(a), atol=5e-8)
    np.testing.assert_allclose(digamma(a), scipy.special.digamma(a), rtol=1e-7, atol=1e-8)
    single = log_gamma(a.float())
    np.testing.assert_allclose(single, scipy.special.gammaln(a), rtol=2e-6, atol=2e-6)


def test_half_precision_is_computed_in_single():
    x, mu = torch.tensor([[300.0, 0.0]]), torch.tensor([[250.0, 0.5]], dtype=torch.float16)
    theta = torch.tensor([2.0, 1.0], dtype=torch.float16)
    found = QuickNegativeBinomial(NegativeBinomial(mu=mu, theta=theta), theta).log_prob(x)
    assert found.dtype == torch.float32
    p = theta.double() / (theta.double() + mu.double())
    rounding = 1500 * torch.finfo(torch.float32).eps  # terms of the size of log 300!
    np.testing.assert_allclose(found, scipy.stats.nbinom.logpmf(x, theta, p), atol=2 * rounding)


@pytest.mark.parametrize("shared", [True, False])
def test_likelihood_and_gradients_are_those_of_scvi(shared):
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.poisson(rng.gamma(0.5, 6, (7, 30)))).double()
    mu = torch.tensor(rng.uniform(0.5, 6, (7, 30)), requires_grad=True)
    theta = torch.tensor(rng.uniform(0.2, 4, 30 if shared else (7, 30)), requires_grad=True)
    theirs = NegativeBinomial(mu=mu, theta=theta)
    ours = QuickNegativeBinomial(theirs, theta)
    wanted = scipy.stats.nbinom.logpmf(x, theta.detach(), (theta / (theta + mu)).detach())
    np.testing.assert_allclose(ours.log_prob(x).detach(), wanted, atol=1e-6)
    gradients = [torch.autograd.grad(px.log_prob(x).sum(), (mu, theta)) for px in (theirs, ours)]
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)

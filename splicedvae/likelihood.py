"""scVI's negative binomial likelihood, at a fraction of its cost on a CPU.

PyTorch computes log gamma functions one number at a time there, and they were nearly half of scVI's
training step. Stirling's series is made of operations that are vectorised, and the gradient is
written out, so that nothing is computed twice.
"""

from __future__ import annotations

import math

import torch
from scvi.distributions import NegativeBinomial


def log_gamma(a: torch.Tensor) -> torch.Tensor:
    r"""Logarithm of the gamma function, :math:`\log \Gamma(a)`, without a gradient.

    Stirling's series (Abramowitz & Stegun 1964, 6.1.41) at a + 4, and from there back by
    :math:`\Gamma(a + 1) = a\, \Gamma(a)`. The error is below :math:`10^{-7}` before rounding. With
    q = a (a + 3), the four factors a (a + 1) (a + 2) (a + 3) are q (q + 2).

    Parameters
    ----------
    a
        Positive numbers, of any shape.

    Returns
    -------
    Numbers of the same shape.
    """
    b, q = a + 4, a * (a + 3)
    r = b.reciprocal()
    rr = r * r
    series = rr.mul(1 / 1260).sub_(1 / 360).mul_(rr).add_(1 / 12).mul_(r)
    factors = q.mul_(q + 2).log_()
    stirling = b.log().mul_(b - 0.5).sub_(b).add_(series).add_(math.log(2 * math.pi) / 2)
    return stirling.sub_(factors)


def digamma(a: torch.Tensor) -> torch.Tensor:
    r"""Derivative of :func:`log_gamma`, in the same way (Abramowitz & Stegun 1964, 6.3.18).

    Parameters
    ----------
    a
        Positive numbers, of any shape.

    Returns
    -------
    Numbers of the same shape.
    """
    b, q = a + 4, a * (a + 3)
    r = b.reciprocal()
    rr = r * r
    series = rr.mul(-1 / 252).add_(1 / 120).mul_(rr).sub_(1 / 12).mul_(rr).sub_(r, alpha=0.5)
    factors = a.mul(2).add_(3).mul_(q + 1).mul_(2).div_(q.mul_(q + 2))
    return b.log_().add_(series).sub_(factors)


class _LogNegativeBinomial(torch.autograd.Function):
    r""":math:`\theta \log\frac{\theta}{\theta + \mu} + x \log\frac{\mu}{\theta + \mu}
    + \log\Gamma(x + \theta) - \log\Gamma(\theta) - \log\Gamma(x + 1)` and its derivatives,
    :math:`\frac{x}{\mu} - \frac{x + \theta}{\theta + \mu}` by :math:`\mu` and
    :math:`\log\frac{\theta}{\theta + \mu} + 1 - \frac{x + \theta}{\theta + \mu} + \psi(x + \theta)
    - \psi(\theta)` by :math:`\theta`.
    """

    @staticmethod
    def forward(ctx, x, mu, theta, eps) -> torch.Tensor:
        mu = mu + eps
        both = x + theta
        total = mu + theta
        log_total = total.log()
        log_share = torch.log(theta + eps) - log_total
        ctx.save_for_backward(x, mu, theta, both, total, log_share)
        value = mu.log().sub_(log_total).mul_(x).add_(theta * log_share)
        return value.add_(log_gamma(both)).sub_(log_gamma(theta)).sub_(log_gamma(x + 1))

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        x, mu, theta, both, total, log_share = ctx.saved_tensors
        ratio = both / total
        of_theta = digamma(both).add_(log_share).sub_(ratio).add_(1 - digamma(theta)).mul_(gradient)
        of_mu = (x / mu).sub_(ratio).mul_(gradient)
        return None, of_mu, of_theta.sum(0) if theta.ndim < x.ndim else of_theta, None


class QuickNegativeBinomial(NegativeBinomial):
    """A negative binomial of scVI's decoder.

    Parameters
    ----------
    px
        The decoder's, its mean (B, G).
    theta
        Inverse dispersion, (G,) where all cells share it, else (B, G).
    """

    def __init__(self, px: NegativeBinomial, theta: torch.Tensor):
        super().__init__(mu=px.mu, theta=px.theta, scale=px.scale)
        self.theta = theta

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Log of the probability of counts.

        Parameters
        ----------
        value
            Counts, (B, G).

        Returns
        -------
        In nats, (B, G).
        """
        if self.mu.ndim != value.ndim or value.ndim != 2:  # several samples of a cell
            return super().log_prob(value)
        mu, theta = self.mu, self.theta
        if mu.dtype in (torch.float16, torch.bfloat16):  # too coarse for the series
            mu, theta = mu.float(), theta.float()
        return _LogNegativeBinomial.apply(value, mu, theta, self._eps)

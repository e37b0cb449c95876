"""The head that predicts splicing ratios, and the losses that train it. Tensors only.

Shapes are written where things happen: B cells in a minibatch, G genes, L latent dimensions,
S posterior samples.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from scvi.nn import FCLayers
from torch import nn

HEADS = ("linear", "mlp2", "mlp3", "bottleneck")
ACTIVATIONS = ("sigmoid", "softmax")
RATIO_LOSSES = ("binomial", "beta_binomial", "mse", "weighted_mse", "l1")


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """Check a setting that has a name.

    Parameters
    ----------
    name, value
        The setting.
    allowed
        What it may be.

    Returns
    -------
    `value`.

    Raises
    ------
    ValueError
        It is not among `allowed`, which the message lists.
    """
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; choose one of {', '.join(allowed)}.")
    return value


class RatioHead(nn.Module):
    r"""From the latent to each gene's splicing ratio, on the logit scale.

    .. math:: \eta_g = \mathrm{logit}\,\hat p_g
              = \big(W\, t(z, \text{covariates})\big)_g + b_g + w_g o_g + (V y)_g

    with hidden layers :math:`t`, the gene's own standardised count :math:`o_g` and principal
    components :math:`y` of the cell's log-normalised input. It starts at the gene mean: :math:`W`,
    :math:`w` and :math:`V` are zero and :math:`b_g` is the logit of the gene's training ratio, so
    whatever it says beyond the mean is learnt. :math:`V` is no parameter, gradients leave it alone:
    it is found in the end, by :func:`splicedvae.refit.refit_head`.

    Parameters
    ----------
    n_latent, n_genes
        L and G.
    head
        ``"linear"`` (t is the identity), ``"mlp2"`` and ``"mlp3"`` (one and two hidden layers
        before the output layer) or ``"bottleneck"`` (two hidden layers, the second of
        ``n_hidden // 8`` units, so that W has low rank).
    activation
        ``"sigmoid"`` has one output per gene; ``"softmax"`` has two, spliced and unspliced,
        normalised over the two. :math:`e^a / (e^a + e^b) = \mathrm{sigmoid}(a - b)`: the same
        functions, written with twice the parameters.
    n_hidden, dropout_rate
        Width and dropout of the hidden layers.
    own_total
        Add one weight per gene on the gene's own standardised log-normalised input count, which
        the latent, being shared by all genes, cannot carry.
    n_components
        Number of principal components, at most one less than genes; they are those of the training
        cells, each of variance 1 there.
    n_cats
        Number of categories of each categorical covariate, the batch last.
    n_continuous_cov
        Number of continuous covariates.
    """

    def __init__(
        self,
        n_latent: int,
        n_genes: int,
        head: Literal["linear", "mlp2", "mlp3", "bottleneck"] = "linear",
        activation: Literal["sigmoid", "softmax"] = "sigmoid",
        n_hidden: int = 128,
        dropout_rate: float = 0.1,
        own_total: bool = True,
        n_components: int = 0,
        n_cats: tuple[int, ...] = (),
        n_continuous_cov: int = 0,
    ):
        super().__init__()
        one_of("head", head, HEADS)
        self.softmax = one_of("head_activation", activation, ACTIVATIONS) == "softmax"
        self.n_cats = tuple(n_cats)
        hidden = {
            "linear": (),
            "mlp2": (n_hidden,),
            "mlp3": (n_hidden, n_hidden),
            "bottleneck": (n_hidden, max(1, n_hidden // 8)),
        }[head]
        # a covariate with one category says nothing, so it gets no column (as in scVI's FCLayers)
        n_in = n_latent + n_continuous_cov + sum(n for n in n_cats if n > 1)
        widths = (n_in, *hidden)
        self.trunk = nn.Sequential(
            *(
                FCLayers(i, o, n_layers=1, n_hidden=o, dropout_rate=dropout_rate)
                for i, o in pairwise(widths)
            )
        )
        self.output = nn.Linear(widths[-1], n_genes * (1 + self.softmax))
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.own_weight = nn.Parameter(torch.zeros(n_genes)) if own_total else None
        self.log_concentration = nn.Parameter(torch.full((n_genes,), math.log(20.0)))
        # measured on the training cells by `initialise`, saved with the weights
        self.register_buffer("depth", torch.tensor(1e4))
        k = min(n_components, n_genes - 1)
        self.register_buffer("components", torch.zeros(n_genes, k))
        self.register_buffer("component_weight", torch.zeros(n_genes, k))
        self.register_buffer("own_mean", torch.zeros(n_genes))
        self.register_buffer("own_std", torch.ones(n_genes))
        self.register_buffer("gene_weight", torch.ones(n_genes))
        self.register_buffer("initialised", torch.tensor(False))

    def initialise(
        self,
        gene_logit: torch.Tensor,
        depth: torch.Tensor,
        own_mean: torch.Tensor,
        own_std: torch.Tensor,
        components: torch.Tensor,
        gene_weight: torch.Tensor,
        concentration: torch.Tensor,
    ) -> None:
        """Set the bias to the gene means and store what the inputs are made with.

        Parameters
        ----------
        gene_logit
            Logit of each gene's pooled training ratio, (G,).
        depth
            Sum that counts are scaled to before the logarithm, a scalar.
        own_mean, own_std
            Of each gene's log-normalised input over the training cells, (G,).
        components
            Directions of the principal components, (G, k or fewer).
        gene_weight
            Weights of ``weighted_mse``, (G,).
        concentration
            Of each gene's beta-binomial, (G,); see :func:`splicedvae.metrics.fit_concentration`.
        """
        with torch.no_grad():
            self.set_weights(gene_logit)
            self.depth.copy_(depth)
            self.own_mean.copy_(own_mean)
            self.own_std.copy_(own_std)
            self.components[:, : components.shape[1]] = components
            self.gene_weight.copy_(gene_weight)
            self.log_concentration.copy_(concentration.log())
            self.initialised.fill_(True)

    @torch.no_grad()
    def set_weights(
        self,
        bias: torch.Tensor,
        weight: torch.Tensor | None = None,
        own_weight: torch.Tensor | None = None,
        component_weight: torch.Tensor | None = None,
    ) -> None:
        """Replace weights of the output layer.

        Parameters
        ----------
        bias
            Logit of each gene where all features are 0, (G,).
        weight
            (G, features); None leaves it.
        own_weight
            (G,); None leaves it.
        component_weight
            (G, k); None leaves it.
        """

        def outputs(logit: torch.Tensor) -> torch.Tensor:
            # two outputs per gene share the logit: a - b = logit
            return torch.cat([logit, -logit]) / 2 if self.softmax else logit

        self.output.bias.copy_(outputs(bias))
        if weight is not None:
            self.output.weight.copy_(outputs(weight))
        if own_weight is not None:
            self.own_weight.copy_(own_weight)
        if component_weight is not None:
            self.component_weight.copy_(component_weight)

    def penalty(self) -> torch.Tensor:
        r"""Minus the log of a standard normal prior on the output weights, without its constant.

        Returns
        -------
        :math:`\tfrac12 (\lVert W \rVert^2 + \lVert w \rVert^2)`, a scalar.
        """
        total = self.output.weight.square().sum()
        if self.own_weight is not None:
            total = total + self.own_weight.square().sum()
        return total / 2

    def log_normalise(self, x: torch.Tensor) -> torch.Tensor:
        r"""Counts as the head reads them.

        Parameters
        ----------
        x
            Input counts, (B, G).

        Returns
        -------
        :math:`\log(1 + d\, x_g / \sum_h x_h)`, d the median depth of the training cells, (B, G).
        """
        return torch.log1p(self.depth * x / x.sum(-1, keepdim=True).clamp_min(1))

    def forward(
        self,
        z: torch.Tensor,
        own: torch.Tensor,
        cats: tuple[torch.Tensor, ...] = (),
        cont: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logit of each gene's splicing ratio.

        Parameters
        ----------
        z
            Latent, (B, L) or (S, B, L).
        own
            From :meth:`log_normalise`, (B, G).
        cats
            Categorical covariates, each (B, 1), the batch last.
        cont
            Continuous covariates, (B, C).

        Returns
        -------
        Logits, (B, G) or (S, B, G).
        """
        covariates = [] if cont is None else [cont]
        covariates += [
            F.one_hot(c.squeeze(-1).long(), n).to(z.dtype)
            for c, n in zip(cats, self.n_cats, strict=True)
            if n > 1
        ]
        h = torch.cat([z, *(c.expand(*z.shape[:-1], -1) for c in covariates)], dim=-1)
        # batch norm wants two dimensions: fold the samples into the cells and back
        h = self.trunk(h.reshape(-1, h.shape[-1])).reshape(*h.shape[:-1], -1)
        out = self.output(h)  # (..., B, G) or (..., B, 2G)
        if self.softmax:
            spliced, unspliced = out.chunk(2, dim=-1)
            out = spliced - unspliced  # log-odds of the two-way softmax
        own = own - self.own_mean
        out = out + (own @ self.components) @ self.component_weight.T
        if self.own_weight is not None:
            out = torch.addcmul(out, own, self.own_weight / self.own_std)
        return out


def ratio_loss(
    logit: torch.Tensor,
    spliced: torch.Tensor,
    unspliced: torch.Tensor,
    kind: str = "binomial",
    gene_weight: torch.Tensor | None = None,
    log_concentration: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Loss of each entry; 0, with no gradient, where nothing was counted (n = s + u = 0).

    With the logit :math:`\eta`, :math:`\hat p = \mathrm{sigmoid}(\eta)` and :math:`r = s / n`:

    ============== ==================================================================
    binomial       :math:`-\log p(s \mid n, \hat p)` without its constant
                   :math:`\log\binom{n}{s}`: :math:`n \log(1 + e^\eta) - s\,\eta`
    beta_binomial  :math:`\log B(\hat p c, (1 - \hat p) c)
                   - \log B(\hat p c + s, (1 - \hat p) c + u)`: the same with p drawn from
                   :math:`\mathrm{Beta}(\hat p c, (1 - \hat p) c)`, c the gene's concentration
    mse            :math:`(\hat p - r)^2`
    weighted_mse   :math:`w_g (\hat p - r)^2`, weights proportional to the gene's total counts
                   in training, mean 1
    l1             :math:`|\hat p - r|`
    ============== ==================================================================

    Parameters
    ----------
    logit, spliced, unspliced
        (B, G) each.
    kind
        One of the losses above.
    gene_weight
        (G,), for ``weighted_mse``.
    log_concentration
        (G,), for ``beta_binomial``.

    Returns
    -------
    (B, G), in nats for the two likelihoods.
    """
    n = spliced + unspliced
    if kind == "binomial":  # zero by itself where n = 0
        return n * F.softplus(logit) - spliced * logit
    if kind == "beta_binomial":
        c = log_concentration.exp()
        a, b = torch.sigmoid(logit) * c, torch.sigmoid(-logit) * c
        a, b = a.clamp_min(1e-6), b.clamp_min(1e-6)  # lgamma(0) is infinite

        def log_beta(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return torch.lgamma(x) + torch.lgamma(y) - torch.lgamma(x + y)

        # log B(a, b) - log B(a, b) is zero where n = 0, its gradient too
        return log_beta(a, b) - log_beta(a + spliced, b + unspliced)
    error = torch.sigmoid(logit) - spliced / n.clamp_min(1)
    error = error.abs() if kind == "l1" else error.square()
    if kind == "weighted_mse":
        error = error * gene_weight
    return torch.where(n > 0, error, 0.0)

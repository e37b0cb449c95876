"""The head that predicts splicing ratios, and the losses that train it. Tensors only.

Shapes are written where things happen: B cells in a minibatch, G genes, L latent dimensions,
S posterior samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from scvi.nn import FCLayers
from torch import nn

HEADS = ("linear", "mlp2", "mlp3", "bottleneck")
ACTIVATIONS = ("sigmoid", "softmax")
RATIO_LOSSES = ("quasi_binomial", "binomial", "beta_binomial", "mse", "weighted_mse", "l1")
N_LOADINGS = 30  # components of which a gene's loadings tell of its weights


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


@dataclass
class ModalityStatistics:
    """What the head is told of a second modality, over the training cells in which it was measured.

    Attributes
    ----------
    depth
        Median sum of a cell's values if they are counts, else 0, a scalar.
    mean, std
        Of each gene's values, log-normalised if they are counts, (G,).
    """

    depth: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor


@dataclass
class GeneStatistics:
    """What the head is told of the training cells before it starts; a number per gene, (G,), each.

    Attributes
    ----------
    gene_logit
        Logit of the pooled ratio.
    depth
        Median sum of a cell's counts, a scalar.
    own_mean, own_std
        Mean and standard deviation of the log-normalised input.
    components
        Directions of the principal components, scaled to variance 1, (G, k).
    loadings
        Correlations of the log-normalised input with the components, (G, k).
    gene_weight
        Share of the counts, mean 1.
    concentration
        How little counts scatter about a ratio, see :func:`splicedvae.metrics.fit_concentration`.
    measured
        Share of the cells in which both forms were counted, a scalar.
    modality
        Of a second modality; None without one.
    """

    gene_logit: torch.Tensor
    depth: torch.Tensor
    own_mean: torch.Tensor
    own_std: torch.Tensor
    components: torch.Tensor
    loadings: torch.Tensor
    gene_weight: torch.Tensor
    concentration: torch.Tensor
    measured: torch.Tensor
    modality: ModalityStatistics | None = None


class Features(nn.Module):
    """What the head reads of a cell's counts, beside the latent.

    Parameters
    ----------
    n_genes
        G.
    n_components
        k, the number of principal components.
    own_total
        Read each gene's own count for itself too.
    modality
        Read each gene's own value of a second modality, such as the accessibility of its region.
    """

    def __init__(
        self, n_genes: int, n_components: int, own_total: bool = True, modality: bool = False
    ):
        super().__init__()
        self.own_total, self.modality = own_total, modality
        self.register_buffer("depth", torch.tensor(1e4))
        self.register_buffer("own_mean", torch.zeros(n_genes))
        self.register_buffer("own_std", torch.ones(n_genes))
        self.register_buffer("components", torch.zeros(n_genes, n_components))
        if modality:
            self.register_buffer("modality_depth", torch.tensor(0.0))
            self.register_buffer("modality_mean", torch.zeros(n_genes))
            self.register_buffer("modality_std", torch.ones(n_genes))

    def start(self, statistics: GeneStatistics) -> None:
        """Take what was measured on the training cells.

        Parameters
        ----------
        statistics
            Of these cells.
        """
        for name in ("depth", "own_mean", "own_std"):
            getattr(self, name).copy_(getattr(statistics, name))
        k = min(self.components.shape[1], statistics.components.shape[1])
        self.components[:, :k] = statistics.components[:, :k]
        if self.modality:
            for name in ("depth", "mean", "std"):
                getattr(self, f"modality_{name}").copy_(getattr(statistics.modality, name))

    def forward(
        self, x: torch.Tensor, modality: torch.Tensor | None = None
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        r"""Log-normalise counts, :math:`\log(1 + d\, x_g / \sum_h x_h)`, and read them.

        Parameters
        ----------
        x
            Input counts, (B, G).
        modality
            Values of the second modality, (B, G), if there is one.

        Returns
        -------
        What is each gene's own, standardised by the training cells, (B, G) each: its count, and
        its value of the second modality, which is 0 where it is missing. And the principal
        components of all genes' counts, of variance 1 in the training cells, (B, k).
        """
        count = log_normalised(x, self.depth) - self.own_mean
        own = [count / self.own_std] if self.own_total else []
        if self.modality:
            own.append(self.own_modality(modality))
        return own, count @ self.components

    def own_modality(self, modality: torch.Tensor) -> torch.Tensor:
        """Each gene's value of the second modality, standardised by the training cells.

        Parameters
        ----------
        modality
            Values, (B, G).

        Returns
        -------
        (B, G), 0 where it is missing.
        """
        values, measured = measured_modality(modality, self.modality_depth)
        standardised = (values - self.modality_mean) / self.modality_std
        return torch.where(measured, standardised, 0.0)


def log_normalised(x: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    r"""Counts scaled to one depth in every cell, plus one, logged.

    Parameters
    ----------
    x
        Counts, (B, G).
    depth
        A scalar.

    Returns
    -------
    (B, G).
    """
    return torch.log1p(depth * x / x.sum(-1, keepdim=True).clamp_min(1))


def measured_modality(
    modality: torch.Tensor, depth: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values of a second modality, and where there are any.

    Parameters
    ----------
    modality
        (B, G); not a number where it is missing. A cell whose values are all 0 was not measured.
    depth
        That counts are log-normalised to; 0 takes the values as they are.

    Returns
    -------
    Values, 0 where there are none, and whether there are, both (B, G).
    """
    there = torch.isfinite(modality)
    values = torch.where(there, modality, 0.0)
    there = there & (values != 0).any(-1, keepdim=True)
    return torch.where(depth > 0, log_normalised(values, depth), values), there


class HierarchicalLinear(nn.Module):
    r"""From features that all genes share, and the gene's own count, to each gene's logit.

    .. math:: \eta_{cg} = b_g + (A^\top h_c) \cdot w_g + a\, o_{cg} v_g, \qquad
              (w_g, v_g) \sim \mathcal N(C\, l_g,\; \sigma_g^2 I)

    A gene's value of a second modality is another own feature, with another :math:`a` and
    :math:`v_g`.

    Few genes have counts enough to tell their weights :math:`(w_g, v_g)` alone, so all genes share
    a prior that is learnt with them. Its mean :math:`C\, l_g` is what the gene's loadings
    :math:`l_g` tell: genes that are expressed together are often spliced alike. The matrix
    :math:`A` mixes the features into directions and says how wide the weights are along each, and
    :math:`a` how wide those of the own count are; a gene's :math:`\sigma_g` lets it follow the
    cell's state more, or less, than most do. The posterior of the weights is approximated by an
    independent normal for each (Blundell et al. 2015, *Weight uncertainty in neural networks*).

    Parameters
    ----------
    n_features
        Length of h.
    n_genes
        G.
    n_loadings
        Length of l, less the 1 that it begins with.
    own
        Read the gene's own count too.
    modality
        Read its own value of a second modality too.
    n_covariates
        How many features, the last ones, are covariates: they have a width each and are not mixed
        with the others.
    copies
        Number of weight vectors that make up a gene's by their difference: 2 for a softmax.
    """

    START = 0.03  # width of a weight in the beginning; a logit of 0.1 is a large effect
    INTERCEPT_VARIANCE = 1.0  # of b about the logit of the gene's mean ratio
    OFFSET_VARIANCE = 0.05  # of b about what it was, when other cells come
    # Few genes say little of what all share; without these, 200 genes of a brain overfit it.
    LOADING_PENALTY = 100.0  # on C: as if 100 genes had weights of 0
    MIXING_PENALTY = 30.0  # on what A mixes, in units of START: features begin apart
    SCALE_DEGREES_OF_FREEDOM = 8.0  # makes the prior a t: few genes may vary much more than most

    def __init__(
        self,
        n_features: int,
        n_genes: int,
        n_loadings: int,
        own: bool = True,
        n_covariates: int = 0,
        copies: int = 1,
        modality: bool = False,
    ):
        super().__init__()
        # own features' weights come first: scArches adds the columns of new batches at the end
        self.n_own = own + modality
        width = n_features + self.n_own
        self.bias = nn.Parameter(torch.zeros(n_genes))
        self.mean = nn.Parameter(torch.zeros(copies, n_genes, width))
        self.log_variance = nn.Parameter(torch.zeros(copies, n_genes, width))
        self.log_scale = nn.Parameter(torch.zeros(n_genes))
        self.mixing = nn.Parameter(self.START * torch.eye(n_features - n_covariates))
        self.covariate_width = nn.Parameter(torch.full((n_covariates,), math.log(self.START)))
        self.own_width = nn.Parameter(torch.tensor(math.log(self.START))) if own else None
        self.modality_width = nn.Parameter(torch.tensor(math.log(self.START))) if modality else None
        self.of_loadings = nn.Parameter(torch.zeros(1 + n_loadings, width))
        self.register_buffer("loadings", torch.ones(n_genes, 1 + n_loadings))
        self.register_buffer("gene_logit", torch.zeros(n_genes))
        # what earlier cells have taught, once there are others: see `remember`
        self.register_buffer("known_mean", torch.zeros(copies, n_genes, width))
        self.register_buffer("known_log_variance", torch.zeros(copies, n_genes, width))
        self.register_buffer("remembers", torch.tensor(False))
        _set_rates(self)
        self.register_load_state_dict_post_hook(_set_rates)

    def start(self, statistics: GeneStatistics) -> None:
        """Set intercepts to the gene means, and take the loadings.

        Parameters
        ----------
        statistics
            Of the training cells.
        """
        self.gene_logit.copy_(statistics.gene_logit)
        self.bias.data.copy_(statistics.gene_logit)
        loadings = statistics.loadings[:, : self.loadings.shape[1] - 1]
        spread = loadings.std(0).clamp_min(1e-6)  # one unit for all of them
        self.loadings[:, 1 : 1 + loadings.shape[1]] = loadings / spread

    @torch.no_grad()
    def remember(self) -> None:
        """Make the posterior of the weights the prior of what other cells will teach.

        The prior that genes share, and what features are mixed by, stay as they are from then on.
        """
        self.known_mean.copy_(self.mean)
        self.known_log_variance.copy_(self.log_variance)
        self.gene_logit.copy_(self.bias)
        self.remembers.fill_(True)
        _set_rates(self)

    def draw(self, n: int) -> torch.Tensor:
        """Draw weights from their posterior.

        Parameters
        ----------
        n
            Number of draws, S.

        Returns
        -------
        (S, G, features), the own features' weights first.
        """
        noise = torch.randn(n, *self.mean.shape, device=self.mean.device)
        return _difference(self.mean + self.log_variance.mul(0.5).exp() * noise, dim=1)

    def forward(
        self, h: torch.Tensor, own: Sequence[torch.Tensor], weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits: with weights drawn anew for each cell in training, else with their means.

        In training it is the logit that is drawn, from the normal distribution that normal weights
        give it (local reparameterisation, Kingma et al. 2015): the same loss in expectation, with
        less noise in its gradient.

        Parameters
        ----------
        h
            Features, (B, features) or (S, B, features).
        own
            What is each gene's own, standardised, (B, G) each, see :class:`Features`.
        weights
            From :meth:`draw`, for S samples of `h`; None for the posterior.

        Returns
        -------
        (B, G) or (S, B, G).
        """
        given = weights is not None
        weights = weights if given else _difference(self.mean)
        d = len(self.mixing)
        mixing = self.mixing.detach() if self.remembers else self.mixing
        h = torch.cat([h[..., :d] @ mixing, h[..., d:] * self.covariate_width.exp()], dim=-1)
        logit = h @ weights[..., self.n_own :].mT + self.bias
        widths = [w.exp() for w in (self.own_width, self.modality_width) if w is not None]
        for k, (o, width) in enumerate(zip(own, widths, strict=True)):
            logit = torch.addcmul(logit, o, width * weights[..., None, :, k])
        if not self.training or given:
            return logit
        variance = self.log_variance.exp().sum(0)
        spread = h.square() @ variance[:, self.n_own :].mT
        for k, (o, width) in enumerate(zip(own, widths, strict=True)):
            spread = torch.addcmul(spread, o.square(), width.square() * variance[:, k])
        return torch.addcmul(logit, spread.sqrt(), torch.randn_like(logit))

    def penalty(self) -> torch.Tensor:
        r"""KL divergence of the weights' posterior from their prior, and the prior's own penalties.

        Of independent normals, :math:`\tfrac12 \sum (v + (m - \mu)^2)/\sigma^2 - 1 -
        \log(v / \sigma^2)`; and minus the log densities of intercepts, of :math:`C` and of the
        off-diagonal of :math:`A` (normal), and of :math:`1/\sigma_g^2` (gamma with mean 1), without
        their constants.

        Returns
        -------
        A scalar, in nats for all training cells together.
        """
        intercepts = (self.bias - self.gene_logit).square().sum()
        if self.remembers:
            intercepts = intercepts / self.OFFSET_VARIANCE
            ratio, away = self.log_variance - self.known_log_variance, self.mean - self.known_mean
            away = away.square() / self.known_log_variance.exp()
            return ((ratio.exp() + away - 1 - ratio).sum() + intercepts) / 2
        precision = (-2 * self.log_scale).exp()[:, None]
        ratio = self.log_variance + precision.log()
        away = self.mean - self.loadings @ self.of_loadings
        kl = (ratio.exp() + precision * away.square() - 1 - ratio).sum()
        intercepts = intercepts / self.INTERCEPT_VARIANCE
        loadings = self.LOADING_PENALTY * self.of_loadings.square().sum()
        mixed = (self.mixing - torch.diag(self.mixing.diagonal())) / self.START
        mixing = self.MIXING_PENALTY * mixed.square().sum()
        scales = self.SCALE_DEGREES_OF_FREEDOM * (precision - precision.log() - 1).sum()
        return (kl + intercepts + loadings + mixing + scales) / 2


def _set_rates(head: HierarchicalLinear, *_: object) -> None:
    """Say how fast each parameter learns, as a multiple of the learning rate.

    All of them are of the order of 1, but for the mixing: a normal rate would leave them where they
    are. They are drawn to rest by a schedule, see :mod:`splicedvae.training`. Weights that remember
    are near where they will be, and large steps would forget.
    """
    for parameter in head.parameters():
        parameter.lr_scale, parameter.scheduled = 30.0, True
    head.bias.lr_scale, head.of_loadings.lr_scale, head.mixing.lr_scale = 10.0, 10.0, 3.0
    if head.remembers:
        head.mean.lr_scale = head.log_variance.lr_scale = 3.0


class PenalisedLinear(nn.Module):
    r"""The same logits from plain weights, with a fixed ridge penalty or none.

    Parameters
    ----------
    n_features, n_genes, own, copies, modality
        As in :class:`HierarchicalLinear`.
    l2
        The penalty :math:`\tau`, a normal prior of that precision; 0 for none.
    """

    def __init__(
        self,
        n_features: int,
        n_genes: int,
        own: bool,
        copies: int,
        l2: float,
        modality: bool = False,
    ):
        super().__init__()
        self.l2 = l2
        self.bias = nn.Parameter(torch.zeros(n_genes))
        self.mean = nn.Parameter(torch.zeros(copies, n_genes, n_features))
        self.own_weight = nn.Parameter(torch.zeros(n_genes)) if own else None
        self.modality_weight = nn.Parameter(torch.zeros(n_genes)) if modality else None

    def start(self, statistics: GeneStatistics) -> None:
        """Set intercepts to the gene means.

        Parameters
        ----------
        statistics
            Of the training cells.
        """
        self.bias.data.copy_(statistics.gene_logit)

    def remember(self) -> None:
        """Nothing: a point does not say how well it is known."""

    def draw(self, n: int) -> None:
        """Nothing: these weights are one point.

        Parameters
        ----------
        n
            Number of draws.
        """
        return None

    def forward(
        self, h: torch.Tensor, own: Sequence[torch.Tensor], weights: None = None
    ) -> torch.Tensor:
        """Logits.

        Parameters
        ----------
        h, own, weights
            As in :class:`HierarchicalLinear`; there are no draws.

        Returns
        -------
        (B, G) or (S, B, G).
        """
        logit = h @ _difference(self.mean).mT + self.bias
        of_own = [w for w in (self.own_weight, self.modality_weight) if w is not None]
        for o, weight in zip(own, of_own, strict=True):
            logit = torch.addcmul(logit, o, weight)
        return logit

    def penalty(self) -> torch.Tensor:
        r"""Minus the log of the prior, without its constant.

        Returns
        -------
        :math:`\tfrac{\tau}{2} \lVert W \rVert^2`, a scalar.
        """
        weights = (self.mean, self.own_weight, self.modality_weight)
        return self.l2 / 2 * sum(w.square().sum() for w in weights if w is not None)


def _difference(weights: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """Of the outputs of a two-way softmax only the difference counts; one output is itself."""
    first, *second = weights.unbind(dim)
    return first - second[0] if second else first


class RatioHead(nn.Module):
    r"""From the latent to each gene's splicing ratio, on the logit scale.

    .. math:: \eta_g = \mathrm{logit}\,\hat p_g = b_g + w_g \cdot h + v_g o_g,
              \qquad h = \big(y,\; t(z, \text{covariates})\big)

    with hidden layers :math:`t`, principal components :math:`y` of the cell's log-normalised input
    and the gene's own standardised count :math:`o_g`. It starts at the gene mean: weights are zero
    and :math:`b_g` is the logit of the gene's training ratio, so whatever it says beyond the mean
    is learnt.

    Parameters
    ----------
    n_latent, n_genes
        L and G.
    head
        ``"linear"`` (t is the identity), ``"mlp2"`` and ``"mlp3"`` (one and two hidden layers
        before the output layer) or ``"bottleneck"`` (two hidden layers, the second of
        ``n_hidden // 8`` units, so that the weights have low rank).
    activation
        ``"sigmoid"`` has one output per gene; ``"softmax"`` has two, spliced and unspliced,
        normalised over the two. :math:`e^a / (e^a + e^b) = \mathrm{sigmoid}(a - b)`: the same
        functions, written with twice the parameters.
    n_hidden, dropout_rate
        Width and dropout of the hidden layers.
    own_total
        Add one weight per gene on the gene's own count, which the latent, being shared by all
        genes, cannot carry.
    n_components
        Number of principal components, at most one less than genes.
    modality
        Add one weight per gene on its value of a second modality.
    n_cats
        Number of categories of each categorical covariate, the batch last.
    n_continuous_cov
        Number of continuous covariates.
    l2
        None learns a prior of the weights, see :class:`HierarchicalLinear`; a number is a fixed
        penalty, see :class:`PenalisedLinear`.
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
        modality: bool = False,
        n_cats: tuple[int, ...] = (),
        n_continuous_cov: int = 0,
        l2: float | None = None,
    ):
        super().__init__()
        one_of("head", head, HEADS)
        copies = 1 + (one_of("head_activation", activation, ACTIVATIONS) == "softmax")
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
        k = min(n_components, n_genes - 1)
        self.features = Features(n_genes, k, own_total, modality)
        if l2 is None:
            n_loadings = min(N_LOADINGS, n_genes - 1)
            n_covariates = 0 if hidden else n_in - n_latent
            self.output = HierarchicalLinear(
                k + widths[-1], n_genes, n_loadings, own_total, n_covariates, copies, modality
            )
        else:
            self.output = PenalisedLinear(k + widths[-1], n_genes, own_total, copies, l2, modality)
        # measured on the training cells by `start`, saved with the weights
        self.log_concentration = nn.Parameter(torch.full((n_genes,), math.log(20.0)))
        self.register_buffer("gene_weight", torch.ones(n_genes))
        self.register_buffer("measured", torch.tensor(1.0))
        self.register_buffer("started", torch.tensor(False))
        # number of training cells and sums of their counts: whether others come now
        self.register_buffer("taught_by", torch.zeros(4))

    def start(self, statistics: GeneStatistics) -> None:
        """Set the intercepts to the gene means and store what the features are made with.

        Parameters
        ----------
        statistics
            Of the training cells.
        """
        with torch.no_grad():
            self.output.start(statistics)
            self.log_concentration.copy_(statistics.concentration.log())
            self.gene_weight.copy_(statistics.gene_weight)
            self.measured.copy_(statistics.measured)
            self.features.start(statistics)
            self.started.fill_(True)

    def meet(self, cells: torch.Tensor) -> None:
        """Say which cells are about to teach; what earlier ones have taught is then kept.

        Parameters
        ----------
        cells
            Their number, and the sums of their input, spliced and unspliced counts, (4,).
        """
        if self.taught_by.any() and not torch.allclose(cells, self.taught_by.cpu()):
            self.output.remember()
        self.taught_by.copy_(cells)

    def forward(
        self,
        z: torch.Tensor,
        x: torch.Tensor,
        cats: tuple[torch.Tensor, ...] = (),
        cont: torch.Tensor | None = None,
        weights: torch.Tensor | None = None,
        modality: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logit of each gene's splicing ratio.

        Parameters
        ----------
        z
            Latent, (B, L) or (S, B, L).
        x
            Input counts, (B, G).
        cats
            Categorical covariates, each (B, 1), the batch last.
        cont
            Continuous covariates, (B, C).
        weights
            Drawn from their posterior, (S, G, features); None for their means.
        modality
            Values of a second modality, (B, G), if the head reads one.

        Returns
        -------
        Logits, (B, G) or (S, B, G).
        """
        own, components = self.features(x, modality)
        covariates = [] if cont is None else [cont]
        covariates += [
            F.one_hot(c.squeeze(-1).long(), n).to(z.dtype)
            for c, n in zip(cats, self.n_cats, strict=True)
            if n > 1
        ]
        h = torch.cat([z, *(c.expand(*z.shape[:-1], -1) for c in covariates)], dim=-1)
        # batch norm wants two dimensions: fold the samples into the cells and back
        h = self.trunk(h.reshape(-1, h.shape[-1])).reshape(*h.shape[:-1], -1)
        h = torch.cat([components.expand(*h.shape[:-1], -1), h], dim=-1)
        return self.output(h, own, weights)


def ratio_loss(
    logit: torch.Tensor,
    spliced: torch.Tensor,
    unspliced: torch.Tensor,
    kind: str = "binomial",
    gene_weight: torch.Tensor | None = None,
    log_concentration: torch.Tensor | None = None,
    binomial: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Loss of each entry; 0, with no gradient, where nothing was counted (n = s + u = 0).

    With the logit :math:`\eta`, :math:`\hat p = \mathrm{sigmoid}(\eta)` and :math:`r = s / n`:

    ============== ==================================================================
    quasi_binomial :math:`(c + 1) / (c + n)\, \big(n \log(1 + e^\eta) - s\,\eta\big)`, c the gene's
                   concentration: as many molecules as would say as much if each were independent
                   evidence, at most c + 1 (Williams 1982, eq. 2.3 with variance 1/(c + 1))
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
        (G,), for ``quasi_binomial`` and ``beta_binomial``.
    binomial
        The binomial loss of the same entries, (B, G), if it is at hand.

    Returns
    -------
    (B, G), in nats for the two likelihoods.
    """
    n = spliced + unspliced
    if kind in ("binomial", "quasi_binomial"):  # zero by itself where n = 0
        entries = n * F.softplus(logit) - spliced * logit if binomial is None else binomial
        if kind == "binomial":
            return entries
        c = log_concentration.exp()
        return (c + 1) / (c + n) * entries
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

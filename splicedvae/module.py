"""The network: scVI's VAE with one more decoder head, which predicts splicing ratios.

Tensors only; :mod:`splicedvae.model` knows AnnData. Shapes are written where things happen:
B cells in a minibatch, G genes, L latent dimensions, S posterior samples.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from scvi import REGISTRY_KEYS
from scvi.distributions import NegativeBinomial
from scvi.module import VAE
from scvi.module._constants import MODULE_KEYS
from scvi.module.base import LossOutput, auto_move_data
from torch import nn

from .head import RATIO_LOSSES, RatioHead, one_of, ratio_loss
from .likelihood import QuickNegativeBinomial

RatioLoss = Literal["quasi_binomial", "binomial", "beta_binomial", "mse", "weighted_mse", "l1"]

SPLICED, UNSPLICED = "spliced", "unspliced"  # registry keys of the two count layers
MODALITY = "modality"  # and of a second modality, where there is one
REDUCTIONS = ("sum", "mean")


class SplicedVAEModule(VAE):
    r"""scVI's VAE and a :class:`RatioHead`, trained together.

    The loss of a minibatch is the mean over cells of

    .. math:: -\mathrm{ELBO}(x) + \lambda \Big[\sum_g \mathrm{loss}(s_g, u_g, \hat p_g)
              + \tfrac1N \mathrm{KL}\big(q(w) \,\|\, p(w)\big) \Big]

    (the paper, section 2.1, with the sum over genes and the prior of the head's weights w written
    out; N is the number of training cells, which share the weights). With a binomial loss and
    :math:`\lambda = 1` it is the negative ELBO of the joint model :math:`p(w)\, p(x \mid z)\,
    p(s \mid n, z, w)`. Averaged over entries instead (``ratio_reduction="mean"``, the paper read
    literally) the ratio term is smaller than the ELBO by a factor of about the number of counted
    genes in a cell.

    Parameters
    ----------
    n_input
        G.
    n_batch, n_latent, n_hidden, n_continuous_cov, n_cats_per_cov, dropout_rate
        As in :class:`scvi.module.VAE`; the head uses them too.
    gene_likelihood
        As there, with the negative binomial as default.
    head, head_activation, own_total, n_components
        See :class:`RatioHead`.
    ratio_loss
        See :func:`ratio_loss`.
    ratio_weight
        :math:`\lambda`.
    ratio_reduction
        ``"sum"`` over genes, averaged over cells, like the reconstruction term; or ``"mean"``
        over all counted entries of the minibatch.
    head_l2
        None learns the prior of the head's weights, see
        :class:`~splicedvae.head.HierarchicalLinear`. A number fixes it: the KL term becomes
        :math:`\tfrac{\tau}{2} \lVert w \rVert^2`, a ridge penalty of that size on the sum over
        cells; 0 for none.
    head_latent
        The head sees the ``"mean"`` of q(z|x) or a ``"sample"`` of it.
    detach_head
        Keep the head's gradient from the encoder: scVI, and a regression on its latent.
    modality
        Minibatches hold a second modality, and the head reads it.
    encode_modality
        The encoder reads it too, beside the counts, in place of covariates.
    **vae_kwargs
        What else :class:`scvi.module.VAE` takes.
    """

    def __init__(
        self,
        n_input: int,
        n_batch: int = 0,
        n_hidden: int = 128,
        n_latent: int = 20,
        n_continuous_cov: int = 0,
        n_cats_per_cov: list[int] | None = None,
        dropout_rate: float = 0.3,
        gene_likelihood: Literal["zinb", "nb", "poisson", "normal"] = "nb",
        head: Literal["linear", "mlp2", "mlp3", "bottleneck"] = "linear",
        head_activation: Literal["sigmoid", "softmax"] = "sigmoid",
        own_total: bool = True,
        n_components: int = 30,
        ratio_loss: RatioLoss = "quasi_binomial",
        ratio_weight: float = 1.0,
        ratio_reduction: Literal["sum", "mean"] = "sum",
        head_l2: float | None = None,
        head_latent: Literal["mean", "sample"] = "sample",
        detach_head: bool = False,
        modality: bool = False,
        encode_modality: bool = False,
        **vae_kwargs,
    ):
        super().__init__(
            n_input,
            n_batch=n_batch,
            n_hidden=n_hidden,
            n_latent=n_latent,
            n_continuous_cov=n_continuous_cov,
            n_cats_per_cov=n_cats_per_cov,
            dropout_rate=dropout_rate,
            gene_likelihood=gene_likelihood,
            **vae_kwargs,
        )
        self.ratio_loss_kind = one_of("ratio_loss", ratio_loss, RATIO_LOSSES)
        self.ratio_reduction = one_of("ratio_reduction", ratio_reduction, REDUCTIONS)
        self.head_latent = one_of("head_latent", head_latent, ("mean", "sample"))
        for name, value in (("ratio_weight", ratio_weight), ("head_l2", head_l2 or 0.0)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name}={value} must be a finite number, zero or more.")
        self.ratio_weight, self.detach_head = ratio_weight, detach_head
        self.head = RatioHead(
            n_latent,
            n_input,
            head=head,
            activation=head_activation,
            n_hidden=n_hidden,
            dropout_rate=dropout_rate,
            own_total=own_total,
            n_components=n_components,
            modality=modality,
            n_cats=(*(n_cats_per_cov or ()), n_batch),
            n_continuous_cov=n_continuous_cov,
            l2=head_l2,
        )
        # set from the training cells; trained only by beta_binomial
        self.head.log_concentration.requires_grad_(ratio_loss == "beta_binomial")
        self.encode_modality = encode_modality
        if encode_modality:
            for encoder in (self.z_encoder, self.l_encoder):
                layer = encoder.encoder.fc_layers[0]
                layer[0] = nn.Linear(layer[0].in_features + n_input, layer[0].out_features)
            self.encode_covariates = True  # scVI appends to the counts what it is told are these

    def _get_inference_input(self, tensors: dict, full_forward_pass: bool = False) -> dict:
        inputs = super()._get_inference_input(tensors, full_forward_pass)
        if self.encode_modality:
            modality = self.head.features.own_modality(tensors[MODALITY])
            inputs[MODULE_KEYS.CONT_COVS_KEY] = modality
        return inputs

    @auto_move_data
    def splicing_logit(
        self,
        tensors: dict[str, torch.Tensor],
        z: torch.Tensor,
        transform_batch: int | None = None,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The head, on a latent and the minibatch it was inferred from.

        Parameters
        ----------
        tensors
            A minibatch: input counts (B, G) and covariates.
        z
            Latent, (B, L) or (S, B, L).
        transform_batch
            Predict as if every cell came from this batch.
        weights
            Draws of the head's weights, one for each of the S samples of `z`.

        Returns
        -------
        Logits, (B, G) or (S, B, G).
        """
        x, batch_index = tensors[REGISTRY_KEYS.X_KEY], tensors[REGISTRY_KEYS.BATCH_KEY]
        if transform_batch is not None:
            batch_index = torch.full_like(batch_index, transform_batch)
        cats = tensors.get(REGISTRY_KEYS.CAT_COVS_KEY)
        cats = () if cats is None else torch.split(cats, 1, dim=1)
        cont = tensors.get(REGISTRY_KEYS.CONT_COVS_KEY)
        modality = tensors[MODALITY] if self.head.features.modality else None
        return self.head(z, x, (*cats, batch_index), cont, weights, modality)

    def loss(
        self,
        tensors: dict[str, torch.Tensor],
        inference_outputs: dict,
        generative_outputs: dict,
        kl_weight: torch.Tensor | float = 1.0,
        n_obs: int = 1,
    ) -> LossOutput:
        """Negative ELBO plus the weighted ratio loss.

        Parameters
        ----------
        tensors
            A minibatch: input, spliced and unspliced counts, covariates.
        inference_outputs, generative_outputs
            From :class:`scvi.module.VAE`.
        kl_weight
            Weight of the KL term, warmed up by the training plan.
        n_obs
            Number of training cells N, given by the training plan.

        Returns
        -------
        The loss, the terms of the ELBO, and in ``extra_metrics["ratio"]`` sums of the predicted
        and observed ratios over the minibatch: to log each score at every step would cost more
        than the head, so :class:`splicedvae.training.SplicedVAEPlan` adds them up.
        """
        px = generative_outputs[MODULE_KEYS.PX_KEY]
        if type(px) is NegativeBinomial:
            theta = self.px_r.exp() if self.dispersion == "gene" else px.theta
            px = QuickNegativeBinomial(px, theta)
            generative_outputs = generative_outputs | {MODULE_KEYS.PX_KEY: px}
        elbo = super().loss(tensors, inference_outputs, generative_outputs, kl_weight=kl_weight)
        spliced, unspliced = tensors[SPLICED], tensors[UNSPLICED]  # (B, G)
        # a cell in which one form was never seen has no such layer: its ratios are not known
        known = (spliced.sum(-1, keepdim=True) > 0) & (unspliced.sum(-1, keepdim=True) > 0)
        spliced, unspliced = spliced * known, unspliced * known
        z = (
            self.z_encoder.z_transformation(inference_outputs["qz"].loc)
            if self.head_latent == "mean"
            else inference_outputs["z"]
        )  # (B, L)
        logit = self.splicing_logit(tensors, z.detach() if self.detach_head else z)  # (B, G)
        parameters = self.head.gene_weight, self.head.log_concentration
        n = spliced + unspliced
        nll = ratio_loss(logit, spliced, unspliced, "binomial")  # (B, G); logged with every loss
        entries = ratio_loss(logit, spliced, unspliced, self.ratio_loss_kind, *parameters, nll)
        counted = (n > 0).to(logit.dtype)
        # all cells whose ratios are known bear the penalty together; the others teach nothing
        share = known.sum() / (n_obs * self.head.measured)
        objective = entries.sum() + share * self.head.output.penalty()
        objective = objective / (
            len(n) if self.ratio_reduction == "sum" else counted.sum().clamp_min(1)
        )
        return LossOutput(
            loss=elbo.loss + self.ratio_weight * objective,
            reconstruction_loss=elbo.reconstruction_loss,
            kl_local=elbo.kl_local,
            extra_metrics=(
                {"ratio": self._ratio_sums(logit.detach(), spliced, n, counted, entries, nll)}
                if logit.ndim == 2  # scvi-tools may ask for the loss of several samples
                else {}
            ),
        )

    @torch.no_grad()
    def _ratio_sums(self, logit, spliced, n, counted, entries, nll) -> torch.Tensor:
        """Sums from which an epoch's scores of the ratios are exact, see
        :func:`splicedvae.training.scores_of_epoch`."""
        predicted = (counted * torch.sigmoid(logit)).flatten()
        observed = (spliced / n.clamp_min(1)).flatten()
        return torch.stack(
            [
                counted.sum(),
                predicted.sum(),
                observed.sum(),
                predicted @ predicted,
                observed @ observed,
                predicted @ observed,
                entries.detach().sum(),
                nll.detach().sum(),
            ]
        )

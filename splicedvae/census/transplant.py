"""From a pretrained scVI to a SplicedVAE on other cells: encoder and decoder weights, by gene."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from inspect import signature
from typing import Any, Literal

import torch
from anndata import AnnData
from torch import nn

from ..checks import check_cells
from ..counts import checked_layers
from ..model import SplicedVAE
from .checkpoints import DEFAULT_RELEASE, Checkpoint, fetch, read
from .genes import match

HEAD = "head."  # what is learnt from scratch
GENE_ROWS = (
    "px_r",
    "decoder.px_scale_decoder.",
    "decoder.px_r_decoder.",
    "decoder.px_dropout_decoder.",
)
LAYER = re.compile(
    r"(?P<part>[zl]_encoder\.encoder|decoder\.px_decoder)"
    r"\.fc_layers\.Layer (?P<layer>\d+)\.0\.weight"
)


def initialise(
    adata: AnnData,
    organism: str = "mus_musculus",
    release: str = DEFAULT_RELEASE,
    checkpoint: str | os.PathLike | Checkpoint | None = None,
    *,
    ids: str | Mapping[str, str] | None = None,
    missing: Literal["drop", "pad"] = "drop",
    extra: Literal["drop", "keep"] = "drop",
    batch_key: str | None = None,
    spliced_layer: str = "spliced",
    unspliced_layer: str = "unspliced",
    pretrained_lr: float | None = None,
    cache_dir: str | os.PathLike | None = None,
    **kwargs: Any,
) -> SplicedVAE:
    """Start from a Census model (the paper, section 2.3): match genes, set up, transplant.

    Parameters
    ----------
    adata
        Cells × genes with spliced and unspliced counts.
    organism, release
        Of the model to fetch, see :func:`splicedvae.census.checkpoints.releases`.
    checkpoint
        A checkpoint, or the file or folder of one, instead of a fetched one.
    ids, missing, extra
        See :func:`splicedvae.census.genes.match`.
    batch_key, spliced_layer, unspliced_layer
        See :meth:`splicedvae.SplicedVAE.setup_anndata`.
    pretrained_lr
        See :func:`transplant`.
    cache_dir
        See :func:`splicedvae.census.checkpoints.fetch`.
    **kwargs
        Arguments of the head, for :class:`splicedvae.SplicedVAE`.

    Returns
    -------
    An untrained model. Its cells are a copy with the genes that were matched, set up anew:
    ``model.adata``.

    Raises
    ------
    ConnectionError, KeyError, ValueError
        As in :func:`splicedvae.census.checkpoints.fetch` and ``read`` there,
        :func:`splicedvae.census.genes.match` and :func:`transplant`.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = read(
            fetch(organism, release, cache_dir=cache_dir) if checkpoint is None else checkpoint
        )
    check_cells(adata)
    checked_layers(adata, spliced_layer, unspliced_layer, teaches=True)
    matched = match(adata, checkpoint.genes, ids, missing, extra)
    SplicedVAE.setup_anndata(
        matched,
        batch_key=batch_key,
        spliced_layer=spliced_layer,
        unspliced_layer=unspliced_layer,
    )
    return transplant(matched, checkpoint, pretrained_lr, **kwargs)


def transplant(
    adata: AnnData, checkpoint: Checkpoint, pretrained_lr: float | None = None, **kwargs: Any
) -> SplicedVAE:
    """A SplicedVAE with a checkpoint's encoder and decoder, and a head from scratch.

    Parameters
    ----------
    adata
        From :func:`splicedvae.census.genes.match`, and set up.
    checkpoint
        From :func:`splicedvae.census.checkpoints.read`.
    pretrained_lr
        Learning rate of what is transplanted, relative to that of the head and of genes that the
        checkpoint does not have: 1 trains all alike, 0 freezes it. None takes 0.1, which did better
        than 1 on validation cells (chapter 3), or 1 if there are such genes. It is not saved: a
        model that was loaded trains all alike.
    **kwargs
        Arguments of the head, for :class:`splicedvae.SplicedVAE`.

    Returns
    -------
    An untrained model. A weight of a gene is the checkpoint's to the bit. The batches of `adata`
    are new, so each starts from the mean of the pretrained batches.

    Raises
    ------
    KeyError
        `adata` was not matched.
    ValueError
        An argument contradicts the checkpoint, the cells have covariates other than a batch, or
        `pretrained_lr` is negative.
    """
    if "census" not in adata.var:
        raise KeyError("adata.var has no column 'census': match the genes first, census.match.")
    genes = torch.as_tensor(adata.var["census"].to_numpy(copy=True))  # (G,)
    if pretrained_lr is None:
        pretrained_lr = 1.0 if (genes < 0).any() else 0.1
    if not pretrained_lr >= 0:
        raise ValueError(f"pretrained_lr={pretrained_lr} must be a number, zero or more.")
    if not checkpoint.architecture.get("use_observed_lib_size", True):
        raise ValueError("The checkpoint infers library sizes, batch by batch; it can't be used.")
    ours = signature(SplicedVAE.__init__).parameters
    settings = {k: v for k, v in checkpoint.architecture.items() if k in ours}
    if clash := [k for k in kwargs if k in settings and settings[k] != kwargs[k]]:
        raise ValueError(f"{', '.join(clash)} are fixed by the checkpoint; leave them out.")
    if pretrained_lr != 1 and (genes < 0).any():
        raise ValueError(
            "A layer holds all genes and has one learning rate: with extra='keep', "
            "pretrained_lr must be 1."
        )
    if kwargs.get("encode_modality"):
        raise ValueError("A Census model's encoder reads counts alone; leave encode_modality out.")
    if checkpoint.n_continuous_cov or checkpoint.n_cats_per_cov:
        raise ValueError(f"The checkpoint {checkpoint.path} has covariates beside the batch.")
    model = SplicedVAE(adata, **(settings | kwargs))
    covariates = ("n_extra_categorical_covs", "n_extra_continuous_covs")
    if any(model.summary_stats.get(kind) for kind in covariates):
        raise ValueError("Census models know batches only; set adata up without other covariates.")
    _copy(model.module, checkpoint, genes)
    _slow_down(model.module, pretrained_lr)
    model.module.eval()
    return model


def _copy(module: nn.Module, checkpoint: Checkpoint, genes: torch.Tensor) -> None:
    """Fill all but the head: rows and columns by gene, batches by their mean, the rest as it is."""
    state, old = module.state_dict(), checkpoint.weights
    shared = genes >= 0
    n_latent, n_hidden = (checkpoint.architecture[k] for k in ("n_latent", "n_hidden"))
    shifts: dict[str, torch.Tensor] = {}
    for name, new in state.items():
        if name.startswith(HEAD):
            continue
        if name not in old:
            raise ValueError(f"The checkpoint {checkpoint.path} has no weights {name!r}.")
        pretrained = old[name]
        if name.startswith(GENE_ROWS):  # (G, ...), and a dispersion may have a column per batch
            if name == "px_r" and pretrained.ndim == 2:
                pretrained = pretrained.mean(1, keepdim=True).expand(-1, new.shape[1])
            new[shared] = pretrained[genes[shared]]
        elif (where := LAYER.fullmatch(name)) is not None:  # (hidden, inputs + batches)
            encoder, first = where["part"] != "decoder.px_decoder", where["layer"] == "0"
            width = n_hidden if not first else len(checkpoint.genes) if encoder else n_latent
            columns, batches = pretrained[:, :width], pretrained[:, width:]
            inputs = len(genes) if encoder and first else width
            if encoder and first:
                new[:, :inputs][:, shared] = columns[:, genes[shared]]
            else:
                new[:, :inputs] = columns
            mean = batches.mean(1) if batches.shape[1] else torch.zeros(len(new))
            new[:, inputs:] = mean[:, None]
            if new.shape[1] == inputs:  # one batch has no column: what all its cells get is a bias
                shifts[name.replace("weight", "bias")] = mean
        elif new.shape != pretrained.shape:
            raise ValueError(
                f"The checkpoint's {name!r} has shape {tuple(pretrained.shape)}, not "
                f"{tuple(new.shape)}: it has covariates beside the batch."
            )
        else:
            new.copy_(pretrained)
        if name in shifts:
            new += shifts[name]
    module.load_state_dict(state)


class _FrozenBatchNorm(nn.BatchNorm1d):
    """Normalises by the pretrained mean and variance while the head is trained, as ever after."""

    def train(self, mode: bool = True) -> _FrozenBatchNorm:
        return super().train(False)


def _slow_down(module: nn.Module, pretrained_lr: float) -> None:
    """Give what was transplanted its learning rate, which `SplicedVAE.train` reads."""
    for name, parameter in module.named_parameters():
        if not name.startswith(HEAD):
            parameter.lr_scale = pretrained_lr
            parameter.requires_grad_(pretrained_lr > 0)
    if pretrained_lr == 0:
        for name, layer in module.named_modules():
            if isinstance(layer, nn.BatchNorm1d) and not name.startswith(HEAD):
                layer.__class__ = _FrozenBatchNorm

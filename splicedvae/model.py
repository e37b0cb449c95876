"""SplicedVAE: the model that users meet. AnnData in, AnnData out; tensors live in `module`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from inspect import signature
from numbers import Integral
from typing import Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from lightning.pytorch import LightningDataModule
from scvi import REGISTRY_KEYS, settings
from scvi.data import AnnDataManager
from scvi.data.fields import (
    CategoricalJointObsField,
    CategoricalObsField,
    LayerField,
    NumericalJointObsField,
    NumericalObsField,
)
from scvi.model import SCVI
from scvi.model.base import BaseModelClass

from . import queries, start, training
from ._inherited import InheritedMixin
from .checks import (
    as_text,
    check_cells,
    same_genes,
    shown,
    unchanged_on_error,
)
from .counts import input_layer
from .minibatches import InMemorySplitter
from .module import MODALITY, SPLICED, UNSPLICED, RatioLoss, SplicedVAEModule
from .prediction import SplicingMixin


class SplicedVAE(SplicingMixin, InheritedMixin, SCVI):
    r"""scVI with a head that predicts each gene's splicing ratio from its counts alone.

    .. math:: z \sim \mathcal N(0, I), \quad x_g \sim \mathrm{NB}\big(\ell \rho_g(z), \theta_g\big),
              \quad s_g \sim \mathrm{Binomial}\big(n_g, \hat p_g(z)\big)

    Parameters
    ----------
    adata
        Set up by :meth:`setup_anndata`.
    n_hidden, n_latent, n_layers, dropout_rate, dispersion, gene_likelihood
        As in :class:`scvi.model.SCVI`, with the negative binomial as default.
    registry, use_observed_lib_size, latent_distribution
        As in :class:`scvi.model.SCVI`.
    head, head_activation, own_total, n_components
        See :class:`splicedvae.head.RatioHead`.
    ratio_loss, ratio_weight, ratio_reduction, head_l2, head_latent, detach_head
        See :class:`splicedvae.module.SplicedVAEModule`. The paper's setting is ``n_latent=50,
        dropout_rate=0.1, head="mlp2", own_total=False, n_components=0, ratio_loss="mse",
        ratio_weight=1, ratio_reduction="mean", head_l2=0``; the defaults are what did best on
        validation cells.
    encode_modality
        The encoder reads the second modality of ``setup_anndata(modality_layer=...)`` too, so that
        the latent is of both; without, only the head does.

    Raises
    ------
    ValueError
        There are no cells, or no second modality to encode.

    Examples
    --------
    >>> adata = sv.data.pancreas()
    >>> train, val, test = sv.data.split(adata)
    >>> adata = sv.data.prepare(adata, fit_on=train)
    >>> sv.SplicedVAE.setup_anndata(adata)
    >>> model = sv.SplicedVAE(adata)
    >>> model.train(split=(train, val))
    >>> model.impute_layers(adata)
    """

    _module_cls = SplicedVAEModule
    _training_plan_cls = training.SplicedVAEPlan
    _data_splitter_cls = InMemorySplitter
    #: What :func:`splicedvae.trust` has measured on held-out training cells; saved along.
    trust_: dict | None = None

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict | None = None,
        n_hidden: int = 128,
        n_latent: int = 20,
        n_layers: int = 1,
        dropout_rate: float = 0.3,
        dispersion: Literal["gene", "gene-batch", "gene-label", "gene-cell"] = "gene",
        gene_likelihood: Literal["zinb", "nb", "poisson", "normal"] = "nb",
        use_observed_lib_size: bool = True,
        latent_distribution: Literal["normal", "ln"] = "normal",
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
        encode_modality: bool = False,
    ):
        if adata is None and registry is None:
            raise ValueError("Give adata that setup_anndata has seen, or a datamodule's registry.")
        known = registry or self._get_most_recent_anndata_manager(adata, required=True).registry
        modality = MODALITY in known["field_registries"]
        if encode_modality and not modality:
            raise ValueError(
                "encode_modality=True, and the cells have no second modality: give its layer to "
                "setup_anndata(modality_layer=...)."
            )
        # every argument is spelled out: one hidden in **kwargs would be lost when `load` rebuilds
        super().__init__(
            adata,
            registry,
            n_hidden=n_hidden,
            n_latent=n_latent,
            n_layers=n_layers,
            dropout_rate=dropout_rate,
            dispersion=dispersion,
            gene_likelihood=gene_likelihood,
            use_observed_lib_size=use_observed_lib_size,
            latent_distribution=latent_distribution,
            head=head,
            head_activation=head_activation,
            own_total=own_total,
            n_components=n_components,
            ratio_loss=ratio_loss,
            ratio_weight=ratio_weight,
            ratio_reduction=ratio_reduction,
            head_l2=head_l2,
            head_latent=head_latent,
            detach_head=detach_head,
            modality=modality,
            encode_modality=encode_modality,
        )
        self._model_summary_string = (
            f"SplicedVAE with n_latent: {n_latent}, n_hidden: {n_hidden}, n_layers: {n_layers}, "
            f"head: {head} ({head_activation}, {'detached' if detach_head else 'coupled'}), "
            f"ratio_loss: {ratio_loss}, ratio_weight: {ratio_weight}."
        )
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        spliced_layer: str = "spliced",
        unspliced_layer: str = "unspliced",
        batch_key: str | None = None,
        input: Literal["total", "spliced"] = "total",
        labels_key: str | None = None,
        size_factor_key: str | None = None,
        categorical_covariate_keys: list[str] | None = None,
        continuous_covariate_keys: list[str] | None = None,
        modality_layer: str | None = None,
        **kwargs,
    ) -> None:
        """Say where the raw counts and the covariates are.

        Layers may be of any dtype and layout; those that scvi-tools can't read are replaced by
        sparse ones of the same counts. Cells in which one form was not counted, as in a sample
        without unspliced counts, are named in the log: they teach the encoder, not the head.

        Parameters
        ----------
        adata
            Cells × genes.
        layer
            What the encoder sees. None composes ``layers["total"]`` = spliced + unspliced, or
            takes the spliced layer if ``input="spliced"``.
        spliced_layer, unspliced_layer
            What the head learns from. A query without them comes through
            :meth:`prepare_query_anndata`.
        batch_key, labels_key, size_factor_key
            Columns of ``obs``, as in :meth:`scvi.model.SCVI.setup_anndata`.
        input
            The kind of count a user will have: ``"total"`` (intronic reads included) or
            ``"spliced"`` (exonic reads only).
        categorical_covariate_keys, continuous_covariate_keys
            Further columns of ``obs``.
        modality_layer
            A second modality that the head reads beside the counts: a value for each gene, such as
            the accessibility or methylation of its region. Whole numbers are taken for counts and
            log-normalised, other values as they are; both are standardised by gene. Where it is
            not a number, and in a cell without any value but 0, it is missing, and says nothing.
        **kwargs
            For :meth:`scvi.data.AnnDataManager.register_fields`.

        Raises
        ------
        KeyError
            A layer or column is missing.
        ValueError
            Counts are not counts, gene names repeat, a cell is empty, `layer` contradicts
            `input`, one layer is a copy of the other or empty, or a covariate is missing or not
            finite in a cell. The cells are then as they were.
        """
        with unchanged_on_error(adata):
            queries.check_setup(adata, locals(), **kwargs)
            layer = input_layer(adata, layer, spliced_layer, unspliced_layer, input)
            setup_method_args = cls._get_setup_method_args(**locals())
            fields = [
                LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=True),
                LayerField(SPLICED, spliced_layer, is_count_data=True),
                LayerField(UNSPLICED, unspliced_layer, is_count_data=True),
                CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
                CategoricalObsField(REGISTRY_KEYS.LABELS_KEY, labels_key),
                NumericalObsField(REGISTRY_KEYS.SIZE_FACTOR_KEY, size_factor_key, required=False),
                CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, categorical_covariate_keys),
                NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, continuous_covariate_keys),
            ]
            if modality_layer is not None:
                fields.append(LayerField(MODALITY, modality_layer, is_count_data=False))
            manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
            manager.register_fields(adata, **kwargs)
            cls.register_manager(manager)

    def train(
        self,
        max_epochs: int = 150,
        split: tuple[Sequence[int], Sequence[int]] | None = None,
        train_size: float = 0.9,
        optimizer: Literal["Adam", "AdamW", "RMSprop"] = "Adam",
        lr: float = 1e-3,
        batch_size: int | None = None,
        plan_kwargs: dict | None = None,
        datasplitter_kwargs: dict | None = None,
        datamodule: LightningDataModule | None = None,
        **kwargs,
    ) -> None:
        """Train encoder, decoder and head together; a second call goes on where the first stopped.

        If its training cells are others, a head with a learned prior takes what it has learnt so
        far for the prior of what these teach, so that a few cells do not make it forget.

        ``history`` then holds, per epoch and for train and validation, the ELBO and its terms,
        ``ratio_loss``, ``ratio_nll``, ``ratio_rmse`` and ``ratio_pearson_r``.

        Parameters
        ----------
        max_epochs
            The paper's 150 by default.
        split
            Positions of the train and validation cells; all others stay unseen. None draws them
            at random, by ``scvi.settings.seed``.
        train_size
            Share of the train cells if `split` is None; the rest validate.
        optimizer, lr
            One of ``"Adam"``, ``"AdamW"``, ``"RMSprop"``; learning rate. A head with a learned
            prior has rates of its own, multiples of `lr` that rise in the first third of the
            training and then fall to 0.
        batch_size
            Cells in a minibatch. None takes 128, or fewer, but at least 16, where these would be
            less than 20 minibatches in an epoch: few cells then get as many updates as many.
        plan_kwargs, datasplitter_kwargs, **kwargs
            As in :meth:`scvi.model.SCVI.train`, but for the optimizer and the split; the KL term
            is warmed up over the first third of the epochs unless `plan_kwargs` says otherwise.
        datamodule
            Gives minibatches, such as :class:`splicedvae.atlas.loader.AtlasDataModule`, to a model
            made with its ``registry``; nothing about the split or minibatches is then read.

        Raises
        ------
        ValueError
            The split is not two parts of distinct positions, the optimizer is unknown, the
            training cells have no spliced and unspliced counts, or there are both cells and a
            datamodule, or neither.
        """
        if not isinstance(max_epochs, Integral) or max_epochs < 1:
            raise ValueError(f"max_epochs={max_epochs} must be a whole number of 1 or more.")
        if not 0 < train_size <= 1:
            raise ValueError(f"train_size={train_size} must be above 0 and at most 1.")
        if (self.adata is None) == (datamodule is None):
            raise ValueError("Give a datamodule if, and only if, the model was made without cells.")
        if datamodule is None:
            if split is None:
                cells = np.random.default_rng(settings.seed).permutation(self.adata.n_obs)
                split = np.split(cells, [round(train_size * len(cells))])
            if "external_indexing" in (datasplitter_kwargs or {}):
                raise ValueError("Pass split=(train, val) instead of external_indexing.")
            parts = list(training.checked_split(split, self.adata.n_obs))
            datasplitter_kwargs = {**(datasplitter_kwargs or {}), "external_indexing": parts}
            batch_size = training.minibatch(len(parts[0])) if batch_size is None else batch_size
            if min(batch_size, len(parts[0])) < 2:
                raise ValueError(
                    f"Minibatches of one cell can't be normalised: there are {len(parts[0])} "
                    f"training cells and batch_size={batch_size}; both must be 2 or more."
                )
            if len(parts[0]) % batch_size == 1:  # another cell sits out in each epoch
                datasplitter_kwargs.setdefault("drop_last", True)
        if datamodule is None:
            counts, modality = start.counts(self, parts[0]), start.modality(self, parts[0])
        elif self.module.head.features.modality:
            raise ValueError("A stream has no second modality; train on cells in memory.")
        else:
            counts, modality = start.stacked(datamodule.sample_dataloader()), None
        plan_kwargs = training.plan(optimizer, lr, max_epochs, plan_kwargs)
        head = self.module.head
        before = deepcopy(head.state_dict())
        if not head.started:
            n_components = head.features.components.shape[1]
            head.start(start.gene_statistics(*counts, n_components, modality))
        head.meet(torch.tensor([counts[0].shape[0], *(layer.sum() for layer in counts)]).float())
        self.module.train()  # after `load` it is in eval mode, which Lightning would keep
        kwargs.setdefault("check_val_every_n_epoch", 1)
        try:
            super().train(
                max_epochs,
                batch_size=batch_size or training.MINIBATCH[1],  # not read with a datamodule
                plan_kwargs=plan_kwargs,
                datasplitter_kwargs=datasplitter_kwargs,
                datamodule=datamodule,
                **kwargs,
            )
        except Exception:
            head.load_state_dict(before)  # it has learnt nothing, so it must remember nothing
            raise

    @classmethod
    def load(cls, dir_path: str, adata: AnnData | None = None, **kwargs) -> SplicedVAE:
        """Load what :meth:`save` wrote, weights equal to the bit.

        Parameters
        ----------
        dir_path
            The folder.
        adata
            Cells with the model's genes in the model's order, see :meth:`prepare_query_anndata`;
            None if they were saved along. A layer of totals that is missing is composed.
        **kwargs
            As in :meth:`scvi.model.SCVI.load`.

        Returns
        -------
        The model.

        Raises
        ------
        ValueError
            There is no model, it is damaged or of another class, no cells were given or saved
            along, or genes, counts or categories are others.
        """
        dir_path, prefix = os.fspath(dir_path), kwargs.get("prefix")
        attributes, genes, state = queries.read_model(dir_path, prefix)
        queries.setup_arguments(attributes["registry_"], f"The model in {dir_path}")
        if "head.component_weight" in state:
            raise ValueError(
                f"The model in {dir_path} was saved by an earlier version of splicedvae, before "
                "the head had a learned prior. Train it again, or install that version."
            )
        if adata is None and not os.path.exists(
            os.path.join(dir_path, f"{prefix or ''}adata.h5ad")
        ):
            raise ValueError(
                f"No cells were saved along with the model in {dir_path}; give adata=, its cells "
                "or others with its genes."
            )
        if adata is None or adata is False:  # saved along, or a model of a datamodule
            return super().load(dir_path, adata, **kwargs)
        check_cells(adata)
        same_genes(adata, genes, f"the model in {dir_path}")
        with unchanged_on_error(adata):
            return super().load(dir_path, adata, **kwargs)

    @classmethod
    def load_query_data(
        cls,
        adata: AnnData | None = None,
        reference_model: str | BaseModelClass | None = None,
        registry: dict | None = None,
        inplace_subset_query_vars: bool = False,
        **kwargs,
    ) -> SplicedVAE:
        """Go on from a trained model with other cells (scArches): new batches, the same genes.

        Parameters
        ----------
        adata
            Cells with the model's genes in its order, see :meth:`prepare_query_anndata`.
        reference_model
            A model, or the folder of a saved one.
        registry
            In place of `adata`, of a datamodule.
        inplace_subset_query_vars
            Drop what other genes `adata` has, and put the model's in order.
        **kwargs
            As in :meth:`scvi.model.SCVI.load_query_data`, such as ``unfrozen=True``.

        Returns
        -------
        An untrained model of these cells.

        Raises
        ------
        KeyError
            A layer or covariate is missing.
        ValueError
            The genes are not the model's, counts are not counts, the model is of another class, or
            it has further categorical covariates and the cells new categories.
        """
        if reference_model is None or (adata is None and registry is None):
            raise ValueError("Give a reference_model, and adata or the registry of a datamodule.")
        if not isinstance(reference_model, BaseModelClass):
            reference_model = os.fspath(reference_model)
        if adata is None:
            return super().load_query_data(None, reference_model, registry, **kwargs)
        attributes, genes, _ = queries.read_model(reference_model)
        theirs = attributes["registry_"]
        arguments = queries.setup_arguments(theirs, "The reference")
        check_cells(adata)
        if inplace_subset_query_vars:
            if absent := sorted(set(as_text(genes)) - set(as_text(adata.var_names))):
                raise ValueError(
                    f"The cells lack {len(absent)} of the model's genes ({shown(absent)}); "
                    "SplicedVAE.prepare_query_anndata fills them with zeros."
                )
            chosen = adata[:, pd.Index(as_text(adata.var_names)).get_indexer(as_text(genes))].copy()
            with unchanged_on_error(chosen):
                queries.check_extension(chosen, arguments, theirs)
            whole = adata.copy()
            adata._init_as_actual(chosen)
            try:
                return cls.load_query_data(adata, reference_model, **kwargs)
            except Exception:
                adata._init_as_actual(whole)
                raise
        same_genes(adata, genes, "the reference")
        with unchanged_on_error(adata):
            queries.check_extension(adata, arguments, theirs)
            return super().load_query_data(adata, reference_model, **kwargs)

    @classmethod
    def from_scvi_model(cls, scvi_model: SCVI, adata: AnnData, **kwargs) -> SplicedVAE:
        """Start from a trained scVI model: its encoder and decoder, and a new head.

        Parameters
        ----------
        scvi_model
            Trained on the same genes in the same order.
        adata
            Set up by :meth:`setup_anndata`.
        **kwargs
            Arguments of the head; those of the architecture come from `scvi_model`.

        Returns
        -------
        An untrained model.

        Raises
        ------
        ValueError
            The model is not an SCVI, its genes or categories are others, it has a setting that
            SplicedVAE lacks, or an argument contradicts it.
        RuntimeError
            It is not trained.
        """
        if not isinstance(scvi_model, SCVI) or isinstance(scvi_model, SplicedVAE):
            raise ValueError(f"{type(scvi_model).__name__} is not a plain scvi.model.SCVI.")
        if not scvi_model.is_trained:
            raise RuntimeError("The scVI model is not trained; train it first.")
        if kwargs.get("encode_modality"):
            raise ValueError(
                "An scVI model's encoder reads counts alone; leave encode_modality out."
            )
        check_cells(adata)
        same_genes(adata, pd.Index(scvi_model.get_var_names()), "the scVI model")
        manager = cls._get_most_recent_anndata_manager(adata, required=True)
        theirs, ours = (training.categories(of.registry) for of in (scvi_model, manager))
        if theirs != ours:
            raise ValueError(f"The categories {ours} are not the scVI model's {theirs}.")
        saved = scvi_model.init_params_
        given = saved["non_kwargs"] | {k: v for d in saved["kwargs"].values() for k, v in d.items()}
        given.pop("registry", None)
        if other := [k for k in given if k not in signature(cls.__init__).parameters]:
            raise ValueError(f"SplicedVAE has no {', '.join(other)}, which the scVI model sets.")
        if clash := [k for k, v in kwargs.items() if k in given and given[k] != v]:
            raise ValueError(f"{', '.join(clash)} are fixed by the scVI model; leave them out.")
        model = cls(adata, **{**given, **kwargs})
        model.module.load_state_dict(scvi_model.module.state_dict(), strict=False)  # not the head
        model.module.eval()
        return model

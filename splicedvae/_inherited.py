"""What SplicedVAE inherits from scVI: the same checks at every door, and what the head rules out.

Methods without a docstring have scVI's, and its arguments.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from inspect import signature
from typing import Any, NoReturn

import numpy as np
import rich.pretty  # noqa: F401  scvi-tools' view_… use it and do not import it
from anndata import AnnData
from scvi.model import SCVI

from . import queries
from .checks import (
    as_text,
    check_cells,
    known_categories,
    listed,
    positions,
    same_genes,
    shown,
    unchanged_on_error,
)

logger = logging.getLogger("splicedvae")

#: Methods of SCVI that a SplicedVAE does not have, and why.
REFUSED = {
    "minify_adata": "the head reads each cell's counts, which minified cells no longer have",
    "prepare_query_mudata": "the model reads one modality; give prepare_query_anndata its part",
    "convert_legacy_save": "no SplicedVAE was ever saved in the format before scvi-tools 0.15",
    "update_setup_method_args": "what a model was set up with is fixed; call setup_anndata again",
    "setup_annbatch": "streams of cells come through splicedvae.atlas.AtlasDataModule",
    "get_batch_representation": "batches are coded one by one, they have no embedding",
}


class InheritedMixin:
    """The inherited methods, with checked arguments; stands before :class:`scvi.model.SCVI`."""

    # which cells a method reads

    def _validate_anndata(
        self, adata: AnnData | None = None, copy_if_view: bool = True, any_batch: bool = False
    ) -> AnnData:
        """Cells that scvi-tools can read: the model's own, or a stand-in for others.

        A stand-in is made anew each time, so it is as the cells are now, and only the last one is
        kept.
        """
        if adata is None and self.adata is None:
            raise ValueError("The model has no cells of its own; give adata.")
        adata = self.adata if adata is None else adata
        check_cells(adata)
        if not self._reads(adata):
            registry = self.registry_
            features = self.module.head.features
            counted = features.modality and bool(features.modality_depth > 0)
            adata = queries.stand_in(adata, registry, any_batch, counted)
            if self.adata_manager is None:
                return self._take_for_its_own(adata)
            manager = self.adata_manager.transfer_fields(adata)
            held = self._per_instance_manager_store.setdefault(self.id, {})
            held.pop(getattr(self, "_stand_in", None), None)
            self._register_manager_for_instance(manager)
            self._stand_in = manager.adata_uuid
            self._say_which_batches(adata)
        return super()._validate_anndata(adata, copy_if_view)

    def _reads(self, adata: AnnData) -> bool:
        """Whether these very cells, not others that they were copied from, are set up."""
        held = self._per_instance_manager_store.get(self.id, {})
        manager = held.get(adata.uns.get("_scvi_uuid"))
        return manager is not None and manager.adata is adata

    def get_anndata_manager(self, adata: AnnData, required: bool = False):
        check_cells(adata)
        if self._reads(adata):
            return super().get_anndata_manager(adata, required)
        if required:
            raise ValueError(
                "These are not the model's cells. Give them to the method that is to read them, or "
                "to transfer_fields."
            )
        return None

    def _take_for_its_own(self, adata: AnnData) -> AnnData:
        """Cells for a model that was loaded, or trained, without any."""
        arguments = self.registry_["setup_args"]
        type(self).setup_anndata(adata, source_registry=self.registry_, **arguments)
        self._adata = adata
        self._adata_manager = self._get_most_recent_anndata_manager(adata, required=True)
        self._register_manager_for_instance(self._adata_manager)
        return adata

    @property
    def adata(self) -> AnnData | None:
        """The cells that the model was made with; setting others transfers its setup to them."""
        return self._adata

    @adata.setter
    def adata(self, adata: AnnData) -> None:
        manager = self.transfer_fields(adata)
        self._register_manager_for_instance(manager)
        self._adata, self._adata_manager = adata, manager
        self.registry_, self.summary_stats = manager.registry, manager.summary_stats

    def transfer_fields(self, adata: AnnData, **kwargs: Any):
        if self._adata_manager is None:
            raise ValueError("The model has no cells of its own whose setup could be transferred.")
        with unchanged_on_error(adata):
            same_genes(adata, self.genes, "the model")
            arguments = self.registry_["setup_args"]
            queries.check_setup(adata, arguments, source_registry=self.registry_, **kwargs)
            queries.compose(adata, arguments)
            return super().transfer_fields(adata, **kwargs)

    @classmethod
    def _get_most_recent_anndata_manager(cls, adata: AnnData, required: bool = False):
        check_cells(adata)
        uuid = adata.uns.get("_scvi_uuid")
        manager = cls._setup_adata_manager_store.get(uuid)
        if required and (manager is None or manager.adata is not adata):
            copied = "" if manager is None else " These are a copy of cells that were set up."
            raise ValueError(f"Call {cls.__name__}.setup_anndata(adata, …) first.{copied}")
        return super()._get_most_recent_anndata_manager(adata, required)

    def get_from_registry(self, adata: AnnData, registry_key: str):
        fields = self.registry_["field_registries"]
        if registry_key not in fields:
            raise KeyError(f"There is no {registry_key!r} in the registry; there are {[*fields]}.")
        return super().get_from_registry(self._validate_anndata(adata), registry_key)

    def differential_abundance(self, adata: AnnData | None = None, *args, **kwargs):
        cells = self._validate_anndata(adata, any_batch=True)
        found = super().differential_abundance(cells, *args, **kwargs)
        if adata is not None and cells is not adata:  # scVI writes to the cells it is given
            adata.obsm["da_log_probs"] = cells.obsm["da_log_probs"]
        return found

    def get_latent_representation(self, adata: AnnData | None = None, *args, **kwargs):
        if adata is not None:  # the encoder reads no batch
            adata = self._validate_anndata(adata, any_batch=True)
        return super().get_latent_representation(adata, *args, **kwargs)

    def get_latent_library_size(self, adata: AnnData | None = None, *args, **kwargs):
        if self.module.use_observed_lib_size:  # the mean is what was observed
            asked = signature(SCVI.get_latent_library_size).bind(self, adata, *args, **kwargs)
            asked.arguments["give_mean"] = False
            return super().get_latent_library_size(*asked.args[1:], **asked.kwargs)
        return super().get_latent_library_size(adata, *args, **kwargs)

    def view_registry(self, hide_state_registries: bool = False) -> None:
        self.view_anndata_setup(hide_state_registries=hide_state_registries)

    # which positions, genes and batches are asked for

    def _make_data_loader(
        self, adata: AnnData, indices: Sequence[int] | None = None, *args, **kwargs
    ):
        indices = positions("indices", indices, adata.n_obs)
        if not len(indices):
            raise ValueError("indices names no cell.")
        return super()._make_data_loader(adata, indices, *args, **kwargs)

    def _check_if_trained(self, warn: bool = True, *args, **kwargs) -> None:
        if not (self.is_trained or warn):
            raise RuntimeError("The model is not trained; call train() first.")
        super()._check_if_trained(warn, *args, **kwargs)

    def get_normalized_expression(self, *args, **kwargs):
        self._check_arguments(SCVI.get_normalized_expression, args, kwargs)
        return super().get_normalized_expression(*args, **kwargs)

    def posterior_predictive_sample(self, *args, **kwargs):
        self._check_arguments(SCVI.posterior_predictive_sample, args, kwargs)
        return super().posterior_predictive_sample(*args, **kwargs)

    def get_feature_correlation_matrix(self, *args, **kwargs):
        self._check_arguments(SCVI.get_feature_correlation_matrix, args, kwargs)
        return super().get_feature_correlation_matrix(*args, **kwargs)

    def _check_arguments(self, method, args: tuple, kwargs: dict) -> None:
        """Genes and batches by name: scVI takes a string for a list, and skips what is unknown."""
        given = signature(method).bind(self, *args, **kwargs).arguments
        genes = listed("gene_list", given.get("gene_list"))
        if strangers := [gene for gene in genes if gene not in self.genes]:
            raise KeyError(f"The model does not know the genes {shown(strangers)}.")
        self._batch_codes(given.get("transform_batch"))

    @property
    def _known_batches(self) -> list:
        return known_categories(self.registry_)["batch"]

    @property
    def _all_batches(self) -> list[int]:
        return list(range(len(self._known_batches)))

    def _batch_codes(self, transform_batch: Any) -> list[int | None]:
        """Codes of the batches to predict for; None is a cell's own."""
        if transform_batch is None:
            return [None]
        asked = [transform_batch] if np.ndim(transform_batch) == 0 else list(transform_batch)
        known = list(as_text(self._known_batches))
        if self.registry_["setup_args"].get("batch_key") is None and asked != [None]:
            raise ValueError("The model was set up without batch_key=; leave transform_batch out.")
        codes = {name: code for code, name in enumerate(known)}
        codes = [
            None if batch is None else codes.get(name, -1)
            for batch, name in zip(asked, as_text(asked), strict=True)
        ]
        if not codes or -1 in codes:
            raise ValueError(
                f"transform_batch={transform_batch!r} is no batch that the model knows; there are "
                f"{shown(known)}."
            )
        return codes

    def _of_no_known_batch(self, cells: AnnData) -> np.ndarray:
        """Which cells of a stand-in are of no batch that the model knows, (cells,)."""
        if queries.ANY_BATCH in cells.obs:
            return cells.obs[queries.ANY_BATCH].to_numpy(dtype=bool)
        return np.zeros(cells.n_obs, dtype=bool)

    def _say_which_batches(self, cells: AnnData) -> None:
        if n := int(self._of_no_known_batch(cells).sum()):
            logger.info(
                "%d cells are of no batch that the model knows: what depends on the batch is "
                "averaged over %s. transform_batch= names one.",
                n,
                shown(self._known_batches),
            )

    # what there is not

    def minify_adata(self, *args, **kwargs) -> NoReturn:
        _refuse("minify_adata")

    @staticmethod
    def prepare_query_mudata(*args, **kwargs) -> NoReturn:
        _refuse("prepare_query_mudata")

    @classmethod
    def convert_legacy_save(cls, *args, **kwargs) -> NoReturn:
        _refuse("convert_legacy_save")

    @classmethod
    def setup_annbatch(cls, *args, **kwargs) -> NoReturn:  # of scvi-tools 1.5
        _refuse("setup_annbatch")

    def update_setup_method_args(self, *args, **kwargs) -> NoReturn:
        _refuse("update_setup_method_args")

    def get_batch_representation(self, *args, **kwargs) -> NoReturn:
        _refuse("get_batch_representation")


def _refuse(name: str) -> NoReturn:
    raise NotImplementedError(f"SplicedVAE has no {name}: {REFUSED[name]}.")

"""Predictions of a trained model: ratios, and the count layers they imply."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS, settings
from scvi.model._utils import _get_batch_code_from_category
from scvi.model.base import BaseModelClass
from scvi.model.base._archesmixin import _get_loaded_data, _pad_and_sort_query_anndata
from tqdm.auto import tqdm

from .counts import (
    INPUTS,
    checked_counts,
    get_layer,
    same_genes,
    split_counts,
    total_counts,
    unique_genes,
)
from .head import one_of

CELLS_AT_ONCE = 2048  # bounds the memory of `impute_layers`


class SplicingMixin:
    """What a model with a :class:`~splicedvae.head.RatioHead` can say of cells."""

    @property
    def input(self) -> str:
        """The kind of count the model reads, ``"total"`` or ``"spliced"``."""
        return self.registry_["setup_args"]["input"]

    @property
    def genes(self) -> pd.Index:
        """The genes the model knows, in its order."""
        fields = self.registry_["field_registries"]
        return pd.Index(fields[REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"])

    def _validate_anndata(self, adata: AnnData | None = None, *args, **kwargs) -> AnnData:
        # scvi-tools only counts the genes of new cells
        if adata is not None:
            same_genes(adata, self.genes, "the model")
        return super()._validate_anndata(adata, *args, **kwargs)

    @torch.inference_mode()
    def get_splicing_ratio(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | None = None,
        transform_batch: list[str | int] | str | int | None = None,
        gene_list: Sequence[str] | None = None,
        n_samples: int | None = None,
        n_samples_overall: int | None = None,
        batch_size: int | None = None,
        return_mean: bool = True,
        return_numpy: bool | None = None,
        silent: bool = True,
        dataloader: Iterator[dict[str, torch.Tensor]] | None = None,
        data_loader_kwargs: dict | None = None,
    ) -> np.ndarray | pd.DataFrame:
        """Predicted splicing ratio, spliced / (spliced + unspliced), from counts alone.

        Takes what :meth:`scvi.model.SCVI.get_normalized_expression` takes, but for the library
        size and importance weights, which a ratio has no use for.

        Parameters
        ----------
        adata
            Cells to predict, with the model's genes; None for those it was made with.
        indices
            Positions of cells; None for all.
        transform_batch
            Predict as if the cells came from this batch, or averaged over these.
        gene_list
            Only these genes.
        n_samples
            None reads the head at the posterior means of z and of its weights. A number draws so
            many z from q(z|x) for each cell and, if the head has a learned prior, so many sets of
            weights, the same ones for all cells: the spread of the draws is what the model does
            not know.
        n_samples_overall
            Draw this many pairs of a cell and a sample from all cells together, in place of
            `n_samples`.
        batch_size
            Cells at a time.
        return_mean
            Average over the draws.
        return_numpy
            An array in place of a table.
        silent
            Without a progress bar.
        dataloader
            Minibatches in place of `adata`; then an array is returned.
        data_loader_kwargs
            For the loader that is made from `adata`.

        Returns
        -------
        Ratios in [0, 1]: (cells, genes), or (n_samples, cells, genes) if ``n_samples > 1`` and
        not `return_mean`, or (n_samples_overall, genes).

        Raises
        ------
        KeyError
            A gene of `gene_list` is not among the model's.
        ValueError
            Both `n_samples` and `n_samples_overall` are given, or one is below 1; no cell is
            named; an argument can't go with `dataloader`; or the genes are not the model's.
        """
        self._check_if_trained(warn=False)
        if n_samples is not None and n_samples_overall is not None:
            raise ValueError("Give n_samples or n_samples_overall, not both.")
        if min(n_samples or 1, n_samples_overall or 1) < 1 or 0 in (n_samples, n_samples_overall):
            raise ValueError("n_samples must be 1 or more.")
        if dataloader is None:
            adata = self._validate_anndata(adata)
            indices = np.arange(adata.n_obs)[slice(None) if indices is None else indices]
            if len(indices) == 0:
                raise ValueError("indices names no cell.")
            if n_samples_overall is not None:
                n_samples = n_samples_overall // len(indices) + 1
            dataloader = self._make_data_loader(
                adata, indices=indices, batch_size=batch_size, **(data_loader_kwargs or {})
            )
            manager = self.get_anndata_manager(adata, required=True)
            batches = _get_batch_code_from_category(manager, transform_batch)
        else:
            given = {"adata": adata, "indices": indices, "transform_batch": transform_batch}
            given["n_samples_overall"] = n_samples_overall
            if extra := [name for name, value in given.items() if value is not None]:
                raise ValueError(f"{', '.join(extra)} can't go with a dataloader.")
            batches = [None]
        names = self.genes
        genes = np.arange(len(names)) if gene_list is None else names.get_indexer(list(gene_list))
        if (genes < 0).any():
            missing = [g for g, i in zip(gene_list, genes, strict=True) if i < 0]
            raise KeyError(f"The model does not know the genes {', '.join(map(str, missing[:5]))}.")

        weights = None if n_samples is None else self.module.head.output.draw(n_samples)
        average = n_samples_overall is None and (return_mean or n_samples == 1)

        def predicted(tensors: dict[str, torch.Tensor]) -> np.ndarray:
            """Ratios of a minibatch, (cells, genes) or (samples, cells, genes)."""
            inference = self.module.inference(
                **self.module._get_inference_input(tensors), n_samples=n_samples or 1
            )
            z = inference["z"]
            if n_samples is None:
                z = self.module.z_encoder.z_transformation(inference["qz"].loc)
            elif z.ndim == 2:  # one sample
                z = z[None]
            ratio = sum(
                torch.sigmoid(self.module.splicing_logit(tensors, z, b, weights)) for b in batches
            )
            ratio = ratio[..., genes] / len(batches)
            return (ratio.mean(0) if ratio.ndim == 3 and average else ratio).cpu().numpy()

        n_cells = None if adata is None else len(indices)
        minibatches = tqdm(dataloader, desc="ratios", disable=silent)
        ratio = _joined(map(predicted, minibatches), n_cells)
        if n_samples_overall is not None:
            flat = ratio.reshape(-1, ratio.shape[-1])
            pick = np.random.default_rng(settings.seed).choice(
                len(flat), n_samples_overall, replace=False
            )
            return flat[pick]
        if ratio.ndim == 3 or return_numpy or adata is None:
            return ratio
        return pd.DataFrame(ratio, index=adata.obs_names[indices], columns=names[genes])

    def impute_layers(
        self,
        adata: AnnData | None = None,
        key_added: str = "splicedvae",
        counts: Literal["observed", "denoised"] = "observed",
        floor: float = 0.05,
        overwrite: bool = False,
        transform_batch: list[str | int] | str | int | None = None,
        n_samples: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Write the spliced and unspliced counts that the predicted ratios imply.

        They are expected counts, see :func:`splicedvae.counts.split_counts`. Counts scatter about
        them, and more than a binomial does; how much more is each gene's concentration in the
        training cells, see :func:`splicedvae.metrics.fit_concentration`.
        :func:`splicedvae.velocity.fit` reads both.

        Parameters
        ----------
        adata
            Cells with the model's genes, to which layers ``spliced_<key_added>`` and
            ``unspliced_<key_added>`` and the column ``concentration_<key_added>`` of ``var`` are
            added; None for those the model was made with.
        key_added
            Suffix of the names.
        counts
            The counts to split: those observed, or the decoder's means at the cell's own library
            size. With ``input="spliced"``, take the latter: of the counts observed, a cell without
            spliced molecules of a gene would have no unspliced ones either.
        floor
            Smallest ratio that may divide, with ``input="spliced"``.
        overwrite
            Replace what has these names.
        transform_batch, n_samples, batch_size
            As in :meth:`get_splicing_ratio`.

        Raises
        ------
        ValueError
            A layer or column of that name exists and `overwrite` is False, or `floor` is not
            between 0 and 1.
        """
        adata = self._validate_anndata(adata)
        *names, column = (f"{x}_{key_added}" for x in ("spliced", "unspliced", "concentration"))
        taken = [f"layer {name}" for name in names if name in adata.layers]
        taken += [f"var column {column}"] * (column in adata.var)
        if taken and not overwrite:
            raise ValueError(
                f"{', '.join(taken)} exist already; choose another key_added or overwrite=True."
            )
        denoised = one_of("counts", counts, ("observed", "denoised")) == "denoised"
        manager = self.get_anndata_manager(adata, required=True)
        counted = manager.get_from_registry(REGISTRY_KEYS.X_KEY)
        observed = sparse.csr_matrix(counted, dtype=np.float32)
        given = {"transform_batch": transform_batch, "batch_size": batch_size, "return_numpy": True}
        layers, parts = (observed.copy(), observed.copy()), []
        for first in range(0, adata.n_obs, CELLS_AT_ONCE):
            cells = np.arange(first, min(first + CELLS_AT_ONCE, adata.n_obs))
            given["indices"] = cells
            ratio = self.get_splicing_ratio(adata, n_samples=n_samples, **given)
            if denoised:
                means = self.get_normalized_expression(
                    adata, library_size="latent", n_samples=n_samples or 1, **given
                )
                parts.append(split_counts(means, ratio, self.input, floor))
                continue
            entries = slice(*observed.indptr[[first, cells[-1] + 1]])
            pair = split_counts(observed[cells], ratio, self.input, floor)
            for layer, part in zip(layers, pair, strict=True):
                layer.data[entries] = part.data
        if denoised:
            layers = [sparse.vstack(part, format="csr") for part in zip(*parts, strict=True)]
        adata.layers[names[0]], adata.layers[names[1]] = layers
        adata.var[column] = self.module.head.log_concentration.detach().exp().cpu().numpy()

    @staticmethod
    def prepare_query_anndata(
        adata: AnnData,
        reference_model: str | BaseModelClass,
        layer: str | None = None,
        input: Literal["total", "spliced"] | None = None,
        return_reference_var_names: bool = False,
        inplace: bool = False,
    ) -> AnnData | pd.Index:
        """Make cells, with or without spliced and unspliced counts, ready for the model.

        Genes are put in the model's order, missing ones filled with zeros, extra ones dropped.
        Missing spliced and unspliced layers become zeros; a cell without any count in one of them
        teaches the head nothing.

        Parameters
        ----------
        adata
            Cells × genes.
        reference_model
            A model, or the folder of a saved one.
        layer
            The layer with the counts; None takes the layer the model was set up with if it is
            there, spliced + unspliced if these are, else X.
        input
            What these counts are, if you know: ``"total"`` or ``"spliced"``. A kind that the
            model was not trained on is warned of, since its predictions are then biased.
        return_reference_var_names
            Only return the model's genes.
        inplace
            Change `adata` itself.

        Returns
        -------
        Cells for :meth:`load_query_data` or :meth:`get_splicing_ratio`.

        Raises
        ------
        KeyError
            There is no such layer.
        ValueError
            Counts are not counts, gene names repeat, a cell or all cells share no counted gene
            with the model, or a layer would be overwritten.
        """
        attributes, genes, _, _ = _get_loaded_data(reference_model, device="cpu")
        genes = pd.Index(genes)
        if return_reference_var_names:
            return genes
        args = attributes["registry_"]["setup_args"]
        spliced, unspliced = args["spliced_layer"], args["unspliced_layer"]
        query = adata if inplace else adata.copy()
        has_su = spliced in query.layers and unspliced in query.layers
        if layer is None:
            if args["layer"] in query.layers:
                layer = args["layer"]
            elif has_su and args["input"] == "total":
                query.layers[args["layer"]] = total_counts(query, spliced, unspliced)
                layer = args["layer"]
        counts = query.X if layer is None else get_layer(query, layer)
        where = "X" if layer is None else f"layer {layer!r}"
        if counts is None:
            raise ValueError("There is no X; name the layer with the counts with layer=.")
        unique_genes(query)
        counts = checked_counts(where, counts, query.var_names)
        known = query.var_names.isin(genes)
        if not known.any():
            raise ValueError(
                f"None of the {query.n_vars} genes ({', '.join(query.var_names[:3])}…) is among "
                f"the model's ({', '.join(genes[:3])}…); use the same kind of gene name."
            )
        empty = query.obs_names[np.asarray(counts[:, known].sum(axis=1)).ravel() == 0]
        if len(empty):
            raise ValueError(
                f"{len(empty)} cells have no counts in the {known.sum()} genes they share with "
                f"the model ({', '.join(empty[:5])}…); remove them."
            )
        kind = input or _kind(counts, query, spliced, unspliced)
        if kind is not None and one_of("input", kind, INPUTS) != args["input"]:
            warnings.warn(
                f"The model was trained on {args['input']} counts and these are {kind} counts: "
                f"its ratios will be biased. Train a model with input={kind!r} for such cells.",
                stacklevel=2,
            )
        target = args["layer"]
        if target in query.layers and abs(sparse.csr_array(query.layers[target]) - counts).max():
            raise ValueError(
                f"The model reads layer {target!r}, but these cells have another layer of that "
                f"name than {where}; rename it."
            )
        query.layers[target] = sparse.csr_matrix(counts, dtype=np.float32)
        for name in (spliced, unspliced):
            if name not in query.layers:
                query.layers[name] = sparse.csr_matrix(query.shape, dtype=np.float32)
        padded = _pad_and_sort_query_anndata(query, genes, inplace=inplace)
        return query if padded is None else padded


def _kind(counts: sparse.csr_array, cells: AnnData, spliced: str, unspliced: str) -> str | None:
    """Whether counts are the cells' total or their spliced counts, where their layers tell."""
    s, u = (
        sparse.csr_array(cells.layers[name]) if name in cells.layers else None
        for name in (spliced, unspliced)
    )
    if s is not None and s.sum() > 0 and abs(counts - s).max() == 0:
        return "spliced"
    if s is not None and u is not None and u.sum() > 0 and abs(counts - s - u).max() == 0:
        return "total"
    return None


def _joined(parts: Iterator[np.ndarray], n_cells: int | None) -> np.ndarray:
    """Parts along the cells, next to last axis; written into one array if its size is known."""
    if n_cells is None:
        return np.concatenate(list(parts), axis=-2)
    whole, first = None, 0
    for part in parts:
        if whole is None:
            whole = np.empty((*part.shape[:-2], n_cells, part.shape[-1]), part.dtype)
        whole[..., first : first + part.shape[-2], :] = part
        first += part.shape[-2]
    return whole

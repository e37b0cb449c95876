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

from .counts import INPUTS, checked_counts, total_counts
from .head import one_of


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
            None reads the head at the posterior mean of z; a number draws so many z from q(z|x).
            The spread of the draws is the encoder's uncertainty, not that of the head's weights.
        n_samples_overall
            Draw this many (cell, z) pairs from all cells together, in place of `n_samples`.
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
            Both `n_samples` and `n_samples_overall` are given, or one is below 1.
        """
        self._check_if_trained(warn=False)
        if n_samples is not None and n_samples_overall is not None:
            raise ValueError("Give n_samples or n_samples_overall, not both.")
        if min(n_samples or 1, n_samples_overall or 1) < 1 or 0 in (n_samples, n_samples_overall):
            raise ValueError("n_samples must be 1 or more.")
        if dataloader is None:
            adata = self._validate_anndata(adata)
            indices = np.arange(adata.n_obs) if indices is None else np.asarray(indices)
            if n_samples_overall is not None:
                n_samples = n_samples_overall // len(indices) + 1
            dataloader = self._make_data_loader(
                adata, indices=indices, batch_size=batch_size, **(data_loader_kwargs or {})
            )
            manager = self.get_anndata_manager(adata, required=True)
            batches = _get_batch_code_from_category(manager, transform_batch)
        else:
            adata, batches = None, [transform_batch]
        names = self.genes
        genes = np.arange(len(names)) if gene_list is None else names.get_indexer(list(gene_list))
        if (genes < 0).any():
            missing = [g for g, i in zip(gene_list, genes, strict=True) if i < 0]
            raise KeyError(f"The model does not know the genes {', '.join(map(str, missing[:5]))}.")

        parts = []
        for tensors in tqdm(dataloader, desc="ratios", disable=silent):
            inference = self.module.inference(
                **self.module._get_inference_input(tensors), n_samples=n_samples or 1
            )
            z = inference["z"]
            if n_samples is None:
                z = self.module.z_encoder.z_transformation(inference["qz"].loc)
            parts.append(
                torch.stack(
                    [
                        torch.sigmoid(self.module.splicing_logit(tensors, z, b))[..., genes]
                        for b in batches
                    ]
                )
                .mean(0)
                .cpu()
            )
        ratio = torch.cat(parts, dim=-2).numpy()  # (cells, genes) or (samples, cells, genes)
        if n_samples_overall is not None:
            flat = ratio.reshape(-1, ratio.shape[-1])
            pick = np.random.default_rng(settings.seed).choice(
                len(flat), n_samples_overall, replace=False
            )
            return flat[pick]
        if ratio.ndim == 3 and return_mean:
            ratio = ratio.mean(0)
        if ratio.ndim == 3 or return_numpy or adata is None:
            return ratio
        return pd.DataFrame(ratio, index=adata.obs_names[indices], columns=names[genes])

    def impute_layers(
        self,
        adata: AnnData | None = None,
        key_added: str = "splicedvae",
        floor: float = 0.05,
        overwrite: bool = False,
        **kwargs,
    ) -> None:
        """Write the spliced and unspliced counts that the predicted ratios imply.

        From totals: S' = ratio · total and U' = total - S'. From spliced counts: S' = S and
        U' = S (1 - ratio) / ratio, the ratio floored.

        Parameters
        ----------
        adata
            Cells with the model's genes, to which layers ``spliced_<key_added>`` and
            ``unspliced_<key_added>`` are added; None for those the model was made with.
        key_added
            Suffix of the layers.
        floor
            Smallest ratio that may divide, with ``input="spliced"``.
        overwrite
            Replace layers of that name.
        **kwargs
            For :meth:`get_splicing_ratio`.

        Raises
        ------
        ValueError
            A layer of that name exists and `overwrite` is False.
        """
        adata = self._validate_anndata(adata)
        names = f"spliced_{key_added}", f"unspliced_{key_added}"
        taken = [name for name in names if name in adata.layers]
        if taken and not overwrite:
            raise ValueError(
                f"layers {', '.join(taken)} exist; choose another key_added or overwrite=True."
            )
        ratio = self.get_splicing_ratio(adata, return_numpy=True, **kwargs)  # (cells, genes)
        manager = self.get_anndata_manager(adata, required=True)
        counts = sparse.csr_matrix(manager.get_from_registry(REGISTRY_KEYS.X_KEY), dtype="float32")
        if self.input == "total":
            spliced = counts.multiply(ratio).tocsr()
            unspliced = counts - spliced
        else:
            ratio = np.maximum(ratio, floor)
            spliced, unspliced = counts.copy(), counts.multiply((1 - ratio) / ratio).tocsr()
        adata.layers[names[0]], adata.layers[names[1]] = spliced, unspliced

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
        Missing spliced and unspliced layers become zeros, which the model reads as "not counted".

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
            Counts are not counts, or the cells share no gene with the model.
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
        elif layer not in query.layers:
            raise KeyError(f"There is no layer {layer!r}; there are {sorted(query.layers)}.")
        counts = query.X if layer is None else query.layers[layer]
        counts = checked_counts(
            "X" if layer is None else f"layer {layer!r}", counts, query.var_names
        )
        if not query.var_names.isin(genes).any():
            raise ValueError(
                f"None of the {query.n_vars} genes ({', '.join(query.var_names[:3])}…) is among "
                f"the model's ({', '.join(genes[:3])}…); use the same kind of gene name."
            )
        if input is None and spliced in query.layers and args["input"] == "total":
            same = sparse.csr_matrix(counts) != sparse.csr_matrix(query.layers[spliced])
            input = "spliced" if same.nnz == 0 and query.layers[spliced].sum() > 0 else "total"
        if input is not None and one_of("input", input, INPUTS) != args["input"]:
            warnings.warn(
                f"The model was trained on {args['input']} counts and these are {input} counts: "
                f"its ratios will be biased. Train a model with input={input!r} for such cells.",
                stacklevel=2,
            )
        query.layers[args["layer"]] = sparse.csr_matrix(counts, dtype=np.float32)
        for name in (spliced, unspliced):
            if name not in query.layers:
                query.layers[name] = sparse.csr_matrix(query.shape, dtype=np.float32)
        padded = _pad_and_sort_query_anndata(query, genes, inplace=inplace)
        return query if padded is None else padded

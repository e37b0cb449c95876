"""Predictions of a trained model: ratios, and the count layers they imply."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scipy.special import logit
from scvi import REGISTRY_KEYS, settings
from scvi.model.base import BaseModelClass
from tqdm.auto import tqdm

from . import queries
from .checks import check_cells, listed, positions, shown, unchanged_on_error
from .counts import checked_values, measured, missing_form, split_counts
from .head import one_of
from .module import SPLICED, UNSPLICED
from .ratios._entries import clipped
from .ratios.regression import gene_offsets

logger = logging.getLogger("splicedvae")

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
            Cells to predict, with the model's genes; None for those it was made with. A layer of
            totals that is missing is composed; the cells themselves stay as they are.
        indices
            Positions of cells, or a mask; None for all.
        transform_batch
            Predict as if the cells came from this batch, or averaged over these. None takes each
            cell's own batch; cells of no batch, or of one that the model does not know, are
            predicted averaged over the known ones.
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
            A gene of `gene_list` is not among the model's, or a layer or covariate is missing.
        ValueError
            Both `n_samples` and `n_samples_overall` are given, or one is below 1; no cell is
            named, or not by its position; an argument can't go with `dataloader`; the genes or
            covariates are not the model's; or counts are not counts.
        """
        self._check_if_trained(warn=False)
        if n_samples is not None and n_samples_overall is not None:
            raise ValueError("Give n_samples or n_samples_overall, not both.")
        if min(n_samples or 1, n_samples_overall or 1) < 1 or 0 in (n_samples, n_samples_overall):
            raise ValueError("n_samples must be 1 or more.")
        names = self.genes
        gene_list = None if gene_list is None else listed("gene_list", gene_list)
        genes = np.arange(len(names)) if gene_list is None else names.get_indexer(gene_list)
        if (genes < 0).any():
            missing = [g for g, i in zip(gene_list, genes, strict=True) if i < 0]
            raise KeyError(f"The model does not know the genes {shown(missing)}.")
        unknown = None
        if dataloader is None:
            adata = self._validate_anndata(adata, any_batch=True)
            indices = positions("indices", indices, adata.n_obs)
            if len(indices) == 0:
                raise ValueError("indices names no cell.")
            if n_samples_overall is not None:
                n_samples = n_samples_overall // len(indices) + 1
            dataloader = self._make_data_loader(
                adata, indices=indices, batch_size=batch_size, **(data_loader_kwargs or {})
            )
            batches = self._batch_codes(transform_batch)
            if transform_batch is None:
                unknown = self._of_no_known_batch(adata)[indices]
        else:
            given = {"adata": adata, "indices": indices, "transform_batch": transform_batch}
            given["n_samples_overall"] = n_samples_overall
            if extra := [name for name, value in given.items() if value is not None]:
                raise ValueError(f"{', '.join(extra)} can't go with a dataloader.")
            batches = [None]

        weights = None if n_samples is None else self.module.head.output.draw(n_samples)
        average = n_samples_overall is None and (return_mean or n_samples == 1)

        def ratios(tensors: dict, z: torch.Tensor, codes: Sequence[int | None]) -> torch.Tensor:
            logits = (self.module.splicing_logit(tensors, z, code, weights) for code in codes)
            return sum(torch.sigmoid(logit[..., genes]) for logit in logits) / len(codes)

        def predicted(tensors: dict, of_no_batch: np.ndarray | None) -> np.ndarray:
            """Ratios of a minibatch, (cells, genes) or (samples, cells, genes)."""
            inference = self.module.inference(
                **self.module._get_inference_input(tensors), n_samples=n_samples or 1
            )
            z = inference["z"]
            if n_samples is None:
                z = self.module.z_encoder.z_transformation(inference["qz"].loc)
            elif z.ndim == 2:  # one sample
                z = z[None]
            part = ratios(tensors, z, batches)
            if of_no_batch is not None and of_no_batch.any():
                rows = torch.as_tensor(of_no_batch, device=part.device)
                part[..., rows, :] = ratios(tensors, z, self._all_batches)[..., rows, :]
            return (part.mean(0) if part.ndim == 3 and average else part).cpu().numpy()

        def parts() -> Iterator[np.ndarray]:
            done = 0
            for tensors in tqdm(dataloader, desc="ratios", disable=silent):
                rows = slice(done, done + len(tensors[REGISTRY_KEYS.X_KEY]))
                yield predicted(tensors, None if unknown is None else unknown[rows])
                done = rows.stop

        ratio = _joined(parts(), None if adata is None else len(indices))
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

        They are expected counts, see :func:`splicedvae.counts.split_counts`. A cell whose layers
        show that one form was not counted, as in a sample without unspliced counts, keeps the
        counts of the other form, and the missing ones follow from the ratio; a warning says how
        many. Counts scatter about
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
        KeyError
            A layer or covariate is missing.
        ValueError
            A layer or column of that name exists and `overwrite` is False, `floor` is not between
            0 and 1, or the cells are not such as the model reads.
        """
        adata = self.adata if adata is None else adata
        if adata is None:
            raise ValueError("The model has no cells of its own; give adata.")
        check_cells(adata)
        *names, column = (f"{x}_{key_added}" for x in ("spliced", "unspliced", "concentration"))
        taken = [f"layer {name}" for name in names if name in adata.layers]
        taken += [f"var column {column}"] * (column in adata.var)
        if taken and not overwrite:
            raise ValueError(
                f"{', '.join(taken)} exist already; choose another key_added or overwrite=True."
            )
        denoised = one_of("counts", counts, ("observed", "denoised")) == "denoised"
        cells = self._validate_anndata(adata, any_batch=True)
        manager = self.get_anndata_manager(cells, required=True)
        keys = REGISTRY_KEYS.X_KEY, SPLICED, UNSPLICED
        held = [manager.get_from_registry(key) for key in keys]
        observed = [
            sparse.csr_array(checked_values(key, values), dtype=np.float32)
            for key, values in zip(keys, held, strict=True)
        ]
        lacks = np.full(cells.n_obs, "", dtype=object)
        if self.input == "total":
            batch = np.asarray(manager.get_from_registry(REGISTRY_KEYS.BATCH_KEY)).ravel()
            usual = torch.sigmoid(self.module.head.output.bias).detach().cpu().numpy()
            lacks = _form_that_was_not_counted(observed, batch, usual)
        total = sparse.csr_matrix(observed[0])
        if sparse.issparse(held[0]) and np.shares_memory(total.indices, held[0].indices):
            total = total.copy()  # what is written shall not be tied to what was read
        del observed, held  # as large as what is to be written
        unknown = self._of_no_known_batch(cells)
        given = {"batch_size": batch_size, "return_numpy": True}
        layers, parts = (total, total.copy()), []  # each cell's totals are read, then replaced
        for first in range(0, cells.n_obs, CELLS_AT_ONCE):
            rows = np.arange(first, min(first + CELLS_AT_ONCE, cells.n_obs))
            ratio = self.get_splicing_ratio(
                cells, rows, transform_batch, n_samples=n_samples, **given
            )
            values = total[rows]
            if denoised:
                means = given | {"library_size": "latent", "n_samples": n_samples or 1}
                with torch.random.fork_rng():  # scVI draws z: the same each time
                    torch.manual_seed(settings.seed or 0)
                    values = self.get_normalized_expression(
                        cells, rows, transform_batch=transform_batch, **means
                    )
                    if transform_batch is None and unknown[rows].any():
                        values[unknown[rows]] = self.get_normalized_expression(
                            cells, rows[unknown[rows]], transform_batch=self._known_batches, **means
                        )
            pair = _split(values, ratio, lacks[rows], self.input, floor)
            if denoised:
                parts.append(pair)
                continue
            entries = slice(*total.indptr[[first, rows[-1] + 1]])
            for layer, part in zip(layers, pair, strict=True):
                layer.data[entries] = part.data
        if denoised:
            layers = [sparse.vstack(part, format="csr") for part in zip(*parts, strict=True)]
        concentration = self.module.head.log_concentration.detach().exp().cpu().numpy()
        with unchanged_on_error(adata):
            adata.layers[names[0]], adata.layers[names[1]] = layers
            adata.var[column] = concentration

    def calibrate(
        self,
        adata: AnnData,
        indices: Sequence[int] | None = None,
        pseudobulk: tuple[np.ndarray, np.ndarray] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        r"""Set each gene's intercept by a few cells of another tissue, or by its bulk counts.

        How a gene's ratio differs between cells carries over from tissue to tissue far better than
        its mean does. The mean takes few counts to learn: each gene's logit is moved by an offset
        whose prior, common to all genes, is learnt with them, see
        :func:`splicedvae.ratios.regression.gene_offsets`. A count of n molecules weighs as much as
        :math:`n (c + 1) / (c + n)` independent ones, c the gene's concentration. Nothing else of
        the model changes, and :meth:`save` keeps it.

        Parameters
        ----------
        adata
            Cells with the model's genes, with spliced and unspliced counts; with `pseudobulk`,
            cells of the same tissue with totals alone.
        indices
            Positions of cells, or a mask; None for all.
        pseudobulk
            Spliced and unspliced counts of each gene, (genes,) both, summed over a bulk sample or
            over cells that are not at hand one by one.
        batch_size
            Cells at a time.

        Returns
        -------
        A row per gene with its ``offset`` and the ``sd`` of that on the logit scale, and the
        ``molecules`` that it was read from; ``attrs`` holds the ``mean`` and the ``width`` of the
        prior.

        Raises
        ------
        KeyError
            A layer or covariate is missing.
        ValueError
            There are no spliced or no unspliced counts, no cell is named, or genes or counts are
            not the model's.
        RuntimeError
            The model is not trained.
        """
        self._check_if_trained(warn=False)
        cells = self._validate_anndata(adata, any_batch=True)
        indices = positions("indices", indices, cells.n_obs)
        ratio = self.get_splicing_ratio(cells, indices, batch_size=batch_size, return_numpy=True)
        registry = self.get_anndata_manager(cells, required=True)
        if pseudobulk is None:
            forms = (registry.get_from_registry(key)[indices] for key in (SPLICED, UNSPLICED))
            spliced, unspliced = (x.toarray() for x in measured([*map(sparse.csr_array, forms)]))
            c = self.module.head.log_concentration.detach().exp().cpu().numpy()
            weight = (c + 1) / (c + spliced + unspliced)
        else:
            sums = _checked_pseudobulk(pseudobulk, cells.n_vars)
            total = sparse.csr_array(registry.get_from_registry(REGISTRY_KEYS.X_KEY))
            total = total[indices].toarray()
            share = (total + 1e-9) / (total + 1e-9).sum(0)  # which cells the molecules came from
            spliced, unspliced = (share * x for x in sums)
            weight = 1.0
        if not (spliced.any() and unspliced.any()):
            raise ValueError(
                "There are no cells with spliced and unspliced counts to calibrate on. Give cells "
                "with both, or their sums over cells as pseudobulk=(spliced, unspliced)."
            )
        logits = logit(clipped(ratio.astype(np.float64)))
        total = spliced + unspliced
        offset, sd, mean, width = gene_offsets(logits, spliced * weight, total * weight)
        with torch.no_grad():
            self.module.head.output.bias += torch.as_tensor(offset).to(self.module.head.output.bias)
        columns = {"offset": offset, "sd": sd, "molecules": total.sum(0)}
        table = pd.DataFrame(columns, index=self.genes)
        table.attrs |= {"mean": mean, "width": width}
        return table

    @staticmethod
    def prepare_query_anndata(
        adata: AnnData,
        reference_model: str | BaseModelClass,
        layer: str | None = None,
        input: Literal["total", "spliced"] | None = None,
        return_reference_var_names: bool = False,
        inplace: bool = False,
        spliced_layer: str | None = None,
        unspliced_layer: str | None = None,
        min_shared: float = 0.2,
    ) -> AnnData | pd.Index:
        """Make cells, with or without spliced and unspliced counts, ready for the model.

        Genes are found by name, by Ensembl id with or without its version, in the names or in a
        column of ``var`` such as ``gene_ids`` or ``gene_name``, and, if most are found, in any
        case. They are put in the model's order, missing ones filled with zeros, extra ones dropped;
        one line of the log says how many. All else is kept: ``obs``, ``obsm``, ``obsp``, ``uns``.
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
            there, what it is made of if that is there, else X.
        input
            What these counts are, if you know: ``"total"`` or ``"spliced"``. A kind that the
            model was not trained on is warned of, since its predictions are then biased. If
            nobody says it, the log does what they are taken for, and a warning if the model's own
            share of unspliced mRNA in each gene speaks against it.
        return_reference_var_names
            Only return the model's genes.
        inplace
            Change `adata` itself.
        spliced_layer, unspliced_layer
            Layers of these cells, if they are not named as the model's.
        min_shared
            Share of the model's genes that the cells must have.

        Returns
        -------
        Cells for :meth:`load_query_data` or :meth:`get_splicing_ratio`.

        Raises
        ------
        KeyError
            There is no such layer.
        ValueError
            Counts are not counts, gene names repeat, too few genes are the model's, a cell shares
            no counted gene with it, a layer would be overwritten, or the model is of another class.
        """
        attributes, genes, weights = queries.read_model(reference_model)
        if return_reference_var_names:
            return genes
        check_cells(adata)
        names = spliced_layer, unspliced_layer
        query = queries.prepared(
            adata, attributes["registry_"], weights, layer, input, *names, min_shared
        )
        if not inplace:
            return query
        adata._init_as_actual(query)
        return adata


def _checked_pseudobulk(pair: Sequence[np.ndarray], n_genes: int) -> list[np.ndarray]:
    """Sums of spliced and of unspliced counts, (genes,) each."""
    if len(pair) != 2:
        raise ValueError(f"pseudobulk has {len(pair)} parts; give (spliced, unspliced).")
    sums = [np.asarray(x, dtype=np.float64).ravel() for x in pair]
    for name, values in zip(("spliced", "unspliced"), sums, strict=True):
        if values.shape != (n_genes,):
            raise ValueError(
                f"The {name} counts of the pseudobulk are {len(values)}; give one for each of the "
                f"model's {n_genes} genes, in its order."
            )
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(f"The {name} counts of the pseudobulk are not all finite and >= 0.")
    return sums


def _form_that_was_not_counted(
    observed: Sequence[sparse.csr_array], batch: np.ndarray, usual: np.ndarray
) -> np.ndarray:
    """By cell, the form that its total lacks since nobody counted it, or an empty string."""
    total, *forms = observed
    lacks = missing_form(*forms, batch, usual)
    for form, other in zip(("unspliced", "spliced"), forms, strict=True):
        rows = np.flatnonzero(lacks == form)
        differs = np.asarray(abs(total[rows] - other[rows]).sum(axis=1)).ravel() > 0
        lacks[rows[differs]] = ""
        if n := (lacks == form).sum():
            logger.warning(
                "%d cells have no %s counts, so their counts are no totals: they are kept as they "
                "are, and the %s counts follow from the ratio, which is biased for such cells.",
                n,
                form,
                form,
            )
    return lacks


def _split(
    values: np.ndarray | sparse.csr_matrix,
    ratio: np.ndarray,
    lacks: np.ndarray,
    input: str,
    floor: float,
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Split counts; where one form was not counted, they are the other form."""
    pair = split_counts(values, ratio, input, floor)
    for form, share in (("unspliced", ratio), ("spliced", 1 - ratio)):
        if not (rows := lacks == form).any():
            continue
        counted, implied = split_counts(values, share, "spliced", floor)
        parts = (counted, implied) if form == "unspliced" else (implied, counted)
        entries = np.repeat(rows, np.diff(pair[0].indptr))
        for layer, part in zip(pair, parts, strict=True):
            layer.data[entries] = part.data[entries]
    return pair


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

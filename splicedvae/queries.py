"""Cells that a model has not seen: made ready for it, or read by it without being touched."""

from __future__ import annotations

import logging
import os
import warnings
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass
from scvi.model.base._archesmixin import _get_loaded_data
from scvi.model.base._save_load import _load_saved_files

from .checks import (
    ASK_A_BATCH,
    as_text,
    categories,
    check_cells,
    check_covariates,
    known_categories,
    listed,
    numbers,
    same_genes,
    shown,
)
from .counts import (
    INPUTS,
    checked_counts,
    checked_layers,
    get_layer,
    input_layer,
    modality_values,
    named_layers,
    no_empty_cell,
    tell_missing_form,
    total_counts,
)
from .genes import arrange, to_model
from .head import one_of

logger = logging.getLogger("splicedvae")

ANY_BATCH = "_splicedvae_any_batch"  # cells of no batch that the model knows
NO_TOTAL = "What is read of such cells is no total, and their ratios are biased."
SURE = 4  # standard errors by which a query must look like the other kind of count


def read_model(
    reference: Any, prefix: str | None = None
) -> tuple[dict[str, Any], pd.Index, dict[str, torch.Tensor]]:
    """What there is to know of a model, in memory or in a folder.

    Parameters
    ----------
    reference
        A model, or the folder of a saved one.
    prefix
        Of the names of its files.

    Returns
    -------
    Its attributes, its genes and its weights.

    Raises
    ------
    ValueError
        There is no model, or it is damaged.
    """
    if isinstance(reference, BaseModelClass):
        attributes, genes, weights, _ = _get_loaded_data(reference, device="cpu")
        return attributes, pd.Index(genes), weights
    if not isinstance(reference, str | os.PathLike):
        kind = type(reference).__name__
        raise ValueError(f"reference_model is of the type {kind}; give a model, or its folder.")
    folder = os.fspath(reference)
    if os.path.isfile(folder):
        parent = os.path.dirname(folder) or "."
        raise ValueError(f"{folder} is a file; give the folder of the model, {parent!r}.")
    if not os.path.exists(os.path.join(folder, f"{prefix or ''}model.pt")):
        raise ValueError(f"There is no model in {folder}: it has no {prefix or ''}model.pt.")
    try:
        attributes, genes, weights, _ = _load_saved_files(
            folder, load_adata=False, prefix=prefix, map_location="cpu"
        )
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        raise ValueError(
            f"The model in {folder} can't be read ({type(error).__name__}: {error}). It is "
            "damaged or only half there."
        ) from error
    return attributes, pd.Index(genes), weights


def setup_arguments(registry: dict, where: str) -> dict[str, Any]:
    """How a model was set up, or an error if it is another model than a SplicedVAE.

    Parameters
    ----------
    registry
        Of the model.
    where
        How to call the model in the message.

    Returns
    -------
    Arguments of :meth:`splicedvae.SplicedVAE.setup_anndata`.

    Raises
    ------
    ValueError
        It is of another class.
    """
    arguments = registry.get("setup_args", {})
    kind = registry.get("model_name")
    if "spliced_layer" not in arguments:
        raise ValueError(
            f"{where} is a model of a different class, {kind}: it knows nothing of ratios. Start "
            f"from it with SplicedVAE.from_scvi_model(scvi.model.{kind}.load(…), adata)."
        )
    return arguments


def stand_in(
    adata: AnnData, registry: dict, any_batch: bool = False, counted: bool = False
) -> AnnData:
    """What a model reads of some cells, apart from the cells, which stay as they are.

    Parameters
    ----------
    adata
        Cells with the model's genes, in its order.
    registry
        Of the model.
    any_batch
        Whether cells may be of a batch that the model does not know, or of none: they are then
        marked in the column ``_splicedvae_any_batch``.
    counted
        Whether the model learnt from counts of a second modality.

    Returns
    -------
    Cells with the layers of the model as CSR float32 and the columns of ``obs``, of which those
    that the model reads are plain. Layers that are missing are composed, or zero.

    Raises
    ------
    KeyError
        A layer or column is missing.
    ValueError
        Genes, counts or covariates are not what the model reads.
    """
    check_cells(adata)
    fields = registry["field_registries"]
    genes = fields[REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"]
    same_genes(adata, pd.Index(genes), "the model")
    arguments = setup_arguments(registry, "This")
    layer, *forms = (arguments[f"{name}layer"] for name in ("", "spliced_", "unspliced_"))
    held, layers = named_layers(adata), {}
    if set(forms) <= set(held):
        pair = checked_layers(adata, *forms)
        layers = dict(zip(forms, pair, strict=True))
        if arguments["input"] == "total":
            tell_missing_form(
                adata, pair, "What the model reads is no total, its ratios are biased."
            )
    if (name := arguments.get("modality_layer")) is not None:
        empty = sparse.csr_array(adata.shape, dtype=np.float32)  # missing in every cell
        layers[name] = modality_values(adata, name, counted=counted) if name in held else empty
    for name in {layer, *forms} & set(held) - set(layers):
        layers[name] = checked_counts(f"layer {name!r}", held[name], adata.var_names)
    if layer not in layers and arguments["input"] == "total" and set(forms) <= set(layers):
        layers[layer] = total_counts(adata, *forms)
    if layer not in layers:
        get_layer(adata, layer, "SplicedVAE.prepare_query_anndata makes cells ready for the model.")
    no_empty_cell(adata, layers[layer], f"layer {layer!r}")
    for name in forms:
        layers.setdefault(name, sparse.csr_array(adata.shape, dtype=np.float32))
    obs = adata.obs[[c for c in adata.obs if not str(c).startswith("_scvi")]].copy(deep=False)
    return AnnData(
        obs=_covariates(adata, obs, arguments, registry, any_batch),
        var=adata.var[[]],
        layers={k: sparse.csr_matrix(v, dtype=np.float32) for k, v in layers.items()},
    )


def _covariates(
    adata: AnnData, obs: pd.DataFrame, arguments: dict, registry: dict, any_batch: bool
) -> pd.DataFrame:
    """``obs`` with the model's columns in plain types, as scvi-tools reads them."""
    known = known_categories(registry)
    plain: dict[str, np.ndarray] = {}
    if (key := arguments.get("batch_key")) is not None:
        if any_batch:
            values = as_text(obs[key]) if key in obs else np.full(adata.n_obs, "", dtype=object)
            if key in obs:
                values[obs[key].isna().to_numpy()] = ""
            by_text = dict(zip(as_text(known["batch"]), known["batch"], strict=True))
            plain[ANY_BATCH] = np.array([value not in by_text for value in values])
            first = known["batch"][0]
            plain[key] = np.array([by_text.get(value, first) for value in values], dtype=object)
        else:
            plain[key] = categories(adata, key, "batch", known["batch"], ASK_A_BATCH)
    if (key := arguments.get("labels_key")) is not None:
        plain[key] = categories(adata, key, "label", known["label"])
    for key in listed("categorical_covariate_keys", arguments.get("categorical_covariate_keys")):
        plain[key] = categories(adata, key, f"covariate {key!r}", known[key])
    if (key := arguments.get("size_factor_key")) is not None:
        plain[key] = numbers(adata, key, "size factor", positive=True)
    for key in listed("continuous_covariate_keys", arguments.get("continuous_covariate_keys")):
        plain[key] = numbers(adata, key, f"covariate {key!r}")
    return obs.assign(**plain)


def prepared(
    adata: AnnData,
    registry: dict,
    weights: dict,
    layer: str | None,
    input: Literal["total", "spliced"] | None,
    spliced_layer: str | None,
    unspliced_layer: str | None,
    min_shared: float,
) -> AnnData:
    """A copy of some cells that is ready for a model.

    Parameters
    ----------
    adata, layer, input, spliced_layer, unspliced_layer, min_shared
        As in :meth:`splicedvae.SplicedVAE.prepare_query_anndata`.
    registry
        Of the model.
    weights
        Of the model, by name.

    Returns
    -------
    Cells with the model's genes and layers.

    Raises
    ------
    KeyError, ValueError
        As there.
    """
    arguments = setup_arguments(registry, "The reference")
    genes = registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"]
    target, *forms = (arguments[f"{name}layer"] for name in ("", "spliced_", "unspliced_"))
    held = named_layers(adata)
    theirs = [spliced_layer or forms[0], unspliced_layer or forms[1]]
    for given in (layer, spliced_layer, unspliced_layer):
        if given is not None:
            get_layer(adata, given)
    has_su = all(name in held for name in theirs)
    if has_su and not any(checked_counts(f"layer {name!r}", held[name]).sum() for name in theirs):
        has_su = False  # zeros that stand for nothing, as prepare_query_anndata writes them
    if layer is None and target in held:
        layer = target
    if layer is None and has_su and arguments["input"] == "total":
        where, counts = "spliced + unspliced", sum(checked_layers(adata, *theirs))
    elif layer is None and arguments["input"] == "spliced" and theirs[0] in held:
        where, counts = f"layer {theirs[0]!r}", held[theirs[0]]
    elif layer is None:
        where, counts = "X", adata.X
        if counts is None:
            raise ValueError("There is no X; name the layer with the counts with layer=.")
    else:
        where, counts = f"layer {layer!r}", held[layer]
    counts = checked_counts(where, counts, adata.var_names, _where_counts_are(adata, where))
    if has_su:
        tell_missing_form(adata, checked_layers(adata, *theirs), NO_TOTAL)
    source = to_model(adata, genes, np.asarray(counts.sum(axis=0)).ravel(), min_shared)
    known = np.zeros(adata.n_vars, dtype=bool)
    known[source[source >= 0]] = True
    no_empty_cell(adata, counts[:, known], f"the {known.sum()} genes they share with the model")
    _tell_kind(counts, where, input, arguments["input"], held, theirs, source, weights)
    if target in held and abs(checked_counts(f"layer {target!r}", held[target]) - counts).max():
        raise ValueError(
            f"The model reads layer {target!r}, but these cells have another layer of that "
            f"name than {where}; rename it."
        )
    query = arrange(adata, source, genes)
    columns = np.where(source >= 0, source, 0)
    filled = sparse.diags_array((source >= 0).astype(np.float64))

    def ready(values):
        return sparse.csr_matrix(values[:, columns] @ filled, dtype=np.float32)

    query.layers[target] = ready(counts)
    for name, given in zip(forms, theirs, strict=True):
        if given in held:
            query.layers[name] = ready(checked_counts(f"layer {given!r}", held[given]))
        elif name != target:
            query.layers[name] = sparse.csr_matrix(query.shape, dtype=np.float32)
    if (name := arguments.get("modality_layer")) is not None and name in held:
        values = modality_values(adata, name).toarray()[:, columns]
        values[:, source < 0] = np.nan  # not zero: nobody measured it
        query.layers[name] = values.astype(np.float32)
    elif name is not None:
        query.layers[name] = sparse.csr_matrix(query.shape, dtype=np.float32)  # missing
    return query


def _where_counts_are(adata: AnnData, where: str) -> str:
    """Where whole numbers are, for somebody whose X is normalised."""
    found = []
    for name, matrix in named_layers(adata).items():
        try:
            checked_counts(name, matrix)
        except ValueError:  # not there
            continue
        found.append(name)
    if where == "X" and found:
        return f"Layers {found} hold whole numbers: name the right one with layer=."
    if where == "X" and adata.raw is not None:
        return "If adata.raw holds the counts, give adata.raw.to_adata()."
    return ""


def _tell_kind(
    counts: sparse.csr_array,
    where: str,
    given: str | None,
    wanted: str,
    held: dict,
    forms: list[str],
    source: np.ndarray,
    weights: dict,
) -> None:
    """Say what counts are taken for, and warn where they look like, or are, the other kind."""
    kind = one_of("input", given, INPUTS) if given else _kind(counts, held, forms)
    if kind is not None and kind != wanted:
        warnings.warn(
            f"The model was trained on {wanted} counts and these are {kind} counts: "
            f"its ratios will be biased. Train a model with input={kind!r} for such cells.",
            stacklevel=4,
        )
    if kind is not None:
        return
    meaning = "spliced + unspliced" if wanted == "total" else "spliced counts alone"
    logger.info("%s is taken for %s counts (%s), as the model reads.", where, wanted, meaning)
    looks = _looks_like(counts, source, weights)
    if looks is not None and looks != wanted:
        warnings.warn(
            f"{where} looks like {looks} counts, by the model's own share of unspliced mRNA in "
            f"each gene, and the model reads {wanted} counts: its ratios would be biased. If this "
            f"is wrong, say so with input={wanted!r}.",
            stacklevel=4,
        )


def _kind(counts: sparse.csr_array, held: dict, forms: list[str]) -> str | None:
    """Whether counts are the cells' total or their spliced counts, where their layers tell."""
    s, u = (checked_counts(f"layer {n!r}", held[n]) if n in held else None for n in forms)
    if s is not None and s.sum() > 0 and abs(counts - s).max() == 0:
        return "spliced"
    if s is not None and u is not None and u.sum() > 0 and abs(counts - s - u).max() == 0:
        return "total"
    return None


def _looks_like(counts: sparse.csr_array, source: np.ndarray, weights: dict) -> str | None:
    r"""Which kind of count a query holds, by what the model knows of each gene.

    Spliced counts lack what was unspliced: against the training totals :math:`n_g`, genes are seen
    less often the smaller their share of spliced, :math:`x_g \propto n_g\, p_g^b` with b = 1, and
    totals have b = 0. Tissues differ in more than that, so b must be clear of both.
    """
    n, bias = (weights.get(name) for name in ("head.gene_weight", "head.output.bias"))
    if n is None or bias is None or not bool(weights.get("head.started", False)):
        return None
    there = source >= 0
    x = np.asarray(counts.sum(axis=0)).ravel()[source[there]]
    n, bias = (np.asarray(v.detach().cpu(), dtype=np.float64)[there] for v in (n, bias))
    log_p = -np.logaddexp(0, -bias)
    seen = (x >= 10) & (n > 0)
    if seen.sum() < 20 or np.std(log_p[seen]) < 0.05:
        return None
    weight = np.sqrt(x[seen])
    a = log_p[seen] - np.average(log_p[seen], weights=weight)
    y = np.log(x[seen] / n[seen])
    y = y - np.average(y, weights=weight)
    b = (weight * a * y).sum() / (weight * a * a).sum()
    error = np.sqrt(((weight * a * (y - b * a)) ** 2).sum()) / (weight * a * a).sum()
    if b > 0.5 + SURE * error / 2 and abs(b - 1) < 0.5:
        return "spliced"
    if b < 0.5 - SURE * error / 2 and abs(b) < 0.5:
        return "total"
    return None


def compose(adata: AnnData, arguments: dict[str, Any]) -> None:
    """Write the total that a model reads, where it is missing and can be had.

    Parameters
    ----------
    adata
        Cells × genes.
    arguments
        Of :meth:`splicedvae.SplicedVAE.setup_anndata`.

    Raises
    ------
    KeyError
        Another layer is missing.
    ValueError
        Counts are not what the model reads.
    """
    keys = "layer", "spliced_layer", "unspliced_layer", "input"
    input_layer(adata, *(arguments[key] for key in keys))


def check_setup(
    adata: AnnData,
    arguments: dict[str, Any],
    source_registry: dict | None = None,
    extend_categories: bool = False,
    **kwargs: Any,
) -> None:
    """Check covariates and both forms, and say which cells lack one, before anything is written.

    Parameters
    ----------
    adata
        Cells × genes.
    arguments
        Of :meth:`splicedvae.SplicedVAE.setup_anndata`.
    source_registry
        Of a model that knows its genes and categories already; its query may lack a form.
    extend_categories
        Whether there may be further categories.
    **kwargs
        What else scvi-tools takes.

    Raises
    ------
    KeyError
        A layer or column is missing.
    ValueError
        Counts or covariates are not what a model reads, or one of both forms is empty.
    """
    check_covariates(adata, arguments, source_registry, extend_categories)
    if (name := arguments.get("modality_layer")) is not None and source_registry is None:
        modality_values(adata, name, teaches=True)
    elif name is not None:
        get_layer(adata, name, "prepare_query_anndata adds it, missing in every cell.")
    names = arguments["spliced_layer"], arguments["unspliced_layer"]
    forms = checked_layers(adata, *names)
    empty = [not layer.sum() for layer in forms]
    if any(empty) and not all(empty) and source_registry is None:
        checked_layers(adata, *names, teaches=True)
    if source_registry is not None and arguments["input"] == "spliced":
        return  # its query has no unspliced counts
    key = arguments["batch_key"]
    tell_missing_form(
        adata,
        forms,
        "Such cells teach the encoder, not the head, and their counts are no totals.",
        None if key is None else as_text(adata.obs[key]),
    )


def check_extension(adata: AnnData, arguments: dict[str, Any], registry: dict) -> None:
    """Check the covariates of cells from which a trained model is to learn further categories.

    Parameters
    ----------
    adata
        Cells × genes.
    arguments
        Of :meth:`splicedvae.SplicedVAE.setup_anndata`.
    registry
        Of the model.

    Raises
    ------
    KeyError
        A column is missing.
    ValueError
        A value is missing, or there are new categories beside categorical covariates.
    """
    check_covariates(adata, arguments, registry, extend=True)
    if not arguments.get("categorical_covariate_keys"):
        return
    known = known_categories(registry)
    keys = {key: key for key in arguments["categorical_covariate_keys"]}
    if arguments.get("batch_key") is not None:
        keys["batch"] = arguments["batch_key"]
    for what, key in keys.items():
        if new := sorted(set(as_text(adata.obs[key])) - set(as_text(known[what]))):
            # scvi-tools appends weights of a new category behind those of all covariates
            raise ValueError(
                f"obs[{key!r}] has new categories ({shown(new)}), which can't be learnt beside "
                "categorical covariates. Set the reference up with a batch alone, or predict with "
                "get_splicing_ratio, which averages over the known batches."
            )

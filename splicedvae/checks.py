"""What every door asks of cells before it reads from them or writes to them.

Names, positions, columns of ``obs`` and coordinates are checked here, and nowhere else; what may
stand in a count layer is the matter of :mod:`splicedvae.counts`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

ASK_A_BATCH = (
    "get_splicing_ratio and impute_layers average over the batches that the model knows, or take "
    "one by transform_batch=; load_query_data learns new ones."
)
# velocyto writes sample:BARCODEx, Cell Ranger BARCODE-1
CELL = re.compile(r"(?:(?P<sample>.+):)?(?P<barcode>[ACGTN]{8,})(?P<ending>x|-\d+)?")
MAPPINGS = ("layers", "obsm", "varm", "obsp", "varp")


def shown(names: Sequence) -> str:
    """The first names of some, for a message.

    Parameters
    ----------
    names
        Of cells, genes or categories.

    Returns
    -------
    At most five of them, and an ellipsis if there are more.
    """
    return ", ".join(str(name) for name in names[:5]) + "…" * (len(names) > 5)


def as_text(values: Sequence | pd.Index | pd.Series) -> np.ndarray:
    """Names as strings, the one way in which names are compared.

    Files that pandas 3 wrote hold names of a dtype of their own, and numbered batches come back as
    whole floats when a merge left one out.

    Parameters
    ----------
    values
        Names of any type.

    Returns
    -------
    Array of objects, all strings.
    """
    whole = (int(v) if isinstance(v, float | np.floating) and v.is_integer() else v for v in values)
    return np.array([str(value) for value in whole], dtype=object)


def check_anndata(adata: AnnData, name: str = "adata") -> None:
    """Refuse what is not an AnnData.

    Parameters
    ----------
    adata
        Cells × genes.
    name
        How to call it in the message.

    Raises
    ------
    TypeError
        It is something else.
    """
    if not isinstance(adata, AnnData):
        multimodal = hasattr(adata, "mod") and hasattr(adata, "obs")
        hint = " Give one of its parts, such as mdata['rna']." * multimodal
        raise TypeError(
            f"{name} is of the type {type(adata).__name__}; give an AnnData of cells × genes.{hint}"
        )


def check_cells(adata: AnnData, name: str = "adata") -> None:
    """Refuse what is not an AnnData with cells.

    Parameters
    ----------
    adata
        Cells × genes.
    name
        How to call it in the message.

    Raises
    ------
    TypeError
        It is something else.
    ValueError
        It has no cells.
    """
    check_anndata(adata, name)
    if not adata.n_obs:
        raise ValueError(f"{name} has no cells; give some.")


def unique_genes(adata: AnnData) -> None:
    """Refuse cells in which two genes have the same name.

    Parameters
    ----------
    adata
        Cells × genes.

    Raises
    ------
    ValueError
        Gene names repeat.
    """
    names = pd.Index(as_text(adata.var_names))
    if not names.is_unique:
        repeated = names[names.duplicated()].unique()
        raise ValueError(
            f"{len(repeated)} gene names repeat ({shown(repeated)}); call "
            "adata.var_names_make_unique() or merge them."
        )


def same_genes(adata: AnnData, genes: pd.Index, owner: str) -> None:
    """Refuse cells whose genes are not those that a model or baseline was fitted on, in order.

    Parameters
    ----------
    adata
        Cells × genes.
    genes
        The genes it was fitted on.
    owner
        How to call it in the message.

    Raises
    ------
    ValueError
        The genes differ in number, name or order.
    """
    ours, theirs = pd.Index(as_text(adata.var_names)), pd.Index(as_text(genes))
    if ours.equals(theirs):
        return
    missing = theirs[~theirs.isin(ours)]
    extra = ours[~ours.isin(theirs)]
    raise ValueError(
        f"These {adata.n_vars} genes are not the {len(genes)} genes of {owner}, in its order; they "
        f"differ in name, number or order: {len(missing)} missing {list(missing[:5])}, "
        f"{len(extra)} unknown {list(extra[:5])}. Select them by name, or let "
        "SplicedVAE.prepare_query_anndata bring the cells into a model's order."
    )


def same_cells(a: AnnData, b: AnnData, names: tuple[str, str]) -> None:
    """Refuse two objects that are not of the same cells and genes, in one order.

    Parameters
    ----------
    a, b
        Cells × genes.
    names
        How to call them in the message.

    Raises
    ------
    ValueError
        Cells or genes differ in number, name or order.
    """
    for axis, what in (("obs_names", "cells"), ("var_names", "genes")):
        one, other = (as_text(getattr(x, axis)) for x in (a, b))
        if not np.array_equal(one, other):
            raise ValueError(
                f"{names[0]} and {names[1]} differ in {axis}; give the same {what}, in the same "
                f"order: {names[1]}[:, names] or {names[1]}[names] selects by name."
            )


def positions(name: str, given: Any, n_obs: int) -> np.ndarray:
    """Positions of cells, or an error that says how to give them.

    Parameters
    ----------
    name
        Of the argument.
    given
        Whole numbers, a mask, a slice, or None for all cells.
    n_obs
        Number of cells.

    Returns
    -------
    Array of integers, from 0 to below `n_obs`.

    Raises
    ------
    ValueError
        It holds names or fractions, a mask is of another length, or a position is not there.
    """
    cells = np.arange(n_obs)
    if given is None or isinstance(given, slice):
        return cells if given is None else cells[given]
    given = np.atleast_1d(np.asarray(given))
    if not given.size:
        return cells[:0]
    kind = pd.api.types.infer_dtype(given.ravel(), skipna=False)
    if given.ndim != 1 or kind not in ("integer", "boolean"):
        first = given.ravel().tolist()[0]
        raise ValueError(
            f"{name} holds {first!r}; give positions of cells, whole numbers, or a mask of True "
            "and False. adata.obs_names.get_indexer(names) gives the positions of names."
        )
    if kind == "boolean":
        if len(given) != n_obs:
            raise ValueError(f"The mask {name} has {len(given)} entries for {n_obs} cells.")
        return cells[given.astype(bool)]
    given = given.astype(int)
    if given.min() < -n_obs or given.max() >= n_obs:
        raise ValueError(f"{name} names a cell that is not there; there are {n_obs} cells.")
    return cells[given]


def listed(name: str, given: Sequence[str] | None) -> list[str]:
    """A list of names; a single string is none.

    Parameters
    ----------
    name
        Of the argument.
    given
        What was given; None for an empty list.

    Returns
    -------
    The list.

    Raises
    ------
    ValueError
        It is a single string.
    """
    if isinstance(given, str):
        raise ValueError(f"{name}={given!r} is one name; give a list, {name}=[{given!r}].")
    return [] if given is None else list(given)


def column(adata: AnnData, key: str, what: str, advice: str = "") -> pd.Series:
    """A column of ``obs`` in which every cell has a value.

    Parameters
    ----------
    adata
        The cells.
    key
        Of the column.
    what
        What a cell without a value lacks, for the message.
    advice
        What to do if there is no such column.

    Returns
    -------
    The column.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        There are two of that name, or a value is missing.
    """
    if key not in adata.obs:
        there = list(map(str, adata.obs))
        message = f"There is no obs[{key!r}]; there are {there}: the {what} is missing. {advice}"
        raise KeyError(message.rstrip())
    values = adata.obs[key]
    if isinstance(values, pd.DataFrame):
        raise ValueError(f"obs has {values.shape[1]} columns {key!r}; rename all but one.")
    missing = values.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"{missing.sum()} cells have no {what}: obs[{key!r}] is missing in "
            f"{shown(adata.obs_names[missing])}; fill it in, or remove these cells."
        )
    return values


def categories(
    adata: AnnData, key: str, what: str, known: Sequence | None = None, advice: str = ""
) -> np.ndarray:
    """The category of each cell, as one of those that are known.

    Parameters
    ----------
    adata
        The cells.
    key
        Column of ``obs``.
    what
        What the column holds, for the message.
    known
        The categories there may be; they are compared as text. None for any.
    advice
        What to do about others.

    Returns
    -------
    Array (cells,) of the known categories, or, if any may be, of text.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        A value is missing, or not known.
    """
    text = as_text(column(adata, key, what))
    if known is None:
        return text
    by_text = dict(zip(as_text(known), known, strict=True))
    if other := sorted(set(text) - set(by_text)):
        raise ValueError(
            f"obs[{key!r}] holds {len(other)} {what} values that the model does not know "
            f"({shown(other)}); it knows {shown(list(by_text))}. {advice}".rstrip()
        )
    return np.array([by_text[value] for value in text], dtype=object)


def numbers(adata: AnnData, key: str, what: str, positive: bool = False) -> np.ndarray:
    """A column of finite numbers.

    Parameters
    ----------
    adata
        The cells.
    key
        Column of ``obs``.
    what
        What the column holds, for the message.
    positive
        Whether all must be above 0.

    Returns
    -------
    Array (cells,) of float64.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        It holds text, or a value is missing, infinite or not positive.
    """
    values = column(adata, key, what)
    if not pd.api.types.is_numeric_dtype(values):
        raise ValueError(
            f"obs[{key!r}] ({what}) holds values of type {values.dtype}; convert them to numbers "
            f"with pd.to_numeric(adata.obs[{key!r}])."
        )
    values = values.to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values) | (positive & (values <= 0))
    if bad.any():
        raise ValueError(
            f"obs[{key!r}] ({what}) is {values[bad][0]} in {bad.sum()} cells "
            f"({shown(adata.obs_names[bad])}); give finite numbers{' above 0' * positive}, or "
            "remove these cells."
        )
    return values


def coordinates(adata: AnnData, key: str, advice: str = "") -> np.ndarray:
    """Coordinates of every cell, from ``obsm``.

    Parameters
    ----------
    adata
        The cells.
    key
        Of ``obsm``.
    advice
        What to do if there are none.

    Returns
    -------
    Array (cells, dimensions) of float64.

    Raises
    ------
    KeyError
        There are no such coordinates.
    ValueError
        They are not numbers, or missing or infinite in a cell.
    """
    if key not in adata.obsm:
        raise KeyError(f"There is no obsm[{key!r}]{advice or f'; there are {sorted(adata.obsm)}.'}")
    held = adata.obsm[key]
    held = held.toarray() if hasattr(held, "toarray") else np.asarray(held)
    if held.dtype.kind not in "iufb":
        raise ValueError(f"obsm[{key!r}] holds values of type {held.dtype}; give numbers.")
    values = held.astype(np.float64)
    bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if bad.any():
        raise ValueError(
            f"obsm[{key!r}] holds values that are missing or infinite, in {bad.sum()} cells "
            f"({shown(adata.obs_names[bad])}); compute it for all cells, or remove these."
        )
    return values


def check_covariates(
    adata: AnnData, arguments: dict[str, Any], registry: dict | None = None, extend: bool = False
) -> None:
    """Check the columns of ``obs`` that a model is set up with.

    Parameters
    ----------
    adata
        Cells × genes.
    arguments
        Of :meth:`splicedvae.SplicedVAE.setup_anndata`.
    registry
        Of a model that knows its categories already.
    extend
        Whether there may be further categories.

    Raises
    ------
    KeyError
        A column is not there.
    ValueError
        A value is missing, not finite, or of a category that the model does not know; or a list of
        names is a single string.
    """
    known = {} if registry is None else known_categories(registry)
    for argument, what in (("batch_key", "batch"), ("labels_key", "label")):
        if (key := arguments.get(argument)) is not None:
            _check_categories(adata, key, what, known.get(what), extend)
    if (key := arguments.get("size_factor_key")) is not None:
        numbers(adata, key, "size factor", positive=True)
    for key in listed("categorical_covariate_keys", arguments.get("categorical_covariate_keys")):
        _check_categories(adata, key, f"covariate {key!r}", known.get(key), extend)
    for key in listed("continuous_covariate_keys", arguments.get("continuous_covariate_keys")):
        numbers(adata, key, f"covariate {key!r}")


def _check_categories(
    adata: AnnData, key: str, what: str, known: Sequence | None, extend: bool
) -> None:
    categories(adata, key, what, None if extend else known, ASK_A_BATCH * (what == "batch"))
    values = set(adata.obs[key])
    if len({isinstance(value, str) for value in values}) > 1:
        raise ValueError(
            f"obs[{key!r}] ({what}) holds both text and numbers, such as 1 and '1'; convert it: "
            f"adata.obs[{key!r}] = adata.obs[{key!r}].astype(str)."
        )
    if known is None:
        return
    text = set(as_text(known))
    if other := [value for value in values if value not in set(known) and str(value) in text]:
        raise ValueError(
            f"obs[{key!r}] holds {other[0]!r} where the model knows "
            f"{next(k for k in known if str(k) == str(other[0]))!r}; convert the column: "
            f"adata.obs[{key!r}] = adata.obs[{key!r}].astype({type(known[0]).__name__})."
        )


def known_categories(registry: dict) -> dict[str, list]:
    """Categories that a model knows, in the order of their codes.

    Parameters
    ----------
    registry
        Of a model or of an AnnData manager.

    Returns
    -------
    Lists of categories by ``"batch"``, ``"label"`` and name of covariate.
    """
    fields = registry["field_registries"]
    found = {}
    for what, key in (("batch", "batch"), ("label", "labels")):
        state = fields.get(key, {}).get("state_registry", {})
        found[what] = list(state.get("categorical_mapping", ()))
    mappings = (
        fields.get("extra_categorical_covs", {}).get("state_registry", {}).get("mappings", {})
    )
    return found | {name: list(values) for name, values in mappings.items()}


def own(adata: AnnData) -> None:
    """Turn a view into cells of its own, as scvi-tools does, before anything is written to it.

    Parameters
    ----------
    adata
        Cells × genes.
    """
    if adata.is_view:
        adata._init_as_actual(adata.to_memory() if adata.isbacked else adata.copy())


@contextmanager
def unchanged_on_error(adata: AnnData) -> Iterator[None]:
    """Let nothing half written stay: after an error, the cells are as they were.

    It holds references, not copies, so what is inside may replace arrays, but not write into them.

    Parameters
    ----------
    adata
        Cells × genes.

    Yields
    ------
    Nothing.
    """
    check_cells(adata)
    own(adata)
    frames = {name: getattr(adata, name).copy(deep=False) for name in ("obs", "var")}
    mappings = {name: dict(getattr(adata, name)) for name in MAPPINGS}
    uns = _nested(adata.uns)
    x = None if adata.isbacked else adata.X
    try:
        yield
    except BaseException:
        for name, frame in frames.items():
            setattr(adata, name, frame)
        for name, held in mappings.items():
            mapping = getattr(adata, name)
            for key in [key for key in mapping if key not in held]:
                del mapping[key]
            for key, value in held.items():
                if mapping.get(key) is not value:
                    mapping[key] = value
        adata.uns = uns
        if not adata.isbacked and adata.X is not x:
            adata.X = x
        raise


def _nested(mapping: Any) -> dict:
    """A copy of nested dictionaries that shares what they hold."""
    return {k: _nested(v) if isinstance(v, dict) else v for k, v in mapping.items()}

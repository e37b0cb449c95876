"""Which genes cells and a checkpoint share: symbols, Ensembl ids, versions, case, duplicates."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pooch
from anndata import AnnData

from ..checks import check_cells, unique_genes
from ..counts import checked_values, named_layers, total_counts
from ..genes import ENSEMBL, ID_COLUMNS, arrange, locate
from ..head import one_of

#: Nomenclature tables: address, and the columns of symbol and Ensembl id.
NOMENCLATURE = {
    "homo_sapiens": (
        "https://storage.googleapis.com/public-download-files/hgnc/tsv/tsv/hgnc_complete_set.txt",
        ("symbol", "ensembl_gene_id"),
    ),
    "mus_musculus": ("https://www.informatics.jax.org/downloads/reports/MRK_ENSEMBL.rpt", (1, 5)),
}
MIN_SHARED = 0.05  # of the genes of the smaller of both sets; unrelated sets share next to none


@dataclass(frozen=True)
class Overlap:
    """How the genes of cells and of a checkpoint meet.

    Attributes
    ----------
    position
        For each gene of the cells, its position in the checkpoint; -1 if it is not there.
    how
        For each gene of the cells: ``"exact"``, ``"version"`` (the ids differ in what follows the
        point), ``"case"`` (a symbol was found under another case), ``"duplicate"`` (another gene
        of the cells has its place, by its own case or by more counts) or ``"absent"``.
    table
        The report: genes of both and shared, share of the checkpoint's genes and of the cells'
        counts that is covered, genes by `how`, and which markers are missing.
    """

    position: np.ndarray
    how: pd.Series
    table: pd.Series


def symbols(
    organism: Literal["homo_sapiens", "mus_musculus"],
    *,
    path: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    timeout: float = 30.0,
) -> pd.Series:
    """Ensembl ids by gene symbol, from the organism's nomenclature committee (HGNC or MGI).

    Parameters
    ----------
    organism
        As in :func:`splicedvae.census.checkpoints.fetch`.
    path
        The committee's file, if it is at hand; None downloads it once.
    cache_dir
        Where downloads are kept; by default the user's cache folder.
    timeout
        Seconds to wait for the server before giving up.

    Returns
    -------
    Ensembl ids, indexed by symbol.

    Raises
    ------
    ValueError
        The organism is unknown, or the file is not such a table.
    ConnectionError
        It can't be downloaded.
    """
    one_of("organism", organism, tuple(NOMENCLATURE))
    url, (symbol, ensembl) = NOMENCLATURE[organism]
    if path is None:
        folder = Path(cache_dir or pooch.os_cache("splicedvae")) / "nomenclature"
        try:
            get = pooch.HTTPDownloader(progressbar=True, timeout=timeout)
            path = pooch.retrieve(url, None, Path(url).name, folder, downloader=get)
        except OSError as error:
            raise ConnectionError(
                f"{url} can't be had ({error}). Download it elsewhere and give path=, or give ids= "
                "a column of var, or a mapping of symbols to Ensembl ids."
            ) from error
    header = 0 if isinstance(symbol, str) else None
    wrong = ValueError(
        f"{path} is not a table of {organism}'s symbols and Ensembl ids; if it was downloaded, "
        "remove it."
    )
    try:
        frame = pd.read_csv(path, sep="\t", header=header, dtype=str, usecols=[symbol, ensembl])
    except ValueError as error:  # pandas' own kinds are among these
        raise wrong from error
    frame = frame.dropna()
    if frame.empty or not frame[ensembl].str.fullmatch(ENSEMBL).all():
        raise wrong
    return frame.set_index(symbol)[ensembl]


def ensembl_ids(adata: AnnData, ids: str | Mapping[str, str] | None = None) -> pd.Series:
    """Ensembl ids of the genes of some cells, without their versions.

    Parameters
    ----------
    adata
        Cells × genes.
    ids
        A column of ``var``; or Ensembl ids by symbol, such as from :func:`symbols`. None takes
        the names of the genes if they are such ids, or a column of ``var`` that is usual for them.

    Returns
    -------
    Indexed by gene; an empty string where there is none. The attribute ``attrs["case"]`` lists
    the genes whose symbol was found under another case.

    Raises
    ------
    KeyError
        ``var`` has no such column.
    ValueError
        There are no ids: what was given or found holds none.
    """
    names = adata.var_names.to_series()
    by_case: list[str] = []
    if ids is None:
        usual = [c for c in ID_COLUMNS if c in adata.var]
        candidates = [names, *(adata.var[c].astype(str) for c in usual)]
        share = [c.str.match(ENSEMBL).mean() for c in candidates]
        found = candidates[int(np.argmax(share))]
    elif isinstance(ids, str):
        if ids not in adata.var:
            raise KeyError(f"adata.var has no column {ids!r}; it has {', '.join(adata.var)}.")
        found = adata.var[ids].astype(str)
    else:
        table = pd.Series(ids, dtype=object)
        table = table[~table.index.duplicated()]
        found = names.map(table)
        lower = table.groupby(table.index.str.lower()).agg(["first", "size"])
        # two symbols that differ only in case are two genes
        alone = lower.loc[lower["size"] == 1, "first"]
        again = names.str.lower().map(alone)
        by_case = list(names[found.isna() & again.notna()])
        found = found.astype(object).where(found.notna(), again)
    found = found.where(found.notna() & found.astype(str).str.match(ENSEMBL), "")
    if not (found != "").any():
        raise ValueError(
            f"The genes ({', '.join(names[:3])}, …) have no Ensembl ids, which Census models know "
            "genes by. Give ids= a column of var, or sv.census.symbols(organism)."
        )
    found.index = adata.var_names
    found.attrs["case"] = by_case
    return found


def overlap(
    adata: AnnData,
    genes: Sequence[str],
    ids: str | Mapping[str, str] | None = None,
    markers: Sequence[str] = (),
) -> Overlap:
    """Match the genes of some cells with those of a checkpoint.

    Parameters
    ----------
    adata
        Cells × genes; ``layers["total"]``, or else X, says how well each is counted.
    genes
        Of the checkpoint, Ensembl ids.
    ids
        As in :func:`ensembl_ids`.
    markers
        Names of genes in `adata` that one would not like to miss.

    Returns
    -------
    The match and its report.

    Raises
    ------
    KeyError, ValueError
        As in :func:`ensembl_ids`. A marker that the cells do not have is a ``KeyError`` too, a gene
        that they have twice a ``ValueError``.
    """
    check_cells(adata)
    unique_genes(adata)
    if strangers := [m for m in markers if m not in adata.var_names]:
        raise KeyError(f"The cells have no gene {', '.join(strangers)}.")
    full = ensembl_ids(adata, ids)
    held = named_layers(adata).get("total", adata.X)
    if held is None and {"spliced", "unspliced"} <= set(named_layers(adata)):
        held = total_counts(adata)
    counts = np.zeros(adata.n_vars)
    if held is not None:
        counts = np.nan_to_num(np.asarray(checked_values("counts", held).sum(axis=0)).ravel())
    case = adata.var_names.isin(full.attrs["case"])
    position, how = locate(full, genes, counts, case)

    shared = position >= 0
    kinds = pd.Series(how).value_counts()
    table = {
        "genes of the checkpoint": len(genes),
        "genes of the cells": adata.n_vars,
        "shared": int(shared.sum()),
        "share of the checkpoint": float(shared.sum() / max(1, len(genes))),
        "share of the cells' genes": float(shared.mean()),
        "share of the counts": float(counts[shared].sum() / max(1, counts.sum())),
        **{f"by {kind}": int(kinds.get(kind, 0)) for kind in ("exact", "version", "case")},
        "duplicates": int(kinds.get("duplicate", 0)),
    }
    if len(markers):
        missing = [m for m in markers if not shared[adata.var_names.get_loc(m)]]
        table["missing markers"] = ", ".join(missing) or "none"
    return Overlap(position, pd.Series(how, adata.var_names), pd.Series(table, dtype=object))


def match(
    adata: AnnData,
    genes: Sequence[str],
    ids: str | Mapping[str, str] | None = None,
    missing: Literal["drop", "pad"] = "drop",
    extra: Literal["drop", "keep"] = "drop",
) -> AnnData:
    """The cells with the genes of a checkpoint, in its order.

    Parameters
    ----------
    adata
        Cells × genes.
    genes
        Of the checkpoint, Ensembl ids.
    ids
        As in :func:`ensembl_ids`.
    missing
        What becomes of genes that only the checkpoint has: ``"pad"`` adds them with counts of 0,
        as scArches does. To the encoder that is the same as ``"drop"``; the decoder then has to
        learn that genes which were not measured are not there.
    extra
        Genes that only the cells have are dropped, or kept behind the others, for a model to
        learn from scratch.

    Returns
    -------
    A copy, with X, layers, ``obs``, ``obsm`` and ``uns``, and with ``var["census"]``: the gene's
    position in the checkpoint, -1 for an extra one. A padded gene is called by its Ensembl id.

    Raises
    ------
    KeyError, ValueError
        As in :func:`ensembl_ids`.
    ValueError
        Hardly a gene is shared, as with another organism.
    """
    one_of("missing", missing, ("drop", "pad"))
    one_of("extra", extra, ("drop", "keep"))
    found = overlap(adata, genes, ids)
    n_shared = int((found.position >= 0).sum())
    if n_shared < MIN_SHARED * min(len(genes), adata.n_vars):
        kept = ensembl_ids(adata, ids)
        raise ValueError(
            f"The cells share {n_shared} of {len(genes)} genes with the checkpoint, whose ids look "
            f"like {genes[0]}, theirs like {next(i for i in kept if i)}. Is it another organism?"
        )
    place = found.position
    source = np.full(len(genes), -1)  # of the checkpoint's genes, among the cells'
    source[place[place >= 0]] = np.flatnonzero(place >= 0)
    known = np.arange(len(genes)) if missing == "pad" else np.flatnonzero(source >= 0)
    others = np.flatnonzero(place < 0) if extra == "keep" else np.arange(0)
    columns = np.concatenate([source[known], others])
    census = np.concatenate([known, np.full(len(others), -1)])
    names = np.where(columns >= 0, adata.var_names[columns], np.asarray(genes)[census])
    matched = arrange(adata, columns, names)
    matched.var["census"] = census
    return matched

"""A check-up of cells: what stands in the way of ratios and velocity, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from .counts import Counts, named_layers
from .velocity.field import check_graph

LEVELS = ("stop", "look", "ok", "note")
#: Unspliced share of all counts, by what was sequenced.
PROBES, CELLS, NUCLEI = 0.02, (0.1, 0.3), (0.5, 0.85)
LOW_DEPTH = 500  # spliced + unspliced counts of the median cell
ONE_FORM = 0.01  # share of cells without one form that is no longer chance


class Findings(pd.DataFrame):
    """A table of findings that prints whole sentences, the gravest first.

    Its columns are ``level``, ``what``, ``where``, ``cells`` (how many are concerned) and ``do``.
    The levels are ``"stop"``: not before this is mended; ``"look"``: know why it is so; ``"ok"``:
    there is neither; and ``"note"``.
    """

    @property
    def stops(self) -> bool:
        """Whether anything must be mended first."""
        return bool((self["level"] == "stop").any())

    def __repr__(self) -> str:
        lines = []
        for row in self.itertuples(index=False):
            cells = f" ({row.cells:,} cells)" if row.cells else ""
            where = f"{row.where}: " if row.where else ""
            lines += [
                f"{row.level:<5} {where}{row.what}{cells}",
                *[f"      → {row.do}"] * bool(row.do),
            ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None, "display.max_rows", None):
            return super()._repr_html_()


def check(
    adata: AnnData,
    batch_key: str | None = None,
    spliced_layer: str = "spliced",
    unspliced_layer: str = "unspliced",
) -> Findings:
    """Look cells over before anything is trained on them; they stay as they are.

    Looked at are counts (whole, not negative, none missing), the two forms in each batch, copies of
    one layer in another, the unspliced share, depth, missing values in ``obs``, repeated names,
    genes without counts, and the neighbour graph with its embedding.

    Of all counts, 10 to 30 % are unspliced in cells of 3' 10x chemistry and 50 to 85 % in nuclei.
    Probes (10x Flex, Visium FFPE) bind to exons: next to nothing is unspliced, and what is says
    nothing about splicing.

    Parameters
    ----------
    adata
        Cells × genes.
    batch_key
        Column of ``obs`` whose batches are looked at one by one; None for all cells together.
    spliced_layer, unspliced_layer
        Names of the layers.

    Returns
    -------
    One row for each finding. If there is nothing to mend or to look at, a row says so.

    Raises
    ------
    KeyError
        `batch_key` is not in ``obs``.
    """
    if batch_key is not None and batch_key not in adata.obs:
        raise KeyError(f"adata.obs has no column {batch_key!r}; it has {sorted(adata.obs)}.")
    if adata.isbacked:
        adata = adata.to_memory()
    layers = named_layers(adata)
    forms = {
        name: sparse.csr_matrix(layers[name], dtype=np.float64)
        for name in (spliced_layer, unspliced_layer)
        if name in layers
    }
    rows = [*_names(adata), *_covariates(adata, batch_key), *_graph(adata)]
    rows += _missing_forms(adata, forms, (spliced_layer, unspliced_layer))
    rows += _values(adata, layers, forms)
    if len(forms) == 2:
        rows += _copies(adata, layers, *forms)
        for batch, cells in _batches(adata, batch_key):
            rows += _forms(batch, *(counts[cells] for counts in forms.values()), *forms)
    if all(row[0] == "note" for row in rows):
        rows.append(("ok", "Nothing found that must be mended.", "", 0, "Go on."))
    rows.sort(key=lambda row: LEVELS.index(row[0]))
    return Findings(rows, columns=["level", "what", "where", "cells", "do"])


Rows = Iterator[tuple[str, str, str, int, str]]


def _batches(adata: AnnData, batch_key: str | None) -> Iterator[tuple[str, np.ndarray]]:
    if batch_key is None:
        yield "all cells", np.arange(adata.n_obs)
        return
    labels = adata.obs[batch_key].astype(object)
    for batch in sorted(labels.dropna().unique(), key=str):
        yield f"{batch_key} {batch}", np.flatnonzero(labels == batch)


def _names(adata: AnnData) -> Rows:
    for names, what, where, level in (
        (adata.obs_names, "cell names", "obs_names", "look"),
        (adata.var_names, "gene names", "var_names", "stop"),
    ):
        repeated = names[names.duplicated()].unique()
        if len(repeated):
            cells = names.duplicated(keep=False).sum() if where == "obs_names" else adata.n_obs
            yield (
                level,
                f"{len(repeated)} {what} repeat ({_some(repeated)}).",
                where,
                int(cells),
                f"adata.{where}_make_unique(), or merge what is the same.",
            )


def _covariates(adata: AnnData, batch_key: str | None) -> Rows:
    for k, column in enumerate(adata.obs):
        if missing := int(adata.obs.iloc[:, k].isna().sum()):
            batch = column == batch_key
            yield (
                "stop" if batch else "look",
                "Values are missing.",
                f"obs[{column!r}]",
                missing,
                "Give these cells a batch, or leave them out."
                if batch
                else "Fill them in or leave the cells out before it becomes a covariate.",
            )


def _graph(adata: AnnData) -> Rows:
    do = "sv.velocity.embed(adata, overwrite=True) makes graph and embedding anew."
    broken = set()
    for name, values in adata.obsm.items():
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            bad = ~np.isfinite(values).all(axis=1)
            if bad.any():
                broken.add(name)
                what = "The embedding holds values that are missing or infinite."
                yield "stop", what, f"obsm[{name!r}]", int(bad.sum()), do
    if "X_umap" in broken:
        return
    try:
        check_graph(adata)
    except KeyError as error:
        missing = error.args[0].partition(";")[0]
        make = "Nothing for ratios; before velocity, sv.velocity.embed(adata) makes it."
        yield "note", f"{missing}.", "obsp, obsm", 0, make
    except ValueError as error:
        yield "look", str(error).partition(". ")[0] + ".", "obsp", adata.n_obs, do


def _missing_forms(adata: AnnData, forms: dict[str, Counts], wanted: tuple[str, str]) -> Rows:
    missing = [name for name in wanted if name not in forms]
    if len(missing) == 2:
        yield (
            "note",
            f"There are totals only, no layers {' and '.join(map(repr, wanted))}.",
            "layers",
            adata.n_obs,
            "Predict them with a trained model (prepare_query_anndata). To train one, count again "
            "with a tool that tells the forms apart, or name the layers.",
        )
    elif missing:
        yield (
            "stop",
            f"There is no layer {missing[0]!r}, only {_some(forms)}.",
            "layers",
            adata.n_obs,
            "Read the files again (sv.data.read), or name the layer.",
        )


def _values(adata: AnnData, layers: dict[str, Counts], forms: dict[str, sparse.csr_matrix]) -> Rows:
    """What can't be counts, in the layers that are read; in X if there are no such layers."""
    read = {f"layers[{name!r}]": counts for name, counts in forms.items()}
    if "total" in layers:
        read["layers['total']"] = sparse.csr_matrix(layers["total"], dtype=np.float64)
    if not forms and adata.X is not None:
        read["X"] = sparse.csr_matrix(adata.X, dtype=np.float64)
    for where, counts in read.items():
        x = counts.data
        rows = np.repeat(np.arange(adata.n_obs), np.diff(counts.indptr))
        for kind, bad in (
            ("missing or infinite", ~np.isfinite(x)),
            ("negative", x < 0),
            ("fractional", np.isfinite(x) & (x != np.floor(x))),
        ):
            if bad.any():
                gene = adata.var_names[counts.indices[np.argmax(bad)]]
                yield (
                    "stop",
                    f"Counts are {kind}: {x[bad][0]:.4g} in gene {gene}.",
                    where,
                    len(np.unique(rows[bad])),
                    "Give raw counts, neither normalised nor logged, of whole molecules.",
                )
    counted = list(forms.values()) or list(read.values())
    if not counted:
        return
    genes, cells = (
        sum(np.asarray((counts != 0).sum(axis=axis)).ravel() for counts in counted) == 0
        for axis in (0, 1)
    )
    if cells.any():
        empty = f"Cells have no counts ({_some(adata.obs_names[cells])})."
        yield "stop", empty, "obs_names", int(cells.sum()), "Leave them out."
    if genes.any():
        yield (
            "note",
            f"{genes.sum():,} of {adata.n_vars:,} genes have no counts.",
            "var_names",
            adata.n_obs,
            "sv.data.prepare leaves them out.",
        )


def _copies(adata: AnnData, layers: dict[str, Counts], spliced: str, unspliced: str) -> Rows:
    def same(a: Counts, b: Counts) -> bool:
        a, b = (sparse.csr_matrix(x, dtype=np.float64) for x in (a, b))
        return a.sum() > 0 and abs(a - b).nnz == 0

    do = "One was copied to fill the other's place; read the files again (sv.data.read)."
    if same(layers[spliced], layers[unspliced]):
        both = f"layers {spliced!r} and {unspliced!r}"
        yield "stop", "The two layers are the same.", both, adata.n_obs, do
        return
    held = {"X": adata.X} | {f"layers[{k!r}]": x for k, x in layers.items() if k == "total"}
    for where, counts in held.items():
        if counts is None:
            continue
        if same(counts, layers[unspliced]):
            what = f"It is a copy of layer {unspliced!r}."
            yield "stop" if where != "X" else "look", what, where, adata.n_obs, do
        elif same(counts, layers[spliced]) and where != "X":
            what = f"It is a copy of layer {spliced!r} and no total."
            yield "stop", what, where, adata.n_obs, "Remove it; setup_anndata composes the total."
        elif same(counts, layers[spliced]):
            yield (
                "note",
                f"It is a copy of layer {spliced!r}, as velocyto and scVelo have it, and no total.",
                where,
                adata.n_obs,
                "Nothing, as SplicedVAE reads the layers. Don't take X for all counts elsewhere.",
            )


def _forms(
    where: str, spliced: sparse.csr_matrix, unspliced: sparse.csr_matrix, s_name: str, u_name: str
) -> Rows:
    """Of one batch: are both forms there, in what proportion, and are they enough?"""
    s, u = (np.asarray(x.sum(axis=1)).ravel() for x in (spliced, unspliced))
    n = len(s)
    if not np.isfinite(s + u).all() or (s + u).sum() <= 0:
        return  # said already
    for name, counts in ((s_name, s), (u_name, u)):
        if counts.sum() == 0:
            yield (
                "stop",
                f"Layer {name!r} is empty: zeros stand for counts that were never made, as after "
                "joining a sample that has no such layer.",
                where,
                n,
                "Leave these cells out of the training, and predict them as a query of totals.",
            )
            return
    for name, counts in ((s_name, s), (u_name, u)):
        lacking = int(((counts == 0) & (s + u > 0)).sum())
        if lacking > ONE_FORM * n:
            yield (
                "look",
                f"Cells have no count in layer {name!r}, and have others.",
                where,
                lacking,
                "Are they of a sample that was counted without it (batch_key=), or too shallow?",
            )
    share = u.sum() / (s + u).sum()
    if finding := _verdict(share):
        level, why, do = finding
        yield level, f"{share:.1%} of the counts are unspliced; {why}", where, n, do
    if (median := np.median(s + u)) < LOW_DEPTH:
        yield (
            "look",
            f"The median cell has {median:,.0f} counts, fewer than {LOW_DEPTH}.",
            where,
            int((s + u < LOW_DEPTH).sum()),
            "Expect noisy ratios; leave out empty droplets and damaged cells.",
        )


def _verdict(share: float) -> tuple[str, str, str] | None:
    """Level, reason and advice for an unspliced share."""
    if share < PROBES:
        return (
            "stop",
            "probes (Flex, FFPE) and exonic counts look so.",
            "Do not use these cells for training or velocity. If reads are of 3' 10x chemistry, "
            "introns were not counted: count again with an index that has them.",
        )
    if share < CELLS[0]:
        return (
            "look",
            "3' 10x cells have 10 to 30 %.",
            "Was the index made with introns? Full-length protocols may have so few.",
        )
    if share <= CELLS[1]:
        return None
    if share < NUCLEI[0]:
        return (
            "look",
            "that is between cells (10 to 30 %) and nuclei (50 to 85 %).",
            "Are cells and nuclei mixed, or many cells damaged? Look at them one by one.",
        )
    if share <= NUCLEI[1]:
        return (
            "note",
            "nuclei look so (50 to 85 %).",
            "Nothing, if they are nuclei. Of whole cells, the two layers may be swapped.",
        )
    return "look", "that is more than nuclei have (50 to 85 %).", "Are the two layers swapped?"


def _some(names) -> str:
    names = list(map(str, names))
    return ", ".join(names[:5]) + ", …" * (len(names) > 5)

"""Genes of two objects: which are the same, by name, version or case, and in whose order."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from .checks import as_text, shown, unique_genes
from .counts import in_memory, named_layers

logger = logging.getLogger("splicedvae")

ENSEMBL = r"ENS[A-Z]*G\d+"
#: Columns of ``var`` in use for Ensembl ids, and for symbols.
ID_COLUMNS = ("gene_ids", "gene_id", "feature_id", "ensembl_id", "ensembl", "Accession")
SYMBOL_COLUMNS = (
    *("gene_symbols", "gene_symbol", "gene_names", "gene_name", "feature_name", "symbol", "Gene"),
)


def without_version(names: Sequence[str]) -> np.ndarray:
    """Names, of which Ensembl ids have lost what follows the point.

    Parameters
    ----------
    names
        Of genes.

    Returns
    -------
    Array of strings; ``ENSMUSG00000051951.6`` becomes ``ENSMUSG00000051951``.
    """
    series = pd.Series(as_text(names), dtype=object)
    return series.str.replace(rf"^({ENSEMBL})\.\d+$", r"\1", regex=True).to_numpy(dtype=object)


def other_case(names: np.ndarray, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Names as they are written among some genes, where they differ in case only.

    Parameters
    ----------
    names, genes
        Names of genes.

    Returns
    -------
    Names, and which of them were rewritten. Two genes that differ only in case are two genes, so
    a name that could be either of them stays as it is.
    """
    theirs = pd.Series(genes, [str(gene).lower() for gene in genes])
    theirs = theirs[~theirs.index.duplicated(keep=False)]
    absent = ~pd.Index(names).isin(genes)
    found = pd.Series([str(name).lower() for name in names]).map(theirs)
    rewritten = absent & found.notna().to_numpy()
    return np.where(rewritten, found, names), rewritten


def locate(
    names: Sequence[str],
    genes: Sequence[str],
    counts: np.ndarray,
    rewritten: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of some genes among others.

    Parameters
    ----------
    names
        Of the genes of cells; an empty string where there is none.
    genes
        Among which they are looked for.
    counts
        How well each gene of the cells is counted: of two for one place, the better one has it.
    rewritten
        Names that were found under another case; another name comes before them.

    Returns
    -------
    Positions, -1 for a gene without one; and for each gene how it was found: ``"exact"``,
    ``"version"``, ``"case"``, ``"duplicate"`` (another has its place) or ``"absent"``.
    """
    case = np.zeros(len(names), dtype=bool) if rewritten is None else np.asarray(rewritten)
    own, theirs = without_version(names), without_version(genes)
    places = pd.Series(range(len(theirs)), theirs)
    places = places[~places.index.duplicated()]
    position = pd.Series(own).map(places).fillna(-1).to_numpy(dtype=int, copy=True)
    exact = pd.Index(as_text(names)).isin(as_text(genes))
    how = np.select([position < 0, case, exact], ["absent", "case", "exact"], "version").astype(
        object
    )
    # the surest, then the best counted, comes first
    order = np.lexsort((-counts, case, position))
    later = order[1:][(position[order[1:]] == position[order[:-1]]) & (position[order[1:]] >= 0)]
    position[later], how[later] = -1, "duplicate"
    return position, how


def arrange(adata: AnnData, source: np.ndarray, names: Sequence[str]) -> AnnData:
    """The cells with other genes: chosen, put in order, and filled with zeros where there is none.

    Parameters
    ----------
    adata
        Cells × genes.
    source
        For each gene to come, its position in `adata`; -1 for one that is not there.
    names
        Of the genes to come.

    Returns
    -------
    A copy with X, layers in the types they have, ``obs``, ``obsm``, ``obsp``, ``varm``, ``uns``
    and ``raw``, but for what scvi-tools has noted in them.
    """
    there = np.flatnonzero(source >= 0)

    def chosen(matrix):
        matrix = in_memory(matrix)
        if matrix is None:
            return None
        if sparse.issparse(matrix):
            matrix = sparse.csr_matrix(matrix)
            ones = np.ones(len(there), dtype=matrix.dtype)
            shape = adata.n_vars, len(source)
            return matrix @ sparse.csr_matrix((ones, (source[there], there)), shape=shape)
        matrix = np.asarray(matrix)
        filled = np.zeros((len(matrix), len(source)), dtype=matrix.dtype)
        filled[:, there] = matrix[:, source[there]]
        return filled

    def padded(values):
        if isinstance(values, pd.DataFrame):
            table = values.iloc[np.where(source >= 0, source, 0)].copy()
            table.index = pd.Index(as_text(names))
            return table.assign(**{c: _blank(table[c], source < 0) for c in table})
        values = values.toarray() if sparse.issparse(values) else values
        rows = np.full((len(source), *np.shape(values)[1:]), np.nan)
        rows[there] = np.asarray(values)[source[there]]
        return rows

    def ours(mapping):
        return {k: v for k, v in mapping.items() if not str(k).startswith(("_scvi", "_splicedvae"))}

    var = adata.var.iloc[np.where(source >= 0, source, 0)].copy()
    var.index = pd.Index(as_text(names))
    if len(there) < len(source):
        for name in list(var):
            var[name] = _blank(var[name], source < 0)
    obs = adata.obs[[c for c in adata.obs if not str(c).startswith("_scvi")]].copy()
    arranged = AnnData(
        chosen(adata.X),
        obs=obs,
        var=var,
        obsm={k: v.copy() for k, v in ours(adata.obsm).items()},
        varm={k: padded(v) for k, v in adata.varm.items()},
        layers={name: chosen(m) for name, m in named_layers(adata).items()},
        obsp={k: v.copy() for k, v in adata.obsp.items()},
        uns=ours(adata.uns),
    )
    if adata.raw is not None:
        arranged.raw = adata.raw.to_adata()
    return arranged


def _blank(values: pd.Series, where: np.ndarray) -> pd.Series:
    """Nothing in some places, in a type that files can hold."""
    values = values.copy()
    kind = values.dtype
    if pd.api.types.is_bool_dtype(kind):
        values[where] = False
    elif pd.api.types.is_integer_dtype(kind):
        values[where] = 0
    else:
        values[where] = np.nan
    return values


def to_model(
    adata: AnnData, genes: Sequence[str], counts: np.ndarray, min_shared: float
) -> np.ndarray:
    """For each gene of a model, its position among those of some cells.

    Names are compared as they are, without the version of an Ensembl id, and, once enough of them
    are found, in any case. The names of the cells' genes are ``var_names`` or a column of ``var``
    that is usual for ids or symbols, whichever knows most of the model's genes.

    Parameters
    ----------
    adata
        Cells × genes.
    genes
        Of the model.
    counts
        Sum of each gene of the cells.
    min_shared
        Share of the model's genes that must be found, apart from case.

    Returns
    -------
    Positions, -1 for a gene that the cells do not have.

    Raises
    ------
    ValueError
        Names repeat, or fewer genes are shared.
    """
    unique_genes(adata)
    genes = as_text(genes)
    columns = [c for c in (*ID_COLUMNS, *SYMBOL_COLUMNS) if c in adata.var]
    tables = {"var_names": as_text(adata.var_names)}
    tables |= {f"var[{c!r}]": as_text(adata.var[c]) for c in columns}
    found = {name: locate(names, genes, counts) for name, names in tables.items()}
    best = max(found, key=lambda name: (found[name][0] >= 0).sum())
    names, (position, _) = tables[best], found[best]
    renamed, rewritten = other_case(names, genes)
    n_shared = int((position >= 0).sum())
    if n_shared < min_shared * len(genes) or not n_shared:
        raise ValueError(_too_few(names, genes, n_shared, renamed[rewritten], min_shared))
    if rewritten.any():
        position, how = locate(renamed, genes, counts, rewritten)
    else:
        how = found[best][1]
    kinds = Counter(how)
    n_shared = int((position >= 0).sum())
    parts = [f"{kinds[kind]} by {kind}" for kind in ("version", "case") if kind in kinds]
    parts += [f"{kinds['duplicate']} named twice and left out"] * (kinds["duplicate"] > 0)
    missing = len(genes) - n_shared
    parts += [f"{missing} filled with zeros"] * (missing > 0)
    parts += [f"names from {best}"] * (best != "var_names")
    if parts:
        share = counts[position >= 0].sum() / max(1, counts.sum())
        logger.log(
            logging.WARNING if n_shared < 0.8 * len(genes) else logging.INFO,
            "The cells have %d of the model's %d genes (%.0f %%), which hold %.0f %% of their "
            "counts: %s.",
            *(n_shared, len(genes), 100 * n_shared / len(genes), 100 * share, ", ".join(parts)),
        )
    source = np.full(len(genes), -1)
    source[position[position >= 0]] = np.flatnonzero(position >= 0)
    return source


def _too_few(
    names: np.ndarray, genes: np.ndarray, n_shared: int, by_case: np.ndarray, min_shared: float
) -> str:
    """What to say of cells that share too few genes with a model, and what may be the reason."""
    some = "None" if not n_shared else f"Only {n_shared}"
    message = (
        f"{some} of the {len(names)} genes ({shown(names[:3])}) are among the model's "
        f"{len(genes)} ({shown(genes[:3])}); {min_shared:.0%} of the model's genes are needed. "
    )
    kinds = [pd.Series(x, dtype=object).str.match(ENSEMBL).mean() > 0.5 for x in (names, genes)]
    if len(by_case):
        first = by_case[0]
        theirs = next(name for name in names if str(name).lower() == str(first).lower())
        return message + (
            f"{len(by_case)} would match if case did not matter ({theirs} and {first}): if these "
            "are cells of another species, rename the genes to their orthologues, else to the "
            "model's spelling."
        )
    if kinds[0] != kinds[1]:
        theirs, ours = ("ids", "symbols") if kinds[1] else ("symbols", "ids")
        return message + (
            f"The model knows genes by {theirs} and these are {ours}; give the {theirs} as "
            f"var_names, or in the column {(ID_COLUMNS if kinds[1] else SYMBOL_COLUMNS)[1]!r} of "
            "var."
        )
    return message + "Is it another species, or another kind of gene name?"

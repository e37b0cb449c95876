"""Spliced, unspliced and ambiguous counts from the files of the tools that make them."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import anndata.io
import h5py
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.io
from anndata import AnnData, ImplicitModificationWarning
from anndata.utils import make_index_unique
from scipy import sparse

from .checks import CELL
from .data import file_of_its_kind
from .head import one_of
from .multiome import read_h5mu

logger = logging.getLogger("splicedvae")

Ambiguous = Literal["spliced", "split", "drop"]

#: What the tools call the layers, by what they are called here.
FORMS = {
    "spliced": ("spliced", "mature"),
    "unspliced": ("unspliced", "nascent"),
    "ambiguous": ("ambiguous",),
}
BECOME = {
    "spliced": "they count as spliced",
    "split": "they are split by each gene's other counts",
    "drop": "they are dropped",
}
IDS = ("gene_ids", "gene_id", "ensembl_id", "Accession", "feature_id")
SYMBOLS = ("gene_symbols", "gene_symbol", "gene_names", "gene_name", "feature_name", "Gene")
BARCODES = ("CellID", "barcode", "barcodes", "obs_names")
GENES = ("Gene", "target_name", "var_names", *IDS)
ID = re.compile(r"ENS[A-Z]*G\d{11}|FBgn\d{7}|WBGene\d{8}")
#: Where in a tool's output folder the counts are; those of called cells come first.
PLACES = (
    "counts_filtered",
    "counts_unfiltered",
    "alevin",
    "af_quant/alevin",
    "velocyto/*.loom",
    "filtered",
    "raw",
    "Velocyto/filtered",
    "Velocyto/raw",
    "*Solo.out/Velocyto/filtered",
    "*Solo.out/Velocyto/raw",
    "Gene/filtered",
    "Gene/raw",
    "filtered_feature_bc_matrix",
    "raw_feature_bc_matrix",
    "outs/filtered_feature_bc_matrix",
    "outs/raw_feature_bc_matrix",
)
EXPECTED = (
    "a velocyto loom; the output folder of kb-python, alevin-fry or STARsolo; a Cell Ranger matrix "
    "(h5 or folder); or h5ad, h5mu or zarr"
)


def read(path: str | Path, ambiguous: Ambiguous = "spliced") -> AnnData:
    """Read cells from what velocyto, kb-python, alevin-fry, STARsolo or Cell Ranger has written.

    What can be read:

    - velocyto: ``sample.loom``;
    - kb-python, workflows ``nac`` and ``lamanno``: ``counts_unfiltered`` or ``counts_filtered``,
      ``adata.h5ad`` or ``adata.loom``;
    - alevin-fry and simpleaf: the folder with ``quant.json``, or its ``alevin``; ``quants.h5ad``;
    - STARsolo: ``Solo.out``, its ``Velocyto``, or a folder in it;
    - Cell Ranger: ``.h5``, or the folder with ``matrix.mtx.gz``; these are totals only;
    - h5ad and zarr of any of these, or your own; MuData's h5mu, of which a modality of genes, such
      as gene activities, becomes a layer, see :func:`add_modality`.

    A folder that holds one of these folders will do. Where a tool has written counts of called
    cells and of all barcodes, the called cells are read; barcodes without any count are left out
    of what is read from matrix files. No code in a file is ever run.

    Parameters
    ----------
    path
        The file or folder.
    ambiguous
        What becomes of molecules that fit both forms. ``"spliced"`` counts them as spliced, as
        alevin-fry and kb-python advise for whole cells. ``"split"`` shares them out by the ratio
        that the gene's other molecules have over all cells of the file: each molecule is drawn,
        always with the same seed, so that counts stay whole; fractional counts are divided. A
        gene without other molecules counts as spliced. ``"drop"`` leaves them out.

    Returns
    -------
    Cells × genes with

    - ``layers["spliced"]``, ``layers["unspliced"]``: counts, CSR of float32, and ``X`` their sum.
      If the tool does not tell the two apart there are no such layers, ``X`` is the total, and a
      message says so. A layer ``ambiguous`` is not kept, so that nothing can count it twice;
    - ``var_names``: symbols, made unique, and the id of a gene that has no symbol;
      ``var["gene_ids"]`` and ``var["gene_symbols"]``, as far as the file has them;
    - ``obs_names``: barcodes without sample and ending, as long as there is one sample and one
      ending; ``obs["original_barcode"]`` holds what the file has, if that is different, and
      ``obs["sample"]`` the sample;
    - ``uns["provenance"]``: as of :func:`splicedvae.data.pancreas`, with the ``format``, what
      became of ambiguous counts (``ambiguous``), and their share (``ambiguous_share``).

    Raises
    ------
    FileNotFoundError
        There is nothing at `path`, or a folder lacks a file.
    ValueError
        It is of no known kind, it is damaged, parts of it disagree, it has one form of the two
        only, or no count at all; or `ambiguous` is none of the three.
    """
    one_of("ambiguous", ambiguous, BECOME)
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no {path}; give {EXPECTED}.")
    place, kind, reader = _found(path)
    if place != path:
        logger.info("Reading %s.", place)
    with warnings.catch_warnings():  # names become unique below
        warnings.filterwarnings("ignore", message=".* names are not unique")
        cells = reader(place)
    told = dict(cells.uns.get("provenance", {}))
    facts = {
        "source": "path",
        "simulated": bool(told.get("simulated", False)),
        "name": told.get("name", path.name),
        "file": path.name,
        "format": kind,
    }
    facts |= {key: told[key] for key in ("ambiguous", "ambiguous_share") if key in told}
    facts |= _take_forms(cells, place, ambiguous)
    if kind in MATRICES and not (counted := _sums(cells.X, 1) > 0).all():
        text = "%d of %d barcodes have no counts and are left out."
        logger.info(text, (~counted).sum(), cells.n_obs)
        cells = cells[counted].copy()
    _name_genes(cells)
    _name_cells(cells)
    cells.uns["provenance"] = facts | {"n_obs": cells.n_obs, "n_vars": cells.n_vars}
    return cells


def _found(path: Path) -> tuple[Path, str, Callable[[Path], AnnData]]:
    """Where the counts are, of what kind they are, and what reads them."""
    if path.is_file():
        return path, *_kind_of_file(path)
    places = [path, *(place for name in PLACES for place in sorted(path.glob(name)))]
    for place in places:
        if place.is_file():
            return place, *_kind_of_file(place)
        names = {file.name.removesuffix(".gz") for file in place.iterdir()}
        for kind, (recognised, reader) in FOLDERS.items():
            if recognised(names):
                return place, kind, reader
        for name in ("adata.h5ad", "adata.loom"):  # kb-python's, whose matrices were removed
            if name in names:
                return place / name, *_kind_of_file(place / name)
    raise ValueError(f"{path} holds {_listed(path)}, and nothing known; give {EXPECTED}.")


def _listed(folder: Path) -> str:
    names = sorted(file.name for file in folder.iterdir())
    return ", ".join(names[:6]) + ", …" * (len(names) > 6) or "no file"


def _kind_of_file(file: Path) -> tuple[str, Callable[[Path], AnnData]]:
    if not h5py.is_hdf5(file):
        advice = f"; give the folder, {file.parent}" if ".mtx" in file.suffixes else ""
        raise ValueError(
            f"{file} is no HDF5 file, or only half of one{advice or f'; give {EXPECTED}'}."
        )
    with file_of_its_kind(file, "HDF5"), h5py.File(file, locking=False) as content:
        names = set(content)
        tables = any(
            isinstance(part, h5py.Group) and "barcodes" in part for part in content.values()
        )
    if {"row_attrs", "col_attrs"} <= names:
        return "loom", _loom
    if {"mod", "obs"} <= names:
        return "h5mu", _h5mu
    if {"obs", "var"} <= names:
        return "h5ad", _h5ad
    if tables:
        return "10x h5", _10x_h5
    raise ValueError(f"{file} holds {', '.join(sorted(names)) or 'nothing'}; give {EXPECTED}.")


# --- what reads each kind; layers bear the tools' names -------------------------------------------


def _loom(file: Path) -> AnnData:
    with file_of_its_kind(file, "loom"), warnings.catch_warnings():
        # anndata advises against the format, which velocyto's users did not choose
        warnings.filterwarnings("ignore", ".*read_loom is deprecated", FutureWarning)
        warnings.simplefilter("ignore", ImplicitModificationWarning)  # numbers for names
        # velocyto's files are older than the rules that loompy would check
        cells = anndata.io.read_loom(file, X_name="", validate=False)
    return _indexed(cells)


def _h5ad(file: Path) -> AnnData:
    with file_of_its_kind(file, "h5ad"):
        cells = anndata.io.read_h5ad(file)
    return _usa(_indexed(cells))


def _h5mu(file: Path) -> AnnData:
    forms = {name for names in FORMS.values() for name in names}
    return _indexed(read_h5mu(file, forms))


def _zarr(folder: Path) -> AnnData:
    """Refuses a codec that would run what it reads."""
    for file in folder.rglob("*"):
        if file.name in (".zarray", ".zmetadata", "zarr.json"):
            with file_of_its_kind(folder, "zarr"):
                settings = json.loads(file.read_text())
            if any("pickle" in codec for codec in _codecs(settings)):
                raise ValueError(f"{file} names the codec pickle, which runs code; it is not read.")
    with file_of_its_kind(folder, "zarr"):
        cells = anndata.io.read_zarr(folder)
    return _usa(_indexed(cells))


def _codecs(settings: Any) -> Iterator[str]:
    if isinstance(settings, dict):
        yield from (str(settings[key]) for key in ("id", "name") if key in settings)
        settings = list(settings.values())
    if isinstance(settings, list):
        for part in settings:
            yield from _codecs(part)


def _10x_h5(file: Path) -> AnnData:
    with file_of_its_kind(file, "10x h5"):
        cells = sc.read_10x_h5(file, gex_only=False)
    if "feature_types" not in cells.var:
        return cells
    is_gene = (cells.var["feature_types"] == "Gene Expression").to_numpy()
    if is_gene.all():
        return cells
    others = ", ".join(sorted(set(cells.var["feature_types"][~is_gene].astype(str))))
    logger.info(
        "%s: %d features that are no genes are left out (%s). Open chromatin comes as a table of "
        "each gene's activity, by sv.data.add_modality.",
        file,
        (~is_gene).sum(),
        others,
    )
    return cells[:, is_gene].copy()


def _indexed(cells: AnnData) -> AnnData:
    """Cells and genes called by their names where these stand in a column beside numbers."""
    for table, columns in ((cells.obs, BARCODES), (cells.var, GENES)):
        if list(table.index) == [str(i) for i in range(len(table))]:
            known = [column for column in columns if column in table]
            if known:
                table.index = pd.Index(table[known[0]].astype(str), name=None)
    return cells


def _usa(cells: AnnData) -> AnnData:
    """Part the 3 × genes columns of alevin-fry's USA mode: spliced, unspliced, ambiguous."""
    n, rest = divmod(cells.n_vars, 3)
    genes = list(cells.var_names[:n])
    if rest or list(cells.var_names[n:]) != [
        f"{gene}{end}" for end in ("-U", "-A") for gene in genes
    ]:
        return cells
    result = cells[:, :n].copy()
    for i, form in enumerate(FORMS):
        result.layers[form] = cells.X[:, i * n : (i + 1) * n]
    return result


def _kb(folder: Path) -> AnnData:
    # nac names one set of barcodes and genes, lamanno one for each form, in orders of their own
    names = {"spliced": "cells_x_genes.mature", "unspliced": "cells_x_genes.nascent"}
    shared = "cells_x_genes"
    if _exists(folder / "spliced.mtx"):
        names, shared = {form: form for form in ("spliced", "unspliced")}, None
    elif not _exists(folder / "cells_x_genes.mature.mtx"):
        names = {"X": "cells_x_genes"}
    elif _exists(folder / "cells_x_genes.ambiguous.mtx"):
        names["ambiguous"] = "cells_x_genes.ambiguous"
    parts = {}
    for form, name in names.items():
        tables = shared or name
        obs = pd.DataFrame(index=_first_column(folder / f"{tables}.barcodes.txt"))
        if _exists(prefixes := folder / f"{tables}.barcodes.prefix.txt"):  # several samples
            obs["sample"] = _first_column(prefixes)
            obs.index = obs["sample"] + ":" + obs.index
        var = pd.DataFrame({"gene_ids": _first_column(folder / f"{tables}.genes.txt")})
        if _exists(symbols := folder / f"{tables}.genes.names.txt"):
            if len(held := _first_column(symbols)) != len(var):
                raise ValueError(f"{symbols} names {len(held)} genes, and there are {len(var)}.")
            var["gene_symbols"] = held
        counts = _counts(folder / f"{name}.mtx", (len(obs), len(var)), "barcodes by genes")
        parts[form] = AnnData(counts, obs=obs, var=var.set_index("gene_ids", drop=False))
    first, *others = parts.values()
    if not shared:  # cells and genes that both have, as kb-python itself does
        for part in others:
            first = first[
                first.obs_names.isin(part.obs_names), first.var_names.isin(part.var_names)
            ]
        first = first.copy()
        parts = {form: part[first.obs_names, first.var_names] for form, part in parts.items()}
    cells = AnnData(first.X, obs=first.obs, var=first.var.rename_axis(None))
    for form, part in parts.items():
        if form != "X":
            cells.layers[form] = part.X
    return cells


def _alevin(folder: Path) -> AnnData:
    genes = _first_column(folder / "quants_mat_cols.txt")
    barcodes = _first_column(folder / "quants_mat_rows.txt")
    counts = _counts(folder / "quants_mat.mtx", (len(barcodes), len(genes)), "rows by columns")
    cells = _usa(AnnData(counts, pd.DataFrame(index=barcodes), pd.DataFrame(index=genes)))
    settings = {}
    for name in ("meta_info.json", "quant.json"):  # before alevin-fry 0.4.1, and since
        if (file := folder.parent / name).exists():
            with file_of_its_kind(file, "JSON"):
                settings = json.loads(file.read_text())
    if settings.get("usa_mode") and "spliced" not in cells.layers:
        raise ValueError(
            f"{folder} is of USA mode, but the {len(genes)} names in quants_mat_cols.txt are not "
            "those of genes, then the same with -U, then with -A."
        )
    cells.var["gene_ids"] = cells.var_names
    if _exists(table := folder.parent / "gene_id_to_name.tsv"):
        symbols = _table(table).drop_duplicates(0).set_index(0)[1]
        cells.var["gene_symbols"] = symbols.reindex(cells.var_names).fillna("").to_numpy()
    return cells


def starsolo(folder: Path) -> AnnData:
    """Read STARsolo's ``Velocyto`` counts, or a matrix folder as Cell Ranger and STARsolo write it.

    Parameters
    ----------
    folder
        With ``barcodes.tsv``, ``features.tsv`` (before: ``genes.tsv``), and either ``spliced.mtx``,
        ``unspliced.mtx`` and ``ambiguous.mtx``, or ``matrix.mtx``, which in old STARs has
        the three as columns; each may end in ``.gz``. Of all barcodes the cells are those in
        ``Gene*/filtered`` beside ``Velocyto``, where that is.

    Returns
    -------
    Cells × genes, called as in the files; ``var`` has ``gene_ids`` and ``gene_symbols``. Counts are
    layers of those names, or X where the forms are not told apart.

    Raises
    ------
    FileNotFoundError
        A file is missing.
    ValueError
        A file is damaged, or they disagree.
    """
    old = _exists(folder / "genes.tsv") and not _exists(folder / "features.tsv")
    features = _table(folder / ("genes.tsv" if old else "features.tsv"))
    barcodes = _first_column(folder / "barcodes.tsv")
    shape = len(features), len(barcodes)
    forms = [form for form in FORMS if _exists(folder / f"{form}.mtx")]
    if {"spliced", "unspliced"} & set(forms):
        forms = [form for form in FORMS if form != "ambiguous" or form in forms]
        layers = {f: _counts(folder / f"{f}.mtx", shape, "features by barcodes") for f in forms}
    elif _n_columns(matrix := _file(folder / "matrix.mtx")) == 5:
        layers = _three_in_one(matrix, shape)
    else:
        layers = {"X": _counts(matrix, shape, "features by barcodes")}
    cells = np.arange(len(barcodes))
    if folder.parent.name == "Velocyto":
        for called in sorted(folder.parent.parent.glob("Gene*/filtered"))[:1]:
            cells = np.flatnonzero(np.isin(barcodes, _first_column(called / "barcodes.tsv")))
    genes = np.arange(len(features))
    if features.shape[1] > 2 and (features[2] == "Gene Expression").any():  # not antibodies
        genes = np.flatnonzero(features[2] == "Gene Expression")
    layers = {form: sparse.csr_matrix(counts.T)[cells][:, genes] for form, counts in layers.items()}
    var = pd.DataFrame(
        {"gene_ids": features[0], "gene_symbols": features[min(1, features.shape[1] - 1)]}
    )
    return AnnData(
        layers.pop("X", None),
        obs=pd.DataFrame(index=barcodes[cells]),
        var=var.iloc[genes].set_index("gene_ids", drop=False).rename_axis(None),
        layers=layers,
    )


FOLDERS: dict[str, tuple[Callable[[set[str]], bool], Callable[[Path], AnnData]]] = {
    "zarr": (lambda names: bool(names & {".zgroup", "zarr.json"}), _zarr),
    "kb-python": (
        lambda names: bool(
            names & {"cells_x_genes.mature.mtx", "spliced.barcodes.txt", "cells_x_genes.mtx"}
        ),
        _kb,
    ),
    "alevin-fry": (lambda names: "quants_mat.mtx" in names, _alevin),
    "STARsolo": (lambda names: bool(names & {"spliced.mtx", "unspliced.mtx"}), starsolo),
    "matrix folder": (lambda names: {"matrix.mtx", "barcodes.tsv"} <= names, starsolo),
}
MATRICES = FOLDERS.keys() - {"zarr"}


# --- single files of a folder ---------------------------------------------------------------------


def _exists(file: Path) -> bool:
    return file.exists() or file.with_name(f"{file.name}.gz").exists()


def _file(file: Path) -> Path:
    """The file, or the compressed one."""
    if not _exists(file):
        raise FileNotFoundError(
            f"{file.parent} lacks {file.name} (or {file.name}.gz); it holds {_listed(file.parent)}."
        )
    return file if file.exists() else file.with_name(f"{file.name}.gz")


def _table(file: Path) -> pd.DataFrame:
    # a gene may be called NA, and a name may hold a quotation mark
    form = {"sep": "\t", "header": None, "dtype": str, "quoting": csv.QUOTE_NONE}
    with file_of_its_kind(file := _file(file), "table"):
        return pd.read_csv(file, keep_default_na=False, **form)


def _first_column(file: Path) -> np.ndarray:
    return _table(file)[0].to_numpy()


def _counts(file: Path, shape: tuple[int, int], what: str) -> sparse.csr_matrix:
    with file_of_its_kind(file := _file(file), "mtx"):
        counts = sparse.csr_matrix(scipy.io.mmread(file))
    return _of_shape(counts, file, shape, what)


def _of_shape(counts: sparse.csr_matrix, file: Path, shape: tuple[int, int], what: str):
    if counts.shape != shape:
        raise ValueError(f"{file} is {counts.shape}, {what} are {shape}; files are mixed up.")
    return counts


def _n_columns(file: Path) -> int:
    """Columns of an mtx file below its header: 3, or STARsolo's 5."""
    with (
        file_of_its_kind(file, "mtx"),
        (gzip.open if file.suffix == ".gz" else open)(file, "rt") as f,
    ):
        lines = (line for line in f if not line.startswith("%"))
        next(lines)
        return len(next(lines, "").split())


def _three_in_one(file: Path, shape: tuple[int, int]) -> dict[str, sparse.csr_matrix]:
    with file_of_its_kind(file, "mtx"):
        form = {"sep": r"\s+", "comment": "%", "header": None, "names": range(5)}
        lines = pd.read_csv(file, dtype=np.float64, **form).to_numpy()
        (n_genes, n_cells, n), lines = lines[0, :3].astype(int), lines[1:]
        if len(lines) != n or np.isnan(lines).any():
            raise ValueError(f"its header says {n} lines and there are {len(lines)}")
        places = lines[:, :2].astype(int).T - 1
        layers = {
            form: sparse.csr_matrix((column, places), (n_genes, n_cells))
            for form, column in zip(FORMS, lines[:, 2:].T, strict=True)
        }
    return {f: _of_shape(x, file, shape, "features by barcodes") for f, x in layers.items()}


# --- what all kinds become ------------------------------------------------------------------------


def _sums(counts: sparse.csr_matrix, axis: int) -> np.ndarray:
    return np.asarray(counts.sum(axis=axis)).ravel()


def _whole(counts: sparse.csr_matrix) -> bool:
    return bool((counts.data == np.rint(counts.data)).all())


def _take_forms(cells: AnnData, place: Path, ambiguous: Ambiguous) -> dict[str, Any]:
    """Make the layers and X, and say what became of the ambiguous counts."""
    layers = {name: matrix for name, matrix in cells.layers.items() if name is not None}
    forms = {
        form: next((name for name in names if name in layers), None)
        for form, names in FORMS.items()
    }
    found = [form for form in ("spliced", "unspliced") if forms[form]]
    if len(found) == 1:
        raise ValueError(
            f"{place} has {found[0]} counts (layer {forms[found[0]]!r}) and no others; its layers "
            f"are {sorted(layers)}. Both forms are needed, as layers spliced and unspliced, or "
            "mature and nascent."
        )
    facts = {}
    if any(sparse.csr_matrix(layers[forms[form]]).count_nonzero() for form in found):
        counts = {
            form: sparse.csr_matrix(layers[name], dtype=np.float32, copy=True)
            for form, name in forms.items()
            if name
        }
        for name in filter(None, forms.values()):
            del cells.layers[name]
        if "ambiguous" in counts:
            facts = _resolve(counts, ambiguous)
            share = 100 * facts["ambiguous_share"]
            logger.info("%.1f %% of the counts are ambiguous; %s.", share, BECOME[ambiguous])
        for form in ("spliced", "unspliced"):
            cells.layers[form] = counts[form]
        cells.X = counts["spliced"] + counts["unspliced"]
        if "total" in layers and abs(sparse.csr_matrix(layers["total"]) - cells.X).max() > 0:
            logger.info("Layer 'total' is not the sum of both forms, which X is; it is left out.")
            del cells.layers["total"]
    else:
        for form in found:  # zeros that stand for nothing, as in a query
            del cells.layers[forms[form]]
        cells.X = _totals(cells, layers, place)
        logger.info(
            "%s has totals only, no spliced and unspliced counts: a model that was trained on "
            "other cells can part them, but none can learn from them.",
            place,
        )
    if cells.X.count_nonzero() == 0:
        raise ValueError(
            f"{place} holds no count at all, in X or in layers such as spliced and unspliced; its "
            f"layers are {sorted(layers)}. STARsolo writes such files unless it is run with "
            "--soloFeatures Gene Velocyto."
        )
    if not _whole(cells.X):
        logger.warning(
            "%s holds fractional counts, as from multimapped reads or normalised ones. SplicedVAE "
            "learns from whole counts: count again without --em and --mm (kb-python), with "
            "--resolution cr-like (alevin-fry).",
            place,
        )
    return facts


def _totals(cells: AnnData, layers: dict[str, Any], place: Path) -> sparse.csr_matrix:
    """X, or, where X is no counts, the counts that are kept beside it."""
    raw = cells.raw.X if cells.raw is not None and cells.raw.shape == cells.shape else None
    places = {"X": cells.X, "layers['counts']": layers.get("counts"), "raw.X": raw}
    held = {
        name: sparse.csr_matrix(x, dtype=np.float32) for name, x in places.items() if x is not None
    }
    if not held:
        return sparse.csr_matrix(cells.shape, dtype=np.float32)
    name = next((name for name, x in held.items() if _whole(x)), next(iter(held)))
    if name != "X":
        logger.info("X holds no counts; the total is %s.", name)
    return held[name]


def _resolve(counts: dict[str, sparse.csr_matrix], ambiguous: Ambiguous) -> dict[str, Any]:
    """Add ambiguous counts to the others, by the rule."""
    unknown = counts.pop("ambiguous")
    if (unknown.data < 0).any():
        raise ValueError(f"The ambiguous counts hold {unknown.data.min():g}; counts are 0 or more.")
    s, u, a = (float(x.sum(dtype=np.float64)) for x in (*counts.values(), unknown))
    facts = {"ambiguous": ambiguous, "ambiguous_share": a / max(s + u + a, 1)}
    if ambiguous == "spliced":
        counts["spliced"] = counts["spliced"] + unknown
    elif ambiguous == "split":
        s, u = (_sums(counts[form], 0) for form in ("spliced", "unspliced"))
        p = np.divide(s, s + u, out=np.ones_like(s), where=s + u > 0)[unknown.indices]
        if _whole(unknown):
            own = np.random.default_rng(0).binomial(unknown.data.astype(int), p)
        else:
            own = p * unknown.data
        part = partial(sparse.csr_matrix, shape=unknown.shape, dtype=np.float32)
        places = unknown.indices, unknown.indptr
        counts["spliced"] = counts["spliced"] + part((own, *places))
        counts["unspliced"] = counts["unspliced"] + part((unknown.data - own, *places))
    return facts


def _name_genes(cells: AnnData) -> None:
    index = pd.Series(cells.var_names.astype(str))
    columns = [
        next((column for column in known if column in cells.var), None) for known in (IDS, SYMBOLS)
    ]
    ids, symbols = (
        None
        if c is None
        else pd.Series(cells.var[c].astype(object).fillna("").astype(str).to_numpy())
        for c in columns
    )
    are_ids = index.str.match(ID).mean() > 0.5
    if ids is None and (are_ids or (symbols is not None and not index.equals(symbols))):
        ids = index
    if symbols is None and not are_ids and (ids is None or not index.equals(ids)):
        symbols = index
    names = ids if symbols is None else symbols
    if ids is not None:
        names = names.where(names != "", ids)
    cells.var = cells.var.drop(columns=[column for column in columns if column is not None])
    cells.var_names = make_index_unique(pd.Index(names.to_numpy(dtype=object)))
    for column, values in (("gene_ids", ids), ("gene_symbols", symbols)):
        if values is not None:
            cells.var[column] = values.to_numpy(dtype=object)


def _name_cells(cells: AnnData) -> None:
    names = pd.Index(cells.obs_names.astype(str), dtype=object, name=None)
    parts = [CELL.fullmatch(name) for name in names]
    clean = names
    if all(parts):
        samples, endings = ([part[key] or "" for part in parts] for key in ("sample", "ending"))
        several, various = len(set(samples)) > 1, len(set(endings)) > 1
        clean = pd.Index(
            [
                (f"{sample}:" if several else "") + part["barcode"] + (ending if various else "")
                for part, sample, ending in zip(parts, samples, endings, strict=True)
            ],
            dtype=object,
        )
        if any(samples) and "sample" not in cells.obs:
            cells.obs["sample"] = samples
    if not clean.is_unique:
        logger.warning("%d barcodes repeat; they get -1, -2, …", clean.duplicated().sum())
        clean = make_index_unique(clean)
    if not clean.equals(names) and "original_barcode" not in cells.obs:
        cells.obs["original_barcode"] = names.to_numpy()
    cells.obs_names = clean

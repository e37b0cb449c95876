"""One sample's cells, on the genes that are wanted, from the files of Velocyto or STARsolo."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata.io
import fsspec
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from ..readers import starsolo

LAYERS = ("spliced", "unspliced")
ROWS = 4096  # of a sample, read at a time
EXACT = 2**24  # float32 holds every whole number up to this one


@dataclass(frozen=True)
class Sample:
    """One sample, its counts still on disk.

    Attributes
    ----------
    barcodes
        Of the cells.
    names
        Ways to call the genes: their index, and columns of text beside it.
    layers
        Spliced and unspliced counts, cells × genes; rows are read when a slice of them is taken.
    """

    barcodes: pd.Index
    names: dict[str, pd.Index]
    layers: list[Any]


def located(address: str, project: str | None) -> tuple[fsspec.AbstractFileSystem, str]:
    """Find the file system of an address.

    Parameters
    ----------
    address
        A path, or what fsspec knows.
    project
        Who pays for what is fetched from a bucket whose readers pay.

    Returns
    -------
    The file system, and the path in it.

    Raises
    ------
    ImportError
        It needs a package that is not installed, such as gcsfs for ``gs://``.
    """
    return fsspec.core.url_to_fs(address, **({"requester_pays": project} if project else {}))


@contextmanager
def opened(file: str, project: str | None = None) -> Iterator[Sample]:
    """Open one sample; a remote file is fetched whole, and removed when it is closed.

    Parameters
    ----------
    file
        An h5ad file with the layers ``spliced`` and ``unspliced``, here or at an address that
        fsspec knows; or STARsolo's folder ``Solo.out/Velocyto/raw``. Of the latter's barcodes the
        cells are those in ``Solo.out/Gene*/filtered``, where that is, and otherwise all.
    project
        Who pays for what is fetched from a bucket whose readers pay.

    Yields
    ------
    The sample.

    Raises
    ------
    FileNotFoundError
        The file is not there.
    ConnectionError
        It can't be fetched.
    ValueError
        It lacks a layer. What h5py and anndata raise for a damaged file is of many kinds.
    ImportError
        The address needs a package that is not installed, such as gcsfs for ``gs://``.
    """
    if "://" in file:
        system, remote = located(file, project)
        with tempfile.TemporaryDirectory() as folder:
            try:
                system.get_file(remote, here := f"{folder}/sample.h5ad")
            except FileNotFoundError:
                raise
            except Exception as error:  # of as many kinds as there are file systems
                raise ConnectionError(f"{file} can't be fetched: {error!r}. Try again.") from error
            with opened(here) as sample:
                yield sample
    elif Path(file).is_dir():
        yield _starsolo(Path(file))
    else:
        with h5py.File(file, locking=False) as content:
            yield _velocyto(content)


def _velocyto(file: h5py.File) -> Sample:
    layers = []
    for name in LAYERS:
        if f"layers/{name}" not in file:
            raise ValueError(f"no layer {name!r} (there is {', '.join(file.get('layers', ()))})")
        layer = file[f"layers/{name}"]
        if isinstance(layer, h5py.Group):
            layer = anndata.io.sparse_dataset(layer)
            if layer.format == "csc":  # it can't be read by rows
                layer = layer.to_memory().tocsr()
        layers.append(layer)
    var, obs = anndata.io.read_elem(file["var"]), file["obs"]
    text = var.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in var.dtypes]]
    names = {"var_names": var.index} | {column: pd.Index(var[column]) for column in text}
    return Sample(pd.Index(anndata.io.read_elem(obs[obs.attrs["_index"]])), names, layers)


def _starsolo(folder: Path) -> Sample:
    cells = starsolo(folder)
    if missing := [name for name in LAYERS if name not in cells.layers]:
        raise ValueError(f"{folder} tells no {' and '.join(missing)} counts apart")
    names = {"var_names": cells.var_names, "symbol": pd.Index(cells.var["gene_symbols"])}
    return Sample(cells.obs_names, names, [cells.layers[name] for name in LAYERS])


def stripped(ids: pd.Index) -> pd.Index:
    """Ensembl ids without their versions; other names stay as they are.

    Parameters
    ----------
    ids
        Such as ``"ENSG00000141510.12"``.

    Returns
    -------
    Of the same length.
    """
    # symbols, too, may have a point
    return pd.Index([i.partition(".")[0] if i.startswith("ENS") else i for i in map(str, ids)])


def matched(sample: Sample, wanted: list[pd.Index]) -> tuple[np.ndarray, str]:
    """Find the genes that are wanted among those of a sample, by the names that fit best.

    Parameters
    ----------
    sample
        Its genes may stand in any order; several of one id (as of a gene on both X and Y) are one.
    wanted
        Ways to call the genes that are wanted, such as ids and symbols; NaN has no such name.

    Returns
    -------
    For each gene of the sample its position among those wanted, or -1; and which of the sample's
    names it is found by.
    """
    best, most, how = np.full(len(sample.names["var_names"]), -1), 0, ""
    for ids in wanted:
        known = np.flatnonzero(ids.notna())
        places = pd.Series(known, stripped(ids[known]))
        for name, genes in sample.names.items():
            place = places.reindex(stripped(genes)).fillna(-1).to_numpy(dtype=np.int64)
            if (found := len(np.unique(place[place >= 0]))) > most:
                best, most, how = place, found, name
    return best, how


def passing(
    sample: Sample, place: np.ndarray, n_genes: int, min_counts: int
) -> tuple[sparse.csr_matrix, np.ndarray, dict[str, Any]]:
    """Cells of a sample that pass quality control.

    Parameters
    ----------
    sample
        Of a barcode that comes more than once, only the first cell passes.
    place
        See :func:`matched`.
    n_genes
        Genes wanted.
    min_counts
        A cell's spliced and unspliced counts of these, at least.

    Returns
    -------
    Spliced and unspliced counts side by side, (cells that pass, 2 genes); for each cell of the
    sample whether it passes; and how many are ``read``, are ``duplicates`` or are too ``low``, with
    the ``unspliced`` share of all counts.

    Raises
    ------
    ValueError
        There are values that can't be counts, or no unspliced counts at all.
    """
    known = np.flatnonzero(place >= 0)
    ones = np.ones(len(known), np.float32)
    select = sparse.csr_matrix((ones, (known, place[known])), (len(place), n_genes))
    first = ~sample.barcodes.duplicated()
    passes, blocks, sums = first.copy(), [], np.zeros(2)
    for start in range(0, len(first), ROWS):
        layers = []
        for name, layer in zip(LAYERS, sample.layers, strict=True):
            counts = sparse.csr_matrix(layer[start : start + ROWS])
            x = counts.data
            if not ((x >= 0) & (x <= EXACT) & (x == np.rint(x))).all():
                raise ValueError(f"layer {name!r} holds negative, fractional or missing counts")
            layers.append(counts @ select)
        sums += [layer.sum() for layer in layers]
        both = sparse.hstack(layers, format="csr", dtype=np.float32)
        here = passes[start : start + ROWS]  # a view
        here &= np.asarray(both.sum(axis=1)).ravel() >= min_counts
        blocks.append(both[here])
    if sums[1] == 0:
        raise ValueError("there is not one unspliced count in these genes")
    numbers = {
        "read": len(first),
        "duplicates": int((~first).sum()),
        "low": int(first.sum() - passes.sum()),
        "unspliced": round(float(sums[1] / sums.sum()), 4),
    }
    return sparse.vstack(blocks, format="csr"), passes, numbers

"""Data: your own cells, real ones where they can be had, gene filter, split, check-up."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import anndata
import numpy as np
import pooch
import scanpy as sc
from anndata import AnnData
from scipy import sparse
from sklearn.model_selection import train_test_split

from .checks import as_text, check_cells, column, positions, shown
from .counts import checked_layers, named_layers, tell_missing_form
from .simulate import futures_true, simulate

__all__ = [  # noqa: F822, see below
    "add_modality",
    "check",
    "futures_true",
    "larry",
    "pancreas",
    "prepare",
    "read",
    "simulate",
    "split",
    "tissues",
]

logger = logging.getLogger("splicedvae")

#: What `scvelo.datasets.pancreas()` downloads: all genes of the 3,696 cells, about 50 MB.
PANCREAS_URL = (
    "https://github.com/theislab/scvelo_notebooks/raw/master/"
    "data/Pancreas/endocrinogenesis_day15.h5ad"
)
#: Its git blob id: SHA-1 over ``b"blob <size>\0"`` and the bytes.
PANCREAS_BLOB = "720aa1de23e31666d17e5193c9c7e6d9fb2bf4c8"
#: Names by which a pancreas file is found in a folder, the complete one first.
PANCREAS_FILES = ("endocrinogenesis_day15.h5ad", "pancreas_e15_3696x2000.h5ad")
ENVIRONMENT_VARIABLE = "SPLICEDVAE_DATA"

# Imported when first asked for: the book's fits depend on all that this module imports, and none of
# them needs to be made anew when a reader learns another format.
_LATE = {
    "add_modality": ".multiome",
    "check": ".checkup",
    "larry": ".futures.larry",
    "read": ".readers",
    "tissues": ".tissues",
}


def __getattr__(name: str):
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name], __package__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})


def pancreas(
    path: str | os.PathLike | None = None,
    *,
    cache_dir: str | os.PathLike | None = None,
    download: bool = True,
    timeout: float = 5.0,
) -> AnnData:
    """Mouse pancreas at E15.5 (Bastidas-Ponce et al. 2019; GEO GSE132188), 3,696 cells.

    Looks at `path`, then at the environment variable ``SPLICEDVAE_DATA`` (a file or a folder),
    then in the cache, then downloads the file that scVelo's users know; if none of these can be
    had it simulates a pancreas and says so.

    Parameters
    ----------
    path
        An h5ad file, or a folder that holds one of ``PANCREAS_FILES``.
    cache_dir
        Where downloads are kept; by default the user's cache folder.
    download
        Whether the network may be used.
    timeout
        Seconds to wait for the server before giving up.

    Returns
    -------
    Cells × genes, with integer counts in ``layers["spliced"]`` and ``layers["unspliced"]``, cell
    types in ``obs["clusters"]``, and where they come from in ``uns["provenance"]`` (``source``,
    ``simulated``, ``name``).

    Raises
    ------
    FileNotFoundError
        `path` or ``SPLICEDVAE_DATA`` names something that is not there. A place that was asked
        for is never replaced silently by another.
    ValueError
        The file is damaged.
    KeyError
        The file lacks a layer or the cell types.
    """
    asked = path if path is not None else os.environ.get(ENVIRONMENT_VARIABLE) or None
    if asked is not None:
        source = "path" if path is not None else f"${ENVIRONMENT_VARIABLE}"
        return _read(_find(Path(asked), source), source)

    cached = Path(cache_dir or pooch.os_cache("splicedvae")) / PANCREAS_FILES[0]
    if cached.exists():
        if blob_id(cached) == PANCREAS_BLOB:
            return _read(cached, "cache")
        logger.warning("%s is damaged and will be replaced by a download.", cached)
    reason = "downloads were switched off"
    if download:
        try:
            fetch(PANCREAS_URL, PANCREAS_BLOB, cached, timeout)
            return _read(cached, "download")
        except (OSError, ValueError) as error:  # no network, a read-only cache, a wrong file
            reason = f"the download failed ({type(error).__name__}: {error})"[:300]
    logger.warning(
        "The real pancreas could not be had: %s. These cells are SIMULATED. For the real ones set "
        "$%s to a file or folder, or connect to the network.",
        reason,
        ENVIRONMENT_VARIABLE,
    )
    return simulate()


def _find(path: Path, source: str) -> Path:
    candidates = [path / name for name in PANCREAS_FILES] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    wanted = " or ".join(map(str, candidates))
    raise FileNotFoundError(f"{source} is {path}, but there is no {wanted}.")


@contextmanager
def file_of_its_kind(path: Path, kind: str) -> Iterator[None]:
    """Name the file in what goes wrong while another package reads it.

    Parameters
    ----------
    path
        The file, or the folder.
    kind
        What it is read as.

    Yields
    ------
    Nothing.

    Raises
    ------
    ValueError
        It can't be read.
    """
    try:
        yield
    except (ImportError, MemoryError):  # no fault of the file's
        raise
    except Exception as error:  # h5py, anndata, zarr and the others raise many kinds
        raise ValueError(
            f"{path} can't be read as {kind} ({type(error).__name__}: {error}). It is damaged or "
            "only half there: remove it and fetch it again."
        ) from error


def _read(path: Path, source: str) -> AnnData:
    with file_of_its_kind(path, "h5ad"):
        adata = anndata.read_h5ad(path)
    for layer in ("spliced", "unspliced"):
        if layer not in (layers := named_layers(adata)):
            raise KeyError(
                f"{path} has no layer {layer!r} (it has {sorted(layers)}); "
                "SplicedVAE learns from spliced and unspliced counts."
            )
    if "clusters" not in adata.obs:
        raise KeyError(f"{path} has no cell types in obs['clusters'].")
    adata.obs["clusters"] = adata.obs["clusters"].astype("category")
    told = dict(adata.uns.get("provenance", {}))  # simulated cells stay simulated when saved
    pancreas_cells = "mouse pancreas E15.5 (Bastidas-Ponce et al. 2019)"
    adata.uns["provenance"] = {
        "source": source,
        "simulated": bool(told.get("simulated", False)),
        "name": told.get("name", pancreas_cells if adata.n_obs == 3696 else path.name),
        "file": path.name,
        "n_obs": adata.n_obs,
        "n_vars": adata.n_vars,
    }
    return adata


def blob_id(path: Path) -> str:
    """Git's id of a file's content: SHA-1 over ``b"blob <size>\\0"`` and the bytes.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    40 hexadecimal digits.
    """
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(url: str, blob: str, target: Path, timeout: float) -> None:
    """Download a file beside its place, check it, and only then give it its name.

    Parameters
    ----------
    url
        Of the file.
    blob
        Its git blob id.
    target
        Where it is to be.
    timeout
        Seconds to wait for the server before giving up.

    Raises
    ------
    OSError
        It can't be had, or not be written.
    ValueError
        It is another file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    try:
        pooch.HTTPDownloader(progressbar=True, timeout=timeout)(url, str(part), None)
        if (found := blob_id(part)) != blob:
            raise ValueError(f"{url} gave a file with git blob id {found}")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def split(
    adata: AnnData,
    sizes: tuple[float, float, float] = (0.6, 0.1, 0.3),
    seed: int = 0,
    stratify_by: str | None = "clusters",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide the cells into train, val and test, each with its share of every cell type.

    Parameters
    ----------
    adata
        Cells × genes.
    sizes
        Shares of train, val and test, which sum to 1; none may be empty.
    seed
        Of the shuffle.
    stratify_by
        Column of ``obs`` whose categories are divided alike; None for a plain shuffle, which cells
        without a column ``clusters`` get too, and a message says so.

    Returns
    -------
    Sorted positions of the train, val and test cells.

    Raises
    ------
    ValueError
        The shares are not positive or don't sum to 1, a part would be empty, or a cell has no
        value of `stratify_by`.
    KeyError
        `stratify_by` is another column that is not in ``obs``.
    """
    if len(sizes) != 3 or min(sizes) <= 0 or not np.isclose(sum(sizes), 1):
        raise ValueError(f"sizes={sizes} must be three positive shares that sum to 1.")
    check_cells(adata)
    if stratify_by == "clusters" and stratify_by not in adata.obs:
        logger.info("There is no obs['clusters'] to divide alike: the cells are split at random.")
        stratify_by = None
    if stratify_by is not None and stratify_by not in adata.obs:
        raise KeyError(
            f"adata.obs has no column {stratify_by!r}; name the cell types' column with "
            "stratify_by=, or pass None."
        )
    cells = np.arange(adata.n_obs)
    labels = None
    if stratify_by is not None:
        labels = as_text(column(adata, stratify_by, "value to stratify by"))
    try:
        _, n_val, n_test = (round(size * adata.n_obs) for size in sizes)
        rest, test = train_test_split(cells, test_size=n_test, stratify=labels, random_state=seed)
        train, val = train_test_split(
            rest,
            test_size=n_val,
            stratify=None if labels is None else labels[rest],
            random_state=seed,
        )
    except ValueError as error:
        raise ValueError(
            f"{adata.n_obs} cells can't be split {sizes}: {error} Give more cells, other sizes, "
            "or stratify_by=None."
        ) from error
    return np.sort(train), np.sort(val), np.sort(test)


def prepare(
    adata: AnnData,
    min_shared_counts: int = 20,
    n_top_genes: int | None = None,
    fit_on: Sequence[int] | np.ndarray | None = None,
    spliced_layer: str = "spliced",
    unspliced_layer: str = "unspliced",
) -> AnnData:
    """Choose genes and compose the total; a new object, the given one stays as it is.

    A gene stays if, over the cells where both its spliced and its unspliced count are positive,
    those counts sum to `min_shared_counts` (scVelo's filter of the same name).

    Parameters
    ----------
    adata
        Cells × genes, with layers of spliced and unspliced counts, of any dtype and layout.
    min_shared_counts
        The filter's threshold; a gene without any shared count never stays.
    n_top_genes
        Keep only this many highly variable genes of those.
    fit_on
        Positions of the cells that choose the genes, or a mask: the training cells; None for all.
    spliced_layer, unspliced_layer
        Names of the layers; they keep them.

    Returns
    -------
    A copy with the chosen genes, its three count layers CSR float32, ``layers["total"]`` and X
    the total, spliced + unspliced; in memory, also if the given one is on disk.

    Raises
    ------
    KeyError
        A layer is missing.
    ValueError
        Counts are not counts, one layer is empty or a copy of the other, gene names repeat, no gene
        passes, no cell is given to choose by, or a cell has no counts left.
    """
    names = spliced_layer, unspliced_layer
    pair = checked_layers(adata, *names, teaches=True)
    tell_missing_form(adata, pair, "Their total is what was counted of the other form.")
    spliced, unspliced = (sparse.csr_matrix(layer, dtype=np.float32) for layer in pair)
    total = spliced + unspliced
    fit_on = positions("fit_on", fit_on, adata.n_obs)
    if len(fit_on) == 0:
        raise ValueError("fit_on is empty; genes can't be chosen on no cells.")
    both = spliced[fit_on].multiply(unspliced[fit_on] > 0).astype(bool)
    shared = np.asarray(total[fit_on].multiply(both).sum(axis=0)).ravel()  # (genes,)
    keep = shared >= max(min_shared_counts, 1)
    if not keep.any():
        if not shared.any():
            raise ValueError(
                f"In the {len(fit_on)} cells that choose, no gene is counted in layer "
                f"{spliced_layer!r} and in layer {unspliced_layer!r} of one cell. Are these the "
                "counts of the same cells, and do both name genes alike?"
            )
        raise ValueError(
            f"No gene has {min_shared_counts} shared counts in the {len(fit_on)} cells that "
            f"choose; lower min_shared_counts, to {int(shared.max())} or less."
        )
    passed = int(keep.sum())
    if n_top_genes is not None and n_top_genes < keep.sum():
        trial = AnnData(total[fit_on][:, keep].copy())
        sc.pp.normalize_total(trial)
        sc.pp.log1p(trial)
        sc.pp.highly_variable_genes(trial, n_top_genes=n_top_genes)
        keep[keep] = trial.var["highly_variable"].to_numpy()
    if not keep.all():
        empty = int((np.asarray(total.sum(axis=0)).ravel() == 0).sum())
        logger.info(
            "Dropped %d genes of %d: %d without any counts, %d with fewer than %d shared ones, %d "
            "that vary less.",
            *(adata.n_vars - keep.sum(), adata.n_vars, empty, adata.n_vars - empty - passed),
            *(min_shared_counts, passed - keep.sum()),
        )

    result = (adata.to_memory() if adata.isbacked else adata)[:, keep].copy()
    for name, layer in zip((*names, "total"), (spliced, unspliced, total), strict=True):
        result.layers[name] = layer[:, keep]
    result.X = result.layers["total"].copy()
    no_counts = result.obs_names[np.asarray(result.X.sum(axis=1)).ravel() == 0]
    if len(no_counts):
        raise ValueError(
            f"{len(no_counts)} cells have no counts in the {keep.sum()} chosen genes "
            f"({shown(no_counts)}); remove them first, or keep more genes."
        )
    return result

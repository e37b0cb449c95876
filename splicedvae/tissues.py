"""Small sets of real cells of other tissues, with the same 200 genes; simulated where none are."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pooch
from anndata import AnnData
from scipy import sparse

from ._unpickle import load_attributes
from .counts import checked_layers
from .data import ENVIRONMENT_VARIABLE, blob_id, fetch, file_of_its_kind
from .head import one_of
from .simulate import simulate

logger = logging.getLogger("splicedvae")

#: Examples of Monod (Gorin & Pachter 2022, BSD-2-Clause) at one commit, counted by kb-python.
BASE_URL = (
    "https://raw.githubusercontent.com/pachterlab/monod_examples/"
    "f4b3b42e4830a83d35d1397b28bd9f004fa02770/sample_data/fits/gg_220531_022_mouse_1"
)
#: Class of the one object that each file of these holds.
SAVED_AS = "monod.extract_data.SearchData"
MIN_COUNTS = 20  # of a cell over the 200 genes: with fewer, its state is anybody's guess
SIMULATED_GENES = 200


@dataclass(frozen=True)
class Source:
    """Where a set of cells comes from.

    Attributes
    ----------
    tissue, title
        What the cells are, in a word and in a line.
    folder, blob
        Of ``raw.sd`` in the public repository, and that file's git blob id.
    file
        Name of the same cells as an h5ad file.
    """

    tissue: str
    title: str
    folder: str
    blob: str
    file: str


SOURCES = {
    "brain_e18": Source(
        "brain",
        "mouse brain E18, 10x v3 (10x Genomics, neuron_1k_v3)",
        "neuron_1k_v3",
        "5954afa5bf9e823cc234e7092cd432ebd90d68ea",
        "neuron_e18_1219x200.h5ad",
    ),
    "cortex_b01": Source(
        "cortex",
        "adult mouse cortex, GABAergic cells, 10x v3, library B01 (Allen Institute)",
        "allen_B01_gaba",
        "7c6b40ed4aa2160e52af9ecc24e4ab7df8302b59",
        "cortex_gaba_B01_765x200.h5ad",
    ),
    "cortex_c01": Source(
        "cortex",
        "adult mouse cortex, GABAergic cells, 10x v3, library C01 (Allen Institute)",
        "allen_C01_gaba",
        "f12eb73436ec20e5f7c87ca54173aaa31d34ac26",
        "cortex_gaba_C01_750x200.h5ad",
    ),
}


def tissues(
    path: str | os.PathLike | None = None,
    *,
    names: str | Sequence[str] | None = None,
    cache_dir: str | os.PathLike | None = None,
    download: bool = True,
    timeout: float = 5.0,
) -> dict[str, AnnData]:
    """Real cells of mouse brain and cortex, spliced and unspliced counts of the same 200 genes.

    Looks at `path`, then in the folder ``tissues`` of the one that ``SPLICEDVAE_DATA`` names, then
    in the cache, then downloads the files (Gorin & Pachter 2022, *Monod*; 3.5 MB each, checked
    against their git blob ids). They are pickles, and are read without running anything in them.
    If none can be had it simulates three sets, two of which are of one simulated tissue, and says
    so.

    Parameters
    ----------
    path
        A folder with an h5ad or a ``<name>.sd`` of each set, or with a folder ``tissues`` of them.
    names
        One or several of ``"brain_e18"``, ``"cortex_b01"`` and ``"cortex_c01"``; None for all.
    cache_dir
        Where downloads are kept; by default the user's cache folder.
    download
        Whether the network may be used.
    timeout
        Seconds to wait for the server before giving up.

    Returns
    -------
    By name, cells × genes, with counts in ``layers["spliced"]`` and ``layers["unspliced"]``, the
    ``obs`` columns ``tissue`` and ``library``, and where they come from in ``uns["provenance"]``
    (``source``, ``simulated``, ``name``). Cells with fewer than 20 counts are left out. There are
    no cell types.

    Raises
    ------
    ValueError
        There is no set of that name, or a file is damaged or holds something else.
    FileNotFoundError
        `path` has no such file.
    KeyError
        A file lacks a layer.
    """
    names = (names,) if isinstance(names, str) else tuple(names or SOURCES)
    for name in names:
        one_of("names", name, tuple(SOURCES))
    if path is not None:
        return {name: _read(_find(Path(path), name), name, "path") for name in names}
    if (asked := os.environ.get(ENVIRONMENT_VARIABLE)) and (Path(asked) / "tissues").is_dir():
        folder = Path(asked) / "tissues"
        return {
            name: _read(_find(folder, name), name, f"${ENVIRONMENT_VARIABLE}") for name in names
        }
    cache = Path(cache_dir or pooch.os_cache("splicedvae")) / "tissues"
    try:
        return {name: _cached(cache / f"{name}.sd", name, download, timeout) for name in names}
    except (OSError, ValueError) as error:  # no network, a read-only cache, a wrong file
        logger.warning(
            "The real tissues could not be had: %s. These cells are SIMULATED. For the real ones "
            "set $%s to a folder with a folder tissues, or connect to the network.",
            f"{type(error).__name__}: {error}"[:300],
            ENVIRONMENT_VARIABLE,
        )
    return {name: simulated(name) for name in names}


def simulated(name: str, n_obs: int = 800) -> AnnData:
    """Simulate a stand-in for a set: both cortex libraries are of one simulated tissue.

    Parameters
    ----------
    name
        A key of ``SOURCES``.
    n_obs
        Number of cells.

    Returns
    -------
    As of :func:`tissues`, and called simulated.
    """
    programme = 1 + sorted({s.tissue for s in SOURCES.values()}).index(SOURCES[name].tissue)
    libraries = [key for key in SOURCES if SOURCES[key].tissue == SOURCES[name].tissue]
    cells = simulate(n_obs * len(libraries), SIMULATED_GENES, programme_seed=programme)
    cells = cells[libraries.index(name) :: len(libraries)].copy()
    facts = {"source": "simulation", "simulated": True, "name": f"simulated tissue {programme}"}
    return _described(cells, name, facts)


def _find(folder: Path, name: str) -> Path:
    files = SOURCES[name].file, f"{name}.sd"
    places = [place / file for place in (folder, folder / "tissues") for file in files]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(f"There is no {places[0]} for {name!r}, nor {files[1]} beside it.")


def _cached(file: Path, name: str, download: bool, timeout: float) -> AnnData:
    source = SOURCES[name]
    if file.exists() and blob_id(file) == source.blob:
        return _read(file, name, "cache")
    if not download:
        raise FileNotFoundError(f"there is no whole {file}, and downloads were switched off")
    fetch(f"{BASE_URL}/{source.folder}/raw.sd", source.blob, file, timeout)
    return _read(file, name, "download")


def _read(file: Path, name: str, source: str) -> AnnData:
    if file.suffix == ".sd":
        with file_of_its_kind(file, "a save of Monod"), file.open("rb") as opened:
            cells = _of_monod(load_attributes(opened, SAVED_AS))
    else:
        with file_of_its_kind(file, "h5ad"):
            cells = anndata.read_h5ad(file)
    pair = checked_layers(cells)
    enough = np.asarray((pair[0] + pair[1]).sum(axis=1)).ravel() >= MIN_COUNTS
    cells = cells if enough.all() else cells[enough].copy()
    told = cells.uns.get("provenance")  # simulated cells stay simulated when saved
    told = told if isinstance(told, dict) else {}
    facts = {"source": source, "simulated": bool(told.get("simulated", False)), "file": file.name}
    return _described(cells, name, facts | {"name": told.get("name", SOURCES[name].title)})


def _of_monod(held: dict) -> AnnData:
    """Cells × genes from the arrays (genes, cells) that Monod keeps."""
    spliced, unspliced = held["S"].value, held["U"].value
    names = [str(gene) for gene in held["gene_names"].value]
    layers = {
        form: sparse.csr_matrix(counts.T, dtype=np.float32)
        for form, counts in (("spliced", spliced), ("unspliced", unspliced))
    }
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(spliced.shape[1])])
    return AnnData(sum(layers.values()), obs=obs, var=pd.DataFrame(index=names), layers=layers)


def _described(cells: AnnData, name: str, facts: dict) -> AnnData:
    cells.obs["tissue"] = pd.Categorical([SOURCES[name].tissue] * cells.n_obs)
    cells.obs["library"] = pd.Categorical([name] * cells.n_obs)
    cells.uns["provenance"] = facts | {"n_obs": cells.n_obs, "n_vars": cells.n_vars}
    return cells

"""LARRY: blood cells with barcodes, so that the fates of a cell's relatives are known."""

from __future__ import annotations

import os
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pooch
from anndata import AnnData
from scipy.spatial import cKDTree

from ..data import ENVIRONMENT_VARIABLE, file_of_its_kind

CELLS, CLONES = "larry_fig5_130887_cells.h5ad", "larry_clones_781x2481.h5ad"
#: Columns of ``obsm["clonal_fates"]``.
NEUTROPHIL, MONOCYTE = 5, 6
SAME_PLACE = 0.01  # SPRING units; cells lie some hundred apart


def larry(
    path: str | os.PathLike | None = None, *, cache_dir: str | os.PathLike | None = None
) -> AnnData:
    """Blood formation in vitro with lineage barcodes (Weinreb et al. 2020, Figure 5).

    Looks for the files ``larry_fig5_130887_cells.h5ad`` and ``larry_clones_781x2481.h5ad`` in
    `path`, then in the environment variable ``SPLICEDVAE_DATA``, each also in its folder
    ``futures``, then in the cache. There are no counts of mRNA in it, and no velocity.

    Parameters
    ----------
    path
        A folder with the two files.
    cache_dir
        Where downloads are kept; by default the user's cache folder.

    Returns
    -------
    130,887 cells without genes, with

    - ``obsm["X_spring"]``: SPRING coordinates (cells, 2);
    - ``obs["day"]``: 2, 4 or 6;
    - ``obs["state"]``: the cell type, of 781 cells; missing in the others;
    - ``obs["neutrophil_share"]``: among the neutrophils and monocytes of a day-2 cell's clone on
      later days; missing where there are none;
    - ``obs["test_set"]``: the 335 day-2 cells of the published test; ``obs["validation_set"]``:
      cells chosen alike from the clones that are not tested;
    - ``obs`` ``WOT_predictions``, ``PBA_predictions``, ``FateID_predictions``: published
      predictions of the share.

    Raises
    ------
    FileNotFoundError
        The files are nowhere; the message says where they come from.
    ValueError
        A file is damaged.
    """
    given = path if path is not None else os.environ.get(ENVIRONMENT_VARIABLE)
    cache = Path(cache_dir or pooch.os_cache("splicedvae"))
    folders = [cache] if path is None else []
    if given:
        folders = [Path(given), Path(given) / "futures", *folders]
    folder = next((f for f in folders if all((f / x).is_file() for x in (CELLS, CLONES))), None)
    if folder is None:
        raise FileNotFoundError(
            f"There is no {CELLS} with {CLONES} in {', '.join(map(str, folders))}. Make them from "
            "github.com/scDiffEq/LARRY-dataset (Figure 5 of Weinreb et al. 2020) and from "
            "AllonKleinLab/cospar (tests/data/test_adata_preprocessed.h5ad), and put both into a "
            f"folder that path= or ${ENVIRONMENT_VARIABLE} names."
        )
    with file_of_its_kind(folder / CELLS, "h5ad"):
        adata = anndata.read_h5ad(folder / CELLS)
    with file_of_its_kind(folder / CLONES, "h5ad"):
        clones = anndata.read_h5ad(folder / CLONES)
    # the same cells lie at the same coordinates
    distance, where = cKDTree(adata.obsm["X_spring"]).query(np.asarray(clones.obsm["X_emb"]))
    state = np.full(adata.n_obs, None, dtype=object)
    same = distance < SAME_PLACE
    state[where[same]] = clones.obs["state_info"].astype(str).to_numpy()[same]
    adata.obs["state"] = pd.Categorical(state)

    fates = np.nan_to_num(np.asarray(adata.obsm["clonal_fates"], dtype=float))
    both = fates[:, NEUTROPHIL] + fates[:, MONOCYTE]
    share = np.full(adata.n_obs, np.nan)
    np.divide(fates[:, NEUTROPHIL], both, out=share, where=both > 0)
    obs = adata.obs
    early = (obs["day"] == 2) & obs["neu_mo_trajectory"] & obs["early_cells"] & (both > 0)
    obs["neutrophil_share"] = share
    obs["test_set"] = early & (obs["heldout_mask"] == 0)
    obs["validation_set"] = early & (obs["heldout_mask"] == 1)
    adata.uns["provenance"] = {
        "source": str(folder.name),
        "simulated": False,
        "name": "LARRY, in vitro (Weinreb et al. 2020)",
        "n_obs": adata.n_obs,
        "n_vars": adata.n_vars,
    }
    return adata

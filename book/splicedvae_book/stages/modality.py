"""What a second modality, simulated chromatin, adds to predicted ratios and to velocity.

Chromatin is ahead of transcription. In two cases half of each burst of transcription shows in it,
and it is counted well or sparsely; in the third it follows the programme alone; in the fourth it
does so too late.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scvi
from anndata import AnnData
from scipy import sparse

from splicedvae import metrics, velocity
from splicedvae.model import SplicedVAE
from splicedvae.simulate import simulate

from ..profiles import PROFILES, prepared
from ..scorer import Scorer
from ..stage import Stage
from . import fields

BURSTS, SPARSE, PROGRAMME, LATE = "bursts show", "bursts show, sparse", "programme alone", "late"
#: Arguments of :func:`splicedvae.simulate.simulate`.
CASES = {
    BURSTS: {"chromatin_lag": 0.5, "chromatin_counts": 2.0, "chromatin_bursts": 0.5},
    SPARSE: {"chromatin_lag": 0.5, "chromatin_counts": 0.2, "chromatin_bursts": 0.5},
    PROGRAMME: {"chromatin_lag": 0.5, "chromatin_counts": 2.0},
    LATE: {"chromatin_lag": -1.0, "chromatin_counts": 2.0},
}
WITHOUT, WITH = "without chromatin", "with chromatin"
PERMUTED, HALF = "chromatin of other cells", "chromatin of half the cells"
ENCODED = "with chromatin, encoded too"
SETTINGS = {"smoke": {"genes": 60}, "standard": {"genes": 300}, "full": {"genes": 500}}


def run_job(adata: AnnData | None, profile: str, seed: int, name: str, folder: Path) -> dict:
    """Train with and without chromatin on simulated cells, and score both.

    Parameters
    ----------
    adata, folder
        Not read: the job simulates and fits for itself.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.
    seed
        Of simulation, split and fits.
    name
        A key of ``CASES``.

    Returns
    -------
    ``rows``, by case and model: what :func:`splicedvae.metrics.ratio_report` gives, and as
    ``cosine`` that of the velocity with the true one.
    """
    n_obs = PROFILES[profile].n_obs or 2000
    genes = SETTINGS[profile]["genes"]
    whole = simulate(n_obs, genes, seed, chromatin=True, **CASES[name])
    cells, (train, val, test) = prepared(whole, profile, seed)
    rng, scorer = np.random.default_rng(seed), Scorer(cells, train, test, seed)
    query, known = cells[test].copy(), cells[train].copy()
    for part in (query, known):
        velocity.embed(part, seed=seed, umap=part is query, overwrite=True, progress=False)
        part.obsm.setdefault("X_umap", part.obsm["X_pca"][:, :2])
        part.var[fields.CONCENTRATION] = fields.concentration(known)
    velocity.fit(known, progress=False)
    genes, scale = known.var["velocity_genes"], metrics.velocity_scale(known, "velocity_true")
    truth = query.copy()
    velocity.project(truth, query.layers["velocity_true"], genes.to_numpy(), xkey="spliced_true")

    measured = cells.layers["chromatin"]
    half = sparse.diags_array((rng.random(cells.n_obs) < 0.5).astype(int))
    modalities = {
        WITHOUT: None,
        WITH: measured,
        PERMUTED: measured[rng.permutation(cells.n_obs)],
        HALF: sparse.csr_matrix(half @ measured),
        ENCODED: measured,
    }
    rows = {}
    for model_name, modality in modalities.items():
        scvi.settings.seed = seed
        if modality is not None:
            cells.layers["chromatin"] = modality
        layer = None if modality is None else "chromatin"
        SplicedVAE.setup_anndata(cells, modality_layer=layer)
        model = SplicedVAE(cells, encode_modality=model_name == ENCODED)
        model.train(**PROFILES[profile].training, split=(train, val))
        ratio = model.get_splicing_ratio(indices=test, return_numpy=True)
        field = fields.from_ratio(query, ratio, seed=seed)
        cosine = float(metrics.cell_cosine(truth, field, scale).mean())
        rows[f"{name}: {model_name}"] = scorer.report(ratio) | {"cosine": cosine}
    return {"rows": rows}


stage = Stage(run_job, tuple(CASES), ("d2", "within_gene_r", "cosine"), settings=SETTINGS)

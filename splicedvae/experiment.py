"""The fits that chapters share: every model, baseline and ceiling, on one split, in one run."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import scvi
import torch
from anndata import AnnData
from tqdm.auto import tqdm

from . import baselines, metrics
from .model import SplicedVAE
from .profiles import PROFILES, prepared, quiet
from .training import kl_warmup

#: The paper's setting, read literally (sections 2.1 and 2.3).
PAPER = {
    "n_latent": 50,
    "head": "mlp2",
    "own_total": False,
    "ratio_loss": "mse",
    "ratio_reduction": "mean",
    "ratio_weight": 1.0,
    "head_l2": 0.0,
    "head_latent": "sample",
}
#: Share of the genes in the subset fits: the paper's 5706 of 8000.
SUBSET = 5706 / 8000


@dataclass(frozen=True)
class Fit:
    """One neural fit.

    Attributes
    ----------
    splicing
        Arguments of :class:`splicedvae.SplicedVAE`; None for a plain scVI.
    n_latent
        Latent dimensions of the plain scVI.
    subset
        Fit on a random 71 % of the genes.
    """

    splicing: dict | None
    n_latent: int = 10
    subset: bool = False


FITS = {
    "SplicedVAE": Fit({}),
    "SplicedVAE, detached head": Fit({"detach_head": True}),
    "SplicedVAE, without own total": Fit({"own_total": False}),
    "SplicedVAE, paper's setting": Fit(PAPER),
    "scVI": Fit(None),
    "scVI, latent 50": Fit(None, n_latent=50),
    "SplicedVAE, gene subset": Fit({}, subset=True),
    "scVI, gene subset": Fit(None, subset=True),
}
BASELINES = "baselines"  # the job that fits them and measures the ceilings


def run_job(adata: AnnData, profile: str, seed: int, name: str, checkpoint: Path | None) -> dict:
    """Fit one row of the table, or all baselines, on one seed's split.

    Parameters
    ----------
    adata
        From :func:`splicedvae.profiles.load`.
    profile
        A key of ``splicedvae.profiles.PROFILES``.
    seed
        Of split, initial weights and minibatches.
    name
        A key of ``FITS``, or ``BASELINES``.
    checkpoint
        Folder for the trained model, or None.

    Returns
    -------
    JSON-ready: ``name``, ``seed``, ``seconds``, and ``rows``, a report per model name; for a
    neural fit also its ``history``, the ``reconstruction`` of the test cells per gene and the
    ``latent`` of all cells.
    """
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // _n_jobs()))
    quiet()
    logging.getLogger("splicedvae").setLevel(logging.WARNING)  # a worker would repeat each note
    start = time.perf_counter()
    adata, (train, val, test) = prepared(adata, profile, seed)
    scvi.settings.seed = seed
    if name == BASELINES:
        job = {"rows": _baseline_rows(adata, train, val, test, seed)}
    else:
        job = _neural_job(adata, train, val, test, FITS[name], name, profile, seed, checkpoint)
    return job | {"name": name, "seed": seed, "seconds": time.perf_counter() - start}


class _Scorer:
    """Ratio reports of one split, all against the same gene mean, gene list and dispersion."""

    def __init__(self, adata: AnnData, train: np.ndarray, test: np.ndarray, seed: int):
        counts = [adata.layers[layer] for layer in ("spliced", "unspliced")]
        self.spliced, self.unspliced = (layer[test] for layer in counts)
        self.mean = baselines.GeneMean().fit(adata[train], adata[train]).mean_
        n = adata.layers["total"]
        self.genes = metrics.within_gene_list(n[train], n[test])
        if not self.genes.any():  # a thinned run
            self.genes = None
        self.concentration = metrics.fit_concentration(*(c[train] for c in counts), self.mean)
        self.seed = seed

    def report(self, predicted: np.ndarray) -> dict[str, float]:
        return metrics.ratio_report(
            self.spliced,
            self.unspliced,
            predicted,
            self.mean,
            genes=self.genes,
            concentration=self.concentration,
            seed=self.seed,
        )

    def ceilings(self) -> dict[str, dict[str, float]]:
        args = self.spliced, self.unspliced
        return {
            "ceiling, bootstrap": metrics.bootstrap_ceiling(
                *args, self.mean, self.genes, seed=self.seed
            ),
            "ceiling, thinning": metrics.thinning_ceiling(*args, self.genes, seed=self.seed),
        }


def _baseline_rows(adata, train, val, test, seed: int) -> dict[str, dict]:
    scorer = _Scorer(adata, train, test, seed)
    rows = scorer.ceilings()
    for model in (
        baselines.GeneMean(),
        baselines.GeneByCluster(),
        baselines.NearestNeighbours(seed=seed),
        baselines.RidgeBinomial(seed=seed),
    ):
        model.fit(adata[train], adata[val])
        rows[type(model).__name__] = scorer.report(model.predict(adata[test]))
        rows[type(model).__name__]["params"] = model.params_
    return rows


def _neural_job(adata, train, val, test, fit: Fit, name, profile, seed, checkpoint) -> dict:
    if fit.subset:
        order = np.random.default_rng(seed).permutation(adata.n_vars)
        kept = round(SUBSET * adata.n_vars)
        while (adata.layers["total"][:, order[:kept]].sum(axis=1) == 0).any():
            kept += 1  # no cell may be left without counts
        adata = adata[:, np.sort(order[:kept])].copy()
    epochs = PROFILES[profile].max_epochs
    if fit.splicing is None:
        scvi.model.SCVI.setup_anndata(adata, layer="total")
        model = scvi.model.SCVI(adata, n_latent=fit.n_latent, gene_likelihood="nb")
        rest = np.setdiff1d(np.arange(adata.n_obs), np.concatenate([train, val]))
        model.train(
            epochs,
            datasplitter_kwargs={"external_indexing": [train, val, rest]},
            plan_kwargs=kl_warmup(epochs),
            check_val_every_n_epoch=1,
            enable_progress_bar=False,
        )
    else:
        SplicedVAE.setup_anndata(adata)
        model = SplicedVAE(adata, **fit.splicing)
        model.train(epochs, split=(train, val), enable_progress_bar=False)
    if checkpoint is not None:
        model.save(str(checkpoint), overwrite=True)

    scorer = _Scorer(adata, train, test, seed)
    rows = {}
    if fit.splicing is not None:
        rows[name] = scorer.report(model.get_splicing_ratio(indices=test, return_numpy=True))
    elif not fit.subset and fit.n_latent == 10:
        ridge = baselines.ScviLatentRidge(model).fit(adata[train], adata[val])
        rows["ScviLatentRidge"] = scorer.report(ridge.predict(adata[test]))
    latent = model.get_latent_representation()
    rows[name] = rows.get(name, {}) | metrics.latent_report(
        latent[test], adata.obs["clusters"].to_numpy()[test], seed=seed
    )
    rows[name]["elbo"] = float(model.get_elbo(indices=test, return_mean=True))
    return {
        "rows": rows,
        "reconstruction": _reconstruction_per_gene(model, test),
        "history": {k: v.iloc[:, 0].astype(float).tolist() for k, v in model.history.items()},
        "latent": latent.round(4).tolist(),
    }


@torch.inference_mode()
def _reconstruction_per_gene(model: scvi.model.SCVI, cells: np.ndarray) -> dict[str, float]:
    """Mean over cells of log p(x_g | z), in nats, for each gene."""
    total = 0.0
    torch.manual_seed(0)
    for tensors in model._make_data_loader(model.adata, indices=cells):
        _, generative = model.module.forward(tensors, compute_loss=False)
        total = total + generative["px"].log_prob(tensors["X"].to(model.device)).sum(0).cpu()
    return dict(zip(model.adata.var_names, (total / len(cells)).tolist(), strict=True))


def _n_jobs() -> int:
    # a GPU is shared badly; on CPUs these small networks gain nothing from a second thread
    return 1 if torch.cuda.is_available() else min(joblib.cpu_count(), 4)


def fingerprint(adata: AnnData, profile: str) -> str:
    """Hash of what a fit depends on: cells, settings, the package's source, main libraries.

    Parameters
    ----------
    adata
        From :func:`splicedvae.profiles.load`.
    profile
        A key of ``splicedvae.profiles.PROFILES``.

    Returns
    -------
    16 hexadecimal digits.
    """
    settings = asdict(PROFILES[profile])
    settings.pop("seeds")  # a profile with more seeds shares the fits of one with fewer
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    parts = [adata.layers[layer] for layer in ("spliced", "unspliced")]
    parts += [list(adata.var_names), list(adata.obs["clusters"].astype(str))]
    parts += [version(package) for package in ("torch", "scvi-tools", "scanpy", "scikit-learn")]
    digest.update("".join(map(joblib.hash, parts)).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        if source.stem not in (
            "plots",
            "simulate",
        ):  # the one draws fits, the other's cells are hashed
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def run(
    adata: AnnData,
    profile: str = "standard",
    folder: str | os.PathLike = "_build/results",
    names: Iterable[str] = (BASELINES, *FITS),
) -> list[dict]:
    """All jobs of a profile; those that stand in `folder` already are only read.

    Parameters
    ----------
    adata
        From :func:`splicedvae.profiles.load`.
    profile
        A key of ``splicedvae.profiles.PROFILES``.
    folder
        Where results are kept, a JSON file a job, and the first seed's checkpoints.
    names
        Which jobs.

    Returns
    -------
    The jobs' results (see :func:`run_job`), by seed and name.
    """
    folder = Path(folder) / fingerprint(adata, profile)
    folder.mkdir(parents=True, exist_ok=True)
    seeds = PROFILES[profile].seeds
    jobs = [(seed, name) for seed in seeds for name in names]
    files = {job: folder / f"{job[0]}-{_slug(job[1])}.json" for job in jobs}

    def work(seed: int, name: str) -> None:
        first = seed == seeds[0] and name in FITS
        result = run_job(adata, profile, seed, name, folder / _slug(name) if first else None)
        part = files[seed, name].with_suffix(".part")
        part.write_text(json.dumps(result))
        part.replace(files[seed, name])  # a killed run leaves no half a file

    missing = [job for job in jobs if not files[job].exists()]
    if missing:
        parallel = joblib.Parallel(n_jobs=_n_jobs(), return_as="generator_unordered")
        done = parallel(joblib.delayed(work)(*job) for job in missing)
        for _ in tqdm(done, total=len(missing), desc="fits", unit="fit"):
            pass
    return [json.loads(files[job].read_text()) for job in jobs]


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def table(jobs: list[dict]) -> pd.DataFrame:
    """One line per model and seed.

    Parameters
    ----------
    jobs
        From :func:`run`.

    Returns
    -------
    Index (model, seed), a column per score.
    """
    lines = {
        (model, job["seed"]): {k: v for k, v in row.items() if k != "params"}
        for job in jobs
        for model, row in job["rows"].items()
    }
    frame = pd.DataFrame.from_dict(lines, orient="index")
    frame.index = pd.MultiIndex.from_tuples(frame.index, names=["model", "seed"])
    return frame


def difference(scores: pd.DataFrame, a: str, b: str, score: str) -> tuple[float, float, float]:
    """Mean of a - b over seeds and its 95 % interval, paired by seed.

    Parameters
    ----------
    scores
        From :func:`table`.
    a, b
        Two models.
    score
        A column.

    Returns
    -------
    Mean, lower and upper end; the ends are NaN with one seed.
    """
    left, right = scores.loc[a, score], scores.loc[b, score]
    if len(left) < 2:
        return float((left - right).mean()), float("nan"), float("nan")
    return metrics.paired_interval(left.to_numpy(), right.loc[left.index].to_numpy())

"""One fit: a row of the book's tables, trained on one seed's split and written down."""

from __future__ import annotations

import os
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import numpy as np
import scvi
import torch
from anndata import AnnData

from splicedvae.model import SplicedVAE
from splicedvae.ratios import baselines, metrics
from splicedvae.training import kl_warmup, minibatch

from ..profiles import PROFILES, prepared
from ..scorer import Scorer
from ..stage import Stage, stem

#: The paper's setting, read literally (sections 2.1 and 2.3).
PAPER = {
    "n_latent": 50,
    "dropout_rate": 0.1,
    "head": "mlp2",
    "own_total": False,
    "n_components": 0,
    "ratio_loss": "mse",
    "ratio_reduction": "mean",
    "ratio_weight": 1.0,
    "head_l2": 0.0,
}
#: Share of the genes in the subset fits: the paper's 5706 of 8000.
SUBSET = 5706 / 8000
DEFAULTS = signature(SplicedVAE.__init__).parameters


@dataclass(frozen=True)
class Fit:
    """One neural fit.

    Attributes
    ----------
    splicing
        Arguments of :class:`splicedvae.SplicedVAE`; None for a plain scVI.
    n_latent
        Latent dimensions of the plain scVI; SplicedVAE's default.
    subset
        Fit on a random 71 % of the genes.
    """

    splicing: dict | None
    n_latent: int = DEFAULTS["n_latent"].default
    subset: bool = False


FITS = {
    "SplicedVAE": Fit({}),
    "SplicedVAE, detached head": Fit({"detach_head": True}),
    "SplicedVAE, latent alone": Fit({"n_components": 0}),
    "SplicedVAE, detached, latent alone": Fit({"n_components": 0, "detach_head": True}),
    "SplicedVAE, without own total": Fit({"own_total": False}),
    "SplicedVAE, fixed prior": Fit({"head_l2": 100.0}),
    "SplicedVAE, binomial": Fit({"ratio_loss": "binomial"}),
    "SplicedVAE, paper's setting": Fit(PAPER),
    "scVI": Fit(None),
    "scVI, latent 50": Fit(None, n_latent=50),
    "SplicedVAE, gene subset": Fit({}, subset=True),
    "scVI, gene subset": Fit(None, subset=True),
}
BASELINES = "baselines"  # the job that fits them and measures the ceilings
NAMES = (BASELINES, *FITS)
CHECKPOINTS = ("SplicedVAE", "scVI")  # kept; the others are never asked again


def run_job(adata: AnnData, profile: str, seed: int, name: str, folder: Path) -> dict:
    """Fit one row of the table, or all baselines, on one seed's split.

    Parameters
    ----------
    adata
        From :func:`~splicedvae_book.profiles.load`.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.
    seed
        Of split, initial weights and minibatches.
    name
        A key of ``FITS``, or ``BASELINES``.
    folder
        For files named by :func:`~splicedvae_book.stage.stem`: ``.npy``, float32 (test cells,
        genes), the ratios of each model that predicts them for all genes; and a folder, the
        trained model, if the name is one of ``CHECKPOINTS``.

    Returns
    -------
    JSON-ready: ``files`` that were written, and ``rows``, a report per model name; for a neural
    fit also its ``history``, the ``reconstruction`` of the test cells per gene and the ``latent``
    of all cells.
    """
    adata, (train, val, test) = prepared(adata, profile, seed)
    scvi.settings.seed = seed
    files = []
    if name == BASELINES:
        job, predicted = _fit_baselines(adata, train, val, test, seed)
    else:
        model = _trained(adata, train, val, FITS[name], profile, seed)
        job, predicted = _assess(model, train, val, test, FITS[name], name, seed)
        if name in CHECKPOINTS:
            model.save(str(folder / stem(seed, name)), overwrite=True)
            files.append(f"{stem(seed, name)}/model.pt")
    for key, ratio in predicted.items():
        files.append(f"{stem(seed, key)}.npy")
        np.save(folder / files[-1], ratio.astype(np.float32))
    return job | {"files": files}


stage = Stage(
    run_job, NAMES, ("d2", "within_gene_r", "rmse_observed", "r_observed", "elbo", "silhouette")
)


def _fit_baselines(adata, train, val, test, seed: int) -> tuple[dict, dict[str, np.ndarray]]:
    """The job's rows, and the ratios (test cells, genes) of each baseline."""
    scorer = Scorer(adata, train, test, seed)
    rows, ratios = scorer.ceilings(), {}
    models = {
        "GeneMean": baselines.GeneMean(),
        "GeneByCluster": baselines.GeneByCluster(),
        "NearestNeighbours": baselines.NearestNeighbours(seed=seed),
        "RidgeBinomial": baselines.RidgeBinomial(seed=seed),
        "RidgeBinomial, whitened": baselines.RidgeBinomial(seed=seed, whiten=True),
        "HierarchicalBinomial": baselines.HierarchicalBinomial(seed=seed),
    }
    for name, model in models.items():
        ratios[name] = model.fit(adata[train], adata[val]).predict(adata[test])
        rows[name] = scorer.report(ratios[name]) | {"params": model.params_}
    return {"rows": rows}, ratios


def _trained(adata, train, val, fit: Fit, profile: str, seed: int):
    if fit.subset:
        order = np.random.default_rng(seed).permutation(adata.n_vars)
        kept = round(SUBSET * adata.n_vars)
        while (adata.layers["total"][:, order[:kept]].sum(axis=1) == 0).any():
            kept += 1  # no cell may be left without counts
        adata = adata[:, np.sort(order[:kept])].copy()
    setting = PROFILES[profile]
    if fit.splicing is None:
        scvi.model.SCVI.setup_anndata(adata, layer="total")
        # as SplicedVAE's own defaults, for the comparison is of heads
        model = scvi.model.SCVI(
            adata,
            n_latent=fit.n_latent,
            dropout_rate=DEFAULTS["dropout_rate"].default,
            gene_likelihood="nb",
        )
        rest = np.setdiff1d(np.arange(adata.n_obs), np.concatenate([train, val]))
        model.train(
            setting.max_epochs,
            datasplitter_kwargs={"external_indexing": [train, val, rest]},
            plan_kwargs=kl_warmup(setting.max_epochs) | {"lr": setting.lr},
            batch_size=minibatch(len(train)),  # as SplicedVAE's, too
            check_val_every_n_epoch=1,
            enable_progress_bar=False,
        )
    else:
        SplicedVAE.setup_anndata(adata)
        model = SplicedVAE(adata, **fit.splicing)
        model.train(**setting.training, split=(train, val))
    return model


def _assess(model, train, val, test, fit: Fit, name, seed) -> tuple[dict, dict[str, np.ndarray]]:
    """The job's figures, and the ratios (test cells, all genes) of the model or a ridge on it."""
    adata, ratios = model.adata, {}
    if fit.splicing is not None:
        ratios[name] = model.get_splicing_ratio(indices=test, return_numpy=True)
    elif name == "scVI":
        ridge = baselines.ScviLatentRidge(model).fit(adata[train], adata[val])
        ratios["ScviLatentRidge"] = ridge.predict(adata[test])
    scorer = Scorer(adata, train, test, seed)
    rows = {key: scorer.report(predicted) for key, predicted in ratios.items()}
    latent = model.get_latent_representation()
    rows[name] = rows.get(name, {}) | metrics.latent_report(
        latent[test], adata.obs["clusters"].to_numpy()[test], seed=seed
    )
    rows[name]["elbo"] = float(model.get_elbo(indices=test, return_mean=True))
    job = {
        "rows": rows,
        "reconstruction": _reconstruction_per_gene(model, test),
        "history": {k: v.iloc[:, 0].astype(float).tolist() for k, v in model.history.items()},
        "latent": latent.round(4).tolist(),
    }
    return job, {} if fit.subset else ratios


@torch.inference_mode()
def _reconstruction_per_gene(model: scvi.model.SCVI, cells: np.ndarray) -> dict[str, float]:
    """Mean over cells of log p(x_g | z), in nats, for each gene."""
    total = 0.0
    torch.manual_seed(0)
    for tensors in model._make_data_loader(model.adata, indices=cells):
        _, generative = model.module.forward(tensors, compute_loss=False)
        total = total + generative["px"].log_prob(tensors["X"].to(model.device)).sum(0).cpu()
    return dict(zip(model.adata.var_names, (total / len(cells)).tolist(), strict=True))


def ratios(
    results: str | os.PathLike, adata: AnnData, profile: str, seed: int, name: str
) -> np.ndarray:
    """Splicing ratios that a model predicted for a seed's test cells.

    Parameters
    ----------
    results, adata, profile
        As given to :meth:`~splicedvae_book.stage.Stage.run`.
    seed
        Of the split.
    name
        A key of ``FITS`` with a head and all genes, or the class name of a baseline.

    Returns
    -------
    Float32 (test cells, genes), cells and genes as :func:`~splicedvae_book.profiles.prepared`
    gives them for this seed.

    Raises
    ------
    FileNotFoundError
        :meth:`~splicedvae_book.stage.Stage.run` has not kept them.
    """
    return np.load(_kept(results, adata, profile, seed, name, ".npy"))


def checkpoint(
    results: str | os.PathLike, adata: AnnData, profile: str, seed: int, name: str
) -> Path:
    """Folder of a trained model, for its class's ``load``.

    Parameters
    ----------
    results, adata, profile
        As given to :meth:`~splicedvae_book.stage.Stage.run`.
    seed
        Of the split.
    name
        One of ``splicedvae_book.stages.fits.CHECKPOINTS``.

    Returns
    -------
    The folder.

    Raises
    ------
    FileNotFoundError
        :meth:`~splicedvae_book.stage.Stage.run` has not kept it.
    """
    return _kept(results, adata, profile, seed, name, "")


def _kept(results, adata: AnnData, profile: str, seed: int, name: str, ending: str) -> Path:
    folder = stage.folder(results, adata, profile)
    path = folder / f"{stem(seed, name)}{ending}"
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing; of seed {seed} there are "
            f"{sorted(found.name for found in folder.glob(f'{seed}-*'))}. Call run on the same "
            "results, cells (from profiles.load, not prepared) and profile first."
        )
    return path

"""The paper's claims, each with its figure, ours, its baseline, null and ceiling, and a verdict.

Verdicts are rules applied to scores; none is typed in.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from splicedvae import velocity
from splicedvae.counts import named_layers

from .experiment import difference, mean_with_interval
from .headline import headline
from .profiles import PROFILES, prepared, provenance
from .stages import fits
from .stages.fields import IF_TRUE, OTHER_HALF

PAPER_RMSE, PAPER_R = 0.1271, 0.67
#: How close a pair must come to be the paper's. A target on which every model gets r = 0.95 is not.
NEAR_RMSE, NEAR_R = 0.02, 0.05
#: No target with a larger standard deviation can give the paper's pair, by any predictor.
SD_BOUND = PAPER_RMSE / np.sqrt(1 - PAPER_R**2)
UNDEFINED = "cannot be reproduced: target not defined"
HOLDS, FAILS = "holds", "does not hold"
ONE_SEED, FEW_GENES = "not tested: one seed", "not tested: fewer than 8,000 genes"
SURPASSED = "surpassed, and above every null and baseline named"


def targets(adata: AnnData, profile: str, seed: int, results: str | Path) -> pd.DataFrame:
    """What a "splicing ratio on held-out cells" may have meant, and how one model scores on each.

    Parameters
    ----------
    adata
        From :func:`~splicedvae_book.profiles.load`.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.
    seed
        Of the split.
    results
        Folder in which the fits are kept.

    Returns
    -------
    A line per target: ``sd``, and ``rmse`` and ``r`` of SplicedVAE and, with ``_gene_mean``, of
    the gene mean; ``possible``: whether `sd` admits the paper's pair at all.
    """
    whole, (_, _, test) = prepared(adata, profile, seed)
    cells = AnnData(obs=whole.obs, var=whole.var, layers=named_layers(whole))[test].copy()
    velocity.embed(cells, umap=False)
    p, mean = (fits.ratios(results, adata, profile, seed, m) for m in ("SplicedVAE", "GeneMean"))
    s, n = (np.asarray(cells.layers[x].todense(), dtype=float) for x in ("spliced", "total"))
    graph = cells.obsp["connectivities"] + np.eye(cells.n_obs)
    smooth_s, smooth_n = (np.asarray(graph @ x) for x in (s, n))
    members = pd.get_dummies(cells.obs["clusters"].astype(str), dtype=float).to_numpy().T
    ratio = np.divide(s, n, out=np.zeros_like(s), where=n > 0)
    smooth = np.divide(smooth_s, smooth_n, out=np.zeros_like(s), where=smooth_n > 0)
    rich = n.mean(0) >= np.quantile(n.mean(0), 0.9)

    def pooled(x: np.ndarray) -> np.ndarray:
        """Weighted by the counts, as the target itself is, over the cells of each cluster."""
        return (members @ (x * n)) / np.maximum(members @ n, 1)

    given = {
        "observed, n ≥ 1": (ratio, p, mean, n > 0),
        "observed, n ≥ 5": (ratio, p, mean, n >= 5),
        "observed, n ≥ 20": (ratio, p, mean, n >= 20),
        "observed, a tenth of the genes, best counted": (ratio, p, mean, (n > 0) & rich),
        "zero where n = 0": (ratio, p, mean, np.ones_like(n, dtype=bool)),
        "smoothed over neighbours": (smooth, p, mean, smooth_n > 0),
        "smoothed, best counted genes": (smooth, p, mean, (smooth_n > 0) & rich),
        "pooled by gene and cell type": (pooled(ratio), pooled(p), pooled(mean), (members @ n) > 0),
        "observed, less the gene mean": (ratio - mean, p - mean, mean - mean, n > 0),
        "smoothed, less the gene mean": (smooth - mean, p - mean, mean - mean, smooth_n > 0),
    }
    lines = {}
    for name, (target, *predicted, seen) in given.items():
        y = target[seen]
        lines[name] = {"sd": y.std()}
        for x, ending in zip(predicted, ("", "_gene_mean"), strict=True):
            x = x[seen]
            lines[name][f"rmse{ending}"] = np.sqrt(((x - y) ** 2).mean())
            lines[name][f"r{ending}"] = np.corrcoef(x, y)[0, 1] if x.std() > 0 else 0.0
    frame = pd.DataFrame(lines).T
    return frame.assign(possible=frame["sd"] <= SD_BOUND)


def reproduced(frame: pd.DataFrame) -> str:
    """Verdict on the paper's pair of RMSE and r.

    Parameters
    ----------
    frame
        From :func:`targets`.

    Returns
    -------
    The verdict.
    """

    def reached(ending: str) -> set[str]:
        near = (frame[f"rmse{ending}"] - PAPER_RMSE).abs() <= NEAR_RMSE
        return set(frame.index[near & ((frame[f"r{ending}"] - PAPER_R).abs() <= NEAR_R)])

    if not (ours := reached("")):
        return UNDEFINED
    own = ours - reached("_gene_mean")
    under = "; ".join(sorted(own or ours))
    return f"holds only under: {under}" + ("" if own else " (and there for the gene mean too)")


def claims(
    fitted: pd.DataFrame, fields: pd.DataFrame, frame: pd.DataFrame, kept: int, n_vars: int
) -> list[dict]:
    """The scorecard.

    Parameters
    ----------
    fitted, fields
        :func:`~splicedvae_book.experiment.table` of the stages ``fits`` and ``fields``.
    frame
        From :func:`targets`.
    kept, n_vars
        Genes after and before the filter.

    Returns
    -------
    A dict per claim: ``claim``, ``paper``, ``definition``, ``ours`` (``mean``, ``low``, ``high``,
    ``n_seeds``, ``text``), ``baseline``, ``null``, ``ceiling`` (texts) and ``verdict``.
    """
    ours = "SplicedVAE"

    def mean(scores: pd.DataFrame, model: str, score: str, form: str = "{:.3f}") -> str:
        return form.format(scores.loc[model, score].mean())

    def limits(score: str, form: str = "{:.3f}") -> str:
        true, half = (mean(fields, x, score, form) for x in (ours + IF_TRUE, "half versus half"))
        return f"were its ratios true {true}; half versus half {half}"

    def above(scores: pd.DataFrame, b: str, score: str, sign: int = 1) -> bool:
        _, low, high = difference(scores, ours, b, score)
        return bool(low > 0 if sign > 0 else high < 0)

    def only(named: dict[str, bool], form: str = "holds only against: {}") -> str:
        if all(named.values()):
            return HOLDS
        return (
            form.format("; ".join(k for k, ok in named.items() if ok))
            if any(named.values())
            else FAILS
        )

    def shares(coupled: str, detached: str) -> bool:
        gain = difference(fitted, coupled, detached, "d2")[1]
        return bool(gain > 0 and difference(fitted, coupled, "scVI", "elbo")[2] >= 0)

    def regressions(score: str, form: str = "{:.3f}") -> str:
        named = {"hierarchical regression": "HierarchicalBinomial", "ridge": "RidgeBinomial"}
        return ", ".join(f"{k} {mean(fitted, v, score, form)}" for k, v in named.items())

    def simple(score: str, form: str = "{:.3f}") -> str:
        named = {
            "kNN ratios": "NearestNeighbours",
            "ratios of the hierarchical regression": "HierarchicalBinomial",
            "transfer": "velocity transfer",
        }
        return ", ".join(f"{k} {mean(fields, v, score, form)}" for k, v in named.items())

    latent_only = f"{ours}, latent alone", f"{ours}, detached, latent alone"
    detached = difference(fitted, f"{ours}, detached head", "scVI", "elbo")[0]
    separation = {
        "silhouette": "silhouette",
        "kNN purity": "knn_purity",
        "Leiden ARI": "leiden_ari",
    }
    leaky, honest = "Velo-Predictor, as published", "Velo-Predictor, honest, spliced counts"
    ceiling = "ceiling, bootstrap"
    rows = [
        (
            "RMSE of held-out splicing ratios",
            f"{PAPER_RMSE}",
            "entries and target not stated; here entries with n ≥ 1",
            mean_with_interval(fitted.loc[ours, "rmse_observed"], "{:.4f}"),
            regressions("rmse_observed", "{:.4f}"),
            f"gene mean {mean(fitted, 'GeneMean', 'rmse_observed', '{:.4f}')}",
            mean(fitted, ceiling, "rmse_observed", "{:.4f}"),
            reproduced(frame),
        ),
        (
            "Pearson r of held-out splicing ratios",
            f"{PAPER_R}",
            "entries and target not stated; here entries with n ≥ 1",
            mean_with_interval(fitted.loc[ours, "r_observed"]),
            regressions("r_observed"),
            f"gene mean {mean(fitted, 'GeneMean', 'r_observed')}",
            mean(fitted, ceiling, "r_observed"),
            reproduced(frame),
        ),
        (
            "better ELBO than scVI",
            "lower loss, no figure",
            "ELBO per test cell, nats; SplicedVAE minus scVI",
            mean_with_interval(fitted.loc[ours, "elbo"] - fitted.loc["scVI", "elbo"], "{:+.2f}"),
            f"detached head minus scVI {detached:+.2f}",
            "0",
            "–",
            HOLDS if above(fitted, "scVI", "elbo") else FAILS,
        ),
        (
            "one latent helps both tasks",
            "no figure",
            "D² of the coupled head minus that of a detached one, the ELBO no worse than scVI's",
            mean_with_interval(
                fitted.loc[ours, "d2"] - fitted.loc[f"{ours}, detached head", "d2"], "{:+.4f}"
            ),
            f"heads that read the latent alone {difference(fitted, *latent_only, 'd2')[0]:+.4f}",
            "0",
            "–",
            only(
                {
                    "the default": shares(ours, f"{ours}, detached head"),
                    "heads that read the latent alone": shares(*latent_only),
                },
                "holds only for: {}",
            ),
        ),
        (
            "clearer clusters than scVI",
            "no figure",
            "silhouette (the figure here), kNN purity and Leiden ARI of test cells",
            mean_with_interval(fitted.loc[ours, "silhouette"]),
            f"scVI {mean(fitted, 'scVI', 'silhouette')}",
            "0",
            "–",
            only(
                {k: above(fitted, "scVI", score) for k, score in separation.items()},
                "holds only for: {}",
            ),
        ),
        (
            "velocity cosine above random",
            "no figure",
            "query protocol, genes in their own units, test cells",
            mean_with_interval(fields.loc[ours, "cosine"]),
            simple("cosine"),
            f"random {mean(fields, 'random vectors', 'cosine')}, gene mean "
            f"{mean(fields, 'GeneMean', 'cosine')}",
            f"{limits('cosine')}; ours versus half {mean(fields, ours + OTHER_HALF, 'cosine')}",
            only(
                {
                    "random vectors": above(fields, "random vectors", "cosine"),
                    "permuted cells": above(fields, "permuted cells", "cosine"),
                    "the gene mean": above(fields, "GeneMean", "cosine"),
                }
            ),
        ),
        (
            "streamlines preserved",
            "by eye",
            "mean angle between arrows on one UMAP, degrees",
            mean_with_interval(fields.loc[ours, "angular_error"], "{:.1f}"),
            simple("angular_error", "{:.1f}"),
            f"gene mean {mean(fields, 'GeneMean', 'angular_error', '{:.1f}')}",
            limits("angular_error", "{:.1f}"),
            only(
                {
                    "random vectors": above(fields, "random vectors", "angular_error", -1),
                    "the gene mean": above(fields, "GeneMean", "angular_error", -1),
                }
            ),
        ),
        (
            "four directions: 50 % right",
            "0.50",
            "quadrant of the compass, averaged over its turns (baselines: two of them)",
            mean_with_interval(fields.loc[ours, "accuracy"]),
            f"cluster majority {mean(fields, 'cluster majority', 'accuracy')}",
            f"gene mean {mean(fields, 'GeneMean', 'accuracy')}",
            limits("accuracy"),
            only(
                {
                    "the gene mean": above(fields, "GeneMean", "accuracy"),
                    "the cluster majority": above(fields, "cluster majority", "accuracy"),
                    "Velo-Predictor, honest": above(fields, honest, "accuracy"),
                },
                "higher than the paper's, but above no more than: {}",
            ).replace(HOLDS, SURPASSED),
        ),
        (
            "Velo-Predictor: 88 % right",
            "0.88",
            "quadrant of the compass as it is; as published, resampled before the split",
            mean_with_interval(fields.loc[leaky, "accuracy_unrotated"]),
            f"honest {mean(fields, honest, 'accuracy_unrotated')}",
            f"cluster majority {mean(fields, 'cluster majority', 'accuracy_unrotated')}",
            f"half versus half {mean(fields, 'half versus half', 'accuracy_unrotated')}",
            _velo_verdict(
                fields.loc[leaky, "accuracy_unrotated"], fields.loc[honest, "accuracy_unrotated"]
            ),
        ),
        (
            "5706 of 8000 genes shared with scVelo",
            f"{fits.SUBSET:.3f}",
            "genes of a pretrained model that pass scVelo's filter; neither list is stated",
            mean_with_interval(pd.Series([kept / n_vars])),
            "–",
            "–",
            "–",
            FEW_GENES
            if n_vars < 8000
            else HOLDS
            if abs(kept / n_vars - fits.SUBSET) < 0.01
            else FAILS,
        ),
    ]
    keys = ("claim", "paper", "definition", "ours", "baseline", "null", "ceiling", "verdict")
    return [dict(zip(keys, row, strict=True)) for row in rows]


def peer_claims(peers: pd.DataFrame) -> list[dict]:
    """What methods without the two counts claim, beside SplicedVAE on the same cells.

    Parameters
    ----------
    peers
        :func:`~splicedvae_book.experiment.table` of the stage ``peers``.

    Returns
    -------
    As :func:`claims`; methods that were not run have no line.
    """
    ours, null, truth = "SplicedVAE", "null: random vectors", "the reference itself"
    run = [
        name
        for name in peers.index.unique("model")
        if name in peer_names() and peers.loc[name, "cosine"].notna().all()
    ]
    if not run:
        return []
    mean = peers.groupby("model")[["cosine", "accuracy", "cbdir"]].mean()
    best = mean.loc[run, "cbdir"].idxmax()
    rows = [
        (
            f"{name}: a velocity without the two counts",
            "no figure of this kind",
            "query protocol, cosine with the velocity from true counts, genes in their own units",
            mean_with_interval(peers.loc[name, "cosine"]),
            f"SplicedVAE {mean.loc[ours, 'cosine']:.3f}",
            f"random {mean.loc[null, 'cosine']:.3f}",
            "1, the reference itself",
            _over(peers, name, [null], "cosine"),
        )
        for name in run
    ]
    rows += [
        (
            f"SplicedVAE has a higher {score} than each of these",
            "–",
            "query protocol, difference paired by seed",
            mean_with_interval(peers.loc[ours, column]),
            ", ".join(f"{name} {mean.loc[name, column]:.3f}" for name in run),
            f"random {mean.loc[null, column]:.3f}",
            "1, the reference itself",
            _over(peers, ours, run, column),
        )
        for score, column in (("cosine", "cosine"), ("accuracy, averaged over turns", "accuracy"))
    ]
    rows.append(
        (
            "CBDir tells a right velocity from a wrong one",
            "a bar in most papers of the field",
            f"CBDir of the method that has the most of it, {best}",
            mean_with_interval(peers.loc[best, "cbdir"]),
            f"its cosine {mean.loc[best, 'cosine']:.3f}",
            f"random {mean.loc[null, 'cbdir']:.3f}",
            f"the reference itself {mean.loc[truth, 'cbdir']:.3f}",
            FAILS
            if mean.loc[best, "cbdir"] >= mean.loc[truth, "cbdir"]
            and mean.loc[best, "cosine"] < mean.loc[ours, "cosine"] / 2
            else HOLDS,
        )
    )
    keys = ("claim", "paper", "definition", "ours", "baseline", "null", "ceiling", "verdict")
    return [dict(zip(keys, row, strict=True)) for row in rows]


def _over(peers: pd.DataFrame, ours: str, run: list[str], column: str) -> str:
    if len(peers.loc[ours]) < 2:
        return ONE_SEED
    named = {name: difference(peers, ours, name, column)[1] > 0 for name in run}
    if all(named.values()):
        return HOLDS
    beaten = "; ".join(name for name, ok in named.items() if ok)
    return f"holds only against: {beaten}" if beaten else FAILS


def peer_names() -> list[str]:
    """Methods of others that make a field, without the baselines and ourselves.

    Returns
    -------
    Names as in the table of the stage ``peers``.
    """
    from splicedvae.velocity.peers.table import METHODS, TURNED, UNDIRECTED

    ours = ("null", "velocity transfer", "SplicedVAE")
    names = [name for name in METHODS if not name.startswith(ours)]
    return names + [name + TURNED for name in UNDIRECTED]


def _velo_verdict(leaky: pd.Series, honest: pd.Series) -> str:
    near = 0.85
    if honest.mean() >= near:
        return HOLDS
    return "holds only under resampling before the split" if leaky.mean() >= near else FAILS


def scorecard(
    adata: AnnData,
    profile: str,
    results: str | Path,
    fitted: pd.DataFrame,
    fields: pd.DataFrame,
    peers: pd.DataFrame | None = None,
) -> dict:
    """The scorecard of one build, and what it was computed on.

    Parameters
    ----------
    adata
        From :func:`~splicedvae_book.profiles.load`.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.
    results
        Folder in which the fits are kept.
    fitted, fields
        As for :func:`claims`.
    peers
        As for :func:`peer_claims`; None leaves those out.

    Returns
    -------
    JSON-ready: ``provenance``, ``claims`` of the paper, ``peers``, those of other methods,
    ``headline`` (Markdown), and ``targets`` of the first seed.
    """
    seed = PROFILES[profile].seeds[0]
    frame = targets(adata, profile, seed, results)
    kept = prepared(adata, profile, seed)[0].n_vars
    facts, lines = provenance(adata, profile), claims(fitted, fields, frame, kept, adata.n_vars)
    return {
        "provenance": facts,
        "claims": lines,
        "peers": [] if peers is None else peer_claims(peers),
        "headline": headline(fitted, fields, [line["verdict"] for line in lines], facts),
        "targets": frame.reset_index(names="target").to_dict("records"),
    }

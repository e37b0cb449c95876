"""Predicted ratios against both regressions: the pancreas, other tissues, counts of any depth.

    python benchmarks/ratios.py [--seeds 5] [--jobs 2] [CASE ...]

Each seed has its own split, weights and minibatches; all settings are the defaults. ``pooled`` adds
up the counts of neighbouring pancreas cells in groups of about 20, each cell in one, within train,
val and test apart; ``simulated`` draws counts at a multiple of the usual depth, as overdispersed as
the pancreas is. Prints a JSON line per case: means over seeds, and SplicedVAE less each regression
with its paired 95 % interval.
"""

import argparse
import json
from functools import partial
from itertools import pairwise

import joblib
import numpy as np
import pandas as pd
import scvi
import torch
from anndata import AnnData
from scipy import sparse
from sklearn.cluster import KMeans

import splicedvae as sv
import splicedvae_book as lab
from splicedvae.counts import total_counts
from splicedvae_book.scorer import Scorer

FORMS = "spliced", "unspliced"
POOLED = 20  # cells whose counts are added up
#: Of the genes' concentrations on the pancreas: median, and standard deviation of the logarithm.
CONCENTRATION, SPREAD = 34, 1.0
SCORES = "d2", "within_gene_r", "calibration_slope", "pit_n_1", "pit_n_2_to_4", "pit_n_5_up"
OURS = "SplicedVAE"


def pancreas(seed: int) -> tuple[AnnData, list[np.ndarray]]:
    adata = sv.data.pancreas()
    parts = list(sv.data.split(adata, seed=seed))
    return sv.data.prepare(adata, fit_on=parts[0]), parts


def pooled(seed: int) -> tuple[AnnData, list[np.ndarray]]:
    adata, parts = pancreas(seed)
    groups = np.empty(adata.n_obs, dtype=int)
    first = [0]
    for part in parts:
        cells = adata[part].copy()
        sv.velocity.embed(cells, umap=False, overwrite=True, progress=False)
        means = KMeans(round(len(part) / POOLED), n_init=1, random_state=seed)
        groups[part] = first[-1] + means.fit_predict(cells.obsm["X_pca"])
        first.append(first[-1] + means.n_clusters)
    member = sparse.csr_matrix((np.ones(adata.n_obs, "f4"), (groups, np.arange(adata.n_obs))))
    deep = AnnData(
        layers={form: sparse.csr_matrix(member @ adata.layers[form]) for form in FORMS},
        var=adata.var[[]],
        obs=pd.DataFrame(index=[f"group {k}" for k in range(first[-1])]),
    )
    deep.X = deep.layers["total"] = total_counts(deep)
    return deep, [np.arange(a, b) for a, b in pairwise(first)]


def simulated(depth: float, seed: int) -> tuple[AnnData, list[np.ndarray]]:
    adata, rng = sv.data.simulate(1500, 400, seed), np.random.default_rng(seed)
    spliced, unspliced = (adata.layers[f"{form}_true"] for form in FORMS)
    n = rng.poisson(depth * (spliced + unspliced))
    c = CONCENTRATION * rng.lognormal(0, SPREAD, adata.n_vars)
    ratio = np.clip(spliced / np.maximum(spliced + unspliced, 1e-12), 1e-6, 1 - 1e-6)
    drawn = rng.binomial(n, rng.beta(c * ratio, c * (1 - ratio)))
    for form, counts in zip(FORMS, (drawn, n - drawn), strict=True):
        adata.layers[form] = sparse.csr_matrix(counts, dtype=np.float32)
    adata.X = total_counts(adata)
    parts = list(sv.data.split(adata, seed=seed))
    return sv.data.prepare(adata, fit_on=parts[0]), parts


def tissue(name: str, seed: int) -> tuple[AnnData, list[np.ndarray]]:
    adata = sv.data.tissues()[name]
    n = np.stack([np.asarray(adata.layers[form].sum(1)).ravel() for form in FORMS])
    adata = adata[(n > 0).all(0)].copy()
    adata.layers["total"] = total_counts(adata)
    order = np.random.default_rng(seed).permutation(adata.n_obs)
    return adata, np.split(order, (adata.n_obs * np.array([0.6, 0.7])).astype(int))


CASES = {"pancreas": pancreas, "pooled": pooled}
CASES |= {f"simulated, {depth}x": partial(simulated, depth) for depth in (1, 10, 50)}
CASES |= {name: partial(tissue, name) for name in ("brain_e18", "cortex_b01", "cortex_c01")}


def run(case: str, seed: int) -> dict[str, dict[str, float]]:
    torch.set_num_threads(1)
    lab.profiles.quiet()
    adata, (train, val, test) = CASES[case](seed)
    scvi.settings.seed = seed
    sv.SplicedVAE.setup_anndata(adata)
    model = sv.SplicedVAE(adata)
    model.train(split=(train, val), enable_progress_bar=False)
    ratios = {OURS: model.get_splicing_ratio(indices=test, return_numpy=True)}
    for way in (sv.baselines.HierarchicalBinomial, sv.baselines.RidgeBinomial):
        fitted = way(seed=seed).fit(adata[train], adata[val])
        ratios[way.__name__] = fitted.predict(adata[test])
    scorer = Scorer(adata, train, test, seed)
    return {name: scorer.report(ratio) for name, ratio in ratios.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    if unknown := set(args.cases) - set(CASES):
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    for case in args.cases:
        jobs = (joblib.delayed(run)(case, seed) for seed in range(args.seeds))
        found = joblib.Parallel(args.jobs)(jobs)
        line = {"case": case}
        for name in found[0]:
            for score in SCORES:
                line[f"{name}, {score}"] = round(float(np.mean([x[name][score] for x in found])), 4)
            if name != OURS and args.seeds > 1:
                for score in SCORES[:2]:
                    both = ([x[way][score] for x in found] for way in (OURS, name))
                    interval = sv.metrics.paired_interval(*both)
                    line[f"less {name}, {score}"] = [round(float(x), 4) for x in interval]
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

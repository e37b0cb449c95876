"""How the defaults do on cells that they were not made on, against the ridge and neighbours.

python tests/benchmarks/tissue.py CELLS.h5ad [SPLITS]

The file has raw counts in the layers spliced and unspliced; scVelo's repository keeps one of the
mouse dentate gyrus, tests/_data/dentategyrus_100obs.h5ad. Random splits, 60 / 10 / 30 %, twelve
unless told otherwise. Prints a JSON line per split with D² of each model and the calibration slope
of SplicedVAE, then one with their means and ``gain``, the mean of D² less the ridge's with half of
its 95 % interval, which takes the splits for independent (they share cells, so it is too narrow).
"""

import json
import logging
import sys

import anndata
import numpy as np
import pandas as pd
import scvi
from scipy import stats

import splicedvae as sv
from splicedvae import baselines


def split(raw: anndata.AnnData, seed: int) -> dict[str, float]:
    order = np.random.default_rng(seed).permutation(raw.n_obs)
    ends = round(0.6 * raw.n_obs), round(0.7 * raw.n_obs)
    train, val, test = (np.sort(cells) for cells in np.split(order, ends))
    adata = sv.data.prepare(raw.copy(), n_top_genes=2000, fit_on=train)
    counts = [adata.layers[layer][test] for layer in ("spliced", "unspliced")]
    mean = baselines.GeneMean().fit(adata[train], adata[val]).mean_
    few = baselines.NearestNeighbours(n_pcs=20, ks=(10, 20, 40, 60), seed=seed)  # cells are few
    ratios = {
        type(model).__name__: model.fit(adata[train], adata[val]).predict(adata[test])
        for model in (few, baselines.RidgeBinomial(seed=seed))
    }
    scvi.settings.seed = seed
    sv.SplicedVAE.setup_anndata(adata)
    model = sv.SplicedVAE(adata)
    model.train(150, split=(train, val), enable_progress_bar=False)
    ratios["SplicedVAE"] = model.get_splicing_ratio(indices=test, return_numpy=True)
    reports = {name: sv.metrics.ratio_report(*counts, p, mean) for name, p in ratios.items()}
    scores = {name: report["d2"] for name, report in reports.items()}
    return scores | {"genes": adata.n_vars, "slope": reports["SplicedVAE"]["calibration_slope"]}


def main() -> None:
    logging.disable(logging.WARNING)
    raw = anndata.read_h5ad(sys.argv[1])
    rows = []
    for seed in range(int(sys.argv[2]) if len(sys.argv) > 2 else 12):
        rows.append(split(raw, seed))
        print(json.dumps({"split": seed} | rows[-1]), flush=True)
    table = pd.DataFrame(rows)
    gain = table["SplicedVAE"] - table["RidgeBinomial"]
    half = gain.sem() * stats.t.ppf(0.975, len(gain) - 1)
    means = table.mean().round(4).to_dict() | {"gain": [round(gain.mean(), 4), round(half, 4)]}
    print(json.dumps({"benchmark": "tissue", "cells": raw.n_obs, "splits": len(rows)} | means))


if __name__ == "__main__":
    main()

"""How the defaults do where they were not made: other tissues, other genes, other counts.

python benchmarks/elsewhere.py [CASE ...] [--splits N]

A case is a file with raw counts in the layers spliced and unspliced (scVelo's repository keeps one
of the mouse dentate gyrus, tests/_data/dentategyrus_100obs.h5ad), or one of

    variable    the 500 most variable genes of the pancreas
    others      its genes without these
    spliced     a model of the pancreas that reads spliced counts alone, and not a gene's own
    simulated   3,000 simulated cells, beside their true ratios and a model without own counts

Each runs on random splits of 60 / 10 / 30 %, five unless told otherwise. Prints a JSON line per
split with D² and within-gene r of each model, on test cells, and the calibration slope of
SplicedVAE; then one with their means and the mean of ``gain``, SplicedVAE's D² less the ridge's,
with half of its 95 % interval, which takes the splits for independent (they share cells, so it is
too narrow). The ridge and nearest neighbours read totals also where SplicedVAE has spliced counts.
"""

import argparse
import json
import logging

import anndata
import numpy as np
import pandas as pd
import scvi

import splicedvae as sv
from splicedvae import baselines

CASES = ("variable", "others", "spliced", "simulated")
VARIABLE = 500  # genes
KS = (10, 20, 50, 100, 200, 400)  # neighbours to choose from, fewer where cells are few


def cells(case: str, seed: int) -> tuple[anndata.AnnData, tuple[np.ndarray, ...]]:
    """Prepared cells of a case, and positions of train, val and test."""
    if case == "simulated":
        raw = sv.data.simulate(n_obs=3000, n_vars=1000, seed=seed)
    else:
        raw = sv.data.pancreas() if case in CASES else anndata.read_h5ad(case)
        if case in CASES and raw.uns["provenance"]["simulated"]:
            raise SystemExit("The real pancreas could not be had: set SPLICEDVAE_DATA to its file.")
    parts = sv.data.split(raw, seed=seed, stratify_by="clusters" if case in CASES else None)
    adata = sv.data.prepare(raw, n_top_genes=2000, fit_on=parts[0])
    if case in ("variable", "others"):
        variable = sv.data.prepare(raw, n_top_genes=VARIABLE, fit_on=parts[0]).var_names
        chosen = adata.var_names.isin(variable) == (case == "variable")
        adata = adata[:, chosen].copy()
    return adata, parts


def predict(
    adata: anndata.AnnData, parts: tuple[np.ndarray, ...], seed: int, input="total", **kwargs
):
    """Ratios of the test cells by a SplicedVAE that is trained on the others."""
    scvi.settings.seed = seed
    sv.SplicedVAE.setup_anndata(adata, input=input)
    model = sv.SplicedVAE(adata, **kwargs)
    model.train(150, split=parts[:2], enable_progress_bar=False)
    return model.get_splicing_ratio(indices=parts[2], return_numpy=True)


def scores(case: str, seed: int) -> dict[str, float]:
    adata, parts = cells(case, seed)
    train, val, test = (adata[part] for part in parts)
    gene_mean = baselines.GeneMean().fit(train, val).mean_
    ratios = {
        type(model).__name__: model.fit(train, val).predict(test)
        for model in (baselines.NearestNeighbours(ks=KS), baselines.RidgeBinomial(seed=seed))
    }
    given = {"input": "spliced", "own_total": False} if case == "spliced" else {}
    ratios["SplicedVAE"] = predict(adata, parts, seed, **given)
    if case == "simulated":
        true = [test.layers[f"{form}_true"] for form in ("spliced", "unspliced")]
        ratios["true"] = np.asarray(true[0] / (true[0] + true[1]))
        ratios["SplicedVAE, without own total"] = predict(adata, parts, seed, own_total=False)
    counts = [test.layers[form] for form in ("spliced", "unspliced")]
    row = {}
    for name, ratio in ratios.items():
        report = sv.metrics.ratio_report(*counts, ratio, gene_mean)
        row |= {f"{name}: d2": report["d2"], f"{name}: r": report["within_gene_r"]}
        if name == "SplicedVAE":
            row["slope"] = report["calibration_slope"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", default=CASES)
    parser.add_argument("--splits", type=int, default=5)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    for case in args.cases:
        rows = []
        for seed in range(args.splits):
            rows.append(scores(case, seed))
            print(json.dumps({"case": case, "split": seed} | rows[-1]), flush=True)
        table = pd.DataFrame(rows)
        pair = (table[f"{name}: d2"].to_numpy() for name in ("SplicedVAE", "RidgeBinomial"))
        gain, _, high = sv.metrics.paired_interval(*pair)
        means = table.mean().round(4).to_dict() | {"gain": [round(gain, 4), round(high - gain, 4)]}
        print(json.dumps({"benchmark": "elsewhere", "case": case, "splits": len(rows)} | means))


if __name__ == "__main__":
    main()

"""Verdicts of sv.trust on queries whose outcome is known: does it believe what it should?

    python benchmarks/trust.py [--draws 5] [--fields 5] [--models FOLDER] [--aside] [KIND ...]

Prints a JSON line per query, and then a table: by kind, verdicts against outcomes. A query is bad
if its within-gene r is below a quarter of that of the training's held-out cells, or if its velocity
is more than 45 degrees off on the embedding of its own cells; where the true velocity is not
defined, as for noise or 200 genes, or in draws beyond --fields, r and the kind's other draws
decide. What is normalised is bad. For held-out pancreas cells also the rank correlation of low
support with a cell's true angle of error.

The kinds of ``ASIDE`` were fixed before anything was tuned; they are run with ``--aside`` only.
Trained models are kept in FOLDER. Simulated queries are made from real cells unless a line says
otherwise.
"""

import argparse
import json
import logging
import warnings
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scvi
from scipy import sparse
from scipy.stats import spearmanr

import splicedvae as sv
from splicedvae import metrics, velocity
from splicedvae.counts import split_counts
from splicedvae.trust import calibration

FORMS = "spliced", "unspliced"
CELLS = 250  # of a query
MIN_GENES = 250  # the sets with 200 genes are for ratios, not for velocity
LEFT_OUT = "Beta"
Query = tuple[anndata.AnnData, anndata.AnnData]  # what the user has, and its true counts


# queries: each takes held-out cells with true counts and a generator


def _shown(truth: anndata.AnnData, counts=None) -> Query:
    counts = truth.layers["total"] if counts is None else counts
    shown = anndata.AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=truth.obs[[]].copy())
    shown.var_names = truth.var_names
    return shown, truth


def _with_forms(truth: anndata.AnnData, spliced, unspliced) -> anndata.AnnData:
    truth = truth.copy()
    for name, layer in (
        ("spliced", spliced),
        ("unspliced", unspliced),
        ("total", spliced + unspliced),
    ):
        truth.layers[name] = sparse.csr_matrix(layer, dtype=np.float32)
    return truth


def _forms(truth: anndata.AnnData) -> list[np.ndarray]:
    return [truth.layers[form].toarray().astype(int) for form in FORMS]


def held_out(truth, rng) -> Query:
    return _shown(truth)


def spliced_only(truth, rng) -> Query:
    return _shown(truth, truth.layers["spliced"])


def genes_permuted(truth, rng) -> Query:
    order = rng.permutation(truth.n_vars)
    return _shown(_with_forms(truth, *(x[:, order] for x in _forms(truth))))


def poisson_noise(truth, rng) -> Query:
    s, u = _forms(truth)
    total = s + u
    noise = rng.poisson(total.sum(1, keepdims=True) * total.sum(0) / total.sum())
    spliced = rng.binomial(noise, s.sum(0) / np.maximum(total.sum(0), 1))
    return _shown(_with_forms(truth, spliced, noise - spliced))


def cells_shuffled(truth, rng) -> Query:
    pair = _forms(truth)
    order = rng.permuted(np.tile(np.arange(truth.n_obs)[:, None], truth.n_vars), axis=0)
    return _shown(_with_forms(truth, *(np.take_along_axis(x, order, 0) for x in pair)))


def genes_missing(truth, rng, share=0.5) -> Query:
    kept = np.sort(rng.permutation(truth.n_vars)[: round((1 - share) * truth.n_vars)])
    return _shown(truth[:, kept].copy())


def normalised(truth, rng) -> Query:
    x = truth.layers["total"].toarray()
    return _shown(truth, np.log1p(1e4 * x / x.sum(1, keepdims=True)))


def thinned(truth, rng, depth=0.03) -> Query:
    s, u = (rng.binomial(x, depth) for x in _forms(truth))
    full = (s + u).sum(1) > 0
    return _shown(_with_forms(truth[full], s[full], u[full]))


def ambient(truth, rng, share=0.5) -> Query:
    """Half of each cell's molecules are replaced by those that float between cells."""
    s, u = (rng.binomial(x, 1 - share) for x in _forms(truth))
    size = truth.layers["total"].toarray().sum(1, keepdims=True)
    pool = [x.sum(0) for x in _forms(truth)]
    soup = [rng.poisson(size * share * x / sum(x.sum() for x in pool)) for x in pool]
    shown = s + u + sum(soup)
    return _shown(truth, shown)


def doublets(truth, rng) -> Query:
    other = rng.permutation(truth.n_obs)
    return _shown(_with_forms(truth, *(x + x[other] for x in _forms(truth))))


def nuclei(truth, rng) -> Query:
    """Most spliced molecules are lost with the cytoplasm: simulated from whole cells."""
    s, u = _forms(truth)
    return _shown(_with_forms(truth, rng.binomial(s, 0.15), u))


def second_batch(truth, rng) -> Query:
    """Half as deep, and each gene's forms captured anew, by factors of 1.35 either way."""
    pair = (
        rng.binomial(x, np.minimum(0.5 * rng.lognormal(0, 0.3, x.shape[1]), 1))
        for x in _forms(truth)
    )
    return _shown(_with_forms(truth, *pair))


PANCREAS = {
    "held-out cells": held_out,
    "spliced counts as totals": spliced_only,
    "genes permuted": genes_permuted,
    "Poisson noise": poisson_noise,
    "half the genes missing": genes_missing,
    "normalised": normalised,
    "3 % of the molecules": thinned,
    "30 % of the molecules": partial(thinned, depth=0.3),
}
ASIDE = {
    "cells shuffled within genes": cells_shuffled,
    "half ambient": ambient,
    "doublets": doublets,
    "nuclei (simulated from cells)": nuclei,
    "second batch (simulated from cells)": second_batch,
    f"{LEFT_OUT} left out": held_out,
}
OTHERS = ("another library", "another tissue", "spliced counts of another library")
SIMULATED = ("same simulated tissue", "another simulated tissue")


# models


def _model(folder: Path, name: str, cells, seed: int, epochs: int = 150) -> sv.SplicedVAE:
    """A calibrated model of some cells, of which a seventh validates; kept in the folder."""
    if (folder / name).exists():
        return sv.SplicedVAE.load(str(folder / name))
    order = np.random.default_rng(seed).permutation(cells.n_obs)
    scvi.settings.seed = seed
    sv.SplicedVAE.setup_anndata(cells)
    model = sv.SplicedVAE(cells)
    parts = np.split(order, [round(6 / 7 * cells.n_obs)])
    model.train(epochs, split=parts, enable_progress_bar=False)
    calibration(model)
    model.save(str(folder / name), save_anndata=True)
    return model


def _bare(cells: anndata.AnnData) -> anndata.AnnData:
    layers = {form: sparse.csr_matrix(cells.layers[form], dtype=np.float32) for form in FORMS}
    bare = anndata.AnnData(layers["spliced"], obs=cells.obs.copy(), layers=layers)
    bare.var_names = cells.var_names
    bare.layers["total"] = bare.layers["spliced"] + bare.layers["unspliced"]
    counted = np.asarray(bare.layers["total"].sum(1)).ravel() > 0
    return bare[counted].copy()


def pancreas(folder: Path, left_out: str | None = None):
    """A model of the pancreas's training cells, and its test cells; or without a cell type."""
    raw = sv.data.pancreas()
    parts = sv.data.split(raw)
    cells = _bare(sv.data.prepare(raw, n_top_genes=2000, fit_on=parts[0]))
    known, test = cells[np.concatenate(parts[:2])].copy(), cells[parts[2]].copy()
    if left_out is None:
        return _model(folder, "pancreas", known, 0), test
    known = known[known.obs["clusters"] != left_out].copy()
    test = cells[cells.obs["clusters"] == left_out].copy()
    return _model(folder, f"pancreas without {left_out}", known, 0, 60), test


# outcomes


def outcome(shown, truth, model, known, with_field: bool) -> dict[str, float]:
    """Within-gene r, as a share of the held-out training cells', and the angle of the field."""
    try:
        query = sv.SplicedVAE.prepare_query_anndata(shown, model)
    except ValueError:  # no counts
        return {"r_share": float("nan"), "angle": float("nan"), "good": False}
    where = model.genes.get_indexer(truth.var_names)
    ratio = model.get_splicing_ratio(query, return_numpy=True)[:, where]
    s, u = (truth.layers[form] for form in FORMS)
    mean = np.asarray((s.sum(0) + 0.5) / (s.sum(0) + u.sum(0) + 1)).ravel()
    r = metrics.ratio_report(s, u, ratio, mean)["within_gene_r"] / float(known["curve_r"].max())
    counts = query.layers["total"][:, where]
    angle = float("nan")
    if with_field and truth.n_vars >= MIN_GENES:
        angle = float(np.mean(errors(truth, counts, ratio, model, where)))
    return {"r_share": r, "angle": angle, "good": r >= 0.25 and not angle > 45}


def errors(truth, counts, ratio, model, where) -> np.ndarray:
    """Angle between each cell's predicted and true arrow, NaN where there is no true velocity."""
    reference = anndata.AnnData(truth.layers["total"], layers=dict(truth.layers))
    try:
        velocity.embed(reference)
        cells = reference.copy()
        velocity.fit(reference)
    except ValueError:
        return np.array([np.nan])
    pair = split_counts(sparse.csr_matrix(counts), ratio, "total", 0.05)
    cells.layers["spliced"], cells.layers["unspliced"] = pair
    c = model.module.head.log_concentration.detach().exp().cpu().numpy()
    cells.var["c"] = c[where]
    try:
        velocity.fit(cells, concentration="c", n_draws=3)
    except ValueError:  # no gene has a slope
        return np.full(cells.n_obs, 90.0)
    a, b = (x.obsm["velocity_umap"] for x in (reference, cells))
    norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.degrees(np.arccos(np.clip((a * b).sum(1) / np.maximum(norm, 1e-12), -1, 1)))


def queries(kinds, folder: Path):
    """Yield kind, model, and a function that makes a query of it from a generator."""
    wanted = {k: v for k, v in (PANCREAS | ASIDE).items() if k in kinds and LEFT_OUT not in k}
    if wanted:
        model, test = pancreas(folder)
        for kind, make in wanted.items():
            yield kind, model, test, make
    if (kind := f"{LEFT_OUT} left out") in kinds:
        yield kind, *pancreas(folder, LEFT_OUT), held_out
    if set(OTHERS) & set(kinds):
        sets = {k: _bare(v) for k, v in sv.data.tissues().items()}
        model = _model(folder, "cortex_b01", sets["cortex_b01"], 0)
        for kind, name, make in zip(
            OTHERS,
            ("cortex_c01", "brain_e18", "cortex_c01"),
            (held_out, held_out, spliced_only),
            strict=True,
        ):
            if kind in kinds:
                yield kind, model, sets[name], make
    if set(SIMULATED) & set(kinds):
        cells = sv.data.prepare(sv.data.simulate(2000, 300))
        model = _model(folder, "simulated", _bare(cells[:1500]), 0, 60)
        other = sv.data.simulate(600, 300, programme_seed=1)[:, cells.var_names]
        for kind, test in zip(SIMULATED, (cells[1500:], other), strict=True):
            if kind in kinds:
                yield kind, model, _bare(test), held_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--fields", type=int, default=5, help="draws whose velocity is measured")
    parser.add_argument("--models", type=Path, default=Path("_build/trust"))
    parser.add_argument("--aside", action="store_true", help="also the kinds that were kept aside")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    args.models.mkdir(parents=True, exist_ok=True)
    kinds = args.kinds or [*PANCREAS, *OTHERS, *SIMULATED, *(ASIDE if args.aside else ())]
    rows = []
    for kind, model, test, make in queries(kinds, args.models):
        known = calibration(model)
        for draw in range(args.draws):
            rng = np.random.default_rng(draw)
            some = test[np.sort(rng.permutation(test.n_obs)[:CELLS])].copy()
            shown, truth = make(some, rng)
            found = sv.trust(shown, model)
            row = {"kind": kind, "draw": draw, "verdict": found.verdict}
            row["expected"] = round(found.expected_angle, 1)
            row |= outcome(shown, truth, model, known, draw < args.fields)
            keys = "structure", "ratio_share", "capture", "capture_low", "capture_high", "far"
            row |= {k: round(found.scores.get(k, np.nan), 3) for k in keys}
            if kind == "held-out cells" and draw < args.fields:
                query = sv.SplicedVAE.prepare_query_anndata(shown, model)
                ratio = model.get_splicing_ratio(query, return_numpy=True)
                every = np.arange(model.module.n_input)
                error = errors(truth, query.layers["total"], ratio, model, every)
                support = shown.obs["splicedvae_support"]
                row["rank correlation"] = round(-float(spearmanr(support, error)[0]), 3)
            rows.append(row)
            print(json.dumps(row, default=bool), flush=True)
    table = pd.DataFrame(rows)
    astray = table.groupby("kind")["angle"].transform("mean") > 45
    table["good"] = table["good"].astype(bool) & ~astray
    table["outcome"] = np.where(table["good"], "good", "bad")
    print(pd.crosstab([table["kind"], table["outcome"]], table["verdict"]))
    good = table[table["good"]]
    summary = {
        "benchmark": "trust",
        "bad queries that get trust": int((~table["good"] & (table["verdict"] == "trust")).sum()),
        "share of good queries that get trust": float((good["verdict"] == "trust").mean()),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()

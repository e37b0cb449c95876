"""Results that chapters share, made once: `make results` calls this, and so does `make book`."""

import json
import time
from pathlib import Path

import pandas as pd

import splicedvae_book as lab
from splicedvae_book.stage import run_all

PAIRS = [
    ("fits", "SplicedVAE", "RidgeBinomial", "d2"),
    ("fits", "SplicedVAE", "RidgeBinomial, whitened", "d2"),
    ("fits", "SplicedVAE", "RidgeBinomial, whitened", "within_gene_r"),
    ("fits", "SplicedVAE", "HierarchicalBinomial", "d2"),
    ("fits", "SplicedVAE", "HierarchicalBinomial", "within_gene_r"),
    ("fits", "SplicedVAE", "SplicedVAE, detached head", "d2"),
    ("fits", "SplicedVAE", "SplicedVAE, detached head", "elbo"),
    ("fits", "SplicedVAE, latent alone", "SplicedVAE, detached, latent alone", "d2"),
    ("fits", "SplicedVAE, latent alone", "SplicedVAE, detached, latent alone", "elbo"),
    ("fits", "SplicedVAE", "scVI", "elbo"),
    ("fields", "SplicedVAE", "GeneMean", "cosine"),
    ("fields", "SplicedVAE", "constant velocity", "cosine"),
    ("fields", "SplicedVAE", "velocity transfer", "cosine"),
    ("fields", "SplicedVAE", "NearestNeighbours", "cosine"),
    ("fields", "SplicedVAE", "RidgeBinomial", "cosine"),
    ("fields", "SplicedVAE", "HierarchicalBinomial", "cosine"),
    ("fields", "SplicedVAE", f"NearestNeighbours{lab.fields.NO_DRAWS}", "cosine"),
    ("fields", "SplicedVAE", "SplicedVAE, binomial draws", "cosine"),
    ("fields", "SplicedVAE", f"SplicedVAE{lab.fields.IF_TRUE}", "cosine"),
    ("fields", "SplicedVAE, other half", "GeneMean, other half", "cosine"),
    ("fields", "SplicedVAE, other half", "NearestNeighbours, other half", "cosine"),
    ("fields", "SplicedVAE, other half", "HierarchicalBinomial, other half", "cosine"),
    ("fields", "SplicedVAE, other half", "velocity transfer, other half", "cosine"),
    ("fields", "SplicedVAE, other half", "half versus half", "cosine"),
    ("fields", "SplicedVAE", "GeneMean", "accuracy"),
    ("fields", "SplicedVAE", "NearestNeighbours", "accuracy"),
    ("fields", "SplicedVAE", "RidgeBinomial", "accuracy"),
    ("fields", "SplicedVAE", "HierarchicalBinomial", "accuracy"),
    *(
        ("fields", "SplicedVAE", f"{name}{lab.fields.NO_DRAWS}", "accuracy")
        for name in lab.fields.BASELINES
    ),
    ("fields", "SplicedVAE", "cluster majority", "accuracy"),
    ("fields", "SplicedVAE", "Velo-Predictor, honest, spliced counts", "accuracy"),
    *(
        ("peers", "SplicedVAE", name, score)
        for name in lab.scorecard.peer_names()
        for score in ("cosine", "accuracy")
    ),
    ("pretraining", "pretrained, 200", "scratch, 200", "d2"),
    ("pretraining", "pretrained, 200", "scratch, 200", "elbo"),
    ("searches", "grid, 1, test", "grid, default, test", "d2"),
    ("searches", "grid, 1, test", "grid, RidgeBinomial, test", "d2"),
    ("depth", "SplicedVAE", "scVelo, depth 0.1", "cosine"),
]


def run(profile: str, out: Path) -> None:
    """Compute what is missing of a profile's results, write the tables and print their means.

    Parameters
    ----------
    profile
        ``"smoke"``, ``"standard"`` or ``"full"``.
    out
        Folder of the results. There, ``<stage>-<profile>.csv`` has a line per model or field and
        seed, ``scorecard.json`` the paper's claims, and ``headline.md`` what the first page shows.
    """
    lab.profiles.quiet()
    adata = lab.profiles.load(profile)
    stages = {name: getattr(lab, name).stage for name in lab.STAGES}
    start = time.perf_counter()
    run_all(stages.values(), adata, profile, out)
    elapsed = time.perf_counter() - start
    jobs = {name: stage.run(adata, profile, out) for name, stage in stages.items()}
    tables = {name: lab.experiment.table(done) for name, done in jobs.items()}
    seeds = lab.profiles.PROFILES[profile].seeds
    print(f"\n{adata.uns['provenance']['name']}; test cells, mean over {len(seeds)} seed(s)")
    for name, stage in stages.items():
        tables[name].to_csv(out / f"{name}-{profile}.csv")
        means = tables[name][list(stage.shown)].groupby("model", sort=False).mean()
        print(f"\n{name}\n{means.round(4).to_string(na_rep='–')}")
    seconds = pd.DataFrame([job | {"stage": name} for name in jobs for job in jobs[name]])
    seconds = seconds.groupby("stage", sort=False)["seconds"].agg(["sum", "max"])
    print(f"\n{elapsed:.0f} s for what was missing. Seconds of each stage's jobs, and its longest")
    print(seconds.round().astype(int).to_string())
    print("\nDifferences paired by seed, with 95 % intervals")
    for stage, a, b, score in PAIRS:
        if not {a, b} <= set(tables[stage].index.unique("model")):
            continue  # a thinned run lacks the larger sizes
        if tables[stage].loc[[a, b], score].isna().any():
            continue  # a method whose package is absent
        gap = lab.experiment.format_difference(tables[stage], a, b, score, 4)
        print(f"{score}: {a} − {b}: {gap}")

    given = (tables[name] for name in ("fits", "fields", "peers"))
    card = lab.scorecard.scorecard(adata, profile, out, *given)
    (out / "scorecard.json").write_text(json.dumps(card, indent=1, ensure_ascii=False))
    (out / "headline.md").write_text(card["headline"] + "\n")
    claims = pd.DataFrame(card["claims"] + card["peers"]).set_index("claim")
    print(f"\nscorecard\n{claims[['paper', 'verdict']].to_string()}")


def pack(out: Path, target: Path) -> None:
    """Write the archives that a release holds, for chapters that run alone.

    Parameters
    ----------
    out
        Folder of the results, those of the standard profile.
    target
        Folder of the archives.
    """
    lab.profiles.quiet()
    stages = [getattr(lab, name).stage for name in lab.STAGES]
    for file in lab.published.pack(stages, out, target):
        print(f"{file.name:36} {file.stat().st_size / 1e6:7.1f} MB")

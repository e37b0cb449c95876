"""The fits that chapters share, made once: `make results` calls this, and so does `make book`."""

from pathlib import Path

import splicedvae_book as lab

SHOWN = ["d2", "within_gene_r", "rmse_observed", "r_observed", "elbo", "silhouette"]
PAIRS = [
    ("SplicedVAE", "RidgeBinomial", "d2"),
    ("SplicedVAE", "SplicedVAE, detached head", "d2"),
    ("SplicedVAE", "SplicedVAE, detached head", "elbo"),
    ("SplicedVAE", "scVI", "elbo"),
]


def run(profile: str, out: Path) -> None:
    """Compute what is missing of a profile's results, write the table and print its means.

    Parameters
    ----------
    profile
        ``"smoke"``, ``"standard"`` or ``"full"``.
    out
        Folder of the results; the table is ``scores-<profile>.csv`` there, a line per model and
        seed.
    """
    lab.profiles.quiet()
    adata = lab.profiles.load(profile)
    scores = lab.experiment.table(lab.experiment.run(lab.fits, adata, profile, out))
    scores.to_csv(out / f"scores-{profile}.csv")

    seeds = scores.index.get_level_values("seed").nunique()
    print(f"\n{adata.uns['provenance']['name']}; test cells, mean over {seeds} seed(s)")
    print(scores[SHOWN].groupby("model", sort=False).mean().round(4).to_string(na_rep="–"))
    print("\nDifferences paired by seed, with 95 % intervals")
    for a, b, score in PAIRS:
        mean, low, high = lab.experiment.difference(scores, a, b, score)
        print(f"{score}: {a} − {b}: {mean:+.4f} [{low:+.4f}, {high:+.4f}]")

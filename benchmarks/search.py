"""Time the paper's search, 90 configurations of 50 epochs, and what a trial adds to its training.

Prints one JSON line. On the real pancreas if it can be had: ``python benchmarks/search.py``.
The memory is an upper bound: this process, and each worker as large as the largest.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import torch

import splicedvae as sv
from splicedvae.search._trials import fit


def trial_overhead(cells, parts, epochs: int, folder: str, repeats: int = 3) -> float:
    """Seconds of trials over seconds of bare trainings of the same configurations, in turn."""
    trials = bare = 0.0
    for n in range(1, repeats + 1):
        study = sv.search.run(
            cells,
            parts,
            n_trials=n,
            max_epochs=epochs,
            storage=f"sqlite:///{folder}/overhead.db",
            progress=False,
        )
        trials += sv.search.table(study)["seconds"].iloc[-1]
        (parameters,) = (p for k, p in sv.search.top(study, n).items() if k == n - 1)
        start = time.perf_counter()
        fit(cells, parameters, parts, epochs, seed=n - 1)
        bare += time.perf_counter() - start
    return trials / bare


def main() -> None:
    """Search and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=90)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(1)
    cells = sv.data.pancreas()
    *parts, _ = sv.data.split(cells)
    source = cells.uns["provenance"]["name"]
    cells = sv.data.prepare(cells, n_top_genes=2000, fit_on=parts[0])
    sv.SplicedVAE.setup_anndata(cells)
    with tempfile.TemporaryDirectory() as folder:
        overhead = trial_overhead(cells, parts, args.epochs, folder)
        start = time.perf_counter()
        study = sv.search.run(
            cells,
            parts,
            n_trials=args.trials,
            max_epochs=args.epochs,
            n_workers=args.workers,
            storage=f"sqlite:///{Path(folder) / 'search.db'}",
        )
        seconds = time.perf_counter() - start
    own, child = (
        resource.getrusage(who).ru_maxrss / 2**20  # KiB on Linux
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    result = {
        "benchmark": "search",
        "data": f"{source}, {cells.n_obs} × {cells.n_vars}",
        "epochs": args.epochs,
        "workers": args.workers,
        "states": sv.search.table(study)["state"].value_counts().to_dict(),
        "minutes": round(seconds / 60, 1),
        "gib": round(own + args.workers * child, 2),
        "trial_over_training": round(overhead, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

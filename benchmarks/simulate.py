"""How long the simulated pancreas takes: 3,000 cells × 1,000 genes, the default.

python benchmarks/simulate.py

Prints one JSON line; ``ratio`` is the time against that of writing the same cells to disk, which
tells a slow machine from a slow simulation.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import splicedvae as sv


def main() -> None:
    simulating, writing = [], []
    for seed in range(5):
        start = time.perf_counter()
        adata = sv.data.simulate(seed=seed)
        simulating.append(time.perf_counter() - start)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            adata.write_h5ad(Path(folder) / "cells.h5ad")
            writing.append(time.perf_counter() - start)
    print(
        json.dumps(
            {
                "benchmark": "simulate",
                "cells": adata.n_obs,
                "genes": adata.n_vars,
                "seconds": round(statistics.median(simulating), 2),
                "seconds_range": [round(min(simulating), 2), round(max(simulating), 2)],
                "ratio": round(
                    statistics.median(a / b for a, b in zip(simulating, writing, strict=True)), 2
                ),
            }
        )
    )


if __name__ == "__main__":
    main()

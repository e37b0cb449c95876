"""What `impute_layers` takes: cells a second, and its peak of memory beside its result.

    python benchmarks/imputation.py [--cells 100000] [--genes 2000]

The cells are simulated, an epoch trains the model. Prints one JSON line; ``peak`` is the largest
memory during the call less that before it, as a multiple of the two layers that it writes.
"""

import argparse
import json
import threading
import time

import anndata
import numpy as np
import psutil
from scipy import sparse

import splicedvae as sv
import splicedvae_book as lab


class Peak(threading.Thread):
    """Largest resident memory of this process while it runs, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.process, self.bytes, self.stopped = psutil.Process(), 0, threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.01):
            self.bytes = max(self.bytes, self.process.memory_info().rss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=2000)
    args = parser.parse_args()
    lab.profiles.quiet()
    few = sv.data.simulate(n_obs=2000, n_vars=args.genes, seed=0)
    sv.SplicedVAE.setup_anndata(few)
    model = sv.SplicedVAE(few)
    model.train(1, enable_progress_bar=False)
    copies = -(-args.cells // few.n_obs)
    layers = {
        name: sparse.vstack([few.layers[name]] * copies, format="csr")[: args.cells]
        for name in ("spliced", "unspliced", "total")
    }
    many = anndata.AnnData(obs={"cell": np.arange(args.cells)}, var=few.var[[]], layers=layers)
    model._validate_anndata(many)  # scvi-tools registers the cells, and copies nothing
    before, peak = psutil.Process().memory_info().rss, Peak()
    peak.start()
    start = time.perf_counter()
    model.impute_layers(many)
    seconds = time.perf_counter() - start
    peak.stopped.set()
    peak.join()
    written = [many.layers[f"{name}_splicedvae"] for name in ("spliced", "unspliced")]
    result = sum(x.data.nbytes + x.indices.nbytes + x.indptr.nbytes for x in written)
    print(
        json.dumps(
            {
                "benchmark": "imputation",
                "cells": args.cells,
                "genes": args.genes,
                "counted": round(written[0].nnz / args.cells / args.genes, 3),
                "cells_per_second": round(args.cells / seconds),
                "result_gib": round(result / 2**30, 2),
                "peak": round((peak.bytes - before) / result, 2),
            }
        )
    )


if __name__ == "__main__":
    main()

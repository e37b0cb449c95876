"""Build a store of 8,000 of 36,000 genes from Velocyto h5ads: cells per second, bytes, memory.

Prints one JSON line: ``python benchmarks/store.py``. The cells are random, with about 1,452
nonzero counts over the kept genes, spliced and unspliced; files are compressed by gzip and have the
three layers. Samples are links to one file, so the disk's own speed is not in the figures. Workers
have imported everything before the clock starts.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from splicedvae.atlas.store import build_store

GENES, KEPT = 36_000, 8_000
LOG_SD = 2.0  # over genes, of their mean counts
MEAN_COUNTS = {"spliced": 1900, "unspliced": 620, "ambiguous": 180}  # per cell, of all genes


def write(file: Path, n_cells: int, kept_only: bool = False) -> float:
    """Write a sample; give the mean number of nonzeros per cell in the kept genes."""
    rng = np.random.default_rng(0)
    means = np.sort(rng.lognormal(0, LOG_SD, GENES))[::-1]
    layers = {}
    for name, depth in MEAN_COUNTS.items():
        share = (means * rng.lognormal(0, 0.7, GENES)).cumsum()
        counts = rng.poisson(depth * rng.lognormal(-0.08, 0.4, n_cells))
        genes = np.searchsorted(share / share[-1], rng.random(counts.sum()))
        cells = np.repeat(np.arange(n_cells), counts)
        ones = np.ones(len(genes), np.float32)
        layers[name] = sparse.coo_matrix((ones, (cells, genes)), (n_cells, GENES)).tocsr()
    nonzeros = sum(layers[name][:, :KEPT].nnz for name in ("spliced", "unspliced")) / n_cells
    var = pd.DataFrame(
        {"gene_ids": [f"ENSG{i:011d}" for i in range(GENES)]},
        index=[f"gene{i}" for i in range(GENES)],
    )
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(n_cells)])
    if kept_only:
        del layers["ambiguous"]
        x, order = None, np.arange(KEPT)
    else:
        x, order = layers["spliced"], rng.permutation(GENES)
    AnnData(x, obs=obs, var=var, layers=layers)[:, order].write_h5ad(file, compression="gzip")
    return nonzeros


def size(path: Path) -> int:
    """Bytes of all files."""
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def peak() -> float:
    """GiB of the largest worker, so far."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    status = [Path(f"/proc/{child}/status").read_text() for child in children]
    return max(int(text.split("VmHWM:")[1].split()[0]) for text in status) / 2**20


def main() -> None:
    """Write the samples, build the store, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    genes = pd.Index([f"ENSG{i:011d}" for i in range(KEPT)])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        nonzeros = write(root / "0.h5ad", args.cells)
        write(root / "kept.h5ad", args.cells, kept_only=True)
        for i in range(1, args.samples):
            (root / f"{i}.h5ad").hardlink_to(root / "0.h5ad")
        plan = pd.DataFrame(
            {
                "file": [str(root / f"{i}.h5ad") for i in range(args.samples)],
                "n_take": args.cells,
                "seed": range(args.samples),
            },
            index=[f"SRX{i}" for i in range(args.samples)],
        )
        warm = plan.assign(n_take=10)[: args.jobs]
        build_store(warm, root / "warm", genes, n_jobs=args.jobs, shard_cells=10, progress=False)
        before, load = peak(), os.getloadavg()[0]
        start = time.perf_counter()
        store = build_store(plan, root / "store", genes, n_jobs=args.jobs, progress=False)
        seconds, after = time.perf_counter() - start, peak()
        stored, given = size(root / "store"), args.samples * (root / "0.h5ad").stat().st_size
        bare = args.samples * (root / "kept.h5ad").stat().st_size
    result = {
        "benchmark": "store",
        "cells": store.n_obs,
        "nonzeros_per_cell": round(nonzeros),
        "load": [round(load, 1), os.cpu_count()],
        "seconds": round(seconds, 1),
        "cells_per_second": round(store.n_obs / seconds),
        "store_bytes_per_cell": round(stored / store.n_obs),
        "store_over_h5ads": round(stored / given, 3),
        "store_over_h5ads_of_the_same_counts": round(stored / bare, 3),
        "worker_gib_before": round(before, 2),
        "worker_gib": round(after, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

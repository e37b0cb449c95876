"""Stream a store of 8,000 genes, sparse and dense, and compare with AnnDataLoader on an h5ad.

Prints one JSON line: cells per second; and the peak memory of a fresh process that streams a
million cells, of a store of 100,000 in ten epochs, and of a store of a million in one. The cells
are simulated, and building the larger store takes most of the time: ``--folder`` keeps both.
``python benchmarks/loader.py``, on Linux.
"""

import argparse
import json
import os
import platform
import re
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scvi
import torch
from scipy import sparse

from splicedvae import atlas
from splicedvae.atlas.blocks import BlockSampler
from splicedvae.atlas.loader import _Minibatches

GENES, NONZEROS, SAMPLE, TISSUES = 8000, 1452, 8192, 16
BATCH = 1024


def simulate(file: Path) -> None:
    """Poisson counts: as many nonzeros in spliced and unspliced together as real cells have."""
    rng = np.random.default_rng(0)
    rates = np.exp(rng.normal(-4, 1.9, 2 * GENES))
    for _ in range(50):
        rates *= NONZEROS / -np.expm1(-rates).sum()
    draws = (rng.poisson(rates, (512, 2 * GENES)) for _ in range(SAMPLE // 512))
    x = sparse.vstack([sparse.csr_matrix(some, dtype=np.float32) for some in draws], format="csr")
    names = [f"ENSG{i:011d}" for i in range(GENES)]
    layers = {"spliced": x[:, :GENES], "unspliced": x[:, GENES:]}
    cells = anndata.AnnData(layers["spliced"], var=pd.DataFrame(index=names), layers=layers)
    cells.obs_names = [f"cell{i}" for i in range(SAMPLE)]
    cells.write_h5ad(file, compression="gzip")
    both = anndata.AnnData(sparse.vstack([x] * 4, format="csr"))
    for name, compression in (("gzip", "gzip"), ("plain", None)):
        both.write_h5ad(file.with_name(f"{name}.h5ad"), compression=compression)


def build(folder: Path, n_cells: int) -> Path:
    """A store of the same cells under many accessions, in tissues of their own."""
    n = -(-n_cells // SAMPLE)
    plan = pd.DataFrame(
        {
            "file": str(folder / "sample.h5ad"),
            "n_take": np.minimum(SAMPLE, n_cells - SAMPLE * np.arange(n)),
            "seed": np.arange(n),
            "tissue": [f"tissue {i % TISSUES}" for i in range(n)],
        },
        index=pd.Index([f"SRX{i}" for i in range(n)], name="sample"),
    )
    genes = anndata.read_h5ad(folder / "sample.h5ad", backed="r").var_names
    path = folder / f"{n_cells}.store"
    atlas.build_store(plan, path, genes, n_jobs=os.cpu_count())
    return path


def stream(path: Path, engine: str, sparsely: bool, epochs: int = 1) -> dict[str, float]:
    """Epochs, as they travel to a GPU or as they are used on the CPU, and the peak memory."""
    torch.set_num_threads(1)
    module = atlas.AtlasDataModule(atlas.Store(path), batch_size=BATCH, engine=engine)
    sampler = BlockSampler(module.rows["train"], **module.sampling)
    start, cells, counts = time.perf_counter(), 0, 0.0
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for batch in _Minibatches(module, sampler, on_device=sparsely):
            cells += len(batch["batch"])
            counts += float(batch["values" if sparsely else "X"][-1].sum())  # it is there
    assert cells == epochs * module.n_train and counts > 0
    seconds = time.perf_counter() - start
    # of this program alone: ru_maxrss begins with what the process that started it had
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    gib = int(peak[1]) / 2**20
    return {"rate": cells / seconds, "gib": gib} | atlas.minibatch_entropy(module)


def annloader(file: Path, batches: int = 8) -> float:
    """Cells per second of scvi-tools' own loader, shuffled and dense, on 32,768 cells."""
    torch.set_num_threads(1)
    cells = anndata.read_h5ad(file, backed="r")
    scvi.model.SCVI.setup_anndata(cells)
    manager = scvi.model.SCVI._get_most_recent_anndata_manager(cells)
    loader = scvi.dataloaders.AnnDataLoader(manager, batch_size=BATCH, shuffle=True)
    start = time.perf_counter()
    n = sum(len(batch["X"]) for batch in islice(loader, batches))
    return n / (time.perf_counter() - start)


def fresh(function, *args):
    """What a function returns in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def main() -> None:
    """Build, stream and compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", choices=("anndata", "annbatch"), default="anndata")
    parser.add_argument("--cells", type=int, nargs=2, default=(100_000, 1_000_000))
    parser.add_argument("--folder", type=Path, help="to keep the stores in")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        if not (folder / "plain.h5ad").exists():
            simulate(folder / "sample.h5ad")
        small, large = (build(folder, n) for n in args.cells)
        sparsely = fresh(stream, small, args.engine, True)
        # the peak is reached after some hundred thousand cells: as many of them from either
        densely = fresh(stream, small, args.engine, False, args.cells[1] // args.cells[0])
        much = fresh(stream, large, args.engine, False)
        theirs = {n: fresh(annloader, folder / f"{n}.h5ad") for n in ("gzip", "plain")}
    figures = {
        "benchmark": "loader",
        "engine": args.engine,
        "python": platform.python_version(),
        "columns": 2 * GENES,
        "nonzeros": NONZEROS,
        "cells": list(args.cells),
        "sparse cells/s": round(sparsely["rate"]),
        "dense cells/s": round(densely["rate"]),
        "AnnDataLoader cells/s": {name: round(rate) for name, rate in theirs.items()},
        "dense, times AnnDataLoader on gzip": round(densely["rate"] / theirs["gzip"], 1),
        "GiB": [round(densely["gib"], 2), round(much["gib"], 2)],
        "memory ratio": round(much["gib"] / densely["gib"], 3),
        "tissue entropy": {k: round(much[k], 3) for k in ("minibatches", "ideal", "unshuffled")},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

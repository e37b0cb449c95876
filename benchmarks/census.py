"""Read and transplant a checkpoint of Census size: 8,000 genes, 50 latent, 2 × 128, 3,000 batches.

Prints one JSON line: seconds, and memory beyond what Python, the libraries and the cells take.
The checkpoint is written here by ``SCVI.save``, untrained. ``python benchmarks/census.py``.
"""

import json
import multiprocessing
import resource
import tempfile
import time

import numpy as np
import pandas as pd
import scvi
from anndata import AnnData
from scipy import sparse

from splicedvae import census

GIB = 2**20  # in KiB, the unit of ru_maxrss on Linux


def counts(n_obs: int, genes: range, density: float, seed: int) -> AnnData:
    """Random cells of genes with ids in the form of Ensembl's."""
    rng = np.random.default_rng(seed)
    x = sparse.random(n_obs, len(genes), density, format="csr", random_state=rng, dtype=np.float32)
    x.data = np.ceil(x.data * 5)
    return AnnData(x, var=pd.DataFrame(index=[f"ENSMUSG{i:011d}" for i in genes]))


def write(folder: str) -> None:
    """Save a model as the Census models are saved."""
    cells = counts(3000, range(8000), 0.01, 0)
    cells.obs["batch"] = [f"dataset_{i}" for i in range(cells.n_obs)]
    scvi.model.SCVI.setup_anndata(cells, batch_key="batch")
    model = scvi.model.SCVI(cells, n_layers=2, n_latent=50, gene_likelihood="nb")
    model.is_trained_ = True
    model.save(folder, overwrite=True)


def measure(folder: str) -> None:
    """Transplant to cells that share 6,000 of the genes."""
    cells = counts(100, range(2000, 11000), 0.05, 1)
    x = cells.X
    cells.layers.update(spliced=x.copy(), unspliced=x.copy(), total=x * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    model = census.initialise(cells, checkpoint=folder)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "benchmark": "census",
        "genes shared": model.adata.n_vars,
        "seconds": round(seconds, 2),
        "gib": round((after - before) / GIB, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")  # the memory of each is its own
    with tempfile.TemporaryDirectory() as folder:
        for step in (write, measure):
            process = context.Process(target=step, args=(folder,))
            process.start()
            process.join()

"""Plan ten million cells on metadata of scBaseCount's size, and count its cells, streamed.

python benchmarks/plan.py

61,378 samples of 27 organisms, 35,263 of them human, with 5·10⁸ cells; simulated, as are all their
values. Prints one JSON line: seconds of each step, cells counted per second, and the peak memory
of a fresh process that does nothing else.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from splicedvae.atlas.catalogue import Catalogue
from splicedvae.atlas.sampling import balance, sampling_plan, split
from splicedvae.atlas.tissues import tissue_mapping

ROWS = 2**20  # of a row group
N_SAMPLES = {"Homo sapiens": 35_263, "Mus musculus": 21_439}
N_SAMPLES |= {f"Simulatus {i}": 187 + (i == 24) for i in range(25)}
N_SAMPLES["Simulatus 24"] += 61_378 - sum(N_SAMPLES.values())


def write(root: str, n_cells: int) -> None:
    """Write simulated metadata of samples and cells as the release of 2026 has them."""
    rng = np.random.default_rng(0)
    texts = [text for text, tissue in tissue_mapping().items() if tissue]
    often = rng.permutation(1 / np.arange(1, len(texts) + 1))
    sizes = rng.lognormal(8.5, 1, sum(N_SAMPLES.values()))
    sizes = np.maximum(1, sizes * n_cells / sizes.sum()).astype(int)
    sizes[0] += n_cells - sizes.sum()
    names = np.array([f"SRX{i:08d}" for i in range(len(sizes))])
    block = pa.table(  # the same values again and again: it is the reading that is measured
        {
            "cell_barcode": pa.array(["ACGTACGTACGTACGT"] * ROWS).dictionary_encode(),
            "gene_count_Unique": rng.integers(20, 10_000, ROWS),
            "umi_count_Unique": rng.lognormal(8, 1, ROWS).astype(np.float32).round(),
            "cell_type": pa.array([""] * ROWS).dictionary_encode(),
        }
    )
    start = 0
    for organism, n in N_SAMPLES.items():
        mine, start = slice(start, start + n), start + n
        folder = Path(root, "metadata", "Velocyto", organism.replace(" ", "_"))
        folder.mkdir(parents=True)
        samples = {"srx_accession": names[mine], "obs_count": sizes[mine], "organism": organism}
        samples |= {"entrez_id": np.arange(n), "lib_prep": "10x_Genomics", "disease": "unsure"}
        samples |= {"file_path": [f"gs://simulated/{name}.h5ad" for name in names[mine]]}
        samples |= {"tissue": rng.choice(texts, n, p=often / often.sum())}
        samples |= {"tech_10x": rng.choice(["3_prime_gex", "5_prime_gex", "other"], n)}
        samples |= {"cell_prep": "single_cell", "perturbation": "none", "cell_line": "none"}
        samples |= {"czi_collection_id": [f"c{i // 20}" if i % 3 else None for i in range(n)]}
        samples |= {"czi_collection_name": None, "antibody_derived_tag": "no"}
        samples |= {"tissue_ontology_term_id": None, "disease_ontology_term_id": None}
        pd.DataFrame(samples).to_parquet(folder / "sample_metadata.parquet")
        ends = np.cumsum(sizes[mine])
        writer = None
        for row in range(0, ends[-1], ROWS):
            cells = block[: min(ROWS, ends[-1] - row)]
            first, last = np.searchsorted(ends, [row, row + len(cells) - 1], "right")
            codes = np.searchsorted(ends, np.arange(row, row + len(cells)), "right") - first
            accessions = pa.DictionaryArray.from_arrays(codes, names[mine][first : last + 1])
            cells = cells.append_column("SRX_accession", accessions)
            writer = writer or pq.ParquetWriter(folder / "obs_metadata.parquet", cells.schema)
            writer.write_table(cells, row_group_size=ROWS)
        writer.close()


def measure(root: str, n_cells: int, n_take: int) -> None:
    """Read, count, plan, split."""
    times = {}
    start = time.perf_counter()

    def lap(step: str) -> None:
        nonlocal start
        times[step] = round(time.perf_counter() - start, 2)
        start = time.perf_counter()

    catalogue = Catalogue.read(root)
    lap("read")
    counted = catalogue.count_cells(min_umis=500, min_genes=200)
    lap("count")
    enough = Catalogue(catalogue.samples.assign(n_cells=counted), root)
    human = enough.select("Homo sapiens").samples
    plan = split(sampling_plan(human, n_take))
    shares = balance(human, plan)
    lap("plan")
    everything = sampling_plan(enough.samples, n_take)
    lap("plan of all organisms")
    assert plan["n_take"].sum() == everything["n_take"].sum() == n_take
    result = {
        "benchmark": "plan",
        "samples": len(catalogue.samples),
        "cells": n_cells,
        "cells of enough counts": int(counted.sum()),
        "human samples that pass": len(human),
        "tissues": int((shares["cells_after"] > 0).sum()),
        "seconds": times,
        "seconds in all": round(sum(times.values()), 1),
        "cells counted per second": round(n_cells / times["count"]),
        "gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    print(json.dumps(result))


def main() -> None:
    """Write and measure, in two processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=int, default=500_000_000)
    parser.add_argument("--take", type=int, default=10_000_000)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")  # the memory of each is its own
    with tempfile.TemporaryDirectory() as root:
        steps = (
            (write, (root, arguments.cells)),
            (measure, (root, arguments.cells, arguments.take)),
        )
        for step, given in steps:
            process = context.Process(target=step, args=given)
            process.start()
            process.join()


if __name__ == "__main__":
    main()

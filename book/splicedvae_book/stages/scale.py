"""What ten million cells take: the same steps at several sizes, each size in its own process.

The cost model is a straight line for each step, fixed costs and a cost per cell, through all sizes
but the largest. The largest is what it is checked against.
"""

from __future__ import annotations

import logging
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from splicedvae import atlas
from splicedvae.model import SplicedVAE

from .. import corpus
from ..profiles import quiet
from ..stage import Stage

#: ``sizes`` in cells; ``own``: how many of them are simulated, others are those again.
SETTINGS = {
    "smoke": {"sizes": (500, 1000, 2000), "own": 2000, "genes": 100},
    "standard": {"sizes": (2_000, 8_000, 32_000), "own": 5_000, "genes": 500},
    "full": {"sizes": (10_000, 100_000, 1_000_000), "own": 20_000, "genes": 1000},
}
NAMES = ("sizes",)
SEEDS = (0,)  # a time is not a matter of seeds
ORGANISM = "Homo sapiens"
MORE = 1.8  # cells to simulate for each that is wanted: not all are of this organism


def run_job(adata: AnnData, profile: str, seed: int, name: str, folder: Path) -> dict:
    """Build a store, stream it and train an epoch on it, at each size.

    Parameters
    ----------
    adata
        Not read: the corpus is simulated.
    profile
        A key of ``SETTINGS``.
    seed
        Of corpus, plan and model.
    name
        ``"sizes"``, the only one.
    folder
        Not written to.

    Returns
    -------
    JSON-ready: ``rows`` by number of cells with the ``cells`` and ``samples``; seconds of each
    step, ``build_s`` and so on; peak memory (``gib``); GB of the files that were read
    (``egress``) and of the store (``disk``).
    """
    setting, rows = SETTINGS[profile], {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        copies = -(-setting["sizes"][-1] // setting["own"])
        own = int(MORE * setting["own"])
        written = {"copies": copies, "flawed": False, "seed": seed}
        corpus.corpus(root / "corpus", own, setting["genes"], **written)
        samples = atlas.Catalogue.read(root / "corpus", ORGANISM).select(min_cells=0).samples
        samples = samples.sample(frac=1, random_state=seed)
        before = samples["n_cells"].cumsum() - samples["n_cells"]
        for size in setting["sizes"]:
            # as many samples as hold the cells: a build takes as long as the files that it reads
            plan = atlas.sampling_plan(samples[before < size], size, seed=seed)
            store = root / f"{size}"
            # a process of its own, so that the peak of memory is this size's
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                row = alone.submit(_measured, store, plan, setting["genes"]).result()
            row["egress"] = sum(Path(file).stat().st_size for file in plan["file"]) / 1e9
            row["disk"] = sum(file.stat().st_size for file in store.rglob("*")) / 1e9
            row |= {"cells": size, "samples": len(plan)}
            rows[str(size)] = row
    return {"rows": rows}


stage = Stage(
    run_job,
    NAMES,
    ("build_s", "stream_s", "train_s", "gib", "disk"),
    settings=SETTINGS,
    seeds=SEEDS,
    alone=("standard", "full"),
)


def _measured(store: Path, plan: pd.DataFrame, genes: int) -> dict[str, float]:
    quiet()
    logging.getLogger("splicedvae").setLevel(logging.WARNING)
    row = {}
    for step, do in STEPS.items():
        start = time.perf_counter()
        do(store, plan, genes)
        row[f"{step}_s"] = time.perf_counter() - start
    return row | {"gib": _peak()}


def _peak() -> float:
    """Most memory that this process has had, GiB."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss counts what was there before the program was loaded
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30  # bytes, on macOS


def _build(path: Path, plan: pd.DataFrame, genes: int) -> None:
    ids = corpus.orthologues(genes)[ORGANISM].drop_duplicates()
    atlas.build_store(plan, path, ids, progress=False)


def _stream(path: Path, plan: pd.DataFrame, genes: int) -> None:
    for _ in atlas.AtlasDataModule(atlas.Store(path)).inference_dataloader("train"):
        pass


def _train(path: Path, plan: pd.DataFrame, genes: int) -> None:
    datamodule = atlas.AtlasDataModule(atlas.Store(path))
    model = SplicedVAE(registry=datamodule.registry)
    model.train(1, datamodule=datamodule, enable_progress_bar=False)


STEPS = {"build": _build, "stream": _stream, "train": _train}


def cost_model(rows: pd.DataFrame, cells: Sequence[int]) -> pd.DataFrame:
    """What a number of cells would take, by straight lines through all sizes but the largest.

    Parameters
    ----------
    rows
        Of :func:`run_job`, by size.
    cells
        Numbers of cells.

    Returns
    -------
    Index `cells`; the columns of `rows` that are seconds or GB.
    """
    seen = rows.sort_values("cells").iloc[:-1]
    costs = [c for c in rows if c.endswith("_s") or c in ("disk", "egress")]
    lines = {c: np.polynomial.Polynomial.fit(seen["cells"], seen[c], 1) for c in costs}
    return pd.DataFrame({c: lines[c](np.asarray(cells, float)) for c in costs}, index=cells)


def metadata(n_samples: int, n_cells: int, n_tissues: int = 78, seed: int = 0) -> pd.DataFrame:
    """Simulate samples as many and as uneven as those of a real atlas.

    Parameters
    ----------
    n_samples
        Samples, of more than 3,000 cells each.
    n_cells
        Cells in all, about.
    n_tissues
        Tissues, of which the k-th largest has samples in proportion to 1 / k.
    seed
        Of the draws.

    Returns
    -------
    A table as of :attr:`splicedvae.atlas.catalogue.Catalogue.samples`.
    """
    rng = np.random.default_rng(seed)
    names = ["blood", "brain", *(f"tissue {k}" for k in range(3, n_tissues + 1))]
    share = 1 / np.arange(1, n_tissues + 1)
    above = rng.lognormal(0, 1, n_samples)
    cells = 3001 + above * (n_cells - 3001 * n_samples) / above.sum()
    samples = pd.DataFrame(
        {
            "tissue": rng.choice(names, n_samples, p=share / share.sum()),
            "organism": ORGANISM,
            "n_cells": cells.astype(int),
        },
        index=pd.Index([f"SRX{i:08d}" for i in range(n_samples)], name="sample"),
    )
    samples["dataset"] = rng.choice(samples.index[: n_samples // 3], n_samples)
    samples["file"] = samples.index + ".h5ad"
    return samples

"""One shard of a store: its samples are read, its cells shuffled and written, once."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anndata.io
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from scipy import sparse
from zarr.codecs import BloscCodec

from .readers import LAYERS, matched, opened, passing
from .sampling import order

ROWS_PER_CHUNK = 128  # about: a chunk is what is decompressed at once
CODEC = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")


@contextmanager
def alone(path: Path, number: int) -> Iterator[None]:
    """No other process does the same: a byte of a file is locked, and free again after any end."""
    with (path / "lock").open("a") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.lockf(file, fcntl.LOCK_EX, 1, number)
        yield


def put(path: Path, content: bytes) -> None:
    """Write a file in one step: it is whole, or not there."""
    part = path.with_name(f"{path.name}.tmp")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def put_json(path: Path, content: dict | list) -> None:
    put(path, json.dumps(content, indent=1).encode())


def remove(folder: Path) -> None:
    """Remove a folder, if it is there, although zarr's own thread may still be writing in it."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.02)


def write_shard(
    path: Path, k: int, rows: list[dict], genes: pd.DataFrame, min_counts, max_missing, project
) -> list[dict[str, Any]]:
    """Write a shard if it is not there; say what became of its samples."""
    final, done = path / f"shards/{k:04d}", path / f"shards/{k:04d}.json"
    part = final.with_suffix(".tmp")
    with alone(path, k + 1):
        if done.exists():
            return json.loads(done.read_text())["samples"]
        for leftover in (final, part):
            remove(leftover)
        try:
            taken = [_take(row, genes, min_counts, max_missing, project) for row in rows]
            told = [told for told, *_ in taken]
            codes = np.repeat([row["code"] for row in rows], [row["taken"] for row in told])
            if len(codes):
                x = sparse.vstack([x for _, x, _ in taken], format="csr")
                barcodes = np.concatenate([barcodes for *_, barcodes in taken])
                del taken
                rng = np.random.default_rng([row["seed"] for row in rows])
                cells = rng.permutation(len(codes))
                _write(part, x[cells], codes[cells], barcodes[cells], genes.index)
                part.rename(final)
            put_json(done, {"n_cells": len(codes), "samples": told, "sha256": checksums(final)})
            return told
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            text = f"The disk is full: shard {k} of {path} can't be written. Complete ones are kept"
            raise OSError(error.errno, f"{text}; make room, and the same call goes on") from error
        finally:
            remove(part)
            if not done.exists():
                remove(final)


def _take(
    row: dict, genes: pd.DataFrame, min_counts: int, max_missing: float, project: str | None
) -> tuple[dict[str, Any], sparse.csr_matrix, np.ndarray]:
    """What became of a sample, its counts (cells, 2 genes) and barcodes."""
    told = {key: row[key] for key in ("sample", "start", "wanted")}
    told |= {"read": 0, "duplicates": 0, "low": 0, "taken": 0, "missing_genes": 0}
    told |= {"unspliced": 0.0, "genes_by": "", "skipped": ""}
    own = genes.get(row.get("organism"), genes.index)  # NaN where there is no orthologue
    wanted = [pd.Index(own), *([pd.Index(genes["symbol"])] if "symbol" in genes else [])]
    try:
        with opened(row["file"], project) as sample:
            place, told["genes_by"] = matched(sample, wanted)
            told["missing_genes"] = missing = len(genes) - len(np.unique(place[place >= 0]))
            if missing > max_missing * len(genes):
                raise ValueError(f"{missing} of {len(genes)} genes are missing")
            x, passes, numbers = passing(sample, place, len(genes), min_counts)
        cells = order(row["seed"], len(passes))
        cells = cells[passes[cells]][row["start"] : row["start"] + row["wanted"]]
        told |= numbers | {"taken": len(cells)}
        return told, x[(np.cumsum(passes) - 1)[cells]], sample.barcodes[cells].to_numpy(object)
    except (ConnectionError, ImportError, MemoryError):
        raise
    except Exception as error:  # of many kinds, for a damaged file
        # h5py knows no number for it; one with a number is the machine's fault, not the sample's
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
            raise
        told["skipped"] = f"{type(error).__name__}: {error}"
        return told, sparse.csr_matrix((0, 2 * len(genes)), dtype=np.float32), np.empty(0, object)


def _write(path: Path, x: sparse.csr_matrix, codes, barcodes, genes: pd.Index) -> None:
    obs = pd.DataFrame({"sample": codes.astype(np.int32), "barcode": barcodes})
    obs.index = obs.index.astype(str)
    var = pd.DataFrame(index=[f"{layer}:{gene}" for layer in LAYERS for gene in genes])
    x.sort_indices()
    chunk = max(1, x.nnz * ROWS_PER_CHUNK // x.shape[0])
    n_chunks = -(-max(x.nnz, len(x.indptr)) // chunk)  # of an array, which is one file
    storage = {"chunks": (chunk,), "shards": (chunk * n_chunks,), "compressors": [CODEC]}
    group = zarr.open_group(path, mode="w", zarr_format=3)
    with anndata.settings.override(auto_shard_zarr_v3=False):
        anndata.io.write_elem(group, "/", AnnData(obs=obs, var=var))
        anndata.io.write_elem(group, "X", x, dataset_kwargs=storage)


def checksums(folder: Path, pattern: str = "**/*") -> dict[str, str]:
    """Of the files in a folder, by name."""
    sums = {}
    for file in sorted(path for path in folder.glob(pattern) if path.is_file()):
        with file.open("rb") as content:
            name = file.relative_to(folder).as_posix()
            sums[name] = hashlib.file_digest(content, "sha256").hexdigest()
    return sums

"""The store: the planned cells of many samples on one list of genes, in shards written once.

::

    store.json        its format, what was asked for, the number of shards, and checksums of:
    plan.parquet      the samples, in the order of the codes that the cells carry
    genes.csv         the genes
    shards/0000/      a zarr group, as anndata writes it: X = [spliced | unspliced], cells × 2 genes
    shards/0000.json  what became of each of its samples, and checksums

A shard is made in a temporary folder and renamed when it is whole; its ``.json`` comes last, and
without it the shard is not there. So a build may be killed at any moment: the same call goes on,
and ends in the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata.io
import joblib
import numpy as np
import pandas as pd
import zarr
from tqdm.auto import tqdm

from ._shards import alone, checksums, put, put_json, remove, write_shard
from .readers import stripped

FORMAT = 1

logger = logging.getLogger(__name__)


def build_store(
    plan: pd.DataFrame,
    path: str | os.PathLike,
    genes: Sequence[str] | pd.Index | pd.DataFrame,
    *,
    n_jobs: int = 1,
    shard: tuple[int, int] = (0, 1),
    shard_cells: int = 32768,
    min_counts: int = 1,
    max_missing: float = 0.2,
    project: str | None = None,
    progress: bool = True,
) -> Store | None:
    """Bring the planned cells of all samples into one store; after a stop, the same call goes on.

    Of each sample the first ``n_take`` cells of its seeded order that pass are taken, so that
    further ones of the sample stand in for those that do not pass. A sample that can't be used is
    left out; why, and all numbers, stand in :attr:`Store.manifest`. To have another try at it,
    remove the ``.json`` of its shard.

    Parameters
    ----------
    plan
        From :func:`~splicedvae.atlas.sampling.sampling_plan`: indexed by sample, with ``file``,
        ``n_take``, ``seed`` and, where they matter, ``organism`` and ``part``. Shards never mix
        parts.
    path
        The store's folder, new or begun.
    genes
        Ids, with or without versions, or symbols. Or a table indexed by the names of the genes in
        the store, with a column of ids for each organism that has its own (see
        :func:`~splicedvae.atlas.sampling.one_to_one`); a column ``symbol`` finds those of samples
        without ids.
    n_jobs
        Processes.
    shard
        Number of this machine, from 0, and of all that share the work, such as (0, 8).
    shard_cells
        Cells in a shard, at most. A process holds one shard and one sample in memory. A sample of
        which more are taken is cut, and read (if need be, fetched) once for each of its shards.
    min_counts
        Spliced and unspliced counts of these genes in a cell, at least.
    max_missing
        Share of the genes that a sample may lack, at most. They have counts of 0.
    project
        Who pays for what is fetched from a bucket whose readers pay.
    progress
        Whether to show a bar.

    Returns
    -------
    The store, or None if the other machines have not ended yet.

    Raises
    ------
    KeyError
        The plan lacks a column.
    ValueError
        An argument can't be, genes repeat, another store is at `path`, or no cell could be taken;
        of that nothing is kept, so that another call can correct it.
    OSError
        The disk is full or fails. Complete shards are kept.
    """
    if missing := [c for c in ("file", "n_take", "seed") if c not in plan]:
        raise KeyError(f"The plan has no column {', '.join(missing)}; see sampling_plan.")
    if plan.empty or not plan.index.is_unique or plan["n_take"].min() < 1:
        raise ValueError("A plan names each sample once, and takes at least one cell of it.")
    if not (0 <= shard[0] < shard[1] and shard_cells >= 1 and 0 <= max_missing <= 1):
        raise ValueError(
            f"shard={shard} must be (i, n) with 0 <= i < n, shard_cells={shard_cells} at least 1, "
            f"and max_missing={max_missing} a share in [0, 1]."
        )
    path, plan, genes = Path(path), plan.rename_axis("sample"), _gene_table(genes)
    shards = _divided(plan, shard_cells)
    asked = {"shard_cells": shard_cells, "min_counts": min_counts, "max_missing": max_missing}
    (path / "shards").mkdir(parents=True, exist_ok=True)
    with alone(path, 0):
        _begin(path, plan, genes, asked | {"n_shards": len(shards)})
    mine = range(len(shards))[shard[0] :: shard[1]]
    calls = (
        joblib.delayed(write_shard)(path, k, shards[k], genes, min_counts, max_missing, project)
        for k in mine
    )
    n_cells = sum(row["wanted"] for k in mine for row in shards[k])
    try:
        with tqdm(total=n_cells, unit="cell", unit_scale=True, disable=not progress) as bar:
            for rows in joblib.Parallel(n_jobs, return_as="generator")(calls):
                bar.update(sum(row["wanted"] for row in rows))
                for row in rows:
                    if row["skipped"]:
                        logger.warning("Left out %s: %s", row["sample"], row["skipped"])
    finally:  # a process that was ended from outside leaves its folder
        for k in mine:
            remove(path / f"shards/{k:04d}.tmp")
    try:
        store = Store(path)
    except FileNotFoundError as error:
        logger.info("%s", error)
        return None
    good, wanted = (store.samples["skipped"] == "").sum(), plan["n_take"].sum()
    text = "Stored %d of %d cells, %d of %d samples."
    logger.info(text, store.n_obs, wanted, good, len(plan))
    if store.n_obs == 0:
        # the shards first: they belong to this store.json and to no other
        for name in (*path.glob("shards/*.json"), "store.json", "plan.parquet", "genes.csv"):
            (path / name).unlink(missing_ok=True)
        reason = store.manifest["skipped"].replace("", "too few counts")[0]
        text = "Nothing is kept: correct the genes, the plan's files or min_counts, and call again."
        raise ValueError(f"No cell could be taken; the first reason: {reason}. {text}")
    return store


def _gene_table(genes: Sequence[str] | pd.Index | pd.DataFrame) -> pd.DataFrame:
    table = genes if isinstance(genes, pd.DataFrame) else pd.DataFrame(index=pd.Index(genes))
    for name, ids in {"index": table.index, **{c: pd.Index(table[c]) for c in table}}.items():
        ids = stripped(ids[ids.notna()])
        if ids.empty or not ids.is_unique:
            repeated = ", ".join(ids[ids.duplicated()].unique()[:5])
            raise ValueError(f"genes ({name}): " + (f"{repeated} repeat." if repeated else "none."))
    return table.rename_axis("gene")


def _divided(plan: pd.DataFrame, shard_cells: int) -> list[list[dict[str, Any]]]:
    """The samples of each shard, by part and then in random order; only large ones are cut."""
    parts = plan.get("part", pd.Series("", plan.index)).astype(str)
    table = plan.assign(code=np.arange(len(plan)), part=parts).reset_index()
    shards: list[list[dict[str, Any]]] = []
    room, part = 0, ""
    for row in table.sort_values(["part", "seed", "sample"]).to_dict("records"):
        for start in range(0, row["n_take"], shard_cells):
            wanted = min(shard_cells, row["n_take"] - start)
            if wanted > room or row["part"] != part:
                shards.append([])
                room, part = shard_cells, row["part"]
            shards[-1].append(row | {"start": start, "wanted": wanted})
            room -= wanted
    return shards


def _begin(path: Path, plan: pd.DataFrame, genes: pd.DataFrame, asked: dict[str, Any]) -> None:
    """Write what was asked for, or see that the store was begun with the same."""
    # the same samples may lie elsewhere on another machine
    for name, table in (("plan", plan.drop(columns="file")), ("genes", genes)):
        asked[name] = hashlib.sha256(table.to_csv().encode()).hexdigest()
    if (path / "store.json").exists():
        begun = _settings(path)
        if other := [name for name in asked if asked[name] != begun.get(name)]:
            text = "Give the same, another path, or remove it."
            raise ValueError(f"{path} was begun with other {', '.join(other)}. {text}")
    else:
        put(path / "plan.parquet", plan.to_parquet())
        put(path / "genes.csv", genes.to_csv().encode())
        ours = {"format": FORMAT, "splicedvae": version("splicedvae")}
        sums = checksums(path, "plan.parquet") | checksums(path, "genes.csv")
        put_json(path / "store.json", ours | asked | {"sha256": sums})


def _settings(path: Path) -> dict[str, Any]:
    settings = json.loads((path / "store.json").read_text())
    if (found := settings.get("format")) != FORMAT:
        raise ValueError(
            f"{path} has format {found}, written by splicedvae {settings.get('splicedvae')}; this "
            f"one knows {FORMAT}. Use that version, or build anew elsewhere."
        )
    return settings


class Store:
    """A complete store on disk; nothing is read before it is asked for.

    Parameters
    ----------
    path
        Its folder, see :func:`build_store`.

    Attributes
    ----------
    genes
        Their names.
    n_obs
        Cells.
    manifest
        What became of each sample, in each shard: cells ``wanted``, ``read``, ``duplicates``
        (barcodes that came again), ``low`` (too few counts) and ``taken``, ``missing_genes``, the
        ``unspliced`` share of the counts, and why it was ``skipped``, or "".

    Raises
    ------
    FileNotFoundError
        There is no store, or not all shards are there yet.
    ValueError
        It has another format.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if not (self.path / "store.json").exists():
            raise FileNotFoundError(f"{path} is not a store; build_store makes one.")
        n = _settings(self.path)["n_shards"]
        found = [k for k in range(n) if (self.path / f"shards/{k:04d}.json").exists()]
        if len(found) < n:
            raise FileNotFoundError(f"{path} has {len(found)} of {n} shards; run the build again.")
        told = [json.loads((self.path / f"shards/{k:04d}.json").read_text()) for k in found]
        self._sums = [shard["sha256"] for shard in told]
        self.manifest = pd.DataFrame(
            [{"shard": k} | row for k in found for row in told[k]["samples"]]
        )
        self.genes = pd.Index(pd.read_csv(self.path / "genes.csv", dtype=str)["gene"])
        self.n_obs = sum(shard["n_cells"] for shard in told)

    def _groups(self) -> list[zarr.Group]:
        """Those of the shards that have cells."""
        folders = (self.path / f"shards/{k:04d}" for k, sums in enumerate(self._sums) if sums)
        return [zarr.open_group(folder, mode="r", zarr_format=3) for folder in folders]

    @cached_property
    def samples(self) -> pd.DataFrame:
        """The plan, in the order of the codes, with what became of it.

        Cells ``n_stored``, and ``read``, ``duplicates``, ``low``, ``missing_genes``, ``unspliced``
        and ``skipped`` of the manifest.
        """
        kinds = dict.fromkeys(("read", "duplicates", "low", "missing_genes", "unspliced"), "max")
        pieces = self.manifest.groupby("sample").agg({"taken": "sum", "skipped": "max"} | kinds)
        plan = pd.read_parquet(self.path / "plan.parquet")
        return plan.join(pieces.rename(columns={"taken": "n_stored"}))

    @cached_property
    def codes(self) -> np.ndarray:
        """Sample of each cell, as its row in :attr:`samples`; int32, (n_obs,), shard by shard."""
        return np.concatenate([group["obs/sample"][:] for group in self._groups()])

    @cached_property
    def matrices(self) -> list[anndata.abc.CSRDataset]:
        """Counts of the shards on disk, in order: (cells, 2 genes), spliced beside unspliced."""
        return [anndata.io.sparse_dataset(group["X"]) for group in self._groups()]

    def verify(self) -> None:
        """Read every file and compare its checksum.

        Raises
        ------
        ValueError
            A file has changed, is gone or is new.
        """
        for name, found in _settings(self.path)["sha256"].items():
            if checksums(self.path, name) != {name: found}:
                remedy = "remove store.json and run the same build again; the shards are kept"
                raise ValueError(f"{name} of {self.path} is damaged: {remedy}.")
        for k, sums in enumerate(tqdm(self._sums, unit="shard")):
            if checksums(self.path / f"shards/{k:04d}") != sums:
                remedy = f"remove shards/{k:04d}.json and run the build again"
                raise ValueError(f"Shard {k} of {self.path} is damaged: {remedy}.")

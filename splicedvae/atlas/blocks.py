"""Blocks of a store's cells: in which order they come, and how they are read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice

import numpy as np
import zarr
from lightning.pytorch.utilities import rank_zero_only
from scipy import sparse

from ..head import one_of
from .store import Store

logger = logging.getLogger(__name__)
GAP = 128  # rows between two that are wanted, read along: less than another reading costs


@dataclass
class BlockSampler:
    """Which rows make which minibatch; what ``annbatch.Loader`` takes as its ``batch_sampler``.

    Blocks of consecutive rows are put in random order, `preload` of them per process are read
    together, and their cells are shuffled and cut into minibatches. In an epoch every row comes
    once, in one process, and all processes have as many minibatches, of sizes that differ by one
    at most. What all processes together read at a time does not depend on their number, as long
    as the products of that number with `batch_size` and with `preload` stay.

    Attributes
    ----------
    rows
        Positions of the cells in the store, ascending.
    batch_size
        Cells in a minibatch of one process, at most.
    block
        Rows in a block.
    preload
        Blocks read together by one process.
    seed
        Of the order, together with the epoch.
    shuffle
        False keeps the order of the rows.
    rank, world
        This process, and the number of processes.
    epoch
        Number of the epoch.
    start
        The first minibatch that is asked for.

    Raises
    ------
    ValueError
        A number is not positive, or a minibatch would be empty.
    """

    rows: np.ndarray
    batch_size: int
    block: int = 256
    preload: int = 32
    seed: int = 0
    shuffle: bool = True
    rank: int = 0
    world: int = 1
    epoch: int = 0
    start: int = 0

    def __post_init__(self):
        if min(self.batch_size, self.block, self.preload) < 1:
            raise ValueError("batch_size, block and preload must be 1 or more.")
        self.n_obs = len(self.rows)
        self.n_batches = -(-self.n_obs // (self.world * self.batch_size))
        self.n_together = max(1, self.preload * self.block // self.batch_size)  # minibatches
        if self.n_obs < max(1, self.world * self.n_batches):
            raise ValueError(
                f"{self.n_obs} cells are too few for minibatches of {self.batch_size} in "
                f"{self.world} processes; give more cells, or a larger batch_size."
            )

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch, as Lightning does; the one that is on goes on.

        Parameters
        ----------
        epoch
            Its number.
        """
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def sample(self, n_obs: int | None = None) -> Iterator[dict]:
        """What to read, and how to cut it, from the minibatch `start` on.

        Parameters
        ----------
        n_obs
            Cells in the store, which annbatch tells; not needed.

        Yields
        ------
        ``requests``, rows to read together, and ``splits``, positions in them by minibatch.
        """
        first, self.start = self.start, 0
        order = np.arange(self.n_obs)
        if self.shuffle:
            blocks = np.arange(-(-self.n_obs // self.block)) * self.block
            np.random.default_rng([self.seed, self.epoch]).shuffle(blocks)
            order = (blocks[:, None] + np.arange(self.block)).ravel()
            order = order[order < self.n_obs]  # the last block is shorter
        for low in range(first - first % self.n_together, self.n_batches, self.n_together):
            high = min(low + self.n_together, self.n_batches)
            begin, end = (self.n_obs * k // self.n_batches for k in (low, high))  # for everybody
            begin, end = (
                begin + (end - begin) * r // self.world for r in (self.rank, self.rank + 1)
            )
            cells = np.arange(end - begin)
            if self.shuffle:
                np.random.default_rng([self.seed, self.epoch, low, self.rank]).shuffle(cells)
            splits = np.array_split(cells, high - low)[max(first - low, 0) :]
            yield {"requests": self.rows[order[begin:end]], "splits": splits}


def by_anndata(
    store: Store, sampler: BlockSampler
) -> Iterator[tuple[sparse.csr_matrix, np.ndarray]]:
    """Read minibatches with anndata.

    Parameters
    ----------
    store
        Of the cells.
    sampler
        Of the minibatches.

    Yields
    ------
    Spliced and unspliced counts side by side (cells, 2G), and the rows of the cells.
    """
    ends = np.cumsum([matrix.shape[0] for matrix in store.matrices])

    def read(rows: np.ndarray) -> sparse.csr_matrix:
        shards = np.searchsorted(ends, rows, side="right")
        gaps = np.diff(rows)
        breaks = np.flatnonzero((gaps < 1) | (gaps > GAP) | (np.diff(shards) != 0)) + 1
        runs = []
        for run, shard in zip(np.split(rows, breaks), shards[[0, *breaks]], strict=True):
            matrix = store.matrices[shard]
            begin = run[0] - ends[shard] + matrix.shape[0]
            cells = matrix[begin : begin + run[-1] - run[0] + 1]
            runs.append(cells if len(run) == cells.shape[0] else cells[run - run[0]])
        return sparse.vstack(runs, format="csr")

    for request in sampler.sample():
        counts = read(request["requests"])
        for split in request["splits"]:
            yield counts[split], request["requests"][split]
        del counts  # before the next are read


def by_annbatch(
    store: Store, sampler: BlockSampler
) -> Iterator[tuple[sparse.csr_matrix, np.ndarray]]:
    """Read the same minibatches with annbatch.

    Parameters
    ----------
    store
        Of the cells.
    sampler
        Of the minibatches.

    Yields
    ------
    As :func:`by_anndata`.
    """
    import annbatch

    loader = annbatch.Loader(batch_sampler=sampler, return_index=True, preload_to_gpu=False)
    for batch in loader.add_datasets(store.matrices):
        yield batch["X"], batch["index"]


ENGINES = {"annbatch": by_annbatch, "anndata": by_anndata}


def chosen_engine(name: str) -> str:
    """The engine that is there; the log says which it is.

    Parameters
    ----------
    name
        ``"annbatch"``, ``"anndata"`` or ``"auto"``.

    Returns
    -------
    One of the first two.

    Raises
    ------
    ValueError
        There is no such engine.
    ModuleNotFoundError
        It is not installed.
    """
    there = find_spec("annbatch") is not None
    if one_of("engine", name, ("auto", *ENGINES)) == "auto":
        name = "annbatch" if there else "anndata"
    if name == "annbatch" and not there:
        raise ModuleNotFoundError(
            "engine='annbatch' needs Python 3.12 or later and pip install 'splicedvae[atlas]'; "
            "engine='anndata' gives the same minibatches."
        )
    if find_spec("zarrs") is not None:  # decodes faster, for either
        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    if rank_zero_only.rank == 0:
        logger.info("%s reads the store.", name)
    return name


def read_ahead(items: Iterator, size: int) -> Iterator:
    """Fetch items in a thread, while those before them are used.

    Parameters
    ----------
    items
        Of any kind.
    size
        Number that is fetched at a time.

    Yields
    ------
    The items.
    """
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(list, islice(items, size))
        while here := coming.result():
            coming = thread.submit(list, islice(items, size))
            while here:
                yield here.pop(0)  # and free it

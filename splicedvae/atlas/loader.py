"""Minibatches of a store: blocks of cells, read in random order and shuffled, on many devices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from scipy import sparse
from scvi import REGISTRY_KEYS

from ..head import one_of
from ..model import SplicedVAE
from ..module import SPLICED, UNSPLICED
from .blocks import ENGINES, BlockSampler, chosen_engine, read_ahead
from .store import Store

SPARSE = ("values", "columns", "ends")  # of a minibatch on its way
PARTS = ("train", "val", "test")
SETTINGS = ("batch_size", "block", "preload", "seed", "world", "n_obs")  # these decide the order


def _counts(both: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the model reads, from spliced and unspliced counts side by side, (cells, 2G)."""
    spliced, unspliced = both.chunk(2, dim=1)
    return {REGISTRY_KEYS.X_KEY: spliced + unspliced, SPLICED: spliced, UNSPLICED: unspliced}


class _Minibatches:
    """What Lightning iterates over; it knows its place, so that a stopped training can go on."""

    batch_sampler = None  # Lightning looks for it beside `sampler`

    def __init__(self, module: AtlasDataModule, sampler: BlockSampler, on_device: bool = False):
        self.module, self.sampler, self.on_device, self.done = module, sampler, on_device, 0

    def __len__(self) -> int:
        return self.sampler.n_batches

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        self.done, store = self.sampler.start, self.module.store
        batches = ENGINES[self.module.engine](store, self.sampler)
        for counts, rows in read_ahead(batches, self.sampler.n_together):
            self.done += 1
            codes = torch.from_numpy(self.module.codes[store.codes[rows]])  # (B, 2)
            batch = {REGISTRY_KEYS.BATCH_KEY: codes[:, :1], "tissue": codes[:, 1:]}
            batch[REGISTRY_KEYS.LABELS_KEY] = torch.zeros_like(codes[:, :1])
            counts = counts.astype(np.float32, copy=False)
            if self.on_device:  # they travel as they are
                parts = map(torch.from_numpy, (counts.data, counts.indices, counts.indptr))
                yield batch | dict(zip(SPARSE, parts, strict=True))
            else:
                yield batch | _counts(torch.from_numpy(counts.toarray()))

    def state_dict(self) -> dict:
        settings = {name: getattr(self.sampler, name) for name in SETTINGS}
        return {"epoch": self.sampler.epoch, "done": self.done, **settings}

    def load_state_dict(self, state: dict) -> None:
        other = [name for name in SETTINGS if state[name] != getattr(self.sampler, name)]
        if other:
            raise ValueError(
                f"The checkpoint was written in mid-epoch with other {', '.join(other)} "
                f"({', '.join(str(state[name]) for name in other)}): some cells would come again "
                "and others never. Go on with these."
            )
        self.sampler.epoch, self.sampler.start = state["epoch"], state["done"]


class AtlasDataModule(LightningDataModule):
    """Cells of a store, for ``SplicedVAE(registry=datamodule.registry)`` and its ``train``.

    Minibatches hold ``X`` (the total), ``spliced`` and ``unspliced`` counts, dense float32 (cells,
    genes), and codes (cells, 1) of ``batch``, ``labels`` and ``tissue``. To a GPU the counts
    travel sparse. While minibatches are used, a thread reads the next.

    Parameters
    ----------
    store
        See :func:`splicedvae.atlas.store.build_store`.
    parts
        ``"train"``, ``"val"`` or ``"test"`` by sample; samples without one are left out. None
        takes the plan's column ``part``, or all for training. The plan's are read fastest, since
        a store keeps them apart.
    batch_key
        The column of ``store.samples`` that is the model's batch. All its values are registered;
        one without training cells stays as it was initialised.
    batch_size, block, preload, seed
        See :class:`splicedvae.atlas.blocks.BlockSampler`.
    engine
        ``"annbatch"`` (Python 3.12 or later) or ``"anndata"``; ``"auto"`` takes the former where
        it is installed. The minibatches are the same.

    Attributes
    ----------
    rows
        By part, positions of its cells in the store.
    registry
        Of the model, as :meth:`splicedvae.SplicedVAE.setup_anndata` writes it.
    tissues
        Names of the tissue codes; only ``"unmapped"`` if ``store.samples`` has no ``tissue``.
    n_obs, n_vars, n_batch, n_train, n_val
        Cells of the store, genes, batches, and cells of these parts.

    Raises
    ------
    KeyError
        A sample or the column is not in the store.
    ValueError
        A part has another name, or there are no training cells.
    ModuleNotFoundError
        The engine is not installed.

    Examples
    --------
    >>> datamodule = AtlasDataModule(Store("atlas.store"), batch_key="dataset")
    >>> model = sv.SplicedVAE(registry=datamodule.registry)
    >>> model.train(datamodule=datamodule, max_epochs=10)
    >>> model.get_splicing_ratio(dataloader=datamodule.inference_dataloader("test"))
    """

    def __init__(
        self,
        store: Store,
        parts: pd.Series | None = None,
        batch_key: str | None = None,
        batch_size: int = 1024,
        engine: Literal["auto", "annbatch", "anndata"] = "auto",
        block: int = 256,
        preload: int = 32,
        seed: int = 0,
    ):
        super().__init__()
        self.store, self.engine, samples = store, chosen_engine(engine), store.samples
        self.sampling = {"batch_size": batch_size, "block": block, "preload": preload, "seed": seed}
        if parts is None:
            parts = samples.get("part", pd.Series("train", index=samples.index))
        if missing := [*parts.index.difference(samples.index), *({batch_key} - {None, *samples})]:
            raise KeyError(f"The store has no {', '.join(map(str, missing[:5]))}.")
        if other := set(parts.dropna()) - set(PARTS):
            raise ValueError(f"Parts are called {', '.join(PARTS)}, not {sorted(other)}.")
        part = parts.reindex(samples.index).to_numpy()  # by sample
        self.rows = {name: np.flatnonzero((part == name)[store.codes]) for name in PARTS}
        self.n_obs, self.n_vars = store.n_obs, len(store.genes)
        self.n_train, self.n_val = len(self.rows["train"]), len(self.rows["val"])
        if self.n_train == 0:
            raise ValueError("No cell of the store is for training.")
        if self.n_val == 0:
            self.val_dataloader = super().val_dataloader  # for Lightning, there is none
        batch = samples[batch_key] if batch_key else pd.Series("all", index=samples.index)
        tissue = samples.get("tissue", pd.Series("unmapped", index=samples.index))
        batch, tissue = (pd.Categorical(c.astype(str)) for c in (batch, tissue))
        self.tissues, self.n_batch = list(tissue.categories), len(batch.categories)
        self.codes = np.column_stack([batch.codes, tissue.codes]).astype(np.int64)  # by sample
        self.registry = _registry(store.genes, batch_key, batch.categories)

    def train_dataloader(self) -> Iterable[dict[str, torch.Tensor]]:
        """The training cells of this process, in another order in each epoch.

        Returns
        -------
        Minibatches.
        """
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> Iterable[dict[str, torch.Tensor]]:
        """The validation cells of this process.

        Returns
        -------
        Minibatches.
        """
        return self._loader("val", shuffle=False)

    def _loader(self, part: str, shuffle: bool) -> _Minibatches:
        share, on_device = {}, False
        if trainer := self.trainer:
            share = {"rank": trainer.global_rank, "world": trainer.world_size}
            on_device = trainer.strategy.root_device.type != "cpu"
        sampler = BlockSampler(self.rows[part], **self.sampling, shuffle=shuffle, **share)
        return _Minibatches(self, sampler, on_device)

    def on_after_batch_transfer(self, batch: dict, dataloader_idx: int) -> dict:
        """Make counts that travelled sparse dense, where they have arrived.

        Parameters
        ----------
        batch
            A minibatch.
        dataloader_idx
            Not used.

        Returns
        -------
        The same, with dense counts.
        """
        if SPARSE[0] in batch:
            values, columns, ends = (batch.pop(name) for name in SPARSE)
            rows = torch.arange(len(ends) - 1, device=ends.device).repeat_interleave(ends.diff())
            both = values.new_zeros(len(ends) - 1, 2 * self.n_vars)
            batch |= _counts(both.index_put_((rows, columns.long()), values))
        return batch

    def inference_dataloader(self, part: str = "test") -> Iterable[dict[str, torch.Tensor]]:
        """Every cell of a part, in the store's order, whatever the number of processes.

        Parameters
        ----------
        part
            ``"train"``, ``"val"`` or ``"test"``.

        Returns
        -------
        Minibatches, for :meth:`splicedvae.SplicedVAE.get_splicing_ratio` and its like.

        Raises
        ------
        ValueError
            The part is empty, or not one of these.
        """
        rows = self.rows[one_of("part", part, PARTS)]
        return _Minibatches(self, BlockSampler(rows, **self.sampling, shuffle=False))

    def sample_dataloader(self, n: int = 20_000) -> Iterable[dict[str, torch.Tensor]]:
        """Training cells, in random blocks: from which the model's head starts.

        Parameters
        ----------
        n
            Cells to take, at most; all of them if there are no more.

        Returns
        -------
        Minibatches: the same ones at every call and in every process.
        """
        # an epoch's minibatches are alike in size: with 20 in a sample, hardly a cell is lost
        size = max(1, min(n // 20, self.sampling["batch_size"]))
        sampler = BlockSampler(self.rows["train"], **(self.sampling | {"batch_size": size}))
        batches = _Minibatches(self, sampler)
        return batches if self.n_train <= n else islice(batches, n // size)


def _registry(genes: pd.Index, batch_key: str | None, batches: pd.Index) -> dict:
    """What scvi-tools would note of all the cells, from the three of each batch that it wants."""
    batches = batches.repeat(3)
    counts = sparse.lil_matrix((len(batches), len(genes)), dtype=np.float32)
    counts[0], counts[:, 0] = 1, 1  # no gene and no cell is empty
    counts = counts.tocsr()
    layers = {SPLICED: counts, UNSPLICED: 2 * counts}
    cells = AnnData(var=pd.DataFrame(index=genes.astype(str)), layers=layers)
    cells.obs[batch_key or "batch"] = batches
    SplicedVAE.setup_anndata(cells, batch_key=batch_key)
    return SplicedVAE._get_most_recent_anndata_manager(cells, required=True).registry


class MidEpochCheckpoint(Callback):
    """Write what a stopped training needs to go on, every so many steps.

    ``train(..., callbacks=[MidEpochCheckpoint(path, 1000)], ckpt_path=path)`` goes on in mid-epoch
    with the cells that did not come yet. To Lightning's ``ModelCheckpoint``, scvi-tools adds one of
    its own, which writes the whole model once more at every step that is saved.

    The model's history goes on as well. Of an epoch that was stopped, its figures for training
    are those of the minibatches that were left.

    Parameters
    ----------
    path
        Of the file, which is whole at any moment: the next replaces it in one step.
    every
        Steps from one to the next. One that falls on an epoch's last minibatch, whose figures are
        yet to come, is written after the next epoch's first.
    """

    def __init__(self, path: str | Path, every: int):
        self.path, self.every, self.due = Path(path), every, False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_) -> None:
        self.due |= trainer.global_step % self.every == 0
        if self.due and not trainer.is_last_batch:
            self.due, new = False, self.path.with_name(f"{self.path.name}.new")
            trainer.save_checkpoint(new, weights_only=False)
            if trainer.is_global_zero:
                new.replace(self.path)

    @rank_zero_only
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, state: dict) -> None:
        history = {k: v[k] for k, v in getattr(trainer.logger, "history", {}).items()}
        state["history"] = pd.DataFrame(history).to_dict("index")

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, state: dict) -> None:
        for epoch, figures in state.get("history", {}).items():
            trainer.logger.log_metrics(figures | {"epoch": epoch}, epoch)


def minibatch_entropy(datamodule: AtlasDataModule, epoch: int = 0) -> dict[str, float]:
    r"""How well minibatches mix tissues: the mean entropy of a training minibatch's tissues.

    .. math:: -\sum_t q_t \log q_t, \quad q_t \text{ the share of tissue } t \text{ in a minibatch}

    Parameters
    ----------
    datamodule
        Of one process.
    epoch
        Whose order to take.

    Returns
    -------
    In nats: of ``minibatches`` as they come, of the ``ideal`` ones of the same sizes cut from a
    full shuffle, and of ``unshuffled`` ones, in the store's order.
    """
    tissue = datamodule.codes[datamodule.store.codes[datamodule.rows["train"]], 1]

    def entropy(tissue: np.ndarray, shuffle: bool) -> float:
        positions = np.arange(len(tissue))
        sampler = BlockSampler(positions, **datamodule.sampling, shuffle=shuffle, epoch=epoch)
        batches = (tissue[r["requests"][s]] for r in sampler.sample() for s in r["splits"])
        shares = [np.unique(batch, return_counts=True)[1] / len(batch) for batch in batches]
        return float(np.mean([-(p * np.log(p)).sum() for p in shares]))

    ideal = entropy(np.random.default_rng(epoch).permutation(tissue), False)
    return {
        "minibatches": entropy(tissue, True),
        "ideal": ideal,
        "unshuffled": entropy(tissue, False),
    }

"""Minibatches of cells in memory: dense tensors on the device where they fit, else sparse."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scvi.dataloaders import DataSplitter
from torch.utils.data import DataLoader, Dataset, Sampler

DENSE_BYTES = 2**30  # cells are held as dense tensors up to this size, per split


class Minibatches(Sampler):
    """Positions of the cells of each minibatch; a last cell that is alone joins the one before.

    Batch norm cannot learn from a single cell.

    Parameters
    ----------
    n_cells
        Cells to draw from.
    batch_size
        Cells in a minibatch.
    shuffle
        Draw a new order for each epoch.
    drop_last
        Leave out a last minibatch that is not full.
    """

    def __init__(self, n_cells: int, batch_size: int, shuffle: bool, drop_last: bool = False):
        self.n_cells, self.batch_size = n_cells, batch_size
        self.shuffle, self.drop_last = shuffle, drop_last

    def __len__(self) -> int:
        full, rest = divmod(self.n_cells, self.batch_size)
        joins = self.drop_last or (rest == 1 and full > 0)
        return full + (rest > 0 and not joins)

    def __iter__(self) -> Iterator[torch.Tensor]:
        order = torch.randperm(self.n_cells) if self.shuffle else torch.arange(self.n_cells)
        *parts, last = order.split(self.batch_size)
        if self.drop_last and len(last) < self.batch_size:
            yield from parts
        elif parts and len(last) == 1 < self.batch_size:
            yield from parts[:-1]
            yield torch.cat([parts[-1], last])
        else:
            yield from parts
            yield last


class CellTensors(Dataset):
    """Cells as dense tensors, taken by their positions.

    Parameters
    ----------
    tensors
        By name, each with a row per cell.
    """

    def __init__(self, tensors: dict[str, torch.Tensor]):
        self.tensors = tensors

    def __getitem__(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: tensor[rows] for name, tensor in self.tensors.items()}


class InMemorySplitter(DataSplitter):
    """scvi-tools' splitter, whose minibatches are selected from tensors that stay on the device.

    Training over several devices, workers and sparse tensors are left to scvi-tools' own loader.
    """

    def _loader(self, cells: np.ndarray, shuffle: bool, drop_last: bool) -> DataLoader:
        given = dict(self.data_loader_kwargs)
        batch_size = given.pop("batch_size")
        distributed = given.pop("distributed_sampler", False)
        if distributed or given or self.load_sparse_tensor or self.pin_memory:
            return self.data_loader_cls(
                self.adata_manager,
                indices=cells,
                shuffle=shuffle,
                drop_last=drop_last,
                load_sparse_tensor=self.load_sparse_tensor,
                pin_memory=self.pin_memory,
                **self.data_loader_kwargs,
            )
        dataset = self.adata_manager.create_torch_dataset(indices=cells)
        one = dataset[[0]].values()
        if len(cells) * sum(part.nbytes for part in one) <= DENSE_BYTES:
            device = self.trainer.strategy.root_device if self.trainer else "cpu"
            rows = dataset[np.arange(len(cells))].items()
            tensors = {name: torch.as_tensor(values, device=device) for name, values in rows}
            dataset = CellTensors(tensors)
        sampler = Minibatches(len(cells), batch_size, shuffle, drop_last)
        return DataLoader(dataset, sampler=sampler, batch_size=None)

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.train_idx, True, self.drop_last)

    def val_dataloader(self) -> DataLoader | None:
        return self._loader(self.val_idx, False, False) if len(self.val_idx) else None

"""What the methods of this room share: packages that may be absent, and smoothed expression."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
from anndata import AnnData
from scipy import sparse

from ...ratios._features import count_layer
from ..steady_state import smoothed


@contextmanager
def foreign(name: str, seed: int) -> Iterator[ModuleType]:
    """A package of the extra ``peers``, without its prints, bars and warnings.

    These packages set the seeds of NumPy and PyTorch for the whole process; both are put back.
    """
    held = np.random.get_state()  # noqa: NPY002
    with (
        warnings.catch_warnings(),
        torch.random.fork_rng(devices=[]),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            package = import_module(name)
        except ImportError as error:
            message = f"{name} is not installed ({error}): pip install 'splicedvae[peers]'."
            raise ImportError(message) from error
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield package
        finally:
            np.random.set_state(held)  # noqa: NPY002


def counts_of(cells: AnnData) -> sparse.csr_matrix:
    """Raw total counts (cells, genes), float32."""
    return sparse.csr_matrix(count_layer(cells, "total"), dtype=np.float32)


def expression(cells: AnnData) -> np.ndarray:
    """Size-normalised totals, averaged over neighbours: scVelo's first moments (cells, genes)."""
    counts = counts_of(cells)
    return smoothed(cells, counts, counts).layers["Ms"].astype(np.float64)

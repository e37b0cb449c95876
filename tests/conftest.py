"""Data that tests share; one thread, so that sums do not depend on the number of cores."""

import os

import pytest
import torch

import splicedvae as sv

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start


@pytest.fixture(scope="session")
def _pancreas():
    if not os.environ.get("SPLICEDVAE_DATA"):
        pytest.skip("needs real cells: set SPLICEDVAE_DATA to the pancreas file or its folder")
    return sv.data.pancreas()


@pytest.fixture
def pancreas(_pancreas):
    """The real pancreas cells, a copy for each test."""
    return _pancreas.copy()


@pytest.fixture(scope="session")
def _simulated():
    return sv.data.simulate(n_obs=400, n_vars=120, seed=0)


@pytest.fixture
def simulated(_simulated):
    """400 simulated cells of 120 genes, a copy for each test."""
    return _simulated.copy()

"""Data that tests share; one thread, so that sums do not depend on the number of cores."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

# Before the imports that read them, and for the processes that tests start. Numba's too: scanpy
# uses it, and it hands its number of threads on to torch. Two test processes with two threads each
# on two cores spend most of their time waiting for each other. For the same reason the jobs of the
# book's stages run one after another, and in the test's own process, which alone knows the profiles
# that it adds.
os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["LOKY_MAX_CPU_COUNT"] = "1"

import numba
import numpy as np
import torch

import splicedvae as sv

numba.config.reload_config()  # a plugin of pytest may have imported it before

# A shell that runs tests in the background has its processes ignore Ctrl-C; what tests start, and
# stop in that way, must not inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    """Of tests that guard the publishing, ``SPLICEDVAE_TURN=k/n`` leaves every n-th, from the k-th.

    Where each commit takes the next turn, n commits run them all.
    """
    if not (turn := os.environ.get("SPLICEDVAE_TURN")):
        return
    k, n = map(int, turn.split("/"))
    guards = [item for item in items if item.get_closest_marker("publishing")]
    others_turn = {item for i, item in enumerate(guards) if (i - k) % n}
    config.hook.pytest_deselected(items=list(others_turn))
    items[:] = [item for item in items if item not in others_turn]


@pytest.fixture(autouse=True)
def _one_thread():
    """Also after a test whose job, alone on the machine, took all cores."""
    torch.set_num_threads(1)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def serve():
    """Return a context that serves a folder, as any plain web server would, at an address."""

    @contextmanager
    def served(folder: Path):
        handler = partial(Quiet, directory=folder)
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()

    return served


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


@pytest.fixture(scope="module")
def cells():
    """240 simulated cells of 40 genes, prepared, with covariates: enough to train small models."""
    adata = sv.data.prepare(sv.data.simulate(n_obs=240, n_vars=120), n_top_genes=40)
    adata.obs["donor"] = np.where(np.arange(240) % 2, "a", "b")
    adata.obs["plate"] = np.array(["p", "q", "r"])[np.arange(240) % 3]
    adata.obs["age"] = np.linspace(0, 1, 240)
    return adata


@pytest.fixture(scope="module")
def parts(cells):
    """Positions of their train, val and test cells."""
    return sv.data.split(cells)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory) -> Path:
    """The _build folder of a smoke build of exactly these sources, made if there is none."""
    from build import ROOT, source_hash  # here, as only few tests need what the book needs

    build = ROOT / "_build"
    if (build / "build.json").exists():
        facts = json.loads((build / "build.json").read_text())
        if (facts["profile"], facts["source"]) == ("smoke", source_hash()):
            return build
    out = tmp_path_factory.mktemp("book")
    command = [sys.executable, ROOT / "book" / "tools" / "build.py", "book", "--profile", "smoke"]
    done = subprocess.run([*command, "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return out / "_build"

"""What one of the two tested sets of versions writes, the other reads: h5ad, zarr, a saved model.

The other set is that of ``.venv-newest`` or ``.venv``, or of the interpreter in
``SPLICEDVAE_OTHER_PYTHON``. Each direction is a test.
"""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WRITE = """
import sys

import numpy as np

import splicedvae as sv

cells = sv.data.simulate(n_obs=60, n_vars=30, seed=0)
cells.X = cells.layers["spliced"].copy()
cells.obs["sample"] = ["one", "two"] * 30
cells = sv.data.prepare(cells, min_shared_counts=1)
sv.SplicedVAE.setup_anndata(cells, batch_key="sample")
model = sv.SplicedVAE(cells, n_latent=3, n_hidden=8)
model.train(2, split=(range(40), range(40, 60)), enable_progress_bar=False)
model.impute_layers(cells)
model.save("model", save_anndata=True)
cells.write_h5ad("cells.h5ad")
cells.write_zarr("cells.zarr")
np.save("ratio.npy", model.get_splicing_ratio(cells, return_numpy=True))
"""
READ = """
import sys

import anndata
import numpy as np

import splicedvae as sv

expected = np.load("ratio.npy")
for cells in (anndata.read_h5ad("cells.h5ad"), anndata.read_zarr("cells.zarr")):
    x = cells.layers["total"].toarray()
    np.testing.assert_array_equal(x, cells.X.toarray())
    assert list(cells.obs["sample"][:2]) == ["one", "two"]
    model = sv.SplicedVAE.load("model", cells)
    np.testing.assert_allclose(model.get_splicing_ratio(return_numpy=True), expected, atol=1e-5)
    query = sv.SplicedVAE.prepare_query_anndata(cells[:, ::-1].copy(), "model")
    np.testing.assert_allclose(
        model.get_splicing_ratio(query, return_numpy=True), expected, atol=1e-5
    )
alone = sv.SplicedVAE.load("model")  # with the cells that were saved along
np.testing.assert_allclose(alone.get_splicing_ratio(return_numpy=True), expected, atol=1e-5)
"""


def other_python() -> Path | None:
    """An interpreter with the other set of versions."""
    named = os.environ.get("SPLICEDVAE_OTHER_PYTHON")
    places = (
        [Path(named)] if named else [ROOT / v / "bin/python" for v in (".venv", ".venv-newest")]
    )
    here = version("anndata").split(".")[:2]
    code = "from importlib.metadata import version; print(version('anndata'))"
    for python in places:
        if python.exists():
            found = subprocess.run([python, "-c", code], capture_output=True, text=True).stdout
            if found and found.split(".")[:2] != here:
                return python
    return None


@pytest.mark.parametrize("writer", ["here", "there"])
def test_what_one_set_of_versions_writes_the_other_reads(writer, tmp_path):
    if (there := other_python()) is None:
        pytest.skip("needs the other set of versions: see tests/test_stacks.py")
    pythons = [sys.executable, there] if writer == "here" else [there, sys.executable]
    for python, code in zip(pythons, (WRITE, READ), strict=True):
        command = [python, "-W", "ignore", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]

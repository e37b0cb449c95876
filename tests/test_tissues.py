"""Cells of other tissues: where they come from, and that a file from elsewhere runs nothing."""

import pickle
import sys
import types

import anndata
import numpy as np
import pytest

import splicedvae as sv
from splicedvae import tissues
from splicedvae.data import blob_id

NAMES = tuple(tissues.SOURCES)
FORMS = "spliced", "unspliced"


class SearchData:
    """Stands for Monod's class, which these files name."""


def save_of_monod(file, n_obs=30, n_vars=8, seed=0, **more):
    """Write counts as Monod does; the first cell has too few. Returns spliced, unspliced."""
    rng = np.random.default_rng(seed)
    spliced, unspliced = rng.poisson(5, (n_vars, n_obs)), rng.poisson(4, (n_vars, n_obs))
    spliced[:, 0], unspliced[:, 0] = 1, 1
    held = SearchData()
    held.S, held.U = spliced.astype(np.float32), unspliced.astype(np.float32)
    held.gene_names = np.array([f"Gene{i}" for i in range(n_vars)])
    held.hist = [np.zeros((3, 2)), np.ones((2, 2))]
    held.moments = [{"S_mean": 0.5}]
    held.__dict__.update(more)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("monod", "monod.extract_data"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules["monod.extract_data"].SearchData = SearchData
        patch.setattr(SearchData, "__module__", "monod.extract_data")
        file.write_bytes(pickle.dumps(held, protocol=3))
    return spliced.T, unspliced.T


@pytest.fixture
def server(tmp_path, monkeypatch, serve):
    """A web server in the place of GitHub, with a file for each set."""
    folder = tmp_path / "server"
    sources = {}
    for i, (name, source) in enumerate(tissues.SOURCES.items()):
        file = folder / source.folder / "raw.sd"
        file.parent.mkdir(parents=True)
        save_of_monod(file, seed=i)
        own = {**vars(source), "blob": blob_id(file)}
        sources[name] = tissues.Source(**own)
    monkeypatch.setattr(tissues, "SOURCES", sources)

    monkeypatch.delenv("SPLICEDVAE_DATA", raising=False)
    with serve(folder) as address:
        monkeypatch.setattr(tissues, "BASE_URL", address)
        yield folder


def test_download_is_checked_cached_and_read(tmp_path, server):
    cells = sv.data.tissues(cache_dir=tmp_path / "cache")
    assert tuple(cells) == NAMES
    facts = cells["brain_e18"].uns["provenance"]
    assert facts["source"] == "download" and facts["simulated"] is False
    for place in server.iterdir():
        (place / "raw.sd").unlink()
    again = sv.data.tissues(cache_dir=tmp_path / "cache")
    assert again["cortex_c01"].uns["provenance"]["source"] == "cache"
    (tmp_path / "cache" / "tissues" / "brain_e18.sd").write_bytes(b"half")  # damaged, and no server
    left = sv.data.tissues(cache_dir=tmp_path / "cache")
    assert all(c.uns["provenance"]["simulated"] for c in left.values())


def test_what_is_read_is_what_was_saved(tmp_path):
    spliced, unspliced = save_of_monod(tmp_path / "brain_e18.sd")
    cells = sv.data.tissues(tmp_path, names="brain_e18")["brain_e18"]
    assert cells.shape == (29, 8) and list(cells.var_names[:2]) == ["Gene0", "Gene1"]
    for layer, counts in zip(FORMS, (spliced, unspliced), strict=True):
        np.testing.assert_array_equal(cells.layers[layer].toarray(), counts[1:])  # one is too poor
    assert set(cells.obs["tissue"]) == {"brain"} and set(cells.obs["library"]) == {"brain_e18"}


def test_a_wrong_file_on_the_server_is_not_used(tmp_path, server, caplog):
    save_of_monod(server / "neuron_1k_v3" / "raw.sd", seed=9)
    cells = sv.data.tissues(names="brain_e18", cache_dir=tmp_path / "cache")["brain_e18"]
    assert "SIMULATED" in caplog.text and cells.uns["provenance"]["simulated"] is True
    assert not list((tmp_path / "cache" / "tissues").iterdir())


class _Runs:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (self.file, "w")


def test_nothing_in_a_file_is_run(tmp_path):
    evil = tmp_path / "was_run"
    save_of_monod(tmp_path / "brain_e18.sd", moments=_Runs(str(evil)))
    with pytest.raises(ValueError, match="open, which no SearchData needs; nothing was run"):
        sv.data.tissues(tmp_path, names="brain_e18")
    assert not evil.exists()
    pickle_of_open = tmp_path / "cortex_b01.sd"
    pickle_of_open.write_bytes(pickle.dumps(_Runs(str(evil))))
    with pytest.raises(ValueError, match="nothing was run"):
        sv.data.tissues(tmp_path, names="cortex_b01")
    assert not evil.exists()


@pytest.mark.parametrize("content", [{}, [1, 2], "text"])
def test_a_pickle_of_something_else(tmp_path, content):
    (tmp_path / "brain_e18.sd").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"brain_e18\.sd.*holds no SearchData"):
        sv.data.tissues(tmp_path, names="brain_e18")


def test_half_a_file(tmp_path):
    file = tmp_path / "brain_e18.sd"
    save_of_monod(file)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"brain_e18\.sd can't be read as a save of Monod"):
        sv.data.tissues(tmp_path, names="brain_e18")


def test_names_and_places_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"names='liver' is not known; choose one of brain_e18"):
        sv.data.tissues(names="liver")
    with pytest.raises(FileNotFoundError, match=r"neuron_e18_1219x200\.h5ad for 'brain_e18'"):
        sv.data.tissues(tmp_path)


def test_simulated_stand_ins_share_genes_and_the_libraries_a_tissue(tmp_path, monkeypatch):
    monkeypatch.delenv("SPLICEDVAE_DATA", raising=False)
    cells = sv.data.tissues(cache_dir=tmp_path, download=False)
    genes = [list(c.var_names) for c in cells.values()]
    assert genes[0] == genes[1] == genes[2]
    assert all("simulated" in c.uns["provenance"]["name"] for c in cells.values())
    b, c = cells["cortex_b01"], cells["cortex_c01"]
    assert b.uns["provenance"]["name"] == c.uns["provenance"]["name"]
    assert abs(b.layers["spliced"] - c.layers["spliced"]).sum() > 0  # other cells of it

    def logit_mean(a):
        s, u = (np.asarray(a.layers[x].sum(0)).ravel() + 0.5 for x in FORMS)
        return np.log(s / u)

    same = np.square(logit_mean(b) - logit_mean(c)).mean()
    other = np.square(logit_mean(b) - logit_mean(cells["brain_e18"])).mean()
    assert same < other / 4
    cells["brain_e18"].write_h5ad(tmp_path / tissues.SOURCES["brain_e18"].file)
    saved = sv.data.tissues(tmp_path, names="brain_e18")["brain_e18"]
    assert saved.uns["provenance"]["simulated"] is True  # also when saved


def test_the_real_ones(pancreas):
    cells = sv.data.tissues()
    assert [c.shape for c in cells.values()] == [(1219, 200), (765, 200), (750, 200)]
    for name, adata in cells.items():
        assert adata.uns["provenance"]["simulated"] is False, name
        total = sum(adata.layers[x] for x in FORMS)
        assert total.sum(1).min() >= tissues.MIN_COUNTS
    assert isinstance(cells["brain_e18"], anndata.AnnData)

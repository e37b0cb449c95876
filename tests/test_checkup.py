"""The check-up: each fault is planted and found, in the right cells, and nothing else is."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import splicedvae as sv

LOUD = ("stop", "look")


def healthy(n=200, share=0.2, seed=0):
    """Cells of 60 genes with 1,000 counts each, a share of them unspliced; X is the total."""
    rng = np.random.default_rng(seed)
    s, u = (
        sparse.csr_matrix(rng.poisson(m, (n, 60)))
        for m in (1000 / 60 * (1 - share), 1000 / 60 * share)
    )
    cells = anndata.AnnData((s + u).astype(np.float32), layers={"spliced": s, "unspliced": u})
    cells.obs["donor"] = pd.Categorical(np.where(np.arange(n) < n // 2, "a", "b"))
    cells.obsm["X_umap"] = rng.random((n, 2))
    return cells


def loud(findings):
    return findings[findings["level"].isin(LOUD)]


def only(cells, **kwargs):
    """The one finding that is no note."""
    found = loud(sv.data.check(cells, **kwargs))
    assert len(found) == 1, found
    return found.iloc[0]


def test_healthy_cells():
    cells = healthy()
    cells.layers["total"] = cells.X.copy()
    sv.velocity.embed(cells, overwrite=True, umap=False)
    findings = sv.data.check(cells, "donor")
    assert list(findings["level"]) == ["ok"] and not findings.stops
    assert list(findings.columns) == ["level", "what", "where", "cells", "do"]
    assert repr(findings).startswith("ok") and "Nothing found" in findings._repr_html_()


def test_notes_do_not_hide_that_nothing_was_found():
    findings = sv.data.check(sv.data.simulate(n_obs=100, n_vars=400))
    assert list(findings["level"]) == ["ok", "note", "note"]
    assert findings["what"].str.contains("copy of layer 'spliced'").any()
    assert findings["what"].str.contains("There is no obsm").any()


def swap(cells, name, row, column, value):
    values = cells.layers[name].toarray().astype(float)
    values[row, column] = value
    cells.layers[name] = sparse.csr_matrix(values)


@pytest.mark.parametrize(
    ("value", "kind"),
    [(-1, "negative"), (0.5, "fractional"), (np.nan, "missing"), (np.inf, "infinite")],
)
@pytest.mark.parametrize("name", ["spliced", "unspliced"])
def test_what_is_no_count(name, value, kind):
    cells = healthy()
    swap(cells, name, [3, 3, 7], [5, 6, 5], value)
    row = only(cells)
    assert (row["level"], row["cells"], row["where"]) == ("stop", 2, f"layers['{name}']")
    assert kind in row["what"] and "gene 5" in row["what"]


def test_missing_and_empty_forms():
    cells = healthy()
    del cells.layers["unspliced"]
    assert only(cells)["what"] == "There is no layer 'unspliced', only spliced."
    del cells.layers["spliced"]
    findings = sv.data.check(cells)
    assert not len(loud(findings)) and findings["what"].str.contains("totals only").any()
    cells.X = np.log1p(cells.X)
    row = only(cells)
    assert (row["level"], row["where"], row["cells"]) == ("stop", "X", 200)


def test_layers_of_other_names():
    cells = healthy()
    cells.layers["mature"], cells.layers["nascent"] = (
        cells.layers.pop(name) for name in ("spliced", "unspliced")
    )
    assert sv.data.check(cells)["what"].str.contains("totals only").any()
    assert not len(loud(sv.data.check(cells, None, "mature", "nascent")))


def test_batch_without_unspliced_counts():
    cells = healthy()
    unspliced = cells.layers["unspliced"].toarray()
    unspliced[100:] = 0  # an outer join of two samples
    cells.layers["unspliced"] = sparse.csr_matrix(unspliced)
    row = only(cells, batch_key="donor")
    assert (row["level"], row["where"], row["cells"]) == ("stop", "donor b", 100)
    assert "Layer 'unspliced' is empty" in row["what"]
    row = loud(sv.data.check(cells)).query("where == 'all cells'").iloc[0]
    assert (row["level"], row["cells"]) == ("look", 100) and "no count in layer" in row["what"]


@pytest.mark.parametrize(
    ("share", "level", "word"),
    [
        (0.005, "stop", "Flex"),
        (0.05, "look", "introns"),
        (0.15, None, None),
        (0.28, None, None),
        (0.4, "look", "mixed"),
        (0.7, None, "nuclei"),
        (0.95, "look", "swapped"),
    ],
)
def test_unspliced_share(share, level, word):
    cells = healthy(share=share)
    findings = sv.data.check(cells)
    row = findings[findings["what"].str.contains("are unspliced")]
    if word is None:
        assert not len(row)
        return
    assert len(row) == 1 and word in row["what"].iloc[0] + row["do"].iloc[0]
    assert row["level"].iloc[0] == (level or "note") and row["cells"].iloc[0] == 200
    truth = cells.layers["unspliced"].sum() / cells.X.sum()
    assert f"{truth:.1%}" in row["what"].iloc[0]


def test_copies():
    cells = healthy()
    cells.layers["unspliced"] = cells.layers["spliced"].toarray()
    what = loud(sv.data.check(cells))["what"].tolist()
    assert "The two layers are the same." in what
    cells = healthy()
    cells.layers["total"] = cells.layers["spliced"].copy()
    row = only(cells)
    assert (row["level"], row["where"]) == ("stop", "layers['total']")
    cells = healthy()
    cells.X = cells.layers["unspliced"].copy()
    assert only(cells)["where"] == "X"


def test_names_covariates_depth_and_empty_genes_and_cells():
    cells = healthy()
    cells.obs_names = ["x", "x", "y", "y", "y", *map(str, range(195))]
    row = only(cells)
    assert (row["level"], row["where"], row["cells"]) == ("look", "obs_names", 5)
    cells = healthy()
    cells.var_names = ["Ins1", "Ins1", *map(str, range(58))]
    assert "(Ins1)" in only(cells)["what"]

    cells = healthy()
    cells.obs["age"] = np.where(np.arange(200) < 3, np.nan, 1)
    assert (only(cells)["where"], only(cells)["cells"]) == ("obs['age']", 3)
    cells = healthy()
    cells.obs.iloc[:4, 0] = np.nan
    row = only(cells, batch_key="donor")
    assert (row["level"], row["cells"]) == ("stop", 4) and "batch" in row["do"]

    cells = healthy()
    for name in ("spliced", "unspliced"):
        counts = cells.layers[name].toarray()
        counts[:, 20:], counts[6] = 0, 0
        cells.layers[name] = sparse.csr_matrix(counts)
    found = loud(sv.data.check(cells))
    assert set(found["where"]) == {"obs_names", "all cells"}
    assert found.query("where == 'obs_names'")["cells"].item() == 1
    depth = (cells.layers["spliced"] + cells.layers["unspliced"]).sum(1)
    assert found.query("where == 'all cells'")["cells"].item() == (depth < 500).sum()
    assert sv.data.check(cells)["what"].str.startswith("40 of 60 genes").any()


def test_graph_and_embedding():
    cells = healthy()
    sv.velocity.embed(cells, "spliced", overwrite=True, umap=False)
    cells.obsm["X_umap"][[2, 5], 0] = np.nan
    row = only(cells)
    assert (row["level"], row["where"], row["cells"]) == ("stop", "obsm['X_umap']", 2)
    cells.obsm["X_umap"][:] = 0
    part = cells[:50].copy()
    assert "other cells" in only(part)["what"]


def test_unknown_batch_column():
    with pytest.raises(KeyError, match=r"no column 'sample'.*donor"):
        sv.data.check(healthy(), "sample")


@pytest.mark.parametrize("batch_key", [None, "donor"])
def test_cells_stay_as_they_are(batch_key):
    cells = healthy()
    cells.layers["total"] = cells.layers["spliced"].tolil().tocsr()
    cells.obs.iloc[:4, 0] = np.nan
    before = cells.copy()
    sv.data.check(cells, batch_key)
    sv.data.check(cells[::2], batch_key)
    for name in ("spliced", "unspliced", "total"):
        kept, given = cells.layers[name], before.layers[name]
        assert kept.dtype == given.dtype and abs(kept - given).nnz == 0
        assert kept.indices.tolist() == given.indices.tolist()
    assert cells.obs.equals(before.obs) and cells.uns == before.uns
    assert set(cells.layers) == set(before.layers) and set(cells.obsm) == set(before.obsm)


def test_cells_on_disk(tmp_path):
    cells = healthy()
    swap(cells, "unspliced", 3, 5, 0.5)
    cells.write_h5ad(tmp_path / "x.h5ad")
    found = sv.data.check(anndata.read_h5ad(tmp_path / "x.h5ad", backed="r"))
    assert found.equals(sv.data.check(cells)) and found.stops

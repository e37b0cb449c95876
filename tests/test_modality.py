"""A second modality beside the counts: read, standardised, missing in some cells or in a query."""

import warnings

import mudata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from scipy import sparse

import splicedvae as sv
from splicedvae.counts import named_layers
from splicedvae.head import Features, HierarchicalLinear, PenalisedLinear, measured_modality


@pytest.fixture
def chromatin(cells):
    """Prepared cells with a simulated count of open chromatin by gene; the last 60 have none."""
    adata = cells.copy()
    rate = np.log1p(adata.layers["unspliced_true"]) + 0.2
    counts = np.random.default_rng(0).poisson(rate)
    counts[-60:] = 0
    adata.layers["chromatin"] = sparse.csr_matrix(counts)
    return adata


def trained(adata, parts, **kwargs):
    sv.SplicedVAE.setup_anndata(adata, modality_layer="chromatin")
    model = sv.SplicedVAE(adata, n_latent=4, n_hidden=16, **kwargs)
    model.train(4, split=parts[:2], accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.mark.parametrize("own", [True, False])
def test_logit_by_hand(own):
    linear = HierarchicalLinear(3, 5, 0, own=own, modality=True).eval()
    torch.nn.init.normal_(linear.mean)
    h, features = torch.randn(7, 3), list(torch.randn(1 + own, 7, 5))
    expected = h @ linear.mixing @ linear.mean[0, :, 1 + own :].T
    widths = [w.exp() for w in (linear.own_width, linear.modality_width) if w is not None]
    for k, (o, width) in enumerate(zip(features, widths, strict=True)):
        expected = expected + o * width * linear.mean[0, :, k]
    torch.testing.assert_close(linear(h, features), expected)
    plain = PenalisedLinear(3, 5, own, 1, 30.0, modality=True)
    torch.nn.init.normal_(plain.modality_weight)
    torch.testing.assert_close(plain(h, features), features[-1] * plain.modality_weight)
    torch.testing.assert_close(plain.penalty(), 15 * plain.modality_weight.square().sum())


def test_missing_values_say_nothing():
    values = torch.tensor([[2.0, 0, 6], [torch.nan, 1, 3], [0, 0, 0], [torch.nan] * 3])
    counts, there = measured_modality(values, torch.tensor(4.0))
    np.testing.assert_allclose(counts[0], np.log1p([1, 0, 3]), rtol=1e-6)
    np.testing.assert_allclose(counts[1], np.log1p([0, 1, 3]), rtol=1e-6)
    assert there.tolist() == [[True] * 3, [False, True, True], [False] * 3, [False] * 3]
    as_they_are, _ = measured_modality(values, torch.tensor(0.0))
    assert as_they_are[0].tolist() == [2, 0, 6]
    features = Features(3, 0, own_total=False, modality=True)
    features.modality_mean += 1
    (own,), _ = features(torch.ones(4, 3), values)
    assert own.tolist() == [[1, -1, 5], [0, 0, 2], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("values", ["counts", "shares"])
def test_standardised_over_the_training_cells_that_have_it(values, chromatin, parts):
    raw = chromatin.layers["chromatin"].toarray().astype(float)
    if values == "shares":
        raw = raw / 7
        raw[5, 3] = np.nan
        chromatin.layers["chromatin"] = raw
    model = trained(chromatin, parts)
    train = raw[parts[0]]
    train = train[np.nansum(train, 1) > 0]
    features = model.module.head.features
    if values == "counts":
        depth = np.sort(train.sum(1))[(len(train) - 1) // 2]  # PyTorch's median is a value
        assert float(features.modality_depth) == depth
        train = np.log1p(depth * train / train.sum(1, keepdims=True))
    else:
        assert float(features.modality_depth) == 0
    np.testing.assert_allclose(features.modality_mean, np.nanmean(train, 0), rtol=1e-4)
    std = np.maximum(np.nanstd(train, 0), 1e-2)
    np.testing.assert_allclose(features.modality_std, std, rtol=1e-4)


def test_queries_with_and_without(chromatin, parts, tmp_path):
    model = trained(chromatin, parts)
    own = model.get_splicing_ratio(return_numpy=True)
    weight = model.module.head.output.mean[0, :, 1]
    assert weight.abs().max() > 0  # it has learnt from the modality
    without = chromatin.copy()
    del without.layers["chromatin"]
    query = sv.SplicedVAE.prepare_query_anndata(without, model)
    blind = model.get_splicing_ratio(query, return_numpy=True)
    np.testing.assert_array_equal(blind[-60:], own[-60:])
    assert (blind[:-60] != own[:-60]).any(1).all()
    np.testing.assert_array_equal(model.get_splicing_ratio(without, return_numpy=True), blind)
    fewer = sv.SplicedVAE.prepare_query_anndata(chromatin[:, 5:].copy(), model)
    assert np.isnan(fewer.layers["chromatin"][:, :5]).all()
    whole = chromatin.layers["chromatin"].toarray()
    np.testing.assert_array_equal(fewer.layers["chromatin"][:, 5:], whole[:, 5:])
    assert np.isfinite(model.get_splicing_ratio(fewer, return_numpy=True)).all()
    model.save(tmp_path / "model")
    loaded = sv.SplicedVAE.load(tmp_path / "model", chromatin.copy())
    np.testing.assert_array_equal(loaded.get_splicing_ratio(return_numpy=True), own)
    draws = model.get_splicing_ratio(n_samples=3, return_mean=False)
    assert draws.shape == (3, *own.shape)
    model.impute_layers(query)


def test_in_a_cell_without_it_other_cells_values_change_nothing(chromatin, parts):
    """Not a number or all 0: the same."""
    model = trained(chromatin, parts)
    values = chromatin.layers["chromatin"].toarray().astype(np.float32)
    values[-60:] = np.nan
    other = chromatin.copy()
    other.layers["chromatin"] = values
    again = model.get_splicing_ratio(other, return_numpy=True)
    np.testing.assert_array_equal(model.get_splicing_ratio(return_numpy=True), again)


@pytest.mark.parametrize("observed", [True, False])
def test_encoded_too(observed, chromatin, parts, tmp_path):
    """The latent follows the modality where it is measured, and is scVI's where it is not."""
    kwargs = {"encode_modality": True, "use_observed_lib_size": observed}
    model = trained(chromatin, parts, **kwargs)
    z = model.get_latent_representation()
    other = chromatin.copy()
    other.layers["chromatin"] = other.layers["chromatin"].toarray() + 1.0
    other.layers["chromatin"][:20] = np.nan
    moved = model.get_latent_representation(other)
    assert (moved[:-60] != z[:-60]).any(1).all()
    del other.layers["chromatin"]
    blind = model.get_latent_representation(other)
    np.testing.assert_array_equal(blind[-60:], z[-60:])
    np.testing.assert_array_equal(blind[:20], moved[:20])
    assert model.module.decoder.px_decoder.fc_layers[0][0].in_features == 4  # not the decoder
    model.save(tmp_path / "model")
    loaded = sv.SplicedVAE.load(tmp_path / "model", chromatin.copy())
    np.testing.assert_array_equal(loaded.get_latent_representation(), z)


def test_nothing_to_encode(cells):
    cells = cells.copy()
    sv.SplicedVAE.setup_anndata(cells)
    with pytest.raises(ValueError, match="modality_layer"):
        sv.SplicedVAE(cells, encode_modality=True)
    plain = scvi.model.SCVI
    plain.setup_anndata(cells, layer="total")
    scvi_model = plain(cells, n_latent=4, n_hidden=16)
    scvi_model.train(1, enable_progress_bar=False)
    with pytest.raises(ValueError, match="counts alone"):
        sv.SplicedVAE.from_scvi_model(scvi_model, cells, encode_modality=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "chromatin"),
        (0.0, "missing, or 0, in all cells"),
        (np.inf, "infinite in gene"),
        ("open", "no numbers"),
    ],
)
def test_bad_modalities(values, message, chromatin):
    if values is None:
        del chromatin.layers["chromatin"]
    else:
        kind = object if isinstance(values, str) else float
        chromatin.layers["chromatin"] = np.full(chromatin.shape, values, dtype=kind)
    with pytest.raises((KeyError, ValueError), match=message):
        sv.SplicedVAE.setup_anndata(chromatin, modality_layer="chromatin")
    assert "_scvi_uuid" not in chromatin.uns


def test_measured_in_no_training_cell(chromatin, parts):
    late = np.arange(chromatin.n_obs)[-60:]
    with pytest.raises(ValueError, match="none of the training cells"):
        trained(chromatin, (late[:40], late[40:]))


# --- bringing a modality to the cells ------------------------------------------------------------


@pytest.fixture(scope="module")
def measured():
    """Simulated cells, and their chromatin as another tool would hold it: in another order, with
    genes by id and version, one cell and one gene short, and others that the counts lack."""
    cells = sv.simulate.simulate(60, 30, chromatin=True)
    truth = cells.layers.pop("chromatin").toarray()
    cells.var["gene_ids"] = [f"ENSMUSG{i:011d}" for i in range(30)]
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(60)[:59], rng.permutation(30)[:29]
    other = AnnData(
        np.pad(truth[np.ix_(rows, columns)], ((0, 1), (0, 1)), constant_values=9).astype("float32"),
        obs=pd.DataFrame(index=[*cells.obs_names[rows], "a stranger"]),
        var=pd.DataFrame(
            index=[*(cells.var["gene_ids"].iloc[columns] + ".3"), "ENSMUSG99999999999"]
        ),
    )
    expected = np.zeros_like(truth)
    expected[np.ix_(rows, columns)] = truth[np.ix_(rows, columns)]
    return cells, other, expected


def test_a_modality_is_brought_by_names(measured, tmp_path):
    cells, other, expected = measured
    added = cells.copy()
    sv.data.add_modality(added, other)
    np.testing.assert_array_equal(np.nan_to_num(added.layers["chromatin"].toarray()), expected)
    assert set(added.layers) - {None} == {*named_layers(cells), "chromatin"}
    sv.SplicedVAE.setup_anndata(added, modality_layer="chromatin")
    # the same from one file, beside peaks, which are no genes
    peaks = AnnData(np.ones((60, 4)), obs=cells.obs[[]], var=pd.DataFrame(index=[*"abcd"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held = mudata.MuData({"rna": cells.copy(), "activity": other.copy(), "atac": peaks})
        held.write_h5mu(tmp_path / "cells.h5mu")
    read = sv.data.read(tmp_path / "cells.h5mu")
    assert "atac" not in read.layers and read.uns["provenance"]["format"] == "h5mu"
    np.testing.assert_array_equal(np.nan_to_num(read.layers["activity"].toarray()), expected)
    for form in ("spliced", "unspliced"):
        assert (read.layers[form] != cells.layers[form]).nnz == 0


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda cells, other: cells.layers.update(chromatin=cells.X), "already"),
        (lambda cells, other: setattr(other, "obs_names", [f"x{i}" for i in range(60)]), "No cell"),
        (lambda cells, other: setattr(other, "var_names", [f"x{i}" for i in range(30)]), "peaks"),
        (lambda cells, other: setattr(other, "obs_names", ["x"] * 60), "twice"),
        (lambda cells, other: other.X.__setitem__((0, 0), np.inf), "infinite"),
    ],
)
def test_what_can_not_be_brought(measured, spoil, says):
    cells, other = (held.copy() for held in measured[:2])
    spoil(cells, other)
    before = set(cells.layers)
    with pytest.raises(ValueError, match=says):
        sv.data.add_modality(cells, other)
    assert set(cells.layers) == before


def test_a_mudata_file_without_counts(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = {name: AnnData(np.ones((3, 2)), obs=pd.DataFrame(index=[*"abc"])) for name in "pq"}
        mudata.MuData(parts).write_h5mu(tmp_path / "cells.h5mu")
    with pytest.raises(ValueError, match=r"modalities .*'p', 'q'.* called rna"):
        sv.data.read(tmp_path / "cells.h5mu")


def test_cells_are_found_by_barcode_and_few_genes_in_a_large_table(measured):
    cells, other, expected = (held.copy() for held in measured)
    rng = np.random.default_rng(1)
    codes = ["".join(rng.choice([*"ACGT"], 16)) for _ in range(60)]
    names = dict(zip(cells.obs_names, codes, strict=True))
    cells.obs_names = [f"{names[name]}" for name in cells.obs_names]
    other.obs_names = [f"{names.get(name, 'ACGTACGTACGTACGT')}-1" for name in other.obs_names]
    sv.data.add_modality(cells, other)  # as snapatac2 names them
    there = cells.obs_names.isin([name[:-2] for name in other.obs_names[:-1]])
    absent = np.setdiff1d(np.arange(30), np.flatnonzero(expected.any(0)))
    found = cells.layers["chromatin"].toarray()
    assert np.isnan(found[np.ix_(there, absent)]).all()  # nobody measured them: they are not zero
    np.testing.assert_array_equal(np.nan_to_num(found), expected)
    few = cells[:, :5].copy()
    del few.layers["chromatin"]
    sv.data.add_modality(few, other)
    np.testing.assert_array_equal(few.layers["chromatin"].toarray(), found[:, :5])


def test_values_of_another_kind_and_a_query_without_the_modality(chromatin):
    part = sv.data.split(chromatin)
    sv.SplicedVAE.setup_anndata(chromatin, modality_layer="chromatin")
    model = sv.SplicedVAE(chromatin)
    model.train(1, split=part[:2], enable_progress_bar=False)
    scaled = chromatin[part[2]].copy()
    scaled.layers["chromatin"] = scaled.layers["chromatin"].toarray() - 0.5
    with pytest.raises(ValueError, match=r"learnt from counts .* layer 'chromatin'"):
        model.get_splicing_ratio(scaled)
    bare = chromatin[part[2]].copy()
    del bare.layers["chromatin"]
    with pytest.raises(KeyError, match=r"no layer 'chromatin'.*prepare_query_anndata"):
        sv.SplicedVAE.load_query_data(bare, model)
    ready = sv.SplicedVAE.prepare_query_anndata(bare, model)
    assert sv.SplicedVAE.load_query_data(ready, model, unfrozen=True).adata is ready

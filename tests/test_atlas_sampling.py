"""Plans: who gets how many cells, by the rules of the deal, and who stays unseen."""

import heapq
import logging

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicedvae.atlas.sampling import (
    balance,
    deal,
    one_to_one,
    order,
    sampling_plan,
    split,
)


def table(n_cells, tissues, datasets=None) -> pd.DataFrame:
    """Samples of the given sizes and tissues."""
    index = pd.Index([f"SRX{i:03d}" for i in range(len(n_cells))], name="sample")
    datasets = index if datasets is None else datasets
    return pd.DataFrame({"n_cells": n_cells, "tissue": tissues, "dataset": datasets}, index)


def dealt_one_by_one(n, capacity, weights):
    """Deal literally: whose turn is earliest takes one cell, until n are dealt."""
    given = [0] * len(capacity)
    turns = [(0.5 / w, i) for i, w in enumerate(weights) if capacity[i]]
    heapq.heapify(turns)
    for _ in range(n):
        _, i = heapq.heappop(turns)
        given[i] += 1
        if given[i] < capacity[i]:
            heapq.heappush(turns, ((given[i] + 0.5) / weights[i], i))
    return given


takers = st.lists(
    st.tuples(st.integers(1, 60), st.floats(0.01, 1000) | st.integers(1, 5)), min_size=1, max_size=9
)


@settings(max_examples=300)
@given(takers, st.floats(0, 1))
def test_the_deal_is_the_literal_one(rows, share):
    capacity, weights = (np.array(column, float) for column in zip(*rows, strict=True))
    n = round(share * capacity.sum())
    given_ = deal(n, capacity, weights)
    assert list(given_) == dealt_one_by_one(n, capacity, weights)
    assert given_.sum() == n


def test_a_deal_of_ten_million_is_exact_and_proportional():
    rng = np.random.default_rng(0)
    capacity = rng.lognormal(13, 2, 78).astype(int)
    weights = np.sqrt(capacity)
    n = 10_000_000
    given_ = deal(n, capacity, weights)
    assert given_.sum() == n and (given_ <= capacity).all()
    open_ = given_ < capacity
    assert 0 < open_.sum() < 78  # some run out
    ratio = given_[open_] / weights[open_]
    assert np.abs(given_[open_] - ratio.mean() * weights[open_]).max() < 2
    # none that ran out would have had less than the others
    assert (capacity[~open_] <= ratio.max() * weights[~open_] + 1).all()


def test_quotas_go_with_the_square_root_and_samples_take_turns():
    samples = table([10_000, 60_000, 1_500, 28_500], ["a", "b", "b", "b"])
    plan = sampling_plan(samples, 8_000)  # √10,000 : √90,000 = 1 : 3
    assert list(plan["n_take"]) == [2_000, 2_250, 1_500, 2_250]
    assert plan["n_take"].dtype == np.int64 and plan["seed"].dtype == np.uint32


def test_alpha_at_its_ends():
    samples = table([100, 900], ["a", "b"])
    for alpha, expected in ((0, [50, 50]), (0.5, [25, 75]), (1, [10, 90])):
        assert list(sampling_plan(samples, 100, alpha=alpha)["n_take"]) == expected


def test_a_tissue_that_runs_out_leaves_its_turns_to_the_others():
    samples = table([10, 400, 400], ["a", "b", "c"])
    assert list(sampling_plan(samples, 410, alpha=0)["n_take"]) == [10, 200, 200]
    capped = sampling_plan(samples, 45, alpha=0, max_per_sample=20)
    assert list(capped["n_take"]) == [10, 18, 17]


def test_all_cells_can_be_asked_for_but_no_more():
    samples = table([3, 5, 7], ["a", "b", "b"])
    assert list(sampling_plan(samples, 15)["n_take"]) == [3, 5, 7]
    with pytest.raises(ValueError, match="16 cells are asked for, but there are 15"):
        sampling_plan(samples, 16)
    with pytest.raises(
        ValueError, match="12 cells are asked for, but there are 11 that may be taken"
    ):
        sampling_plan(samples, 12, max_per_sample=4)


@st.composite
def atlases(draw):
    rows = draw(st.lists(st.tuples(st.integers(0, 50), st.sampled_from("abcd")), min_size=2))
    samples = table(*zip(*rows, strict=True))
    held = samples["n_cells"].sum()
    n = draw(st.integers(1, max(1, held)))
    alpha = draw(st.sampled_from([0, 0.3, 0.5, 1]))
    return samples, n, {"alpha": alpha, "seed": draw(st.integers(0, 3))}


@settings(max_examples=60, deadline=None)
@given(atlases(), st.randoms())
def test_plans_are_exact_nested_and_blind_to_the_order_of_rows(atlas, random):
    samples, n, options = atlas
    if n > samples["n_cells"].sum():
        with pytest.raises(ValueError, match="cells are asked for"):
            sampling_plan(samples, n, **options)
        return
    plan = sampling_plan(samples, n, **options)
    assert plan["n_take"].sum() == n
    assert (plan["n_take"] <= plan["n_cells"]).all() and (plan["n_take"] > 0).all()
    pd.testing.assert_frame_equal(plan, sampling_plan(samples, n, **options))
    rows = list(samples.index)
    random.shuffle(rows)
    again = sampling_plan(samples.loc[rows], n, **options)
    pd.testing.assert_frame_equal(plan, again.loc[plan.index])
    if n > 1:
        less = sampling_plan(samples, n - 1, **options)["n_take"]
        assert (less <= plan["n_take"].reindex(less.index, fill_value=0)).all()


def test_the_seed_of_a_sample_is_its_own():
    samples = table([50] * 4, list("aabb"))
    one, other = (sampling_plan(samples, 150, seed=seed)["seed"] for seed in (0, 1))
    assert one.is_unique and not set(one) & set(other)
    fewer = sampling_plan(samples.iloc[1:3], 40)["seed"]
    assert fewer.equals(one[fewer.index])
    assert one["SRX000"] == 673649080  # on every machine, in every version: stores are built on it


def test_the_order_takes_every_cell_once():
    assert sorted(order(7, 100)) == list(range(100))
    assert list(order(7, 100)) == list(order(7, 100)) != list(order(8, 100))
    assert len(order(7, 0)) == 0


def test_strata_without_a_tissue_are_left_out_and_counted(caplog):
    samples = table([10, 20, 30, 0, 5], ["a", "unmapped", "multiple", "a", None])
    with caplog.at_level(logging.INFO, "splicedvae"):
        plan = sampling_plan(samples, 10)
    assert list(plan.index) == ["SRX000"]
    assert "Left out 4 samples with 55 cells" in caplog.text
    everything = sampling_plan(samples, 65, exclude=())
    assert everything["n_take"].sum() == 65
    assert "multiple" in set(sampling_plan(samples, 40, exclude="unmapped")["tissue"])


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_outside_its_range(alpha):
    with pytest.raises(ValueError, match=r"alpha=.* from 0 to 1"):
        sampling_plan(table([10], ["a"]), 5, alpha=alpha)


@pytest.mark.parametrize("wrong", [0, -3, 2.5, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["n_cells", "max_per_sample"])
def test_numbers_of_cells_are_whole_and_positive(name, wrong):
    with pytest.raises(ValueError, match=rf"{name}=.* whole number"):
        sampling_plan(table([10], ["a"]), **{"n_cells": 5, name: wrong})


def test_samples_that_are_no_table_of_samples():
    samples = table([10, 10], ["a", "b"])
    with pytest.raises(ValueError, match="SRX000 comes twice"):
        sampling_plan(samples.iloc[[0, 0, 1]], 5)
    with pytest.raises(KeyError, match=r"organ.* among n_cells, tissue, dataset"):
        sampling_plan(samples, 5, by="organ")
    with pytest.raises(ValueError, match="5 cells are asked for, but there are 0"):
        sampling_plan(samples.assign(n_cells=0), 5)


def test_ten_million_as_a_float():
    assert sampling_plan(table([10], ["a"]), 1e1)["n_take"].sum() == 10


def test_balance_before_and_after():
    samples = table([100, 900, 50], ["a", "b", "c"])
    found = balance(samples, sampling_plan(samples[:2], 100))
    assert list(found.index) == ["b", "a", "c"]
    assert list(found["cells_before"]) == [900, 100, 50]
    assert list(found["cells_after"]) == [75, 25, 0]
    assert list(found["samples_before"]) == [1, 1, 1]
    assert list(found["samples_after"]) == [1, 1, 0]
    np.testing.assert_allclose(found["share_before"], [900 / 1050, 100 / 1050, 50 / 1050])
    np.testing.assert_allclose(found["share_after"], [0.75, 0.25, 0])


@pytest.fixture
def plan():
    """100 samples of 20 datasets and 5 tissues, 10,000 cells."""
    datasets = [f"d{i // 5:02d}" for i in range(100)]
    samples = table([200 + i for i in range(100)], list("vwxyz") * 20, datasets)
    return sampling_plan(samples, 10_000)


def one_part_each(plan) -> bool:
    """Whether each dataset is in one part only."""
    return not plan[["dataset", "part"]].drop_duplicates()["dataset"].duplicated().any()


def test_no_dataset_is_on_two_sides(plan):
    whole = split(plan, test=0.2, val=0.1, seed=3)
    assert one_part_each(whole)
    shares = whole.groupby("part")["n_take"].sum() / 10_000
    assert 0.15 <= shares["test"] <= 0.2 and 0.05 <= shares["val"] <= 0.1
    assert shares.sum() == 1
    assert whole.drop(columns="part").equals(plan)
    pd.testing.assert_frame_equal(whole, split(plan, test=0.2, val=0.1, seed=3))
    shuffled = split(plan.sample(frac=1, random_state=0), test=0.2, val=0.1, seed=3)
    assert shuffled["part"].loc[plan.index].equals(whole["part"])
    assert not split(plan, test=0.2, val=0.1, seed=4)["part"].equals(whole["part"])


@pytest.mark.parametrize("test", [["v", "x"], ("v", "x"), {"v", "x"}, pd.Index(["v", "x"])])
def test_named_tissues_are_left_out(plan, test):
    parts = split(plan, by="tissue", test=test)
    assert set(parts.loc[parts["part"] == "test", "tissue"]) == {"v", "x"}
    assert not parts.loc[parts["part"] != "test", "tissue"].isin(["v", "x"]).any()
    rest = parts[parts["part"] != "test"]
    assert one_part_each(rest)
    assert 0 < rest.loc[rest["part"] == "val", "n_take"].sum() <= 1_000


def test_one_tissue_by_its_name_and_one_by_lot(plan):
    assert set(split(plan, by="tissue", test="v").query("part == 'test'")["tissue"]) == {"v"}
    drawn = split(plan, by="tissue", test=0.25).query("part == 'test'")
    assert len(set(drawn["tissue"])) == 1 and len(drawn) == 20


def test_splits_that_can_not_be(plan):
    with pytest.raises(KeyError, match="no tissue liver"):
        split(plan, by="tissue", test=["v", "liver"])
    with pytest.raises(KeyError, match="lab"):
        split(plan, by="lab")
    with pytest.raises(ValueError, match="Every tissue is in test"):
        split(plan, by="tissue", test=list("vwxyz"))
    with pytest.raises(ValueError, match="left for test"):
        split(plan, by="tissue", test=[])
    with pytest.raises(ValueError, match="test has room for 100 cells, and the smallest dataset"):
        split(plan, test=0.01)
    with pytest.raises(ValueError, match="val has room for 10 cells"):
        split(plan, val=0.001)
    with pytest.raises(ValueError, match="left for train"):
        split(plan, test=sorted(set(plan["dataset"]))[1:])


@settings(max_examples=60, deadline=None)
@given(st.floats(-1, 2), st.floats(-1, 2))
def test_shares_outside_their_range(test, val):
    whole = table([10] * 50, ["a"] * 50).assign(n_take=10)
    if test > 0 and val > 0 and test + val < 1:
        try:
            parts = split(whole, test=test, val=val)["part"].value_counts()
        except ValueError as error:
            assert min(test, val) < 1 / 50 and "room for" in str(error)
        else:
            assert parts["test"] <= 50 * test and parts["val"] <= 50 * val
    else:
        with pytest.raises(ValueError, match="positive shares"):
            split(whole, test=test, val=val)


def test_orthologues_that_are_one_gene_in_each(caplog):
    pairs = pd.DataFrame(
        [
            ("ENSG01.4", "ENSMUSG01"),
            ("ENSG01", "ENSMUSG01.2"),  # the same pair again
            ("ENSG02", "ENSMUSG02"),
            ("ENSG02", "ENSMUSG03"),  # two in the mouse
            ("ENSG04", "ENSMUSG05"),
            ("ENSG05", "ENSMUSG05"),  # two in man
            ("ENSG06", None),
            ("ENSG07", ""),
            ("ENSG08", "Y73B6BL.6"),  # no version, a worm's gene
        ],
        columns=["Homo sapiens", "Mus musculus"],
    )
    with caplog.at_level(logging.INFO, "splicedvae"):
        found = one_to_one(pairs)
    assert list(found.index) == list(found["Homo sapiens"]) == ["ENSG01", "ENSG08"]
    assert list(found["Mus musculus"]) == ["ENSMUSG01", "Y73B6BL.6"]
    assert "2 of 9 pairs" in caplog.text
    with pytest.raises(ValueError, match="None of 2 pairs"):
        one_to_one(pairs[2:4])

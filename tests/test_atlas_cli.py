"""The command line of the atlas: what the documentation says can be typed, and what it answers."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from test_atlas_store import GENES, made_up, plan_of

from splicedvae.atlas.__main__ import main, parser
from splicedvae.atlas.store import Store
from splicedvae_book import corpus

QUICK_START = Path(__file__).parents[1] / "book" / "quickstart.md"


@pytest.fixture
def asked(tmp_path):
    """A plan of two samples, a table of genes with symbols, and where the store goes."""
    files = [tmp_path / f"{seed}.h5ad" for seed in range(2)]
    for seed, file in enumerate(files):
        made_up(seed=seed).write_h5ad(file)
    plan_of(files).to_parquet(tmp_path / "plan.parquet")
    symbols = [f"GENE{int(gene[4:])}" for gene in GENES]
    table = GENES.to_frame(index=False).assign(symbol=symbols)
    return str(tmp_path / "plan.parquet"), str(tmp_path / "store"), table


def stops(arguments):
    """Give the one line with which a command ends."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert "\n" not in end.value.code
    return end.value.code


def test_lines_of_the_quick_start_can_be_typed():
    lines = re.findall(r"^python -m splicedvae\.atlas (.+)$", QUICK_START.read_text(), re.MULTILINE)
    steps = [parser().parse_args(shlex.split(line)) for line in lines]
    assert [args.step.__name__ for args in steps] == ["plan", "build", "train"]
    plan, build, train = steps
    assert plan.split == "dataset" and build.genes == "genes.csv"
    assert plan.plan == build.plan and build.store == train.store


@pytest.mark.parametrize("columns", [["gene"], ["gene", "symbol"]])
def test_genes_are_the_column_of_that_name(columns, asked, tmp_path, capsys):
    plan, store, table = asked
    table[columns].to_csv(tmp_path / "genes.csv", index=False)
    main(["build", plan, store, str(tmp_path / "genes.csv")])
    assert list(Store(store).genes) == list(GENES)
    assert "15 genes." in capsys.readouterr().out
    again = str(tmp_path / "again")  # what a store holds is what a store can be built with
    main(["build", plan, again, f"{store}/genes.csv"])
    assert Path(again, "genes.csv").read_bytes() == Path(store, "genes.csv").read_bytes()


@pytest.mark.parametrize(
    ("form", "first"),
    [
        ({"index": False, "header": False}, GENES[0]),
        ({}, "Unnamed: 0"),  # pandas numbers the rows
        ({"index": False, "columns": ["symbol", "gene"]}, "symbol"),
        ({"index": False, "sep": "\t"}, r"gene\tsymbol"),
    ],
)
def test_other_first_column_of_genes(form, first, asked, tmp_path):
    plan, store, table = asked
    table.to_csv(tmp_path / "genes.csv", **form)
    told = stops(["build", plan, store, tmp_path / "genes.csv"])
    assert f"genes.csv begins with '{first}'; its header must be gene, or gene,symbol" in told
    assert "gene,Homo sapiens,Mus musculus" in told and not Path(store).exists()


@pytest.mark.parametrize("shard", ["1-2", "1", "1/2/3", "-1/2", "a/b", "1/", ""])
def test_shard_of_another_form(shard, asked, tmp_path):
    plan, store, table = asked
    table.to_csv(tmp_path / "genes.csv", index=False)
    told = stops(["build", plan, store, tmp_path / "genes.csv", f"--shard={shard}"])
    assert told == f"ValueError: --shard {shard} must be i/n, such as 0/8: the first of 8 machines."


def test_cells_as_one_writes_large_numbers(tmp_path):
    small = {"n_cells": 2000, "n_genes": 60, "n_tissues": 2, "flawed": False}
    corpus.corpus(tmp_path / "release", **small)
    call = ["plan", str(tmp_path / "release"), str(tmp_path / "plan"), "--min-cells", "10"]
    plans = []
    for cells in ("1e2", "100"):
        main([*call, "--cells", cells])
        plans.append(pd.read_parquet(tmp_path / "plan"))
    pd.testing.assert_frame_equal(*plans)
    assert plans[0]["n_take"].sum() == 100
    assert "n_cells=10.5 must be a whole number" in stops([*call, "--cells", "10.5"])


def test_package_that_an_address_needs(tmp_path):
    told = stops(["plan", "oci://bucket/release", tmp_path / "plan.parquet"])
    assert told == "ImportError: Install ocifs to access OCI Object Storage"


@pytest.mark.slow
def test_in_a_process_of_its_own(asked, tmp_path):
    plan, store, table = asked
    table["gene"].to_csv(tmp_path / "genes.csv", index=False, header=False)
    call = [sys.executable, "-m", "splicedvae.atlas", "build", plan, store, tmp_path / "genes.csv"]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("ValueError: ")

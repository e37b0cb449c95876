"""Published results: packed, served by a real server, and read in place of computing them."""

import zipfile
from contextlib import contextmanager
from dataclasses import replace

import pytest

import splicedvae as sv
from splicedvae_book import fits, profiles, published
from splicedvae_book import stage as stage_module


@pytest.fixture
def small(monkeypatch):
    """The stage of one fit, and a standard profile that is a matter of seconds."""
    cells = sv.data.simulate(n_obs=300, n_vars=100)
    monkeypatch.setitem(profiles.PROFILES, "standard", profiles.Profile(None, 40, 2, (0,)))
    monkeypatch.setattr(published, "load", lambda profile: cells)
    monkeypatch.setattr(fits, "stage", replace(fits.stage, names=("scVI",)))
    return cells


@pytest.fixture
def served(serve, monkeypatch):
    """Return a context that serves a folder at the address that the environment names."""

    @contextmanager
    def named(folder):
        with serve(folder) as address:
            monkeypatch.setenv(published.ENVIRONMENT_VARIABLE, address)
            yield

    return named


def held(folder):
    """Bytes of each file, less what an archive says of itself."""
    files = [f for f in folder.rglob("*") if f.is_file() and f.name != published.ABOUT]
    return {f.relative_to(folder): f.read_bytes() for f in files}


def test_a_chapter_alone_reads_what_a_build_has_computed(small, tmp_path, served, capsys):
    made, own, packed = (tmp_path / name for name in ("made", "own", "packed"))
    jobs = fits.stage.run(small, "standard", made)
    published.pack([fits.stage], made, packed)
    with served(packed):
        assert published.choose("auto", own, "fits") == "standard"
    assert "Results of fits: published, computed with torch " in capsys.readouterr().out
    assert held(own) == held(made)
    assert fits.stage.run(small, "standard", own) == jobs
    # at hand: nobody is asked again
    assert published.choose("auto", own, "fits") == "standard"
    assert capsys.readouterr().out == ""


def test_without_a_server_it_says_so_and_computes(small, tmp_path, served, capsys):
    with served(tmp_path):  # no such archive
        assert published.choose("auto", tmp_path / "a", "fits") == "smoke"
    told = capsys.readouterr().out
    assert "No published results of fits can be had (404" in told and "'smoke'" in told
    assert published.choose("standard", tmp_path / "a", "fits") == "standard"  # no server
    assert "They are computed here" in capsys.readouterr().out
    assert not held(tmp_path)
    for profile in ("smoke", "full"):
        assert published.choose(profile, tmp_path / "a", "fits") == profile
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kept", [0.5, 0])
def test_half_an_archive_is_none(small, tmp_path, served, capsys, kept):
    fits.stage.run(small, "standard", tmp_path / "made")
    (file,) = published.pack([fits.stage], tmp_path / "made", tmp_path / "packed")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole))])
    with served(tmp_path / "packed"):
        assert published.choose("auto", tmp_path / "own", "fits") == "smoke"
    assert not held(tmp_path / "own")


def test_an_archive_writes_nowhere_else(small, tmp_path, served):
    fits.stage.run(small, "standard", tmp_path / "made")
    (file,) = published.pack([fits.stage], tmp_path / "made", tmp_path / "packed")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("../../outside.txt", "no")
    with served(tmp_path / "packed"):
        published.choose("auto", tmp_path / "own", "fits")
    assert not list(tmp_path.glob("outside.txt")) and not list(tmp_path.parent.glob("outside.txt"))


def test_only_a_whole_stage_is_packed(small, tmp_path):
    with pytest.raises(FileNotFoundError, match="Results of fits are missing; run make results"):
        published.pack([fits.stage], tmp_path, tmp_path / "packed")


def test_the_key_is_of_cells_and_source_not_of_versions(small, monkeypatch):
    key, fingerprint = fits.stage.key(small, "standard"), fits.stage.fingerprint(small, "standard")
    monkeypatch.setattr(stage_module, "version", lambda name: "999")
    assert fits.stage.key(small, "standard") == key
    assert fits.stage.fingerprint(small, "standard") != fingerprint
    other = small.copy()
    other.layers["spliced"].data[0] += 1
    assert fits.stage.key(other, "standard") != key
    renamed = small.copy()
    renamed.var_names = [*renamed.var_names[:-1], "another"]
    assert fits.stage.key(renamed, "standard") != key
    monkeypatch.setattr(stage_module, "sources", lambda module: {module: ("", "other")})
    assert fits.stage.key(small, "standard") != key

"""Every chapter runs alone, as on Colab, and puts nothing of Colab's back to an older version."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import alone
import colab
from build import BuildError

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("[0-9]*.ipynb"))


def setup(name: str) -> str:
    cells = nbformat.read(ROOT / "book" / f"{name}.ipynb", as_version=4).cells
    (cell,) = [c for c in cells if c.cell_type == "code" and "google.colab" in c.source]
    assert cell is next(c for c in cells if c.cell_type == "code"), "something runs before it"
    return cell.source


@pytest.mark.parametrize("name", CHAPTERS)
def test_setup_installs_this_package_at_its_tag_and_pins_nothing(name):
    lines = [line.strip() for line in setup(name).splitlines()]
    package, *others = [line for line in lines if line.startswith("%pip")]
    requirement = Requirement(re.search('"(.*)"', package)[1])
    assert requirement.url == colab.TAGGED
    assert requirement.extras <= set(PROJECT["optional-dependencies"])
    assert not re.search(r"[<>=~]=|torch|numpy", "".join(others))
    bounds = [Requirement(text) for text in PROJECT["dependencies"]]
    for extra in requirement.extras:
        bounds += [Requirement(text) for text in PROJECT["optional-dependencies"][extra]]
    capped = [str(b) for b in bounds for s in b.specifier if s.operator not in (">=", "!=")]
    assert not capped, "a cap can downgrade what Colab has"


def test_setup_does_nothing_elsewhere():
    code = setup(CHAPTERS[0]).replace("%pip", "raise SystemError #")
    exec(code, {})  # here there is no google.colab


def needed(package: str) -> set[str]:
    """What a package asks for, its extras aside."""
    found = [Requirement(text) for text in requires(package) or []]
    return {
        canonicalize_name(r.name) for r in found if not r.marker or r.marker.evaluate({"extra": ""})
    }


@pytest.mark.parametrize("name", sorted(colab.WITHOUT_DEPENDENCIES))
def test_what_is_installed_without_dependencies_has_them(name):
    """A later CellRank that needs one package more is noticed here."""
    listed = set(colab.WITHOUT_DEPENDENCIES[name].split())
    there, new = set(), {Requirement(text).name for text in PROJECT["dependencies"]}
    while new:
        there |= new
        new = {n for package in new for n in needed(package)} - there
    wanted = {n for package in listed for n in needed(package)}
    assert wanted <= there | listed


def test_run_times_come_from_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr(colab, "RUN_TIMES", tmp_path / "run_times.json")
    assert colab.run_time("01_one").endswith("CPU: not measured yet / T4: not measured yet.*")
    run = {"chapter": "01_one", "setup_seconds": 50.0}
    runs = [
        run | {"device": "CPU (2 cores)", "profile": "smoke", "seconds": 20.0},
        run | {"device": "CPU (2 cores)", "profile": "standard", "seconds": 3600.0},
        run | {"device": "Tesla T4", "profile": "standard", "seconds": 550.0},
        run | {"device": "Tesla T4", "profile": "standard", "seconds": 9.0, "chapter": "02_two"},
        run | {"device": "NVIDIA H100", "profile": "standard", "seconds": 9.0},
    ]
    colab.RUN_TIMES.write_text(json.dumps(runs))
    told = colab.run_time("01_one")
    assert told.endswith(
        "CPU (2 cores): `smoke` 1 min, `standard` 61 min / Tesla T4: `standard` 10 min.*"
    )


def test_record_names_chapters_that_there_are():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    files = [entry["file"] for part in contents["parts"] for entry in part["chapters"]]
    runs = json.loads(colab.RUN_TIMES.read_text())
    assert {f"book/{run['chapter']}" for run in runs} <= set(files)
    assert {f"book/{name}" for name in CHAPTERS} <= set(files)


def test_every_chapter_was_measured_and_takes_less_than_three_minutes():
    """By the record, made one at a time on an idle machine: beside other tests time says little."""
    runs = [run for run in json.loads(colab.RUN_TIMES.read_text()) if run["profile"] == "smoke"]
    assert {run["chapter"] for run in runs} == set(CHAPTERS)
    assert {run["chapter"]: run["seconds"] for run in runs if run["seconds"] >= 180} == {}


@pytest.mark.slow
def test_every_chapter_runs_alone(tmp_path, capsys):
    """In a fresh environment with Colab's packages, an empty folder, and the set-up cell as it is.

    That it changed no package of Colab's and wrote no file elsewhere, book/alone.py checks.
    """
    command = [sys.executable, ROOT / "book" / "alone.py", "--jobs", "2", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    runs = json.loads((tmp_path / "runs.json").read_text())
    with capsys.disabled():
        print("", *(f"{run['chapter']} alone: {run['seconds']:.0f} s" for run in runs), sep="\n")
    assert [run["chapter"] for run in runs] == CHAPTERS
    for run in runs:
        assert run["profile"] == "smoke" and run["device"] and run["data"]


def test_a_run_that_does_not_stay_alone_is_refused():
    before = {"jinja2": "3.1.6"}
    quiet = {"chapter": "01_one", "packages": before | {"more": "1"}, "outside": []}
    alone.stayed_alone(dict(quiet), before)
    for fault in ({"packages": {"jinja2": "3.0.3"}}, {"outside": ["/elsewhere/file"]}):
        with pytest.raises(BuildError, match=r"01_one.*(3\.1\.6 → 3\.0\.3|elsewhere)"):
            alone.stayed_alone(quiet | fault, before)


def test_a_write_outside_is_seen(tmp_path):
    (tmp_path / "watch.py").write_text(alone.WATCH)
    code = "import watch; open('in.txt', 'w'); open('../out.txt', 'w'); open('in.txt')"
    (tmp_path / "chapter").mkdir()
    environment = {"PLACES": str(tmp_path / "chapter"), "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=tmp_path / "chapter", env=environment, check=True)
    seen = (tmp_path / "chapter" / "outside.txt").read_text().split()
    assert seen == [str(tmp_path / "out.txt")]

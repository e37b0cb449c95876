"""Every chapter runs alone, as on Colab, and puts nothing of Colab's back to an older version."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import requires
from pathlib import Path

import nbformat
import packaging
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import alone
import colab
from build import BuildError

pytestmark = pytest.mark.publishing

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("[0-9]*.ipynb"))
RUNTIMES = sorted((ROOT / ".ci").glob("colab*.txt"))


def setup(name: str) -> str:
    cells = nbformat.read(ROOT / "book" / f"{name}.ipynb", as_version=4).cells
    (cell,) = [c for c in cells if c.cell_type == "code" and "google.colab" in c.source]
    assert cell is next(c for c in cells if c.cell_type == "code"), "something runs before it"
    return cell.source


@pytest.mark.parametrize("name", CHAPTERS)
def test_setup_installs_this_package_at_its_tag_and_pins_nothing(name):
    (text,) = re.findall(r'"(splicedvae[\[@].*)",', setup(name))
    requirement = Requirement(text)
    assert requirement.url == colab.TAGGED
    assert requirement.extras <= set(PROJECT["optional-dependencies"])
    for others in re.findall(r'"--no-deps (.*)",', setup(name)):
        assert not re.search(r"[<>=~]=|torch|numpy", others)
    bounds = [Requirement(text) for text in PROJECT["dependencies"]]
    for extra in requirement.extras:
        bounds += [Requirement(text) for text in PROJECT["optional-dependencies"][extra]]
    capped = [str(b) for b in bounds for s in b.specifier if s.operator not in (">=", "!=")]
    assert not capped, "nothing that fits would be left where Colab has a newer one"


def test_setup_does_nothing_elsewhere():
    exec(setup(CHAPTERS[0]), {"subprocess": None})  # here there is no google.colab


def wheel(folder: Path, name: str, version: str, *needs: str, python: str = ">=3.8") -> Path:
    """Write a package that has no code."""
    folder.mkdir(exist_ok=True)
    fields = [f"Name: {name}", f"Version: {version}", f"Requires-Python: {python}"]
    fields += [f"Requires-Dist: {need}" for need in needs]
    file = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        info = f"{name}-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", "\n".join(["Metadata-Version: 2.1", *fields]))
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return file


def small_runtime(folder: Path, python: str) -> Path:
    """Make an environment of which the set-up cell believes that it is Colab's."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    (site,) = folder.glob("lib/*/site-packages")
    shutil.copytree(Path(packaging.__file__).parent, site / "packaging")
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").touch()
    (site / "torch.py").write_text("class cuda:\n    is_available = staticmethod(bool)\n")
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_runtime(tmp_path_factory.mktemp("small") / "env", sys.executable)


def run_setup(environment: Path, package: Path, held: list[Path]) -> subprocess.CompletedProcess:
    """Run chapter 1's set-up cell with real pip, which has only the folder of `package`."""
    python = environment / "bin" / "python"
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(package.parent)}
    offline |= {"PIP_CONFIG_FILE": os.devnull, "TMPDIR": str(environment)}
    given = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")} | offline
    if held:
        install = [python, "-m", "pip", "install", "--quiet", "--no-deps", *held]
        subprocess.run(install, env=given, check=True)
    cell = setup(CHAPTERS[0]).replace(colab.TAGGED, package.as_uri())
    command = [python, "-c", f"import google.colab\n{cell}"]
    return subprocess.run(command, env=given, capture_output=True, text=True)


def test_setup_leaves_what_is_there_and_takes_the_newest_that_fits(tmp_path, small):
    index, env = tmp_path / "index", tmp_path / "env"
    package = wheel(index, "splicedvae", "0.1", "anndata>=0.11", "pandas>=2.1")
    wheel(index, "pandas", "3.1.1")
    wheel(index, "anndata", "0.11", "pandas>=1.4")
    wheel(index, "anndata", "0.12", "pandas>=2.1")
    wheel(index, "anndata", "0.13", "pandas>=2.3")  # pip alone would take it, and pandas 3.1.1
    alone.copy(small, env)
    held = [wheel(tmp_path, "pandas", "2.2.3"), wheel(tmp_path, "Odd_name", "1.0+cu128")]
    (site,) = env.glob("lib/*/site-packages")
    for name, fields in {"odd": "Name: odd\nVersion: 1.1build1", "empty": ""}.items():
        (site / f"{name}-1.dist-info").mkdir()  # neither is a line that pip can read
        (site / f"{name}-1.dist-info" / "METADATA").write_text(fields)
    done = run_setup(env, package, held)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "Installed: anndata 0.12, splicedvae 0.1\nGPU: none; CPU\n"
    assert done.stderr == ""
    (constraints,) = env.glob("*/colab.txt")
    lines = constraints.read_text().splitlines()
    assert {"pandas==2.2.3", "odd-name==1.0+cu128"} <= set(lines)
    assert not [line for line in lines if line.startswith(("odd==", "None"))]
    again = run_setup(env, package, [])
    assert again.stdout.startswith("Installed: nothing new"), again.stdout + again.stderr


ADVICE = (
    "; choose another one in Colab's menu (Runtime > Change runtime type > Runtime version) "
    "and start again."
)


@pytest.mark.parametrize(
    ("held", "needs", "reason"),
    [
        (
            ("numpy", "1.24.0"),
            "numpy>=1.26",
            "it has numpy 1.24.0, but splicedvae needs numpy>=1.26",
        ),
        (
            ("pandas", "4.0"),
            "capped>=1",
            "it has pandas 4.0, but capped needs pandas<4 and >=2.1",
        ),
        (
            ("numpy", "2.0"),
            "compiled>=2",
            "pip stopped at: No matching distribution found for compiled>=2",
        ),
    ],
    ids=["too old", "too new", "not built for it"],
)
def test_setup_says_what_does_not_fit_in_one_sentence(tmp_path, small, held, needs, reason):
    index, env = tmp_path / "index", tmp_path / "env"
    package = wheel(index, "splicedvae", "0.1", needs)
    for version, bounds in {"1.1": "pandas<3,>=2", "1.2": "pandas<4,>=2.1"}.items():
        wheel(index, "capped", version, bounds)
    wheel(index, "compiled", "1.0")
    alone.copy(small, env)
    done = run_setup(env, package, [wheel(tmp_path, *held)])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"SplicedVAE cannot be installed in this runtime: {reason}{ADVICE}\n"


def test_setup_says_that_python_is_too_old(tmp_path):
    (tmp_path / "runtime.txt").write_text("#: python 3.10\n")
    try:
        python = alone.interpreter(tmp_path / "runtime.txt")
    except BuildError as error:
        pytest.skip(str(error))
    package = wheel(tmp_path / "index", "splicedvae", "0.1", python=PROJECT["requires-python"])
    done = run_setup(small_runtime(tmp_path / "env", python), package, [])
    assert (done.returncode, done.stdout) == (1, "")
    words = r"Package 'splicedvae' requires a different Python: 3\.10\.\d+ not in '>=3\.11'"
    sentence = rf"SplicedVAE cannot be installed in this runtime: pip stopped at: {words}"
    assert re.fullmatch(rf"{sentence}{re.escape(ADVICE)}\n", done.stderr), done.stderr


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda path: path.name)
def test_a_runtime_names_its_python_and_one_version_of_each_package(runtime):
    text = runtime.read_text()
    (python,) = re.findall(r"^#: python (\d\.\d+)$", text, re.MULTILINE)
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.0")
    pins = [Requirement(line) for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in pins)
    names = [canonicalize_name(pin.name) for pin in pins]
    assert len(set(names)) == len(names) and {"numpy", "pandas", "pip", "torch"} <= set(names)


def test_each_runtime_is_run_every_week():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "colab.yml").read_text())
    matrix = workflow["jobs"]["runtimes"]["strategy"]["matrix"]
    assert sorted(matrix["runtime"]) == sorted(path.stem for path in RUNTIMES)


def test_a_runtime_is_run_with_its_own_python(tmp_path, monkeypatch):
    (tmp_path / "runtime.txt").write_text("# Colab\n#: python 3.99\n")
    monkeypatch.setenv("PATH", str(tmp_path / "shims"), prepend=os.pathsep)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(BuildError, match=r"runtime\.txt needs Python 3\.99: install it"):
        alone.interpreter(tmp_path / "runtime.txt")
    shim, python = tmp_path / "shims/python3.99", tmp_path / "versions/3.99.1/bin/python"
    for file, answer in {shim: "exit 127", python: "echo Python 3.99.1"}.items():
        file.parent.mkdir(parents=True)
        file.write_text(f"#!/bin/sh\n{answer}\n")
        file.chmod(0o755)
    assert alone.interpreter(tmp_path / "runtime.txt") == str(python)
    shim.write_text("#!/bin/sh\necho Python 3.99.0\n")
    assert alone.interpreter(tmp_path / "runtime.txt") == "python3.99"


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


def test_chapters_that_were_measured_take_less_than_three_minutes():
    """By the record, made with at most one chapter beside: beside tests time says little."""
    runs = [run for run in json.loads(colab.RUN_TIMES.read_text()) if run["profile"] == "smoke"]
    assert {run["chapter"] for run in runs} == set(CHAPTERS)
    assert {run["chapter"]: run["seconds"] for run in runs if run["seconds"] >= 180} == {}


@pytest.mark.slow
def test_every_chapter_runs_alone(tmp_path, capsys):
    """In a fresh environment with Colab's packages, an empty folder, and the set-up cell as it is.

    That it changed no package of Colab's and wrote no file elsewhere, book/tools/alone.py checks.
    SPLICEDVAE_ALONE names chapters to run instead of all: "01_data,05_velocity".
    """
    try:
        alone.interpreter(alone.RUNTIME)
    except BuildError as error:
        if "CI" not in os.environ:
            pytest.skip(str(error))
        raise
    names = [name for name in os.environ.get("SPLICEDVAE_ALONE", "").split(",") if name] or CHAPTERS
    command = [
        sys.executable,
        ROOT / "book" / "tools" / "alone.py",
        *names,
        "--jobs",
        "2",
        "--out",
        tmp_path,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    runs = json.loads((tmp_path / "runs.json").read_text())
    with capsys.disabled():
        print("", *(f"{run['chapter']} alone: {run['seconds']:.0f} s" for run in runs), sep="\n")
    assert [run["chapter"] for run in runs] == names
    for run in runs:
        assert run["profile"] == "smoke" and run["device"] and run["data"]
        assert f"#: python {run['python'].rpartition('.')[0]}\n" in alone.RUNTIME.read_text()


def test_a_run_that_does_not_stay_alone_is_refused():
    before = {"jinja2": "3.1.6"}
    quiet = {"chapter": "01_one", "packages": before | {"more": "1"}, "outside": []}
    alone.stayed_alone(dict(quiet), before)
    faults = {
        r"3\.1\.6 → 3\.0\.3": {"packages": {"jinja2": "3.0.3"}},
        r"3\.1\.6 → None": {"packages": {"more": "1"}},
        "elsewhere": {"outside": ["/elsewhere/file"]},
    }
    for words, fault in faults.items():
        with pytest.raises(BuildError, match=f"01_one.*{words}"):
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

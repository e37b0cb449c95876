"""Run chapters alone, as on Colab: fresh environment, empty folder, set-up cell and all.

    python book/tools/alone.py [CHAPTER ...] [--runtime FILE] [--profile smoke] [--record] [--here]

The environment holds what the runtime's file lists (.ci/colab.txt if no other is named), with the
Python that it names, and google.colab as a stub. Each set-up cell runs as it is in a fresh copy of
that environment; git finds this tree's package under the address that the cell names. With --here,
in Colab or in its image, this interpreter's environment is used as it is. --record writes the
seconds into book/tools/run_times.json, which the notebooks show (`make notebooks`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import nbformat

from build import CELL_TIMEOUT, BuildError, chapters, execute
from colab import REPOSITORY, ROOT, RUN_TIMES, TAG

RUNTIME = ROOT / ".ci" / "colab.txt"
PACKAGE = ("pyproject.toml", "README.md", "LICENSE", "splicedvae", "book/splicedvae_book")
# Tells what a process of the environment opens to write, outside its own places.
WATCH = """\
import os, sys
def watch(event, args, places=tuple(os.environ.get("PLACES", "/").split(":"))):
    if event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR):
        path = os.path.abspath(args[0])
        if not path.startswith(places) and "__pycache__" not in path:
            with open(os.environ["PLACES"].split(":")[0] + "/outside.txt", "a") as file:
                print(path, file=file)
sys.addaudithook(watch)
"""


def serve(folder: Path) -> dict[str, str]:
    """Put this tree's package into a repository; return what makes git find it there."""
    for name in PACKAGE:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    git = ["git", "-C", str(folder), "-c", "user.name=book", "-c", "user.email=book@localhost"]
    for command in (["init", "-qb", "main"], ["add", "."], ["commit", "-qm", TAG], ["tag", TAG]):
        subprocess.run([*git, *command], check=True)
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{folder.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": REPOSITORY,
    }


def output(python: str | Path, *arguments: object) -> str:
    """Run Python with these arguments and return what it printed."""
    command = [str(python), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def packages(python: Path) -> dict[str, str]:
    """Return the version of each package of an environment."""
    listed = output(python, "-m", "pip", "--disable-pip-version-check", "list", "--format=json")
    return {package["name"]: package["version"] for package in json.loads(listed)}


def interpreter(runtime: Path) -> str:
    """Return a Python of the version that a runtime's file names: from PATH, or from pyenv."""
    version = re.search(r"^#: python (\S+)$", runtime.read_text(), re.MULTILINE)[1]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for python in (f"python{version}", *pyenv.glob(f"{version}.*/bin/python")):
        try:  # pyenv's shims are there for each version, but fail for one that is not chosen
            if output(python, "--version").startswith(f"Python {version}."):
                return str(python)
        except (BuildError, OSError):
            continue
    raise BuildError(
        f"{runtime.name} needs Python {version}: install it, with python{version} on PATH or by "
        f"`pyenv install {version}`"
    )


def colab_environment(folder: Path, runtime: Path) -> Path:
    """Make an environment as Colab's, and return its folder."""
    output(interpreter(runtime), "-m", "venv", folder / "colab")
    python = folder / "colab" / "bin" / "python"
    install = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile")
    output(python, *install, "--requirement", runtime)
    (site,) = (folder / "colab").glob("lib/*/site-packages")
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").touch()
    (site / "watch.py").write_text(WATCH)
    (site / "watch.pth").write_text("import watch\n")  # runs at every start
    return folder / "colab"


def copy(environment: Path, target: Path) -> Path:
    """Copy an environment and return the copy's Python."""
    # hard links: seconds and no space; pip replaces files and does not write into them
    shutil.copytree(environment, target, symlinks=True, copy_function=os.link)
    return target / "bin" / "python"


def setup_cell(name: str) -> str:
    """Return the set-up cell of a chapter's notebook, the first cell that is code."""
    notebook = nbformat.read(ROOT / "book" / f"{name}.ipynb", as_version=4)
    return next(cell.source for cell in notebook.cells if cell.cell_type == "code")


def lacking(python: Path) -> set[str]:
    """Return pip's words for each package that an installed one asks for and that is not there."""
    check = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True)
    return {line for line in check.stdout.splitlines() if line.endswith("which is not installed.")}


def set_up(cell: str, python: Path, before: dict[str, str]) -> float:
    """Run a set-up cell in an environment, check what it leaves, and return the seconds."""
    lacked, start = lacking(python), time.perf_counter()
    said = output(python, "-c", f"import google.colab\n{cell}")
    seconds = round(time.perf_counter() - start, 1)
    print(f"set-up, {seconds:.0f} s: {said}", flush=True)
    unchanged("the set-up cell", before, packages(python))
    if new := lacking(python) - lacked:
        raise BuildError(f"the set-up cell leaves packages out: {' '.join(sorted(new))}")
    output(python, "-c", "import splicedvae_book")  # bytecode that the chapters share
    return seconds


def kernel(folder: Path, python: Path) -> None:
    """Make "python3" mean `python` in this process's notebooks, with google.colab imported."""
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = folder / "jupyter" / "kernels" / "python3" / "kernel.json"
    startup = folder / "ipython" / "profile_default" / "startup" / "00-colab.py"
    for file in (spec, startup):
        file.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    startup.write_text("import google.colab\n")
    os.environ["JUPYTER_PATH"] = str(folder / "jupyter")
    os.environ["IPYTHONDIR"] = str(folder / "ipython")


def run_alone(name: str, profile: str, out: Path, base: Path | None) -> dict:
    """Run a chapter in a copy of the environment `base`, or in the one that is here."""
    work, python = out / name, Path(sys.executable)
    (work / "chapter").mkdir(parents=True)
    for variable in ("SPLICEDVAE_DATA", "MPLBACKEND"):  # a reader on Colab has neither
        os.environ.pop(variable, None)
    if base:
        python = copy(base, work / "env")
        places = {"HOME": work / "home", "TMPDIR": work / "tmp", "XDG_CACHE_HOME": out / "cache"}
        for variable, place in places.items():
            place.mkdir(exist_ok=True)
            os.environ[variable] = str(place)
        os.environ["PLACES"] = f"{work}:{out / 'cache'}:/dev/"
    kernel(work, python)
    notebook = nbformat.read(ROOT / "book" / f"{name}.ipynb", as_version=4)
    # no limit for a cell: one may make results that in a build are there before any chapter runs
    run = execute(name, notebook, work / "chapter" / f"{name}.ipynb", {"profile": profile}, None)
    # says more than the clock where a machine has other work too
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    run["cpu_seconds"] = round(spent.ru_utime + spent.ru_stime, 1)
    run["packages"] = packages(python)
    run["python"] = output(python, "--version").split()[1]
    outside = work / "outside.txt"
    run["outside"] = sorted(set(outside.read_text().split())) if outside.exists() else []
    shutil.rmtree(work / "env", ignore_errors=True)
    print(f"{name}: {run['seconds']:.0f} s on {run['device']}, {run['data']}", flush=True)
    return run


def run_all(names: list[str], profile: str, out: Path, jobs: int, runtime: Path | None) -> list:
    """Run chapters alone and check what they leave; raise BuildError if one did not stay alone.

    Without a runtime's file, in the environment that is here.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each of many processes compiles anew
    os.environ |= serve(out / "repository")
    if jobs > 1:  # chapters that run at a time share the cores
        os.environ["LOKY_MAX_CPU_COUNT"] = str(max(1, (os.cpu_count() or 1) // jobs))
    base = colab_environment(out, runtime) if runtime else None
    before = packages(base / "bin" / "python" if base else Path(sys.executable))
    # Each set-up cell that differs runs first in a runtime that has nothing of ours. Chapters with
    # the same cell start from there: it then runs again in each, but finds all of it installed.
    cells = {name: setup_cell(name) for name in names}
    prepared, seconds = {}, {}
    for number, cell in enumerate(dict.fromkeys(cells.values())):
        prepared[cell] = out / f"prepared{number}" if base else None
        python = copy(base, prepared[cell]) if base else Path(sys.executable)
        seconds[cell] = set_up(cell, python, before)
    given = [(name, profile, out, prepared[cells[name]]) for name in names]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, max_tasks_per_child=1) as pool:
        runs = list(pool.map(run_alone, *zip(*given, strict=True)))
    for run in runs:
        run["setup_seconds"] = seconds[cells[run["chapter"]]]
        run["torch"] = run["packages"]["torch"]
        stayed_alone(run, before)
    return runs


def unchanged(what: str, before: dict[str, str], after: dict[str, str]) -> None:
    """Raise BuildError if a package that was there is no longer, or in another version."""
    changed = {k: f"{v} → {after.get(k)}" for k, v in before.items() if after.get(k) != v}
    if changed:
        raise BuildError(f"{what} changed {changed}")


def stayed_alone(run: dict, before: dict[str, str]) -> None:
    """Raise BuildError if a run changed a package that was there, or wrote outside its places."""
    unchanged(run["chapter"], before, run.pop("packages"))
    if outside := run.pop("outside"):
        raise BuildError(f"{run['chapter']} wrote to {outside}")


def record(runs: list[dict]) -> None:
    """Write runs in place of earlier ones of the same chapter, profile and device."""
    old = json.loads(RUN_TIMES.read_text()) if RUN_TIMES.exists() else []
    facts = {"date": datetime.now(UTC).strftime("%Y-%m-%d")}
    known = {(r["chapter"], r["device"], r["profile"]): r for r in old}
    known |= {(r["chapter"], r["device"], r["profile"]): r | facts for r in runs}
    text = json.dumps([known[key] for key in sorted(known)], indent=1, ensure_ascii=False)
    RUN_TIMES.write_text(text + "\n")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [source.stem for source in chapters()]
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=f"of {', '.join(names)}")
    parser.add_argument("--profile", choices=CELL_TIMEOUT, default="smoke")
    parser.add_argument("--out", type=Path, help="empty folder to work in, and to keep")
    parser.add_argument("--jobs", type=int, default=1, help="chapters at a time")
    parser.add_argument("--runtime", type=Path, default=RUNTIME, help="what Colab holds")
    parser.add_argument("--here", action="store_true", help="use this environment, as in Colab")
    parser.add_argument("--record", action="store_true", help="write book/tools/run_times.json")
    args = parser.parse_args(argv)
    if unknown := set(args.chapters) - set(names):
        parser.error(f"no chapter {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            out = (args.out or Path(scratch)).resolve()
            runtime = None if args.here else args.runtime
            runs = run_all(args.chapters or names, args.profile, out, args.jobs, runtime)
            (out / "runs.json").write_text(json.dumps(runs, indent=1))
    except BuildError as error:
        print(f"alone.py: {error}", file=sys.stderr)
        return 1
    if args.record:
        record(runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())

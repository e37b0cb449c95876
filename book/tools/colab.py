"""What a chapter needs where nothing is installed: its set-up cell, and how long it then takes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
SITE = "https://{}.github.io/{}".format(*REPOSITORY.split("/")[-2:])
TAG = f"v{PROJECT['version']}"
TAGGED = f"git+{REPOSITORY}@{'main' if '.dev' in TAG else TAG}"  # between releases, no tag
RUN_TIMES = ROOT / "book" / "tools" / "run_times.json"  # written by book/tools/alone.py --record

# What a chapter needs beyond the package itself.
EXTRAS = {
    "04_hyperparameter_search": "[search]",
    "05_velocity": "[boosting]",
    "06_atlas": "[atlas]",
    "07_scorecard": "[boosting]",
    "09_peers": "[boosting]",
}
# Not as an extra: CellRank's pygpcca asks for Jinja2 3.0.3, which it never imports, and pygam for
# SciPy before 1.17. Colab has newer ones, or will have, and pip would find nothing that fits.
CELLRANK = "cellrank docrep progressbar2 pygam pygpcca python-utils session-info2 wrapt"
# Chapter 9 goes without scTour and VelOT there: their rows say that they were not run.
WITHOUT_DEPENDENCIES = {
    "05_velocity": CELLRANK,
    "08_futures": CELLRANK,
    "09_peers": CELLRANK,
}
# A set-up cell can import only what every runtime has. It does not ask `pip list`: Colab's pip ends
# with a traceback where one package has a version that PEP 440 does not know. Nor does it say
# --quiet: pip then leaves out which packages are in conflict.
SETUP = r"""# On Colab, this installs the package and looks for a GPU. Elsewhere it does nothing.
import sys

if "google.colab" in sys.modules:
    import importlib
    import re
    import subprocess
    import tempfile
    from importlib.metadata import distributions
    from pathlib import Path

    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_name
    from packaging.version import VERSION_PATTERN

    def installed():
        found = reversed(list(distributions()))  # of two with one name, Python takes the first
        return {canonicalize_name(str(one.name)): str(one.version) for one in found}

    # A notebook breaks if a package is replaced while it runs. So whatever is there keeps its
    # version, and pip takes the newest versions of the others that fit.
    held = installed()
    valid = re.compile(VERSION_PATTERN, re.VERBOSE | re.IGNORECASE).fullmatch
    pins = [f"{n}=={v}" for n, v in held.items() if n != "splicedvae" and valid(v)]
    constraints = Path(tempfile.mkdtemp(), "colab.txt")
    constraints.write_text("\n".join(pins))
    command = [sys.executable, "-m", "pip", "install", "--constraint", constraints]
    for what in (
        WHAT
    ):
        done = subprocess.run([*command, *what.split()], capture_output=True, text=True)
        if done.returncode == 0:
            continue
        said = done.stdout + done.stderr
        words = re.findall(
            r"(?m)^(?:Collecting|ERROR:|fatal:) (?!Resolution)(.*?)(?: \(from.*)?$", said
        )
        reason = f"pip stopped at: {words[-1] if words else 'its start'}"
        bounds = re.findall(
            r"(?m)^ +([\w.-]+).* depends on ([\w.-]+).*?([<>=!~][^;\n]*)", said
        )
        for who, name, bound in reversed(bounds):
            version = held.get(canonicalize_name(name))
            allowed = SpecifierSet(bound.replace(" and ", ","))
            if version and not allowed.contains(version, prereleases=True):
                reason = f"it has {name} {version}, but {who} needs {name}{bound}"
        raise SystemExit(
            f"SplicedVAE cannot be installed in this runtime: {reason}; choose another one in "
            "Colab's menu (Runtime > Change runtime type > Runtime version) and start again."
        )
    importlib.invalidate_caches()
    new = [f"{n} {v}" for n, v in sorted(installed().items()) if held.get(n) != v]
    print("Installed:", ", ".join(new) or "nothing new")
    import torch

    print("GPU:", torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none; CPU")"""


def requirement(chapter: str) -> str:
    """Return what pip installs of this package for a chapter."""
    return f"splicedvae{EXTRAS.get(chapter, '')}@{TAGGED}"


def setup_cell(chapter: str) -> str:
    """Return the source of a chapter's set-up cell."""
    what = [f'"{requirement(chapter)}",']
    if chapter in WITHOUT_DEPENDENCIES:
        what += [
            "# some of these ask for other versions than they need",
            f'"--no-deps {WITHOUT_DEPENDENCIES[chapter]}",',
        ]
    return SETUP.replace("WHAT", "\n        ".join(what))


def run_time(chapter: str) -> str:
    """Return the line that says how long a chapter takes on its own, as far as it was measured."""
    runs = json.loads(RUN_TIMES.read_text()) if RUN_TIMES.exists() else []
    told = []
    for device in ("CPU", "T4"):
        measured = {
            run["profile"]: run
            for run in runs
            if run["chapter"] == chapter and device in run["device"]
        }
        name, times = device, []
        for profile in ("smoke", "standard", "full"):
            if profile in measured:
                run = measured[profile]
                name = run["device"]
                minutes = max(1, round((run["seconds"] + run["setup_seconds"]) / 60))
                times.append(f"`{profile}` {minutes} min")
        told.append(f"{name}: {', '.join(times) or 'not measured yet'}")
    return (
        "*Run time on its own, with set-up, by the `profile` that you choose below. "
        f"{' / '.join(told)}.*"
    )

"""What a release must agree on: `python book/tools/release.py [TAG]`.

The repository's address is no placeholder; the version in pyproject.toml, CITATION.cff, the newest
heading of CHANGELOG.md and the tag are one; the notebooks that the tag holds install that tag.
"""

from __future__ import annotations

import re
import subprocess
import sys

import yaml

from colab import PROJECT, REPOSITORY, ROOT, TAG, TAGGED


def git(*arguments: str) -> str:
    """Return what git says of this tree; nothing where it is not a repository."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def commit() -> str:
    """Return the commit this tree stands at, marked when files differ from it."""
    found = git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")  # never a tag
    return found or "unknown"


def branch() -> str:
    """Return the version's tag if this tree stands at it, else main."""
    return TAG if TAG in git("tag", "--points-at", "HEAD").split() else "main"


def faults(tag: str) -> list[str]:
    """Return what keeps this tree from being released as `tag`."""
    version = PROJECT["version"]
    found = []
    if "/OWNER/" in REPOSITORY:
        found.append(f"pyproject.toml: the repository's address is still {REPOSITORY}")
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        found.append(f"pyproject.toml: {version} is no version to release")
    if tag != TAG:
        found.append(f"the tag is {tag}, but the version in pyproject.toml is {version}")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    if str(cited) != version:
        found.append(f"CITATION.cff: its version is {cited}, not {version}")
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    if not headings or not re.fullmatch(
        rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d", headings[0]
    ):
        newest = headings[0] if headings else "missing"
        found.append(f"CHANGELOG.md: the newest heading is {newest}, not [{version}] - its date")
    for notebook in sorted((ROOT / "book").glob("*.ipynb")):
        if TAGGED not in notebook.read_text():
            found.append(f"{notebook.name} does not install {TAGGED}; run `make notebooks`")
    return found


def main(argv: list[str]) -> int:
    """Run the command line and return the exit status."""
    found = faults(argv[0] if argv else TAG)
    for fault in found:
        print(f"release.py: {fault}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

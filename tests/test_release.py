"""A release agrees with itself, its book opens its own notebooks, and publishing keeps versions."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.publishing

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=reader", "-c", "user.email=reader@localhost"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


# --- what must agree ------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    """A tree that could be released as v1.2.3, with one notebook."""
    (tmp_path / "book" / "tools").mkdir(parents=True)
    for name in ("colab.py", "release.py"):
        shutil.copy(ROOT / "book" / "tools" / name, tmp_path / "book" / "tools" / name)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nversion = "1.2.3"\nurls = {Repository = "https://github.com/someone/book"}\n'
    )
    (tmp_path / "CITATION.cff").write_text("version: 1.2.3\n")
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [1.2.3] - 2026-01-31\n\n## [1.2.2] - 2026-01-01\n"
    )
    (tmp_path / "book" / "01_one.ipynb").write_text(
        "%pip install splicedvae @ git+https://github.com/someone/book@v1.2.3"
    )
    return tmp_path


def check(tree: Path, tag: str = "v1.2.3") -> subprocess.CompletedProcess:
    command = [sys.executable, str(tree / "book" / "tools" / "release.py"), tag]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_tree_that_agrees_may_be_released(tree):
    done = check(tree)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("pyproject.toml", "someone", "OWNER", "address is still https://github.com/OWNER/book"),
        ("pyproject.toml", "1.2.3", "1.3.0", "the tag is v1.2.3, but the version"),
        ("pyproject.toml", "1.2.3", "1.2.3.dev0", "1.2.3.dev0 is no version to release"),
        ("CITATION.cff", "1.2.3", "1.2.2", "CITATION.cff: its version is 1.2.2, not 1.2.3"),
        ("CHANGELOG.md", "[1.2.3] - 2026-01-31", "[Unreleased]", "newest heading is [Unreleased]"),
        ("CHANGELOG.md", "[1.2.3] - 2026-01-31", "[1.2.3]", "not [1.2.3] - its date"),
        ("book/01_one.ipynb", "v1.2.3", "v1.2.2", "01_one.ipynb does not install git+https"),
    ],
)
def test_what_does_not_agree_is_found(tree, file, old, new, says):
    text = (tree / file).read_text()
    assert old in text
    (tree / file).write_text(text.replace(old, new, 1))
    done = check(tree)
    assert done.returncode == 1
    assert says in done.stderr


def test_another_tag_is_refused(tree):
    assert "the tag is v9.9.9" in check(tree, "v9.9.9").stderr


def test_placeholder_keeps_this_repository_from_a_release():
    """As long as it is there."""
    done = check(ROOT)
    placeholder = "OWNER" in (ROOT / "pyproject.toml").read_text()
    assert ("address is still" in done.stderr) == placeholder


# --- a build knows where it stands ----------------------------------------------------------------


def ask(tree: Path, *what: str) -> tuple[str, ...]:
    command = [sys.executable, "-c", f"import colab, release; print({', '.join(what)})"]
    done = subprocess.run(
        command, cwd=tree / "book" / "tools", check=True, capture_output=True, text=True
    )
    return tuple(done.stdout.split())


def where(tree: Path) -> tuple[str, ...]:
    return ask(tree, "release.commit()", "release.branch()")


def test_chapters_install_the_tag_and_between_releases_main(tree):
    assert ask(tree, "colab.TAGGED") == ("git+https://github.com/someone/book@v1.2.3",)
    project = (tree / "pyproject.toml").read_text()
    (tree / "pyproject.toml").write_text(project.replace("1.2.3", "1.3.0.dev0"))
    assert ask(tree, "colab.TAGGED") == ("git+https://github.com/someone/book@main",)


def test_a_build_at_its_tag_names_commit_and_tag(tree):
    assert where(tree) == ("unknown", "main")
    git(tree, "init", "-q", "-b", "main")
    (tree / ".gitignore").write_text("__pycache__\n")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "one")
    head = git(tree, "rev-parse", "--short=12", "HEAD")
    assert where(tree) == (head, "main")
    git(tree, "tag", "-a", "-m", "release", "v1.2.3")  # which a plain `git describe` would print
    assert where(tree) == (head, "v1.2.3")
    (tree / "CITATION.cff").write_text("changed")
    assert where(tree) == (f"{head}-dirty", "v1.2.3")
    git(tree, "commit", "-q", "-a", "-m", "two")
    assert where(tree)[1] == "main"


# --- publishing -----------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path):
    """A clone with a built book, whose origin is a bare repository."""
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "origin")
    git(tmp_path, "clone", "-q", "origin", "clone")
    clone = tmp_path / "clone"
    (clone / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "publish", clone / ".ci" / "publish")
    (clone / "source.py").write_text("never published")
    (clone / ".gitignore").write_text("_build\n")
    git(clone, "add", ".")
    git(clone, "config", "user.name", "reader")
    git(clone, "config", "user.email", "reader@localhost")
    git(clone, "commit", "-q", "-m", "one")
    git(clone, "push", "-q", "origin", "HEAD:main")
    return clone


def build(clone: Path, text: str) -> None:
    shutil.rmtree(clone / "_build", ignore_errors=True)
    for file in ("html/index.html", "html/splicedvae.pdf", f"html/{text}.html", "html/.nojekyll"):
        (clone / "_build" / file).parent.mkdir(parents=True, exist_ok=True)
        (clone / "_build" / file).write_text(text)
    for part in ("student/01_data.ipynb", "student/tests/q1.py", "autograder/solution.ipynb"):
        file = clone / "_build" / "assignments" / "01_data" / part
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def publish(clone: Path, *version: str) -> subprocess.CompletedProcess:
    return subprocess.run([clone / ".ci" / "publish", *version], capture_output=True, text=True)


def published(clone: Path) -> dict[str, str]:
    """Return the text of each file that a reader of the site gets."""
    names = git(clone.parent / "origin", "ls-tree", "-r", "--name-only", "gh-pages").splitlines()
    return {name: git(clone.parent / "origin", "show", f"gh-pages:{name}") for name in names}


def test_versions_are_kept_and_the_newest_release_comes_first(clone):
    for version, text in (
        ("latest", "first"),
        ("v0.9.0", "nine"),
        ("v0.10.0", "ten"),
        ("latest", "second"),
    ):
        build(clone, text)
        done = publish(clone, version)
        assert done.returncode == 0, done.stderr
    site = published(clone)
    texts = {name: site[f"{name}/index.html"] for name in ("latest", "v0.9.0", "v0.10.0")}
    assert texts == {"latest": "second", "v0.9.0": "nine", "v0.10.0": "ten"}
    assert "latest/first.html" not in site, "a page of an older build stayed"
    versions = [entry["version"] for entry in json.loads(site["versions.json"])]
    assert versions == ["v0.10.0", "v0.9.0", "latest"]
    assert 'url=v0.10.0/"' in site["index.html"]
    assert all(f'href="{version}/"' in site["versions.html"] for version in versions)
    assert site["v0.9.0/assignments/01_data/tests/q1.py"] == "nine"
    assert not [name for name in site if "autograder" in name or "source.py" in name]
    assert git(clone.parent / "origin", "rev-list", "--count", "gh-pages") == "1"
    assert git(clone, "status", "--porcelain") == "" and git(clone, "branch") == "* main"
    assert len(git(clone, "worktree", "list").splitlines()) == 1


def test_without_a_release_the_root_leads_to_main(clone):
    build(clone, "first")
    assert publish(clone, "latest").returncode == 0
    assert 'url=latest/"' in published(clone)["index.html"]


@pytest.mark.parametrize("version", ["", "main", "v1.2", "../v1.2.3", "v1.2.3/x"])
def test_a_name_that_is_no_version_is_refused(clone, version):
    build(clone, "first")
    done = publish(clone, version)
    assert done.returncode == 2 and "like v1.2.3" in done.stderr


def test_nothing_is_published_without_a_book_or_without_an_answer(clone):
    assert "make book" in publish(clone, "latest").stderr
    build(clone, "first")
    assert publish(clone, "v1.0.0").returncode == 0
    (clone.parent / "origin").rename(clone.parent / "gone")  # a server that does not answer ...
    assert publish(clone, "latest").returncode == 1
    (clone.parent / "gone").rename(clone.parent / "origin")  # ... has lost nothing
    assert "v1.0.0/index.html" in published(clone)


# --- workflows ------------------------------------------------------------------------------------


def steps(workflow: Path) -> list[dict]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_runs_what_there_is(workflow):
    text = "\n".join(step.get("run", "") for step in steps(workflow))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"\bmake ([a-z]+)", text)) <= targets
    for script in re.findall(r"(?:^|[\s\"])((?:\.ci|book)/[\w./]+)", text):
        assert (ROOT / script).is_file(), script
    for script in re.findall(r"^\s*(\.ci/\w+)", text, re.M):
        assert (ROOT / script).stat().st_mode & 0o111, f"{script} can't be executed"
    assert text, "a workflow that runs nothing"


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_can_write_nothing_unless_they_say_so(workflow):
    assert yaml.safe_load(workflow.read_text())["permissions"]["contents"] == "read"
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w/-]+@v\d+", step["uses"]), step["uses"]

"""Write the course's assignments, and check that they grade as they should.

    python book/tools/course.py [NAME ...] [--root DIR]

A master is ``book/assignments/NN_name.py`` (py:percent, with otter's raw cells). For each one,
``_build/assignments/NN_name`` gets a ``student`` folder to hand out and an ``autograder`` to mount.
Then submissions are made and graded: the solution, the version as handed out, each wrong answer of
``tests/assignments/NN_name.py``, and what students do to a notebook. Last, the student folder is
searched for what it must not hold. This runs where otter-grader is: see `make assignments`.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from math import isclose
from pathlib import Path

import jupytext
import nbformat
import yaml
from IPython.core.inputtransformer2 import TransformerManager

from build import use_this_python
from colab import REPOSITORY, ROOT, TAG, requirement
from questions import (
    CourseError,
    Question,
    leaks,
    plain,
    read_questions,
    read_wrong_answers,
    solution_lines,
)

EDITION = "latest" if ".dev" in TAG else TAG  # a folder of the published book
SETUP = """\
# On Colab, this installs what is needed and fetches the tests. Elsewhere it only starts otter.
import sys

if "google.colab" in sys.modules:
    %pip install --quiet "{package}" otter-grader
    from pathlib import Path
    from urllib.request import urlretrieve

    Path("tests").mkdir(exist_ok=True)
    for question in {questions}:
        urlretrieve(f"{address}/{{question}}.py", f"tests/{{question}}.py")

import otter

grader = otter.Notebook()"""
ON_COLAB = "On Colab, hand in the notebook itself instead: *File, Download, Download .ipynb*."
ABUSES = {  # what students do to an answer, and one of the words that the message then needs
    "deleted": ("There is no",),
    "renamed": ("There is no",),
    "NaN": ("NaN", "one of"),
    "wrong shape": ("shape", "one of"),
}
COUNTED = (
    "questions",
    "visible tests",
    "hidden tests",
    "wrong caught",
    "abuses answered",
    "seconds",
)


# --- generating -----------------------------------------------------------------------------------


def setup_cell(name: str, questions: list[str]) -> str:
    """Return the source of an assignment's set-up cell."""
    raw = REPOSITORY.replace("//github.com/", "//raw.githubusercontent.com/")
    address = f"{raw}/gh-pages/{EDITION}/assignments/{name}/tests"
    return SETUP.format(package=requirement(name), questions=questions, address=address)


def generate(
    name: str, master: nbformat.NotebookNode, questions: list[Question], out: Path
) -> None:
    """Run otter on a master, with the configuration and the set-up cell that all masters share."""
    from otter.assign import main as otter_assign

    config = {
        "name": name,
        "init_cell": False,  # the set-up cell does what it would do
        "tests": {"files": True, "ok_format": False},
        "export_cell": {"pdf": False, "instructions": ON_COLAB},
        "requirements": [requirement(name)],
    }
    setup = setup_cell(name, [question.name for question in questions])
    notebook = copy.deepcopy(master)
    notebook.cells.insert(1, nbformat.v4.new_code_cell(setup))  # after the title
    text = "# ASSIGNMENT CONFIG\n" + yaml.safe_dump(config)
    notebook.cells.insert(0, nbformat.v4.new_raw_cell(text))
    for cell in notebook.cells:
        cell.metadata.pop("lines_to_next_cell", None)  # jupytext's own note
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    )
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{name}.ipynb"
    nbformat.write(notebook, file)
    otter_assign(str(file), str(out), no_run_tests=True)  # they run below
    file.unlink()


def submission(student: nbformat.NotebookNode, answers: list[str | None]) -> nbformat.NotebookNode:
    """Put answers into the student's notebook; None deletes the cell."""
    notebook = copy.deepcopy(student)
    cells = [c for c in notebook.cells if "otter_answer_cell" in c.metadata.get("tags", [])]
    for cell, answer in zip(cells, answers, strict=True):
        cell.source = answer
    notebook.cells = [cell for cell in notebook.cells if cell.source is not None]
    return notebook


# --- grading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """How a question was graded; what is keyed, is keyed by whether a test is hidden."""

    score: float
    possible: float
    passed: dict[bool, bool]
    messages: dict[bool, list[str]]

    @classmethod
    def of(cls, test_file) -> Result:
        """Read otter's result of a question."""
        kinds = {
            hidden: [r for r in test_file.test_case_results if r.test_case.hidden == hidden]
            for hidden in (False, True)
        }
        passed = {hidden: all(r.passed for r in kind) for hidden, kind in kinds.items()}
        said = {hidden: [r.message for r in kind if not r.passed] for hidden, kind in kinds.items()}
        return cls(test_file.score, test_file.possible, passed, said)


def grade_with_otter(notebook: nbformat.NotebookNode, autograder: Path) -> dict[str, Result]:
    """Grade a submission as an instructor does, in a kernel of its own."""
    from otter.api import grade_submission

    (bundle,) = autograder.glob("*.zip")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{autograder.parent.name}.ipynb"
        nbformat.write(notebook, file)
        results = grade_submission(str(file), str(bundle), quiet=True).results
    return {name: Result.of(test_file) for name, test_file in results.items()}


def grade_here(notebook: nbformat.NotebookNode, autograder: Path) -> dict[str, Result]:
    """Grade with the calls that otter puts into a submission, but without a kernel's imports."""
    from otter import Notebook
    from otter.execute import Checker

    tests = autograder / "tests"
    Notebook.init_grading_mode(str(tests))
    env, transform = {"__name__": "__main__"}, TransformerManager().transform_cell
    for cell in notebook.cells:
        if cell.cell_type == "code":
            with contextlib.suppress(Exception, SystemExit):  # otter goes on too
                exec(compile(transform(cell.source), "<cell>", "exec"), env)
    for file in sorted(tests.glob("*.py")):
        Checker.check_if_not_already_checked(str(file), env)
    return {test_file.name: Result.of(test_file) for test_file in Checker.get_results()}


# --- judging --------------------------------------------------------------------------------------


def badly_said(question: Question, result: Result) -> list[str]:
    """Find messages of failed tests that do not help, or help too much."""
    faults = []
    for text in result.messages[False] + result.messages[True]:
        _, _, said = text.partition("\nAssertionError: ")
        if f"`{question.answer}`" not in said:
            faults.append(f"a message does not say what was expected: {text!r}")
        faults += [f"a message gives away {s!r}" for s in sorted(given_away(question, text))]
    return faults


def given_away(question: Question, message: str) -> set[str]:
    """Find what a message has of the solution: a line of it, or the number that it is."""
    shown = solution_lines(question) & plain(message.splitlines())
    if not question.is_function:
        env = {}
        exec(f"import numpy as np\n{question.solution}", env)
        number = env[question.answer]
        said = re.findall(r"(?<![\w.])-?\d+\.?\d*(?![\w(])", message.partition("\nAssertion")[2])
        if not isinstance(number, str):
            shown |= {text for text in said if isclose(float(text), number, rel_tol=1e-3)}
    return shown


def judge_wrong(question: Question, kind: str, result: Result) -> list[str]:
    """Judge whether a wrong answer was caught by the kind of test that it is meant for."""
    faults = badly_said(question, result)
    if kind == "visible" and result.passed[False]:
        faults.append("it passes the visible test")
    if kind == "hidden" and not result.passed[False]:
        faults.append("it fails the visible test already")
    if kind == "hidden" and result.passed[True]:
        faults.append("it passes the hidden test")
    return faults


def judge_abuse(question: Question, words: tuple[str, ...], result: Result) -> list[str]:
    """Judge whether an abused answer scored nothing, and whether the student was told why."""
    faults = badly_said(question, result)
    if result.score != 0:
        faults.append(f"it scores {result.score:g}")
    said = "\n".join(result.messages[False])
    if not any(word in said for word in words):
        faults.append(f"none of {words} is in what the visible test says: {said!r}")
    return faults


def check(name: str, root: Path) -> tuple[list[int], list[str]]:
    """Generate an assignment, grade all submissions; return what is counted, and what failed."""
    start, faults, caught, answered = time.perf_counter(), [], 0, 0
    out = root / "_build" / "assignments" / name
    master = jupytext.read(root / "book" / "assignments" / f"{name}.py")
    questions = read_questions(master)
    read_wrong_answers(root / "tests" / "assignments" / f"{name}.py", questions)
    generate(name, master, questions, out)
    student = nbformat.read(out / "student" / f"{name}.ipynb", as_version=4)
    right = [question.solution for question in questions]

    def sound(what: str, found: list[str]) -> bool:
        faults.extend(f"{name} {what}: {fault}" for fault in found)
        return not found

    def grade(answers: list[str | None]) -> dict[str, Result]:
        return grade_here(submission(student, answers), out / "autograder")

    for what, notebook in (("solution", submission(student, right)), ("as handed out", student)):
        results = grade_with_otter(notebook, out / "autograder")
        if results != grade_here(notebook, out / "autograder"):
            sound(what, ["otter grades it otherwise than this script does"])
        for question in questions:
            result = results[question.name]
            if what == "as handed out":
                found = judge_abuse(question, ("filled in",), result)
                answered += sound(f"{question.name} {what}", found)
            elif result.score != result.possible:
                sound(f"{question.name} {what}", result.messages[False] + result.messages[True])

    for i in range(max(len(question.wrong) for question in questions)):
        given = [q.wrong[i].code if i < len(q.wrong) else q.solution for q in questions]
        results = grade(given)
        for question in questions:
            for wrong in question.wrong[i : i + 1]:
                found = judge_wrong(question, wrong.kind, results[question.name])
                caught += sound(f"{question.name}, wrong answer ({wrong.mistake})", found)

    # Every other question is abused, so that those between can show that it is none of theirs.
    for how, words in ABUSES.items():
        for turn in (0, 1):
            abused = questions[turn::2]
            results = grade([q.abused(how) if q in abused else q.solution for q in questions])
            for question in questions:
                result = results[question.name]
                if question in abused:
                    found = judge_abuse(question, words, result)
                    answered += sound(f"{question.name} {how}", found)
                elif result.score != result.possible:
                    sound(question.name, [f"it fails when another answer is: {how}"])

    sound("student's folder", leaks(out / "student", questions))
    tests = [sum(len(question.tests[hidden]) for question in questions) for hidden in (False, True)]
    seconds = round(time.perf_counter() - start)
    return [len(questions), *tests, caught, answered, seconds], faults


# --- running --------------------------------------------------------------------------------------


def quietly(name: str, root: Path) -> tuple[list[int], list[str]]:
    """Run `check` where what notebooks print, and the log that otter leaves, do not show."""
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as null,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(null),
        contextlib.redirect_stderr(null),
    ):
        try:
            return check(name, root)
        except CourseError as error:
            return [], [f"{name}: {error}"]
        except Exception as error:
            error.add_note(f"The assignment is {name}.")
            raise


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="assignments; all by default")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of book, tests and _build")
    args = parser.parse_args(argv)
    root = args.root.resolve()
    names = args.names or sorted(f.stem for f in (root / "book" / "assignments").glob("*.py"))
    folder = root / "_build" / "assignments"
    folder.mkdir(parents=True, exist_ok=True)
    use_this_python(folder)  # not the kernel of a book that is being built
    # no screen; two run at a time, with a thread each
    os.environ |= {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    faults = []
    print("assignment".ljust(26), *(f"{key:>15}" for key in COUNTED))
    with ProcessPoolExecutor(max_workers=2) as pool:
        for name, done in zip(names, pool.map(quietly, names, [root] * len(names)), strict=True):
            print(name.ljust(26), *(f"{count:15}" for count in done[0]), flush=True)
            faults += done[1]
    for fault in faults:
        print(f"course.py: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

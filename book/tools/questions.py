"""Read the questions of an assignment, their wrong answers, and what no student may see of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import jupytext
import nbformat
import yaml


class CourseError(Exception):
    """A fault in the text of a master or of its wrong answers: shown without a traceback."""


@dataclass(frozen=True)
class WrongAnswer:
    """A mistake, and the kind of test that must find it: ``visible`` or ``hidden``."""

    kind: str
    mistake: str
    code: str


@dataclass
class Question:
    """What a master says about a question; its tests by whether they are hidden."""

    name: str
    points: list[int]
    solution: str = ""
    tests: dict[bool, list[str]] = field(default_factory=lambda: {False: [], True: []})
    wrong: list[WrongAnswer] = field(default_factory=list)

    @property
    def answer(self) -> str:
        """The one name that the solution defines."""
        names = []
        for node in ast.parse(self.solution).body:
            names += [node.name] if isinstance(node, ast.FunctionDef) else []
            names += [target.id for target in getattr(node, "targets", [])]
        if len(names) != 1:
            raise CourseError(f"{self.name}: the solution defines {names}; it must be one name")
        return names[0]

    @property
    def is_function(self) -> bool:
        """Whether the answer is a function; otherwise it is a value."""
        return f"def {self.answer}(" in self.solution

    def abused(self, how: str) -> str | None:
        """Return the solution as a student may leave it; None for no cell at all."""
        name = self.answer
        if how == "deleted":
            return None
        if how == "renamed":
            return re.sub(rf"\b{name}\b", f"my_{name}", self.solution)
        if not self.is_function:
            spoilt = {"NaN": "float('nan')", "wrong shape": f"[{name}, {name}]"}[how]
            return f"{self.solution}\n{name} = {spoilt}"
        spoilt = {"NaN": "x * float('nan')", "wrong shape": "__import__('numpy').append(x, x)"}[how]
        lines = (
            f"def {name}(*args, right={name}):",
            "    x = right(*args)",
            f"    return {spoilt}",
        )
        return "\n".join([self.solution, *lines])


def read_questions(master: nbformat.NotebookNode) -> list[Question]:
    """Read the questions of a master; raise CourseError where one is not complete."""
    questions, block = [], None
    for cell in master.cells:
        head, _, rest = cell.source.partition("\n")
        if cell.cell_type == "raw":
            begins = re.fullmatch(r"# BEGIN (\w+)", head)
            block = begins and begins[1]
            if block == "QUESTION":
                questions.append(Question(**yaml.safe_load(rest)))
        elif block == "SOLUTION":
            questions[-1].solution += cell.source
        elif block == "TESTS":
            questions[-1].tests[head == "# HIDDEN"].append(cell.source)
    for question in questions:
        tests = "\n".join(question.tests[False] + question.tests[True])
        names = re.findall(r"^def (\w+)", tests, re.M)
        if len(set(names)) != len(names):  # otter would run the last of them only, and not say so
            raise CourseError(f"{question.name}: two of its tests have the same name: {names}")
        if not all(question.tests.values()):
            raise CourseError(f"{question.name} needs a visible and a hidden test")
        # A total would be the student's too, whose copy has the visible tests only.
        if not isinstance(question.points, list) or len(question.points) != len(names):
            raise CourseError(f"{question.name}: points must be a list, a number for each test")
        if not solution_lines(question):
            raise CourseError(f"{question.name}: no line of the solution is marked as one")
    return questions


def read_wrong_answers(source: Path, questions: list[Question]) -> None:
    """Add the wrong answers: cells titled ``q1 visible: what the mistake is``."""
    known = {question.name: question for question in questions}
    for cell in jupytext.read(source).cells:
        title = cell.metadata.get("title", "")
        match = re.fullmatch(r"(\w+) (visible|hidden): (.+)", title)
        if not match or match[1] not in known:
            raise CourseError(f"{source.name}: no question and kind of test in the title {title!r}")
        known[match[1]].wrong.append(WrongAnswer(match[2], match[3], cell.source))
    for question in questions:
        if {answer.kind for answer in question.wrong} != {"visible", "hidden"}:
            raise CourseError(f"{source.name}: {question.name} needs wrong answers of both kinds")


# --- what must not be seen ------------------------------------------------------------------------


def plain(lines: Iterable[str]) -> set[str]:
    """Take from lines what otter's rewriting may change: layout, quotes and comments.

    What may stand anywhere is left out: imports, and short lines without an equals sign.
    """
    telling = (line for line in lines if not re.match(r"\s*(import|from) ", line))
    stripped = (re.sub(r"#.*|[\s'\"]", "", line) for line in telling)
    return {line for line in stripped if len(line) > 10 or "=" in line}


def solution_lines(question: Question) -> set[str]:
    """Lines that otter takes out of the solution."""
    lines, inside = [], False
    for line in question.solution.splitlines():
        inside = inside and "# END SOLUTION" not in line
        if inside or line.rstrip().endswith("# SOLUTION"):
            lines.append(line)
        inside = inside or "# BEGIN SOLUTION" in line
    return plain(lines)


def hidden_lines(question: Question) -> set[str]:
    """Lines that only the hidden tests have."""
    visible, hidden = ("\n".join(question.tests[kind]).splitlines() for kind in (False, True))
    return plain(hidden) - plain(visible)


def leaks(folder: Path, questions: list[Question]) -> list[str]:
    """Name each line of a solution or a hidden test that stands in a folder's files."""
    found = []
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        text = file.read_text()
        if file.suffix == ".ipynb":  # what the file says beside its cells counts too
            cells = nbformat.reads(text, as_version=4).cells
            text = "\n".join([*(cell.source for cell in cells), text.replace("\\n", "\n")])
        lines = plain(text.splitlines())
        for question in questions:
            shown = (solution_lines(question) | hidden_lines(question)) & lines
            found += [f"{question.name}: {file.name} shows {line!r}" for line in sorted(shown)]
        if any("hidden=True" in line for line in lines):
            found.append(f"{file.name} has a hidden test")
    return found

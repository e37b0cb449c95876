"""The course's assignments grade as they should, and their check finds what does not."""

import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

import course
import questions
from course import Result

pytestmark = pytest.mark.publishing

ROOT = Path(__file__).resolve().parents[1]
MASTERS = sorted((ROOT / "book" / "assignments").glob("*.py"))
NAMES = [master.stem for master in MASTERS]


# --- all assignments, as they are -----------------------------------------------------------------


@pytest.fixture(scope="module")
def built() -> tuple[Path, str]:
    """The generated assignments, and what `make assignments` printed."""
    # The environment that runs the tests is the one of `make install`, in whatever folder it is.
    command = ["make", "-o", f"{sys.prefix}/.installed", "assignments", f"VENV={sys.prefix}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "_build" / "assignments", done.stdout


@pytest.mark.slow
def test_all_assignments_grade_as_they_should(built):
    rows = [line.split() for line in built[1].splitlines() if re.match(r"\d\d_", line)]
    assert [row[0] for row in rows] == NAMES
    for name, n_questions, visible, hidden, wrong, abuses, _ in rows:
        n_questions = int(n_questions)
        assert 3 <= n_questions <= 6, name
        assert int(visible) >= n_questions and int(hidden) >= n_questions
        assert int(wrong) >= 2 * n_questions and int(abuses) == 5 * n_questions


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_student_gets_a_notebook_and_the_visible_tests(built, name):
    student = built[0] / name / "student"
    notebook = nbformat.read(student / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# Assignment")
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in codes)
    tests = {file.stem for file in (student / "tests").iterdir()}
    checked = {m for cell in codes for m in re.findall(r'grader\.check\("(\w+)"\)', cell.source)}
    fetched = set(re.findall(r"'(\w+)'", re.search(r"in (\[.*?\]):", codes[0].source)[1]))
    assert tests == checked == fetched
    assert {f.name for f in student.iterdir()} == {f"{name}.ipynb", "tests"}
    for file in student.rglob("*.*"):
        assert str(ROOT) not in file.read_text() and sys.prefix not in file.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_set_up_cell_fetches_the_tests_on_colab(name, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("urllib.request.urlretrieve", lambda *args: asked.append(args))
    monkeypatch.setitem(sys.modules, "google.colab", object())
    monkeypatch.setitem(sys.modules, "otter", type("otter", (), {"Notebook": lambda: "grader"}))
    monkeypatch.chdir(tmp_path)
    cell = course.setup_cell(name, ["q1", "q2"])
    assert f'%pip install --quiet "{course.requirement(name)}" otter-grader\n' in cell
    env = {}
    exec(re.sub(r"^( *)%pip .*", r"\1pass", cell, flags=re.M), env)
    raw = course.REPOSITORY.replace("github.com", "raw.githubusercontent.com")
    place = f"{raw}/gh-pages/{course.EDITION}/assignments/{name}/tests"
    assert asked == [(f"{place}/{q}.py", f"tests/{q}.py") for q in ("q1", "q2")]
    assert (tmp_path / "tests").is_dir() and env["grader"] == "grader"


# --- the masters and their wrong answers ----------------------------------------------------------


def test_there_is_an_assignment_for_each_part():
    chapters = sorted(f.stem for f in (ROOT / "book").glob("0[1-68]_*.py"))
    assert chapters == NAMES
    assert sorted(f.stem for f in (ROOT / "tests" / "assignments").glob("*.py")) == NAMES


@pytest.mark.parametrize("master", MASTERS, ids=NAMES)
def test_assignment_is_complete_and_says_that_its_cells_are_simulated(master):
    notebook = jupytext.read(master)
    found = questions.read_questions(notebook)
    questions.read_wrong_answers(ROOT / "tests" / "assignments" / master.name, found)
    assert 3 <= len(found) <= 6
    assert [question.name for question in found] == [f"q{i + 1}" for i in range(len(found))]
    assert any(question.is_function for question in found)
    assert "**" in notebook.cells[0].source and "simulated" in notebook.cells[0].source
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert not re.search(r"\{\w+\}`|^:::", text, re.M), "MyST, which Colab does not show"


QUESTION = """\
# %% [markdown]
# # Assignment 0: Small

# %% [raw]
# # BEGIN QUESTION
# name: q1
# points: [1, 1]

# %% [markdown]
# What is half of one?

# %% [raw]
# # BEGIN SOLUTION

# %%
half = 1 / 2  # SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q1_visible(env):
    from splicedvae_book import grading

    share = grading.value(env, "half")
    if not 0 < share < 1:
        raise AssertionError("`half` should lie between 0 and 1.")


# %%
# HIDDEN
def q1_hidden(env):
    from splicedvae_book import grading

    share, expected = grading.value(env, "half"), 0.5
    grading.agree("half", share, expected, "Two of it make one.")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION
"""
WRONG = """\
# %% q1 visible: in per cent
half = 50

# %% q1 hidden: a third
half = 1 / 3
"""


@pytest.mark.parametrize(
    ("text", "becomes", "says"),
    [
        ("# HIDDEN\n", "", "q1 needs a visible and a hidden test"),
        ("q1_hidden", "q1_visible", "q1: two of its tests have the same name"),
        ("points: [1, 1]", "points: 2", "q1: points must be a list"),
        ("  # SOLUTION", "", "q1: no line of the solution is marked"),
        ("half = 1 / 2", "one = 1\nhalf = one / 2", "it must be one name"),
    ],
)
def test_incomplete_question_is_refused(text, becomes, says):
    source = QUESTION.replace(text, becomes)
    assert source != QUESTION
    with pytest.raises(questions.CourseError, match=says):
        for question in questions.read_questions(jupytext.reads(source, fmt="py:percent")):
            assert question.answer


@pytest.mark.parametrize(
    ("text", "becomes", "says"),
    [
        ("q1 hidden: a third", "q1 visible: a third", "q1 needs wrong answers of both kinds"),
        ("q1 hidden: a third", "q2 hidden: a third", "in the title 'q2 hidden: a third'"),
        ("q1 hidden: a third", "a third", "in the title 'a third'"),
    ],
)
def test_wrong_answer_that_cannot_be_placed_is_refused(text, becomes, says, tmp_path):
    (tmp_path / "wrong.py").write_text(WRONG.replace(text, becomes))
    found = questions.read_questions(jupytext.reads(QUESTION, fmt="py:percent"))
    with pytest.raises(questions.CourseError, match=says):
        questions.read_wrong_answers(tmp_path / "wrong.py", found)


# --- what the check finds -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "test", "found"),
    [
        ("half = ...", "share = grading.value(env, 'half')", []),
        ("# as in\n# half=1/2", "", []),  # a comment; nobody can look for everything
        ("if True:\n    half = 1/2  # why", "", ["q1: s.ipynb shows 'half=1/2'"]),
        ("", "half  =  1 / 2", ["q1: q1.py shows 'half=1/2'"]),
        ("", "share, expected = (grading.value(env, 'half'), 0.5)", []),  # not its words
        ("", 'grading.agree("half", share, expected, "Two of it make one.")', ["q1.py shows"]),
        ("", "@test_case(points=None, hidden=True)\ndef q1(env): pass", ["q1.py has a hidden"]),
    ],
)
def test_leak_in_a_student_file_is_found(cell, test, found, tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbformat.write(notebook, tmp_path / "s.ipynb")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "q1.py").write_text(test)
    known = questions.read_questions(jupytext.reads(QUESTION, fmt="py:percent"))
    leaks = questions.leaks(tmp_path, known)
    assert len(leaks) == len(found)
    assert all(words in leak for words, leak in zip(found, leaks, strict=True))


def test_leak_in_the_metadata_or_an_output_is_found(tmp_path):
    output = nbformat.v4.new_output("stream", text="so\nhalf = 1 / 2\n")
    cell = nbformat.v4.new_code_cell("half = ...", outputs=[output])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "s.ipynb")
    known = questions.read_questions(jupytext.reads(QUESTION, fmt="py:percent"))
    assert questions.leaks(tmp_path, known) == ["q1: s.ipynb shows 'half=1/2'"]


FAILED = "Error at line 9 in test q1:\n  check\nAssertionError: `half` is not what was expected."


def result(visible: bool, hidden: bool, message: str = FAILED, score: float = 0) -> Result:
    passed = {False: visible, True: hidden}
    return Result(score, 2, passed, {k: [] if ok else [message] for k, ok in passed.items()})


@pytest.mark.parametrize(
    ("kind", "passes", "faults"),
    [
        ("visible", (False, False), []),
        ("visible", (False, True), []),
        ("visible", (True, False), ["it passes the visible test"]),
        ("visible", (True, True), ["it passes the visible test"]),
        ("hidden", (True, False), []),
        ("hidden", (False, False), ["it fails the visible test already"]),
        ("hidden", (True, True), ["it passes the hidden test"]),
    ],
)
def test_wrong_answer_must_be_caught_by_its_kind_of_test(kind, passes, faults):
    (question,) = questions.read_questions(jupytext.reads(QUESTION, fmt="py:percent"))
    assert course.judge_wrong(question, kind, result(*passes)) == faults


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (FAILED, None),
        ("Error in q1:\n  check\nNameError: name 'half' is not defined", "does not say what"),
        ("Error in q1:\n  check\nAssertionError: ", "does not say what"),
        (FAILED + " It should be 0.5.", "gives away '0.5'"),
        (FAILED + " It is above 0 and below 10.5.", None),
        ("Error in q1:\n  half = 1/2\nAssertionError: `half` is wrong.", "gives away 'half=1/2'"),
    ],
)
def test_message_must_help_and_must_not_tell(message, fault):
    (question,) = questions.read_questions(jupytext.reads(QUESTION, fmt="py:percent"))
    faults = course.badly_said(question, result(False, True, message))
    assert len(faults) == (fault is not None)
    assert all(fault in text for text in faults)


def test_abused_answer_must_score_nothing_and_be_explained():
    (question,) = questions.read_questions(jupytext.reads(QUESTION, fmt="py:percent"))
    message = FAILED.replace("is not what was expected", "is not filled in")
    judge = course.judge_abuse
    assert judge(question, ("filled in",), result(False, False, message)) == []
    assert judge(question, ("filled in",), result(False, True, message, 1)) == ["it scores 1"]
    (fault,) = judge(question, ("There is no",), result(False, False, message))
    assert "'There is no'" in fault


@pytest.mark.slow
def test_planted_faults_are_found_and_named(built, tmp_path):
    """Four faults in a course of two assignments, of which the first one has none."""
    faulty = QUESTION.replace(
        "# What is half of one?", "# What is half of one? Not\n# half = 1 / 2"
    )
    faulty = faulty.replace(
        'share = grading.value(env, "half")\n    if', 'share = env["half"]\n    if'
    )
    wrong = WRONG.replace("1 / 3", "2 / 4") + "\n# %% q1 visible: a quarter\nhalf = 1 / 4\n"
    for folder, texts in (("book", (QUESTION, faulty)), ("tests", (WRONG, wrong))):
        (tmp_path / folder / "assignments").mkdir(parents=True)
        for name, text in zip(("00_sound", "01_faulty"), texts, strict=True):
            (tmp_path / folder / "assignments" / f"{name}.py").write_text(text)
    python = f"{sys.prefix}-course/bin/python"
    command = [python, str(ROOT / "book" / "tools" / "course.py"), "--root", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "00_sound  " in done.stdout and "00_sound" not in done.stderr
    for line in (
        "01_faulty q1, wrong answer (a third): it passes the hidden test",
        "01_faulty q1, wrong answer (a quarter): it passes the visible test",
        "01_faulty q1 renamed: a message does not say what was expected",
        "01_faulty student's folder: q1: 01_faulty.ipynb shows 'half=1/2'",
    ):
        assert f"course.py: {line}" in done.stderr


def test_rubric_of_the_instructors_page_has_every_question_in_order():
    page = (ROOT / "book" / "instructors.md").read_text()
    rubric = page[page.index("| assignment 1 |") : page.index("| what the student did |")]
    read = (questions.read_questions(jupytext.read(master)) for master in MASTERS)
    answers = [question.answer for assignment in read for question in assignment]
    assert re.findall(r"^\| `(\w+)`", rubric, re.M) == answers
    minutes = re.findall(r"\| (\d+) \|$", rubric, re.M)
    assert len(minutes) == len(answers)
    for k in range(len(MASTERS)):  # six questions each
        assert 60 <= sum(map(int, minutes[6 * k : 6 * k + 6])) <= 90

"""What the documentation promises is what the code has; and the package stays small.

The book's bench, ``splicedvae_book``, is documented as strictly and its files are as short, but it
is not the package: its lines do not count among the package's.
"""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
from numpydoc.docscrape import NumpyDocString

import splicedvae
import splicedvae_book

PACKAGE, BENCH = (Path(package.__file__).parent for package in (splicedvae, splicedvae_book))
SOURCES = sorted(PACKAGE.rglob("*.py"))


def public_objects(package):
    """Yield (name, object) of every public function, class and method that a package defines."""
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if "._" in info.name:
            continue
        module, inside = importlib.import_module(info.name), info.name.partition(".")[2]
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
                continue
            if inspect.isfunction(thing):
                yield f"{inside}.{name}", thing
            elif inspect.isclass(thing):
                yield f"{inside}.{name}", thing
                for key, member in vars(thing).items():
                    member = getattr(member, "__func__", member)  # class and static methods
                    if key.startswith("_") or not inspect.isfunction(member):
                        continue
                    overrides = any(hasattr(base, key) for base in thing.__mro__[1:])
                    if member.__doc__ or not overrides:  # a hook may leave it to its framework
                        yield f"{inside}.{name}.{key}", member


OBJECTS = dict([*public_objects(splicedvae), *public_objects(splicedvae_book)])


def documented(doc: NumpyDocString, section: str) -> list[str]:
    return [name.strip() for entry in doc[section] for name in entry.name.split(",")]


@pytest.mark.parametrize("name", OBJECTS)
def test_documented_parameters_are_the_signature(name):
    thing = OBJECTS[name]
    assert thing.__doc__, f"{name} has no docstring"
    doc = NumpyDocString(inspect.cleandoc(thing.__doc__))
    if inspect.isclass(thing) and "__init__" not in vars(thing):
        return  # nothing of its own to construct it with
    mark = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = inspect.signature(thing).parameters.values()
    signature = [mark.get(p.kind, "") + p.name for p in parameters if p.name not in ("self", "cls")]
    section = "Attributes" if dataclasses.is_dataclass(thing) else "Parameters"
    assert sorted(documented(doc, section)) == sorted(signature)


@pytest.mark.parametrize("name", [n for n, t in OBJECTS.items() if inspect.isfunction(t)])
def test_returns_are_documented(name):
    annotation = inspect.signature(OBJECTS[name]).return_annotation
    assert annotation is not inspect.Signature.empty, f"{name} does not say what it returns"
    doc = NumpyDocString(inspect.cleandoc(OBJECTS[name].__doc__))
    gives = annotation not in (None, "None")
    assert bool(doc["Returns"] or doc["Yields"]) == gives


def test_the_walk_finds_both_packages():
    assert {"data.pancreas", "model.SplicedVAE", "model.SplicedVAE.train"} <= OBJECTS.keys()
    assert {"experiment.run", "profiles.Profile"} <= OBJECTS.keys()


def lines_of_code(file: Path) -> int:
    """Count the lines of a file that are neither blank, nor comment, nor docstring."""
    text = file.read_text()
    told = set()
    for node in ast.walk(ast.parse(text)):
        documents = (ast.Module, ast.ClassDef, ast.FunctionDef)
        if isinstance(node, documents) and ast.get_docstring(node) is not None:
            told.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), start=1)
    return sum(n not in told and not re.match(r"\s*(#|$)", line) for n, line in lines)


def test_no_file_is_long():
    files = (*SOURCES, *BENCH.rglob("*.py"))
    lines = {str(file): len(file.read_text().splitlines()) for file in files}
    assert {file: n for file, n in lines.items() if n > 350} == {}


def test_the_package_is_thin():
    core = (PACKAGE / "module.py", PACKAGE / "model.py")
    assert sum(len(file.read_text().splitlines()) for file in core) <= 600
    # the core is what `import splicedvae` loads; a folder in it is a room that is only entered
    rooms = {folder: [f for f in SOURCES if folder in f.parents] for folder in PACKAGE.iterdir()}
    assert sum(lines_of_code(f) for f in SOURCES if f.parent == PACKAGE) <= 2500
    lines = {folder.name: sum(map(lines_of_code, files)) for folder, files in rooms.items()}
    assert lines.pop("atlas") <= 1150  # four steps and a command line, as large as two rooms
    assert all(n <= 650 for n in lines.values())


def test_it_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()

"""What the documentation promises is what the code has; and the package stays small."""

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

PACKAGE = Path(splicedvae.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


def public_objects():
    """Yield (name, object) of every public function, class and method that the package defines."""
    for info in pkgutil.iter_modules([str(PACKAGE)]):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"splicedvae.{info.name}")
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
                continue
            if inspect.isfunction(thing):
                yield f"{info.name}.{name}", thing
            elif inspect.isclass(thing):
                yield f"{info.name}.{name}", thing
                for key, member in vars(thing).items():
                    member = getattr(member, "__func__", member)  # class and static methods
                    if key.startswith("_") or not inspect.isfunction(member):
                        continue
                    overrides = any(hasattr(base, key) for base in thing.__mro__[1:])
                    if member.__doc__ or not overrides:  # a hook may leave it to its framework
                        yield f"{info.name}.{name}.{key}", member


OBJECTS = dict(public_objects())


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


def test_the_walk_finds_the_package():
    assert {"data.pancreas", "model.SplicedVAE", "model.SplicedVAE.train"} <= OBJECTS.keys()


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


def test_the_package_is_thin():
    lines = {file.name: len(file.read_text().splitlines()) for file in SOURCES}
    assert {name: n for name, n in lines.items() if n > 350} == {}
    assert lines["module.py"] + lines["model.py"] <= 600
    assert sum(map(lines_of_code, SOURCES)) <= 2500


def test_it_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()

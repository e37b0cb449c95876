"""What the documentation promises is what the code has, in the package and in the book's bench."""

import dataclasses
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from numpydoc.docscrape import NumpyDocString

import splicedvae
import splicedvae_book

PACKAGE = Path(splicedvae.__file__).parent


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
    assert {"stage.Stage.run", "profiles.Profile"} <= OBJECTS.keys()


def test_it_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").exists()

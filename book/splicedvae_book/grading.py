"""What the tests of the assignments share: fetch a student's answer, and say what is amiss with it.

A message says what was expected, by name and shape; none holds the answer.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np


def _fetch(env: dict[str, Any], name: str, expected: str) -> Any:
    if name not in env:
        raise AssertionError(
            f"There is no `{name}`; expected {expected} of that name. Is its cell still there, was "
            "it run without an error, and does the name stand as it was given?"
        )
    if env[name] is ... or env[name] is None:
        raise AssertionError(f"`{name}` is not filled in: put {expected} where the `...` stands.")
    return env[name]


def _numbers(what: str, found: Any, shape: tuple[int, ...], nan: bool) -> np.ndarray:
    expected = f"an array of shape {shape}" if shape else "a single number"
    for method in ("detach", "toarray"):  # a tensor, a sparse matrix
        found = getattr(found, method)() if hasattr(found, method) else found
    try:
        array = np.asarray(found, dtype=float)
        if isinstance(found, str):
            raise TypeError
    except (TypeError, ValueError):
        kind = type(found).__name__
        raise AssertionError(f"{what} is a {kind}, not numbers; expected {expected}.") from None
    if array.shape != shape:
        raise AssertionError(f"{what} has the shape {array.shape}; expected {expected}.")
    bad = np.isinf(array) if nan else ~np.isfinite(array)
    if bad.any():
        raise AssertionError(
            f"{what} holds NaN or infinite values, {bad.sum()} of {array.size}; expected {expected}"
            f"{', NaN only where the question says so' if nan else ' without any'}."
        )
    return array[()]


def value(env: dict[str, Any], name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
    """A number or an array that the student has put down.

    Parameters
    ----------
    env
        The notebook's names.
    name
        Of the answer.
    shape
        That it must have; () for a single number.

    Returns
    -------
    It, as floats.

    Raises
    ------
    AssertionError
        It is missing, not filled in, not a finite number, or of another shape.
    """
    expected = f"an array of shape {shape}" if shape else "a number"
    return _numbers(f"`{name}`", _fetch(env, name, expected), shape, nan=False)


def choice(env: dict[str, Any], name: str, options: str) -> str:
    """The letter that the student has chosen.

    Parameters
    ----------
    env
        The notebook's names.
    name
        Of the answer.
    options
        The letters that are offered, such as ``"abc"``.

    Returns
    -------
    One of them.

    Raises
    ------
    AssertionError
        It is missing, not filled in, or none of them.
    """
    letters = ", ".join(f'"{letter}"' for letter in options)
    found = _fetch(env, name, f"one of {letters}")
    if not isinstance(found, str) or found not in tuple(options):
        raise AssertionError(f"`{name}` is {found!r}; expected one of {letters}, in quotes.")
    return found


def call(
    env: dict[str, Any], name: str, *args: Any, shape: tuple[int, ...] = (), nan: bool = False
) -> np.ndarray:
    """What the student's function returns.

    Parameters
    ----------
    env
        The notebook's names.
    name
        Of the function.
    *args
        What it is called with; it gets copies, and may do with them what it likes.
    shape
        That the result must have; () for a single number.
    nan
        Whether some values may be NaN.

    Returns
    -------
    The result, as floats.

    Raises
    ------
    AssertionError
        There is no such function, it fails, or returns nothing, anything but finite numbers, or
        another shape.
    """
    function = _fetch(env, name, "a function")
    if not callable(function):
        raise AssertionError(f"`{name}` is a {type(function).__name__}; expected a function.")
    try:
        found = function(*copy.deepcopy(args))
    except Exception as error:
        unfinished = "ellipsis" in str(error)
        raise AssertionError(
            f"`{name}` stops with {type(error).__name__}: {error}. "
            + ("Is a `...` not filled in?" if unfinished else "It must work for these arguments.")
        ) from None
    if found is None or found is ...:
        raise AssertionError(
            f"`{name}` returns nothing: is it not filled in, or is a `return` missing?"
        )
    return _numbers(f"what `{name}` returns", found, shape, nan)


def agree(name: str, found: Any, expected: Any, hint: str, tolerance: float = 1e-6) -> None:
    """Compare an answer with the right one.

    Parameters
    ----------
    name
        Of the answer.
    found, expected
        Numbers or arrays of the same shape, or letters.
    hint
        What to think about, in a sentence.
    tolerance
        Relative and absolute.

    Raises
    ------
    AssertionError
        They differ.
    """
    if isinstance(expected, str):
        right, nan = np.array(found == expected), False
    else:
        expected = np.asarray(expected, dtype=float)
        right = np.isclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
        nan = (np.isnan(found) & ~np.isnan(expected)).any()
    if not right.all():
        places = f" at {(~right).sum()} of {right.size} places" if right.size > 1 else ""
        places += ", with NaN where a number should be" if nan else ""
        raise AssertionError(f"`{name}` is not what was expected{places}. {hint}")

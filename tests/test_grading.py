"""What a student reads when an answer is missing, unfinished or of the wrong kind."""

import re

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from splicedvae_book import grading

ROWS = np.array([[1.0, 2.0], [3.0, 4.0]])


def said(check, *args, **kwargs) -> str:
    with pytest.raises(AssertionError) as caught:
        check(*args, **kwargs)
    return str(caught.value)


def fails(*_):
    raise KeyError("beta")


def unfinished(x):
    y = ...
    return y + x


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (..., "`f` is not filled in: put a function where"),
        (lambda x: None, "`f` returns nothing: is it not filled in, or is a `return` missing"),
        (lambda x: ..., "`f` returns nothing"),
        (unfinished, "`f` stops with TypeError: .* Is a `...` not filled in?"),
        (fails, "`f` stops with KeyError: 'beta'. It must work"),
        (3.0, "`f` is a float; expected a function"),
        (lambda: ROWS, "`f` stops with TypeError: .*takes 0 positional arguments"),
        (
            lambda x: x * np.nan,
            "what `f` returns holds NaN or infinite values, 4 of 4; expected an",
        ),
        (lambda x: x / 0.0, "what `f` returns holds NaN or infinite"),
        (lambda x: x.sum(0), r"`f` returns has the shape \(2,\); expected an .* of shape \(2, 2\)"),
        (lambda x: x.sum(), r"`f` returns has the shape \(\); expected an array of shape \(2, 2\)"),
        (lambda x: "three", "what `f` returns is a str, not numbers; expected an array"),
        (lambda x: [[1, 2], [3]], "what `f` returns is a list, not numbers"),
        (lambda x: {"a": 1}, "what `f` returns is a dict, not numbers"),
    ],
)
def test_function_that_does_not_do(answer, words):
    with np.errstate(divide="ignore"):
        text = said(grading.call, {"f": answer}, "f", ROWS, shape=(2, 2))
    assert re.search(words, text), text


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (..., "`x` is not filled in: put a number where"),
        (None, "`x` is not filled in"),
        (float("nan"), "`x` holds NaN or infinite values, 1 of 1; expected a single number"),
        ([1, 2], r"`x` has the shape \(2,\); expected a single number"),
        ("0.5", "`x` is a str, not numbers; expected a single number"),
        (np.mean, "`x` is a function, not numbers|`x` is a .*, not numbers"),
    ],
)
def test_number_that_does_not_do(answer, words):
    text = said(grading.value, {"x": answer}, "x")
    assert re.search(words, text), text


@pytest.mark.parametrize("answer", ["B", "ab", "", "e", 1, float("nan"), ["b"], "b)"])
def test_letter_that_is_not_offered(answer):
    text = said(grading.choice, {"x": answer}, "x", "abc")
    assert text == f'`x` is {answer!r}; expected one of "a", "b", "c", in quotes.'


def test_missing_answers_are_named():
    for check in (grading.value, grading.call):
        assert said(check, {"y": 1}, "x").startswith("There is no `x`; expected a")
    assert said(grading.choice, {}, "x", "ab").startswith('There is no `x`; expected one of "a"')
    assert "not filled in" in said(grading.choice, {"x": ...}, "x", "ab")


@pytest.mark.parametrize("kind", [torch.tensor, csr_matrix, np.ndarray.tolist, np.float32])
def test_answers_of_many_kinds_are_read(kind):
    answer = kind(ROWS)
    np.testing.assert_array_equal(grading.value({"x": answer}, "x", (2, 2)), ROWS)
    np.testing.assert_array_equal(grading.call({"f": lambda: answer}, "f", shape=(2, 2)), ROWS)
    weights = torch.tensor(ROWS, requires_grad=True)
    np.testing.assert_array_equal(grading.value({"x": weights}, "x", (2, 2)), ROWS)


def test_arguments_survive_what_a_function_does_with_them():
    def spoils(x):
        x *= 0
        return x.sum()

    given = ROWS.copy()
    assert grading.call({"f": spoils}, "f", given) == 0
    np.testing.assert_array_equal(given, ROWS)


def test_answers_are_compared_without_being_shown():
    right, close = [0.12345, np.nan], [0.12345 * (1 + 1e-8), np.nan]
    grading.agree("x", close, right, "A hint.")
    grading.agree("x", "b", "b", "A hint.")
    text = said(grading.agree, "x", [0.2, np.nan], right, "A hint.")
    assert text == "`x` is not what was expected at 1 of 2 places. A hint."
    text = said(grading.agree, "x", [np.nan, np.nan], right, "A hint.")
    assert text == (
        "`x` is not what was expected at 1 of 2 places, with NaN where a number should be. A hint."
    )
    assert said(grading.agree, "x", 0.1, 0.2, "A hint.") == "`x` is not what was expected. A hint."
    assert said(grading.agree, "x", "a", "b", "A hint.") == "`x` is not what was expected. A hint."


def test_nan_is_allowed_only_where_it_may_occur():
    env = {"f": lambda: [1.0, np.nan]}
    assert np.isnan(grading.call(env, "f", shape=(2,), nan=True)[1])
    assert "NaN" in said(grading.call, env, "f", shape=(2,))
    assert "infinite" in said(grading.call, {"f": lambda: [1, np.inf]}, "f", shape=(2,), nan=True)

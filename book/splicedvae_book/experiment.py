"""Tables of the results that chapters share, and how their rows are compared over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from splicedvae.ratios import metrics


def table(jobs: list[dict]) -> pd.DataFrame:
    """One line per model and seed.

    Parameters
    ----------
    jobs
        From :meth:`splicedvae_book.stage.Stage.run`.

    Returns
    -------
    Index (model, seed), a column per score.
    """
    lines = {
        (model, job["seed"]): {k: v for k, v in row.items() if k != "params"}
        for job in jobs
        for model, row in job["rows"].items()
    }
    frame = pd.DataFrame.from_dict(lines, orient="index")
    frame.index = pd.MultiIndex.from_tuples(frame.index, names=["model", "seed"])
    return frame


def difference(scores: pd.DataFrame, a: str, b: str, score: str) -> tuple[float, float, float]:
    """Mean of a - b over seeds and its 95 % interval, paired by seed.

    Parameters
    ----------
    scores
        From :func:`table`.
    a, b
        Two models.
    score
        A column.

    Returns
    -------
    Mean, lower and upper end; the ends are NaN with one seed.
    """
    left, right = scores.loc[a, score], scores.loc[b, score]
    if len(left) < 2:
        return float((left - right).mean()), float("nan"), float("nan")
    return metrics.paired_interval(left.to_numpy(), right.loc[left.index].to_numpy())


def format_difference(scores: pd.DataFrame, a: str, b: str, score: str, digits: int = 3) -> str:
    """The :func:`difference` as text, with its interval if there is more than one seed.

    Parameters
    ----------
    scores, a, b, score
        As in :func:`difference`.
    digits
        After the point.

    Returns
    -------
    Such as ``+0.012 [+0.008, +0.016]``.
    """
    centre, low, high = difference(scores, a, b, score)
    interval = f"[{low:+.{digits}f}, {high:+.{digits}f}]" if np.isfinite(low) else "(one seed)"
    return f"{centre:+.{digits}f} {interval}"


def mean_with_interval(values: pd.Series, form: str = "{:.3f}") -> dict:
    """A score's mean over seeds with its 95 % interval.

    Parameters
    ----------
    values
        One for each seed.
    form
        How the text shows a number.

    Returns
    -------
    ``mean``, ``low``, ``high`` (NaN if there is one seed), ``n_seeds`` and ``text``.
    """
    centre, low, high = float(values.mean()), np.nan, np.nan
    text = form.format(centre)
    if len(values) > 1:
        _, low, high = metrics.paired_interval(values.to_numpy(), np.zeros(len(values)))
        text += f" [{form.format(low)}, {form.format(high)}]"
    return {"mean": centre, "low": low, "high": high, "n_seeds": len(values), "text": text}

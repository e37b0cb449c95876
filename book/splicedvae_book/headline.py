"""What came out, in one table: the page that readers see first."""

from __future__ import annotations

import pandas as pd

from .experiment import measured
from .fields import OTHER_HALF
from .profiles import PROFILES

# Score, its name, its table, what its last column is, and the models of the four columns.
_LINES = (
    *(
        (
            score,
            f"ratios, {{term}}`{name}`",
            "fits",
            "ceiling",
            ("GeneMean", "RidgeBinomial", "SplicedVAE", "ceiling, bootstrap"),
        )
        for score, name in (("d2", "D²"), ("within_gene_r", "within-gene r"))
    ),
    (
        "cosine",
        "velocity, cosine to that of half of each cell's molecules",
        "fields",
        "the other half's own S and U",
        (
            *(f"{m}{OTHER_HALF}" for m in ("GeneMean", "NearestNeighbours", "SplicedVAE")),
            "half versus half",
        ),
    ),
)


def headline(fitted: pd.DataFrame, fields: pd.DataFrame, verdicts: list[str], facts: dict) -> str:
    """The scorecard's headline.

    Parameters
    ----------
    fitted, fields
        :func:`~splicedvae_book.experiment.table` of the stages ``fits`` and ``fields``.
    verdicts
        Of the claims, from :func:`~splicedvae_book.scorecard.claims`.
    facts
        From :func:`~splicedvae_book.profiles.provenance`.

    Returns
    -------
    Markdown: a sentence and a table, or that this profile measures none.
    """
    profile = facts["profile"]
    if profile == "smoke":
        return (
            "*Not measured in this build: its profile, `smoke`, is a short run on few cells. In "
            "`standard` and `full`, the figures stand here.*"
        )
    undefined = sum(verdict.startswith("cannot") for verdict in verdicts)
    failed = sum(verdict.startswith("does not") for verdict in verdicts)
    partly = sum("only" in verdict or "no more than" in verdict for verdict in verdicts)
    held = len(verdicts) - undefined - failed - partly

    tables = {"fits": fitted, "fields": fields}
    rows = []
    for score, name, table, last, models in _LINES:
        told = [measured(tables[table].loc[model, score]) for model in models]
        cells = [f"{one['mean']:.3f}" for one in told]
        cells[2] = f"**{told[2]['text']}**"
        cells[3] += f" ({last})"
        rows.append(" | ".join(("", name, *cells, "")).strip())
    seeds = len(PROFILES[profile].seeds)
    simulated = "**simulated cells**" if facts["simulated"] else facts["data"]
    return "\n".join(
        [
            f"Of the paper's {len(verdicts)} figures and statements, {held} hold here, {partly} in "
            f"part, {failed} not, and {undefined} cannot be reproduced "
            f"({{doc}}`chapter 7 <07_scorecard>`). What a model can say of cells that it has not "
            f"seen ({simulated}; mean over {seeds} splits, 95 % interval):",
            "",
            "| | gene mean | simple model | SplicedVAE | to compare |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            "The gene mean knows nothing of a cell. The simple model is a ridge regression for the "
            "ratios and an average over neighbours for the velocity.",
        ]
    )

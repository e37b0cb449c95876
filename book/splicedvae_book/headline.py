"""What came out, in one table: the page that readers see first."""

from __future__ import annotations

import pandas as pd

from .experiment import mean_with_interval
from .profiles import PROFILES
from .stages.fields import OTHER_HALF

# Simple models of each kind, of which a line shows the best, and what the table calls them.
_OF_RATIOS = {
    "NearestNeighbours": "mean of neighbours",
    "RidgeBinomial": "ridge",
    "ScviLatentRidge": "ridge on scVI's latent",
    "HierarchicalBinomial": "hierarchical regression",
}
_OF_VELOCITY = {
    f"{name}{OTHER_HALF}": label
    for name, label in (
        ("NearestNeighbours", "mean of neighbours"),
        ("HierarchicalBinomial", "hierarchical regression"),
        ("velocity transfer", "transfer"),
    )
}
# Score, its name, its table, what its last column is, simple models, and the other three columns.
_LINES = (
    *(
        (
            score,
            f"ratios, {{term}}`{name}`",
            "fits",
            "ceiling",
            _OF_RATIOS,
            ("GeneMean", "SplicedVAE", "ceiling, bootstrap"),
        )
        for score, name in (("d2", "D²"), ("within_gene_r", "within-gene r"))
    ),
    (
        "cosine",
        "velocity, cosine to that of half of each cell's molecules",
        "fields",
        "the other half's own S and U",
        _OF_VELOCITY,
        (*(f"{m}{OTHER_HALF}" for m in ("GeneMean", "SplicedVAE")), "half versus half"),
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
    for score, name, table, last, simple, others in _LINES:
        scores = tables[table][score]
        best = max(simple, key=lambda model: scores[model].mean())
        null, ours, top = (mean_with_interval(scores[model]) for model in others)
        cells = (
            f"{null['mean']:.3f}",
            f"{scores[best].mean():.3f} ({simple[best]})",
            f"**{ours['text']}**",
            f"{top['mean']:.3f} ({last})",
        )
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
            "| | gene mean | best simple model | SplicedVAE | to compare |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
            "The gene mean knows nothing of a cell. The best simple model is the one with the "
            "highest score of its line. The hierarchical regression is what is left of SplicedVAE "
            "without a network: it reads {term}`principal components` and a gene's own count, and "
            "its genes share a {term}`prior`. Transfer gives a cell the mean velocity of its "
            "neighbours among the training cells, so it needs their two counts.",
        ]
    )

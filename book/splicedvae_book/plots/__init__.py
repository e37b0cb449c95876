"""Figures: one function per panel, from arrays and tables to matplotlib Axes."""

from .atlas import extrapolation, mixing, shares_by_rank
from .data import (
    embedding,
    error_bound,
    ratio_against_depth,
    ratio_by_cluster,
    switched_on_and_off,
)
from .diagrams import architecture, hierarchy, pipelines, residual, splicing_diagram
from .futures import fans, fate_triangle, reliability_curve
from .interactive import switched_fields, switched_lines
from .peers import cosine_and_cbdir, ideas
from .search import parallel_coordinates, search_history, shrinkage, slices
from .style import BLUE, COLOURS, GREEN, INK, ORANGE, ROLES, use_style
from .training import (
    by_cells,
    by_epoch,
    gene_differences,
    gene_overlap,
    history,
    scores_over_seeds,
)
from .velocity import (
    cell_scores,
    field_angles,
    gene_velocity,
    phase_portrait,
    stream,
    transitions,
    uncertainty,
)

__all__ = [
    "BLUE",
    "COLOURS",
    "GREEN",
    "INK",
    "ORANGE",
    "ROLES",
    "architecture",
    "by_cells",
    "by_epoch",
    "cell_scores",
    "cosine_and_cbdir",
    "embedding",
    "error_bound",
    "extrapolation",
    "fans",
    "fate_triangle",
    "field_angles",
    "gene_differences",
    "gene_overlap",
    "gene_velocity",
    "hierarchy",
    "history",
    "ideas",
    "mixing",
    "parallel_coordinates",
    "phase_portrait",
    "pipelines",
    "ratio_against_depth",
    "ratio_by_cluster",
    "reliability_curve",
    "residual",
    "scores_over_seeds",
    "search_history",
    "shares_by_rank",
    "shrinkage",
    "slices",
    "splicing_diagram",
    "stream",
    "switched_fields",
    "switched_lines",
    "switched_on_and_off",
    "transitions",
    "uncertainty",
    "use_style",
]

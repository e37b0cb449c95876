"""RNA velocity from count layers, true or predicted: scVelo's stochastic model and its names.

What :func:`fit` writes is named as scVelo names it, so that ``scv.pl`` and CellRank's
``VelocityKernel`` read it unchanged. The slope of the steady state is explained in
:mod:`splicedvae.velocity.steady_state`.
"""

from .field import check_graph, direction_classes, embed, finite_genes, fit, project

__all__ = ["check_graph", "direction_classes", "embed", "finite_genes", "fit", "project"]

"""How well ratios, latent spaces and velocities are predicted, beside what noise leaves of them.

Entry (c, g) has s spliced and u unspliced counts, n = s + u and r = s / n, undefined where
n = 0; given the true ratio p, s is Binomial(n, p). A velocity field is an AnnData that
:func:`splicedvae.velocity.fit` or :func:`splicedvae.velocity.project` has written.
"""

from .ratios.ceilings import bootstrap_ceiling, fit_concentration, thinning_ceiling
from .ratios.metrics import latent_report, paired_interval, ratio_report, within_gene_list
from .velocity.metrics import (
    cell_cosine,
    cross_boundary,
    direction_accuracy,
    velocity_report,
    velocity_scale,
)

__all__ = [
    "bootstrap_ceiling",
    "cell_cosine",
    "cross_boundary",
    "direction_accuracy",
    "fit_concentration",
    "latent_report",
    "paired_interval",
    "ratio_report",
    "thinning_ceiling",
    "velocity_report",
    "velocity_scale",
    "within_gene_list",
]

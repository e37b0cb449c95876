"""How well ratios, latents, velocities and futures are predicted, beside what noise leaves.

Entry (c, g) has s spliced and u unspliced counts, n = s + u and r = s / n, undefined where
n = 0; given the true ratio p, s is Binomial(n, p). A velocity field is an AnnData that
:func:`splicedvae.velocity.fit` or :func:`splicedvae.velocity.project` has written.
"""

from .futures.metrics import (
    brier,
    calibration_error,
    energy_score,
    fate_log_loss,
    mmd,
    reliability,
    sliced_wasserstein,
)
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
    "brier",
    "calibration_error",
    "cell_cosine",
    "cross_boundary",
    "direction_accuracy",
    "energy_score",
    "fate_log_loss",
    "fit_concentration",
    "latent_report",
    "mmd",
    "paired_interval",
    "ratio_report",
    "reliability",
    "sliced_wasserstein",
    "thinning_ceiling",
    "velocity_report",
    "velocity_scale",
    "within_gene_list",
]

"""Scores of ratios on one split, and of what knows the truth."""

from __future__ import annotations

import numpy as np
from anndata import AnnData

from splicedvae.ratios import baselines, ceilings, metrics


class Scorer:
    """Ratio reports of one split, all against the same gene mean, gene list and dispersion.

    Parameters
    ----------
    adata
        Prepared cells.
    train, test
        Positions.
    seed
        Of the randomised scores.
    """

    def __init__(self, adata: AnnData, train: np.ndarray, test: np.ndarray, seed: int):
        counts = [adata.layers[layer] for layer in ("spliced", "unspliced")]
        self.spliced, self.unspliced = (layer[test] for layer in counts)
        self.mean = baselines.GeneMean().fit(adata[train], adata[train]).mean_
        n = adata.layers["total"]
        self.genes = metrics.within_gene_list(n[train], n[test])
        if not self.genes.any():  # a thinned run
            self.genes = None
        self.concentration = ceilings.fit_concentration(*(c[train] for c in counts), self.mean)
        self.seed = seed

    def report(self, predicted: np.ndarray) -> dict[str, float]:
        """Score a prediction.

        Parameters
        ----------
        predicted
            Ratios (test cells, genes).

        Returns
        -------
        See :func:`splicedvae.metrics.ratio_report`.
        """
        return metrics.ratio_report(
            self.spliced,
            self.unspliced,
            predicted,
            self.mean,
            genes=self.genes,
            concentration=self.concentration,
            seed=self.seed,
        )

    def ceilings(self) -> dict[str, dict[str, float]]:
        """Score what knows the truth.

        Returns
        -------
        Both ceilings' scores by name.
        """
        args = self.spliced, self.unspliced
        return {
            "ceiling, bootstrap": ceilings.bootstrap_ceiling(
                *args, self.mean, self.genes, seed=self.seed
            ),
            "ceiling, thinning": ceilings.thinning_ceiling(*args, self.genes, seed=self.seed),
        }

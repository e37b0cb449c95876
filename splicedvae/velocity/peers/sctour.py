"""scTour (Li 2023): a variational autoencoder whose latent space is moved by a neural ODE.

The package is the authors'. Which way its time runs is decided by chance and a count of genes, so
its authors advise to turn it by hand where it is wrong.
"""

from __future__ import annotations

import numpy as np
import torch
from anndata import AnnData

from ...ratios._features import median_depth
from ._shared import counts_of, foreign


def velocity(
    cells: AnnData, n_updates: int = 400, batch_size: int = 64, seed: int = 0
) -> np.ndarray:
    r"""The ODE's vector field, carried from the latent space to genes by the decoder.

    The decoder gives each gene's share of a cell's counts, so the velocity is its derivative along
    the field, :math:`d \, J_\mathrm{decoder}(z)\, f(z)`, with d the median depth.

    Parameters
    ----------
    cells
        Cells with raw counts in ``layers["total"]``.
    n_updates
        Steps of the optimiser. For up to 1,000 cells, 400 are what the package takes itself.
    batch_size
        Cells in one step. The ODE is solved over all of them in turn, so the time taken grows with
        it; the package's own is 1,024, 16 times as slow.
    seed
        Seed of weights, batches and latents.

    Returns
    -------
    Velocity (cells, genes), size-normalised counts per unit of scTour's time, in the direction
    that the package chooses.

    Raises
    ------
    ImportError
        The package ``sctour`` is not installed.
    KeyError
        There are no totals.

    References
    ----------
    Li, Genome Biology 24:149 (2023).
    """
    counts = counts_of(cells)
    dense = AnnData(counts.toarray())  # the package reads no sparse matrix with today's SciPy
    dense.obs["n_genes_by_counts"] = counts.getnnz(axis=1)
    epochs = int(np.ceil(n_updates * batch_size / (0.9 * cells.n_obs)))
    with foreign("sctour", seed) as sctour:
        trainer = sctour.train.Trainer(
            dense, nepoch=epochs, batch_size=batch_size, random_state=seed, use_gpu=False
        )
        trainer.train()
        time = trainer.get_time()  # decides which way time runs
        latent = trainer.get_latentsp()[1]
        step = torch.as_tensor(trainer.get_vector_field(time, latent))
        decoder = trainer.model.decoder.eval()
        _, change = torch.func.jvp(decoder, (torch.as_tensor(latent),), (step,))
    return change.detach().numpy().astype(np.float64) * median_depth(counts)

"""What the head costs: an epoch of SplicedVAE against one of scVI, in one process.

    python benchmarks/epoch.py

Same cells, same genes, same latent, same minibatches, the two taking turns so that a machine that
slows down slows both. Prints one JSON line; ``ratio`` is the median over turns.
"""

import json
import os
import statistics
import time

import numpy as np
import scvi
import torch
from lightning.pytorch.callbacks import Callback

import splicedvae as sv
import splicedvae_book as lab
from splicedvae.training import minibatch

EPOCHS, TURNS = 6, 9


class Clock(Callback):
    """Seconds of each epoch, its validation included, what comes before the first left out."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.starts.append(time.perf_counter())

    def on_train_end(self, trainer, pl_module) -> None:
        self.starts.append(time.perf_counter())


def main() -> None:
    lab.profiles.quiet()
    adata = sv.data.pancreas()
    train, val, test = sv.data.split(adata)
    adata = sv.data.prepare(adata, fit_on=train)
    quiet = {"accelerator": "cpu", "enable_progress_bar": False}

    def spliced(clock: Clock) -> None:
        sv.SplicedVAE.setup_anndata(adata)
        sv.SplicedVAE(adata).train(EPOCHS, split=(train, val), callbacks=[clock], **quiet)

    def plain(clock: Clock) -> None:
        scvi.model.SCVI.setup_anndata(adata, layer="total")
        scvi.model.SCVI(adata, gene_likelihood="nb").train(
            EPOCHS,
            batch_size=minibatch(len(train)),
            datasplitter_kwargs={"external_indexing": [train, val, test]},
            check_val_every_n_epoch=1,
            callbacks=[clock],
            **quiet,
        )

    def seconds(run) -> float:
        clock = Clock()
        run(clock)
        return statistics.median(np.diff(clock.starts))

    seconds(spliced), seconds(plain)  # the first calls import and compile
    turns = [(seconds(spliced), seconds(plain)) for _ in range(TURNS)]
    ratios = sorted(a / b for a, b in turns)
    print(
        json.dumps(
            {
                "benchmark": "epoch",
                "data": adata.uns["provenance"]["name"],
                "cells": len(train),
                "genes": adata.n_vars,
                "cpus": os.cpu_count(),
                "threads": torch.get_num_threads(),
                "splicedvae_seconds": round(float(np.median([a for a, _ in turns])), 4),
                "scvi_seconds": round(float(np.median([b for _, b in turns])), 4),
                "ratio": round(statistics.median(ratios), 3),
                "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)],
            }
        )
    )


if __name__ == "__main__":
    main()

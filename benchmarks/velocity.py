"""Time one predicted velocity field on 1,109 × 1,126 simulated cells, from layers to its report.

Prints one JSON line: seconds of each step, and of scVelo's own loop over genes beside our slope.
Run it as ``python benchmarks/velocity.py``.
"""

import json
import time

import numpy as np
import torch

import splicedvae as sv
from splicedvae.counts import split_counts
from splicedvae.velocity.steady_state import quiet_scvelo


def seconds(task) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    task()
    return round(time.perf_counter() - start, 2)


def main() -> None:
    """Time embedding, fit with and without draws, report, and scVelo's stochastic model."""
    torch.set_num_threads(1)
    cells = sv.data.simulate(n_obs=1109, n_vars=1126, seed=0)
    cells.layers["total"] = cells.layers["spliced"] + cells.layers["unspliced"]
    times = {"embed": seconds(lambda: sv.velocity.embed(cells))}
    reference = cells.copy()
    times["fit, counts"] = seconds(lambda: sv.velocity.fit(reference))
    ratio = np.tile(sv.baselines.GeneMean().fit(cells, cells).mean_, (cells.n_obs, 1))
    ratio = (ratio * np.random.default_rng(0).uniform(0.9, 1.1, ratio.shape)).clip(0, 1)
    field = cells.copy()
    layers = split_counts(cells.layers["total"], ratio)
    field.layers["spliced"], field.layers["unspliced"] = layers
    times["fit, expectations with 20 draws"] = seconds(lambda: sv.velocity.fit(field))
    scale = sv.metrics.velocity_scale(reference)
    times["report"] = seconds(lambda: sv.metrics.velocity_report(reference, field, scale))
    times["field in all"] = round(times["fit, expectations with 20 draws"] + times["report"], 2)
    own = reference.copy()
    with quiet_scvelo() as scv:
        times["scVelo, stochastic model"] = seconds(
            lambda: scv.tl.velocity(own, mode="stochastic", vkey="own")
        )
    print(json.dumps({"benchmark": "velocity", "seconds": times}))


if __name__ == "__main__":
    main()

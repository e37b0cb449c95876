"""Distributions over futures: scores on LARRY's clones, and on simulated cells by row.

python benchmarks/futures.py [larry] [simulator] [time] [--seeds 5] [--size standard]

Prints one JSON line with what is asked for, by default larry and simulator.

    larry      r, brier and log_loss of the flow on the 335 cells of the published test; noise is
               chosen on clones that are not tested; rows has the published predictions too. With
               several seeds the figures are means
    simulator  mean scores of each row over seeds, and paired differences of the flow and each row
               from the same velocity, mean and 95 % interval; below 0 is better
    time       seconds, by the wall and of the CPU, to train on
               1,109 simulated cells and to draw 50 paths of each

On a busy machine set OMP_NUM_THREADS=1 and NUMBA_NUM_THREADS=1: numba hands its number on to torch.
The real cells are found as sv.data.larry says; without them ``larry`` is null.
"""

import argparse
import json
import logging
import sys
import time

import numpy as np
import torch

import splicedvae as sv
from splicedvae_book.stages import futures as stage

LARRY_STEPS = 2000


def larry(seeds: range) -> dict | None:
    """Mean scores of the flow, and all rows of the first seed."""
    found = []
    for seed in seeds:
        try:
            found.append(stage.clones(seed, LARRY_STEPS))
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            return None
    flows = [rows["flow"] for rows in found]
    scores = ("r", "brier", "log_loss", "ece", "noise")
    rows = {
        name: {k: round(v, 4) for k, v in row.items() if k != "curve"}
        for name, row in found[0].items()
    }
    means = {score: round(float(np.mean([f[score] for f in flows])), 4) for score in scores}
    each = {score: [round(f[score], 4) for f in flows] for score in scores}
    return means | {"n": 335, "seeds": each, "rows": rows}


def simulator(seeds: range, size: str) -> dict:
    """Mean of each row, and how the flow differs from the rows of its own velocity."""
    found = {}
    for seed in seeds:
        found[seed] = stage.simulator(seed, **stage.SETTINGS[size])
        print(json.dumps({"seed": seed, "rows": found[seed]}), file=sys.stderr, flush=True)
    names = next(iter(found.values()))
    rows = {
        name: {
            score: round(float(np.mean([rows[name][score] for rows in found.values()])), 4)
            for score in names[name]
        }
        for name in names
    }
    result = {"seeds": len(found), "size": stage.SETTINGS[size], "rows": rows, "paired": {}}
    if len(found) < 2:
        return result
    kinds = [kind for kind in ("flow", "diffusion") if f"{kind}, true S/U" in names]
    for source in stage.SOURCES:
        for kind in kinds:
            ours = f"{kind}, {source}"
            same = [f"{name}, {source}" for name in ("carried on", "random walk")]
            rivals = [stage.STAY, *same, f"{kind}, one path, {source}", f"{kind}, shuffled"]
            for rival in rivals:
                result["paired"][f"{ours} - {rival}"] = {
                    score: stage.paired(found, ours, rival, score)
                    for score in ("energy_score", "log_loss")
                }
    return result


def timed() -> dict:
    """Seconds of training and of drawing, both kinds."""
    cells = sv.data.simulate(1109, 500, 0)
    cells.layers["total"] = cells.layers["spliced"] + cells.layers["unspliced"]
    sv.velocity.embed(cells, umap=False)
    sv.velocity.fit(cells, basis="pca")
    seconds = {}
    for kind in ("flow", "diffusion"):
        clocks = [(time.perf_counter(), time.process_time())]
        model = sv.futures.Futures(cells, "X_pca", kind=kind).fit(progress=False)
        clocks.append((time.perf_counter(), time.process_time()))
        model.sample(horizon=10, n=50)
        clocks.append((time.perf_counter(), time.process_time()))
        for k, step in enumerate(("train", "sample")):
            wall, cpu = (round(b - a, 1) for a, b in zip(*clocks[k : k + 2], strict=True))
            seconds[f"{kind}, {step}"] = {"wall": wall, "cpu": cpu}
    return {"cells": cells.n_obs, "paths": 50, "threads": torch.get_num_threads()} | seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["larry", "simulator"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--larry-seeds", type=int, default=1)
    parser.add_argument("--size", choices=stage.SETTINGS, default="standard")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    line = {"benchmark": "futures"}
    if "larry" in args.parts:
        line["larry"] = larry(range(args.larry_seeds))
    if "simulator" in args.parts:
        line["simulator"] = simulator(range(args.seeds), args.size)
    if "time" in args.parts:
        line["time"] = timed()
    print(json.dumps(line))


if __name__ == "__main__":
    main()

"""One stage of the book's results over more seeds than its profile has, and differences by seed.

    python benchmarks/stage.py STAGE [--profile standard] [--seeds 5] [--pair A B ...]

What the stage reads of others is made first; what is there already is only read. Prints a JSON line
per model, means over seeds; and one per pair of models, A less B with its paired 95 % interval.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import splicedvae_book as lab
from splicedvae_book.profiles import PROFILES
from splicedvae_book.stage import ONCE, Stage, run_all


def needed(stage: Stage) -> list[Stage]:
    """The stages that a stage reads, in the order of their making, and itself."""
    before = [other for title in stage.after for other in needed(getattr(lab, title).stage)]
    return list({each.title: each for each in [*before, stage]}.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage", choices=lab.STAGES, metavar="STAGE")
    parser.add_argument("--profile", choices=PROFILES, default="standard")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pair", nargs=2, action="append", default=[], metavar=("A", "B"))
    parser.add_argument("--out", type=Path, default=Path("_build/results"))
    args = parser.parse_args()
    lab.profiles.quiet()
    ONCE.clear()
    setting = PROFILES[args.profile]
    PROFILES[args.profile] = replace(setting, seeds=tuple(range(args.seeds)))
    adata, stage = lab.profiles.load(args.profile), getattr(lab, args.stage).stage
    run_all(needed(stage), adata, args.profile, args.out)
    table = lab.experiment.table(stage.run(adata, args.profile, args.out))
    scores = list(stage.shown)
    for model, means in table[scores].groupby("model", sort=False).mean().iterrows():
        print(json.dumps({"model": model} | means.round(4).dropna().to_dict()), flush=True)
    for a, b in args.pair:
        line = {"model": a, "less": b}
        for score in scores:
            if table.loc[[a, b], score].notna().all():
                line[score] = lab.experiment.format_difference(table, a, b, score, 4)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

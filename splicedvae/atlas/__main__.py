"""``python -m splicedvae.atlas``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import scvi

from ..model import SplicedVAE
from .catalogue import Catalogue
from .loader import AtlasDataModule, MidEpochCheckpoint
from .sampling import balance, sampling_plan, split
from .store import Store, build_store


def plan(args: argparse.Namespace) -> None:
    """Write the plan, and show what it balances."""
    catalogue = Catalogue.read(args.root, args.organism, project=args.project)
    samples = catalogue.select(min_cells=args.min_cells).samples
    chosen = sampling_plan(samples, args.cells, args.alpha, args.seed)
    if args.split:
        chosen = split(chosen, args.split, seed=args.seed)
    chosen.to_parquet(args.plan)
    print(balance(samples, chosen).round(4).to_string())


def build(args: argparse.Namespace) -> None:
    """Build the store, or this machine's part of it."""
    genes = pd.read_csv(args.genes, index_col=False, dtype=str)
    if genes.columns[0] != "gene":
        header = "its header must be gene, or gene,symbol or gene,Homo sapiens,Mus musculus"
        raise ValueError(f"{args.genes} begins with {genes.columns[0]!r}; {header}.")
    i, _, n = args.shard.partition("/")
    if not (i.isdecimal() and n.isdecimal()):
        raise ValueError(f"--shard {args.shard} must be i/n, such as 0/8: the first of 8 machines.")
    print(f"{len(genes):,} genes.")
    chosen, genes, shard = pd.read_parquet(args.plan), genes.set_index("gene"), (int(i), int(n))
    build_store(chosen, args.store, genes, n_jobs=args.jobs, shard=shard, project=args.project)


def verify(args: argparse.Namespace) -> None:
    """Compare checksums."""
    Store(args.store).verify()
    print(f"{args.store} is whole.")


def train(args: argparse.Namespace) -> None:
    """Train, or go on from the last checkpoint."""
    out = Path(args.output)
    out.mkdir(parents=True, exist_ok=True)
    last = out / "last.ckpt"
    scvi.settings.seed = args.seed  # the same weights in every process
    settings = {"batch_key": args.batch_key, "batch_size": args.batch_size, "seed": args.seed}
    datamodule = AtlasDataModule(Store(args.store), engine=args.engine, **settings)
    model = SplicedVAE(registry=datamodule.registry, n_latent=args.latent)
    try:
        model.train(
            args.epochs,
            datamodule=datamodule,
            accelerator=args.accelerator,
            devices=args.devices,
            num_nodes=args.nodes,
            # scVI's decoder has outputs that a likelihood may leave unused
            strategy="ddp_find_unused_parameters_true" if args.devices * args.nodes > 1 else "auto",
            callbacks=[MidEpochCheckpoint(last, args.checkpoint_every)],
            ckpt_path=last if last.exists() else None,
            log_save_dir=str(out),
        )
    except SystemExit as stop:  # how Lightning ends after Ctrl-C
        raise (stop.__context__ or stop) from None
    if model.trainer.is_global_zero:
        model.save(out / "model", overwrite=True)
        pd.concat(model.history.values(), axis=1).to_csv(out / "history.csv")


STEPS = {
    plan: "root plan --organism --min-cells --cells --alpha --split --project --seed",
    build: "plan store genes --jobs --shard --project",
    verify: "store",
    train: "store output --batch-key --epochs --batch-size --latent --engine --accelerator "
    "--devices --nodes --checkpoint-every --seed",
}
TEXTS = {  # and defaults
    "root": "folder or address of one release",
    "plan": "file of the plan, .parquet",
    "store": "folder of the store",
    "genes": "CSV with the header gene above the ids; or with more columns, symbol or organisms",
    "output": "folder for checkpoint, model and history",
    "--organism": ("whose samples", "Homo sapiens"),
    "--min-cells": ("a sample has more", 3000),
    "--cells": ("in all, such as 1e6", 1e7),
    "--alpha": ("0: as many cells of each tissue; 1: as many as it has of all", 0.5),
    "--split": ("column whose values each go to train, val or test", None),
    "--project": ("to bill for downloads from a bucket", None),
    "--jobs": ("processes", 1),
    "--shard": ("i/n: number of this machine, from 0, and of all", "0/1"),
    "--batch-key": ("column of the samples that is the model's batch", None),
    "--epochs": ("in all", 10),
    "--batch-size": ("cells, on each device", 1024),
    "--latent": ("dimensions", 50),
    "--engine": ("annbatch or anndata", "auto"),
    "--accelerator": ("cpu, gpu or another", "auto"),
    "--devices": ("on each machine", 1),
    "--nodes": ("machines", 1),
    "--checkpoint-every": ("steps", 1000),
    "--seed": ("of all that is random", 0),
}


def parser() -> argparse.ArgumentParser:
    """Describe the command line.

    Returns
    -------
    What parses it; ``step`` of the result is the function to call with the result.
    """
    parser = argparse.ArgumentParser(
        prog="python -m splicedvae.atlas",
        description="From the metadata of an atlas to a model. After a stop of build or train, the "
        "same command goes on.",
    )
    steps = parser.add_subparsers(required=True)
    for step, names in STEPS.items():
        sub = steps.add_parser(step.__name__, help=step.__doc__)
        sub.set_defaults(step=step)
        for name in names.split():
            if name.startswith("--"):
                text, default = TEXTS[name]
                kind = str if default is None else type(default)
                sub.add_argument(name, help=f"{text} [{default}]", type=kind, default=default)
            else:
                sub.add_argument(name, help=TEXTS[name])
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Make an atlas from the command line, see ``python -m splicedvae.atlas --help``.

    Parameters
    ----------
    arguments
        Of the command line; None takes those of the process.

    Raises
    ------
    SystemExit
        With what is wrong, or after Ctrl-C with what to do.
    """
    args = parser().parse_args(arguments)
    try:
        args.step(args)
    except KeyboardInterrupt:
        sys.exit("Interrupted. What is done is kept; the same command goes on.")
    except (ImportError, KeyError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()

"""``python -m splicedvae.search``."""

import argparse
import sys
from collections.abc import Sequence

from anndata import AnnData
from optuna.exceptions import OptunaError

from .. import data
from ..model import SplicedVAE
from . import run, table, top
from ._trials import OBJECTIVES


def main(arguments: Sequence[str] | None = None) -> None:
    """Search from the command line, see ``python -m splicedvae.search --help``.

    Parameters
    ----------
    arguments
        Of the command line; None takes those of the process.

    Raises
    ------
    SystemExit
        With what is wrong, or after Ctrl-C with what to do.
    """
    parser = argparse.ArgumentParser(
        prog="python -m splicedvae.search",
        description="Search SplicedVAE's hyperparameters. Start it on as many machines as you "
        "like with the same storage; after a stop, the same command goes on.",
    )
    add = parser.add_argument
    add("--storage", default="sqlite:///search.db", help="database URL [%(default)s]")
    add("--study", default="splicedvae", help="name of the study [%(default)s]")
    add("--workers", type=int, default=1, help="processes on this machine [%(default)s]")
    add("--trials", type=int, default=90, help="configurations in all [%(default)s]")
    add("--epochs", type=int, default=50, help="epochs of each [%(default)s]")
    add("--sampler", choices=("grid", "tpe"), default="grid", help="[%(default)s]")
    add("--objective", nargs="+", default=["rmse"], choices=tuple(OBJECTIVES), help="[rmse]")
    add("--seed", type=int, default=0, help="of split, points and weights [%(default)s]")
    of = parser.add_mutually_exclusive_group().add_argument
    of("--data", help="what splicedvae.data.read can read [the pancreas]")
    of("--simulated", action="store_true", help="search on simulated cells")
    add("--genes", type=int, default=2000, help="highly variable genes kept [%(default)s]")
    args = parser.parse_args(arguments)
    try:
        adata = _cells(args.data, args.simulated)
        split = data.split(adata, seed=args.seed)
        adata = data.prepare(adata, n_top_genes=args.genes, fit_on=split[0])
        SplicedVAE.setup_anndata(adata)
        study = run(
            adata,
            split[:2],
            objective=args.objective,
            sampler=args.sampler,
            n_trials=args.trials,
            max_epochs=args.epochs,
            seed=args.seed,
            storage=args.storage,
            study_name=args.study,
            n_workers=args.workers,
        )
    except KeyboardInterrupt:
        sys.exit("Interrupted. What is done is kept; the same command goes on.")
    except (KeyError, OSError, RuntimeError, ValueError, OptunaError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    scores = table(study).loc[list(top(study)), ["rmse_observed", "d2", "elbo"]]
    print(f"\nThe best on validation cells; parameters are in the study {args.study!r}.")
    print(scores.round(4).to_string())


def _cells(path: str | None, simulated: bool) -> AnnData:
    if simulated:
        return data.simulate()
    if path:
        return data.read(path)
    cells = data.pancreas()
    if cells.uns["provenance"]["source"] == "simulated":
        raise ValueError(
            "There are no cells to search on: the pancreas could not be had. Name cells with "
            "--data, or ask for simulated ones with --simulated."
        )
    return cells


if __name__ == "__main__":
    main()

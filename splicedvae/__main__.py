"""``python -m splicedvae``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scvi
from anndata import AnnData
from tqdm import tqdm

from . import velocity
from .checkup import check
from .data import prepare
from .files import finish
from .model import SplicedVAE
from .readers import read
from .trust import calibration, trust

OTHERS = """more commands, each with --help:
  python -m splicedvae.search   search hyperparameters
  python -m splicedvae.atlas    from the metadata of an atlas to a model
  python -m splicedvae.census   models that were trained on CELLxGENE Census
  python -m splicedvae.velocity.peers   compare methods that give a velocity without the two counts
"""


def cells_of(args: argparse.Namespace) -> AnnData:
    """Read the cells, and leave out those with too few counts.

    Parameters
    ----------
    args
        With ``cells``, ``ambiguous`` and ``min_counts``.

    Returns
    -------
    Cells × genes.

    Raises
    ------
    ValueError
        No cell is left, or what :func:`splicedvae.data.read` refuses.
    """
    cells = read(args.cells, args.ambiguous)
    enough = np.asarray(cells.X.sum(axis=1)).ravel() >= args.min_counts
    if not enough.any():
        raise ValueError(
            f"No cell in {args.cells} has {args.min_counts} counts; lower --min-counts."
        )
    return cells if enough.all() else cells[enough].copy()


def check_cells(args: argparse.Namespace) -> int:
    """Look cells over; the exit code is 1 if something must be mended."""
    findings = check(cells_of(args), args.batch_key)
    print(findings)
    return int(findings.stops)


def train(args: argparse.Namespace) -> None:
    """Train a model on cells with spliced and unspliced counts."""
    target = free(args.output, args.overwrite, "model.pt")
    scvi.settings.seed = args.seed
    cells = prepare(cells_of(args), n_top_genes=args.genes)
    SplicedVAE.setup_anndata(cells, batch_key=args.batch_key)
    model = SplicedVAE(cells)
    try:
        model.train(args.epochs)
    except SystemExit as stop:  # how Lightning ends after Ctrl-C
        raise (stop.__context__ or stop) from None
    try:
        calibration(model)  # by which `predict` says how far to believe it
    except (RuntimeError, ValueError) as error:  # such as few cells
        print(f"predict will not know how far to believe this model. {error}")
    finish(target, model.save)


def predict(args: argparse.Namespace) -> None:
    """Part the counts of other cells into spliced and unspliced, and say whether to believe it."""
    if args.output.suffix != ".h5ad":
        raise ValueError(f"{args.output} must end in .h5ad.")
    target = free(args.output, args.overwrite)
    steps = ["reading", "matching genes", "predicting", "trust"]
    steps += ["graph", "velocity"] * args.velocity
    with tqdm(total=len(steps) + 1) as bar:

        def step(name: str) -> None:
            bar.update(bar.desc != "")
            bar.set_description(name)

        step("reading")
        cells = cells_of(args)
        step("matching genes")
        cells = SplicedVAE.prepare_query_anndata(cells, str(args.model), min_shared=args.min_shared)
        step("predicting")
        model = SplicedVAE.load(
            str(args.model), False
        )  # its batches need not be those of the cells
        counts = "denoised" if model.input == "spliced" else "observed"  # see impute_layers
        model.impute_layers(cells, counts=counts, transform_batch=args.batch, overwrite=True)
        step("trust")
        if model.trust_ is None:
            bar.write(f"How far to believe {args.model} is not known: it was saved without that.")
        else:
            try:
                found = trust(cells, model)
            except ValueError as error:  # such as one cell
                bar.write(f"How far to believe this is not known. {error}")
            else:
                cells.uns["splicedvae_trust"] = {"verdict": found.verdict, "reasons": found.reasons}
                bar.write(f"verdict: {found}")
        if args.velocity:
            step("graph")
            velocity.embed(cells, model.registry_["setup_args"]["layer"], overwrite=True)
            step("velocity")
            names = "spliced_splicedvae", "unspliced_splicedvae"
            velocity.fit(cells, *names, concentration="concentration_splicedvae")
        step("writing")
        finish(target, cells.write_h5ad)
        bar.update()


def free(target: Path, overwrite: bool, holds: str | None = None) -> Path:
    """Refuse, before the work is done, a place where its result can't be written.

    Parameters
    ----------
    target
        The file or folder to write.
    overwrite
        Whether it may be there already.
    holds
        Of a folder that may be replaced, a file that must be in it; None if a file is written.

    Returns
    -------
    The whole path.

    Raises
    ------
    FileExistsError
        It is there, or is something else than what would be written.
    FileNotFoundError
        The folder that it is to be in is not there.
    """
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists; give --overwrite, or another name.")
    target = target.resolve()
    if target.exists() and (target.is_dir() if holds is None else not (target / holds).is_file()):
        kind = "a folder" if holds is None else f"no folder with a {holds}"
        raise FileExistsError(f"{target} is {kind}, and is not overwritten; give another name.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {target.parent} to write to.")
    return target


def parser() -> argparse.ArgumentParser:
    """Describe the command line.

    Returns
    -------
    What parses it; ``step`` of the result is the function to call with the result.
    """
    parser = argparse.ArgumentParser(
        prog="python -m splicedvae",
        description="Splicing ratios and velocity from total counts.",
        epilog=OTHERS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(metavar="COMMAND")
    adds = []
    for name, step in (("check", check_cells), ("train", train), ("predict", predict)):
        sub = steps.add_parser(name, help=step.__doc__, description=step.__doc__)
        sub.set_defaults(step=step)
        if step is predict:
            sub.add_argument("model", metavar="MODEL", type=Path, help="folder of a saved model")
        sub.add_argument("cells", metavar="CELLS", help="what splicedvae.data.read can read")
        sub.add_argument(
            "--ambiguous",
            choices=("spliced", "split", "drop"),
            default="spliced",
            help="what becomes of ambiguous counts [%(default)s]",
        )
        sub.add_argument(
            "--min-counts",
            type=int,
            default=0,
            help="leave out cells with fewer counts, such as empty droplets [%(default)s]",
        )
        adds.append(sub.add_argument)
    of_check, of_train, of_predict = adds
    for add in (of_check, of_train):
        add("--batch-key", help="column of obs with the batches")
    of_train("-o", "--output", metavar="MODEL", type=Path, required=True, help="folder to write")
    of_train("--epochs", type=int, default=150, help="[%(default)s]")
    of_train("--genes", type=int, help="keep only so many highly variable genes")
    of_train(
        "--seed", type=int, default=0, help="seed of weights and validation cells [%(default)s]"
    )
    of_predict("-o", "--output", metavar="OUT.h5ad", type=Path, required=True, help="file to write")
    of_predict("--batch", help="predict as for this batch [a cell's own; if new, over all known]")
    of_predict(
        "--min-shared",
        type=float,
        default=0.2,
        help="share of the model's genes that must be there [%(default)s]",
    )
    of_predict("--velocity", action="store_true", help="also neighbour graph, UMAP and velocity")
    for add in (of_train, of_predict):
        add("--overwrite", action="store_true", help="replace what is there")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Work from the command line, see ``python -m splicedvae --help``.

    Parameters
    ----------
    arguments
        Arguments of the command line; None takes those of the process.

    Returns
    -------
    The exit code: 0, or 1 if :func:`check_cells` has found what must be mended.

    Raises
    ------
    SystemExit
        With one line on what is wrong (exit code 1), or on how to call it (2).
    """
    args = (described := parser()).parse_args(arguments)
    if "step" not in args:
        described.print_help()
        return 0
    try:
        return args.step(args) or 0
    except KeyboardInterrupt:
        sys.exit("Interrupted. Nothing was written.")
    except (ImportError, KeyError, OSError, RuntimeError, ValueError) as error:
        # the message alone: str() of a KeyError is in quotation marks
        text = error.args[0] if isinstance(error, KeyError) else error
        sys.exit(f"{type(error).__name__}: {' '.join(str(text).split())}")


if __name__ == "__main__":
    sys.exit(main())

"""``python -m splicedvae.velocity.peers``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ...readers import read
from .table import METHODS, SCORES, compare


def main(arguments: Sequence[str] | None = None) -> None:
    """Print and write the table, see ``python -m splicedvae.velocity.peers --help``.

    Parameters
    ----------
    arguments
        Of the command line; None takes those of the process.

    Raises
    ------
    SystemExit
        With what is wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m splicedvae.velocity.peers",
        description="Compare methods that claim a velocity without spliced and unspliced counts. "
        "The cells must have both: 30 % of them are stripped, and their true counts are the truth.",
    )
    add = parser.add_argument
    add("cells", metavar="CELLS", help="what splicedvae.data.read can read")
    add("-o", "--output", type=Path, help="file to write: .csv or .json")
    add("--clusters", default="clusters", help="column of obs with the clusters [%(default)s]")
    add("--root", help="cluster where development begins; some methods must be told")
    add("--edge", action="append", default=[], metavar="A:B", help="B comes from A; for CBDir")
    add("--truth", help="layer with the known velocity of simulated cells")
    add("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    add("--protocol", choices=("query", "pooled"), default="query", help="[%(default)s]")
    add("--genes", type=int, default=2000, help="highly variable genes kept [%(default)s]")
    add("--epochs", type=int, default=150, help="of methods that train a VAE [%(default)s]")
    add("--seed", type=int, default=0, help="of the split and all else [%(default)s]")
    args = parser.parse_args(arguments)
    try:
        if args.output and args.output.suffix not in (".csv", ".json"):
            raise ValueError(f"{args.output} must end in .csv or .json.")
        edges = [tuple(edge.split(":")) for edge in args.edge]
        if wrong := [edge for edge in edges if len(edge) != 2]:
            raise ValueError(f"--edge {':'.join(wrong[0])} must be two clusters, A:B.")
        table = compare(
            read(args.cells),
            args.root,
            edges,
            args.clusters,
            args.truth,
            {name: METHODS[name] for name in args.methods},
            args.protocol,
            args.genes,
            args.epochs,
            args.seed,
        )
        if args.output and args.output.suffix == ".csv":
            table.to_csv(args.output)
        elif args.output:
            table.to_json(args.output, orient="index", indent=1, force_ascii=False)
    except KeyboardInterrupt:
        sys.exit("Interrupted. Nothing was written.")
    except (KeyError, OSError, ValueError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        sys.exit(f"{type(error).__name__}: {text}")
    shown = [name for name in (*SCORES, "minutes") if name in table]
    print(table[shown].astype(float).round(3).to_string(na_rep="–"))
    for name, note in table["note"].items():
        if note:
            print(f"{name}: {note}")


if __name__ == "__main__":
    main()

"""``python -m splicedvae.census``."""

import argparse
import sys
from collections.abc import Sequence

import anndata
import pooch

from .checkpoints import DEFAULT_RELEASE, fetch, read, releases
from .genes import ensembl_ids, overlap, symbols


def main(arguments: Sequence[str] | None = None) -> None:
    """List, fetch and check checkpoints, see ``python -m splicedvae.census --help``.

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
        prog="python -m splicedvae.census",
        description="scVI models that were trained on CELLxGENE Census.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="show what there is")
    fetching = commands.add_parser("fetch", help="download a checkpoint, once")
    fetching.add_argument("organism", help="homo_sapiens or mus_musculus")
    fetching.add_argument("--release", default=DEFAULT_RELEASE, help="[%(default)s]")
    for command in (listing, fetching):
        command.add_argument("--cache", help="folder of the downloads [the user's cache]")
    checking = commands.add_parser("check", help="read a checkpoint safely and describe it")
    checking.add_argument("path", help="model.pt, or its folder")
    checking.add_argument("--data", help="h5ad file whose genes are compared")
    args = parser.parse_args(arguments)
    try:
        if args.command == "list":
            print(releases(cache_dir=args.cache).to_string(index=False))
        elif args.command == "fetch":
            print(fetch(args.organism, args.release, cache_dir=args.cache))
        else:
            _check(args.path, args.data)
    except KeyboardInterrupt:
        sys.exit("Interrupted. A download that is not whole is not kept.")
    except (KeyError, OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def _check(path: str, data: str | None) -> None:
    checkpoint = read(path)
    told = {
        "file": checkpoint.path,
        "sha256": pooch.file_hash(str(checkpoint.path)),
        "organism": checkpoint.organism or "unknown",
        "genes": f"{len(checkpoint.genes)} ({', '.join(checkpoint.genes[:3])}, …)",
        "batches": checkpoint.n_batch,
        "scvi-tools": checkpoint.scvi_version or "unknown",
        **checkpoint.architecture,
    }
    for name, value in told.items():
        print(f"{name:<25} {value}")
    if data:
        cells = anndata.read_h5ad(data)
        try:
            ids = ensembl_ids(cells)
        except ValueError:  # the cells' genes are called by their symbols
            ids = symbols(checkpoint.organism)
        print(f"\n{overlap(cells, checkpoint.genes, ids).table.to_string()}")


if __name__ == "__main__":
    main()

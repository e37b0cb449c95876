"""Which cells of an atlas a corpus takes, so that large tissues do not drown small ones."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from .catalogue import _listed
from .tissues import MULTIPLE, UNMAPPED

logger = logging.getLogger(__name__)


def deal(n: int, capacity: np.ndarray, weights: np.ndarray) -> np.ndarray:
    r"""Deal n cells out by weighted round robin to takers of which each holds only so many.

    The turn of taker i for its k-th cell is at :math:`(k - \tfrac12) / w_i`, and the n first turns
    are taken; of turns at the same time, that of the earlier taker. So the shares are as near to
    the weights as whole cells allow (Sainte-Laguë), what a full taker leaves goes to the others by
    their weights, with equal weights each has one in turn, and n + 1 cells are the n and one more.

    Parameters
    ----------
    n
        Cells, no more than the capacities hold.
    capacity
        Cells that each taker holds.
    weights
        Of the takers, positive.

    Returns
    -------
    Cells of each taker, which sum to n.
    """

    def taken(time: float) -> np.ndarray:
        return np.minimum(capacity, np.floor(weights * time + 0.5)).astype(np.int64)

    early, late = 0.0, (capacity.max() + 1) / weights.min()
    while late - early > 1e-13 * late:
        middle = (early + late) / 2
        early, late = (middle, late) if taken(middle).sum() <= n else (early, middle)
    # a little before the last turn, where rounding can't yet have taken it; then at most one each
    given = taken(early * (1 - 1e-12))
    turns = np.where(given < capacity, (given + 0.5) / weights, np.inf)
    given[np.argsort(turns, kind="stable")[: n - given.sum()]] += 1
    return given


def _seed(seed: int, name: str) -> int:
    """32 bits from a seed and a name, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=4).digest())


def _groups(table: pd.DataFrame, by: str) -> pd.Series:
    if by not in table:
        raise KeyError(f"There is no column {by!r} among {', '.join(table)}.")
    return table[by].astype(object).fillna(UNMAPPED).astype(str)


def sampling_plan(
    samples: pd.DataFrame,
    n_cells: int,
    alpha: float = 0.5,
    seed: int = 0,
    max_per_sample: int | None = None,
    by: str = "tissue",
    exclude: str | Sequence[str] = (UNMAPPED, MULTIPLE),
) -> pd.DataFrame:
    r"""Plan a corpus: how many cells of which sample.

    Cells are dealt out to tissues by weighted round robin, see :func:`deal`, so that a tissue t of
    :math:`N_t` cells gets, while it has any left, a share

    .. math:: \frac{N_t^\alpha}{\sum_{t'} N_{t'}^\alpha}

    of them, and within a tissue to its samples in turn, one each. A tissue or sample that runs out
    leaves its turns to the others. With the same seed, a larger plan takes the same cells and more.

    Parameters
    ----------
    samples
        Of a :class:`splicedvae.atlas.catalogue.Catalogue`: indexed by accession, with n_cells and
        the column `by`.
    n_cells
        To take in all.
    alpha
        From 0, as many cells of each tissue, to 1, as many as are its share.
    seed
        Of the order in which samples have their turn, and of each sample's own seed.
    max_per_sample
        Cells that are taken of a sample at most.
    by
        Column of what is to be balanced; where it is empty, ``"unmapped"``.
    exclude
        Values of `by` that are left out; the log counts them.

    Returns
    -------
    The samples that are asked for cells, in the order given, with n_take and seed, the sample's
    own: :func:`order` makes of it the order in which its cells are taken.

    Raises
    ------
    KeyError
        A column is missing.
    ValueError
        `alpha` or a number of cells is out of range, there are fewer cells than asked for, or
        an accession comes twice.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha} must be from 0 to 1.")
    for name, n in (("n_cells", n_cells), ("max_per_sample", max_per_sample)):
        if n is not None and (not n >= 1 or n % 1):
            raise ValueError(f"{name}={n} must be a whole number from 1 on.")
    if not samples.index.is_unique:
        raise ValueError(f"Sample {samples.index[samples.index.duplicated()][0]} comes twice.")
    own = np.array([_seed(seed, name) for name in samples.index], dtype=np.uint32)
    most = samples["n_cells"].clip(upper=max_per_sample)
    table = samples[["n_cells"]].assign(most=most, stratum=_groups(samples, by), seed=own)
    exclude = _listed(exclude)
    out = table["stratum"].isin(exclude) | ~(table["n_cells"] > 0)
    if out.any():
        told = (out.sum(), table["n_cells"][out].sum(), " or ".join(exclude))
        logger.info("Left out %d samples with %d cells: they have none, or are %s.", *told)
    table = table[~out].rename_axis("name").sort_values(["seed", "name"])
    if n_cells > table["most"].sum():
        there = f"there are {int(table['most'].sum()):,} that may be taken"
        raise ValueError(f"{n_cells:,} cells are asked for, but {there}; ask for fewer.")
    strata = table.groupby("stratum")
    held = strata[["n_cells", "most"]].sum().to_numpy(float)
    quotas = deal(int(n_cells), held[:, 1], held[:, 0] ** alpha)
    take = pd.Series(0, samples.index)
    for (_, rows), quota in zip(strata["most"], quotas, strict=True):
        take[rows.index] = deal(quota, rows.to_numpy(), np.ones(len(rows)))
    return samples.assign(n_take=take, seed=own)[take > 0]


def order(seed: int, n_cells: int) -> np.ndarray:
    """Give the order in which cells of a sample are taken.

    Parameters
    ----------
    seed
        The sample's own, from the plan.
    n_cells
        Of the sample.

    Returns
    -------
    The positions of its cells, shuffled.
    """
    return np.random.default_rng(seed).permutation(n_cells)


def balance(samples: pd.DataFrame, plan: pd.DataFrame, by: str = "tissue") -> pd.DataFrame:
    """Compare what there is with what a plan takes.

    Parameters
    ----------
    samples, plan
        As given to and by :func:`sampling_plan`.
    by
        Column to compare by.

    Returns
    -------
    A row for each value of `by`, the largest first: cells, samples and share (of all cells),
    before and after.

    Raises
    ------
    KeyError
        A column is missing.
    """
    sides = []
    for side, cells in (("before", samples["n_cells"]), ("after", plan["n_take"])):
        groups = cells.groupby(_groups(samples.loc[cells.index], by))
        table = groups.agg(cells="sum", samples="size")
        sides.append(table.assign(share=table["cells"] / cells.sum()).add_suffix(f"_{side}"))
    table = pd.concat(sides, axis=1).fillna(0)
    table = table.astype({"cells_after": int, "samples_after": int})
    return table.sort_values("cells_before", ascending=False, kind="stable")


def _draw(groups: pd.Series, cells: pd.Series, room: float, seed: int, part: str) -> list[str]:
    """Draw groups at random, each if its cells still fit."""
    sizes = cells.groupby(groups).sum()
    drawn, least = [], f"{room:,.0f} cells, and the smallest {groups.name} has {sizes.min():,}"
    for name in sorted(sizes.index, key=lambda name: _seed(seed, f"{part} {name}")):
        if sizes[name] <= room:
            drawn.append(name)
            room -= sizes[name]
    if not drawn:
        raise ValueError(f"{part} has room for {least}; raise {part}, or take in more samples.")
    return drawn


def split(
    plan: pd.DataFrame,
    by: str = "dataset",
    test: float | str | Sequence[str] = 0.1,
    val: float = 0.1,
    seed: int = 0,
) -> pd.DataFrame:
    """Divide the samples of a plan into train, val and test, by whole groups.

    Cells of a dataset share donors, laboratory and protocol: to learn how a model fares with new
    ones, whole datasets have to stay unseen; or whole tissues, or species.

    Parameters
    ----------
    plan
        Of :func:`sampling_plan`.
    by
        Column of whose values each goes to test as a whole or not at all.
    test
        Share of the cells, of which drawn groups take no more; or the groups' names.
    val
        Share of the cells, for which whole datasets are drawn from what is not test.
    seed
        Of the draw.

    Returns
    -------
    The plan with the column part.

    Raises
    ------
    KeyError
        There is no such column, or no such group as is named.
    ValueError
        A share is not between 0 and 1, or a part would be empty.
    """
    shares = {"val": val, "test": test} if isinstance(test, float | int) else {"val": val}
    if min(shares.values()) <= 0 or sum(shares.values()) >= 1:
        raise ValueError(f"{shares} must be positive shares that leave some cells to train.")
    cells, groups = plan["n_take"], _groups(plan, by)
    if "test" in shares:
        named = _draw(groups, cells, test * cells.sum(), seed, "test")
    else:
        named = _listed(test)
    if strangers := set(named) - set(groups):
        raise KeyError(f"The plan has no {by} {', '.join(sorted(strangers))}.")
    held, datasets = groups.isin(named), _groups(plan, "dataset")
    if held.all():
        raise ValueError(f"Every {by} is in test; leave some to train.")
    drawn = _draw(datasets[~held], cells[~held], val * cells.sum(), seed, "val")
    part = np.select([held, datasets.isin(drawn)], ["test", "val"], "train").astype(object)
    if empty := {"train", "val", "test"} - set(part):
        raise ValueError(f"No sample is left for {', '.join(empty)}; lower test and val.")
    return plan.assign(part=part)


def one_to_one(pairs: pd.DataFrame) -> pd.DataFrame:
    """Reduce orthologues to those that are one gene in each organism.

    Parameters
    ----------
    pairs
        A column of gene ids for each organism, a row for each pair (or more) of orthologues, such
        as a download from Ensembl BioMart.

    Returns
    -------
    The rows whose ids, without versions, occur in no other, indexed by the ids of the first
    organism; the log counts those dropped.

    Raises
    ------
    ValueError
        None is left.
    """
    ids = pairs.replace({r"^(ENS\w+)\.\d+$": r"\1", r"^\s*$": np.nan}, regex=True)
    ids = ids.dropna().drop_duplicates()
    table = ids[~ids.apply(lambda column: column.duplicated(keep=False)).any(axis=1)]
    logger.info("%d of %d pairs are one-to-one; the others are dropped.", len(table), len(pairs))
    if table.empty:
        raise ValueError(f"None of {len(pairs)} pairs is one-to-one; were other columns left in?")
    return table.set_index(table.iloc[:, 0].rename("gene"))

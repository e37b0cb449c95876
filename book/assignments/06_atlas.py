# %% [markdown]
# # Assignment 6: Ten million cells, fairly dealt
#
# Before an atlas reaches a model, somebody has to decide whose cells are taken, who stays unseen,
# who reads what, and who pays. Each of these is a small function, and each has a way to go wrong
# that no error message reports: a tissue too many, a laboratory on both sides, a cell that nobody
# reads. In this assignment you write six such functions, as chapter 6 uses them. There is no atlas
# to fetch: **tissues, datasets and seconds are simulated**, the same for everybody.
#
# Put your answers where `...` stands, keep the names as they are, and run `grader.check` after
# each. It runs the visible tests. Hidden ones, on other numbers, decide about the other half of the
# points. No answer needs another one.

# %%
import numpy as np

# %% [raw]
# # BEGIN QUESTION
# name: q1
# points: [1, 1]

# %% [markdown]
# ## Question 1: Turns for the small
#
# A few large tissues, such as blood and brain, can make up most of an atlas. A model that sees
# cells in these proportions learns blood and brain; one that sees every tissue equally often learns
# the same few thousand cells of a rare tissue by heart. The compromise is a power: a tissue with
# $N$ cells gets turns in proportion to $N^\alpha$, with $\alpha$ from 0 (all alike) to 1 (as they
# are).
#
# Write `turn_shares(n_cells, alpha)`: the share of the turns of each tissue, which sum to 1. A
# tissue of which there is no cell gets none, whatever $\alpha$.

# %% [raw]
# # BEGIN SOLUTION


# %%
def turn_shares(n_cells, alpha):
    """Shares (tissues,) of the turns, in proportion to n_cells (tissues,) to the power alpha."""
    # BEGIN SOLUTION
    n_cells = np.asarray(n_cells, dtype=float)
    weights = np.where(n_cells > 0, n_cells**alpha, 0)
    return weights / weights.sum()
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q1_two_tissues(env):
    import numpy as np

    from splicedvae_book import grading

    hint = "With a million and ten thousand cells and α = 0.5 the turns are as 1000 to 100."
    found = grading.call(env, "turn_shares", np.array([1_000_000, 10_000]), 0.5, shape=(2,))
    grading.agree("turn_shares", found, [10 / 11, 1 / 11], hint)


# %%
# HIDDEN
def q1_any_tissues(env):
    import numpy as np
    import pandas as pd

    from splicedvae.atlas import sampling_plan
    from splicedvae_book import grading

    n_cells = np.array([40, 0, 250, 10, 0])
    hint = "Try α = 0, 0.5 and 1, also where a tissue has no cell at all."
    for alpha in (0, 0.5, 1):
        expected = np.array([n**alpha if n else 0 for n in n_cells.tolist()])
        expected = expected / expected.sum()
        found = grading.call(env, "turn_shares", n_cells, alpha, shape=(5,))
        grading.agree("turn_shares", found, expected, hint)

    rng = np.random.default_rng(61)
    n_cells = rng.lognormal(11, 1.5, 12).astype(int)
    index = pd.Index([f"SRX{i}" for i in range(12)])
    tissues = [f"tissue {i}" for i in range(12)]
    samples = pd.DataFrame({"n_cells": n_cells, "tissue": tissues}, index=index)
    plan = sampling_plan(samples, 2000, alpha=0.3)
    expected = plan["n_take"].reindex(index).to_numpy() / 2000
    found = grading.call(env, "turn_shares", n_cells, 0.3, shape=(12,))
    hint = "A plan of 2,000 cells by `sv.atlas.sampling_plan` has other shares."
    grading.agree("turn_shares", found, expected, hint, 1e-3)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q2
# points: [1, 1]

# %% [markdown]
# ## Question 2: Deal them out
#
# Shares are not yet cells: cells are whole, a plan has to have exactly as many as were ordered, and
# a small tissue runs out. Weighted round robin settles all three at once. Imagine a clock. Taker
# $i$, with weight $w_i$, is served its first cell at the time $\frac{1}{2}/w_i$, its second at
# $\frac{3}{2}/w_i$, its $k$-th at $(k - \frac{1}{2})/w_i$, until it has no room for more. The first
# $n$ servings are the plan; of two at the same time, that of the earlier taker comes first.
#
# Write `deal(n, capacity, weights)`: the number of cells of each taker. `capacity` holds how many
# each has at most; together it is at least $n$. Weights are positive. ($n$ is a few hundred here,
# so you may serve one cell after another.)

# %% [raw]
# # BEGIN SOLUTION


# %%
def deal(n, capacity, weights):
    """Cells (takers,) that sum to n, none above its capacity (takers,), by weights (takers,)."""
    # BEGIN SOLUTION
    given = np.zeros(len(capacity), dtype=int)
    for _ in range(n):
        turn = np.where(given < capacity, (given + 0.5) / weights, np.inf)
        given[np.argmin(turn)] += 1
    return given
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q2_room_for_all(env):
    import numpy as np

    from splicedvae_book import grading

    hint = "Ten cells for three takers of equal weight are 4, 3 and 3; for weights 1, 2 and 2, they are 2, 4 and 4."
    for weights, expected in (([1.0, 1.0, 1.0], [4, 3, 3]), ([1.0, 2.0, 2.0], [2, 4, 4])):
        found = grading.call(env, "deal", 10, np.array([50, 50, 50]), np.array(weights), shape=(3,))
        grading.agree("deal", found, expected, hint)


# %%
# HIDDEN
def q2_as_the_package_deals(env):
    import numpy as np

    from splicedvae.atlas.sampling import deal
    from splicedvae_book import grading

    rng = np.random.default_rng(62)
    hint = "Somebody may run out. The others then take the turns, and the sum is n all the same."
    for _ in range(20):
        capacity, weights = rng.integers(1, 60, 6), rng.lognormal(0, 1, 6)
        n = int(rng.integers(capacity.sum() + 1))
        expected = deal(n, capacity, weights)
        found = grading.call(env, "deal", n, capacity, weights, shape=(6,))
        grading.agree("deal", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q3
# points: [1, 1]

# %% [markdown]
# ## Question 3: Who stays unseen
#
# Cells of one dataset share donors, a laboratory and a Tuesday afternoon. If some of them are
# trained on, the others are no test of what the model knows about *new* data. So a dataset goes to
# the test cells as a whole or not at all. But how large a test set is counts in cells.
#
# Write `held_out(dataset, n_cells, share, rng)`: for each sample, whether it is held out. `dataset`
# (samples,) names the dataset of each sample, `n_cells` (samples,) its cells. Go through the
# datasets in an order that is drawn from the generator `rng`, and hold out each whose cells still
# fit: together, no more than `share` of all cells. One that does not fit is passed over, and the
# next may fit.

# %% [raw]
# # BEGIN SOLUTION


# %%
def held_out(dataset, n_cells, share, rng):
    """Booleans (samples,): True for the samples of datasets that are held out."""
    # BEGIN SOLUTION
    room, out = share * n_cells.sum(), np.zeros(len(dataset), dtype=bool)
    for name in rng.permutation(np.unique(dataset)):
        size = n_cells[dataset == name].sum()
        if size <= room:
            out[dataset == name] = True
            room -= size
    return out
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q3_datasets_stay_whole(env):
    import numpy as np

    from splicedvae_book import grading

    rng = np.random.default_rng(5)
    dataset, n_cells = np.repeat(list("ABCDEFGH"), 5), rng.integers(50, 150, 40)
    n_cells[:10] *= 6
    for seed in range(5):
        out = grading.call(
            env, "held_out", dataset, n_cells, 0.3, np.random.default_rng(seed), shape=(40,)
        )
        whole = [len(set(out[dataset == name])) == 1 for name in "ABCDEFGH"]
        hint = "A dataset should be held out as a whole or not at all."
        grading.agree("held_out", whole, np.ones(8), hint)
        hint = "The share is one of cells, and no more than that may be held out."
        grading.agree("held_out", n_cells @ out <= 0.3 * n_cells.sum(), True, hint)


# %%
# HIDDEN
def q3_any_datasets(env):
    import numpy as np

    from splicedvae_book import grading

    dataset = np.repeat(list("VWXYZ"), 4)
    n_cells = np.repeat([900, 40, 35, 30, 50], 4)
    for seed in range(5):
        out = grading.call(
            env, "held_out", dataset, n_cells, 0.1, np.random.default_rng(seed), shape=(20,)
        )
        room = 0.1 * n_cells.sum() - n_cells @ out
        left = [n_cells[dataset == name].sum() for name in "WXYZ" if not out[dataset == name].any()]
        hint = "When a large dataset does not fit, a smaller one may: here one more would have."
        grading.agree("held_out", min(left, default=0) > room, True, hint)

    dataset, n_cells = np.arange(30), np.full(30, 10)
    drawn = [
        grading.call(
            env, "held_out", dataset, n_cells, 0.5, np.random.default_rng(seed), shape=(30,)
        )
        for seed in (63, 64, 63)
    ]
    hint = "Two generators hold out the same datasets, although any half of them would fit."
    grading.agree("held_out", np.array_equal(drawn[0], drawn[1]), False, hint)
    hint = "The same generator should hold out the same datasets; take all chance from `rng`."
    grading.agree("held_out", np.array_equal(drawn[0], drawn[2]), True, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q4
# points: [1, 1]

# %% [markdown]
# ## Question 4: Who reads what
#
# On four devices, four processes run the same programme; each knows its *rank*, 0 to 3, and the
# size of the *world*, 4. They do not talk about cells. Still, in an epoch every cell must be read
# once, by one of them: a cell that two of them read counts twice in the gradient, and nobody ever
# notices. The trick is that all shuffle *alike*, from a seed that they share, and each takes its
# own part.
#
# Write `my_cells(n_cells, rank, world, epoch, seed)`: the cells that this rank reads in this epoch,
# in its order. Cells are numbered from 0. Together the ranks read every cell once. Sizes differ by
# one at most; the first ranks have one more, should the division not come out even. No two pairs of
# `seed` and `epoch` have the same order. Use `np.random.default_rng`, to which you may give a list
# of numbers as well as one.

# %% [raw]
# # BEGIN SOLUTION


# %%
def my_cells(n_cells, rank, world, epoch, seed):
    """Numbers of the cells (part of the cells,) that a rank reads in an epoch."""
    # BEGIN SOLUTION
    order = np.random.default_rng([seed, epoch]).permutation(n_cells)
    return order[rank::world]
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q4_three_ranks_and_twelve_cells(env):
    import numpy as np

    from splicedvae_book import grading

    parts = [grading.call(env, "my_cells", 12, rank, 3, 0, 1, shape=(4,)) for rank in range(3)]
    hint = "Together, three ranks should read each of the cells 0 to 11 once."
    grading.agree("my_cells", np.sort(np.concatenate(parts)), np.arange(12), hint)
    whole = grading.call(env, "my_cells", 50, 0, 1, 0, 1, shape=(50,))
    hint = "A rank that is alone should read all cells, but not in their order on the disk."
    grading.agree("my_cells", np.array_equal(whole, np.arange(50)), False, hint)


# %%
# HIDDEN
def q4_any_world(env):
    import numpy as np

    from splicedvae_book import grading

    hint = "When the cells can't be parted evenly, none may be lost, and the first ranks have one more."
    for n_cells, world in ((14, 4), (103, 8), (5, 5), (29, 7)):
        sizes = [len(part) for part in np.array_split(np.arange(n_cells), world)]
        parts = [
            grading.call(env, "my_cells", n_cells, rank, world, 2, 65, shape=(size,))
            for rank, size in enumerate(sizes)
        ]
        grading.agree("my_cells", np.sort(np.concatenate(parts)), np.arange(n_cells), hint)

    orders = [
        tuple(grading.call(env, "my_cells", 60, 1, 2, epoch, seed, shape=(30,)))
        for epoch, seed in ((0, 66), (1, 66), (0, 67))
    ]
    hint = "Another pair of seed and epoch should give another order: here are (66, 0), (66, 1), (67, 0)."
    grading.agree("my_cells", len(set(orders)), 3, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q5
# points: [1, 1]

# %% [markdown]
# ## Question 5: Is it mixed?
#
# Reading cells one by one in random order is fair and takes for ever; reading them as they lie
# gives minibatches of one tissue, and a gradient that swings from tissue to tissue. In between one
# would like to *measure* how mixed the minibatches are. The entropy of the tissues in a minibatch,
# $-\sum_t q_t \log q_t$ with the natural logarithm and the share $q_t$ of tissue $t$, is 0 if the
# cells are all of one tissue and $\log 2$ if there are two in equal parts.
#
# Write `mean_entropy(tissue, batch_size)`: the mean entropy of minibatches. `tissue` (cells,) holds
# the tissue of each cell, as a number, in the order in which the cells come; they are cut into
# minibatches of `batch_size`. The last one may be shorter; its shares are of its own cells, and it
# counts like any other.

# %% [raw]
# # BEGIN SOLUTION


# %%
def mean_entropy(tissue, batch_size):
    """Mean over minibatches of the entropy of their tissues, in nats; a number."""
    # BEGIN SOLUTION
    entropies = []
    for first in range(0, len(tissue), batch_size):
        batch = tissue[first : first + batch_size]
        shares = np.unique(batch, return_counts=True)[1] / len(batch)
        entropies.append(-np.sum(shares * np.log(shares)))
    return np.mean(entropies)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q5_two_tissues_in_two_orders(env):
    import numpy as np

    from splicedvae_book import grading

    sorted_, mixed = np.repeat([0, 1], 8), np.tile([0, 1], 8)
    for order, expected in ((sorted_, 0), (mixed, np.log(2))):
        found = grading.call(env, "mean_entropy", order, 4)
        hint = "Minibatches of one tissue have the entropy 0, those of two in equal parts log 2 = 0.693."
        grading.agree("mean_entropy", found, expected, hint)


# %%
# HIDDEN
def q5_any_order(env):
    import numpy as np
    from scipy.stats import entropy

    from splicedvae.atlas.blocks import BlockSampler
    from splicedvae_book import grading

    tissue = np.random.default_rng(68).choice(5, size=103, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    for batch_size in (8, 20, 200):
        cuts = np.arange(batch_size, 103, batch_size)
        expected = np.mean([entropy(np.bincount(part)) for part in np.split(tissue, cuts)])
        found = grading.call(env, "mean_entropy", tissue, batch_size)
        hint = "103 cells do not divide evenly; how many cells has the last minibatch?"
        grading.agree("mean_entropy", found, expected, hint)

    tissue = np.sort(np.random.default_rng(69).choice(4, size=1024))
    for preload in (1, 4, 16):
        sampler = BlockSampler(np.arange(1024), batch_size=32, block=32, preload=preload)
        batches = [r["requests"][s] for r in sampler.sample() for s in r["splits"]]
        expected = np.mean([entropy(np.bincount(tissue[batch])) for batch in batches])
        found = grading.call(env, "mean_entropy", tissue[np.concatenate(batches)], 32)
        hint = "The minibatches of the package's own stream have another entropy."
        grading.agree("mean_entropy", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q6
# points: [1, 1]

# %% [markdown]
# ## Question 6: What will it cost?
#
# Before a cluster is booked, somebody wants a number for a size that nobody has run. A straight
# line through runs that were made can give one: so many seconds to start, so many per cell. But a
# line can be drawn through anything, so it must first foretell something that is *known*. Keep the
# largest run back, fit the line to the others, and see how far off it is there. If it is far off at
# three times the size, do not ask it about three hundred times.
#
# Write `foretell(cells, seconds, n)`, which returns two numbers: the seconds that the line
# foretells for `n` cells, and its relative error at the largest run, foretold / measured - 1.
# `cells` and `seconds` (runs,) are in any order; the line is the least-squares line, with an
# intercept, through all runs but the one with most cells.

# %% [raw]
# # BEGIN SOLUTION


# %%
def foretell(cells, seconds, n):
    """Seconds foretold for n cells, and the relative error at the largest run; array (2,)."""
    # BEGIN SOLUTION
    largest = np.argmax(cells)
    slope, start = np.polyfit(np.delete(cells, largest), np.delete(seconds, largest), 1)
    error = (start + slope * cells[largest]) / seconds[largest] - 1
    return np.array([start + slope * n, error])
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q6_thirty_seconds_to_start(env):
    import numpy as np

    from splicedvae_book import grading

    cells = np.array([10_000, 100_000, 1_000_000])
    found = grading.call(env, "foretell", cells, 30 + cells / 2000, 10_000_000, shape=(2,))
    hint = "Runs that take 30 s and 1 s for every 2,000 cells lie on a line, which is right at the largest run too."
    grading.agree("foretell", found, [5030, 0], hint, 1e-4)


# %%
# HIDDEN
def q6_as_the_book_extrapolates(env):
    import numpy as np
    import pandas as pd

    from splicedvae_book import grading
    from splicedvae_book.stages.scale import cost_model

    rng = np.random.default_rng(70)
    hint = "Which run is kept back, and is it truly kept back? The runs come in any order."
    for _ in range(5):
        cells = rng.permutation([1_000.0, 5_000.0, 20_000.0, 80_000.0])
        seconds = 12 + cells**1.1 / 300 * rng.uniform(0.8, 1.2, 4)
        rows = pd.DataFrame({"cells": cells, "run_s": seconds})
        line = cost_model(rows, [1e6, 80_000])["run_s"].to_numpy()
        expected = line[0], line[1] / seconds[np.argmax(cells)] - 1
        found = grading.call(env, "foretell", cells, seconds, 1e6, shape=(2,))
        grading.agree("foretell", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [markdown]
# # Assignment 7: Two ways, and how sure
#
# An arrow says where a cell goes if there is one way. In this assignment you take the step from
# arrows to distributions: you score draws of a future, ask whether told probabilities come true,
# pair the cells of two days, and let cells walk with noise. **All numbers are simulated**, the same
# for everybody.
#
# Put your answers where `...` stands, keep the names as they are, and run `grader.check` after
# each. It runs the visible tests. Hidden ones, on other numbers, decide about the other half of the
# points. No answer needs another one.

# %%
import numpy as np
from scipy.optimize import linear_sum_assignment

# %% [raw]
# # BEGIN QUESTION
# name: q1
# points: [1, 1]

# %% [markdown]
# ## Question 1: What does a mean leave out?
#
# Tomorrow a cell will lie at −2 or at +2, each as likely as the other. Three forecasts are scored
# by the energy score, $\mathrm{E}|X - y| - \frac12 \mathrm{E}|X - X'|$, on average over the
# two outcomes $y$. Forecast A says 0. Forecast B says +2. Forecast C says −2 or +2, with half the
# probability each. Smaller scores are better. What is true?
#
# - **a.** A is best, since 0 is the mean.
# - **b.** B is best, since it is right half of the time.
# - **c.** A and B have the same score, and C has half of it.
# - **d.** A and C have the same score, since they have the same mean.
# - **e.** All three have the same score.
#
# Put the letter into `best_forecast`, in quotes.

# %% [raw]
# # BEGIN SOLUTION

# %%
best_forecast = "c"  # SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q1_a_letter(env):
    from splicedvae_book import grading

    grading.choice(env, "best_forecast", "abcde")


# %%
# HIDDEN
def q1_which_forecast(env):
    from splicedvae_book import grading

    hint = "Work out both expectations for each forecast, for y = -2 and for y = +2."
    found, key = grading.choice(env, "best_forecast", "abcde"), 2
    grading.agree("best_forecast", found, "abcde"[key], hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q2
# points: [1, 1]

# %% [markdown]
# ## Question 2: The price of a spread
#
# Write `energy_score` for one cell. `drawn` are $n$ draws of its future (draws, dimensions) and
# `true` is where it went (dimensions,). The first expectation is the mean distance of draws to the
# truth. The second is the mean distance of two *different* draws. Of a single draw there are no two,
# and the second part is 0.

# %% [raw]
# # BEGIN SOLUTION


# %%
def energy_score(drawn, true):
    """Energy score of draws (draws, dimensions) for a truth (dimensions,)."""
    # BEGIN SOLUTION
    n = len(drawn)
    near = np.linalg.norm(drawn - true, axis=1).mean()
    if n == 1:
        return near
    between = np.linalg.norm(drawn[:, None] - drawn[None], axis=2)
    return near - between.sum() / (n * (n - 1)) / 2
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q2_many_draws_of_a_normal(env):
    import numpy as np

    from splicedvae_book import grading

    drawn = np.random.default_rng(0).normal(size=(1500, 1))
    found = grading.call(env, "energy_score", drawn, np.zeros(1))
    hint = "For a standard normal and the truth 0, theory says (√2 − 1) / √π."
    grading.agree("energy_score", found, (2**0.5 - 1) / np.pi**0.5, hint, 0.02)


# %%
# HIDDEN
def q2_few_draws_and_one(env):
    import numpy as np

    import splicedvae as sv
    from splicedvae_book import grading

    rng = np.random.default_rng(1)
    for n, dims in ((3, 2), (2, 4), (1, 3)):
        drawn, true = rng.normal(size=(n, dims)), rng.normal(size=dims)
        found = grading.call(env, "energy_score", drawn, true)
        expected = sv.metrics.energy_score(drawn[:, None], true[None, None])[0]
        hint = f"With {n} draws in {dims} dimensions: which pairs are there, and how many?"
        grading.agree("energy_score", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q3
# points: [1, 1]

# %% [markdown]
# ## Question 3: What did you say of what happened?
#
# Write `log_loss`: the mean, over cells, of $-\log p$ of the fate that came true. `probability` is
# (cells, fates), and `fate` (cells,) counts fates from 0. A probability below `floor` counts as
# `floor`: fifty draws in which a fate never came up do not prove it impossible. Leave the other
# probabilities as they are.

# %% [raw]
# # BEGIN SOLUTION


# %%
def log_loss(probability, fate, floor=0.001):
    """Mean negative log-probability of what happened, in nats."""
    # BEGIN SOLUTION
    told = probability[np.arange(len(fate)), fate]
    return -np.log(np.maximum(told, floor)).mean()
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q3_two_cells(env):
    import numpy as np

    from splicedvae_book import grading

    p = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
    found = grading.call(env, "log_loss", p, np.array([0, 2]))
    hint = "One cell was given 0.5 for what happened, the other 0.7."
    grading.agree("log_loss", found, np.log([2, 10 / 7]).mean(), hint)


# %%
# HIDDEN
def q3_a_fate_of_no_draw(env):
    import numpy as np

    from splicedvae_book import grading

    p = np.array([[0.0, 1.0], [0.3, 0.7], [0.05, 0.95]])
    for floor in (0.001, 0.1):
        found = grading.call(env, "log_loss", p, np.array([0, 0, 0]), floor)
        expected = -np.mean([np.log(max(x, floor)) for x in (0.0, 0.3, 0.05)])
        hint = "What becomes of a probability of 0, and of one just below the floor?"
        grading.agree("log_loss", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q4
# points: [1, 1]

# %% [markdown]
# ## Question 4: Three in ten
#
# If 30 % is told for many cells, three in ten should come true. Write `calibration_error` for one
# fate: `probability` (cells,) was told and `happened` (cells,) is 1 or 0. Sort the cells into
# `n_bins` equally wide bins of [0, 1]; a cell with probability 1 belongs into the last. In each bin
# take the distance of the mean probability and the share that happened. Return the mean of these
# distances, each bin weighted by its share of the cells.

# %% [raw]
# # BEGIN SOLUTION


# %%
def calibration_error(probability, happened, n_bins=10):
    """Expected calibration error of one fate."""
    # BEGIN SOLUTION
    bins = np.minimum((probability * n_bins).astype(int), n_bins - 1)
    error = 0.0
    for k in np.unique(bins):
        here = bins == k
        error += here.mean() * abs(probability[here].mean() - happened[here].mean())
    return error
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q4_two_bins(env):
    import numpy as np

    from splicedvae_book import grading

    p = np.array([0.25, 0.25, 0.25, 0.25, 0.85])
    found = grading.call(env, "calibration_error", p, np.array([1.0, 1, 0, 0, 0]))
    hint = "Four cells were told 0.25 and half of them happened; one was told 0.85 and did not."
    grading.agree("calibration_error", found, 0.8 * 0.25 + 0.2 * 0.85, hint)


# %%
# HIDDEN
def q4_many_cells_and_certain_ones(env):
    import numpy as np

    from splicedvae_book import grading

    rng = np.random.default_rng(2)
    for n_bins in (10, 3):
        p = np.append(rng.random(300), [1.0, 1.0, 0.0])
        happened = (rng.random(303) < 1.6 * p - 0.3).astype(int)  # not sure enough
        happened[300:302] = 0
        found = grading.call(env, "calibration_error", p, happened, n_bins)
        bins = np.minimum((p * n_bins).astype(int), n_bins - 1)
        parts = [(np.mean(bins == k), p[bins == k], happened[bins == k]) for k in set(bins)]
        expected = sum(share * abs(a.mean() - b.mean()) for share, a, b in parts)
        hint = f"With {n_bins} bins, and cells that were told 0 and 1: which bin are they in?"
        grading.agree("calibration_error", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q5
# points: [1, 1]

# %% [markdown]
# ## Question 5: Who became whom?
#
# Cells are destroyed when they are read, so nobody knows which cell of Monday became which one of
# Tuesday. *Optimal transport* takes the pairing with the least effort in all. Write `pair_days`: for
# each cell of `now` (cells, dimensions) the position of its partner in `later`, which has as many
# cells, such that each is taken once and the sum of **squared** distances is smallest.
# `linear_sum_assignment` finds it for a matrix of costs.

# %% [raw]
# # BEGIN SOLUTION


# %%
def pair_days(now, later):
    """Partners (cells,) in `later`, each taken once, at the least sum of squared distances."""
    # BEGIN SOLUTION
    cost = ((now[:, None] - later[None]) ** 2).sum(2)
    return linear_sum_assignment(cost)[1]
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q5_three_cells_on_a_line(env):
    import numpy as np

    from splicedvae_book import grading

    now, later = np.array([[0.0], [1.0], [5.0]]), np.array([[5.5], [2.2], [0.7]])
    found = grading.call(env, "pair_days", now, later, shape=(3,))
    hint = "On a line, partners come in the same order, and nobody has two."
    grading.agree("pair_days", found, np.argsort(later[:, 0]), hint)


# %%
# HIDDEN
def q5_clouds(env):
    import numpy as np
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    from splicedvae_book import grading

    rng = np.random.default_rng(3)
    for dims in (2, 3):
        now, later = rng.normal(size=(40, dims)), 1 + 2 * rng.normal(size=(40, dims))
        found = grading.call(env, "pair_days", now, later, shape=(40,))
        expected = linear_sum_assignment(cdist(now, later, "sqeuclidean"))[1]
        hint = f"40 cells in {dims} dimensions: what exactly is the cost of a pair?"
        grading.agree("pair_days", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q6
# points: [1, 1]

# %% [markdown]
# ## Question 6: A walk with a drift
#
# Write `walk`: the end of a path of $dz = v(z)\,dt + \sigma\,dW$ by the method of Euler and
# Maruyama. In each of `n_steps` steps of length `horizon / n_steps`, a cell moves by its drift times
# the step, and by $\sigma$ times the *square root* of the step times a standard normal number, drawn
# by `rng.normal(size=z.shape)`. The drift is taken where the step begins. Draw in every step, also
# if $\sigma$ is 0.

# %% [raw]
# # BEGIN SOLUTION


# %%
def walk(z, drift, sigma, horizon, n_steps, rng):
    """Ends (cells, dimensions) of paths from z (cells, dimensions); drift is a function of z."""
    # BEGIN SOLUTION
    dt = horizon / n_steps
    for _ in range(n_steps):
        z = z + dt * drift(z) + sigma * np.sqrt(dt) * rng.normal(size=z.shape)
    return z
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q6_no_noise(env):
    import numpy as np

    from splicedvae_book import grading

    start, rng = np.array([[1.0], [2.0]]), np.random.default_rng(0)
    found = grading.call(env, "walk", start, lambda z: -z, 0.0, 1.0, 1000, rng, shape=(2, 1))
    hint = "Without noise, z decays from 1 and 2 by the factor e in one unit of time."
    grading.agree("walk", found, start / np.e, hint, 0.002)


# %%
# HIDDEN
def q6_noise_and_any_step(env):
    import numpy as np

    from splicedvae_book import grading

    for horizon, n_steps in ((2.0, 8), (3.0, 5)):
        start = np.zeros((4000, 1))
        rng = np.random.default_rng(1)
        found = grading.call(
            env, "walk", start, np.ones_like, 0.5, horizon, n_steps, rng, shape=(4000, 1)
        )
        hint = (
            f"With drift 1 and σ 0.5 over {horizon} in {n_steps} steps: what are mean and spread?"
        )
        grading.agree("walk", found.mean(), horizon, hint, 0.03)
        grading.agree("walk", found.std(), 0.5 * horizon**0.5, hint, 0.03)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

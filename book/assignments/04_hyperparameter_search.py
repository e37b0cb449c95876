# %% [markdown]
# # Assignment 4: The best of ninety
#
# Ninety trainings take hours; luck takes a microsecond. So nothing is trained in this assignment.
# **All scores are simulated**, the same for everybody: a configuration has a merit, which a real
# search never sees, and a trial shows this merit plus luck. Six questions about what a search can
# find, what it only seems to find, and what it saves by giving up early, as chapter 4 asks them of
# real searches.
#
# A higher score is better; only the losses of question 6 are better when they are low. Put your
# answers where `...` stands, keep the names as they are, and run `grader.check` after each. It runs
# the visible tests. Hidden ones, on other numbers, decide about the other half of the points. No
# answer needs another one.

# %%
from math import comb

import numpy as np

import splicedvae as sv

print(sv.search.PAPER_CONTINUOUS["lr"])  # the learning rates of the book's continuous search

# %% [raw]
# # BEGIN QUESTION
# name: q1
# points: [1, 1]

# %% [markdown]
# ## Question 1: Which of these numbers may stand in a paper?
#
# A score that was used to choose is no longer a measurement of what was chosen. That is easily
# said, and easily forgotten. Call a reported score *honest* if, over many repetitions of the whole
# procedure, it is on average what the same model would score on new cells. Ninety configurations
# were trained, each for the same number of epochs, without early stopping; who reports honestly?
#
# - **a.** "We ranked all ninety by D² on the validation cells. Here is that D² of the first."
# - **b.** "We did the same, then trained the first again with a new seed. Here is its new D² on the
#   same validation cells."
# - **c.** "We ranked all ninety by D² on the test cells. Here is the mean test D² of the five best,
#   so that no single one could be lucky."
# - **d.** "We ranked them on the validation cells and read the test cells only for the first. It
#   disappointed, so we made the space larger, searched again, and read the test cells for the new
#   first. Here is the higher of the two."
# - **e.** "We drew one of the ninety by lot and looked at no score before. Here is its D² on the
#   validation cells."
#
# Exactly one is honest. Put its letter into `honest`, in quotes.

# %% [raw]
# # BEGIN SOLUTION

# %%
honest = "e"  # SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q1_a_letter(env):
    from splicedvae_book import grading

    grading.choice(env, "honest", "abcde")


# %%
# HIDDEN
def q1_who_reports_honestly(env):
    from splicedvae_book import grading

    hint = "For each report ask: was a score on these very cells used to choose this model?"
    found, key = grading.choice(env, "honest", "abcde"), 4
    grading.agree("honest", found, "abcde"[key], hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q2
# points: [1, 1]

# %% [markdown]
# ## Question 2: Draw a learning rate
#
# From 0.001 to 0.002 a learning rate doubles; from 0.009 to 0.010 hardly anything happens. Drawn
# evenly between 0.0001 and 0.01, nine rates in ten would lie above 0.001, and the whole order of
# magnitude below it would hardly be visited. So in the space of the book,
# `sv.search.PAPER_CONTINUOUS`, the learning rate has `log=True`. What does that do?
#
# Write `log_uniform`: `size` numbers whose *logarithms* are uniform between the logarithms of `low`
# and `high`. Take all chance from the generator `rng` that is given, so that whoever gives the seed
# can repeat the draw.

# %% [raw]
# # BEGIN SOLUTION


# %%
def log_uniform(low, high, size, rng):
    """Numbers (size,) between low and high, uniform on the logarithmic scale."""
    # BEGIN SOLUTION
    return np.exp(rng.uniform(np.log(low), np.log(high), size))
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q2_half_of_the_rates_are_below_a_thousandth(env):
    import numpy as np

    from splicedvae_book import grading

    draws = grading.call(
        env, "log_uniform", 1e-4, 1e-2, 4000, np.random.default_rng(1), shape=(4000,)
    )
    hint = "They should lie between low and high, and half of them below the geometric mean of the two."
    inside = (draws >= 1e-4) & (draws <= 1e-2)
    grading.agree("log_uniform", inside, np.ones(4000), hint)
    grading.agree("log_uniform", (draws < 1e-3).mean(), 0.5, hint, 0.04)


# %%
# HIDDEN
def q2_any_range_and_any_generator(env):
    import numpy as np
    import optuna
    from scipy.stats import ks_2samp

    from splicedvae_book import grading

    space = {"weight": optuna.distributions.FloatDistribution(3, 1000, log=True)}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    theirs = [study.ask(space).params["weight"] for _ in range(500)]
    mine = grading.call(env, "log_uniform", 3, 1000, 500, np.random.default_rng(2), shape=(500,))
    same = ks_2samp(mine, theirs).pvalue > 1e-4
    hint = "It must work for any range, also one that begins above 1."
    grading.agree("log_uniform", same, True, hint)

    one, other, again = (
        grading.call(env, "log_uniform", 1e-4, 1e-2, 50, np.random.default_rng(seed), shape=(50,))
        for seed in (3, 4, 3)
    )
    hint = "Two generators give the same numbers; take chance from `rng`."
    grading.agree("log_uniform", np.allclose(one, other), False, hint)
    hint = "The same generator should give the same numbers; take all chance from `rng`."
    grading.agree("log_uniform", np.allclose(one, again), True, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q3
# points: [1, 1]

# %% [markdown]
# ## Question 3: What would fewer trials have found?
#
# "Our method, best of ninety, beats theirs, best of five." A comparison is fair only at equal
# budgets, and no second search is needed for that: the ninety scores already say how good the best
# of any five of them would have been, on average. There is luck in *which* five come first, so we
# average over it.
#
# Write `expected_best`: the mean, over all ways to pick `k` different trials out of those in
# `scores`, of the best score among the `k`. Do it exactly, without random numbers; for 90 trials
# there are 44 million ways to pick five, so without listing them either. An example: of 0, 1 and 3
# there are three pairs, whose best are 1, 3 and 3; so for $k = 2$ the answer is 7/3.
#
# *Hint.* When is the score with exactly $i$ others below it the best of the $k$? When the others that
# were picked, $k - 1$ of them, all come from those $i$. `comb(n, k)` counts the ways to pick $k$ out
# of $n$. There are no ties.

# %% [raw]
# # BEGIN SOLUTION


# %%
def expected_best(scores, k):
    """Mean best of k trials picked from scores (n,), a number."""
    # BEGIN SOLUTION
    ordered, n = np.sort(scores), len(scores)
    chance = [comb(i, k - 1) / comb(n, k) for i in range(n)]  # that this one is the best
    return ordered @ chance
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q3_the_example(env):
    import numpy as np

    from splicedvae_book import grading

    hint = "Go through the example by hand: three pairs, and the best of each."
    for k, expected in ((1, 4 / 3), (2, 7 / 3)):
        found = grading.call(env, "expected_best", np.array([0.0, 1.0, 3.0]), k)
        grading.agree("expected_best", found, expected, hint)


# %%
# HIDDEN
def q3_any_scores(env):
    from itertools import combinations

    import numpy as np
    from scipy.stats import norm

    from splicedvae_book import grading

    scores = np.random.default_rng(5).normal(size=9)
    hint = "The order in which the trials were run should not matter."
    for k in (1, 4, 9):
        expected = np.mean([max(some) for some in combinations(scores, k)])
        grading.agree(
            "expected_best", grading.call(env, "expected_best", scores, k), expected, hint
        )

    quantiles = norm.ppf((np.arange(2000) + 0.5) / 2000)
    hint = (
        "Of many draws from a normal distribution, the best of 90 is about 2.5 deviations above 0."
    )
    found = grading.call(env, "expected_best", np.random.default_rng(6).permutation(quantiles), 90)
    grading.agree("expected_best", found, 2.5, hint, 0.03)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q4
# points: [1, 1]

# %% [markdown]
# ## Question 4: What the winner loses
#
# The winner's curse can be measured once there are fresh cells: take whoever won on the validation
# cells, and see what *this same* configuration scores on cells that had no part in the choice. One
# search tells little, so here are many searches of the same space.
#
# Write `optimism`: by how much a search's winner scores higher when it is chosen than on fresh
# cells, averaged over searches. `validation` and `fresh` are arrays (searches, configurations) with
# the scores of the same models on both sets of cells. A configuration that diverged is NaN in both,
# and never a winner.

# %% [raw]
# # BEGIN SOLUTION


# %%
def optimism(validation, fresh):
    """Mean over searches of what the winner loses on fresh cells, a number."""
    # BEGIN SOLUTION
    winner = np.nanargmax(validation, axis=1)
    searches = np.arange(len(validation))
    return np.mean(validation[searches, winner] - fresh[searches, winner])
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q4_equal_merit_and_nothing_but_luck(env):
    import numpy as np

    from splicedvae_book import grading

    luck = np.random.default_rng(7).normal(size=(2, 400, 90))
    found = grading.call(env, "optimism", *luck)
    hint = (
        "With 90 equal configurations and luck of standard deviation 1, the winner is about 2.5 too "
        "high. Is it the same configuration on both sets of cells?"
    )
    grading.agree("optimism", found, 2.5, hint, 0.05)


# %%
# HIDDEN
def q4_merit_and_failures(env):
    import numpy as np

    from splicedvae_book import grading

    rng = np.random.default_rng(8)
    merit = rng.normal(scale=3, size=(200, 30))
    validation, fresh = merit + rng.normal(size=(2, 200, 30))
    rows = range(200)
    expected = np.mean(
        [max(validation[i]) - fresh[i, list(validation[i]).index(max(validation[i]))] for i in rows]
    )
    hint = "What has merit keeps it on fresh cells: follow the winner, and only the winner."
    grading.agree("optimism", grading.call(env, "optimism", validation, fresh), expected, hint)

    scores = np.random.default_rng(9).normal(size=(2, 40, 12))
    failed = scores.copy()
    failed[:, ::2, 3] = np.nan  # a configuration that diverged in every other search
    scores[:, ::2, 3] = -100  # and would have come last
    hint = (
        "A configuration that diverged is NaN, and a search that has one has a winner all the same."
    )
    expected = grading.call(env, "optimism", *scores)
    grading.agree("optimism", grading.call(env, "optimism", *failed), expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q5
# points: [1, 1]

# %% [markdown]
# ## Question 5: Two aims, no winner
#
# The model has two tasks, and a configuration may serve one at the cost of the other. Whoever adds
# the two scores up has to say how many nats of ELBO a hundredth of D² is worth. Whoever does not
# want to say it keeps a *front*. One configuration dominates another if it is at least as good in
# both scores and better in at least one; the front is what no other one dominates.
#
# Write `on_front`: for each configuration, whether it is on the front. For both scores, higher is
# better. Two configurations with exactly the same scores do not dominate each other.

# %% [raw]
# # BEGIN SOLUTION


# %%
def on_front(elbo, d2):
    """Booleans (configurations,): True where no other configuration dominates."""
    # BEGIN SOLUTION
    scores = np.stack([elbo, d2], axis=1)
    other, own = scores[:, None], scores[None]
    dominated = (other >= own).all(2) & (other > own).any(2)
    return ~dominated.any(0)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q5_five_configurations(env):
    import numpy as np

    from splicedvae_book import grading

    elbo = np.array([-1200.0, -1210.0, -1230.0, -1240.0, -1225.0])
    d2 = np.array([0.01, 0.04, 0.06, 0.05, 0.03])
    found = grading.call(env, "on_front", elbo, d2, shape=(5,))
    hint = (
        "Of these five, the first has the best ELBO, the third the best D², the second is a "
        "compromise, and each of the other two is beaten in both by one of these."
    )
    grading.agree("on_front", found, [1, 1, 1, 0, 0], hint)


# %%
# HIDDEN
def q5_as_optuna_has_it(env):
    import numpy as np
    import optuna

    from splicedvae_book import grading

    rng = np.random.default_rng(11)
    for size in (6, 15, 40):
        scores = rng.integers(0, 6, (size, 2)).astype(float)
        study = optuna.create_study(directions=["maximize", "maximize"])
        study.add_trials([optuna.create_trial(values=pair) for pair in scores.tolist()])
        best = [trial.number for trial in study.best_trials]
        expected = np.isin(np.arange(size), best)
        found = grading.call(env, "on_front", *scores.T, shape=(size,))
        hint = "Some configurations are equal in one score here, and some in both."
        grading.agree("on_front", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q6
# points: [1, 1]

# %% [markdown]
# ## Question 6: When to give up
#
# Most configurations are hopeless, and most of these are so from the start. *Pruning* by the median
# rule stops a trial at the first epoch, from epoch `warmup` on, at which *the best loss that it has
# had so far* is higher than the *median*, over the earlier trials, of the loss *at this same
# epoch*. The best so far, because one bad epoch is no reason to stop; the median, because one trial
# that exploded should not make all others look good.
#
# Write `pruned_at`: the epoch, counted from 1, at which the trial is stopped, and 0 if it never is.
# `losses` holds the trial's loss after each epoch, `earlier` (trials, epochs) the losses of trials
# that were trained to the end. Lower is better.

# %% [raw]
# # BEGIN SOLUTION


# %%
def pruned_at(losses, earlier, warmup):
    """Epoch, from 1, at which losses (epochs,) fall behind earlier (trials, epochs), or 0."""
    # BEGIN SOLUTION
    for epoch in range(warmup, len(losses) + 1):
        if min(losses[:epoch]) > np.median(earlier[:, epoch - 1]):
            return epoch
    return 0
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q6_three_earlier_trials(env):
    import numpy as np

    from splicedvae_book import grading

    earlier = np.array([[9.0, 6.0, 4.0, 3.0], [8.0, 5.0, 3.0, 2.0], [7.0, 4.0, 2.0, 1.0]])
    hint = (
        "The medians are 8, 5, 3 and 2. A trial is judged from epoch `warmup` on, counted from 1; 0 "
        "stands for never."
    )
    for losses, warmup, expected in (
        ([7.5, 4.5, 2.5, 1.5], 1, 0),
        ([7.5, 6.0, 5.5, 5.0], 1, 2),
        ([9.0, 6.0, 5.5, 5.0], 3, 3),
        ([9.0, 4.0, 2.5, 1.5], 2, 0),
    ):
        found = grading.call(env, "pruned_at", np.array(losses), earlier, warmup)
        grading.agree("pruned_at", found, expected, hint)


# %%
# HIDDEN
def q6_as_optuna_prunes(env):
    import numpy as np
    import optuna

    from splicedvae_book import grading

    rng, epochs = np.random.default_rng(12), 8
    earlier = 2 + 3 * np.exp(-np.arange(epochs)) + rng.normal(scale=0.3, size=(7, epochs))
    earlier[0] = 1000  # one that exploded
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=3)
    study = optuna.create_study(pruner=pruner)
    for curve in earlier:
        steps = dict(enumerate(curve.tolist(), start=1))
        study.add_trial(optuna.create_trial(value=curve[-1], intermediate_values=steps))
    hint = "Read the rule again: the best so far of this trial, the median of the others, the same epoch."
    for bump in (0, 0, 3, 3, 6, 6):
        losses = np.median(earlier, axis=0) + rng.normal(scale=0.4, size=epochs)
        losses[bump] += 2  # a bad epoch
        trial, expected = study.ask(), 0
        for epoch, loss in enumerate(losses.tolist(), start=1):
            trial.report(loss, epoch)
            if not expected and trial.should_prune():
                expected = epoch
        found = grading.call(env, "pruned_at", losses, earlier, 3)
        grading.agree("pruned_at", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

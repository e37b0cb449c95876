# %% [markdown]
# # Assignment 5: Arrows, and who has earned them
#
# A velocity field is easily drawn and hardly ever wrong to the eye. In this assignment you make one
# from counts, make one from next to nothing, and then build the three instruments by which chapter
# 5 tells them apart: a cosine that no abundant gene can dominate, an accuracy that does not depend
# on how the map is turned, and a null that knows everything but which cell is which. **All cells
# are simulated**, the same for everybody.
#
# Arrays are cells × genes: $s$ spliced, $u$ unspliced, $n = s + u$ the total, $r = s/n$ the ratio.
# Time is measured in units of splicing, so a gene's velocity is $v = u - \gamma s$. Put your
# answers where `...` stands, keep the names as they are, and run `grader.check` after each. It runs
# the visible tests. Hidden ones, on other numbers, decide about the other half of the points. No
# answer needs another one.

# %%
import numpy as np

# %% [raw]
# # BEGIN QUESTION
# name: q1
# points: [1, 1]

# %% [markdown]
# ## Question 1: Up or down?
#
# The unspliced molecules of now are the spliced ones of soon. Whether that is more or less than
# what is lost meanwhile decides which way a gene goes. Here is one gene, with $\gamma = 0.5$, in
# four cells. In which of them does its spliced count rise, stay or fall?
#
# | cell | what was measured |
# | --- | --- |
# | A | $s = 4$, $u = 2$ |
# | B | $s = 8$, $u = 5$ |
# | C | $s = 10$, $u = 4$ |
# | D | $n = 12$, $r = 3/4$ |
#
# - **a.** It falls in all four: everywhere there is less unspliced than spliced.
# - **b.** It stays in A, rises in B, and falls in C and D.
# - **c.** It stays in A, rises in B and D, and falls in C.
# - **d.** It rises in all four, since all have unspliced molecules.
# - **e.** It rises in A and B, where the unspliced fraction is above that of all four together, and
#   falls in C and D.
#
# Put the letter into `rises_or_falls`, in quotes.

# %% [raw]
# # BEGIN SOLUTION

# %%
rises_or_falls = "b"  # SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q1_a_letter(env):
    from splicedvae_book import grading

    grading.choice(env, "rises_or_falls", "abcde")


# %%
# HIDDEN
def q1_which_way(env):
    from splicedvae_book import grading

    hint = "For each cell find s and u, and set u beside what is lost, γ s."
    found, key = grading.choice(env, "rises_or_falls", "abcde"), 1
    grading.agree("rises_or_falls", found, "abcde"[key], hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q2
# points: [1, 1]

# %% [markdown]
# ## Question 2: Who is at rest?
#
# The slope $\gamma$ can be read off cells in *steady state*, where $u = \gamma s$. But nobody says
# which cells these are, and most of them are on their way: while a gene is being switched on they
# lie above the line, and a fit to all of them would be too steep. A good guess is that cells with
# the *most* spliced molecules of a gene have had the time to get there.
#
# Write `steady_slope`: for each gene the slope of the least-squares line *through the origin*,
#
# $$\gamma = \frac{\sum s\,u}{\sum s^2},$$
#
# over those cells whose $s$ is at or above the gene's own quantile `quantile`. A gene of which no cell has a
# spliced molecule gets 0.

# %% [raw]
# # BEGIN SOLUTION


# %%
def steady_slope(s, u, quantile=0.95):
    """Slopes (genes,) from the cells with most of s and u (cells, genes)."""
    # BEGIN SOLUTION
    top = s >= np.quantile(s, quantile, axis=0)
    above, below = (top * s * u).sum(0), (top * s * s).sum(0)
    return np.divide(above, below, out=np.zeros(s.shape[1]), where=below > 0)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q2_genes_that_are_being_switched_on(env):
    import numpy as np

    from splicedvae.simulate import kinetics
    from splicedvae_book import grading

    gamma, time = np.array([0.5, 0.8, 1.2]), np.linspace(0.1, 20, 300)[:, None]
    u, s = kinetics(0, 0, np.full(3, 10), gamma, time)  # exact, from nothing to steady state
    found = grading.call(env, "steady_slope", s, u, shape=(3,))
    hint = (
        "300 cells of three genes that are switched on have the slopes 0.5, 0.8 and 1.2 when they "
        "come to rest. Which cells are at rest, and where does the line start?"
    )
    grading.agree("steady_slope", found, gamma, hint, 0.01)


# %%
# HIDDEN
def q2_genes_of_all_abundances(env):
    import numpy as np

    from splicedvae.simulate import kinetics
    from splicedvae_book import grading

    rng = np.random.default_rng(1)
    gamma, alpha = rng.uniform(0.4, 1.5, 20), 10 ** rng.uniform(-1, 3, 20)
    u, s = kinetics(0, 0, alpha, gamma, rng.uniform(0.1, 25, (400, 1)))
    found = grading.call(env, "steady_slope", s, u, shape=(20,))
    hint = "Genes differ several thousandfold in abundance, and each has cells at rest."
    grading.agree("steady_slope", found, gamma, hint, 0.02)

    s = np.random.default_rng(2).poisson(3.0, (200, 4)).astype(float)
    s[:, 2] = 0
    expected = np.array([0.5, 0.5, 0, 0.5])
    found = grading.call(env, "steady_slope", s, 0.5 * s, 0.9, shape=(4,))
    hint = "What does a gene get of which no cell has a spliced molecule?"
    grading.agree("steady_slope", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q3
# points: [1, 1]

# %% [markdown]
# ## Question 3: An arrow from a ratio
#
# This is the whole use of a predicted ratio $p$: it parts a total $n$ into $p\,n$ spliced molecules
# and $(1-p)\,n$ unspliced ones, and their residual is a velocity. Work out what this becomes when
# $p$ is a *gene mean*, the same in all cells:
#
# $$v = n \,\bigl(1 - p\,(1 + \gamma)\bigr).$$
#
# All that is left of the cell is its total. Neighbouring cells have similar totals, so such a field
# is smooth, it can be drawn in lovely streamlines, and it knows nothing of splicing. That is why the
# book has it as its null. (With the $\gamma$ of these very values even that is gone: they lie on a
# line, $p\,(1 + \gamma) = 1$, and $v = 0$.)
#
# Write `velocity_from_ratio`. `total` is (cells, genes); `ratio` is (cells, genes), or (genes,) for
# a gene mean; `gamma` is (genes,). Where nothing was counted the observed ratio is undefined, NaN,
# and the velocity is 0: nothing is there that could move.

# %% [raw]
# # BEGIN SOLUTION


# %%
def velocity_from_ratio(total, ratio, gamma):
    """Velocity (cells, genes) of totals that a ratio parts."""
    # BEGIN SOLUTION
    spliced = total * np.nan_to_num(ratio)
    return (total - spliced) - gamma * spliced
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q3_of_a_gene_mean_only_totals_are_left(env):
    import numpy as np

    from splicedvae_book import grading

    total = np.array([[8.0, 10.0], [4.0, 0.0], [2.0, 5.0]])
    found = grading.call(
        env, "velocity_from_ratio", total, np.array([0.5, 0.8]), np.array([0.5, 0.5]), shape=(3, 2)
    )
    hint = "With γ = 0.5, a gene mean of 0.5 gives n/4 in every cell, one of 0.8 gives -n/5."
    grading.agree("velocity_from_ratio", found, total * [0.25, -0.2], hint)


# %%
# HIDDEN
def q3_any_ratio(env):
    import numpy as np

    from splicedvae.counts import split_counts
    from splicedvae_book import grading

    rng = np.random.default_rng(3)
    total, ratio = rng.poisson(4.0, (30, 6)).astype(float), rng.uniform(size=(30, 6))
    gamma = rng.uniform(0.2, 2, 6)
    s, u = (part.toarray() for part in split_counts(total, ratio))
    expected = u - gamma * s
    found = grading.call(env, "velocity_from_ratio", total, ratio, gamma, shape=(30, 6))
    hint = "It is what is left of u without γ s, with the two parts of the total."
    grading.agree("velocity_from_ratio", found, expected, hint, 1e-5)

    rng = np.random.default_rng(4)
    s, u = rng.poisson(0.7, (2, 40, 5)).astype(float)
    with np.errstate(invalid="ignore"):
        ratio = s / (s + u)
    gamma = rng.uniform(0.2, 2, 5)
    expected = u - gamma * s
    found = grading.call(env, "velocity_from_ratio", s + u, ratio, gamma, shape=(40, 5))
    hint = "Where nothing was counted, the ratio is NaN and the velocity 0."
    grading.agree("velocity_from_ratio", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q4
# points: [1, 1]

# %% [markdown]
# ## Question 4: A cosine that is fair to genes
#
# The primary score of chapter 5 is the *velocity cosine*: for each cell, the cosine of the angle
# between its true and its predicted velocity in the space of genes. Three things are easily got
# wrong, and each makes some field look better than it is.
#
# - *Units.* A hormone gene has thousands of molecules; five such genes hold half of the length of
#   an arrow. So each gene is divided by its own `scale`, its root mean square over training cells.
# - *Silence.* scVelo writes NaN for a gene that it has not fitted. A gene without a *true* velocity
#   cannot be scored: leave it out, as well as a gene whose scale is 0. A gene that only the
#   *prediction* has no velocity for has one of 0: whoever says nothing about a hard gene should not
#   gain by it.
# - *Nothing.* An arrow without length points nowhere; its cosine is 0.
#
# Write `cell_cosine`. `true` and `predicted` are (cells, genes), a gene being NaN in all cells or
# in none; `scale` is (genes,).

# %% [raw]
# # BEGIN SOLUTION


# %%
def cell_cosine(true, predicted, scale):
    """Cosine of each cell (cells,), genes in units of their scale."""
    # BEGIN SOLUTION
    scored = np.isfinite(true).all(0) & (scale > 0)
    a, b = (np.nan_to_num(x[:, scored]) / scale[scored] for x in (true, predicted))
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(1), length, out=np.zeros(len(a)), where=length > 0)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q4_an_abundant_gene_has_one_voice(env):
    import numpy as np

    from splicedvae_book import grading

    true = np.array([[1000.0, 1.0, 1.0], [1000.0, -1.0, 2.0], [-2000.0, 3.0, 1.0]])
    predicted = np.array([[2000.0, 2.0, 2.0], [1000.0, 1.0, -2.0], [2000.0, -3.0, -1.0]])
    found = grading.call(
        env, "cell_cosine", true, predicted, np.array([1000.0, 1.0, 1.0]), shape=(3,)
    )
    hint = (
        "Three cells of three genes, the first counted in thousands. The first cell is right, the "
        "third the wrong way round, and the second is right in one gene of three only."
    )
    grading.agree("cell_cosine", found, [1, -2 / 3, -1], hint)


# %%
# HIDDEN
def q4_any_field(env):
    import anndata as ad
    import numpy as np

    from splicedvae.metrics import cell_cosine
    from splicedvae_book import grading

    rng = np.random.default_rng(5)
    true, predicted = rng.normal(size=(2, 25, 8)) * 10 ** rng.uniform(-1, 3, 8)
    scale = np.sqrt((true**2).mean(0))
    true[:, 1], predicted[:, [1, 4]], scale[6] = np.nan, np.nan, 0
    fields = []
    for velocity in (true, predicted):
        field = ad.AnnData(np.zeros((25, 8)), layers={"velocity": velocity})
        field.var["velocity_genes"] = np.isfinite(velocity).all(0)
        fields.append(field)
    expected = cell_cosine(*fields, scale)
    found = grading.call(env, "cell_cosine", true, predicted, scale, shape=(25,))
    hint = "Which genes are left out, and which count as 0? Here are some without a scale or a velocity."
    grading.agree("cell_cosine", found, expected, hint, 1e-5)

    true = np.random.default_rng(6).normal(size=(4, 3))
    predicted = true.copy()
    predicted[1] = 0
    true[2] = 0
    expected = np.array([1, 0, 0, 1])
    found = grading.call(env, "cell_cosine", true, predicted, np.ones(3), shape=(4,))
    hint = "What is the cosine of an arrow without length?"
    grading.agree("cell_cosine", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q5
# points: [1, 1]

# %% [markdown]
# ## Question 5: Turn the compass
#
# "88 % of directions are right" counts how many arrows on the map fall into the true quadrant. But
# north is an accident: a UMAP can be turned at will, and with it two arrows that are 10° apart are
# once in the same quadrant and once not. The remedy is to turn the compass as well, and to average.
# Then the score depends on the angle between the arrows alone: for an angle of $\delta$ < 90° it is
# $1 - \delta/90°$.
#
# Write `turned_accuracy`: the share of cells whose two arrows lie in the same quadrant, averaged
# over the given turns. The direction of an arrow $(dx, dy)$ is its angle in degrees clockwise from
# north, `np.arctan2(dx, dy)`, plus the turn; quadrants are 0° to 90°, 90° to 180°, 180° to 270° and
# 270° to 360°, each with its lower end. Mind that `arctan2` gives angles from -180° to 180°, that
# the sum may pass 180°, and that 185° and -175° are the same direction.

# %% [raw]
# # BEGIN SOLUTION


# %%
def turned_accuracy(true, predicted, turns):
    """Share of arrows (cells, 2) in the true quadrant, mean over turns in degrees; a number."""
    # BEGIN SOLUTION
    a, b = (np.degrees(np.arctan2(x[:, 0], x[:, 1])) for x in (true, predicted))
    return np.mean([(a + t) % 360 // 90 == (b + t) % 360 // 90 for t in turns])
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q5_ten_degrees_apart(env):
    import numpy as np

    from splicedvae_book import grading

    angles = np.radians([[31.0, 121.0], [41.0, 131.0]])  # clockwise from north
    true, predicted = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    hint = "Two arrows, each 10° from the true one: in the same quadrant for 16 turns out of 18."
    found = grading.call(env, "turned_accuracy", true, predicted, np.arange(0, 90, 5))
    grading.agree("turned_accuracy", found, 16 / 18, hint)
    hint = "An arrow that points the opposite way is never in the true quadrant."
    found = grading.call(env, "turned_accuracy", true, -true, np.arange(0, 90, 5))
    grading.agree("turned_accuracy", found, 0, hint)


# %%
# HIDDEN
def q5_as_the_package_scores_arrows(env):
    import numpy as np

    from splicedvae.metrics import direction_accuracy
    from splicedvae_book import grading

    true, noise = np.random.default_rng(7).normal(size=(2, 500, 2))
    expected = direction_accuracy(true, true + noise)
    hint = "Arrows point everywhere here, also to the south, where angles jump by 360°."
    for turns, name in ((np.arange(0, 90, 5), "accuracy"), ([0], "accuracy_unrotated")):
        found = grading.call(env, "turned_accuracy", true, true + noise, turns)
        grading.agree("turned_accuracy", found, expected[name], hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q6
# points: [1, 1]

# %% [markdown]
# ## Question 6: A null that knows all but the cell
#
# A cosine of 0.6: is that much? If all cells move to the right, the arrow "to the right" scores
# high in each and knows none. So give every cell the true velocity of *another* cell, again and
# again. What all cells have in common stays, what is a cell's own is gone; a field that knows cells
# must do better than that.
#
# Write `p_value`: of the field and its `n_draws` permuted copies together, the share that score *at
# least as high* as the field,
#
# $$p = \frac{1 + \#\{\text{draws with a score} \ge \text{the field's}\}}{1 + \text{n\_draws}}.$$
#
# In a draw the *rows* of `true` are permuted by the generator `rng`, a cell keeping its velocity in
# one piece; `predicted` stays. `score(true, predicted)` is given and returns a number. The field
# counts as one of the draws, so that $p$ is never 0: that is what could happen by chance, and 99
# draws cannot tell of anything rarer than 1 in 100.

# %% [raw]
# # BEGIN SOLUTION


# %%
def p_value(true, predicted, score, n_draws, rng):
    """Share of permuted fields (cells, genes), the field counted in, that score at least as high."""
    # BEGIN SOLUTION
    null = [score(rng.permutation(true), predicted) for _ in range(n_draws)]
    return (1 + np.sum(np.array(null) >= score(true, predicted))) / (1 + n_draws)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q6_a_field_that_knows_its_cells(env):
    import numpy as np

    from splicedvae_book import grading

    true = np.random.default_rng(8).normal(size=(50, 4))

    def score(a, b):
        return -np.abs(a - b).mean()

    found = grading.call(env, "p_value", true, true + 0.1, score, 39, np.random.default_rng(9))
    hint = "Nearly perfect predictions, which no permutation reaches: 1 of 40."
    grading.agree("p_value", found, 1 / 40, hint)


# %%
# HIDDEN
def q6_fields_without_merit(env):
    import numpy as np

    from splicedvae_book import grading

    true = np.random.default_rng(10).normal([3, 1, 0, 0], 1, (60, 4))
    constant = np.tile(true.mean(0), (60, 1))

    def score(a, b):
        return round(float((a * b).sum()), 6)

    expected = 1
    found = grading.call(env, "p_value", true, constant, score, 19, np.random.default_rng(11))
    hint = "One arrow for all cells scores the same under every permutation of cells, and a draw may score *as* high."
    grading.agree("p_value", found, expected, hint)

    true = np.random.default_rng(12).normal(size=(50, 4))

    def score(a, b):
        return -np.abs(a - b).mean()

    expected = 1
    found = grading.call(env, "p_value", true, -true, score, 9, np.random.default_rng(13))
    hint = "Here every arrow points the wrong way; how many draws are at least as good as that?"
    grading.agree("p_value", found, expected, hint)

    pair = np.repeat(np.random.default_rng(14).normal(size=(40, 1)), 2, axis=1)

    def score(a, b):
        return -float(np.abs(a[:, 0] - a[:, 1]).sum())

    expected = 1
    found = grading.call(env, "p_value", pair, pair, score, 19, np.random.default_rng(15))
    hint = (
        "Two genes are always equal here; a cell that keeps its velocity in one piece keeps that."
    )
    grading.agree("p_value", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

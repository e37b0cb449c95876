# %% q1 visible: answers in words
honest = "the one drawn by lot"

# %% q1 hidden: holds new seeds for new cells
honest = "b"

# %% q1 hidden: holds a mean of five winners for the mean of five models
honest = "c"

# %% q1 hidden: may read the test cells as often as the search is changed
honest = "d"


# %% q2 visible: draws evenly from low to high
def log_uniform(low, high, size, rng):
    return rng.uniform(low, high, size)


# %% q2 visible: the logarithm to one base, the power to another
def log_uniform(low, high, size, rng):
    return 10 ** rng.uniform(np.log(low), np.log(high), size)


# %% q2 hidden: writes the exponents of the example into the function
def log_uniform(low, high, size, rng):
    return 10 ** rng.uniform(-4, -2, size)


# %% q2 hidden: makes a generator of its own, so that every call draws the same
def log_uniform(low, high, size, rng):
    return np.exp(np.random.default_rng(0).uniform(np.log(low), np.log(high), size))


# %% q2 hidden: draws from NumPy's global state, so that no seed repeats the draw
def log_uniform(low, high, size, rng):
    return np.exp(np.random.uniform(np.log(low), np.log(high), size))


# %% q3 visible: draws with replacement, so that one trial may be drawn twice
def expected_best(scores, k):
    rank = np.arange(len(scores) + 1) / len(scores)
    return np.sort(scores) @ np.diff(rank**k)


# %% q3 visible: the best of the first k, one order out of all
def expected_best(scores, k):
    return np.max(scores[:k])


# %% q3 hidden: forgets to sort
def expected_best(scores, k):
    n = len(scores)
    return sum(comb(i, k - 1) / comb(n, k) * score for i, score in enumerate(scores))


# %% q4 visible: the winner on fresh cells is another one
def optimism(validation, fresh):
    return np.mean(np.nanmax(validation, axis=1) - np.nanmax(fresh, axis=1))


# %% q4 hidden: measures the winner against the average configuration
def optimism(validation, fresh):
    return np.mean(np.nanmax(validation, axis=1) - np.nanmean(fresh, axis=1))


# %% q4 hidden: a failed trial wins, since argmax stops at NaN
def optimism(validation, fresh):
    winner = np.argmax(validation, axis=1)
    searches = np.arange(len(validation))
    return np.nanmean(validation[searches, winner] - fresh[searches, winner])


# %% q5 visible: keeps the best in each score and no compromise
def on_front(elbo, d2):
    return (elbo == elbo.max()) | (d2 == d2.max())


# %% q5 visible: asks who is dominant, not who is dominated
def on_front(elbo, d2):
    scores = np.stack([elbo, d2], axis=1)
    other, own = scores[:, None], scores[None]
    return ~((other >= own).all(2) & (other > own).any(2)).any(1)


# %% q5 hidden: only who is better in both dominates
def on_front(elbo, d2):
    scores = np.stack([elbo, d2], axis=1)
    return ~(scores[:, None] > scores[None]).all(2).any(0)


# %% q5 hidden: of equals, each puts the other out
def on_front(elbo, d2):
    scores = np.stack([elbo, d2], axis=1)
    as_good = (scores[:, None] >= scores[None]).all(2)
    return as_good.sum(0) == 1


# %% q5 hidden: keeps the first of equals only
def on_front(elbo, d2):
    order, best = np.lexsort((-d2, -elbo)), -np.inf
    kept = np.zeros(len(d2), dtype=bool)
    for i in order:
        kept[i], best = d2[i] > best, max(best, d2[i])
    return kept


# %% q6 visible: compares with where the others ended, which no trial reaches early
def pruned_at(losses, earlier, warmup):
    for epoch in range(warmup, len(losses) + 1):
        if min(losses[:epoch]) > np.median(earlier[:, -1]):
            return epoch
    return 0


# %% q6 visible: counts epochs from 0
def pruned_at(losses, earlier, warmup):
    for epoch in range(warmup - 1, len(losses)):
        if min(losses[: epoch + 1]) > np.median(earlier[:, epoch]):
            return epoch
    return 0


# %% q6 hidden: one bad epoch ends a trial that was good before
def pruned_at(losses, earlier, warmup):
    for epoch in range(warmup, len(losses) + 1):
        if losses[epoch - 1] > np.median(earlier[:, epoch - 1]):
            return epoch
    return 0


# %% q6 hidden: the mean, which one diverged trial carries off
def pruned_at(losses, earlier, warmup):
    for epoch in range(warmup, len(losses) + 1):
        if min(losses[:epoch]) > np.mean(earlier[:, epoch - 1]):
            return epoch
    return 0

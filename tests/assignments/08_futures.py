# %% q1 visible: answers in words
best_forecast = "C is best"

# %% q1 hidden: takes the mean for the best forecast
best_forecast = "a"

# %% q1 hidden: thinks that only the mean counts
best_forecast = "d"


# %% q2 visible: forgets to give back the spread
def energy_score(drawn, true):
    return np.linalg.norm(drawn - true, axis=1).mean()


# %% q2 visible: gives back the whole spread
def energy_score(drawn, true):
    between = np.linalg.norm(drawn[:, None] - drawn[None], axis=2)
    return np.linalg.norm(drawn - true, axis=1).mean() - between.mean()


# %% q2 hidden: counts each draw as its own partner
def energy_score(drawn, true):
    between = np.linalg.norm(drawn[:, None] - drawn[None], axis=2)
    return np.linalg.norm(drawn - true, axis=1).mean() - between.mean() / 2


# %% q2 hidden: adds up absolute differences, which is a distance in one dimension only
def energy_score(drawn, true):
    n = len(drawn)
    between = np.abs(drawn[:, None] - drawn[None]).sum(2)
    return np.abs(drawn - true).sum(1).mean() - between.sum() / max(n * (n - 1), 1) / 2


# %% q3 visible: takes the likeliest fate for the one that came true
def log_loss(probability, fate, floor=0.001):
    return -np.log(probability.max(1).mean())


# %% q3 visible: a logarithm to the base 2
def log_loss(probability, fate, floor=0.001):
    told = probability[np.arange(len(fate)), fate]
    return -np.log2(np.maximum(told, floor)).mean()


# %% q3 hidden: the floor for zeros alone
def log_loss(probability, fate, floor=0.001):
    told = probability[np.arange(len(fate)), fate]
    return -np.log(np.where(told > 0, told, floor)).mean()


# %% q3 hidden: the floor stands, whatever is asked for
def log_loss(probability, fate, floor=0.001):
    told = probability[np.arange(len(fate)), fate]
    return -np.log(np.maximum(told, 0.001)).mean()


# %% q4 visible: bins weigh the same, however few cells they hold
def calibration_error(probability, happened, n_bins=10):
    bins = np.minimum((probability * n_bins).astype(int), n_bins - 1)
    parts = [bins == k for k in np.unique(bins)]
    return np.mean([abs(probability[b].mean() - happened[b].mean()) for b in parts])


# %% q4 visible: overall, where errors of two bins cancel
def calibration_error(probability, happened, n_bins=10):
    return abs(probability.mean() - happened.mean())


# %% q4 hidden: ten bins, whatever is asked for
def calibration_error(probability, happened, n_bins=10):
    bins = np.minimum((probability * 10).astype(int), 9)
    parts = [bins == k for k in np.unique(bins)]
    return sum(b.mean() * abs(probability[b].mean() - happened[b].mean()) for b in parts)


# %% q4 hidden: certain cells have a bin of their own
def calibration_error(probability, happened, n_bins=10):
    bins = (probability * n_bins).astype(int)
    parts = [bins == k for k in np.unique(bins)]
    return sum(b.mean() * abs(probability[b].mean() - happened[b].mean()) for b in parts)


# %% q5 visible: each takes the nearest, and some are taken twice
def pair_days(now, later):
    return ((now[:, None] - later[None]) ** 2).sum(2).argmin(1)


# %% q5 visible: the pairing the wrong way round
def pair_days(now, later):
    cost = ((now[:, None] - later[None]) ** 2).sum(2)
    return linear_sum_assignment(-cost)[1]


# %% q5 hidden: distances, not their squares
def pair_days(now, later):
    return linear_sum_assignment(np.linalg.norm(now[:, None] - later[None], axis=2))[1]


# %% q5 hidden: the first dimension alone
def pair_days(now, later):
    return linear_sum_assignment((now[:, None, 0] - later[None, :, 0]) ** 2)[1]


# %% q6 visible: one long step
def walk(z, drift, sigma, horizon, n_steps, rng):
    return z + horizon * drift(z) + sigma * np.sqrt(horizon) * rng.normal(size=z.shape)


# %% q6 visible: steps of length 1
def walk(z, drift, sigma, horizon, n_steps, rng):
    for _ in range(n_steps):
        z = z + drift(z) + sigma * rng.normal(size=z.shape)
    return z


# %% q6 hidden: noise grows with the step, not with its root
def walk(z, drift, sigma, horizon, n_steps, rng):
    dt = horizon / n_steps
    for _ in range(n_steps):
        z = z + dt * drift(z) + sigma * dt * rng.normal(size=z.shape)
    return z


# %% q6 hidden: takes every step for one of 1 / n_steps
def walk(z, drift, sigma, horizon, n_steps, rng):
    dt = 1 / n_steps
    for _ in range(n_steps):
        z = z + dt * drift(z) + sigma * np.sqrt(dt) * rng.normal(size=z.shape)
    return z

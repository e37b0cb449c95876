# %% q1 visible: answers in words
rises_or_falls = "B rises"

# %% q1 hidden: compares u with s, as if the line were the diagonal
rises_or_falls = "a"

# %% q1 hidden: takes the ratio for the unspliced fraction
rises_or_falls = "c"

# %% q1 hidden: compares with the mean of the cells, as if that were the line
rises_or_falls = "e"


# %% q2 visible: fits all cells, most of which are not at rest
def steady_slope(s, u, quantile=0.95):
    return (s * u).sum(0) / (s * s).sum(0)


# %% q2 visible: a line with an intercept, where the steady state has none
def steady_slope(s, u, quantile=0.95):
    top = s >= np.quantile(s, quantile, axis=0)
    return np.array([np.polyfit(s[t, g], u[t, g], 1)[0] for g, t in enumerate(top.T)])


# %% q2 visible: one threshold for all genes, which only the abundant ones reach
def steady_slope(s, u, quantile=0.95):
    top = s >= np.quantile(s, quantile)
    above, below = (top * s * u).sum(0), (top * s * s).sum(0)
    return np.divide(above, below, out=np.zeros(s.shape[1]), where=below > 0)


# %% q2 hidden: divides by zero for a gene that no cell has
def steady_slope(s, u, quantile=0.95):
    top = s >= np.quantile(s, quantile, axis=0)
    return (top * s * u).sum(0) / (top * s * s).sum(0)


# %% q3 visible: the line the wrong way round
def velocity_from_ratio(total, ratio, gamma):
    spliced = np.nan_to_num(ratio) * total
    return spliced - gamma * (total - spliced)


# %% q3 visible: takes the total for the spliced count
def velocity_from_ratio(total, ratio, gamma):
    return (1 - np.nan_to_num(ratio)) * total - gamma * total


# %% q3 hidden: where nothing was counted, the undefined ratio makes an undefined velocity
def velocity_from_ratio(total, ratio, gamma):
    return total * (1 - ratio) - gamma * total * ratio


# %% q4 visible: counts, not units: the abundant gene decides
def cell_cosine(true, predicted, scale):
    known = np.isfinite(true).all(0) & (scale > 0)
    a, b = true[:, known], np.nan_to_num(predicted[:, known])
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(1), length, out=np.zeros(len(a)), where=length > 0)


# %% q4 visible: one cosine per gene, not per cell
def cell_cosine(true, predicted, scale):
    a, b = true / scale, predicted / scale
    return (a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)


# %% q4 hidden: leaves out what the prediction is silent about, and so rewards silence
def cell_cosine(true, predicted, scale):
    known = np.isfinite(true).all(0) & np.isfinite(predicted).all(0) & (scale > 0)
    a, b = true[:, known] / scale[known], predicted[:, known] / scale[known]
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(1), length, out=np.zeros(len(a)), where=length > 0)


# %% q4 hidden: an arrow without length has no cosine
def cell_cosine(true, predicted, scale):
    known = np.isfinite(true).all(0) & (scale > 0)
    a, b = true[:, known] / scale[known], np.nan_to_num(predicted[:, known]) / scale[known]
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# %% q5 visible: never turns the compass
def turned_accuracy(true, predicted, turns):
    a, b = (np.degrees(np.arctan2(x[:, 0], x[:, 1])) % 360 // 90 for x in (true, predicted))
    return np.mean(a == b)


# %% q5 visible: turns the compass for one of the two only
def turned_accuracy(true, predicted, turns):
    a, b = (np.degrees(np.arctan2(x[:, 0], x[:, 1])) for x in (true, predicted))
    return np.mean([a % 360 // 90 == (b + turn) % 360 // 90 for turn in turns])


# %% q5 visible: reports the turn that looks best
def turned_accuracy(true, predicted, turns):
    a, b = (np.degrees(np.arctan2(x[:, 0], x[:, 1])) for x in (true, predicted))
    return max(np.mean((a + t) % 360 // 90 == (b + t) % 360 // 90) for t in turns)


# %% q5 hidden: does not know that 185° and -175° are one direction
def turned_accuracy(true, predicted, turns):
    a, b = (np.degrees(np.arctan2(x[:, 0], x[:, 1])) for x in (true, predicted))
    return np.mean([(a + turn) // 90 == (b + turn) // 90 for turn in turns])


# %% q6 visible: permutes both alike, so that every cell keeps its partner
def p_value(true, predicted, score, n_draws, rng):
    null = []
    for _ in range(n_draws):
        cells = rng.permutation(len(true))
        null.append(score(true[cells], predicted[cells]))
    return (1 + np.sum(np.array(null) >= score(true, predicted))) / (1 + n_draws)


# %% q6 visible: counts the draws that are worse
def p_value(true, predicted, score, n_draws, rng):
    null = np.array([score(rng.permutation(true), predicted) for _ in range(n_draws)])
    return (1 + np.sum(null <= score(true, predicted))) / (1 + n_draws)


# %% q6 hidden: a draw as good as the field itself does not count
def p_value(true, predicted, score, n_draws, rng):
    null = np.array([score(rng.permutation(true), predicted) for _ in range(n_draws)])
    return (1 + np.sum(null > score(true, predicted))) / (1 + n_draws)


# %% q6 hidden: permutes genes too, which takes away what all cells have in common
def p_value(true, predicted, score, n_draws, rng):
    null = np.array([score(rng.permuted(true), predicted) for _ in range(n_draws)])
    return (1 + np.sum(null >= score(true, predicted))) / (1 + n_draws)


# %% q6 hidden: permutes each gene for itself, which takes a cell's velocity to pieces
def p_value(true, predicted, score, n_draws, rng):
    null = np.array([score(rng.permuted(true, axis=0), predicted) for _ in range(n_draws)])
    return (1 + np.sum(null >= score(true, predicted))) / (1 + n_draws)


# %% q6 visible: forgets that the field itself is one of the draws
def p_value(true, predicted, score, n_draws, rng):
    null = np.array([score(rng.permutation(true), predicted) for _ in range(n_draws)])
    return np.mean(null >= score(true, predicted))

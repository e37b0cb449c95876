# %% q1 visible: a ratio of log-likelihoods, as if a perfect model had 0
def deviance_explained(s, u, p, mean):
    model, null = ((xlogy(s, q) + xlogy(u, 1 - q)).sum() for q in (p, mean))
    return 1 - model / null


# %% q1 hidden: 0 log 0 is NaN
def deviance_explained(s, u, p, mean):
    r = s / np.maximum(s + u, 1)
    best, model, null = ((s * np.log(q) + u * np.log(1 - q)).sum() for q in (r, p, mean))
    return (model - null) / (best - null)


# %% q1 hidden: the average of the genes' own shares
def deviance_explained(s, u, p, mean):
    r = s / np.maximum(s + u, 1)
    best, model, null = ((xlogy(s, q) + xlogy(u, 1 - q)).sum(axis=0) for q in (r, p, mean))
    return np.mean((model - null)[best > null] / (best - null)[best > null])


# %% q1 visible: the share of squared error
def deviance_explained(s, u, p, mean):
    r, n = s / np.maximum(s + u, 1), s + u
    return 1 - (n * (r - p) ** 2).sum() / (n * (r - mean) ** 2).sum()


# %% q2 visible: one correlation over all entries
def within_gene_r(s, u, p):
    n = s + u
    return np.corrcoef(p[n > 0], s[n > 0] / n[n > 0])[0, 1]


# %% q2 hidden: genes without a correlation are left out
def within_gene_r(s, u, p):
    values = []
    for x, a, b in zip(p.T, s.T, u.T, strict=True):
        x, y = x[a + b > 0], (a / np.maximum(a + b, 1))[a + b > 0]
        if np.ptp(x) > 0 and np.ptp(y) > 0:
            values.append(np.corrcoef(x, y)[0, 1])
    return np.mean(values)


# %% q2 hidden: empty entries enter with a ratio of 0
def within_gene_r(s, u, p):
    values = []
    for x, y in zip(p.T, (s / np.maximum(s + u, 1)).T, strict=True):
        varies = np.ptp(x) > 0 and np.ptp(y) > 0
        values.append(np.corrcoef(x, y)[0, 1] if varies else 0.0)
    return np.mean(values)


# %% q3 visible: the interval of two independent means
def paired_interval(a, b):
    margin = t.ppf(0.975, 2 * len(a) - 2) * np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / len(a))
    return (a - b).mean() + margin * np.array([0, -1, 1])


# %% q3 hidden: 1.96, as if the standard deviation were known
def paired_interval(a, b):
    margin = 1.96 * (a - b).std(ddof=1) / np.sqrt(len(a))
    return (a - b).mean() + margin * np.array([0, -1, 1])


# %% q3 hidden: the spread of the differences, not of their mean
def paired_interval(a, b):
    margin = t.ppf(0.975, len(a) - 1) * (a - b).std(ddof=1)
    return (a - b).mean() + margin * np.array([0, -1, 1])


# %% q3 hidden: NumPy's default, which divides by k
def paired_interval(a, b):
    margin = t.ppf(0.975, len(a) - 1) * (a - b).std() / np.sqrt(len(a))
    return (a - b).mean() + margin * np.array([0, -1, 1])


# %% q4 visible: the lowest, as if it were a loss
def honest_score(val, test):
    return test[np.argmin(val.mean(axis=1))].mean()


# %% q4 hidden: chosen on the test cells
def honest_score(val, test):
    return test.mean(axis=1).max()


# %% q4 hidden: another setting for each seed
def honest_score(val, test):
    return np.mean([test[val[:, seed].argmax(), seed] for seed in range(val.shape[1])])


# %% q4 visible: the validation score of the chosen one
def honest_score(val, test):
    return val.mean(axis=1).max()


# %% q5 visible: the negative ELBO
elbo = 1412

# %% q5 hidden: the KL divergence with the weight that it has in the loss
elbo = -1400 - 10 / 50 * 12

# %% q5 hidden: the splicing loss is taken into the bound
elbo = -1400 - 12 - 150

# %% q6 visible: two letters
sentence = "a, d"

# %% q6 hidden: absence of evidence is taken for evidence of absence
sentence = "b"

# %% q6 hidden: an estimate without its interval
sentence = "a"

# %% q6 hidden: the gain over a baseline is put down to one part
sentence = "d"

# %% q1 visible: zero-filled, so that nothing counted reads as all unspliced
def observed_ratio(s, u):
    return s / np.maximum(s + u, 1)


# %% q1 hidden: an entry of unspliced molecules alone is taken for an empty one
def observed_ratio(s, u):
    return np.where(s > 0, s / np.maximum(s + u, 1), np.nan)


# %% q1 visible: the unspliced share
def observed_ratio(s, u):
    return np.where(s + u > 0, u / np.maximum(s + u, 1), np.nan)


# %% q2 visible: averages over genes, a number for each cell
def gene_mean(s, u):
    return s.sum(axis=1) / (s + u).sum(axis=1)


# %% q2 hidden: the average of ratios in place of the ratio of sums
def gene_mean(s, u):
    return np.nanmean(np.where(s + u > 0, s / np.maximum(s + u, 1), np.nan), axis=0)


# %% q2 hidden: a gene without molecules gets 0
def gene_mean(s, u):
    return s.sum(axis=0) / np.maximum((s + u).sum(axis=0), 1)


# %% q3 visible: in per cent
share_at_rest = 94.1

# %% q3 hidden: what the cell holds, not what is counted
share_at_rest = 2 / (2 + 0.5)

# %% q3 hidden: the two rates the wrong way round
share_at_rest = 0.5 / (0.5 + 0.25 * 2)


# %% q4 visible: squared differences of ratios, which forgets that n molecules were averaged
def dispersion(s, u):
    n = s + u
    m = s.sum() / n.sum()
    r = s[n > 0] / n[n > 0]
    return np.sum((r - m) ** 2 / (m * (1 - m))) / (len(r) - 1)


# %% q4 hidden: empty cells are counted in k
def dispersion(s, u):
    n = s + u
    m = s.sum() / n.sum()
    return np.sum((s - n * m) ** 2 / np.maximum(n * m * (1 - m), 1e-9)) / (len(n) - 1)


# %% q4 hidden: m is the average of ratios
def dispersion(s, u):
    s, n = s[s + u > 0], (s + u)[s + u > 0]
    m = np.mean(s / n)
    return np.sum((s - n * m) ** 2 / (n * m * (1 - m))) / (len(n) - 1)


# %% q5 visible: all counts, also where only one form was seen
def choose_genes(s, u, train, least):
    return (s + u)[train].sum(axis=0) >= least


# %% q5 hidden: test cells help to choose
def choose_genes(s, u, train, least):
    return ((s + u) * ((s > 0) & (u > 0))).sum(axis=0) >= least


# %% q5 hidden: more than least, where at least is asked
def choose_genes(s, u, train, least):
    return ((s + u) * ((s > 0) & (u > 0)))[train].sum(axis=0) > least


# %% q6 visible: the offending number, not the letter
impossible = 0.11

# %% q6 hidden: an RMSE above the standard deviation is bad, but possible
impossible = "c"

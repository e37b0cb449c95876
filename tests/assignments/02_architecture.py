# %% q1 visible: softmax over the cells in place of the genes
def shares(f):
    raised = np.exp(f - f.max(axis=0))
    return raised / raised.sum(axis=0)


# %% q1 hidden: the exponential of a large number
def shares(f):
    return np.exp(f) / np.exp(f).sum(axis=1, keepdims=True)


# %% q1 hidden: one shift for all cells, so that those far below it underflow
def shares(f):
    raised = np.exp(f - f.max())
    return raised / raised.sum(axis=1, keepdims=True)


# %% q2 visible: the wrong sign
def kl(mean, sd):
    return (np.log(sd) - (mean**2 + sd**2 - 1) / 2).sum(axis=1)


# %% q2 hidden: the mean over dimensions, where prices add up
def kl(mean, sd):
    return ((mean**2 + sd**2 - 1) / 2 - np.log(sd)).mean(axis=1)


# %% q2 hidden: sd is taken for the variance
def kl(mean, sd):
    return ((mean**2 + sd - 1 - np.log(sd)) / 2).sum(axis=1)


# %% q3 visible: the logit is taken for the probability
def binomial_loss(logit, s, u):
    p = np.clip(logit, 1e-6, 1 - 1e-6)
    return -s * np.log(p) - u * np.log(1 - p)


# %% q3 hidden: the log of a probability that rounds to 0
def binomial_loss(logit, s, u):
    p = 1 / (1 + np.exp(-logit))
    return -s * np.log(p) - u * np.log(1 - p)


# %% q3 hidden: clipped, so that a confident error costs too little
def binomial_loss(logit, s, u):
    p = np.clip(1 / (1 + np.exp(-logit)), 1e-6, 1 - 1e-6)
    return -s * np.log(p) - u * np.log(1 - p)


# %% q3 visible: the mean per molecule in place of the sum
def binomial_loss(logit, s, u):
    return np.logaddexp(0, logit) - s / np.maximum(s + u, 1) * logit


# %% q4 visible: the share, not the number
spare = 0.5

# %% q4 hidden: the biases are forgotten
spare = 500 * 10

# %% q4 hidden: all that it has
spare = 2 * 500 * (10 + 1)


# %% q5 visible: the ratio in place of its logit
def first_bias(s, u):
    overall = s.sum() / (s + u).sum()
    return (s.sum(axis=0) + overall) / ((s + u).sum(axis=0) + 1)


# %% q5 visible: without the additional molecule
def first_bias(s, u):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(s.sum(axis=0) / u.sum(axis=0))


# %% q5 hidden: the additional molecule is always spliced by half
def first_bias(s, u):
    return np.log((s.sum(axis=0) + 0.5) / (u.sum(axis=0) + 0.5))


# %% q6 visible: the sign, downhill in place of the derivative
def pull(s, u, x, w, v):
    return (s - (s + u) / (1 + np.exp(-v * w * x))) * v * x


# %% q6 hidden: the head's weight is missing in the chain
def pull(s, u, x, w, v):
    return ((s + u) / (1 + np.exp(-v * w * x)) - s) * x


# %% q6 hidden: p - r, as if every entry held one molecule
def pull(s, u, x, w, v):
    return (1 / (1 + np.exp(-v * w * x)) - s / (s + u)) * v * x

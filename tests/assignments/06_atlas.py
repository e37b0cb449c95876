# %% q1 visible: multiplies by α in place of the power, which cancels
def turn_shares(n_cells, alpha):
    weights = np.asarray(n_cells) * alpha
    return weights / weights.sum()


# %% q1 visible: powers that do not sum to 1
def turn_shares(n_cells, alpha):
    n_cells = np.asarray(n_cells)
    return (n_cells / n_cells.sum()) ** alpha


# %% q1 hidden: 0 to the power 0 is 1, so that an empty tissue gets a share
def turn_shares(n_cells, alpha):
    weights = np.asarray(n_cells, dtype=float) ** alpha
    return weights / weights.sum()


# %% q2 visible: rounded shares, which need not sum to n
def deal(n, capacity, weights):
    return np.minimum(capacity, np.round(n * weights / weights.sum())).astype(int)


# %% q2 visible: everybody in turn, whatever the weights
def deal(n, capacity, weights):
    given = np.zeros(len(capacity), dtype=int)
    for _ in range(n):
        given[np.argmin(np.where(given < capacity, given, np.inf))] += 1
    return given


# %% q2 hidden: cuts off at the capacity and deals the rest to nobody
def deal(n, capacity, weights):
    given = np.zeros(len(capacity), dtype=int)
    for _ in range(n):
        given[np.argmin((given + 0.5) / weights)] += 1
    return np.minimum(given, capacity)


# %% q2 hidden: the k-th turn at k / w, which favours the heavy
def deal(n, capacity, weights):
    given = np.zeros(len(capacity), dtype=int)
    for _ in range(n):
        given[np.argmin(np.where(given < capacity, (given + 1) / weights, np.inf))] += 1
    return given


# %% q3 visible: draws samples, so that datasets are torn apart
def held_out(dataset, n_cells, share, rng):
    left, out = share * n_cells.sum(), np.zeros(len(dataset), dtype=bool)
    for i in rng.permutation(len(dataset)):
        if n_cells[i] <= left:
            out[i], left = True, left - n_cells[i]
    return out


# %% q3 visible: a share of the datasets, however large they are
def held_out(dataset, n_cells, share, rng):
    names = rng.permutation(np.unique(dataset))
    return np.isin(dataset, names[: round(share * len(names))])


# %% q3 hidden: stops at the first dataset that does not fit
def held_out(dataset, n_cells, share, rng):
    left, out = share * n_cells.sum(), np.zeros(len(dataset), dtype=bool)
    for name in rng.permutation(np.unique(dataset)):
        if n_cells[dataset == name].sum() > left:
            break
        out[dataset == name] = True
        left -= n_cells[dataset == name].sum()
    return out


# %% q3 hidden: always in the same order, whatever the generator
def held_out(dataset, n_cells, share, rng):
    left, out = share * n_cells.sum(), np.zeros(len(dataset), dtype=bool)
    for name in np.unique(dataset):
        size = n_cells[dataset == name].sum()
        if size <= left:
            out[dataset == name], left = True, left - size
    return out


# %% q3 hidden: draws from NumPy's global state, so that no seed repeats the split
def held_out(dataset, n_cells, share, rng):
    left, out = share * n_cells.sum(), np.zeros(len(dataset), dtype=bool)
    for name in np.random.permutation(np.unique(dataset)):
        size = n_cells[dataset == name].sum()
        if size <= left:
            out[dataset == name], left = True, left - size
    return out


# %% q4 visible: every rank shuffles for itself, so that they read the same cells
def my_cells(n_cells, rank, world, epoch, seed=0):
    order = np.random.default_rng([seed, epoch, rank]).permutation(n_cells)
    return order[rank::world]


# %% q4 visible: does not shuffle
def my_cells(n_cells, rank, world, epoch, seed=0):
    return np.arange(n_cells)[rank::world]


# %% q4 hidden: the remainder is read by nobody
def my_cells(n_cells, rank, world, epoch, seed=0):
    order = np.random.default_rng([seed, epoch]).permutation(n_cells)
    each = n_cells // world
    return order[rank * each : (rank + 1) * each]


# %% q4 hidden: the remainder goes to the last rank, for which the others wait
def my_cells(n_cells, rank, world, epoch, seed=0):
    order = np.random.default_rng([seed, epoch]).permutation(n_cells)
    each = n_cells // world
    return order[rank * each : (rank + 1) * each if rank < world - 1 else None]


# %% q4 hidden: adds seed and epoch, so that the second epoch of one seed is the first of the next
def my_cells(n_cells, rank, world, epoch, seed=0):
    return np.random.default_rng(seed + epoch).permutation(n_cells)[rank::world]


# %% q4 hidden: the same order in every epoch
def my_cells(n_cells, rank, world, epoch, seed=0):
    return np.random.default_rng(seed).permutation(n_cells)[rank::world]


# %% q5 visible: bits in place of nats
def mean_entropy(tissue, batch_size):
    batches = [tissue[i : i + batch_size] for i in range(0, len(tissue), batch_size)]
    shares = [np.unique(b, return_counts=True)[1] / len(b) for b in batches]
    return np.mean([-(p * np.log2(p)).sum() for p in shares])


# %% q5 visible: the entropy of all cells, which does not see the order
def mean_entropy(tissue, batch_size):
    p = np.unique(tissue, return_counts=True)[1] / len(tissue)
    return -(p * np.log(p)).sum()


# %% q5 hidden: divides the last, shorter minibatch by the size of a full one
def mean_entropy(tissue, batch_size):
    batches = [tissue[i : i + batch_size] for i in range(0, len(tissue), batch_size)]
    shares = [np.unique(b, return_counts=True)[1] / batch_size for b in batches]
    return np.mean([-(p * np.log(p)).sum() for p in shares])


# %% q5 hidden: leaves the last, shorter minibatch out
def mean_entropy(tissue, batch_size):
    full = len(tissue) // batch_size * batch_size
    shares = [
        np.unique(b, return_counts=True)[1] / batch_size
        for b in np.reshape(tissue[:full], (-1, batch_size))
    ]
    return np.mean([-(p * np.log(p)).sum() for p in shares])


# %% q6 visible: so many seconds per cell, as if starting took no time
def foretell(cells, seconds, n):
    *_, largest = np.argsort(cells)
    rate = np.delete(seconds, largest).sum() / np.delete(cells, largest).sum()
    return rate * n, rate * cells[largest] / seconds[largest] - 1


# %% q6 hidden: a line through all sizes, so that nothing is left to check it on
def foretell(cells, seconds, n):
    line = np.polynomial.Polynomial.fit(cells, seconds, 1)
    largest = np.argmax(cells)
    return line(n), line(cells[largest]) / seconds[largest] - 1


# %% q6 hidden: holds the last size for the largest
def foretell(cells, seconds, n):
    line = np.polynomial.Polynomial.fit(cells[:-1], seconds[:-1], 1)
    return line(n), line(cells[-1]) / seconds[-1] - 1

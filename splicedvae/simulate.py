r"""The simulated pancreas: branching splicing kinetics whose velocity is known.

Every gene follows the kinetics of RNA velocity (La Manno et al. 2018, Bergen et al. 2020),

.. math::
    \frac{du}{dt} = \alpha(t) - \beta u, \qquad \frac{ds}{dt} = \beta u - \gamma s,

along Ductal → Ngn3 low EP → Ngn3 high EP → Pre-endocrine → {Alpha, Beta, Delta, Epsilon}.
Time is measured in units of :math:`1/\beta`, so :math:`\beta = 1`. The transcription rate
:math:`\alpha` is piecewise constant: a gene has a low and a high rate, and in most stages it
changes to the other one after a delay of its own. On each piece the solution is exact,

.. math::
    u(t) &= u_0 e^{-\beta t} + \tfrac{\alpha}{\beta}(1 - e^{-\beta t}), \\
    s(t) &= s_0 e^{-\gamma t} + \tfrac{\alpha}{\gamma}(1 - e^{-\gamma t})
            + (\alpha - \beta u_0) \frac{e^{-\gamma t} - e^{-\beta t}}{\gamma - \beta},

and each stage starts where its parent ended, so u and s are continuous over branch points.

**What is captured.** A gene's molecules are seen with efficiency :math:`w` when spliced and
:math:`w e` when unspliced, so its expected counts in a cell of size factor 1 (which is what
size-normalised means here) are :math:`S = w s` and :math:`U = w e u`. In scVelo's steady state
:math:`U = \gamma' S` the slope is therefore :math:`\gamma' = e \gamma / \beta`, and its velocity

.. math::
    U - \gamma' S = w e \, \bigl(u - \tfrac{\gamma}{\beta} s\bigr)
                  = \frac{w e}{\beta} \frac{ds}{dt} = \frac{e}{\beta} \frac{dS}{dt}.

**Noise.** All factors below are random with mean 1, and the kinetics are linear in
:math:`\alpha`, so S and U are the expectations of the counts.

1. Bursts: in each cell and gene a gamma-distributed factor multiplies :math:`\alpha` during the
   last :math:`\tau` (at most since the latest change of rate). u has little memory and changes
   more than s, so the spliced fraction is not a function of the cell's state.
2. Extra-binomial noise: gamma-distributed factors, one for spliced and one for unspliced, make
   the counts wider than Poisson, and the spliced count, given the total, wider than binomial.
3. Cells: log-normal factors, one for depth and one for the capture of unspliced molecules.

**Chromatin.** It can come first (MultiVelo, Li et al. 2023): a gene's chromatin opens and closes at
rates :math:`\kappa` of its own, and transcription follows it,

.. math:: \frac{dc}{dt} = \kappa\, (c_\infty - c), \qquad
          \alpha(t) = \alpha_\text{low} +
              (\alpha_\text{high} - \alpha_\text{low})\, c(t - \text{lag}),

with :math:`c_\infty` 1 where the gene has its high rate and 0 where it has its low one. A switch
of chromatin does not leave its stage, so near a stage's start the lag is shorter. The bursts of
transcription may show in the counts of chromatin too, as if it were open only while they last.
"""

from __future__ import annotations

from functools import partial
from numbers import Integral

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.sparse import csr_matrix
from scipy.special import exprel
from scipy.stats import laplace

# Stage: (parent, share of cells, duration in 1/beta). Shares: mouse pancreas at E15.5, 3,696 cells
# (Bastidas-Ponce et al. 2019). Durations grow with the shares, so cells are evenly spread in time;
# they are long against 1/beta and 1/gamma, so that genes reach the steady states that scVelo needs.
STAGES: dict[str, tuple[str | None, float, float]] = {
    "Ductal": (None, 0.248, 16.0),
    "Ngn3 low EP": ("Ductal", 0.071, 7.0),
    "Ngn3 high EP": ("Ngn3 low EP", 0.174, 12.0),
    "Pre-endocrine": ("Ngn3 high EP", 0.160, 12.0),
    "Beta": ("Pre-endocrine", 0.160, 13.0),
    "Alpha": ("Pre-endocrine", 0.130, 13.0),
    "Delta": ("Pre-endocrine", 0.019, 13.0),
    "Epsilon": ("Pre-endocrine", 0.038, 13.0),
}
MIN_CELLS_PER_CLUSTER = 3  # one each for train, validation and test
FIRST_PROGRESS = 0.15  # of Ductal: before it, most genes rest and velocity has no direction

# Kinetics. The shape of the data (clusters, share of deviance explained) follows from these.
GAMMA_MEDIAN, GAMMA_LOG_SD = 1.2, 0.3  # degradation in units of beta
FOLD_LOG_SD = 1.85  # fold change between a gene's two rates is exp(|normal|)
SWITCH_SHARE = 0.75  # share of genes that change their rate in a stage
INDUCED_BY = 0.4  # inductions come in this first part of a stage: cells still see the new level

#: What a stage does to each gene, in ``varm``, genes × stages: u and s at its start, the rates of
#: transcription before and after the switch, and when that comes.
KINETICS = ("unspliced_start", "spliced_start", "rate_before", "rate_after", "switch_delay")

# Counts, matched to those cells on the 1,126 genes (of a published 2,000) with at least 20 shared
# counts; measured there: 2.34 counts per cell and gene, standard deviation of log depth 0.28,
# 38 % zeros in S + U, 18 % unspliced (16 % over all genes), median excess dispersion 0.31.
COUNTS_PER_GENE = 2.2
GENE_LOG_SCALE = 0.7  # Laplace scale of genes' log mean counts: decides the zeros
DEPTH_LOG_SD = 0.26
UNSPLICED_FRACTION = 0.172  # before the gene filter, which raises it
UNSPLICED_LOG_SD = 2.5  # of log e (real quartiles over genes of U / (S + U): 0.01 and 0.42)
UNSPLICED_LOG_SLOPE = -0.8  # of log e on log mean counts: abundant genes are more spliced
UNSPLICED_CELL_LOG_SD = 0.3  # real standard deviation of log U / S within clusters: 0.21 to 0.31
BURST_WINDOW = 0.5  # tau, in 1/beta
BURST_SHAPE = 0.5  # of the gamma distribution; variance 1 / shape, most cells between bursts
CAPTURE_SHAPE = 20.0  # of the extra-binomial noise; variance 1 / shape

# Chromatin.
CLOSING, KAPPA_LOG_SD = (
    0.75,
    0.3,
)  # median rate, as a share of that of opening; its spread over genes
CLOSED = 0.1  # counts in closed chromatin, as a share of those in open one
CHROMATIN_LOG_SD = 0.7  # of genes' log mean counts
CHROMATIN_DEPTH_LOG_SD = 0.4  # of cells' log depth


def kinetics(
    u0: ArrayLike, s0: ArrayLike, alpha: ArrayLike, gamma: ArrayLike, t: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Unspliced and spliced abundance after time ``t`` at a constant transcription rate.

    Parameters
    ----------
    u0, s0
        Abundances at time 0.
    alpha
        Transcription rate, molecules per 1/beta.
    gamma
        Degradation rate in units of beta, > 0.
    t
        Time in 1/beta, >= 0. All arguments are numbers or arrays and broadcast.

    Returns
    -------
    u, s
        Exact solution of du/dt = alpha - u, ds/dt = u - gamma s, also where gamma = beta = 1
        (La Manno et al. 2018; Bergen et al. 2020).
    """
    decay_u, decay_s = np.exp(-t), np.exp(-gamma * t)
    # (exp(-gamma t) - exp(-t)) / (gamma - 1), without the 0 / 0 at gamma = 1
    passed_on = -t * decay_u * exprel((1 - gamma) * t)
    u = u0 * decay_u + alpha * (1 - decay_u)
    s = s0 * decay_s + alpha / gamma * (1 - decay_s) + (alpha - u0) * passed_on
    return u, s


def following(
    u0: ArrayLike,
    s0: ArrayLike,
    alpha0: ArrayLike,
    alpha: ArrayLike,
    kappa: ArrayLike,
    gamma: ArrayLike,
    t: ArrayLike,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""The same while the rate itself moves, :math:`d\alpha/dt = \kappa(\alpha_\infty - \alpha)`.

    Parameters
    ----------
    u0, s0, alpha0
        Abundances and transcription rate at time 0.
    alpha
        The rate it moves to.
    kappa
        How fast, in units of beta, > 0 and not 1.
    gamma, t
        As in :func:`kinetics`.

    Returns
    -------
    u, s, alpha
        At time `t`: :func:`kinetics` at the rate `alpha`, and what the rest of the old rate adds.
    """

    def passed(a: ArrayLike, b: ArrayLike) -> np.ndarray:
        return t * np.exp(-b * t) * exprel((b - a) * t)  # (exp(-a t) - exp(-b t)) / (b - a)

    u, s = kinetics(u0, s0, alpha, gamma, t)
    rest = alpha0 - alpha
    u = u + rest * passed(kappa, 1.0)
    s = s + rest * (passed(kappa, gamma) - passed(1.0, gamma)) / (1 - kappa)
    return u, s, alpha + rest * np.exp(-kappa * t)


def simulate(
    n_obs: int = 3000,
    n_vars: int = 1000,
    seed: int = 0,
    programme_seed: int | None = None,
    chromatin: bool = False,
    chromatin_lag: float = 0.0,
    chromatin_counts: float = 2.0,
    chromatin_rate: float = 1.0,
    chromatin_bursts: float = 0.0,
) -> AnnData:
    """Simulate the pancreas: counts of branching splicing kinetics with known velocity.

    The equations stand at the head of this module. Depth, sparsity, unspliced fraction and
    overdispersion match real cells of the mouse pancreas at E15.5.

    Parameters
    ----------
    n_obs
        Number of cells, >= 50.
    n_vars
        Number of genes, >= 1.
    seed
        Seed of every random draw; same sizes and seed give the same data.
    programme_seed
        Another tissue: the genes of `seed` with their own kinetics and capture (rates of
        transcription and degradation, w, e), whose switches between the two rates, and the cells
        and their noise, are drawn anew. None for the pancreas itself.
    chromatin
        Let transcription follow chromatin, which opens and closes at rates of its own, and
        count what is open. Such cells have no :func:`futures_true`.
    chromatin_lag
        By how much chromatin is ahead of transcription, in 1/beta; below 0, it is late.
    chromatin_counts
        Mean count of open chromatin of a gene in a cell: the fewer, the noisier.
    chromatin_rate
        Median rate at which chromatin opens, in units of beta; it closes at three quarters of it.
        Where it is slow, so is transcription, and the two forms stay close to their steady state.
    chromatin_bursts
        Share of a burst of transcription that shows in the gene's chromatin, from 0 to 1: whether
        chromatin tells of the cell's own moment, or only of its place in the programme.

    Returns
    -------
    AnnData of shape (n_obs, n_vars) with

    - ``layers["spliced"]``, ``layers["unspliced"]``: counts, CSR of int32; ``X`` is the spliced;
    - ``layers["spliced_true"]``, ``layers["unspliced_true"]``: their expectation in a cell of
      size factor 1 (float32), the size-normalised counts without noise;
    - ``layers["velocity_true"]``: unspliced_true - gamma_true * spliced_true (float32),
      counts per 1/beta, scVelo's units;
    - ``obs["clusters"]``, ``obs["time_true"]`` (1/beta since the start of Ductal;
      it goes on counting along each lineage);
    - ``var["gamma_true"]``: e gamma / beta, the slope that scVelo fits;
    - the kinetics, from which :func:`futures_true` continues: ``var`` ``degradation`` (gamma),
      ``capture`` (w) and ``capture_ratio`` (e), and ``varm`` of ``KINETICS``, genes × stages;
    - ``uns["provenance"]``;
    - with `chromatin`, ``layers["chromatin"]``, counts, CSR of int32, and
      ``layers["chromatin_true"]``, how open it is, from 0 to 1; and no kinetics in ``varm``.

    Raises
    ------
    ValueError
        If a size or a seed is not an integer or is too small, or a lag, a mean count or a rate is
        no finite number, or none above 0, or a share is none.
    """
    given = [("n_obs", n_obs, 50), ("n_vars", n_vars, 1), ("seed", seed, 0)]
    if programme_seed is not None:
        given.append(("programme_seed", programme_seed, 0))
    for name, value, least in given:
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")
    above_0 = {"chromatin_counts": chromatin_counts, "chromatin_rate": chromatin_rate}
    if wrong := [f"{k}={v}" for k, v in above_0.items() if not 0 < v < np.inf]:
        raise ValueError(f"{' and '.join(wrong)} must be finite numbers above 0.")
    if not np.isfinite(chromatin_lag):
        raise ValueError(f"chromatin_lag={chromatin_lag} must be a finite time.")
    if not 0 <= chromatin_bursts <= 1:
        raise ValueError(f"chromatin_bursts={chromatin_bursts} must be a share, from 0 to 1.")
    rng = np.random.default_rng(seed)
    cluster, progress = _place_cells(n_obs, rng)
    gamma = GAMMA_MEDIAN * rng.lognormal(0, GAMMA_LOG_SD, n_vars)
    high = np.exp(np.abs(rng.normal(0, FOLD_LOG_SD, n_vars)))
    walk = _trajectories
    if chromatin:
        rate = chromatin_rate
        walk = partial(_open_trajectories, high=high, lag=chromatin_lag, rate=rate, seed=seed)
    *states, more, time = walk(cluster, progress, gamma, _programme(high, rng))
    w, e = _capture(states[0].mean(0), states[1].mean(0), rng)
    title = "simulated pancreas"
    if programme_seed is not None:
        title = f"simulated tissue {programme_seed}"
        rng = np.random.default_rng((seed, programme_seed))
        cluster, progress = _place_cells(n_obs, rng)
        *states, more, time = walk(cluster, progress, gamma, _programme(high, rng))
    burst = _bursts(states[0].shape, rng)
    layers = _layers(*states, gamma, w, e, burst, rng)
    if chromatin:
        layers |= _open_layers(more, chromatin_counts, 1 + chromatin_bursts * (burst - 1), rng)
    return AnnData(
        X=layers["spliced"].copy(),
        layers=layers,
        obs=pd.DataFrame(
            {"clusters": pd.Categorical(cluster, categories=list(STAGES)), "time_true": time},
            index=[f"cell_{i:05d}" for i in range(1, n_obs + 1)],
        ),
        var=pd.DataFrame(
            {"gamma_true": e * gamma, "degradation": gamma, "capture": w, "capture_ratio": e},
            index=[f"sim_{i:04d}" for i in range(1, n_vars + 1)],
        ),
        varm=None if chromatin else more,
        uns={
            "provenance": {
                "source": "simulated",
                "simulated": True,
                "name": title,
                "seed": int(seed),
                "n_obs": int(n_obs),
                "n_vars": int(n_vars),
            }
        },
    )


def futures_true(adata: AnnData, horizon: float, n: int = 1, seed: int = 0) -> AnnData:
    """Draw where simulated cells are after some time, from their known kinetics.

    A cell at a branch point takes each branch as often as the branch has cells. At the end of a
    lineage it keeps its last rates of transcription.

    Parameters
    ----------
    adata
        Cells from :func:`simulate`, or some of them, or some of their genes.
    horizon
        Time ahead, in 1/beta.
    n
        Draws per cell.
    seed
        Of the branches and of the counts.

    Returns
    -------
    AnnData of shape (n × cells, genes), first all cells of the first draw. Its layers and
    ``obs`` are as those of :func:`simulate`: expectations, and counts with their noise.
    ``obs["origin"]`` names the cell and ``obs["draw"]`` counts draws.

    Raises
    ------
    KeyError
        The cells do not say their kinetics: they were not simulated, or by an older version.
    ValueError
        The horizon is not a finite time from 0 on, or `n` is below 1.
    """
    wanted = {"degradation", "capture", "capture_ratio"} - set(adata.var) | (
        set(KINETICS) - set(adata.varm)
    )
    wanted |= {"clusters", "time_true"} - set(adata.obs)
    if wanted:
        raise KeyError(
            f"These cells do not say {sorted(wanted)}: only cells of sv.data.simulate have known "
            "futures."
        )
    if not (np.isfinite(horizon) and horizon >= 0) or n < 1:
        raise ValueError(f"horizon={horizon}, n={n}: give a time from 0 on and one draw or more.")
    rng = np.random.default_rng(seed)
    names = list(STAGES)
    stage = np.tile(adata.obs["clusters"].astype(str).map(names.index).to_numpy(), n)
    starts: dict[str | None, float] = {}
    for name, (parent, _, _) in STAGES.items():
        starts[name] = starts[parent] + STAGES[parent][2] if parent else 0.0
    start = np.array(list(starts.values()))
    t = np.tile(adata.obs["time_true"].to_numpy(), n) - start[stage] + horizon
    for k, name in enumerate(names):  # parents come first
        children = [i for i, child in enumerate(names) if STAGES[child][0] == name]
        if not children:
            continue
        leaves = np.flatnonzero((stage == k) & (t >= STAGES[name][2]))
        shares = np.array([STAGES[names[i]][1] for i in children])
        stage[leaves] = rng.choice(children, len(leaves), p=shares / shares.sum())
        t[leaves] -= STAGES[name][2]

    gamma = adata.var["degradation"].to_numpy()
    states = np.empty((4, len(stage), adata.n_vars))
    for k in np.unique(stage):
        here = stage == k
        kinetic = [np.asarray(adata.varm[name])[:, k] for name in KINETICS]
        states[:, here] = _states(t[here][:, None], *kinetic, gamma)
    w, e = (adata.var[name].to_numpy() for name in ("capture", "capture_ratio"))
    burst = _bursts(states[0].shape, rng)
    layers = _layers(*states, gamma, w, e, burst, rng)
    draw = np.repeat(np.arange(n), adata.n_obs)
    origin = np.tile(adata.obs_names, n)
    obs = pd.DataFrame(
        {
            "clusters": pd.Categorical(np.array(names)[stage], categories=names),
            "time_true": start[stage] + t,
            "origin": origin,
            "draw": draw,
        },
        index=[f"{cell}, future {k + 1}" for cell, k in zip(origin, draw, strict=True)],
    )
    provenance = adata.uns.get("provenance", {}) | {"n_obs": len(obs), "simulated": True}
    return AnnData(
        layers["spliced"].copy(),
        layers=layers,
        obs=obs,
        var=adata.var.copy(),
        uns={"provenance": provenance},
    )


def _place_cells(n_obs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cluster of each cell, in the real shares, and its progress through it in [0, 1)."""
    shares = np.array([share for _, share, _ in STAGES.values()])
    sizes = np.maximum(np.floor(shares * n_obs).astype(int), MIN_CELLS_PER_CLUSTER)
    sizes[0] += n_obs - sizes.sum()  # Ductal, the largest, takes what rounding leaves
    cluster = rng.permutation(np.repeat(list(STAGES), sizes))
    first = np.where(cluster == "Ductal", FIRST_PROGRESS, 0.0)
    return cluster, first + (1 - first) * rng.random(n_obs)


def _states(
    t: np.ndarray,
    u0: np.ndarray,
    s0: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    delay: np.ndarray,
    gamma: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """u and s (cells, genes) at times t (cells, 1) of a stage, and their part of BURST_WINDOW."""
    at_switch = kinetics(u0, s0, before, gamma, np.minimum(t, delay))
    u, s = kinetics(*at_switch, after, gamma, np.maximum(t - delay, 0))
    switched = t > delay
    recent = np.minimum(np.where(switched, t - delay, t), BURST_WINDOW)
    alpha = np.where(switched, after, before)
    return u, s, *kinetics(0.0, 0.0, alpha, gamma, recent)


def _bursts(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Factors of the rate of transcription in the last BURST_WINDOW, of mean 1."""
    return rng.gamma(BURST_SHAPE, 1 / BURST_SHAPE, shape)


def _layers(
    u: np.ndarray,
    s: np.ndarray,
    recent_u: np.ndarray,
    recent_s: np.ndarray,
    gamma: np.ndarray,
    w: np.ndarray,
    e: np.ndarray,
    burst: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, csr_matrix | np.ndarray]:
    """Counts of cells in these states, with their noise, and the expectations."""
    spliced_true, unspliced_true = w * s, w * e * u
    burst = burst - 1
    noise_s, noise_u = rng.gamma(CAPTURE_SHAPE, 1 / CAPTURE_SHAPE, (2, *u.shape))
    size = _mean_one_lognormal(DEPTH_LOG_SD, len(u), rng)
    size_u = size * _mean_one_lognormal(UNSPLICED_CELL_LOG_SD, len(u), rng)
    spliced = rng.poisson(size * (spliced_true + burst * w * recent_s) * noise_s)
    unspliced = rng.poisson(size_u * (unspliced_true + burst * w * e * recent_u) * noise_u)
    truth = {
        "spliced_true": spliced_true,
        "unspliced_true": unspliced_true,
        "velocity_true": unspliced_true - e * gamma * spliced_true,
    }
    return {
        "spliced": csr_matrix(spliced.astype(np.int32)),
        "unspliced": csr_matrix(unspliced.astype(np.int32)),
    } | {name: layer.astype(np.float32) for name, layer in truth.items()}


def _programme(high: np.ndarray, rng: np.random.Generator) -> dict[str, tuple[np.ndarray, ...]]:
    """Each gene's rates in each stage, before and after its switch, and when that comes."""
    n_vars, low = len(high), 1.0
    ends = {None: np.where(rng.random(len(high)) < 0.5, low, high)}
    programme = {}
    for stage, (parent, _, duration) in STAGES.items():
        before = ends[parent]
        after = np.where(rng.random(n_vars) < SWITCH_SHARE, low + high - before, before)
        latest = np.where(after > before, INDUCED_BY, 1.0)
        programme[stage] = before, after, duration * latest * rng.random(n_vars)
        ends[stage] = after
    return programme


def _trajectories(
    cluster: np.ndarray,
    progress: np.ndarray,
    gamma: np.ndarray,
    programme: dict[str, tuple[np.ndarray, ...]],
) -> tuple:
    """u and s (cells, genes), their part of BURST_WINDOW, KINETICS, and time (cells,)."""
    n_vars = len(gamma)
    states = np.empty((4, len(cluster), n_vars))
    time = np.empty(len(cluster))
    alpha = programme["Ductal"][0]
    ends = {None: (alpha, alpha / gamma, 0.0)}  # in steady state before Ductal
    stages = {name: np.empty((n_vars, len(STAGES))) for name in KINETICS}
    for k, (stage, (parent, _, duration)) in enumerate(STAGES.items()):
        u0, s0, start = ends[parent]
        kinetic = u0, s0, *programme[stage]
        for name, values in zip(KINETICS, kinetic, strict=True):
            stages[name][:, k] = values

        here = cluster == stage
        # the last row is the end of the stage, where its children start
        t = np.append(progress[here], 1.0)[:, None] * duration
        found = _states(t, *kinetic, gamma)
        ends[stage] = (found[0][-1], found[1][-1], start + duration)
        states[:, here] = np.stack(found)[:, :-1]
        time[here] = start + t[:-1, 0]
    return *states, stages, time


def _open_trajectories(
    cluster: np.ndarray,
    progress: np.ndarray,
    gamma: np.ndarray,
    programme: dict[str, tuple[np.ndarray, ...]],
    high: np.ndarray,
    lag: float,
    rate: float,
    seed: int,
) -> tuple:
    """The same where transcription follows chromatin; c (cells, genes) instead of KINETICS."""
    rng = np.random.default_rng((seed, 1))  # of its own: all else is drawn as without chromatin
    opening, closing = rate * np.exp(rng.normal(0, KAPPA_LOG_SD, (2, len(gamma))))
    closing = closing * CLOSING

    def relax(c, target, t):
        return target + (c - target) * np.exp(-np.where(target > 0, opening, closing) * t)

    def state(t, u, s, alpha, c, before, after, delay, duration):
        switch = np.clip(delay - lag, 0, duration)  # of chromatin
        is_open = [(rate > 1).astype(float) for rate in (before, after)]
        c = relax(c, is_open[0], np.minimum(t, switch))
        c = relax(c, is_open[1], np.maximum(t - switch, 0))
        for rate, how_long in ((before, np.minimum(t, delay)), (after, np.maximum(t - delay, 0))):
            kappa = np.where(rate > 1, opening, closing)
            u, s, alpha = following(u, s, alpha, rate, kappa, gamma, how_long)
        return u, s, alpha, c

    states = np.empty((5, len(cluster), len(gamma)))
    time = np.empty(len(cluster))
    alpha = programme["Ductal"][0]
    ends = {None: ((alpha, alpha / gamma, alpha, (alpha > 1).astype(float)), 0.0)}
    for stage, (parent, _, duration) in STAGES.items():
        at_start, start = ends[parent]
        here = cluster == stage
        t = np.append(progress[here], 1.0)[:, None] * duration
        u, s, alpha, c = state(t, *at_start, *programme[stage], duration)
        ends[stage] = ((u[-1], s[-1], alpha[-1], c[-1]), start + duration)
        recent = kinetics(0.0, 0.0, alpha, gamma, np.minimum(t, BURST_WINDOW))
        recent = np.minimum(recent, (u, s))  # a rate that rises was lower in that time
        states[:, here] = np.stack([u, s, *recent, c])[:, :-1]
        time[here] = start + t[:-1, 0]
    return *states, time


def _open_layers(
    c: np.ndarray, mean: float, burst: np.ndarray, rng: np.random.Generator
) -> dict[str, csr_matrix | np.ndarray]:
    """Counts of open chromatin, and how open it is in expectation."""
    rate = _mean_one_lognormal(CHROMATIN_LOG_SD, c.shape[1], rng).T * (CLOSED + c * burst)
    rate = mean * rate / rate.mean()
    counts = rng.poisson(_mean_one_lognormal(CHROMATIN_DEPTH_LOG_SD, len(c), rng) * rate)
    return {"chromatin": csr_matrix(counts.astype(np.int32)), "chromatin_true": c.astype("f4")}


def _capture(
    u: np.ndarray, s: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Efficiencies (w, e) per gene, given its mean u and s: genes' mean counts, U's share."""
    n_vars = len(u)
    # quantiles, not draws: one very abundant gene would change the sparsity of all others
    log_mean = rng.permutation(laplace.ppf((np.arange(n_vars) + 0.5) / n_vars)) * GENE_LOG_SCALE
    mean = np.exp(log_mean) * COUNTS_PER_GENE / np.exp(log_mean).mean()
    log_e = rng.normal(UNSPLICED_LOG_SLOPE * log_mean, UNSPLICED_LOG_SD)

    def excess(shift):
        unspliced = np.exp(log_e + shift) * u
        return np.average(unspliced / (s + unspliced), weights=mean) - UNSPLICED_FRACTION

    e = np.exp(log_e + brentq(excess, -30, 30))
    return mean / (s + e * u), e


def _mean_one_lognormal(log_sd: float, n_obs: int, rng: np.random.Generator) -> np.ndarray:
    """Log-normal factors of mean 1, shape (n_obs, 1)."""
    return rng.lognormal(-(log_sd**2) / 2, log_sd, (n_obs, 1))

r"""The simulated pancreas: branching splicing kinetics whose velocity is known.

Every gene follows the kinetics of RNA velocity (La Manno et al. 2018, Bergen et al. 2020),

.. math::
    \frac{du}{dt} = \alpha(t) - \beta u, \qquad \frac{ds}{dt} = \beta u - \gamma s,

along Ductal → Ngn3 low EP → Ngn3 high EP → Pre-endocrine → {Alpha, Beta, Delta, Epsilon}.
Time is measured in units of :math:`1/\beta`, so :math:`\beta = 1`. The transcription rate
:math:`\alpha` is piecewise constant: each stage gives a gene a new rate, which it takes up after
a delay of its own. On each piece the solution is exact,

.. math::
    u(t) &= u_0 e^{-\beta t} + \tfrac{\alpha}{\beta}(1 - e^{-\beta t}), \\
    s(t) &= s_0 e^{-\gamma t} + \tfrac{\alpha}{\gamma}(1 - e^{-\gamma t})
            + (\alpha - \beta u_0) \frac{e^{-\gamma t} - e^{-\beta t}}{\gamma - \beta},

and each stage starts where its parent ended, so u and s are continuous over branch points.

**What is captured.** A gene's molecules are seen with efficiency :math:`w` when spliced and
:math:`w e` when unspliced, so the expected, size-normalised counts of a cell of size factor
:math:`k` are :math:`S = k w s` and :math:`U = k w e u`. scVelo's steady state
:math:`U = \gamma' S` has :math:`\gamma' = e \gamma / \beta`, hence its velocity is

.. math::
    U - \gamma' S = k w e \, (u - \tfrac{\gamma}{\beta} s) = \frac{k w e}{\beta} \frac{ds}{dt}.

**Noise.** (1) Bursts: in each cell and gene a gamma-distributed factor of mean 1 multiplies
:math:`\alpha` during the last :math:`\tau` of the current piece; u has little memory and changes
more than s, so the spliced fraction is not a function of the cell's state. (2) Gamma-distributed
factors of mean 1, one for spliced and one for unspliced, make the counts negative binomial and
the spliced count, given the total, wider than binomial. (3) Depth is log-normal, counts are
Poisson. All factors have mean 1 and the kinetics are linear in :math:`\alpha`: the noise-free
trajectory is the expectation.
"""

from __future__ import annotations

from numbers import Integral

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix
from scipy.special import exprel

# Stage: (parent, share of cells, duration in 1/beta). Shares: mouse pancreas E15.5, 3,696 cells
# (Bastidas-Ponce et al. 2019). Durations follow the shares, so that cells per unit of time are even.
STAGES: dict[str, tuple[str | None, float, float]] = {
    "Ductal": (None, 0.248, 6.0),
    "Ngn3 low EP": ("Ductal", 0.071, 2.5),
    "Ngn3 high EP": ("Ngn3 low EP", 0.174, 4.5),
    "Pre-endocrine": ("Ngn3 high EP", 0.160, 4.5),
    "Beta": ("Pre-endocrine", 0.160, 5.0),
    "Alpha": ("Pre-endocrine", 0.130, 5.0),
    "Delta": ("Pre-endocrine", 0.019, 5.0),
    "Epsilon": ("Pre-endocrine", 0.038, 5.0),
}
MIN_CELLS_PER_CLUSTER = 3  # one each for train, validation and test

# Matched to the same cells, on the 1,126 genes with at least 20 shared counts.
COUNTS_PER_GENE = 2.4  # mean of S + U over cells and genes (real 2.34)
DEPTH_LOG_SD = 0.27  # standard deviation of log total counts per cell (real 0.283)
GENE_LOG_SCALE = 0.6  # Laplace scale of log mean counts of genes: with the depth, sets the zeros
UNSPLICED_FRACTION = 0.172  # share of U in all counts (real 0.163 on all genes, 0.180 on these)
UNSPLICED_LOG_SD = 2.6  # spread over genes of log e (real quartiles of U / (S + U): 0.01, 0.42)
UNSPLICED_LOG_SLOPE = -0.8  # of log e on log mean counts: abundant genes are more spliced
SWITCH_SHARE = 0.3  # share of genes whose rate changes at a stage
SWITCH_LOG_SD = 1.0  # standard deviation of that change of log alpha
SWITCH_WINDOW = 0.6  # rates change within this first part of a stage
BURST_WINDOW = 1.0  # tau, in 1/beta
BURST_SHAPE = 2.0  # gamma shape of bursts; variance 1 / shape
CAPTURE_SHAPE = 10.0  # gamma shape of the extra-binomial noise; variance 1 / shape


def kinetics(u0, s0, alpha, gamma, t):
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
        (Bergen et al. 2020, eq. 1).
    """
    decay_u, decay_s = np.exp(-t), np.exp(-gamma * t)
    # (exp(-gamma t) - exp(-t)) / (gamma - 1), without the 0 / 0 at gamma = 1
    passed_on = -t * decay_u * exprel((1 - gamma) * t)
    u = u0 * decay_u + alpha * (1 - decay_u)
    s = s0 * decay_s + alpha / gamma * (1 - decay_s) + (alpha - u0) * passed_on
    return u, s


def simulate(n_obs: int = 3000, n_vars: int = 1000, seed: int = 0) -> AnnData:
    """Simulate the pancreas: counts of branching splicing kinetics with known velocity.

    See the module's text for the equations. Depth, sparsity, unspliced fraction and overdispersion
    match real cells of the mouse pancreas at E15.5.

    Parameters
    ----------
    n_obs
        Number of cells, >= 50.
    n_vars
        Number of genes, >= 1.
    seed
        Seed of every random draw; same sizes and seed give the same data.

    Returns
    -------
    AnnData of shape (n_obs, n_vars) with

    - ``layers["spliced"]``, ``layers["unspliced"]``: counts, CSR of int32; ``X`` is the spliced;
    - ``layers["spliced_true"]``, ``layers["unspliced_true"]``: their expectation at the median
      depth (float32): what size-normalised counts are without noise;
    - ``layers["velocity_true"]``: unspliced_true - gamma_true * spliced_true (float32),
      counts per 1/beta, scVelo's units;
    - ``obs["clusters"]``, ``obs["time_true"]`` (1/beta since the start of Ductal);
    - ``var["gamma_true"]``: e gamma / beta, the slope that scVelo fits;
    - ``uns["provenance"]``.

    Raises
    ------
    ValueError
        If a size is not an integer or is too small.
    """
    for name, value, least in (("n_obs", n_obs, 50), ("n_vars", n_vars, 1), ("seed", seed, 0)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")
    rng = np.random.default_rng(seed)
    cluster, progress = _place_cells(n_obs, rng)
    gamma = np.exp(rng.normal(np.log(0.7), 0.3, n_vars))
    u, s, recent_u, recent_s, time = _trajectories(cluster, progress, gamma, rng)

    # Capture: e makes genes differ in their spliced fraction, w in their mean counts.
    log_mean = rng.laplace(0, GENE_LOG_SCALE, n_vars)
    e = np.exp(UNSPLICED_LOG_SLOPE * log_mean + rng.normal(0, UNSPLICED_LOG_SD, n_vars))
    w, e = _capture(u.mean(0), s.mean(0), np.exp(log_mean), e)
    depth = COUNTS_PER_GENE * n_vars * rng.lognormal(-(DEPTH_LOG_SD**2) / 2, DEPTH_LOG_SD, n_obs)
    per_molecule = 1 / (w * (s + e * u)).sum(1)
    k = np.median(depth) * per_molecule[:, None]
    spliced_true, unspliced_true = k * w * s, k * w * e * u

    burst = rng.gamma(BURST_SHAPE, 1 / BURST_SHAPE, u.shape) - 1
    to_depth = (depth * per_molecule)[:, None] * w
    noise = [rng.gamma(CAPTURE_SHAPE, 1 / CAPTURE_SHAPE, u.shape) for _ in range(2)]
    spliced = rng.poisson(to_depth * (s + burst * recent_s) * noise[0])
    unspliced = rng.poisson(to_depth * e * (u + burst * recent_u) * noise[1])

    counts = {
        "spliced": csr_matrix(spliced.astype(np.int32)),
        "unspliced": csr_matrix(unspliced.astype(np.int32)),
    }
    truth = {
        "spliced_true": spliced_true,
        "unspliced_true": unspliced_true,
        "velocity_true": unspliced_true - e * gamma * spliced_true,
    }
    return AnnData(
        X=counts["spliced"].copy(),
        layers=counts | {name: layer.astype(np.float32) for name, layer in truth.items()},
        obs=pd.DataFrame(
            {"clusters": pd.Categorical(cluster, categories=list(STAGES)), "time_true": time},
            index=[f"cell_{i:05d}" for i in range(1, n_obs + 1)],
        ),
        var=pd.DataFrame(
            {"gamma_true": e * gamma}, index=[f"sim_{i:04d}" for i in range(1, n_vars + 1)]
        ),
        uns={
            "provenance": {
                "source": "simulated",
                "simulated": True,
                "name": "simulated pancreas",
                "seed": int(seed),
                "n_obs": int(n_obs),
                "n_vars": int(n_vars),
            }
        },
    )


def _place_cells(n_obs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cluster of each cell, in the real shares, and its progress through it in [0, 1)."""
    shares = np.array([share for _, share, _ in STAGES.values()])
    sizes = np.maximum(np.floor(shares * n_obs).astype(int), MIN_CELLS_PER_CLUSTER)
    sizes[0] += n_obs - sizes.sum()  # Ductal, the largest, takes what rounding leaves
    return rng.permutation(np.repeat(list(STAGES), sizes)), rng.random(n_obs)


def _trajectories(cluster, progress, gamma, rng):
    """u and s (cells, genes), their part made within BURST_WINDOW, and time (cells,)."""
    n_vars = len(gamma)
    u, s, recent_u, recent_s = np.empty((4, len(cluster), n_vars))
    time = np.empty(len(cluster))
    ends = {None: (1 / np.ones(n_vars), 1 / gamma, np.ones(n_vars), 0.0)}
    for stage, (parent, _, duration) in STAGES.items():
        u0, s0, alpha0, t0 = ends[parent]  # before Ductal: steady state
        switches = rng.random(n_vars) < SWITCH_SHARE
        alpha1 = alpha0 * np.exp(switches * rng.normal(0, SWITCH_LOG_SD, n_vars))
        delay = rng.uniform(0, SWITCH_WINDOW * duration, n_vars)

        def at(t, u0=u0, s0=s0, alpha0=alpha0, alpha1=alpha1, delay=delay):
            before = kinetics(u0, s0, alpha0, gamma, np.minimum(t, delay))
            return kinetics(*before, alpha1, gamma, np.maximum(t - delay, 0))

        here = cluster == stage
        t = progress[here, None] * duration
        time[here] = t0 + t[:, 0]
        u[here], s[here] = at(t)
        in_piece = np.where(t > delay, t - delay, t)
        recent_u[here], recent_s[here] = kinetics(
            0, 0, np.where(t > delay, alpha1, alpha0), gamma, np.minimum(in_piece, BURST_WINDOW)
        )
        ends[stage] = (*at(duration), alpha1, t0 + duration)
    return u, s, recent_u, recent_s, time


def _capture(u, s, mean, e):
    """Efficiencies (w, e) that give genes relative ``mean`` counts and U its share of them."""
    for _ in range(50):  # w depends on e and e's scale on w; a fixed point, reached quickly
        w = mean / (s + e * u)
        unspliced, spliced = (w * e * u).sum(), (w * s).sum()
        e = e * UNSPLICED_FRACTION / (1 - UNSPLICED_FRACTION) * spliced / unspliced
    return mean / (s + e * u), e

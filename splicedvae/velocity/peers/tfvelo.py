r"""TFvelo (Li et al. 2024), written anew from the paper, all genes at once.

A gene is made at a rate that its transcription factors set, and is lost at a rate :math:`\gamma`,

.. math:: \dot y = W x - \gamma y, \qquad y(t) = \alpha \sin(2 \pi t + \theta) + \beta .

With :math:`\varphi = 2\pi t + \theta` of each cell and gene, and :math:`\omega = 2\pi`, a cell lies
on the unit circle with the coordinates

.. math:: \sin\varphi = \frac{y - \beta}{\alpha}, \qquad
          \cos\varphi = \frac{W x - \gamma y}{\alpha\,\omega} .

**E**: each cell goes to the nearest point of the circle, which is the angle of these two.
**M**: least squares gives :math:`\alpha, \beta` from y, then W and :math:`\gamma` from the second
equation, scaled so that cells fill the circle (without it, noise makes it smaller every time).
Of several random starts, each gene keeps the one whose cells lie closest to the circle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from tqdm.auto import tqdm

from ...checks import shown
from ._shared import expression

OMEGA = 2 * np.pi
MIN_GAMMA = 0.01
N_SAMPLED = 250  # cells on which random starts are compared
#: Families of transcription factors, by what their mouse and human symbols begin with.
FAMILIES = re.compile(
    r"(Arid|Arx|Ascl|Atf|Atoh|Bach|Barx|Bcl6|Bcl11|Bhlhe|Cdx|Cebp|Cers|Creb|Crem|Cux|Dach|Dbp|Dlx|"
    r"E2f|Ebf|Egr|Elf|Elk|Emx|En[12]$|Eomes|Esr|Ets|Etv|Evx|Fev$|Fli1|Fos|Fox|Gata|Gbx|Gfi|Gli[1-3s]|"
    r"Grhl|Hand|Hes|Hey|Hhex|Hif|Hlf|Hmg[ab]|Hmx|Hnf|Hox|Hsf|Id[1-4]$|Ikzf|Insm|Irf|Irx|Isl|Jun|Klf|"
    r"Lef1|Lhx|Lmo|Lmx|Maf|Max$|Mecom|Mef2|Meis|Mitf|Mlx|Mnx|Msx|Myb|Myc|Myf|Myod|Myt|Neurod|Neurog|"
    r"Nfat|Nfe2|Nfi|Nfkb|Nfy|Nhlh|Nkx|Npas|Nr[0-6]|Olig|Onecut|Otx|Ovol|Pax|Pbx|Pdx|Pitx|Pou|Ppar|"
    r"Prdm|Prox|Prrx|Rar|Rel$|Rela|Rest$|Rfx|Ror|Runx|Rxr|Satb|Scrt|Six|Smad|Snai|Sox|Sp[1-9]$|Spi1|"
    r"Srebf|Srf|St18|Stat|Tal1|Tbr|Tbx|Tcf|Tead|Tef$|Tfap|Tfe|Tgif|Thr[ab]|Tox|Trp53|Tshz|Twist|Vax|"
    r"Vdr|Vsx|Xbp1|Ybx|Yy1|Zbtb|Zeb|Zfhx|Zfp|Zic|Znf)",
    re.IGNORECASE,
)


@dataclass
class Fit:
    """Parameters of the model for some target genes.

    Attributes
    ----------
    weights
        W (genes, regulators of a gene).
    gamma, alpha, beta
        Each (genes,).
    angle
        φ of each cell (cells, genes), in radians.
    loss
        Mean squared distance of the cells from the unit circle (genes,).
    velocity
        W x − γ y (cells, genes).
    """

    weights: np.ndarray
    gamma: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray
    angle: np.ndarray
    loss: np.ndarray
    velocity: np.ndarray


def fit(y: np.ndarray, x: np.ndarray, n_starts: int = 12, n_iter: int = 20, seed: int = 0) -> Fit:
    """Expectation maximisation of TFvelo's model.

    Parameters
    ----------
    y
        Expression of the targets (cells, genes).
    x
        Expression of each target's regulators (genes, cells, regulators).
    n_starts
        Random starts; the paper's grid has 36.
    n_iter
        Rounds from the best start, on all cells; each start gets half as many, on 250 cells.
    seed
        Seed of the starts.

    Returns
    -------
    The best fit of each gene.

    Raises
    ------
    ValueError
        Shapes disagree, or a target does not vary.
    """
    if x.ndim != 3 or x.shape[:2] != y.shape[::-1]:
        raise ValueError(f"y is (cells, genes) {y.shape}, x (genes, cells, regulators) {x.shape}.")
    if (flat := np.ptp(y, axis=0) == 0).any():
        raise ValueError(f"{flat.sum()} targets have one value in all cells; leave them out.")
    rng = np.random.default_rng(seed)
    unit = x.std(1, keepdims=True)  # so that one small ridge serves all regulators
    x = x / np.where(unit > 0, unit, 1)
    design = np.concatenate([x, -y.T[:, :, None]], axis=2)  # (genes, cells, regulators + 1)
    low, high = np.quantile(y, [0.01, 0.99], axis=0)
    sample = rng.permutation(len(y))[:N_SAMPLED]
    best_loss, best_angle = np.full(y.shape[1], np.inf), np.zeros_like(y)
    for _ in tqdm(range(n_starts), desc="TFvelo", leave=False, disable=None):
        sine = ((2 * y - low - high) / np.maximum(high - low, 1e-9)).clip(-1, 1)
        mixed = (design[:, :, :-1] @ rng.normal(size=(len(x), x.shape[2], 1)))[:, :, 0].T
        mixed, centred = mixed - mixed.mean(0), sine - sine.mean(0)
        mixed -= centred * (mixed * centred).mean(0) / centred.var(0)
        start = np.arctan2(sine, np.sign(mixed) * np.sqrt(1 - sine**2))
        found = _expect_maximise(y[sample], design[:, sample], start[sample], n_iter // 2)
        better = found.loss < best_loss
        best_loss = np.where(better, found.loss, best_loss)
        angle = _angles(found, y, design)
        best_angle[:, better] = angle[:, better]
    best = _expect_maximise(y, design, best_angle, n_iter)
    best.weights = best.weights / np.where(unit > 0, unit, 1)[:, 0]
    return best


def _expect_maximise(y: np.ndarray, design: np.ndarray, angle: np.ndarray, n_iter: int) -> Fit:
    gram = design.transpose(0, 2, 1) @ design
    ridge = 1e-6 * np.trace(gram, axis1=1, axis2=2)[:, None, None] / gram.shape[1]
    gram = gram + ridge * np.eye(gram.shape[1])
    for _ in range(n_iter):
        found = _maximise(y, design, gram, angle)
        angle = found.angle
    return found


def _angles(found: Fit, y: np.ndarray, design: np.ndarray) -> np.ndarray:
    """Nearest points of the circle for other cells (cells, genes)."""
    solved = np.concatenate([found.weights, found.gamma[:, None]], axis=1)
    velocity = (design @ solved[:, :, None])[:, :, 0].T
    return np.arctan2((y - found.beta) / found.alpha, velocity / (found.alpha * OMEGA))


def _maximise(y: np.ndarray, design: np.ndarray, gram: np.ndarray, angle: np.ndarray) -> Fit:
    """Parameters by least squares, given the angles; then the angles."""
    sine = np.sin(angle)
    centred = sine - sine.mean(0)
    alpha = (centred * y).mean(0) / np.maximum(centred.var(0), 1e-9)
    alpha = np.where(np.abs(alpha) > 1e-9, alpha, 1e-9)
    beta = y.mean(0) - alpha * sine.mean(0)
    target = (alpha * OMEGA * np.cos(angle)).T[:, :, None]  # (genes, cells, 1)
    moment = design.transpose(0, 2, 1) @ target
    solved = np.linalg.solve(gram, moment)[:, :, 0]
    if (bad := solved[:, -1] < MIN_GAMMA).any():  # mRNA is lost: refit W with γ at its bound
        reduced = moment[bad, :-1, 0] - gram[bad, :-1, -1] * MIN_GAMMA
        solved[bad, :-1] = np.linalg.solve(gram[bad, :-1, :-1], reduced[:, :, None])[:, :, 0]
        solved[bad, -1] = MIN_GAMMA
    velocity = (design @ solved[:, :, None])[:, :, 0].T
    size = np.sqrt((target[:, :, 0] ** 2).mean(1) / np.maximum((velocity**2).mean(0), 1e-12))
    solved, velocity = solved * size[:, None], velocity * size
    cosine, sine = velocity / (alpha * OMEGA), (y - beta) / alpha
    loss = ((np.hypot(cosine, sine) - 1) ** 2).mean(0)
    angle = np.arctan2(sine, cosine)
    return Fit(solved[:, :-1], solved[:, -1], alpha, beta, angle, loss, velocity)


def velocity(
    cells: AnnData,
    regulators: Sequence[str] | None = None,
    n_regulators: int = 6,
    n_starts: int = 12,
    seed: int = 0,
) -> np.ndarray:
    """Velocity of the better half of the genes, by :func:`fit` on smoothed log-expression.

    The authors take a gene's regulators from databases of targets; here they are those that
    correlate most with it.

    Parameters
    ----------
    cells
        Cells with raw counts in ``layers["total"]`` and a neighbour graph.
    regulators
        Names of transcription factors; None for the genes whose symbol belongs to a family of
        them, or, if there are fewer than `n_regulators` such genes, for all genes.
    n_regulators
        Of each gene.
    n_starts
        As in :func:`fit`.
    seed
        Seed of the starts.

    Returns
    -------
    Velocity (cells, genes), size-normalised counts per period; NaN in genes without a fit.

    Raises
    ------
    KeyError
        A regulator is not among the genes.
    ValueError
        There are too few genes.

    References
    ----------
    Li et al., Nature Communications 15:1387 (2024).
    """
    x = expression(cells)
    logged = np.log1p(x)
    names = cells.var_names.astype(str)
    if regulators is None:
        factor = np.array([bool(FAMILIES.match(name)) for name in names])
        if factor.sum() < n_regulators:
            factor[:] = True
    else:
        if strangers := [name for name in regulators if name not in names]:
            raise KeyError(f"The regulators {shown(strangers)} are not among the genes.")
        factor = names.isin(list(regulators))
    varies = logged.std(0) > 1e-6
    pool, targets = np.flatnonzero(factor & varies), np.flatnonzero(varies)
    if len(pool) <= n_regulators or len(targets) < 2:
        raise ValueError(
            f"{len(pool)} regulators that vary are too few; {n_regulators + 1} will do."
        )
    scaled = (logged - logged.mean(0)) / np.maximum(logged.std(0), 1e-9)
    correlation = np.abs(scaled[:, targets].T @ scaled[:, pool])
    correlation[targets[:, None] == pool] = -1  # no gene regulates itself here
    chosen = pool[np.argsort(-correlation, axis=1)[:, :n_regulators]]
    found = fit(logged[:, targets], logged[:, chosen].transpose(1, 0, 2), n_starts, seed=seed)
    kept = found.loss <= np.median(found.loss)
    result = np.full(x.shape, np.nan)
    result[:, targets[kept]] = found.velocity[:, kept] * (1 + x[:, targets[kept]])
    return result

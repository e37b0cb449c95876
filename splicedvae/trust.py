r"""Whether to believe a model's ratios for cells without spliced and unspliced counts.

What is wrong with a ratio can't be seen from totals. What can be seen is whether these cells differ
from each other in the ways that the model has learnt, and from there ratios are read. So each
cell's molecules are parted at random into two halves; the model reads the first, and what its
decoder then says of each gene is compared with the second:

.. math:: T = \frac{\sum_g n_g\, \mathrm{cor}_c\big(\log \rho_{cg}(x'),\; y_{cg}(x'')\big)}
              {\sum_g n_g}

with :math:`\rho` the decoder's share of gene g, y the log-normalised counts of the other half and
:math:`n_g` the cells in which it is seen there. A gene's mean plays no part in it. T falls as cells
get shallow, lose genes, or are noise, and so does all that is read from them. How far a velocity
then is off is measured once, on the validation cells of the training, which are made shallow and
noisy on purpose; their spliced and unspliced counts are known.

Which arrow to believe is read from the query itself: ratios are drawn from what the model does not
know, its weights and the cell's latent, and counts from the ratios. Each draw has its arrows. Where
those of a cell disagree, it is often wrong; how often, the validation cells say.

One thing T can't see: spliced counts that are given for totals differ from each other as totals do.
They lack molecules in the genes that have many unspliced ones, see :func:`unspliced_capture`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from scvi import REGISTRY_KEYS
from sklearn.isotonic import IsotonicRegression
from sklearn.neighbors import NearestNeighbors

from . import velocity
from .checks import check_cells, unchanged_on_error
from .counts import NotCounts, named_layers, split_counts
from .model import SplicedVAE
from .module import SPLICED, UNSPLICED
from .ratios import metrics
from .ratios._entries import pooled_ratio
from .ratios._features import log_normalised, median_depth

TRUST, CAUTION, DO_NOT_TRUST = "trust", "caution", "do not trust"
RANDOM = 90.0  # mean angle, in degrees, between an arrow and one that knows nothing of it
BAD_ANGLE, BAD_SHARE = 45.0, 0.25  # beyond these a field, or ratios, are not worth having
NEAR_ANGLE, NEAR_SHARE = 35.0, 0.4  # and beyond these they may be: what is expected is no promise
BAD_STRUCTURE = 0.15  # share of the held-out cells' T that noise and chance may reach
KNOWN_ANGLE = 30.0  # of held-out cells; beyond it the training cells themselves have no velocity
MIN_CELLS = 2  # one cell differs from no other
N_BOOTSTRAP = 200  # of genes, for an interval
MIN_HELD_OUT = 40  # validation cells, of which a gene must be seen in half
FEW_CELLS = 50  # among which a correlation within genes says little
NEIGHBOURS = 10  # cells around a place
FIELD_CELLS = 800  # of which a field is made; the validation cells, and training cells around them
ASKED_CELLS = 2000  # of a query, at random; the others take what those nearby say
#: Shares of a cell's entries that become noise, and of its molecules that stay.
NOISE, DEPTHS = (0.0, 0.4, 0.7), (0.3, 0.1)
N_DRAWS = 5  # of the arrows
N_SUBSETS = 2  # of cells, and of genes, whose fields say what fewer of them cost
UNLIKE, STRANGE = 0.1, 0.9  # shares of cells unlike any training cell: said, and doubtful
#: Relative capture of unspliced molecules that is too far from the training cells'.
CAPTURE = 0.5


@dataclass
class Trust:
    """Whether to believe a model for some cells.

    Attributes
    ----------
    verdict
        ``"trust"``, ``"caution"`` or ``"do not trust"``.
    reasons
        Sentences.
    expected_angle
        Mean angle between a predicted and a true arrow that is to be expected, in degrees; 90 is
        what arrows that know nothing have. NaN if the training cells are too few, or of too few
        genes, for a velocity.
    scores
        What was measured: ``structure`` (T), that of the ``held_out`` cells and their
        ``held_out_angle``; ``ratio_share`` (expected within-gene correlation as a share of theirs),
        ``genes`` (share of the training molecules in genes that these cells have), ``depth``,
        ``far`` (share of cells in places that the training cells do not know), ``capture`` of
        unspliced molecules with ``capture_low`` and ``capture_high``, and the number of ``cells``.
    """

    verdict: str
    reasons: list[str]
    expected_angle: float
    scores: dict[str, float] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return "\n".join([self.verdict, *(f"  {reason}" for reason in self.reasons)])


def trust(
    query: AnnData, model: SplicedVAE, key_added: str = "splicedvae_support", seed: int = 0
) -> Trust:
    """Say whether to believe a model's ratios, and the velocity they give, for some cells.

    A query counts as bad if its ratios have less than a quarter of the within-gene correlation of
    the held-out training cells, or its velocity is more than 45° off. Nothing but held-out cells
    of the training decides what is expected. A gene's mean ratio is another matter: totals do not
    tell whether it is that of the training tissue, see :meth:`splicedvae.SplicedVAE.calibrate`.

    Parameters
    ----------
    query
        Cells × genes with counts, as :meth:`splicedvae.SplicedVAE.prepare_query_anndata` takes
        them, or made ready by it. ``obs[key_added]`` is written: each cell's support in [0, 1],
        where 0 says that its arrow is no better than chance; or, where the training cells show no
        clear velocity, that its ratios are no better than the gene means.
    model
        A trained model, calibrated by :func:`calibrate`; one that holds its training cells is
        calibrated now, which takes a minute.
    key_added
        Column of ``obs``.
    seed
        Of the random halves.

    Returns
    -------
    The verdict, its reasons, and the expected angle. Values that are no counts, such as normalised
    ones, are not to be trusted.

    Raises
    ------
    KeyError
        A layer or covariate is missing.
    ValueError
        Too few genes are the model's, a cell is empty, or there is one cell only.
    RuntimeError
        The model is not trained, or neither calibrated nor with its training cells.
    """
    check_cells(query, "query")
    known = calibration(model)
    if query.n_obs < MIN_CELLS:
        raise ValueError(
            "query holds one cell; what cells know of each other takes several, best 50 or more."
        )
    try:
        cells = _prepared(query, model)
        reader = _Reader(model, cells.obs)
        counts = reader.counts(cells)
    except NotCounts as error:
        with unchanged_on_error(query):
            query.obs[key_added] = np.zeros(query.n_obs)
        return Trust(DO_NOT_TRUST, [f"These are no counts: {error}"], RANDOM)
    found = _scores(counts, reader, known, seed)
    angle, support = _support(found, known)
    with unchanged_on_error(query):
        query.obs[key_added] = support
    verdict, reasons = _verdict(found, angle)
    numbers = {k: float(v) for k, v in found.items() if np.ndim(v) == 0}
    return Trust(verdict, reasons, angle, numbers)


def calibration(model: SplicedVAE, seed: int = 0) -> dict[str, np.ndarray]:
    """What held-out training cells say about a model's errors; measured once, and saved with it.

    Parameters
    ----------
    model
        With its training cells, or calibrated before.
    seed
        Of noise, thinning and UMAP.

    Returns
    -------
    ``model.trust_``: arrays by name.

    Raises
    ------
    RuntimeError
        The model is not trained, neither calibrated nor with its training cells, or was validated
        on fewer than 40 cells.
    """
    model._check_if_trained(warn=False)
    taught_by = model.module.head.taught_by.cpu().numpy()
    kept = model.trust_ or {}
    if "curve_kept" in kept and np.allclose(
        kept["taught_by"], taught_by
    ):  # else of another version
        return kept
    val, train = model.validation_indices, model.train_indices
    if (
        model.adata is None
        or val is None
        or not len(val)
        or not _are_its_training_cells(model, taught_by)
    ):
        raise RuntimeError(
            "The model was saved without a calibration, and its training cells are not here. Load "
            "it with these, call splicedvae.trust on held-out cells, or train again, and save it: "
            "the calibration is saved along."
        )
    if len(val) < MIN_HELD_OUT:
        raise RuntimeError(
            f"The model was validated on {len(val)} cells; {MIN_HELD_OUT} are needed to know what "
            "to expect of it. Train it with more."
        )
    rng = np.random.default_rng(seed)
    around = rng.permutation(train)[: max(0, FIELD_CELLS - len(val))]
    cells = np.concatenate([val, around]).astype(int)
    reader = _Reader(model, model.adata.obs.iloc[cells])
    counts = [
        reader.counts(model.adata, key)[cells] for key in (REGISTRY_KEYS.X_KEY, SPLICED, UNSPLICED)
    ]
    model.trust_ = _measured(reader, counts, len(val), rng) | {"taught_by": taught_by}
    return model.trust_


def _are_its_training_cells(model: SplicedVAE, taught_by: np.ndarray) -> bool:
    train = model.train_indices
    if model.adata is None or not len(train) or max(train) >= model.adata.n_obs:
        return False
    sums = [
        sparse.csr_matrix(model.adata_manager.get_from_registry(key))[train].sum()
        for key in (REGISTRY_KEYS.X_KEY, SPLICED, UNSPLICED)
    ]
    return bool(np.allclose([len(train), *sums], taught_by))


def _measured(reader: _Reader, counts: list, n_val: int, rng: np.random.Generator) -> dict:
    """Degrade the cells step by step: how T, within-gene r and the angle fall together."""
    x, s, u = counts
    dense = x.toarray()
    val = slice(0, n_val)
    mean, seen = pooled_ratio(s, u), np.asarray((x[val] > 0).sum(0)).ravel()
    genes = seen >= min(MIN_HELD_OUT // 2, seen.max())
    bench = _Field(x, reader.model, forms=(s, u))
    noise = rng.poisson(dense.sum(1, keepdims=True) * (dense.sum(0) / dense.sum()))
    draw = rng.random(dense.shape)
    degraded = [np.where(draw < share, noise, dense) for share in NOISE]
    degraded += [rng.binomial(dense.astype(np.int64), depth) for depth in DEPTHS]
    structure, r, fields = [], [], []
    for now in degraded:
        structure.append(_structure(now[val], reader, rng))
        report = metrics.ratio_report(s[val], u[val], reader.ratio(now)[val], mean, genes=genes)
        r.append(report["within_gene_r"])
        fields.append([part[val] for part in bench.errors(now, reader.draws(now))])
    # where no half tells the other, nothing is known
    t = np.maximum(np.array([*structure, 0.0]), 0)
    order = np.argsort(t)
    t, r = t[order], np.where(t > 0, [*r, 0.0], 0.0)[order]
    latent = reader.latent(dense)
    known = {
        "structure": structure[0],
        "curve_structure": t,
        "curve_r": IsotonicRegression(y_min=0).fit(t, r).predict(t),
        "curve_kept": np.full(len(t), np.nan),
        "angle": np.nan,
        "latent": latent,
        "share": dense.sum(0) / dense.sum(),
        "ratio": mean,
        "depth": np.median(dense[val].sum(1)),
    }
    if np.isfinite(fields[0]).all():
        error, spread = fields[0]
        by_spread = IsotonicRegression(y_max=RANDOM, out_of_bounds="clip").fit(spread, error)
        known["curve_spread"] = np.quantile(spread, np.linspace(0, 1, 51))
        known["curve_error"] = by_spread.predict(known["curve_spread"])
        known["angle"] = error.mean()
        kept = np.array([*(_kept(*field, known) for field in fields), 0.0])[order]
        kept = IsotonicRegression(y_min=0).fit(t, np.where(t > 0, kept, 0)).predict(t)
        known["curve_kept"] = kept / max(np.interp(structure[0], t, kept), 1e-9)
        known["kept"] = _kept_by_half(counts, reader, known, n_val, rng)
    nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(latent) - 1)).fit(latent)
    known["far"] = np.quantile(nearest.kneighbors()[0][val].mean(1), 0.99)
    return {key: np.asarray(value) for key, value in known.items()}


def _by_spread(spread: np.ndarray, known: dict) -> np.ndarray:
    """Expected error of cells by how much their arrows disagree, in degrees."""
    return np.interp(spread, known["curve_spread"], known["curve_error"])


def _kept(error: np.ndarray, spread: np.ndarray, known: dict) -> float:
    """What arrows know, 90° less their error, as a share of what their spread lets expect."""
    expected = RANDOM - _by_spread(spread, known).mean()
    return float(np.clip((RANDOM - error.mean()) / max(expected, 1e-9), 0, 1))


def _kept_by_half(
    counts: list, reader: _Reader, known: dict, n_val: int, rng: np.random.Generator
) -> np.ndarray:
    """What half as many cells, and half as many genes, leave of what arrows know.

    Each has an embedding and a reference of its own, from fewer counts, as a query has.
    """
    n_obs, n_vars = counts[0].shape
    ratios, found = reader.draws(counts[0].toarray()), []
    for cells, genes in ((n_obs // 4, n_vars), (n_obs, n_vars // 2)):
        kept = []
        for _ in range(N_SUBSETS):
            rows = np.sort(rng.permutation(n_obs)[:cells])
            columns = np.sort(rng.permutation(n_vars)[:genes])
            x, s, u = (layer[rows][:, columns] for layer in counts)
            bench = _Field(x, reader.model, columns, (s, u))
            field = bench.errors(x.toarray(), ratios[:, rows][:, :, columns])
            kept.append(_kept(*(part[rows < n_val] for part in field), known))
        found.append(np.clip(np.nan_to_num(np.mean(kept), nan=1.0), 0.01, 1))
    return np.array([found[0] ** 0.5, found[1]])  # a quarter of the cells is half of them, twice


class _Field:
    """Arrows of cells by what is drawn of their ratios, and how far they are off."""

    def __init__(self, x: sparse.csr_matrix, model: SplicedVAE, genes=slice(None), forms=None):
        self.input = model.input
        s, u = forms or (x, x)
        total = s + u if forms and self.input == "spliced" else x
        self.cells = AnnData(total, layers={"total": total, "spliced": s, "unspliced": u})
        c = model.module.head.log_concentration.detach().exp().cpu().numpy()
        self.cells.var["concentration"] = c[genes]
        self.embedded, self.true = True, None
        try:
            velocity.embed(self.cells, progress=False)
            if forms:
                reference = self.cells.copy()
                velocity.fit(reference, progress=False)
                self.true = reference.obsm["velocity_umap"]
        except ValueError:  # too few cells or genes for a velocity
            self.embedded = False

    def mean(self, counts: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """Mean over draws of a cell's arrows of length 1, (cells, 2); 0 where no gene has a slope.

        Its length says how much they agree.
        """
        found = []
        for seed, ratio in enumerate(ratios):
            cells = self.cells.copy()
            pair = split_counts(sparse.csr_matrix(counts, dtype=np.float32), ratio, self.input)
            cells.layers["spliced"], cells.layers["unspliced"] = pair
            try:
                velocity.fit(
                    cells, concentration="concentration", n_draws=1, seed=seed, progress=False
                )
            except ValueError:  # no gene has a slope
                return np.zeros((len(counts), 2))
            found.append(_of_length_1(cells.obsm["velocity_umap"]))
        return np.mean(found, axis=0)

    def errors(self, counts: np.ndarray, ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Angle of each cell's mean arrow in degrees, and the spread of its arrows."""
        if self.true is None:
            return np.full((2, len(counts)), np.nan)
        mean = self.mean(counts, ratios)
        cosine = (_of_length_1(mean) * _of_length_1(self.true)).sum(1)
        return np.degrees(np.arccos(cosine.clip(-1, 1))), _spread_of(mean)


def _spread_of(mean: np.ndarray) -> np.ndarray:
    """How much the arrows disagree whose mean this is, from 0 to 1."""
    return 1 - np.linalg.norm(mean, axis=1)


def _of_length_1(arrows: np.ndarray) -> np.ndarray:
    return arrows / np.maximum(np.linalg.norm(arrows, axis=1, keepdims=True), 1e-12)


def _prepared(query: AnnData, model: SplicedVAE) -> AnnData:
    """A query as the model reads it."""
    layer = model.registry_["setup_args"]["layer"]
    if list(query.var_names) != list(model.genes) or layer not in named_layers(query):
        return model.prepare_query_anndata(query, model, input=model.input)
    return query


class _Reader:
    """A model that reads counts, of cells whose covariates are known."""

    def __init__(self, model: SplicedVAE, obs: pd.DataFrame):
        self.model = model
        self.obs = obs[[column for column in obs if not str(column).startswith("_scvi")]]

    def of(self, rows: np.ndarray) -> _Reader:
        """The same for some of the cells."""
        return _Reader(self.model, self.obs.iloc[rows])

    def _cells(self, x: np.ndarray | sparse.csr_matrix, rows: np.ndarray) -> AnnData:
        setup = self.model.registry_["setup_args"]
        if not sparse.issparse(x):
            x = np.where(x.sum(1, keepdims=True) > 0, x, 1)  # an empty cell says as much
        empty = sparse.csr_matrix(x.shape, dtype=np.float32)
        layers = {setup["spliced_layer"]: empty, setup["unspliced_layer"]: empty}
        layers[setup["layer"]] = sparse.csr_matrix(x, dtype=np.float32)
        var = pd.DataFrame(index=self.model.genes)
        cells = AnnData(obs=self.obs.iloc[rows], var=var, layers=layers)
        return self.model._validate_anndata(cells, any_batch=True)

    def counts(self, cells: AnnData, key: str = REGISTRY_KEYS.X_KEY) -> sparse.csr_matrix:
        """Counts that the model reads, by their key in its registry."""
        cells = self.model._validate_anndata(cells, any_batch=True)
        registry = self.model.get_anndata_manager(cells, required=True)
        return sparse.csr_matrix(registry.get_from_registry(key))

    def ratio(self, x: np.ndarray) -> np.ndarray:
        """Splicing ratios, (cells, genes)."""
        cells = self._cells(x, np.arange(len(x)))
        return self.model.get_splicing_ratio(cells, return_numpy=True)

    def draws(self, x: np.ndarray) -> np.ndarray:
        """Draws of the ratios, (N_DRAWS, cells, genes)."""
        cells = self._cells(x, np.arange(len(x)))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.model.get_splicing_ratio(
                cells, n_samples=N_DRAWS, return_mean=False, return_numpy=True
            )

    def latent(self, x: np.ndarray | sparse.csr_matrix) -> np.ndarray:
        """Posterior means, (cells, L)."""
        return self.model.get_latent_representation(self._cells(x, np.arange(x.shape[0])))

    def share(self, x: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Share of each gene in a cell's molecules, by the decoder, (cells, genes)."""
        cells = self._cells(x, np.arange(len(x)) if rows is None else rows)
        with torch.random.fork_rng():  # scVI draws one latent for each cell
            torch.manual_seed(0)
            return self.model.get_normalized_expression(cells, return_numpy=True)


def _structure(x: np.ndarray, reader: _Reader, rng: np.random.Generator) -> float:
    """How well half of each cell's molecules tell the other half, within genes: T above."""
    x = x.astype(np.int64)
    half = rng.binomial(x, 0.5)
    enough = np.flatnonzero((half.sum(1) > 0) & ((x - half).sum(1) > 0))
    if len(enough) < MIN_CELLS:
        return 0.0
    half, other = half[enough], (x - half)[enough]
    told = np.log(np.maximum(reader.share(half, enough), 1e-12))
    other = sparse.csr_array(other.astype(np.float64))
    seen = log_normalised(other, median_depth(other)).toarray()
    weight = (seen > 0).sum(0)
    told, seen = told - told.mean(0), seen - seen.mean(0)
    norm = np.sqrt((told**2).sum(0) * (seen**2).sum(0))
    correlation = np.divide((told * seen).sum(0), norm, out=np.zeros_like(norm), where=norm > 1e-9)
    return float(weight @ correlation / max(weight.sum(), 1))


def unspliced_capture(
    counts: np.ndarray, expected: np.ndarray, ratio: np.ndarray, of_spliced: bool = False
) -> tuple[float, float, float]:
    r"""How well unspliced molecules were captured, beside spliced ones, compared with elsewhere.

    .. math:: \log \frac{x_g}{\hat x_g} = a + \log\big(p_g + k (1 - p_g)\big) + \varepsilon_g

    Where both forms were captured as in the training, k is 1; it is 0 if there are spliced counts
    alone, and large for nuclei. Tissues differ in more than that, which widens the interval. For a
    model that reads spliced counts the expectation lacks the unspliced ones: the second term is
    :math:`\log(p_g + k (1 - p_g)) - \log p_g`, and k is 0 where all is well.

    Parameters
    ----------
    counts, expected
        Molecules of each gene, and what is expected of these cells (genes,).
    ratio
        p, each gene's share of spliced molecules in the training cells.
    of_spliced
        The expectation is of spliced molecules.

    Returns
    -------
    k, and its 95 % bootstrap interval over genes; 1, 0 and infinity if the genes do not tell.
    """
    seen = (counts >= 10) & (expected > 0)
    if seen.sum() < 20:
        return 1.0, 0.0, np.inf
    y = np.log(counts[seen] / expected[seen])
    grid = np.linspace(np.log(1e-3), np.log(1e3), 601)
    shape = np.log(ratio[seen] + np.exp(grid)[:, None] * (1 - ratio[seen]))  # (grid, genes)
    shape = shape - np.log(ratio[seen]) if of_spliced else shape
    plain = np.sqrt(counts[seen])
    weight = plain = np.minimum(plain, np.quantile(plain, 0.9))
    for _ in range(5):  # Huber's weights: few genes differ for reasons of their own
        away = y - shape
        away = away - (away @ weight / weight.sum())[:, None]
        loss = away**2 @ weight
        best = loss.argmin()
        spread = 1.48 * np.median(np.abs(away[best])) + 1e-6
        huber = np.minimum(1, 1.5 * spread / np.maximum(np.abs(away[best]), 1e-9))
        weight = plain * huber
    draws = np.random.default_rng(0).multinomial(len(y), np.full(len(y), 1 / len(y)), N_BOOTSTRAP)
    drawn = (draws * weight).T  # (genes, draws)
    away = y - shape
    loss = away**2 @ drawn - (away @ drawn) ** 2 / drawn.sum(0)
    low, high = np.exp(np.quantile(grid[loss.argmin(0)], [0.025, 0.975]))
    low, high = (0.0 if low < 1.1e-3 else low), (np.inf if high > 900 else high)
    return float(np.exp(grid[best])), float(low), float(high)


def _scores(counts: sparse.csr_matrix, reader: _Reader, known: dict, seed: int) -> dict:
    """What is measured of a query."""
    rng = np.random.default_rng(seed)
    latent = reader.latent(counts)
    there = np.asarray(counts.sum(0)).ravel() > 0
    asked = np.sort(rng.permutation(len(latent))[:ASKED_CELLS])
    x, reader = counts[asked].toarray(), reader.of(asked)
    structure = _structure(x, reader, rng)
    k = min(NEIGHBOURS, len(known["latent"]) - 1)
    distance, _ = NearestNeighbors(n_neighbors=k).fit(known["latent"]).kneighbors(latent)
    share = reader.share(x) * there
    expected = (x.sum(1, keepdims=True) * share / share.sum(1, keepdims=True)).sum(0)
    capture, low, high = unspliced_capture(
        x.sum(0), expected, known["ratio"], reader.model.input == "spliced"
    )
    r = np.interp(structure, known["curve_structure"], known["curve_r"])
    r_held_out = np.interp(known["structure"], known["curve_structure"], known["curve_r"])
    return {
        "structure": structure,
        "held_out": float(known["structure"]),
        "held_out_angle": float(known["angle"]),
        "ratio_share": r / max(r_held_out, 1e-9),
        "genes": float(known["share"][there].sum()),
        "halvings": np.log2([len(known["latent"]) / len(latent), len(there) / there.sum()]).clip(0),
        "depth": float(np.median(x.sum(1))) / float(known["depth"]),
        "far": float((distance.mean(1) > known["far"]).mean()),
        "capture": capture,
        "capture_low": low,
        "capture_high": high,
        "reads_spliced": reader.model.input == "spliced",
        "cells": len(latent),
        "distance": distance.mean(1),
        "spread": _spread(x, there, reader, latent, asked) if np.isfinite(known["angle"]) else None,
    }


def _spread(
    x: np.ndarray, there: np.ndarray, reader: _Reader, latent: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """How much the arrows of each cell disagree, by those of the cells that were asked."""
    counts, genes = x[:, there], np.flatnonzero(there)
    field = _Field(sparse.csr_matrix(counts, dtype=np.float32), reader.model, genes)
    if not field.embedded:
        return np.ones(len(latent))
    spread = _spread_of(field.mean(counts, reader.draws(x)[:, :, there]))
    if len(asked) == len(latent):
        return spread
    nearest = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(asked))).fit(latent[asked])
    return spread[nearest.kneighbors(latent)[1]].mean(1)


def _support(found: dict, known: dict) -> tuple[float, np.ndarray]:
    """Expected angle of the query, and support of each cell."""
    typical = np.minimum(1, known["far"] / np.maximum(found["distance"], 1e-9))
    by_ratio = np.clip(found["ratio_share"] * typical, 0, 1)
    if found["spread"] is None:
        return float("nan"), by_ratio
    share = np.interp(found["structure"], known["curve_structure"], known["curve_kept"])
    share = min(1, share) * np.prod(known["kept"] ** found["halvings"])
    angle = RANDOM - (RANDOM - _by_spread(found["spread"], known)) * share * typical
    by_angle = np.clip(1 - angle / RANDOM, 0, 1)
    return float(angle.mean()), by_angle if _move(found) else by_ratio


def _move(found: dict) -> bool:
    """Whether the training cells have a velocity that held-out cells share."""
    return found["held_out_angle"] <= KNOWN_ANGLE


def _verdict(found: dict, angle: float) -> tuple[str, list[str]]:
    """The verdict, and why."""
    bad, doubtful, fine = [], [], []
    text = (
        f"Half of a cell's molecules tell the other half with a correlation of "
        f"{found['structure']:.2f} within genes; in held-out training cells it is "
        f"{found['held_out']:.2f}"
    )
    share, moves = found["ratio_share"], _move(found)
    structure = found["structure"] / max(found["held_out"], 1e-9)
    if structure < BAD_STRUCTURE or share < BAD_SHARE or (moves and angle > BAD_ANGLE):
        bad.append(f"{text}: these cells do not differ in the ways that the model knows.")
    elif share < NEAR_SHARE or (moves and angle > NEAR_ANGLE):
        doubtful.append(f"{text}: they differ less than they should in the ways that it knows.")
    else:
        fine.append(f"{text}.")
    if found["reads_spliced"]:
        if found["capture_low"] > CAPTURE:
            bad.append("Genes with much unspliced mRNA have too many molecules: these are totals.")
    elif found["capture_high"] < CAPTURE:
        bad.append(
            "Genes with much unspliced mRNA have too few molecules: these look like spliced counts "
            f"alone (unspliced molecules at {found['capture']:.2f} of the training cells' rate)."
        )
    elif found["capture_low"] > 1 / CAPTURE:
        fine.append(
            "Genes with much unspliced mRNA have many molecules, as in nuclei (unspliced molecules "
            f"at {found['capture']:.1f} times the training cells' rate). Differences between cells "
            "carry over; mean ratios are the training cells', unless model.calibrate sets them."
        )
    if found["far"] > STRANGE:
        doubtful.append(f"{found['far']:.0%} of the cells are unlike any training cell.")
    elif found["far"] > UNLIKE:
        fine.append(
            f"{found['far']:.0%} of the cells are unlike any training cell. If this is another "
            "tissue, its genes have other mean ratios: model.calibrate sets them by a few cells."
        )
    if found["cells"] < FEW_CELLS:
        doubtful.append(f"{found['cells']} cells are too few to tell.")
    if found["depth"] < 0.5:
        fine.append(f"They have {found['depth']:.0%} of the training cells' molecules.")
    if found["genes"] < 0.9:
        fine.append(
            f"They lack genes that hold {1 - found['genes']:.0%} of the training cells' molecules."
        )
    if moves:
        fine.append(f"Arrows are expected to be {angle:.0f}° off; at random it would be 90°.")
    else:
        fine.append("The training cells show no clear velocity: this is about ratios alone.")
    verdict = DO_NOT_TRUST if bad else CAUTION if doubtful else TRUST
    return verdict, [*bad, *doubtful, *fine]

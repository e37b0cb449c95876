"""Futures scored where they are known, by kinetics or clones, and set beside CellRank's fates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import scvi
from anndata import AnnData

from splicedvae import data, metrics, velocity
from splicedvae.counts import total_counts
from splicedvae.futures import baselines
from splicedvae.futures.larry import larry
from splicedvae.futures.model import Futures
from splicedvae.futures.pairs import transition_matrix
from splicedvae.futures.states import nearest_states
from splicedvae.model import SplicedVAE
from splicedvae.ratios.baselines import GeneMean
from splicedvae.velocity.trajectories import fate_probabilities

from ..profiles import prepared
from ..stage import Stage
from . import fields, fits

NAMES = ("simulator", "larry", "pancreas")
SETTINGS = {
    "smoke": {"n_obs": 500, "n_vars": 150, "max_epochs": 4, "max_steps": 200, "kinds": ("flow",)},
    "standard": {
        "n_obs": 1200,
        "n_vars": 400,
        "max_epochs": 50,
        "max_steps": 500,
        "kinds": ("flow",),
    },
    "full": {"n_obs": 3000, "n_vars": 1000, "max_epochs": 150, "max_steps": 2000},
}
TERMINAL = ("Beta", "Alpha", "Delta", "Epsilon")
HORIZON = 10.0  # in 1/beta: about a stage
N_TRUE, N_DRAWS, N_TUNING = 10, 50, 20
NOISES = (0.25, 0.5, 1.0)
STEPS = (2, 4, 6, 8, 12, 16, 24)  # of a velocity, to choose from
N_SLOPES = 5  # draws of counts for a velocity's slopes
LARRY_NOISES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
SOURCES = ("true S/U", "SplicedVAE", "gene mean")
STAY, TRANSFER = "stay put", "futures of neighbours (known)"
Draw = Callable[[np.ndarray, dict, int], np.ndarray]


class Bench:
    """A seed's simulated cells, of which the model has not seen those that are asked.

    Parameters
    ----------
    seed
        Of cells, split, model and draws.
    n_obs, n_vars, max_epochs
        Size of the simulation, and of the training.
    """

    def __init__(self, seed: int, n_obs: int, n_vars: int, max_epochs: int):
        raw = data.simulate(n_obs, n_vars, seed)
        train, val, test = data.split(raw, seed=seed)
        cells = data.prepare(raw, fit_on=train)
        scvi.settings.seed = seed
        SplicedVAE.setup_anndata(cells)
        self.model = SplicedVAE(cells)
        self.model.train(max_epochs, split=(train, val), enable_progress_bar=False)
        self.seed, self.train = seed, cells[train].copy()
        self.query = cells[np.concatenate([val, test])].copy()
        self.places = self.latent(self.query)
        self.query.obsm["X_splicedvae"] = self.places
        self.labels = self.query.obs["clusters"].astype(str)
        going = ~self.labels.isin(TERMINAL).to_numpy()
        position = np.arange(self.query.n_obs)
        self.val = position[going & (position < len(val))]
        self.test = position[going & (position >= len(val))]
        self.states = nearest_states(self.places, self.labels, TERMINAL)
        truth = data.futures_true(self.query, HORIZON, N_TRUE, seed)
        shape = (N_TRUE, self.query.n_obs)
        self.true = self.latent(truth).reshape(*shape, -1)
        found = truth.obs["clusters"].astype(str).to_numpy().reshape(shape)
        shares = np.stack([(found == name).mean(0) for name in TERMINAL], axis=1)
        self.fate = np.column_stack([shares, 1 - shares.sum(1)])
        known = data.futures_true(self.train, HORIZON, N_TRUE, seed + 1)
        self.known = self.latent(known).reshape(N_TRUE, self.train.n_obs, -1)

    def latent(self, cells: AnnData) -> np.ndarray:
        """Where cells lie in the model's latent space.

        Parameters
        ----------
        cells
            With layers of spliced and unspliced counts.

        Returns
        -------
        Array (cells, dimensions).
        """
        if "total" not in cells.layers:
            cells.layers["total"] = total_counts(cells)
        return self.model.get_latent_representation(cells)

    def scores(self, drawn: np.ndarray, cells: np.ndarray) -> dict[str, float]:
        """Energy score in the latent space, and scores of the state at the horizon.

        Parameters
        ----------
        drawn
            Futures (draws, cells, dimensions).
        cells
            Their positions.

        Returns
        -------
        Score: value.
        """
        fates = self.fates(drawn)
        return {
            "energy_score": float(metrics.energy_score(drawn, self.true[:, cells]).mean()),
            "log_loss": metrics.fate_log_loss(fates, self.fate[cells]),
            "brier": metrics.brier(fates, self.fate[cells]),
            "ece": metrics.calibration_error(fates, self.fate[cells]),
        }

    def fates(self, drawn: np.ndarray) -> np.ndarray:
        """Probabilities of the states; one draw is worth as much as the prior, which is uniform.

        Parameters
        ----------
        drawn
            Futures (draws, cells, dimensions).

        Returns
        -------
        Array (cells, states).
        """
        n, shares = len(drawn), self.states(drawn).mean(0)
        return (n * shares + 1 / shares.shape[1]) / (n + 1)

    def velocities(self) -> dict[str, AnnData]:
        """The query's velocities, in the query protocol.

        Returns
        -------
        Source: cells with a velocity, and that of SplicedVAE shuffled between cells.
        """
        base = self.query.copy()
        velocity.embed(base, umap=False)
        ratio = self.model.get_splicing_ratio(self.query, return_numpy=True)
        mean = GeneMean().fit(self.train, self.train).predict(self.query)
        mean = fields.with_noise(mean, self.seed)
        base.var[fields.CONCENTRATION] = fields.concentration(self.train)
        found = {SOURCES[0]: base.copy()}
        velocity.fit(found[SOURCES[0]], basis="pca")
        for source, ratios in zip(SOURCES[1:], (ratio, mean), strict=True):
            found[source] = fields.from_ratio(base, ratios, basis="pca", n_draws=N_SLOPES)
        shuffled = found["SplicedVAE"].copy()
        order = np.random.default_rng(self.seed).permutation(shuffled.n_obs)
        genes = shuffled.var["velocity_genes"].to_numpy()
        vectors = shuffled.layers["velocity"][order]
        velocity.project(shuffled, vectors, genes, basis="pca", overwrite=True)
        return found | {"shuffled": shuffled}

    def chosen(self, draw: Draw, grid: list[dict]) -> dict:
        """The setting that does best on validation cells, by both scores, each over *stay put*'s.

        Parameters
        ----------
        draw
            Called with positions, a setting and a number of draws.
        grid
            Settings to choose from.

        Returns
        -------
        The best of them.
        """
        unit = self.scores(baselines.stay_put(self.places, self.val), self.val)

        def loss(setting: dict) -> float:
            found = self.scores(draw(self.val, setting, N_TUNING), self.val)
            return sum(found[score] / unit[score] for score in ("energy_score", "log_loss"))

        return min(grid, key=loss)


def simulator(
    seed: int,
    n_obs: int,
    n_vars: int,
    max_epochs: int,
    max_steps: int,
    kinds: tuple[str, ...] = ("flow", "diffusion"),
) -> dict[str, dict]:
    """Every row's scores on one seed's held-out cells that have not reached an end.

    Horizons, in steps of a velocity, and noise are chosen for each row on validation cells.

    Parameters
    ----------
    seed, n_obs, n_vars, max_epochs
        As for :class:`Bench`.
    max_steps
        Of the training of futures.
    kinds
        Of the models of futures.

    Returns
    -------
    Row: scores, and the setting.
    """
    bench = Bench(seed, n_obs, n_vars, max_epochs)
    test = bench.test
    rows = {STAY: bench.scores(baselines.stay_put(bench.places, test), test)}
    known = bench.latent(bench.train)
    rows[TRANSFER] = bench.scores(baselines.transfer(known, bench.known, bench.places[test]), test)
    for source, field in bench.velocities().items():
        for name, draw, grid, n in _rows(bench, field, max_steps, kinds, source):
            setting = bench.chosen(draw, grid)
            row = bench.scores(draw(test, setting, n), test)
            rows[f"{name}, {source}"] = row | {k: float(v) for k, v in setting.items()}
    return rows


def _rows(
    bench: Bench, field: AnnData, max_steps: int, kinds: tuple[str, ...], source: str
) -> Iterator[tuple[str, Draw, list[dict], int]]:
    """Name, draws, settings to choose from and number of draws of all that one velocity tells."""
    matrix, places = transition_matrix(field, "velocity"), bench.places
    steps = [{"steps": k} for k in STEPS]

    def carried(cells, setting, n):
        return baselines.carried_on(matrix, places, cells, setting["steps"])

    def walk(cells, setting, n):
        return baselines.random_walk(matrix, places, cells, setting["steps"], n, bench.seed)

    if source != "shuffled":
        yield "carried on", carried, steps, 1
        yield "random walk", walk, steps, N_DRAWS
    for kind in kinds:
        model = Futures(field, "X_splicedvae", kind=kind, seed=bench.seed)
        model.fit(max_steps, progress=False)

        def draw(cells, setting, n, model=model):
            noise = setting.get("noise", 0.0)
            return model.sample(cells, setting["steps"], n if noise else 1, noise, bench.seed)

        if source != "shuffled":
            yield f"{kind}, one path", draw, steps, 1
        few = slice(None, None, 2 if kind == "diffusion" else 1)  # it takes twenty times as long
        grid = [{"steps": k, "noise": noise} for k in STEPS[few] for noise in NOISES[few]]
        yield kind, draw, grid, N_DRAWS


def clones(seed: int, max_steps: int, kinds: tuple[str, ...] = ("flow",)) -> dict[str, dict]:
    """Scores on LARRY's 335 cells, and those of the published predictions.

    The share of neutrophils is what the draws say of the two fates; draws that are in neither
    state are halved. Noise is chosen by log loss on cells of clones that are not tested.

    Parameters
    ----------
    seed
        Of weights, pairs and draws.
    max_steps
        Of the training.
    kinds
        Of the models of futures.

    Returns
    -------
    Row: ``r``, ``brier``, ``log_loss`` and ``ece``; ``curve`` has the reliability curve.

    Raises
    ------
    FileNotFoundError
        The cells could not be had.
    """
    adata = larry()
    adata = adata[adata.obs["neu_mo_trajectory"].to_numpy()].copy()
    obs = adata.obs
    test, val = (np.flatnonzero(obs[f"{name}_set"]) for name in ("test", "validation"))
    truth = obs["neutrophil_share"].to_numpy()
    constant = np.full(len(test), truth[val].mean())
    rows = {"constant": _share_scores(constant, truth[test])}
    for name in ("WOT", "PBA", "FateID"):
        rows[name] = _share_scores(obs[f"{name}_predictions"].to_numpy()[test], truth[test])
    names = ["Neutrophil", "Monocyte"]
    for kind in kinds:
        model = Futures(adata, "X_spring", time_key="day", kind=kind, seed=seed)
        model.fit(max_steps, progress=False)

        def share(cells, noise, model=model):
            n = N_DRAWS if noise else 1
            found = model.fates(cells, names, "state", 4.0, n, noise, seed=seed)
            return (found["Neutrophil"] + found["elsewhere"] / 2).to_numpy()

        found = {noise: _share_scores(share(val, noise), truth[val]) for noise in LARRY_NOISES}
        noise = min(found, key=lambda noise: found[noise]["log_loss"])
        rows[f"{kind}, one path"] = _share_scores(share(test, 0.0), truth[test])
        rows[kind] = _share_scores(share(test, noise), truth[test]) | {"noise": noise}
    return rows


def _share_scores(predicted: np.ndarray, true: np.ndarray) -> dict:
    p, f = (np.column_stack([x, 1 - x]) for x in (np.asarray(predicted, dtype=float), true))
    curve = metrics.reliability(p, f)
    r = np.corrcoef(p[:, 0], true)[0, 1] if np.ptp(p[:, 0]) else 0.0
    return {
        "r": float(r),
        "brier": metrics.brier(p, f),
        "log_loss": metrics.fate_log_loss(p, f, floor=1e-6),
        "ece": metrics.calibration_error(p, f),
        "curve": [x.tolist() for x in curve],
    }


def agreement(
    adata: AnnData, profile: str, seed: int, results: Path, max_steps: int
) -> dict[str, dict]:
    """Fates of held-out pancreas cells against CellRank's from their true counts.

    Nobody knows what these cells became: this is agreement of two methods, not truth.

    Parameters
    ----------
    adata, profile, seed
        As for a job.
    results
        Folder of all results.
    max_steps
        Of the training of futures.

    Returns
    -------
    Source: ``total_variation``, the mean over cells of half the sum of absolute differences.
    """
    whole, (train, _, test) = prepared(adata, profile, seed)
    model = SplicedVAE.load(
        str(fits.checkpoint(results, adata, profile, seed, "SplicedVAE")), whole
    )
    base = whole[test].copy()
    velocity.embed(base, umap=False)
    base.obsm["X_splicedvae"] = model.get_latent_representation(indices=test)
    base.var[fields.CONCENTRATION] = fields.concentration(whole[train])
    mean = GeneMean().fit(whole[train], whole[train]).predict(whole[test])
    ratios = {
        "SplicedVAE": model.get_splicing_ratio(indices=test, return_numpy=True),
        "gene mean": fields.with_noise(mean, seed),
    }
    counted = base.copy()
    velocity.fit(counted, basis="pca")
    found = {name: fields.from_ratio(base, ratio, basis="pca") for name, ratio in ratios.items()}
    fate_probabilities(counted, terminal=TERMINAL)
    lineages = counted.obsm["lineages_fwd"]
    order = [list(map(str, lineages.names)).index(name) for name in TERMINAL]
    reference, rows = np.asarray(lineages)[:, order], {}
    for source, field in ({SOURCES[0]: counted} | found).items():
        futures = Futures(field, "X_splicedvae", seed=seed).fit(max_steps, progress=False)
        going = np.flatnonzero(~field.obs["clusters"].isin(TERMINAL))
        found = futures.fates(going, list(TERMINAL), seed=seed).to_numpy()
        shares = found[:, :-1] + found[:, -1:] / len(TERMINAL)
        variation = 0.5 * np.abs(shares - reference[going]).sum(1).mean()
        rows[source] = {"total_variation": float(variation)}
    return rows


def run_job(adata: AnnData, profile: str, seed: int, name: str, folder: Path) -> dict:
    """Score futures in one of three places.

    Parameters
    ----------
    adata
        From :func:`~splicedvae_book.profiles.load`.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.
    seed
        Of everything.
    name
        One of ``NAMES``.
    folder
        Of these results; the fits are kept beside it.

    Returns
    -------
    JSON-ready: ``rows``; empty for LARRY if its cells could not be had.
    """
    setting = SETTINGS[profile]
    if name == "simulator":
        return {"rows": simulator(seed, **setting)}
    if name == "pancreas":
        return {"rows": agreement(adata, profile, seed, folder.parent, setting["max_steps"])}
    try:
        return {"rows": clones(seed, setting["max_steps"])}
    except FileNotFoundError:
        return {"rows": {}}


stage = Stage(
    run_job,
    NAMES,
    ("energy_score", "log_loss", "ece", "brier", "total_variation"),
    settings=SETTINGS,
    libraries=("cellrank",),
    after=(fits.stage.title,),
)


def paired(rows: Mapping[int, dict[str, dict]], a: str, b: str, score: str) -> list[float]:
    """Row a less row b, mean and 95 % interval over seeds; below 0 if a is better.

    Parameters
    ----------
    rows
        By seed, from :func:`simulator`.
    a, b
        Two rows.
    score
        Such as ``"energy_score"``.

    Returns
    -------
    Mean, lower and upper end.
    """
    pair = ([found[row][score] for found in rows.values()] for row in (a, b))
    return [round(x, 4) for x in metrics.paired_interval(*map(np.array, pair))]

r"""Futures: a network that learns how cells move from pairs of places, and draws where they may go.

**Flow.** Conditional flow matching (Lipman et al. 2023, Tong et al. 2024) fits a drift v to pairs
(z, z') that lie a time :math:`\Delta` apart,

.. math::
    \min_v \; \mathrm{E} \Big\| v\big((1 - a) z + a z', t\big) - \frac{z' - z}{\Delta} \Big\|^2,

which makes v the mean velocity of all pairs that pass a place. Between days a is uniform on
(0, 1). A velocity's step is short and the chain goes on from where it ends, so there a is 0. What
the mean leaves out, the covariance :math:`\Sigma` of the pairs about it per unit of time, comes
back as diffusion, and a future is a path of

.. math:: dz = v(z, t) \, dt + \sigma \, \Sigma^{1/2} dW,

with the argument `noise` for :math:`\sigma`: 0 gives one path per cell, 1 the scatter of the pairs.

**Diffusion.** A denoising diffusion model (Ho et al. 2020) learns the same pairs' whole conditional
distribution, :math:`p(z' - z \mid z)`, and chains draws of it. `noise` scales the noise that the
draw starts from and is given on its way.

**Places.** A cell's coordinates carry the noise of its counts. With a velocity, what moves is the
mean of a cell's neighbours, as in scVelo's moments; at the end a draw gets the deviation from this
mean that a cell nearby has, so that it is as noisy as a cell.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scipy import sparse
from sklearn.neighbors import NearestNeighbors
from torch import nn
from tqdm.auto import tqdm

from ..checks import check_cells, coordinates, numbers, positions
from ..files import finish
from ..velocity.steady_state import draws
from .pairs import Days, Transitions
from .states import ELSEWHERE, nearest_states

logger = logging.getLogger("splicedvae")

KINDS = ("flow", "diffusion")
SUBSTEPS = {False: 1, True: 20}  # of the integration, for a step of a velocity, and between days
SMOOTHING = 0.1  # standard deviation about the line between a pair, in units of the space
BETAS = np.linspace(0.005, 0.5, 20)  # variance that each level of the diffusion model adds
CHUNK = 100_000  # draws that move together
SUPPORT_QUANTILE, LEAST_SUPPORT = 0.99, 0.8
N_NEIGHBORS = {False: 30, True: 1}  # whose mean is a cell's place, with a velocity and with days
N_LENDERS = 10  # nearby cells, of which one lends its deviation
N_CHECKED = 2000  # draws that the check of support looks at
FORMAT = "splicedvae.futures 1"


class _Network(nn.Sequential):
    def __init__(self, n_in: int, n_out: int, n_hidden: int):
        super().__init__(
            nn.Linear(n_in, n_hidden),
            nn.SiLU(),
            nn.Linear(n_hidden, n_hidden),
            nn.SiLU(),
            nn.Linear(n_hidden, n_hidden),
            nn.SiLU(),
            nn.Linear(n_hidden, n_out),
        )


class Futures:
    """Distributions over where cells go, from a velocity or from cells of several days.

    Parameters
    ----------
    adata
        Cells with coordinates, and a velocity or days.
    use_rep
        Where cells lie, ``obsm[use_rep]`` (cells, dimensions), such as the latent space of
        :meth:`~splicedvae.SplicedVAE.get_latent_representation`.
    vkey
        Name of a velocity from :func:`splicedvae.velocity.fit`, or several names, such as draws of
        a model's weights; time is then counted in steps of the velocity's graph.
    time_key
        Column of ``obs`` with days, a number. It replaces the velocity: pairs come from optimal
        transport between a day and the next, and time is counted in days.
    kind
        ``"flow"`` or ``"diffusion"``, see :mod:`splicedvae.futures.model`.
    n_neighbors
        Cells whose mean is a cell's place, see above; None for 30 with a velocity, 1 with days.
    n_hidden
        Width of the network.
    seed
        Of weights, pairs and draws.

    Raises
    ------
    KeyError
        The coordinates, the velocity or the days are missing.
    ValueError
        `kind` is not known, coordinates are not those of these cells, the velocity's graph is of
        other cells, or there is one day only.

    Examples
    --------
    >>> adata.obsm["X_splicedvae"] = model.get_latent_representation()
    >>> futures = sv.futures.Futures(adata, use_rep="X_splicedvae", vkey="velocity").fit()
    >>> places = futures.sample(horizon=10, n=50)  # (draws, cells, dimensions)
    >>> futures.fates(terminal=["Alpha", "Beta"], cluster_key="clusters")
    """

    def __init__(
        self,
        adata: AnnData,
        use_rep: str,
        vkey: str | Sequence[str] = "velocity",
        time_key: str | None = None,
        kind: str = "flow",
        n_neighbors: int | None = None,
        n_hidden: int = 128,
        seed: int = 0,
    ):
        check_cells(adata)
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r} is not known; choose one of {', '.join(KINDS)}.")
        self.adata, self.use_rep, self.time_key = adata, use_rep, time_key
        self.kind, self.n_hidden, self.seed = kind, n_hidden, seed
        self.vkeys = [vkey] if isinstance(vkey, str) else list(vkey)
        places = self._coordinates(adata)
        self._centre = places.mean(0)
        self._unit = float(np.sqrt(places.var(0).mean()))
        if not self._unit > 0:
            raise ValueError(f"All cells lie at one place in obsm[{use_rep!r}].")
        if n_neighbors is None:
            n_neighbors = N_NEIGHBORS[time_key is not None]
        self.n_neighbors = min(n_neighbors, adata.n_obs)
        self._raw = (places - self._centre) / self._unit
        self._places = self._smooth(self._raw)
        if time_key is None:
            self._pairs = Transitions(adata, self._places, self.vkeys)
            self._check_neighbours()
            self._last = np.inf
        else:
            self._pairs = Days(adata, self._places, time_key)
            self._last = float(self._pairs.days[-1])
        self.noise_ = None

    def fit(
        self,
        max_steps: int = 2000,
        batch_size: int = 256,
        learning_rate: float = 2e-3,
        progress: bool = True,
    ) -> Futures:
        """Train the network on pairs that are drawn anew in each step.

        Parameters
        ----------
        max_steps
            Steps of the optimiser.
        batch_size
            Pairs in a step.
        learning_rate
            Of Adam at the start; it falls to 0 along a cosine.
        progress
            Show a bar.

        Returns
        -------
        Itself; ``noise_`` is then the covariance that the pairs have about the drift, per unit of
        time, in units of the cells' spread.
        """
        rng = np.random.default_rng(self.seed)
        torch_rng = torch.Generator().manual_seed(self.seed)
        now, following, _, gap = self._pairs.draw(4096 if not self._pairs.timed else 512, rng)
        self._step = float(np.sqrt(((following - now) ** 2).mean())) or 1.0
        self._gap = float(gap.mean())
        self._network = self._made()
        optimiser = torch.optim.Adam(self._network.parameters(), lr=learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max_steps)
        loss_of = self._flow_loss if self.kind == "flow" else self._diffusion_loss
        for _ in tqdm(range(max_steps), desc=self.kind, unit="step", disable=not progress):
            drawn = [
                torch.as_tensor(x, dtype=torch.float32) for x in self._pairs.draw(batch_size, rng)
            ]
            loss = loss_of(*drawn, torch_rng)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        self.noise_ = self._scatter(rng)
        return self

    def sample(
        self,
        cells: AnnData | Sequence[int] | np.ndarray | None = None,
        horizon: float = 1.0,
        n: int = 50,
        noise: float = 1.0,
        seed: int = 0,
    ) -> np.ndarray:
        """Draw where cells are after some time.

        Parameters
        ----------
        cells
            Positions in the cells that were fitted, a mask, None for all of them; or other cells
            with the same coordinates (and days).
        horizon
            Time ahead, in steps of the velocity's graph or in days.
        n
            Draws per cell.
        noise
            Multiple of the scatter that was learnt; 0 for one path per cell.
        seed
            Of the draws.

        Returns
        -------
        Array (n, cells, dimensions) in the units of ``obsm[use_rep]``. A warning says if the
        horizon or the places lie beyond the data.

        Raises
        ------
        ValueError
            It was not fitted, the horizon is not positive, or coordinates are of other cells.
        """
        places = self.paths(cells, horizon, n, n_times=1, noise=noise, seed=seed)[:, -1]
        if noise and self.n_neighbors > 1:
            places = places + self._deviations(places, seed)
        flat = places.reshape(-1, places.shape[-1])
        chosen = np.random.default_rng(seed).permutation(len(flat))[:N_CHECKED]
        if (supported := self.support(flat[chosen]).mean()) < LEAST_SUPPORT:
            logger.warning(
                "Support is %.0f %%: the other futures lie farther from every cell than cells lie "
                "from each other. Take a shorter horizon than %g, or less noise.",
                100 * supported,
                horizon,
            )
        return places

    @torch.inference_mode()
    def paths(
        self,
        cells: AnnData | Sequence[int] | np.ndarray | None = None,
        horizon: float = 1.0,
        n: int = 50,
        n_times: int = 10,
        noise: float = 1.0,
        seed: int = 0,
    ) -> np.ndarray:
        """Draw the ways that cells take, at equal times up to the horizon.

        Parameters
        ----------
        cells, horizon, n, noise, seed
            As in :meth:`sample`.
        n_times
            Times after the start.

        Returns
        -------
        Array (n, n_times + 1, cells, dimensions), the start first; the means that move, without
        the deviations that :meth:`sample` adds.

        Raises
        ------
        ValueError
            As in :meth:`sample`.
        """
        if self.noise_ is None:
            raise ValueError("There is no fit yet: call fit() before drawing futures.")
        if not (np.isfinite(horizon) and horizon > 0 and n >= 1 and n_times >= 1 and noise >= 0):
            raise ValueError(
                f"horizon={horizon}, n={n}, n_times={n_times}, noise={noise}: give a horizon above "
                "0, at least one draw and one time, and noise of at least 0."
            )
        start, day = self._start(cells)
        if (day + horizon > self._last + 1e-9).any():
            logger.warning(
                "A horizon of %g from day %g ends after day %g, the last one with cells: nothing "
                "supports what is drawn beyond it.",
                horizon,
                day.max(),
                self._last,
            )
        rng = torch.Generator().manual_seed(seed)
        advance = self._flow_forward if self.kind == "flow" else self._diffusion_forward
        result = np.empty((n, n_times + 1, *start.shape), dtype=np.float32)
        size = max(1, CHUNK // n)
        for first in range(0, len(start), size):
            part = slice(first, first + size)
            z = torch.as_tensor(start[part], dtype=torch.float32).repeat(n, 1)
            t = torch.as_tensor(day[part], dtype=torch.float32).repeat(n)
            for time in range(n_times + 1):
                if time:
                    z = advance(z, t, horizon / n_times, noise, rng)
                    t = t + horizon / n_times
                result[:, time, part] = z.reshape(n, -1, z.shape[-1]).numpy()
        return result * np.float32(self._unit) + self._centre.astype(np.float32)

    def fates(
        self,
        cells: AnnData | Sequence[int] | np.ndarray | None = None,
        terminal: Sequence[str] = (),
        cluster_key: str = "clusters",
        horizon: float | None = None,
        n: int = 50,
        noise: float = 1.0,
        n_neighbors: int = 15,
        seed: int = 0,
    ) -> pd.DataFrame:
        """How likely cells end in each of some terminal states.

        A drawn place belongs to a state by the share of its nearest labelled cells.

        Parameters
        ----------
        cells, n, noise, seed
            As in :meth:`sample`.
        terminal
            Two or more categories of `cluster_key`.
        cluster_key
            Column of ``obs``; cells without a value are not asked.
        horizon
            As in :meth:`sample`: the state at that time counts. None follows each path for 50
            steps, or to the last day, and counts the first terminal state that it enters.
        n_neighbors
            Labelled cells that are asked about a place.

        Returns
        -------
        Probabilities (cells, states); the column ``"elsewhere"`` is for paths that are in none.

        Raises
        ------
        KeyError
            There is no such column or category.
        ValueError
            There are fewer than two terminal states.
        """
        if cluster_key not in self.adata.obs:
            raise KeyError(f"There is no obs[{cluster_key!r}]; name the column with the states.")
        labels = self.adata.obs[cluster_key]
        places = self._places * self._unit + self._centre
        states = nearest_states(places, labels, terminal, n_neighbors)
        asked = cells
        if not isinstance(cells, AnnData):
            asked = positions("cells", cells, self.adata.n_obs)
        start, day = self._start(asked)
        first, spans = horizon is None, {}
        if first and self.time_key is not None:
            spans = {float(self._last - d): np.flatnonzero(day == d) for d in np.unique(day)}
        spans = spans or {50.0 if first else horizon: np.arange(len(start))}
        found = np.empty((len(start), len(terminal) + 1))
        for ahead, rows in spans.items():
            if first and ahead <= 0:  # of the last day: they are where they are
                found[rows] = states(start[rows] * self._unit + self._centre)
                continue
            walked = self.paths(asked[rows], ahead, n, 25 if first else 1, noise, seed)
            arrived = np.zeros((walked.shape[0], walked.shape[2], len(terminal) + 1))
            for k in range(0 if first else 1, walked.shape[1]):
                going_on = arrived[..., :-1].sum(-1) < 0.5  # those in no terminal state yet
                if going_on.any():
                    arrived[going_on] = states(walked[:, k][going_on])
            found[rows] = arrived.mean(0)
        index = asked.obs_names if isinstance(cells, AnnData) else self.adata.obs_names[asked]
        return pd.DataFrame(found, index=index, columns=[*terminal, ELSEWHERE])

    @torch.inference_mode()
    def decode(self, places: np.ndarray, model, seed: int = 0) -> AnnData:
        """Turn places in a model's latent space into cells with spliced and unspliced counts.

        Parameters
        ----------
        places
            (..., dimensions), from :meth:`sample` or :meth:`paths`.
        model
            The trained :class:`splicedvae.SplicedVAE` whose latent space ``obsm[use_rep]`` is. Its
            decoder draws counts of the first batch, at library sizes of the model's cells, and its
            head splits them.
        seed
            Of the draws.

        Returns
        -------
        AnnData of drawn cells × the model's genes, with counts in ``layers`` ``total``, ``spliced``
        and ``unspliced``, and the places in ``obsm[use_rep]``.

        Raises
        ------
        ValueError
            The places are not of the model's latent space, or the model has covariates or no cells.
        """
        flat = np.asarray(places, dtype=np.float32).reshape(-1, np.shape(places)[-1])
        if flat.shape[1] != model.module.n_latent:
            raise ValueError(
                f"The places have {flat.shape[1]} dimensions and the model's latent space "
                f"{model.module.n_latent}; give the model that obsm[{self.use_rep!r}] is from."
            )
        arguments = model.registry_["setup_args"]
        keys = ("categorical_covariate_keys", "continuous_covariate_keys")
        if any(arguments.get(key) for key in keys):
            raise ValueError("The model has covariates, which a drawn place does not tell.")
        if model.adata is None:
            raise ValueError(
                "The model has no cells of its own, whose depths draws take; load it with adata=."
            )
        rng = np.random.default_rng(seed)
        sizes = np.asarray(model.adata_manager.get_from_registry("X").sum(axis=1)).ravel()
        library = torch.as_tensor(np.log(rng.choice(sizes, len(flat))), dtype=torch.float32)
        batch = torch.zeros(len(flat), 1)
        given = (torch.as_tensor(flat), library[:, None], batch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            device = next(model.module.parameters()).device
            drawn = model.module.generative(*(x.to(device) for x in given))["px"].sample()
        counts = sparse.csr_matrix(drawn.cpu().numpy())
        names = [f"future_{k + 1}" for k in range(len(flat))]
        cells = AnnData(counts, obs=pd.DataFrame(index=names), var=pd.DataFrame(index=model.genes))
        query = type(model).prepare_query_anndata(cells.copy(), model)
        model.impute_layers(query, key_added="drawn")
        expected = (sparse.csr_matrix(query.layers[f"{x}_drawn"]) for x in ("spliced", "unspliced"))
        spread = query.var["concentration_drawn"].to_numpy()
        pair = next(draws(*expected, 1, seed, spread))
        cells.layers["spliced"], cells.layers["unspliced"] = pair
        cells.layers["total"] = counts if model.input == "total" else pair[0] + pair[1]
        cells.obsm[self.use_rep] = flat
        return cells

    def support(self, places: np.ndarray) -> np.ndarray:
        """Whether places lie among the cells.

        Parameters
        ----------
        places
            (places, dimensions), in the units of ``obsm[use_rep]``.

        Returns
        -------
        Boolean (places,): the nearest cell is no farther than cells are from their tenth
        neighbour, but for the loneliest hundredth of them.
        """
        tree = NearestNeighbors(n_neighbors=min(11, len(self._raw))).fit(self._raw)
        some = np.random.default_rng(0).permutation(len(self._raw))[:N_CHECKED]
        own = tree.kneighbors(self._raw[some])[0][:, -1]
        found = tree.kneighbors((places - self._centre) / self._unit, n_neighbors=1)[0][:, 0]
        return found <= np.quantile(own, SUPPORT_QUANTILE)

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted model to one file.

        Parameters
        ----------
        path
            The file; one that is there is replaced.

        Raises
        ------
        ValueError
            It was not fitted.
        """
        if self.noise_ is None:
            raise ValueError("There is no fit yet: call fit() before save().")
        kept = {
            "format": FORMAT,
            "arguments": {
                "use_rep": self.use_rep,
                "vkey": self.vkeys,
                "time_key": self.time_key,
                "kind": self.kind,
                "n_neighbors": self.n_neighbors,
                "n_hidden": self.n_hidden,
                "seed": self.seed,
            },
            "scales": {"step": self._step, "gap": self._gap, "unit": self._unit},
            "centre": torch.as_tensor(self._centre),
            "noise": torch.as_tensor(self.noise_),
            "weights": self._network.state_dict(),
        }
        finish(Path(path), lambda part: torch.save(kept, part))

    @classmethod
    def load(cls, path: str | os.PathLike, adata: AnnData) -> Futures:
        """Read what :meth:`save` wrote; nothing in the file is run.

        Parameters
        ----------
        path
            The file.
        adata
            The cells that it was fitted on.

        Returns
        -------
        The model.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            It is no such model, or coordinates are of other cells.
        """
        try:
            kept = torch.load(path, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError) as error:
            raise ValueError(f"{path} holds no saved Futures, or is damaged.") from error
        if not isinstance(kept, dict) or kept.get("format") != FORMAT:
            raise ValueError(f"{path} holds no saved Futures; give a file that save() wrote.")
        model = cls(adata, **kept["arguments"])
        centre = kept["centre"].numpy()
        if centre.shape != model._centre.shape or not np.allclose(
            centre, model._centre, 1e-3, 1e-3
        ):
            raise ValueError(
                f"obsm[{model.use_rep!r}] is not the space that {path} was fitted in; give the "
                "cells and coordinates that it was fitted on."
            )
        model._step, model._gap = kept["scales"]["step"], kept["scales"]["gap"]
        model.noise_ = kept["noise"].numpy()
        model._network = model._made()
        model._network.load_state_dict(kept["weights"])
        return model

    # --- the two kinds ----------------------------------------------------------------------------

    def _made(self) -> _Network:
        dims = self._places.shape[1]
        n_in = dims * (1 + (self.kind == "diffusion")) + self._pairs.timed
        n_in += self.kind == "diffusion"  # the level
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return _Network(n_in, dims, self.n_hidden)

    def _asked(self, *inputs: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The network's answer for rows of inputs, and their time, if they have any."""
        if self._pairs.timed:
            days = self._pairs.days
            inputs = (
                *inputs,
                ((t.clamp(max=self._last) - days[0]) / (days[-1] - days[0]))[:, None],
            )
        return self._network(torch.cat(inputs, dim=1))

    def _flow_loss(self, now, following, t, gap, rng) -> torch.Tensor:
        a = torch.rand(len(now), 1, generator=rng) * self._pairs.timed
        between = (1 - a) * now + a * following
        between = between + SMOOTHING * torch.randn(now.shape, generator=rng)
        drift = self._asked(between, t=t + a[:, 0] * gap) * self._step / gap[:, None]
        return (((drift - (following - now) / gap[:, None]) * self._gap / self._step) ** 2).mean()

    def _flow_forward(self, z, t, horizon, noise, rng) -> torch.Tensor:
        n = max(1, int(np.ceil(horizon / self._gap * SUBSTEPS[self._pairs.timed])))
        dt = horizon / n
        root = torch.as_tensor(np.linalg.cholesky(self.noise_), dtype=torch.float32)
        for _ in range(n):  # Euler and Maruyama
            z = z + dt * self._asked(z, t=t) * self._step / self._gap
            if noise:
                z = z + noise * dt**0.5 * torch.randn(z.shape, generator=rng) @ root.T
            t = t + dt
        return z

    def _diffusion_loss(self, now, following, t, gap, rng) -> torch.Tensor:
        kept = torch.as_tensor(np.cumprod(1 - BETAS), dtype=torch.float32)
        level = torch.randint(len(BETAS), (len(now),), generator=rng)
        noise = torch.randn(now.shape, generator=rng)
        share = kept[level][:, None]
        noised = share.sqrt() * (following - now) / self._step + (1 - share).sqrt() * noise
        answer = self._asked(noised, now, (level / len(BETAS))[:, None], t=t)
        return ((answer - noise) ** 2).mean()

    def _diffusion_forward(self, z, t, horizon, noise, rng) -> torch.Tensor:
        kept = np.cumprod(1 - BETAS)
        left = horizon / self._gap
        while left > 1e-9:
            part = min(1.0, left)
            x = noise * torch.randn(z.shape, generator=rng)
            for k in reversed(range(len(BETAS))):
                level = torch.full((len(z), 1), k / len(BETAS))
                answer = self._asked(x, z, level, t=t)
                x = (x - BETAS[k] / np.sqrt(1 - kept[k]) * answer) / np.sqrt(1 - BETAS[k])
                if k and noise:
                    x = x + noise * np.sqrt(BETAS[k]) * torch.randn(z.shape, generator=rng)
            z, t, left = z + part * self._step * x, t + part * self._gap, left - part
        return z

    @torch.inference_mode()
    def _scatter(self, rng: np.random.Generator) -> np.ndarray:
        """Covariance per unit of time of pairs about the drift (about their mean, if diffusion)."""
        rest = []
        for _ in range(16):
            now, following, t, gap = self._pairs.draw(256, rng)
            moved = (following - now) / gap[:, None]
            if self.kind == "flow":
                a = rng.random((len(now), 1)) * self._pairs.timed
                z = torch.as_tensor((1 - a) * now + a * following, dtype=torch.float32)
                t = torch.as_tensor(t + a[:, 0] * gap, dtype=torch.float32)
                moved = moved - self._asked(z, t=t).numpy() * self._step / self._gap
            rest.append((moved - moved.mean(0) * (self.kind != "flow")) * np.sqrt(gap)[:, None])
        covariance = np.cov(np.concatenate(rest).T, bias=True).reshape(self._places.shape[1], -1)
        return covariance + 1e-8 * np.eye(len(covariance))

    # --- places ----------------------------------------------------------------------------------

    def _coordinates(self, adata: AnnData) -> np.ndarray:
        places = coordinates(adata, self.use_rep, "; name the space that cells lie in.")
        if places.ndim != 2:
            raise ValueError(f"obsm[{self.use_rep!r}] must be cells × dimensions.")
        return places

    def _smooth(self, asked: np.ndarray) -> np.ndarray:
        """Mean of the nearest fitted cells."""
        if self.n_neighbors < 2:
            return asked
        tree = NearestNeighbors(n_neighbors=self.n_neighbors).fit(self._raw)
        near = tree.kneighbors(asked, return_distance=False)
        return self._raw[near].mean(1)

    def _deviations(self, places: np.ndarray, seed: int) -> np.ndarray:
        """How far a cell near each place is from its neighbours' mean."""
        rng = np.random.default_rng(seed)
        tree = NearestNeighbors(n_neighbors=min(N_LENDERS, len(self._raw))).fit(self._places)
        flat = (places.reshape(-1, places.shape[-1]) - self._centre) / self._unit
        near = tree.kneighbors(flat, return_distance=False)
        lender = near[np.arange(len(near)), rng.integers(near.shape[1], size=len(near))]
        return ((self._raw - self._places)[lender] * self._unit).reshape(places.shape)

    def _check_neighbours(self) -> None:
        """Refuse a latent space in which the velocity's neighbours are no nearer than any two."""
        graph = self._pairs.matrix.tocoo()
        rng = np.random.default_rng(0)
        edges = graph.row != graph.col
        near = self._raw[graph.row[edges]] - self._raw[graph.col[edges]]
        any_two = self._raw[rng.permutation(len(self._raw))] - self._raw
        if len(near) and np.mean(near**2) > 0.9 * np.mean(any_two**2):
            raise ValueError(
                f"In obsm[{self.use_rep!r}], neighbours in the velocity's graph are no nearer than "
                "any two cells: these are the coordinates of other cells, or in another order."
            )

    def _start(self, cells) -> tuple[np.ndarray, np.ndarray]:
        """Places in units of the space (cells, dimensions), and days (cells,)."""
        if isinstance(cells, AnnData):
            places, source = self._coordinates(cells), cells
            if places.shape[1] != len(self._centre):
                raise ValueError(
                    f"obsm[{self.use_rep!r}] has {places.shape[1]} dimensions in these cells and "
                    f"{len(self._centre)} in those that were fitted; compute it by the same model."
                )
            places = self._smooth((places - self._centre) / self._unit)
            chosen = np.arange(cells.n_obs)
        else:
            chosen, source = positions("cells", cells, self.adata.n_obs), self.adata
            places = self._places[chosen]
        if not len(places):
            raise ValueError("cells names no cell.")
        if self.time_key is None:
            return places, np.zeros(len(places))
        return places, numbers(source, self.time_key, "day")[chosen]

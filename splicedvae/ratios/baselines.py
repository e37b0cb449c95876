"""Baselines for splicing ratios."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
import scvi
import torch
from anndata import AnnData
from scipy.special import expit, logit
from sklearn.neighbors import NearestNeighbors

from ..checks import categories, check_cells, same_genes
from ..counts import checked_layers, measured, no_empty_cell, tell_missing_form
from ._entries import clipped, log_likelihood, pooled_ratio
from ._features import LogPCA, count_layer, log_normalised
from .ceilings import fit_concentration
from .regression import hierarchical_binomial, linear_ratio, ridge_binomial


class _Baseline:
    """Checks, the pooled ratio and the choice of a setting, common to all baselines.

    A subclass yields (setting, state, validation ratios) from ``_candidates``; the most likely
    one's state is kept for ``_ratio``.
    """

    _forms = "spliced", "unspliced"

    def fit(
        self,
        train: AnnData,
        val: AnnData,
        spliced_layer: str = "spliced",
        unspliced_layer: str = "unspliced",
    ) -> Self:
        """Fit on ``train`` and choose settings on ``val``.

        Parameters
        ----------
        train, val
            Cells by genes, same genes in the same order, with raw spliced and unspliced counts.
            Where the baseline reads totals, it takes ``layers["total"]`` or their sum.
        spliced_layer, unspliced_layer
            Names of the layers.

        Returns
        -------
        The fitted baseline; the chosen setting is in ``params_``.

        Raises
        ------
        KeyError
            A layer or the cluster key is missing.
        ValueError
            Counts are not raw counts, a layer of `train` is empty, cells are missing, or genes
            differ.
        """
        check_cells(train, "train")
        check_cells(val, "val")
        same_genes(val, train.var_names, "train")
        self._forms = spliced_layer, unspliced_layer
        pair = checked_layers(train, *self._forms, teaches=True)
        tell_missing_form(train, pair, "Their ratios teach the baseline nothing.")
        spliced, unspliced = measured(pair)
        held_out = [x.toarray() for x in measured(checked_layers(val, *self._forms))]
        self.var_names_ = train.var_names.copy()
        self.mean_ = pooled_ratio(spliced, unspliced)
        self.params_: dict = {}
        best = -np.inf
        for params, state, ratio in self._candidates(train, val, spliced, unspliced):
            score = log_likelihood(*held_out, clipped(ratio))
            if score > best:
                best, self.params_, self._state = score, params, state
        return self

    def predict(self, query: AnnData) -> np.ndarray:
        """Splicing ratios of the query cells.

        Parameters
        ----------
        query
            Cells with the genes of the training cells; needs no spliced or unspliced counts if
            there are totals, where the baseline reads these.

        Returns
        -------
        Array (cells, genes) of ratios in (0, 1).

        Raises
        ------
        KeyError
            Totals or the cluster key are missing where the baseline reads them.
        ValueError
            Genes differ from the training genes, counts are not counts, or a cell has no cluster.
        """
        if not hasattr(self, "var_names_"):
            raise ValueError(f"{type(self).__name__} is not fitted; call fit(train, val) first")
        check_cells(query, "query")
        same_genes(query, self.var_names_, "train")
        return clipped(self._ratio(query))

    def _total(self, adata: AnnData) -> sp.csr_array:
        total = count_layer(adata, "total", self._forms)
        no_empty_cell(adata, total, "layer 'total'")
        return total

    def _shrunk(self, spliced: np.ndarray, total: np.ndarray, prior: float) -> np.ndarray:
        """Ratio of summed counts with ``prior`` further counts at the gene mean."""
        return (spliced + prior * self.mean_) / (total + prior)


class GeneMean(_Baseline):
    r"""The pooled training ratio of each gene, the same in every cell: learns nothing of cells.

    .. math:: m_g = \frac{\bar m + \sum_c s_{cg}}{1 + \sum_c n_{cg}}, \qquad
              \bar m \text{ the ratio of all counts}

    Attributes
    ----------
    mean_
        Array (genes,), see `pooled_ratio`.
    """

    def _candidates(self, train, val, spliced, unspliced):
        yield {}, None, np.broadcast_to(self.mean_, val.shape)

    def _ratio(self, query: AnnData) -> np.ndarray:
        return np.broadcast_to(self.mean_, query.shape)


class GeneByCluster(_Baseline):
    r"""The pooled ratio of each gene in each cluster, shrunk towards the gene mean.

    .. math:: \hat p_{kg} = \frac{\kappa\, m_g + \sum_{c \in k} s_{cg}}
              {\kappa + \sum_{c \in k} n_{cg}}

    with the prior :math:`\kappa`, in counts, tuned on val. A cluster k that training never saw gets
    the gene mean.

    Parameters
    ----------
    cluster_key
        Column of ``obs`` with the cluster of each cell.
    priors
        Candidate priors, in counts.
    """

    def __init__(
        self,
        cluster_key: str = "clusters",
        priors: Sequence[float] = (1, 3, 10, 30, 100, 300, 1000, 3000),
    ):
        self.cluster_key, self.priors = cluster_key, priors

    def _labels(self, adata: AnnData) -> np.ndarray:
        return categories(adata, self.cluster_key, "cluster").astype(str)

    def _members(self, adata: AnnData) -> sp.csr_array:
        """Indicator (cells, clusters) of the training clusters."""
        return sp.csr_array(self._labels(adata)[:, None] == self.clusters_, dtype=np.float64)

    def _candidates(self, train, val, spliced, unspliced):
        self.clusters_ = np.unique(self._labels(train))
        members = self._members(train).T
        self._sums = [(members @ x).toarray() for x in (spliced, spliced + unspliced)]
        members = self._members(val)
        s, n = (members @ sums for sums in self._sums)
        for prior in self.priors:
            yield {"prior": prior}, prior, self._shrunk(s, n, prior)

    def _ratio(self, query: AnnData) -> np.ndarray:
        members = self._members(query)
        return self._shrunk(*(members @ sums for sums in self._sums), self._state)


class _Latent(_Baseline):
    """A baseline that reads cells through coordinates: :class:`LogPCA`, or another latent space,
    which overrides ``_fit_features`` and ``_features``.
    """

    seed: int
    _n_components: int
    _whiten = False

    def _fit_features(self, train: AnnData, val: AnnData) -> None:
        space = LogPCA(self._total(train), self._n_components, self.seed, self._whiten)
        self._features = lambda adata: space.transform(self._total(adata))


class NearestNeighbours(_Latent):
    """Pooled ratio of the nearest training cells, shrunk towards the gene mean.

    As :class:`GeneByCluster`, with a cell's neighbours in place of its cluster. Neighbours are
    Euclidean on principal components of log-normalised totals.

    Parameters
    ----------
    n_pcs
        Number of principal components.
    ks
        Candidate numbers of neighbours.
    priors
        Candidate strengths of the gene mean, in counts.
    seed
        Seed of the principal components.
    """

    def __init__(
        self,
        n_pcs: int = 30,
        ks: Sequence[int] = (50, 100, 200, 400, 800),
        priors: Sequence[float] = (10, 30, 100, 300),
        seed: int = 0,
    ):
        self.ks, self.priors, self.seed, self._n_components = ks, priors, seed, n_pcs

    def _candidates(self, train, val, spliced, unspliced):
        self._fit_features(train, val)
        self._counts = spliced, spliced + unspliced
        ks = sorted({min(k, train.n_obs) for k in self.ks})
        self._index = NearestNeighbors(n_neighbors=ks[-1]).fit(self._features(train))
        neighbours = self._index.kneighbors(self._features(val), return_distance=False)
        for k in ks:
            s, n = self._sums(neighbours[:, :k])
            for prior in self.priors:
                yield {"k": k, "prior": prior}, (k, prior), self._shrunk(s, n, prior)

    def _sums(self, neighbours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Spliced and total counts (cells, genes) summed over neighbours (cells, k)."""
        n_obs, k = neighbours.shape
        members = sp.csr_array(
            (np.ones(n_obs * k), neighbours.ravel(), np.arange(0, n_obs * k + 1, k)),
            shape=(n_obs, self._counts[0].shape[0]),
        )
        spliced, total = self._counts
        return (members @ spliced).toarray(), (members @ total).toarray()

    def _ratio(self, query: AnnData) -> np.ndarray:
        k, prior = self._state
        neighbours = self._index.kneighbors(self._features(query), k, return_distance=False)
        return self._shrunk(*self._sums(neighbours), prior)


class RidgeBinomial(_Latent):
    r"""One logistic model per gene on principal components x, with a penalty on the slopes alone.

    .. math:: \max_{a_g, w_g} \sum_c \log p\big(s_{cg} \mid n_{cg}, \hat p_{cg}\big)
              - \tfrac{l_2}{2} \lVert w_g \rVert^2, \qquad
              \mathrm{logit}\, \hat p_{cg} = a_g + x_c \cdot w_g

    The number of components and the penalty are tuned on val. A gene seen only spliced or only
    unspliced in train keeps its gene mean, since its intercept has no finite estimate. The penalty
    is on slopes per unit of a component, hence soft where cells differ much.

    Parameters
    ----------
    n_pcs
        Candidate numbers of principal components.
    l2
        Candidate penalties.
    seed
        Seed of the principal components.
    whiten
        Scale each component to variance 1 in train, so that the penalty is as hard on all.
    """

    def __init__(
        self,
        n_pcs: Sequence[int] = (10, 20, 30, 50),
        l2: Sequence[float] = (10_000, 3000, 1000, 300, 100, 30),
        seed: int = 0,
        whiten: bool = False,
    ):
        self.n_pcs, self.l2, self.seed, self._whiten = n_pcs, l2, seed, whiten
        self._n_components = max(n_pcs)

    def _candidates(self, train, val, spliced, unspliced):
        self._fit_features(train, val)
        x, x_val = self._features(train), self._features(val)
        s, n = spliced.toarray(), (spliced + unspliced).toarray()
        for d in sorted({min(d, x.shape[1]) for d in self.n_pcs}):
            weights = np.vstack([logit(self.mean_), np.zeros((d, train.n_vars))])
            for l2 in sorted(self.l2, reverse=True):  # strong to weak: each fit starts the next
                weights = ridge_binomial(x[:, :d], s, n, l2, weights)
                yield {"n_components": d, "l2": l2}, weights, linear_ratio(x_val[:, :d], weights)

    def _ratio(self, query: AnnData) -> np.ndarray:
        return linear_ratio(self._features(query)[:, : len(self._state) - 1], self._state)


class HierarchicalBinomial(_Baseline):
    r"""SplicedVAE's regression without its network: slopes with a common prior, by EM.

    .. math:: \mathrm{logit}\, p_{cg} = a_g + w_g \cdot (x_c, o_{cg}), \qquad
              w_g \sim t_\nu(B\, l_g, \Sigma)

    Cells are read through principal components x, each of variance 1, and the gene's own count o;
    the prior of the slopes, of which :math:`l_g` are the gene's loadings, is estimated from all
    genes together. A count of n molecules weighs as much as :math:`n (c + 1) / (c + n)`
    independent ones, c the gene's concentration (Williams 1982). Nothing is tuned on val.

    Parameters
    ----------
    n_pcs
        Number of principal components.
    seed
        Seed of the principal components.
    """

    def __init__(self, n_pcs: int = 30, seed: int = 0):
        self.n_pcs, self.seed = n_pcs, seed

    def _candidates(self, train, val, spliced, unspliced):
        total = self._total(train)
        self._space = LogPCA(total, self.n_pcs, self.seed, whiten=True)
        own = log_normalised(total, self._space.depth).tocsc(), self._space.mean, self._space.std
        concentration = fit_concentration(spliced, unspliced, self.mean_)
        n = (spliced + unspliced).tocsc()
        c = np.repeat(concentration, np.diff(n.indptr))
        weight = sp.csc_array(((c + 1) / (c + n.data), n.indices, n.indptr), shape=n.shape)
        weights = hierarchical_binomial(
            self._space.transform(total),
            own,
            spliced.multiply(weight).tocsc(),
            n.multiply(weight).tocsc(),
            logit(self.mean_),
            self._space.loadings,
        )
        self._state = weights
        yield {"n_components": weights.shape[1] - 2}, weights, self._ratio(val)

    def _ratio(self, query: AnnData) -> np.ndarray:
        total, weights = self._total(query), self._state
        own = log_normalised(total, self._space.depth).toarray()
        own = (own - self._space.mean) / self._space.std
        intercept, slopes, own_slope = weights[:, 0], weights[:, 1:-1], weights[:, -1]
        return expit(intercept + self._space.transform(total) @ slopes.T + own * own_slope)


class ScviLatentRidge(RidgeBinomial):
    """`RidgeBinomial` on the latent means of a plain scVI instead of principal components.

    Parameters
    ----------
    model
        A trained `scvi.model.SCVI` whose genes are those of the cells to come. Without one, a
        model with the paper's size (latent 50, hidden 128, NB, 150 epochs) is trained on the
        total counts of the training cells, stopping early by the ELBO of the validation cells.
    l2
        Candidate penalties.
    seed
        Seed of the training.
    max_epochs
        Largest number of epochs of a model trained here.
    """

    def __init__(
        self,
        model=None,
        l2: Sequence[float] = (1000, 300, 100, 30, 10),
        seed: int = 0,
        max_epochs: int = 150,
    ):
        self.model, self.l2, self.seed, self.max_epochs = model, l2, seed, max_epochs

    def _fit_features(self, train: AnnData, val: AnnData) -> None:
        if self.model is not None:
            same_genes(train, self.model.get_var_names(), "the scVI model")
        totals = self._total(train), self._total(val)
        self._scvi = self.model or _train_scvi(totals, train.var[[]], self.seed, self.max_epochs)
        self.n_pcs = [self._scvi.module.n_latent]

    def _features(self, adata: AnnData) -> np.ndarray:
        cells = adata.to_memory() if adata.isbacked else adata.copy()
        cells.layers["total"] = sp.csr_matrix(self._total(adata), dtype=np.float32)
        return self._scvi.get_latent_representation(cells).astype(np.float64)


def _train_scvi(
    parts: tuple[sp.csr_array, sp.csr_array], var: pd.DataFrame, seed: int, max_epochs: int
):
    n_train = parts[0].shape[0]
    totals = sp.csr_matrix(sp.vstack(parts, dtype=np.float32))  # scvi refuses sparse arrays
    adata = AnnData(totals, var=var, layers={"total": totals})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        scvi.model.SCVI.setup_anndata(adata, layer="total")
        model = scvi.model.SCVI(adata, n_latent=50, n_hidden=128, gene_likelihood="nb")
        cells = np.arange(adata.n_obs)
        model.train(
            max_epochs=max_epochs,
            early_stopping=True,
            datasplitter_kwargs={
                "external_indexing": [cells[:n_train], cells[n_train:], cells[:0]]
            },
        )
    return model

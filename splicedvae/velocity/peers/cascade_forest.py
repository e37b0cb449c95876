"""The cascade forest (deep forest) on directions of arrows, in the protocols of Velo-Predictor.

Layer after layer of random forests reads the genes and what the layer before has said of the cell.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedKFold

from .velo_predictor import VeloPredictor


class CascadeForest(ClassifierMixin, BaseEstimator):
    """Layers of two random forests and two forests of extra trees (Zhou & Feng 2017).

    A layer's class probabilities of a training cell come from forests that have not seen it
    (*out of fold*), and are features of the next layer beside the genes. Layers are added while
    the out-of-fold accuracy rises.

    Parameters
    ----------
    n_trees
        Of each forest.
    n_folds
        Folds; each forest is fitted once without each of them, and a new cell gets their mean.
    max_layers
        Most layers.
    class_weight
        As in scikit-learn; ``"balanced"`` lets small classes count as much as large ones.
    seed
        Seed of folds and trees.

    Attributes
    ----------
    classes_
        The labels.
    layers_
        For each layer, for each forest, its fits without one fold.
    out_of_fold_
        Class probabilities of the training cells from the last layer (cells, classes).

    References
    ----------
    Zhou & Feng, IJCAI (2017); on arrows of RNA velocity: Zeng et al. (2022).
    """

    def __init__(
        self,
        n_trees: int = 50,
        n_folds: int = 3,
        max_layers: int = 3,
        class_weight: str | None = "balanced",
        seed: int = 0,
    ):
        self.n_trees, self.n_folds, self.max_layers = n_trees, n_folds, max_layers
        self.class_weight, self.seed = class_weight, seed

    def fit(self, X: np.ndarray, y: np.ndarray) -> Self:
        """Grow layers while they help.

        Parameters
        ----------
        X
            Features (cells, genes).
        y
            Labels (cells,).

        Returns
        -------
        The fitted cascade.

        Raises
        ------
        ValueError
            A class has fewer cells than there are folds.
        """
        self.classes_, codes, sizes = np.unique(y, return_inverse=True, return_counts=True)
        if sizes.min() < self.n_folds:
            raise ValueError(
                f"Class {self.classes_[sizes.argmin()]!r} has {sizes.min()} cells; "
                f"{self.n_folds} folds need as many. Merge it, or take fewer folds."
            )
        folds = StratifiedKFold(self.n_folds, shuffle=True, random_state=self.seed)
        folds = list(folds.split(X, codes))
        self.layers_, said, best = [], np.empty((len(X), 0)), -1.0
        for depth in range(self.max_layers):
            features = np.hstack([X, said])
            layer, out = [], []
            for i, kind in enumerate(2 * [RandomForestClassifier] + 2 * [ExtraTreesClassifier]):
                forest, held_out = [], np.zeros((len(X), len(self.classes_)))
                for j, (rest, fold) in enumerate(folds):
                    seed = hash((self.seed, depth, i, j)) % 2**31
                    trees = kind(self.n_trees, class_weight=self.class_weight, random_state=seed)
                    forest.append(trees.fit(features[rest], codes[rest]))
                    held_out[fold] = trees.predict_proba(features[fold])
                layer.append(forest)
                out.append(held_out)
            mean = np.mean(out, axis=0)
            accuracy = accuracy_score(codes, mean.argmax(1))
            if accuracy <= best:
                break
            best, said, self.out_of_fold_ = accuracy, np.hstack(out), mean
            self.layers_.append(layer)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Class probabilities of new cells.

        Parameters
        ----------
        X
            Features (cells, genes).

        Returns
        -------
        Array (cells, classes); rows sum to 1.
        """
        said = np.empty((len(X), 0))
        for layer in self.layers_:
            features = np.hstack([X, said])
            out = [np.mean([t.predict_proba(features) for t in f], axis=0) for f in layer]
            said = np.hstack(out)
        return np.mean(out, axis=0)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The likeliest class of new cells.

        Parameters
        ----------
        X
            Features (cells, genes).

        Returns
        -------
        Labels (cells,).
        """
        return self.classes_[self.predict_proba(X).argmax(1)]


class CascadePredictor(VeloPredictor):
    """Compass class of a cell's arrow, by a cascade forest.

    The two protocols are those of :class:`VeloPredictor`: :meth:`fit` and :meth:`predict` are
    honest, with weights for small classes in place of resampling; :meth:`as_published` balances all
    cells by SMOTETomek before it sets a test aside.

    Parameters
    ----------
    layer
        Raw counts to predict from.
    n_trees, max_layers
        As in :class:`CascadeForest`.
    seed
        Seed of folds, trees and resampling.
    """

    def __init__(
        self, layer: str = "spliced", n_trees: int = 50, max_layers: int = 3, seed: int = 0
    ):
        super().__init__(layer=layer, seed=seed)
        self.n_trees, self.max_layers = n_trees, max_layers

    def _fitted(self, x: np.ndarray, y: np.ndarray, balance: bool) -> list:
        weight = "balanced" if balance else None
        cascade = CascadeForest(self.n_trees, 3, self.max_layers, weight, self.seed)
        return [cascade.fit(x, y)]

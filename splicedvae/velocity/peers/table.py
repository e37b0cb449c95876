"""One table for all: every method on the same held-out cells, UMAP and graph, against one truth.

A method is a function in :data:`METHODS`. It gets a :class:`Task` and returns velocities (cells,
genes), in size-normalised counts, NaN in genes that it leaves out; or a field that it has fitted
itself. What it must be told stands in its name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import anndata
import numpy as np
import pandas as pd
import scvi
from anndata import AnnData
from tqdm.auto import tqdm

from ... import data
from ...counts import get_layer
from ...model import SplicedVAE
from ..baselines import velocity_baselines
from ..field import embed, embed_parts, fit, project
from ..metrics import (
    _cosine,
    cell_cosine,
    direction_accuracy,
    velocity_report,
    velocity_scale,
)
from . import nosplicevelo, pseudotime, sctour, tfvelo, velot
from ._shared import expression

ROOT = ", root given"  # ends the name of a method that needs a root
TURNED = ", turned by the root"
REFERENCE = "the reference itself"
COUNTED = "scVelo on the two counts"  # a row where the truth is known
#: Methods of the field that are not run, and why.
NOT_RUN = {
    "CytoTRACE 2": "its licence is proprietary, and its models come from a drive",
    "CellFlow": "its licence is non-commercial; it predicts perturbations, not velocities",
    "scDiffusion": "600,000 steps on a GPU, scripts only; it makes cells, not velocities",
}
SCORES = (
    "cosine",
    "cosine_raw",
    "angular_error",
    "accuracy",
    "balanced_accuracy",
    "accuracy_unrotated",
    "cbdir",
    "coherence",
)


@dataclass(frozen=True)
class Task:
    """What a method gets.

    Attributes
    ----------
    cells
        The cells that it is to give a velocity: ``layers["total"]``, clusters, a neighbour graph,
        principal components and a UMAP; no spliced and unspliced counts.
    train
        Other cells, with spliced and unspliced counts and the velocity that these give.
    root
        The cluster where development begins, or None.
    cluster_key
        Column of ``obs`` with the clusters.
    max_epochs
        Of a method that trains a VAE.
    seed
        Seed of everything random.
    """

    cells: AnnData
    train: AnnData
    root: str | None = None
    cluster_key: str = "clusters"
    max_epochs: int = 150
    seed: int = 0


@dataclass(frozen=True)
class HeldOut:
    """Cells on one UMAP, each part with a graph of its own, and the truth.

    Attributes
    ----------
    train
        Training cells with a velocity from true counts.
    reference
        Test cells with the velocity that counts as true.
    test
        The test cells without any velocity or counts of two forms.
    scale
        Each gene's unit (genes,), see :func:`splicedvae.metrics.velocity_scale`.
    counted
        If the truth is known: test cells with the velocity from their true counts; else None.
    """

    train: AnnData
    reference: AnnData
    test: AnnData
    scale: np.ndarray
    counted: AnnData | None = None


def _splicedvae(task: Task) -> AnnData:
    """SplicedVAE, trained on the training cells; a fifth of them validates."""
    scvi.settings.seed = task.seed
    train = AnnData(
        task.train.layers["total"].copy(),
        obs=task.train.obs[[]],
        var=task.train.var[[]],
        layers={x: task.train.layers[x].copy() for x in ("spliced", "unspliced")},
    )
    SplicedVAE.setup_anndata(train)
    model = SplicedVAE(train)
    order = np.random.default_rng(task.seed).permutation(train.n_obs)
    fifth = train.n_obs // 5
    split = np.sort(order[fifth:]), np.sort(order[:fifth])
    model.train(task.max_epochs, split=split, enable_progress_bar=False)
    field = SplicedVAE.prepare_query_anndata(task.cells, model)
    model.impute_layers(field)
    names = "spliced_splicedvae", "unspliced_splicedvae"
    fit(field, *names, concentration="concentration_splicedvae", seed=task.seed)
    return field


def _transfer(name: str) -> Callable[[Task], np.ndarray]:
    def method(task: Task) -> np.ndarray:
        cells = task.cells.copy()
        cells.layers["velocity"] = np.zeros(cells.shape, np.float32)  # to permute; not used
        if task.cluster_key not in cells.obs:
            cells.obs[task.cluster_key] = task.train.obs[task.cluster_key] = "all"
        return velocity_baselines(task.train, cells, task.cluster_key, seed=task.seed)[name]

    return method


#: By name, what makes a field of a :class:`Task`. A new method is one more line.
METHODS: dict[str, Callable[[Task], np.ndarray | AnnData]] = {
    "null: random vectors": _transfer("random vectors"),
    "velocity transfer (kNN)": _transfer("velocity transfer"),
    "SplicedVAE": _splicedvae,
    "scTour": lambda task: sctour.velocity(
        task.cells, min(400, 4 * task.max_epochs), seed=task.seed
    ),
    "TFvelo, ours from the paper": lambda task: tfvelo.velocity(task.cells, seed=task.seed),
    "noSpliceVelo, ours from the paper": lambda task: nosplicevelo.velocity(
        task.cells, task.max_epochs, seed=task.seed
    ),
    "CytoTRACE drift": lambda task: pseudotime.cytotrace(task.cells),
    f"DPT drift{ROOT}": lambda task: pseudotime.dpt(task.cells, task.root, task.cluster_key),
    f"VelOT{ROOT}": lambda task: velot.velocity(
        task.cells, task.root, task.cluster_key, min(200, 2 * task.max_epochs), task.seed
    ),
}
#: Methods whose direction is arbitrary, by their authors' word: shown as it came, and turned.
UNDIRECTED = ("scTour",)


def held_out(
    adata: AnnData, train: np.ndarray, test: np.ndarray, truth: str | None = None
) -> HeldOut:
    """Embed the cells, strip the test cells of their two counts, and keep the truth.

    Parameters
    ----------
    adata
        Prepared cells, see :func:`splicedvae.data.prepare`.
    train, test
        Positions.
    truth
        A layer that holds the known velocity of simulated cells; None for scVelo's stochastic
        model on the true counts.

    Returns
    -------
    The cells.

    Raises
    ------
    KeyError
        There is no layer `truth`.
    """
    if truth is not None:
        get_layer(adata, truth)  # says which layers there are, where this one is missing
    known, test = embed_parts(adata, train, test)
    reference, counted, unit = test.copy(), None, known
    for part in (known, reference):
        fit(part)
    if truth is not None:
        counted, vectors = reference, test.layers[truth]
        reference = reference.copy()
        project(reference, vectors, vectors.std(0) > 0, overwrite=True)
        reference.var["velocity_genes"] &= known.var["velocity_genes"]  # others are noise
        unit = AnnData(known.X, layers={"velocity": known.layers[truth]}, var=known.var)
    for name in set(test.layers) - {"total"}:
        del test.layers[name]
    return HeldOut(known, reference, test, velocity_scale(unit), counted)


def field_of(test: AnnData, vectors: np.ndarray | AnnData) -> AnnData:
    """What a method returned, as a field: its graph and its arrows on the embedding.

    Parameters
    ----------
    test
        The cells.
    vectors
        Velocities (cells, genes), or a field, which stays as it is.

    Returns
    -------
    A copy of the cells with a velocity.

    Raises
    ------
    ValueError
        The velocity points nowhere, or is missing in some cells of a gene.
    """
    if isinstance(vectors, AnnData):
        return vectors
    field = test.copy()
    field.layers["Ms"] = expression(test).astype(np.float32)
    project(field, vectors)
    return field


def report(
    cells: HeldOut, field: AnnData, edges: Sequence[tuple[str, str]], cluster_key: str = "clusters"
) -> dict[str, float]:
    """Scores of a field; CBDir and coherence only where there are edges.

    Parameters
    ----------
    cells
        From :func:`held_out`.
    field
        From :func:`field_of`.
    edges
        Pairs of clusters, one before the other; may be empty.
    cluster_key
        Column of ``obs`` with the clusters.

    Returns
    -------
    As :func:`splicedvae.metrics.velocity_report`.
    """
    if edges:
        return velocity_report(cells.reference, field, cells.scale, edges, cluster_key)
    true, arrows = (x.obsm["velocity_umap"] for x in (cells.reference, field))
    return {
        "cosine": float(cell_cosine(cells.reference, field, cells.scale).mean()),
        "cosine_raw": float(cell_cosine(cells.reference, field).mean()),
        "angular_error": float(np.degrees(np.arccos(_cosine(true, arrows).clip(-1, 1))).mean()),
    } | direction_accuracy(true, arrows)


def score(
    cells: HeldOut,
    task: Task,
    methods: Mapping[str, Callable] = METHODS,
    edges: Sequence[tuple[str, str]] = (),
    progress: bool = True,
) -> dict[str, dict]:
    """Run methods on a task and score their fields.

    Parameters
    ----------
    cells
        From :func:`held_out`.
    task
        What the methods get; if its cells are more than the test cells, these come last.
    methods
        By name, as :data:`METHODS`.
    edges
        For CBDir, see :func:`report`.
    progress
        Show a bar.

    Returns
    -------
    For each method, and for the truth itself, its scores, ``minutes`` of one core, which a busy
    machine does not change, and ``note``, empty or why it was not run.
    """
    rows: dict[str, dict] = {}
    tested = task.cells.n_obs - cells.test.n_obs
    bar = tqdm(methods.items(), unit="method", disable=not progress)
    for name, method in bar:
        bar.set_description(name)
        if name.endswith(ROOT) and task.root is None:
            rows[name] = {"note": "not run: no root was given"}
            continue
        start = time.process_time()
        try:
            made = method(task)
            if not isinstance(made, AnnData):
                made = np.asarray(made)[tested:]
            field = field_of(cells.test, made)
            along = None
            if name in UNDIRECTED and task.root is not None:
                along = pseudotime.dpt(cells.test, task.root, task.cluster_key)
        except (ImportError, ValueError) as error:
            rows[name] = {"note": f"not run: {' '.join(str(error).split())}"}
            continue
        minutes = (time.process_time() - start) / 60
        rows[name] = report(cells, field, edges, task.cluster_key)
        rows[name] |= {"minutes": minutes, "note": ""}
        if along is not None:
            sign = np.sign((made * along / np.maximum(along.std(0), 1e-9) ** 2).sum())
            turned = field if sign > 0 else field_of(cells.test, -made)
            rows[name]["note"] = f"direction {'kept' if sign > 0 else 'reversed'} by the root"
            rows[name]["flipped"] = float(sign < 0)
            rows[name + TURNED] = report(cells, turned, edges, task.cluster_key)
            rows[name + TURNED] |= {"minutes": minutes, "note": ""}
    truths = {COUNTED: cells.counted} if cells.counted is not None else {}
    for name, field in (truths | {REFERENCE: cells.reference}).items():
        rows[name] = report(cells, field, edges, task.cluster_key) | {"note": ""}
    return rows


def pooled(task: Task) -> Task:
    """The second protocol: a method that needs no two counts may look at all cells.

    Parameters
    ----------
    task
        Of the first protocol, ``query``, in which it sees the test cells alone.

    Returns
    -------
    A task whose cells are the training cells and then the test cells, on one graph.
    """
    parts = [
        AnnData(x.layers["total"], obs=x.obs, obsm={"X_umap": x.obsm["X_umap"]}, var=x.var[[]])
        for x in (task.train, task.cells)
    ]
    both = anndata.concat(parts)
    both.layers["total"] = both.X.copy()
    embed(both, umap=False, overwrite=True)
    return replace(task, cells=both)


def compare(
    adata: AnnData,
    root: str | None = None,
    edges: Sequence[tuple[str, str]] = (),
    cluster_key: str = "clusters",
    truth: str | None = None,
    methods: Mapping[str, Callable] = METHODS,
    protocol: str = "query",
    n_top_genes: int | None = 2000,
    max_epochs: int = 150,
    seed: int = 0,
) -> pd.DataFrame:
    """The whole table, for cells with spliced and unspliced counts.

    Parameters
    ----------
    adata
        Cells with raw counts in the layers ``spliced`` and ``unspliced``. 60 % of them train, 30 %
        are stripped of the two counts and predicted, and their true counts give the truth.
    root
        The cluster where development begins; None leaves out what needs it.
    edges
        Pairs of clusters, one before the other, for CBDir.
    cluster_key
        Column of ``obs`` with the clusters.
    truth
        A layer with the known velocity of simulated cells, in place of that from true counts.
    methods
        By name, as :data:`METHODS`.
    protocol
        ``"query"``: methods see the test cells alone; ``"pooled"``: those without training on two
        counts see the totals of the training cells too.
    n_top_genes
        Highly variable genes kept; None for all that pass the filter.
    max_epochs
        Of methods that train a VAE.
    seed
        Seed of the split and of everything else.

    Returns
    -------
    A row per method: scores, ``minutes`` and ``note``.

    Raises
    ------
    KeyError
        Layers, clusters or the truth are missing, or the root is no cluster.
    ValueError
        The protocol is not known, or the cells are too few.
    """
    if protocol not in ("query", "pooled"):
        raise ValueError(f"protocol={protocol!r} is not known; choose 'query' or 'pooled'.")
    named = {name for edge in edges for name in edge} | ({root} if root is not None else set())
    if named:
        if cluster_key not in adata.obs:
            raise KeyError(f"There is no obs[{cluster_key!r}]; there are {list(adata.obs)}.")
        if strangers := named - set(adata.obs[cluster_key].astype(str)):
            found = sorted(set(adata.obs[cluster_key].astype(str)))
            raise KeyError(f"obs[{cluster_key!r}] has no cluster {sorted(strangers)}: {found}.")
    by = cluster_key if cluster_key in adata.obs else None
    train, _, test = data.split(adata, seed=seed, stratify_by=by)
    prepared = data.prepare(adata, n_top_genes=n_top_genes, fit_on=train)
    cells = held_out(prepared, train, test, truth)
    task = Task(cells.test, cells.train, root, cluster_key, max_epochs, seed)
    if protocol == "pooled":
        task = pooled(task)
    frame = pd.DataFrame.from_dict(score(cells, task, methods, edges), orient="index")
    rest = {name: {"note": f"not run: {why}"} for name, why in NOT_RUN.items()}
    frame = pd.concat([frame, pd.DataFrame.from_dict(rest, orient="index")])
    columns = [name for name in (*SCORES, "minutes", "note") if name in frame]
    return frame[columns].rename_axis("method")

"""How well a velocity field agrees with a reference: in gene space, on an embedding, along edges.

A field is an AnnData that :func:`splicedvae.velocity.fit` or :func:`splicedvae.velocity.project`
has written; who made it, and from what, decides the protocol, not this module.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from scipy import sparse

from ..checks import categories, coordinates, same_cells
from ..counts import get_layer
from ..simulate import STAGES
from .field import check_graph, direction_classes, finite_genes

#: Steps that endocrinogenesis takes in the pancreas (Bastidas-Ponce et al. 2019).
EDGES = tuple((parent, stage) for stage, (parent, *_) in STAGES.items() if parent)
MIN_EDGE_CELLS = 30  # edges with fewer boundary cells are read together
ROTATIONS = np.arange(0, 90, 5)  # degrees; at 90 the quadrants are the same again
N_BOOTSTRAP = 1000


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of rows, 0 where one has no length."""
    norm = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.divide((a * b).sum(-1), norm, out=np.zeros_like(norm), where=norm > 0)


def _gene_vectors(adata: AnnData, vkey: str) -> np.ndarray:
    """Velocity in gene space (cells, genes), 0 in genes without one."""
    velocity = np.asarray(get_layer(adata, vkey), dtype=np.float64)
    return np.where(finite_genes(velocity, adata), velocity, 0)


def _arrows(adata: AnnData, vkey: str, basis: str) -> np.ndarray:
    """Arrows on the embedding (cells, 2)."""
    key = f"{vkey}_{basis}"
    return coordinates(adata, key, "; run sv.velocity.fit or name a basis.")[:, :2]


def velocity_scale(train: AnnData, vkey: str = "velocity") -> np.ndarray:
    r"""Root mean square of each gene's velocity over training cells, the unit of its axis.

    .. math:: \sigma_g = \sqrt{\tfrac1N \textstyle\sum_c v_{cg}^2}

    Parameters
    ----------
    train
        Training cells with a velocity from true counts.
    vkey
        Name of the velocity.

    Returns
    -------
    Array (genes,); 0 where a gene has no velocity.
    """
    return np.sqrt((_gene_vectors(train, vkey) ** 2).mean(0))


def cell_cosine(
    reference: AnnData, predicted: AnnData, scale: np.ndarray | None = None, vkey: str = "velocity"
) -> np.ndarray:
    r"""Cosine of each cell's velocity with the reference, over the reference's velocity genes.

    .. math:: \cos_c = \frac{\sum_g v_{cg} \hat v_{cg} / \sigma_g^2}
              {\sqrt{\sum_g v_{cg}^2 / \sigma_g^2}\, \sqrt{\sum_g \hat v_{cg}^2 / \sigma_g^2}}

    Parameters
    ----------
    reference, predicted
        Two fields of the same cells and genes.
    scale
        Each gene's unit :math:`\sigma_g`, see :func:`velocity_scale`; genes of unit 0 are left out.
        Without it, the few genes with the largest counts decide.
    vkey
        Name of the velocity in both.

    Returns
    -------
    Array (cells,), 0 where a velocity has no length.

    Raises
    ------
    KeyError
        A field has no such velocity.
    ValueError
        Cells, genes or the scale do not match.
    """
    same_cells(reference, predicted, ("reference", "predicted"))
    a, b = _gene_vectors(reference, vkey), _gene_vectors(predicted, vkey)
    genes = reference.var[f"{vkey}_genes"].to_numpy()
    if scale is not None:
        if np.shape(scale) != genes.shape:
            raise ValueError(
                f"scale has shape {np.shape(scale)}; give one per gene, {genes.shape}."
            )
        genes = genes & (scale > 0)
        a, b = a / np.where(genes, scale, 1), b / np.where(genes, scale, 1)
    return _cosine(a[:, genes], b[:, genes])


def direction_accuracy(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """How often arrows fall into the true quadrant of the compass, over turns of the compass.

    Parameters
    ----------
    true, predicted
        Arrows on an embedding (cells, 2).

    Returns
    -------
    ``accuracy`` and ``balanced_accuracy``, averaged over rotations of 0 to 85 degrees in steps
    of 5, and both with ``_unrotated``.
    """
    scores = []
    for rotation in ROTATIONS:
        a, b = direction_classes(true, rotation), direction_classes(predicted, rotation)
        recall = [(b[a == c] == c).mean() for c in np.unique(a)]
        scores.append(((a == b).mean(), np.mean(recall)))
    names = ("accuracy", "balanced_accuracy")
    return dict(zip(names, np.mean(scores, axis=0).tolist(), strict=True)) | {
        f"{name}_unrotated": float(score) for name, score in zip(names, scores[0], strict=True)
    }


def cross_boundary(
    adata: AnnData,
    edges: Sequence[tuple[str, str]] = EDGES,
    cluster_key: str = "clusters",
    vkey: str = "velocity",
    basis: str = "umap",
    seed: int = 0,
) -> dict[str, float]:
    r"""Cross-boundary direction correctness (CBDir, Qiao & Huang 2021), and coherence beside it.

    For an edge A → B, over the cells c of A with neighbours :math:`j \in N_B(c)` in B, with arrows
    a and places x on the embedding,

    .. math:: \mathrm{CBDir}(A \to B) = \operatorname*{mean}_{c \in A}\;
              \operatorname*{mean}_{j \in N_B(c)} \cos(a_c,\, x_j - x_c).

    Coherence is the mean of :math:`\cos(a_c, a_j)` over a cell's neighbours j in the same cluster:
    a smooth field has it, right or wrong.

    Parameters
    ----------
    adata
        A field with a neighbour graph.
    edges
        Pairs of clusters. Those with fewer than 30 boundary cells are read together, as
        ``pooled``.
    cluster_key
        Column of ``obs`` with the clusters.
    vkey, basis
        Name of the velocity and of the embedding.
    seed
        Of the bootstrap over boundary cells.

    Returns
    -------
    ``cbdir``, the mean over edges, and ``coherence``; for each edge ``cbdir A → B`` with
    ``_low`` and ``_high``, its 95 % bootstrap interval, and ``_n``, its boundary cells.

    Raises
    ------
    KeyError
        The velocity, the embedding, the clusters or the graph are missing.
    ValueError
        There is one cluster only, an edge names an absent one, no cell lies at a boundary, or the
        graph is of other cells.
    """
    check_graph(adata, basis)
    arrows, points = _arrows(adata, vkey, basis), coordinates(adata, f"X_{basis}")[:, :2]
    labels = categories(adata, cluster_key, "cluster").astype(str)
    if len(found := np.unique(labels)) < 2:
        raise ValueError(f"obs[{cluster_key!r}] has one cluster only; an edge needs two.")
    if absent := {name for edge in edges for name in edge} - set(found):
        raise ValueError(f"Edges name clusters that no cell has: {sorted(absent)}.")
    cell, neighbour = sparse.coo_array(adata.obsp["distances"]).coords
    cosine = _cosine(arrows[cell], points[neighbour] - points[cell])
    small, means, scores = [], [], {}
    rng = np.random.default_rng(seed)

    def read(name: str, values: np.ndarray) -> None:
        draws = rng.choice(values, (N_BOOTSTRAP, len(values))).mean(1)
        low, high = np.quantile(draws, [0.025, 0.975])
        means.append(values.mean())
        for suffix, x in (("", means[-1]), ("_low", low), ("_high", high), ("_n", len(values))):
            scores[f"cbdir {name}{suffix}"] = float(x)

    for a, b in edges:
        crosses = (labels[cell] == a) & (labels[neighbour] == b)
        cells, index = np.unique(cell[crosses], return_inverse=True)
        values = np.bincount(index, cosine[crosses]) / np.maximum(np.bincount(index), 1)
        if len(cells) < MIN_EDGE_CELLS:
            small.append(values)
        else:
            read(f"{a} → {b}", values)
    if len(pooled := np.concatenate(small) if small else np.array([])):
        read("pooled", pooled)
    if not means:
        raise ValueError("No cell has a neighbour across an edge; the clusters do not touch.")
    inside = labels[cell] == labels[neighbour]
    coherence = _cosine(arrows[cell[inside]], arrows[neighbour[inside]]).mean()
    return {"cbdir": float(np.mean(means)), "coherence": float(coherence)} | scores


def velocity_report(
    reference: AnnData,
    predicted: AnnData,
    scale: np.ndarray,
    edges: Sequence[tuple[str, str]] = EDGES,
    cluster_key: str = "clusters",
    vkey: str = "velocity",
    basis: str = "umap",
    seed: int = 0,
) -> dict[str, float]:
    """Score a velocity field against the one from true counts, on the same cells and embedding.

    Parameters
    ----------
    reference
        The field from true spliced and unspliced counts, or the known one of simulated cells.
    predicted
        The field to score: in the protocol ``query`` fitted on predicted layers of these cells
        alone, in ``reference-γ`` with ``fit(…, reference=train)``.
    scale
        Each gene's unit (genes,), see :func:`velocity_scale` (of training cells).
    edges, cluster_key, seed
        As in :func:`cross_boundary`.
    vkey, basis
        Name of the velocity and of the embedding, in both.

    Returns
    -------
    Flat dict: ``cosine``, the mean over cells with genes in their units (primary), and
    ``cosine_raw``; ``angular_error``, the mean angle between arrows in degrees; what
    :func:`direction_accuracy` gives; and what :func:`cross_boundary` gives for `predicted`.

    Raises
    ------
    KeyError
        A velocity, an embedding or the clusters are missing.
    ValueError
        Cells, genes, embeddings or scale do not match, or as in :func:`cross_boundary`.
    """
    report = {
        "cosine": float(cell_cosine(reference, predicted, scale, vkey).mean()),
        "cosine_raw": float(cell_cosine(reference, predicted, None, vkey).mean()),
    }
    true, arrows = _arrows(reference, vkey, basis), _arrows(predicted, vkey, basis)
    if not np.array_equal(reference.obsm[f"X_{basis}"], predicted.obsm[f"X_{basis}"]):
        raise ValueError(
            f"reference and predicted differ in obsm['X_{basis}']; project both on one."
        )
    report["angular_error"] = float(np.degrees(np.arccos(_cosine(true, arrows).clip(-1, 1))).mean())
    report |= direction_accuracy(true, arrows)
    return report | cross_boundary(predicted, edges, cluster_key, vkey, basis, seed)

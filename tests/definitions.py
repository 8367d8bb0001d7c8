"""Distances, losses and choices in their plainest form: one pair or batch at a time, in float64.

Each is some three lines of numpy. The package is faster, keeps its digits and has gradients; that both agree
is tested in ``test_definitions.py``, and wherever else a test needs a value that is right.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import ot
import scipy.linalg
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from retrieval_geometry.image_models import Gaussian

Array = NDArray[np.float64]


# --- Between two normal distributions, of means ma, mb and covariances sa, sb


def kl(ma: Array, sa: Array, mb: Array, sb: Array) -> float:
    """[geometric] eq. 7."""
    shift = mb - ma
    volume = np.linalg.slogdet(sb)[1] - np.linalg.slogdet(sa)[1]
    quadratic = np.trace(np.linalg.solve(sb, sa)) + shift @ np.linalg.solve(sb, shift)
    return float(volume - len(ma) + quadratic) / 2


def symmetric_kl(ma: Array, sa: Array, mb: Array, sb: Array) -> float:
    """[geometric] section 2.2.1."""
    return (kl(ma, sa, mb, sb) + kl(mb, sb, ma, sa)) / 2


def wasserstein2_squared(ma: Array, sa: Array, mb: Array, sb: Array) -> float:
    """[geometric] eq. 13, erratum 0.4."""
    root = scipy.linalg.sqrtm(sa)
    cross = scipy.linalg.sqrtm(root @ sb @ root)
    return float(np.sum((ma - mb) ** 2) + np.trace(sa + sb - 2 * cross.real))


def affine_invariant(ma: Array, sa: Array, mb: Array, sb: Array) -> float:
    """[geometric] eq. 14."""
    return float(np.linalg.norm(np.log(scipy.linalg.eigh(sb, sa, eigvals_only=True))))


def stein(ma: Array, sa: Array, mb: Array, sb: Array) -> float:
    """Sra 2012."""
    middle, a, b = (np.linalg.slogdet(s)[1] for s in ((sa + sb) / 2, sa, sb))
    return float(middle - (a + b) / 2)


def log_euclidean(ma: Array, sa: Array, mb: Array, sb: Array) -> float:
    """Arsigny et al. 2006."""
    return float(np.linalg.norm(symmetric_log(sa) - symmetric_log(sb)))


def symmetric_log(s: Array) -> Array:
    """The matrix logarithm, from eigenvalues."""
    values, vectors = np.linalg.eigh(s)
    return (vectors * np.log(values)) @ vectors.T


def cosine(ma: Array, sa: Array, mb: Array, sb: Array) -> float:
    """One minus the cosine of the means."""
    return float(1 - ma @ mb / np.linalg.norm(ma) / np.linalg.norm(mb))


REFERENCES: dict[str, Callable[[Array, Array, Array, Array], float]] = {
    "kl": kl,
    "symmetric_kl": symmetric_kl,
    "wasserstein2": lambda *pair: wasserstein2_squared(*pair) ** 0.5,
    "wasserstein2_squared": wasserstein2_squared,
    "affine_invariant": affine_invariant,
    "stein": stein,
    "log_euclidean": log_euclidean,
    "euclidean_mean": lambda ma, sa, mb, sb: float(np.linalg.norm(ma - mb)),
    "cosine_mean": cosine,
}
"""The distances between Gaussians by the names of the package."""


def all_pairs(
    reference: Callable[[Array, Array, Array, Array], float], p: Gaussian, q: Gaussian
) -> torch.Tensor:
    """A definition for every pair, float64."""
    left, right = ([(m.numpy(), s.numpy()) for m, s in zip(g.mean, g.cov, strict=True)] for g in (p, q))
    return torch.tensor([[reference(*a, *b) for b in right] for a in left], dtype=torch.float64)


# --- Between two mixtures, of weights w (K,), means m (K, D) and variances v (K, D)

Mixture = tuple[Array, Array, Array]


def component_kl(p: Mixture, q: Mixture) -> Array:
    """Divergences (K, L) of the components, [geometric] eq. 7 for diagonal covariances."""
    (_, m, v), (_, n, w) = p, q
    v, m = v[:, None], m[:, None]
    return (np.log(w / v) + v / w - 1 + (m - n) ** 2 / w).sum(axis=2) / 2


def variational_kl(p: Mixture, q: Mixture) -> float:
    """[geometric] eq. 10."""
    numerator, denominator = ((o[0] * np.exp(-component_kl(p, o))).sum(axis=1) for o in (p, q))
    return float(p[0] @ np.log(numerator / denominator))


def symmetric_variational_kl(p: Mixture, q: Mixture) -> float:
    """[geometric] section 2.2.1."""
    return (variational_kl(p, q) + variational_kl(q, p)) / 2


def mixture_wasserstein2_squared(p: Mixture, q: Mixture) -> float:
    """Delon and Desolneux 2020, with POT's linear program."""
    (a, m, v), (b, n, w) = p, q
    cost = ((m[:, None] - n) ** 2 + (np.sqrt(v)[:, None] - np.sqrt(w)) ** 2).sum(axis=2)
    return float(ot.emd2(a / a.sum(), b / b.sum(), cost))


MIXTURES: dict[str, Callable[[Mixture, Mixture], float]] = {
    "variational_kl": variational_kl,
    "symmetric_variational_kl": symmetric_variational_kl,
    "mixture_wasserstein2_squared": mixture_wasserstein2_squared,
}
"""The distances between mixtures by the names of the package."""


# --- Between two point sets x (n, d) and y (m, d), of masses a and b


def entropic_cost(x: Array, y: Array, a: Array, b: Array, p: int, epsilon: float) -> float:
    """[wasserstein-dml] eq. 3: the dual after many of Sinkhorn's iterations, in the logarithmic domain."""
    cost = np.linalg.norm(x[:, None] - y[None], axis=2) ** p
    f, g = np.zeros(len(x)), np.zeros(len(y))
    for _ in range(5000):
        f, last = -epsilon * logsumexp((g - cost) / epsilon + np.log(b), axis=1), f
        g = -epsilon * logsumexp((f[:, None] - cost) / epsilon + np.log(a)[:, None], axis=0)
        if np.abs(f - last).max() < 1e-12:
            break
    return float(a @ f + b @ g)


def sinkhorn_divergence(x: Array, y: Array, a: Array, b: Array, p: int, epsilon: float) -> float:
    """[wasserstein-dml] eq. 4, erratum 2.1."""
    own = entropic_cost(x, x, a, a, p, epsilon) + entropic_cost(y, y, b, b, p, epsilon)
    return entropic_cost(x, y, a, b, p, epsilon) - own / 2


def exact_transport_cost(x: Array, y: Array, p: int) -> float:
    """The best of all permutations, for sets of equally many points."""
    cost = np.linalg.norm(x[:, None] - y[None], axis=2) ** p
    orders = itertools.permutations(range(len(y)))
    return float(min(cost[range(len(x)), list(order)].mean() for order in orders))


# --- Losses of a batch, from distances d (B, B) and labels (B,)


def contrastive(d: Array, labels: Sequence[int], margin: float) -> float:
    """[wasserstein-dml] eq. 1."""
    pairs = list(itertools.permutations(range(len(d)), 2))
    matches = [d[i, j] for i, j in pairs if labels[i] == labels[j]]
    others = [max(0.0, margin - d[i, j]) for i, j in pairs if labels[i] != labels[j]]
    return float(np.mean(matches) + np.mean(others))


def triplet(d: Array, labels: Sequence[int], margin: float) -> float:
    """[wasserstein-dml] eq. 2, over all triplets."""
    triples = itertools.permutations(range(len(d)), 3)
    kept = [(a, p, n) for a, p, n in triples if labels[a] == labels[p] != labels[n]]
    return float(np.mean([max(0.0, d[a, p] - d[a, n] + margin) for a, p, n in kept]))


def rankmi(v: Array, labels: Sequence[int]) -> float:
    """[rankmi] eqs. 6 and 7, from V of the distances of all pairs."""
    t = np.log(2) - np.log1p(np.exp(-v))
    same = np.equal.outer(labels, labels)
    return float(-t[same & ~np.eye(len(v), dtype=bool)].mean() - np.log(2 - np.exp(t[~same])).mean())


def quadruplet(positive: Array, negative: Array, margin: float) -> float:
    """[rankmi] eq. 12."""
    return float(np.mean([max(0.0, p - n + margin) for p in positive for n in negative]))


def distance_weight(d: float, dim: int) -> float:
    """Wu et al. 2017: one over the density of distances on the sphere, up to a constant."""
    return float(d ** (2 - dim) * (1 - d**2 / 4) ** ((3 - dim) / 2))


# --- Choices and rankings


def greedy(similarity: torch.Tensor, size: int) -> list[int]:
    """Facility location, every gain anew at every step; the lowest index within 1e-6 of the best."""
    columns, rounding = similarity.double().numpy().T, 16 * torch.finfo(similarity.dtype).eps
    best, chosen = np.zeros(columns.shape[1]), list[int]()
    floor = rounding * columns.sum(axis=1).max()
    for _ in range(size):
        gains = np.maximum(columns - best, 0).sum(axis=1)
        gains[chosen] = -1
        enough = gains.max() - max(1e-6 * gains.max(), floor)
        chosen.append(next(j for j in range(len(gains)) if gains[j] >= enough and j not in chosen))
        best = np.maximum(best, columns[chosen[-1]])
    return chosen


def average_precision(right: Sequence[bool], n_relevant: int, convention: str, k: int) -> float:
    """One query, by the formulas of :func:`retrieval_geometry.evaluation.average_precision`."""
    precision = [sum(right[: i + 1]) / (i + 1) for i in range(len(right))]
    gained = [p * r for p, r in zip(precision, right, strict=True)]
    return {
        "full": sum(gained) / n_relevant,
        "R": sum(gained[:n_relevant]) / n_relevant,
        "k": sum(gained[:k]) / min(k, n_relevant),
        "hits": sum(gained[:k]) / max(sum(right[:k]), 1),
        "ranks": sum(precision[:k]) / k,
        "precision": precision[k - 1],
    }[convention]

"""The methods of [geometric] Table 1 and the controls it lacks: an image model and a distance each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retrieval_geometry.distances import covariance_only, pairwise
from retrieval_geometry.features import l2_normalize
from retrieval_geometry.image_models import fit_gaussian, fit_mixture, fit_smt

# What a model is built from: the descriptors (n, N, D) and a seed. Returns the model and notes about it.
Builder = Callable[[Tensor, int], tuple[Any, tuple[str, ...]]]


@dataclass(frozen=True)
class Method:
    """One row of a table: which model of an image, and which distance between two models.

    Args:
        name: stable name in results and claims.
        label: its name in tables and figures.
        model: key of :data:`MODELS`, or of images: "sift-bow", "scattering".
        distance: name in the registry of distances, or "euclidean" between vectors.
        covariance_only: whether the means are set to zero first.
    """

    name: str
    label: str
    model: str
    distance: str
    covariance_only: bool = False

    def view(self, models: Any) -> Any:
        """The models as the distance is to see them."""
        return covariance_only(models) if self.covariance_only else models

    def compare(self, p: Any, q: Any) -> Tensor:
        """Distances ``(P, Q)`` of all pairs."""
        return euclidean(p, q) if self.distance == "euclidean" else pairwise(self.distance, p, q)


def euclidean(p: Tensor, q: Tensor) -> Tensor:
    """Euclidean distances of vectors, ``(P, D)`` and ``(Q, D)``."""
    # By differences: |x|^2 + |y|^2 - 2 xy cancels between histograms that are close.
    return torch.cdist(p.double(), q.double(), compute_mode="donot_use_mm_for_euclid_dist")


def _mixture(n_components: int) -> Builder:
    def build(x: Tensor, seed: int) -> tuple[Any, tuple[str, ...]]:
        # A generator of its own: the model does not hang on which others were built before.
        generator = torch.Generator().manual_seed(seed)
        return fit_mixture(x, n_components, generator), (f"{n_components} diagonal components",)

    return build


def _collapsed(x: Tensor, seed: int) -> tuple[Any, tuple[str, ...]]:
    mixture, notes = _mixture(64)(x, seed)
    return mixture.collapse(), (*notes, "collapsed to one normal distribution")


def _smt(zero_mean: bool) -> Builder:
    def build(x: Tensor, seed: int) -> tuple[Any, tuple[str, ...]]:
        generator = torch.Generator().manual_seed(seed)
        fit = fit_smt(x, zero_mean=zero_mean, generator=generator)
        rotations, alpha = float(fit.order.double().mean()), float(fit.shrinkage.double().mean())
        note = f"cross-validated: {rotations:.0f} rotations and alpha {alpha:.2f} on average"
        return fit.gaussian, (note, *(("zero mean, as printed",) if zero_mean else ()))

    return build


def _sample(x: Tensor, seed: int) -> tuple[Any, tuple[str, ...]]:
    rank = min(x.shape[1] - 1, x.shape[2])
    return fit_gaussian(x), (f"sample covariance, rank at most {rank} of {x.shape[2]}",)


def _unit(x: Tensor, seed: int) -> tuple[Any, tuple[str, ...]]:
    return fit_gaussian(l2_normalize(x)), ("descriptors scaled to length one",)


SINKHORN_POINTS = 36


def _points(x: Tensor, seed: int) -> tuple[Any, tuple[str, ...]]:
    """Evenly spread descriptors, in units in which the mean distance between two of them is one."""
    # Descriptors come in rows of a grid: even steps along them cover the picture.
    kept = torch.linspace(0, x.shape[1] - 1, min(SINKHORN_POINTS, x.shape[1])).round().long()
    points = x[:, kept]
    # A unit for epsilon, from some pairs of some images; no draw, so that it is the same in every run.
    sample = points[:: max(1, len(points) // 64)].flatten(0, 1)[::7]
    points = points / torch.cdist(sample, sample).mean()
    return points, (f"{len(kept)} of {x.shape[1]} descriptors, p = 1, epsilon 0.05 of the mean distance",)


MODELS: dict[str, Builder] = {
    "mixture-64": _mixture(64),
    "mixture-16": _mixture(16),
    "mixture-8": _mixture(8),
    "normal": _collapsed,
    "smt": _smt(zero_mean=False),
    "smt-zero-mean": _smt(zero_mean=True),
    "sample": _sample,
    "unit": _unit,
    "points": _points,
}


PAPER_METHODS = (
    Method("gmm-normal-kl", "GMM-Normal KL", "normal", "symmetric_kl"),
    Method("gmm-variational-kl", "GMM-Variational KL", "mixture-64", "symmetric_variational_kl"),
    Method("gmm-wasserstein", "GMM-Wasserstein", "normal", "wasserstein2"),
    Method("smt-riemannian", "SMT-Riemannian", "smt", "affine_invariant"),
    Method("smt-normal-kl", "SMT-Normal KL", "smt", "symmetric_kl"),
    Method("smt-wasserstein", "SMT-Wasserstein", "smt", "wasserstein2"),
    Method("sift-bow-euclidean", "SIFT-BoW-Euclidean", "sift-bow", "euclidean"),
)

CONTROLS = (
    Method("mean-euclidean", "Mean, Euclidean", "sample", "euclidean_mean"),
    Method("mean-cosine", "Mean, cosine", "sample", "cosine_mean"),
    Method("sample-wasserstein", "Sample-Wasserstein", "sample", "wasserstein2"),
    Method("covariance-wasserstein", "Sample-Wasserstein, covariance only", "sample", "wasserstein2", True),
    Method("smt-stein", "SMT-Stein", "smt", "stein"),
    Method("smt-log-euclidean", "SMT-log-Euclidean", "smt", "log_euclidean"),
    Method("smt-covariance-kl", "SMT-Normal KL, covariance only", "smt", "symmetric_kl", True),
    Method("zero-mean-smt-kl", "SMT-Normal KL, zero mean", "smt-zero-mean", "symmetric_kl"),
    Method("zero-mean-smt-wasserstein", "SMT-Wasserstein, zero mean", "smt-zero-mean", "wasserstein2"),
    Method(
        "gmm16-variational-kl",
        "GMM-Variational KL, 16 components",
        "mixture-16",
        "symmetric_variational_kl",
    ),
    Method(
        "gmm8-variational-kl", "GMM-Variational KL, 8 components", "mixture-8", "symmetric_variational_kl"
    ),
    Method(
        "gmm-mixture-wasserstein",
        "GMM-mixture Wasserstein, 8 components",
        "mixture-8",
        "mixture_wasserstein2_squared",
    ),
    Method("sinkhorn", "Sinkhorn divergence", "points", "sinkhorn"),
    Method("unit-mean-euclidean", "Mean, Euclidean, unit descriptors", "unit", "euclidean_mean"),
    Method("unit-sample-wasserstein", "Sample-Wasserstein, unit descriptors", "unit", "wasserstein2"),
)

WEIGHT_FREE = (
    Method("scattering-mean-euclidean", "Scattering: mean, Euclidean", "scattering", "euclidean_mean"),
    Method("scattering-sample-wasserstein", "Scattering: Sample-Wasserstein", "scattering", "wasserstein2"),
)
"""Descriptors without a learnt weight in place of the setting's own: what does training add?"""

ALL_METHODS = {method.name: method for method in (*PAPER_METHODS, *CONTROLS, *WEIGHT_FREE)}

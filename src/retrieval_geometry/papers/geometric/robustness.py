r"""How much a distance varies when the two distributions are nearly the same: a hypothesis of [geometric] 4.

The descriptors of an image are dealt at random into two halves, which are two samples of one distribution.
Over many deals, the distance between the halves has a mean (the noise floor: the truth is zero) and a spread.
The paper expects the Wasserstein distance to have the smaller variance for such close pairs. Distances come
in units of their own, so the coefficients of variation are compared, and divergences that behave like squares
(KL, variational KL, Stein) enter by their roots.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from retrieval_geometry.distances import DISTANCES
from retrieval_geometry.evaluation import GroupMeans, mean_interval
from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.image_models import fit_gaussian, fit_mixture, smt_covariance
from retrieval_geometry.papers.geometric.common import (
    dataset_info,
    describe,
    groups_of,
    provenance,
    scope_of,
    settings_of,
)
from retrieval_geometry.papers.geometric.data import load_setting
from retrieval_geometry.papers.geometric.retrieval import as_metric
from retrieval_geometry.reporting.details import CloseRange, Dealt
from retrieval_geometry.reporting.results import MethodResult, Result

IMAGES_PER_CLASS = 3
DEALS = {"quick": 8, "real": 6, "paper": 10}
COMPONENTS = 32
"""Half of the paper's 64, for half of the descriptors."""

Pairs = Callable[[Any, Any], Tensor]


def _root(name: str) -> Pairs:
    # Rounding may leave -1e-16 between nearly equal models, whose root would be NaN.
    return lambda p, q: DISTANCES[name](p, q).clamp_min(0).sqrt()


COMPARED: tuple[tuple[str, str, str, Pairs], ...] = (
    ("gmm-normal-kl", "GMM-Normal KL (root)", "normal", _root("symmetric_kl")),
    ("gmm-variational-kl", "GMM-Variational KL (root)", "mixture", _root("symmetric_variational_kl")),
    ("gmm-wasserstein", "GMM-Wasserstein", "normal", DISTANCES["wasserstein2"]),
    ("smt-riemannian", "SMT-Riemannian", "smt", DISTANCES["affine_invariant"]),
    ("smt-normal-kl", "SMT-Normal KL (root)", "smt", _root("symmetric_kl")),
    ("smt-wasserstein", "SMT-Wasserstein", "smt", DISTANCES["wasserstein2"]),
    ("smt-stein", "SMT-Stein (root)", "smt", _root("stein")),
    ("mean-euclidean", "Mean, Euclidean", "sample", DISTANCES["euclidean_mean"]),
    ("sample-wasserstein", "Sample-Wasserstein", "sample", DISTANCES["wasserstein2"]),
)


def run_robustness(context: RunContext) -> Result:
    """Variation and noise floor of each distance between two halves of one image's descriptors."""
    started = time.perf_counter()
    setting = load_setting(context)
    backbone, descriptors = describe(setting, context)
    chosen = first_of_each_class(setting.images.labels, IMAGES_PER_CLASS)
    distances = deal_and_compare(descriptors[chosen], DEALS[context.profile], context.seed)
    measured = {name: measure(values) for name, values in distances.items()}
    return Result(
        experiment="geometric-robustness",
        profile=context.profile,
        seed=context.seed,
        dataset=dataset_info(setting),
        settings=settings_of(setting, descriptors, backbone)
        | {
            "protocol": f"{len(chosen)} images, {IMAGES_PER_CLASS} a class; descriptors dealt into halves",
            "deals": DEALS[context.profile],
            "components": COMPONENTS,
        },
        methods=tuple(
            _entry(name, label, measured[name], setting.images.labels[chosen])
            for name, label, _, _ in COMPARED
        ),
        scope=scope_of(setting, backbone, len(chosen)),
        groups=groups_of(setting.images.labels[chosen]),
        details=Dealt({name: _rounded(values) for name, values in measured.items()}),
        provenance=provenance(time.perf_counter() - started, descriptors, backbone),
    )


def first_of_each_class(labels: Tensor, count: int) -> Tensor:
    """Indices of the first ``count`` images of every class."""
    return torch.cat([(labels == label).nonzero()[:count, 0] for label in labels.unique().tolist()])


def deal_and_compare(descriptors: Tensor, deals: int, seed: int) -> dict[str, Tensor]:
    """Distances ``(deals, n, n)`` from the first half of every image to the second half of every image."""
    generator = torch.Generator().manual_seed(seed)
    n_points = descriptors.shape[1]
    found: dict[str, list[Tensor]] = {name: [] for name, *_ in COMPARED}
    for _ in range(deals):
        # One deal for all images: the halves of two images hold the same places.
        order = torch.randperm(n_points, generator=generator).to(descriptors.device)
        # An odd descriptor is left out: halves of two sizes would differ in bias as well.
        half = n_points // 2
        first, second = (_models(descriptors[:, part]) for part in (order[:half], order[half : 2 * half]))
        for name, _, model, distance in COMPARED:
            # From all first to all second halves: the diagonal is one image, the rest what it is measured
            # against.
            found[name].append(distance(first[model], second[model]).double().cpu())
    return {name: torch.stack(values) for name, values in found.items()}


def _models(x: Tensor) -> dict[str, Any]:
    mixture = fit_mixture(x, min(COMPONENTS, x.shape[1]))
    return {
        "mixture": mixture,
        "normal": mixture.collapse(),
        "smt": smt_covariance(x),
        "sample": fit_gaussian(x),
    }


def measure(distances: Tensor) -> dict[str, Tensor]:
    """Distances at close range, one number an image.

    Args:
        distances: ``(deals, n, n)``; the diagonal compares the halves of one image.

    Returns:
        ``variation``: standard deviation over mean of the distance between the halves, over the deals;
        ``noise``: that mean over the median distance to other images; ``found``: share of deals in which the
        nearest second half is the image's own.
    """
    # For each deal, the distance between the halves of each image.
    own = distances.diagonal(dim1=1, dim2=2)
    n = distances.shape[1]
    others = distances[:, ~torch.eye(n, dtype=torch.bool)].view(len(distances), n, n - 1)
    # The median over deals and images: a few far images would set the unit.
    typical = others.transpose(0, 1).flatten(1).median(dim=1).values
    hits = (distances.argmin(dim=2) == torch.arange(n)).double()
    return {
        "variation": own.std(dim=0) / own.mean(dim=0),
        "noise": own.mean(dim=0) / typical,
        "found": hits.mean(dim=0),
    }


def _entry(name: str, label: str, values: dict[str, Tensor], classes: Tensor) -> MethodResult:
    intervals = {key: mean_interval(GroupMeans.of(value, classes)) for key, value in values.items()}
    n = len(values["variation"])
    return MethodResult(name, label, {key: as_metric(interval, n) for key, interval in intervals.items()})


def _rounded(values: dict[str, Tensor]) -> CloseRange:
    return CloseRange(
        **{key: tuple(float(f"{number:.4g}") for number in value.tolist()) for key, value in values.items()}
    )

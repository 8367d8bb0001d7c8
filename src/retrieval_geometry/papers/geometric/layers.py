r"""Descriptors of several layers together, which [geometric] section 4 leaves for later.

The paper calls the layers' descriptors independent. Taken at its word, an image is the product of one
distribution a layer, and then the squared 2-Wasserstein distance, the symmetric KL divergence and the
squared Euclidean distance of the means of two images are the sums of those of the layers. Each layer is first
scaled to unit total variance (KL does not notice).
"""

import time
from typing import Any

import torch
from torch import Tensor

from retrieval_geometry.distances import DISTANCES
from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.image_models import fit_gaussian, fit_mixture
from retrieval_geometry.papers.geometric.common import (
    dataset_info,
    describe,
    groups_of,
    layer_dim,
    provenance,
    scope_of,
    settings_of,
)
from retrieval_geometry.papers.geometric.data import Setting, load_setting
from retrieval_geometry.papers.geometric.methods import Method
from retrieval_geometry.papers.geometric.retrieval import nearest_by_distance, score, timed
from retrieval_geometry.reporting.results import MethodResult, Result

LAYERS: dict[str, tuple[str, ...]] = {
    "quick": ("stage2", "stage3", "stage4"),
    "real": ("features.2", "features.5", "features.12"),
    "paper": ("pool1", "pool2", "conv5"),
}
"""First, middle and last layer; the paper used the last alone."""

# name, label, model, distance that adds up over independent layers
ADDITIVE = (
    ("mean-euclidean", "Mean, Euclidean", "sample", lambda p, q: DISTANCES["euclidean_mean"](p, q).square()),
    ("sample-wasserstein", "Sample-Wasserstein", "sample", DISTANCES["wasserstein2_squared"]),
    ("gmm-normal-kl", "GMM-Normal KL", "normal", DISTANCES["symmetric_kl"]),
)


def run_layers(context: RunContext) -> Result:
    """Each layer alone, and all together as independent, under three distances."""
    started = time.perf_counter()
    setting = load_setting(context)
    backbone, descriptors = describe(setting, context, LAYERS[context.profile])
    parts = split_layers(context.profile, descriptors, setting)
    methods = compare_layers(parts, setting)
    return Result(
        experiment="geometric-layers",
        profile=context.profile,
        seed=context.seed,
        dataset=dataset_info(setting),
        settings=settings_of(setting, descriptors, backbone)
        | {"parts": {name: part.shape[2] for name, part in parts.items()}},
        methods=tuple(methods),
        scope=scope_of(setting, backbone),
        groups=groups_of(setting.query_labels),
        provenance=provenance(time.perf_counter() - started, descriptors, backbone),
    )


def split_layers(profile: str, descriptors: Tensor, setting: Setting) -> dict[str, Tensor]:
    """Cut the descriptors into those of each layer, first to last, each scaled to unit total variance."""
    sizes = [layer_dim(setting, name) for name in LAYERS[profile]]
    parts = dict(zip(("first", "middle", "last"), descriptors.split(sizes, dim=2), strict=True))
    # Without this the layer with the largest responses would be the sum of all layers.
    return {name: part / part.flatten(0, 1).var(dim=0).sum().sqrt() for name, part in parts.items()}


def compare_layers(parts: dict[str, Tensor], setting: Setting) -> list[MethodResult]:
    """Each distance on each layer, and summed over all of them."""
    entries = []
    for name, label, model, distance in ADDITIVE:
        total, seconds = torch.zeros(()), 0.0
        for part, x in parts.items():
            models = _model(model, x)
            taken, distances = timed(distance, *setting.split(models))
            # Of products of independent distributions KL and the squared Wasserstein distance are sums.
            total, seconds = total + distances.cpu(), seconds + taken
            entries.append(_entry(name, label, part, distances, taken, setting))
        entries.append(_entry(name, label, "all", total, seconds, setting))
    return entries


def _model(model: str, x: Tensor) -> Any:
    return fit_gaussian(x) if model == "sample" else fit_mixture(x, min(64, x.shape[1])).collapse()


def _entry(
    name: str, label: str, part: str, distances: Tensor, seconds: float, setting: Setting
) -> MethodResult:
    layers = "all layers" if part == "all" else f"{part} layer"
    method = Method(f"{name}-{part}", f"{label}, {layers}", model="", distance="")
    return score(method, nearest_by_distance(distances, seconds, setting), setting, None, ())

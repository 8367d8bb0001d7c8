"""Experiments of [geometric]: images as distributions of local descriptors, and distances between them."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from retrieval_geometry.experiments.data import Setting, cache_folder, load_setting
from retrieval_geometry.experiments.geometric_methods import METHODS, MODELS, Method
from retrieval_geometry.experiments.retrieval import Ranking, draws, rank_setting, score, timed
from retrieval_geometry.features import Backbone, extract_descriptors, load_backbone
from retrieval_geometry.reporting.provenance import collect_provenance
from retrieval_geometry.reporting.results import DatasetInfo, MethodResult, Provenance, Result, WeightsInfo

FIRST = ("gmm-normal-kl", "gmm-variational-kl", "gmm-wasserstein", "mean-euclidean")
GALLERY_QUERIES = 4


def run_table1(profile: str, data_root: str, device: str, seed: int) -> Result:
    """Table 1, Figure 1 and Figure 2: the paper's seven methods and the controls.

    ``quick``: photo textures and a wavelet scattering; ``real``: DTD images and a SqueezeNet found under
    ``data_root``; ``paper``: DTD test1 against train1 + val1 with VGG-M.
    """
    started = time.perf_counter()
    setting = load_setting(profile, data_root, seed)
    backbone, descriptors = describe(setting, device)
    chosen = [METHODS[name] for name in FIRST]
    methods, rankings = compare(chosen, descriptors, setting, seed)
    return Result(
        experiment="geometric-table1",
        profile=profile,
        seed=seed,
        dataset=dataset_info(setting),
        settings=settings_of(setting, descriptors, backbone),
        methods=tuple(methods),
        extra={
            "draws": {entry.method: draws(entry, setting) for entry in methods},
            "gallery": gallery_ids(rankings, setting),
        },
        provenance=provenance(time.perf_counter() - started, descriptors, backbone),
    )


def describe(setting: Setting, device: str) -> tuple[Backbone, Tensor]:
    """The descriptors ``(n, N, D)`` of all images of a setting, on the device."""
    chosen = {key: value for key, value in setting.backbone.items() if value is not None}
    backbone = load_backbone(**chosen, device=device)
    descriptors = extract_descriptors(setting.images, backbone, cache=cache_folder())
    return backbone, descriptors.to(device)


def compare(
    methods: Sequence[Method], descriptors: Tensor, setting: Setting, seed: int
) -> tuple[list[MethodResult], dict[str, Ranking]]:
    """Run methods in their order, each model built once; methods of one model share its time."""
    entries, rankings = {}, {}
    for model in dict.fromkeys(method.model for method in methods):
        seconds, models, notes = build(model, descriptors, setting, seed)
        for method in methods:
            if method.model == model:
                rankings[method.name] = rank_setting(method, models, setting)
                entries[method.name] = score(
                    method, rankings[method.name], setting, seconds / len(descriptors), notes, seed
                )
    return [entries[method.name] for method in methods], rankings


def build(model: str, descriptors: Tensor, setting: Setting, seed: int) -> tuple[float, Any, tuple[str, ...]]:
    """Models of all images, the seconds they took, and notes about them."""
    seconds, (models, notes) = timed(MODELS[model], descriptors, seed)
    return seconds, models, notes


def dataset_info(setting: Setting) -> DatasetInfo:
    """What the result says about its images."""
    images = setting.images
    return DatasetInfo(images.name, len(images), len(images.classes), images.sha256, setting.licence)


def settings_of(setting: Setting, descriptors: Tensor, backbone: Backbone) -> dict[str, Any]:
    """What the result says about protocol and descriptors."""
    return {
        "protocol": setting.protocol,
        "queries": len(setting.queries),
        "database": len(setting.database),
        "backbone": backbone.name,
        "layer": backbone.layer,
        "descriptors": descriptors.shape[1],
        "dimensions": descriptors.shape[2],
    }


def provenance(seconds: float, descriptors: Tensor, backbone: Backbone) -> Provenance:
    """What the result says about the run."""
    device = descriptors.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    weights = [WeightsInfo(backbone.weights, backbone.weights_sha256)] if backbone.weights_sha256 else []
    return collect_provenance(seconds, torch.get_num_threads(), name, weights)


def gallery_ids(rankings: dict[str, Ranking], setting: Setting) -> dict[str, Any]:
    """A few queries of different classes and the ids of their neighbours under each method."""
    labels = setting.images.labels[setting.queries]
    firsts = [int((labels == label).nonzero()[0]) for label in labels.unique().tolist()]
    chosen = firsts[:: max(1, len(firsts) // GALLERY_QUERIES)][:GALLERY_QUERIES]
    ids = setting.images.ids
    neighbours = {
        name: [[ids[i] for i in ranking.nearest[query].tolist()] for query in chosen]
        for name, ranking in rankings.items()
    }
    return {"queries": [ids[int(setting.queries[query])] for query in chosen], "neighbours": neighbours}

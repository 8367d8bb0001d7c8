"""Common parts of the experiments of [geometric]: descriptors, and the data, settings and run of a result."""

from typing import Any

import torch
from torch import Tensor

from retrieval_geometry._check import check_device
from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.features import Backbone, extract_descriptors, load_backbone
from retrieval_geometry.papers.geometric.data import Setting
from retrieval_geometry.reporting.measured import Groups
from retrieval_geometry.reporting.provenance import collect_provenance
from retrieval_geometry.reporting.results import (
    DatasetInfo,
    Provenance,
    Scope,
    WeightsInfo,
)


def describe(setting: Setting, context: RunContext, layer: tuple[str, ...] = ()) -> tuple[Backbone, Tensor]:
    """The descriptors ``(n, N, D)`` of all images on the device; ``layer`` replaces the setting's layer."""
    place = check_device(context.device)
    # None stands for the default of load_backbone, which is not ours to repeat.
    chosen: dict[str, Any] = {key: value for key, value in setting.backbone.items() if value is not None}
    if layer:
        chosen["layer"] = layer
    backbone = load_backbone(**chosen, device=place)
    return backbone, extract_descriptors(setting.images, backbone, cache=context.descriptors).to(place)


def layer_dim(setting: Setting, layer: str) -> int:
    """The length of the descriptors of one layer of the setting's network."""
    return load_backbone(**{**setting.backbone, "layer": layer}).dim  # type: ignore[arg-type]


def dataset_info(setting: Setting) -> DatasetInfo:
    """The images of a result."""
    images = setting.images
    return DatasetInfo(images.name, len(images), len(images.classes), images.sha256, setting.licence)


def groups_of(labels: Tensor) -> Groups:
    """The classes ``(n,)`` of images as groups of them, in the order of the labels."""
    members, sizes = labels.unique(return_inverse=True, return_counts=True)[1:]
    return Groups("classes", tuple(sizes.tolist()), tuple(members.tolist()))


def scope_of(setting: Setting, backbone: Backbone, asked: int | None = None) -> Scope:
    """How far a result reaches: so many queries (those of the setting), where every image could be asked.

    Where the database is a list of its own, the queries are all that may be asked.
    """
    queries = len(setting.queries)
    # Leave-one-out: every image of the database could ask as well.
    every = len(setting.images) if bool(torch.isin(setting.queries, setting.database).all()) else queries
    return Scope(backbone.name, queries if asked is None else asked, every)


def settings_of(setting: Setting, descriptors: Tensor, backbone: Backbone) -> dict[str, Any]:
    """Protocol and descriptors of a result, for tables."""
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
    """Provenance of a run."""
    device = descriptors.device
    # The model of a GPU belongs to its times; that of the CPU is found by the provenance itself.
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    weights = [WeightsInfo(backbone.weights, backbone.weights_sha256)] if backbone.weights_sha256 else []
    return collect_provenance(seconds, torch.get_num_threads(), name, weights)

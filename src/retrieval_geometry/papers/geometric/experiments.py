"""Experiments of [geometric]: images as distributions of local descriptors, and distances between them."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from retrieval_geometry.experiments.checkpoints import Checkpoints, Part
from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.features import Backbone, SiftBagOfWords, extract_descriptors, load_backbone
from retrieval_geometry.papers.geometric.common import (
    dataset_info,
    describe,
    groups_of,
    provenance,
    scope_of,
    settings_of,
)
from retrieval_geometry.papers.geometric.data import Setting, load_setting
from retrieval_geometry.papers.geometric.methods import ALL_METHODS, MODELS, Method
from retrieval_geometry.papers.geometric.retrieval import draws, rank_setting, score, timed
from retrieval_geometry.reporting.details import Gallery, Ranked
from retrieval_geometry.reporting.results import MethodResult, Result

GALLERY_QUERIES = 4
SIFT_WORDS = 500


def run_table1(context: RunContext) -> Result:
    """Table 1, Figure 1 and Figure 2: the paper's seven methods and the controls.

    ``quick``: photo textures and a bottleneck of EfficientNet-lite0; ``real``: DTD images and a SqueezeNet
    found under ``data_root``; ``paper``: DTD test1 against train1 + val1 with VGG-M. Networks are cut before
    a ReLU.
    """
    return run_table("geometric-table1", load_setting(context), context)


def table1_parts(context: RunContext) -> list[Callable[[], object]]:
    """The methods of each model of an image in :func:`run_table1`, as a call that runs and keeps them."""
    setting = load_setting(context)
    backbone, descriptors = describe(setting, context)
    checkpoints = _checkpoints(setting, descriptors, backbone, context)
    # By model: two processes would build it twice.
    by_model: dict[str, list[Method]] = {}
    for method in ALL_METHODS.values():
        by_model.setdefault(method.model, []).append(method)
    return [
        partial(compare, methods, descriptors, setting, context.seed, checkpoints)
        for methods in by_model.values()
    ]


def run_rectified(context: RunContext) -> Result:
    """The same behind the last ReLU: descriptors that are mostly zeros; not ``quick``."""
    if context.profile == "quick":
        raise ValueError("profile must be real or paper for geometric-rectified: a bottleneck has no ReLU")
    setting = load_setting(context)
    rectified = replace(setting, backbone={**setting.backbone, "layer": None})
    return run_table("geometric-rectified", rectified, context)


def run_table(experiment: str, setting: Setting, context: RunContext) -> Result:
    """The result of an experiment that runs the paper's methods and the controls in a setting."""
    backbone, descriptors = describe(setting, context)
    checkpoints = _checkpoints(setting, descriptors, backbone, context)
    parts = compare(tuple(ALL_METHODS.values()), descriptors, setting, context.seed, checkpoints)
    entries = [part.entry for part in parts]
    return Result(
        experiment=experiment,
        profile=context.profile,
        seed=context.seed,
        dataset=dataset_info(setting),
        settings=settings_of(setting, descriptors, backbone),
        methods=tuple(entries),
        scope=scope_of(setting, backbone),
        groups=groups_of(setting.query_labels),
        details=Ranked(
            {entry.method: draws(entry, setting) for entry in entries},
            gallery_ids({part.entry.method: part.nearest for part in parts}, setting),
        ),
        provenance=provenance(sum(part.seconds for part in parts), descriptors, backbone),
    )


def _checkpoints(
    setting: Setting, descriptors: Tensor, backbone: Backbone, context: RunContext
) -> Checkpoints:
    return Checkpoints(
        context.cache,
        compare,
        dataset=dataset_info(setting).sha256,
        settings=settings_of(setting, descriptors, backbone),
        weights=backbone.weights_sha256,
        device=context.device,
        seed=context.seed,
        queries=setting.queries.tolist(),
    )


def compare(
    methods: Sequence[Method],
    descriptors: Tensor,
    setting: Setting,
    seed: int,
    checkpoints: Checkpoints | None = None,
) -> list[Part]:
    """Run methods, each model built once, with a line of progress each; parts come in their order.

    What the checkpoints hold is not run again.
    """
    parts = {}
    for model in dict.fromkeys(method.model for method in methods):
        started = time.perf_counter()
        built: Any = None  # also so that the last model leaves the memory before the next one comes
        for method in (method for method in methods if method.model == model):
            part = checkpoints.get(method.name) if checkpoints else None
            if part is None:
                # Only now: where all methods of a model are kept, it is not built at all.
                if built is None:
                    built = build(model, descriptors, setting, seed)
                ranking = rank_setting(method, built.models, setting)
                entry = score(method, ranking, setting, built.seconds, built.notes)
                nearest = tuple(tuple(row) for row in ranking.nearest.tolist())
                part = Part(entry, nearest, time.perf_counter() - started)
                # The time of a model is counted to the first of its methods that ran.
                started = time.perf_counter()
                if checkpoints:
                    checkpoints.put(method.name, part)
            parts[method.name] = part
            report(len(parts), len(methods), part.entry)
    return [parts[method.name] for method in methods]


def report(done: int, total: int, entry: MethodResult) -> None:
    """One line on the metrics of a method."""
    precision = entry.metrics["P@1"].value
    print(f"[{done}/{total}] {entry.label}: P@1 {precision:.3f}", file=sys.stderr, flush=True)


class Built(NamedTuple):
    """Models of all images, notes about them, and seconds an image."""

    models: Any
    notes: tuple[str, ...]
    seconds: float


def build(model: str, descriptors: Tensor, setting: Setting, seed: int) -> Built:
    """Models of all images, by a key of ``MODELS``, as SIFT words or by the scattering."""
    if model == "scattering":
        descriptors = extract_descriptors(setting.images, load_backbone("scattering")).to(descriptors.device)
        built = build("sample", descriptors, setting, seed)
        return built._replace(notes=(*built.notes, "of a scattering, which has no learnt weights"))
    if model != "sift-bow":
        seconds, (models, notes) = timed(MODELS[model], descriptors, seed)
        return Built(models, notes, seconds / len(descriptors))
    words = SiftBagOfWords(SIFT_WORDS, seed=seed)
    # Words come from the database alone: a query is an image that nobody has seen.
    seconds, histograms = timed(
        lambda: words.fit(setting.images.subset(setting.database)).transform(setting.images)
    )
    note = f"{words.n_words} words, found in the database images; histograms of unit Euclidean length"
    return Built(histograms, (note,), seconds / len(descriptors))


def gallery_ids(nearest: Mapping[str, Sequence[Sequence[int]]], setting: Setting) -> Gallery:
    """A few queries of different classes and the ids of their neighbours under each method."""
    labels = setting.query_labels
    firsts = [int((labels == label).nonzero()[0]) for label in labels.unique().tolist()]
    # Evenly spread over the classes: nobody picks examples that look well.
    chosen = firsts[:: max(1, len(firsts) // GALLERY_QUERIES)][:GALLERY_QUERIES]
    ids = setting.images.ids
    neighbours = {
        name: tuple(tuple(ids[i] for i in rows[query]) for query in chosen) for name, rows in nearest.items()
    }
    return Gallery(tuple(ids[int(setting.queries[query])] for query in chosen), neighbours)

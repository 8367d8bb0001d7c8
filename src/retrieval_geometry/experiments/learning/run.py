"""Train one model and measure it; several of them make a row of a table."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from retrieval_geometry.datasets import ImageSet, random_views
from retrieval_geometry.evaluation import (
    GroupMeans,
    Interval,
    evaluate_embeddings,
    mean_interval,
    seed_interval,
)
from retrieval_geometry.experiments.checkpoints import Checkpoints
from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.experiments.learning.data import LearningSetting
from retrieval_geometry.experiments.learning.kept import ModelCheckpoints
from retrieval_geometry.experiments.learning.methods import LearningMethod
from retrieval_geometry.features import EmbeddingNetwork, extract_descriptors, load_embedding_network
from retrieval_geometry.features.principal import principal_axes
from retrieval_geometry.reporting.details import Details, Rows
from retrieval_geometry.reporting.measured import Metric
from retrieval_geometry.reporting.provenance import collect_provenance
from retrieval_geometry.reporting.results import (
    DatasetInfo,
    MethodResult,
    Models,
    Provenance,
    Result,
    Scope,
    WeightsInfo,
)
from retrieval_geometry.training import embed, stack_images, train

RETRIEVAL = ("R@1", "R@2", "R@4", "R@8", "AP@R", "AP@8 (hits)")
CLUSTERING = ("NMI", "F1")
GROUPED = ("R@1", "R@4", "AP@R")
"""Metrics whose means over groups of queries a result keeps, so that differences can be asked for."""
ASKED_METRICS = ("R@1", "AP@R")
"""Metrics of the queries that are asked by transport distances as well."""

STANDARDIZED = 256
"""Training images that the head is set by before training."""


@dataclass(frozen=True)
class LearningRun:
    """The metrics of one trained model, small enough to be kept with the sources.

    Args:
        groups: for each retrieval metric its mean over each group of queries.
        sizes: number of queries in each group.
        clustering: for each clustering metric its values, one for each start.
        asked: as ``groups``, for those queries alone that are asked by transport distances as well.
        losses: the objective at the first step and then ten times along the run.
        seconds: of the training.
        curve: pairs of a step and R@1 on the validation classes.
    """

    groups: dict[str, tuple[float, ...]]
    sizes: tuple[int, ...]
    losses: tuple[float, ...]
    seconds: float
    clustering: dict[str, tuple[float, ...]] = field(default_factory=dict)
    asked: dict[str, tuple[float, ...]] = field(default_factory=dict)
    curve: Rows = ()

    def mean(self, metric: str) -> float:
        """The mean over queries, or over starts of the clustering."""
        if metric in self.clustering:
            return float(np.mean(self.clustering[metric]))
        return float(np.average(self.groups[metric], weights=self.sizes))


@dataclass(frozen=True)
class Trained:
    """A trained network with its objective, for a closer look."""

    network: EmbeddingNetwork
    objective: nn.Module
    losses: list[float]
    seconds: float
    validations: list[tuple[int, float]] = field(default_factory=list)


def train_one(
    method: LearningMethod,
    value: float,
    setting: LearningSetting,
    seed: int,
    images: ImageSet | None = None,
    network: EmbeddingNetwork | None = None,
    weights: Tensor | None = None,
) -> Trained:
    """Train a model of a method: on the training images and from nothing, unless others are given."""
    images = setting.split.train if images is None else images
    network = new_network(method, setting, seed) if network is None else network
    objective = method.make(len(images.labels.unique()), setting.dim, seed, value)
    if setting.views > 1:
        images = random_views(images, setting.views)
    config = replace(setting.config, seed=seed)
    if method.objective_lr is not None:
        config = replace(config, objective_lr=method.objective_lr)
    started = time.perf_counter()
    history = train(
        network,
        objective,
        images,
        config,
        validate=validator(setting, network),
        cache=setting.descriptors,
        weights=weights,
    )
    seconds = time.perf_counter() - started
    return Trained(network, objective, history.losses, seconds, history.validations)


def validator(
    setting: LearningSetting, network: EmbeddingNetwork
) -> Callable[[EmbeddingNetwork], float] | None:
    """R@1 on the classes that are held out for it; None where there are none."""
    query, gallery = setting.validation, setting.validation_gallery
    if query is None:
        return None
    held_query = _held(query, network)
    held_gallery = None if gallery is None else _held(gallery, network)

    def r_at_1(network: EmbeddingNetwork) -> float:
        vectors, others = (
            None if held is None else as_vectors(embed(network, held, cache=setting.descriptors))
            for held in (held_query, held_gallery)
        )
        assert vectors is not None
        labels = None if gallery is None else gallery.labels
        found = evaluate_embeddings(
            vectors, query.labels, others, labels, ks=(1,), conventions=(), clustering=False
        )
        return float(found["R@1"].values.double().mean())

    return r_at_1


def _held(images: ImageSet, network: EmbeddingNetwork) -> ImageSet | Tensor:
    """Pixels in memory, as they are embedded again and again; a frozen trunk's features lie in the cache."""
    return images if network.freeze_trunk else stack_images(images, network)


def new_network(method: LearningMethod, setting: LearningSetting, seed: int) -> EmbeddingNetwork:
    """The network of a method before it is trained: embeddings of the training images spread evenly.

    Or, where the setting says so, as the principal axes of the trunk's features over all of them.
    """
    network = load_embedding_network(
        **setting.trunk, dim=setting.dim, seed=seed, output=method.output, normalize=method.normalize
    )
    train_set = setting.split.train
    if setting.on_axes:
        network.set_head_to_axes(
            extract_descriptors(train_set, network.trunk, progress=False, cache=setting.descriptors)
        )
        return network
    # Evenly spread, so that all classes are among them.
    some = train_set.subset(torch.arange(0, len(train_set), max(1, len(train_set) // STANDARDIZED)))
    network.standardize_head(stack_images(some, network))
    return network


def as_vectors(embeddings: Tensor) -> Tensor:
    """One vector of length one for each image: of local features their mean."""
    return functional.normalize(embeddings.mean(dim=1) if embeddings.ndim == 3 else embeddings, dim=1)


def measure(trained: Trained, setting: LearningSetting, clustering: bool = True) -> LearningRun:
    """Retrieve and cluster the test classes by Euclidean distance of unit vectors."""
    # Eleven of them tell how it went; all would fill the file.
    losses = trained.losses[:: max(1, len(trained.losses) // 10)]
    return replace(
        _measured(partial(embed, trained.network, cache=setting.descriptors), setting, clustering),
        losses=tuple(round(loss, 6) for loss in losses),
        seconds=round(trained.seconds, 2),
        curve=tuple((step, round(value, 5)) for step, value in trained.validations),
    )


def measure_trunk(setting: LearningSetting, whiten: bool | None = None) -> LearningRun:
    """The same for the averaged features of the trunk, before anything is learnt.

    Of a network whose last stages are trained these are the features of the whole network.

    Args:
        setting: its data and network.
        whiten: None for the features as they are. Else their coordinates on the first ``dim`` principal axes
            of the training images, whitened (True) or not (False).
    """
    whole = {name: told for name, told in setting.trunk.items() if name != "train_from"}
    trunk = load_embedding_network(**whole, dim=setting.dim).trunk

    def describe(images: ImageSet) -> Tensor:
        return extract_descriptors(images, trunk, progress=False, cache=setting.descriptors)

    if whiten is None:
        return _measured(describe, setting, clustering=True)
    axes = principal_axes(describe(setting.split.train).squeeze(1), setting.dim)
    return _measured(
        lambda images: axes.project(describe(images).squeeze(1), whiten), setting, clustering=True
    )


def asked_of(setting: LearningSetting) -> Tensor:
    """The queries that are ranked by transport distances as well, evenly spread."""
    n_queries, wanted = len(setting.split.query), setting.asked
    return torch.arange(0, n_queries, max(1, n_queries // wanted))[:wanted]


def group_means(values: Mapping[str, Tensor], members: Tensor) -> dict[str, tuple[float, ...]]:
    """The mean of each metric over each group of queries, in six digits."""
    means = {
        name: GroupMeans.of(of_queries.double(), members).values[0] for name, of_queries in values.items()
    }
    return {name: tuple(round(mean, 6) for mean in of_groups.tolist()) for name, of_groups in means.items()}


def _measured(
    embedder: Callable[[ImageSet], Tensor], setting: LearningSetting, clustering: bool
) -> LearningRun:
    query, gallery = setting.split.query, setting.split.gallery
    found = evaluate_embeddings(
        as_vectors(embedder(query)),
        query.labels,
        None if gallery is None else as_vectors(embedder(gallery)),
        None if gallery is None else gallery.labels,
        conventions=("R", "hits"),
        clustering=clustering,
    )
    members, some = torch.tensor(setting.groups.of_query), asked_of(setting)
    values = {name: found[name].values for name in RETRIEVAL}
    clustered = CLUSTERING if clustering else ()
    return LearningRun(
        groups=group_means(values, members),
        sizes=setting.groups.sizes,
        losses=(),
        seconds=0.0,
        clustering={name: tuple(round(v, 5) for v in found[name].values.tolist()) for name in clustered},
        asked=group_means({name: values[name][some] for name in ASKED_METRICS}, members[some]),
    )


def run_once(
    name: str, work: Callable[[], LearningRun], checkpoints: Checkpoints, progress: str
) -> LearningRun:
    """Do the work unless an interrupted run has done it; return its metrics."""
    checkpoints = checkpoints.made_by(work)
    found = checkpoints.get(name, LearningRun)
    if found is None:
        found = work()
        checkpoints.put(name, found)
    print(f"{progress} {name}: R@1 {found.mean('R@1'):.3f}", file=sys.stderr, flush=True)
    return found


def run_name(method: LearningMethod, value: float, seed: int) -> str:
    """The key of a method's model in the cache."""
    return f"{method.name}-{value:g}-seed{seed}"


def run_seeds(
    method: LearningMethod,
    value: float,
    setting: LearningSetting,
    seed: int,
    checkpoints: Checkpoints,
    progress: str = "",
) -> list[LearningRun]:
    """As many models as the setting asks for, with seeds from ``seed`` on."""

    def one(seed: int) -> LearningRun:
        return measure(train_one(method, value, setting, seed), setting)

    checkpoints = checkpoints.made_by(method.make)
    return [
        run_once(run_name(method, value, s), partial(one, s), checkpoints, progress)
        for s in range(seed, seed + setting.seeds)
    ]


def means_of(runs: Sequence[LearningRun], metric: str) -> GroupMeans:
    """The means of all models over each group of queries."""
    return GroupMeans(np.array([run.groups[metric] for run in runs]), np.array(runs[0].sizes))


def summarize(
    name: str,
    label: str,
    runs: Sequence[LearningRun],
    notes: Sequence[str] = (),
    trained: bool = True,
) -> MethodResult:
    """Means over models and queries, with intervals over models and, for retrieval, groups of queries."""
    names = (*runs[0].groups, *runs[0].clustering)
    metrics = {}
    for metric in names:
        if metric in runs[0].clustering:
            means = [run.mean(metric) for run in runs]
            # A clustering has no value of a single query: groups have no say.
            interval = seed_interval(means) if len(means) > 1 else Interval(means[0], means[0], means[0])
            metrics[metric] = Metric(*interval, n=len(means))
        else:
            grouped = means_of(runs, metric)
            value, low, high = (round(end, 6) for end in mean_interval(grouped))
            metrics[metric] = Metric(value, low, high, grouped.n)
    models = Models(
        means={metric: tuple(round(run.mean(metric), 5) for run in runs) for metric in names},
        by_group={metric: rows_of(means_of(runs, metric)) for metric in GROUPED if metric in runs[0].groups},
        losses=runs[0].losses,
        trained=trained,
        curves=tuple(run.curve for run in runs if run.curve),
    )
    seconds = round(float(np.mean([run.seconds for run in runs])), 2) if trained else None
    return MethodResult(name, label, metrics, notes=tuple(notes), seconds_training=seconds, models=models)


def rows_of(means: GroupMeans) -> Rows:
    """Means over groups as a result keeps them: five digits."""
    return tuple(tuple(round(mean, 5) for mean in row) for row in means.values.tolist())


def checkpoints_of(setting: LearningSetting) -> ModelCheckpoints:
    """Where the models of a setting are remembered; all experiments with that setting share them."""
    return ModelCheckpoints(setting.cache, train_one, learning=setting.identity)


def total_seconds(started: float, runs: Iterable[Sequence[LearningRun]]) -> float:
    """Seconds since ``started``, or those of all trainings: some may have been done by an interrupted run."""
    # What was done before an interruption, or in another process, is part of what it took.
    trained = sum(run.seconds for group in runs for run in group)
    return max(time.perf_counter() - started, trained)


def learning_result(
    experiment: str,
    context: RunContext,
    setting: LearningSetting,
    methods: Sequence[MethodResult],
    details: Details,
    seconds: float,
) -> Result:
    """A result with what this setting says of itself."""
    images = setting.split
    sides = [side for side in (images.train, images.query, images.gallery) if side is not None]
    config = setting.config
    network = load_embedding_network(**setting.trunk, dim=setting.dim)
    return Result(
        experiment=experiment,
        profile=context.profile,
        seed=context.seed,
        dataset=DatasetInfo(
            setting.name,
            sum(len(side) for side in sides),
            len(torch.cat([images.train.labels, images.query.labels]).unique()),
            images.query.sha256,
            setting.licence,
        ),
        settings={
            "protocol": setting.protocol,
            "training images": len(images.train),
            "queries": len(images.query),
            "network": network.trunk.name,
            "embedding": setting.dim,
            "models a method": setting.seeds,
            "steps": config.steps,
            "batch": f"{config.batch_size // config.per_class} classes of {config.per_class} images",
            "learning rate": config.lr,
            **_told(setting),
        },
        methods=tuple(methods),
        scope=Scope(network.trunk.name, len(images.query), len(images.query), config.steps, setting.seeds),
        # Means over groups are kept by model; single queries would be a hundred times more.
        groups=replace(setting.groups, of_query=()),
        details=details,
        provenance=_provenance(network, seconds, config.accelerator),
    )


def _told(setting: LearningSetting) -> dict[str, Any]:
    """What else a longer training has."""
    config, told = setting.config, {}
    if tail := setting.trunk.get("train_from"):
        told["trained"] = f"{tail} and all behind it"
    if setting.on_axes:
        told["the head begins as"] = "the principal axes of its input over the training images"
    if setting.views > 1:
        told["views of each training image"] = f"{setting.views}: itself and random crops, drawn once"
    if config.lr_drops:
        told["learning rate divided by ten after"] = " and ".join(f"{step:,}" for step in config.lr_drops)
    if config.precision != "32-true":
        told["precision"] = config.precision
    if setting.validation is not None:
        waited = config.patience * config.validate_every
        early = f", or when {waited:,} have brought nothing better" if waited < config.steps else ""
        told["validation"] = (
            f"R@1 every {config.validate_every} steps; the best model is kept; a run ends after "
            f"{config.steps:,} steps{early}"
        )
    return told


def _provenance(network: EmbeddingNetwork, seconds: float, device: str) -> Provenance:
    sha256 = network.trunk.weights_sha256
    weights = [WeightsInfo(network.trunk.weights, sha256)] if sha256 else []
    return collect_provenance(seconds, torch.get_num_threads(), device, weights)

"""Experiments of [wasserstein-dml]: effects of its choices on W-triplet, and savings by coresets."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrieval_geometry.coresets import training_subset
from retrieval_geometry.datasets import ImageSet
from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.experiments.learning.chosen import chosen_values, closer_look
from retrieval_geometry.experiments.learning.data import LearningSetting
from retrieval_geometry.experiments.learning.methods import METHODS, LearningMethod
from retrieval_geometry.experiments.learning.run import (
    LearningRun,
    checkpoints_of,
    learning_result,
    measure,
    run_once,
    run_seeds,
    summarize,
    total_seconds,
    train_one,
)
from retrieval_geometry.losses import WassersteinTripletLoss
from retrieval_geometry.reporting.details import Ablated, Subsets
from retrieval_geometry.reporting.results import Result
from retrieval_geometry.training import embed

SHARES = (0.1, 0.3)
WARM_UP = 30
"""Steps on all images before a coreset is chosen: features of an untrained network mean nothing."""


class PooledMeasure(nn.Module):
    """A loss on maps ``(B, side^2, d)`` that sees them averaged to fewer places."""

    def __init__(self, loss: nn.Module, places: int) -> None:
        super().__init__()
        self.loss, self.side = loss, round(places**0.5)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The loss of the pooled maps."""
        # The list of places is a square map, row by row.
        side = round(embeddings.shape[1] ** 0.5)
        maps = embeddings.mT.unflatten(2, (side, side))
        return self.loss(functional.adaptive_avg_pool2d(maps, self.side).flatten(2).mT, labels)


def variants() -> dict[str, tuple[LearningMethod, str]]:
    """W-triplet with one thing changed: the method, and the change in words."""
    base = METHODS["w-triplet"]

    def with_(name: str, **settings: Any) -> LearningMethod:
        make = lambda n, dim, seed, margin: WassersteinTripletLoss(margin, **settings)  # noqa: E731
        # Atoms and histograms are readings of one vector; local features need the map.
        on_map = settings.get("measure", "features") == "features"
        output = "map" if on_map else "vector"
        normalize = settings.get("measure") != "histogram"  # a softmax of a unit vector is nearly flat
        return replace(base, name=f"w-triplet-{name}", make=make, output=output, normalize=normalize)

    def pooled(places: int) -> LearningMethod:
        make = lambda n, dim, seed, margin: PooledMeasure(WassersteinTripletLoss(margin), places)  # noqa: E731
        return replace(base, name=f"w-triplet-{places}-points", make=make)

    return {
        "base": (base, "as in the comparison: epsilon 0.05, all places, p = 1, debiased"),
        "epsilon-0.01": (with_("epsilon-0.01", epsilon=0.01), "epsilon 0.01"),
        "epsilon-0.5": (with_("epsilon-0.5", epsilon=0.5), "epsilon 0.5"),
        "points-4": (pooled(4), "2 x 2 places"),
        "points-1": (pooled(1), "one place: the Euclidean triplet loss on all triplets"),
        "biased": (with_("biased", debias=False), "not debiased"),
        "p-2": (with_("p-2", p=2), "p = 2"),
        "exact": (with_("exact", exact=True), "exact transport"),
        "atoms": (with_("atoms", measure="atoms", atoms=8), "a vector cut into 8 points"),
        "histogram": (with_("histogram", measure="histogram"), "a histogram over coordinates"),
    }


def run_ablations(context: RunContext) -> Result:
    """W-triplet with one choice changed at a time."""
    setting, margin = closer_look("w-triplet", context), chosen_values(context.profile)["w-triplet"]
    started = time.perf_counter()
    runs = {name: train_models() for name, train_models in _ablations(setting, context).items()}
    entries = [summarize(name, words, runs[name]) for name, (_, words) in variants().items()]
    details = Ablated("margin", margin)
    seconds = total_seconds(started, runs.values())
    return learning_result("wasserstein-ablations", context, setting, entries, details, seconds)


def ablation_parts(context: RunContext) -> list[Callable[[], object]]:
    """The models of each variant of :func:`run_ablations`, as a call that trains and keeps them."""
    return list(_ablations(closer_look("w-triplet", context), context).values())


def _ablations(setting: LearningSetting, context: RunContext) -> dict[str, Callable[[], list[LearningRun]]]:
    margin, checkpoints = chosen_values(context.profile)["w-triplet"], checkpoints_of(setting)
    return {
        name: partial(run_seeds, method, margin, setting, context.seed, checkpoints, "ablation")
        for name, (method, _) in variants().items()
    }


def run_coresets(context: RunContext) -> Result:
    """W-triplet on subsets of each class, for a share of the steps; against random subsets, and all images.

    A share s of the images is passed as often as all of them, in a share s of the steps, after the same
    warm-up on all images. The control takes all images for as few steps.
    """
    setting, margin = closer_look("w-triplet", context), chosen_values(context.profile)["w-triplet"]
    started = time.perf_counter()
    by_seed = [train_models() for train_models in coreset_parts(context, setting)]
    runs = {name: [models[name] for models in by_seed] for name in by_seed[0]}
    labels = {"full": "all images, all steps"}
    labels |= {
        f"{way}-{share:g}": f"{words}, {share:.0%} of the steps" for share, way, words, _ in _subsets()
    }
    entries = [summarize(name, labels[name], group) for name, group in runs.items()]
    details = Subsets(margin, WARM_UP, SHARES)
    seconds = total_seconds(started, runs.values())
    return learning_result("wasserstein-coresets", context, setting, entries, details, seconds)


def coreset_parts(
    context: RunContext, setting: LearningSetting | None = None
) -> list[Callable[[], dict[str, LearningRun]]]:
    """The models of each seed of :func:`run_coresets`, as a call that trains and keeps them.

    A seed is one piece, as all its subsets begin with the same network.
    """
    setting = setting or closer_look("w-triplet", context)
    margin = chosen_values(context.profile)["w-triplet"]
    return [
        partial(_on_subsets, setting, margin, s) for s in range(context.seed, context.seed + setting.seeds)
    ]


def _on_subsets(setting: LearningSetting, margin: float, seed: int) -> dict[str, LearningRun]:
    """The models of a seed, by name: of all images, and of each subset."""
    checkpoints = checkpoints_of(setting)
    alone = replace(setting, seeds=1)
    found = {"full": run_seeds(METHODS["w-triplet"], margin, alone, seed, checkpoints, "coresets")[0]}
    warm = cache(partial(_Warm, setting, margin, seed))  # trained at most once, and only if a subset asks
    for share, way, _, choose in _subsets():
        name = f"{way}-{share:g}"
        work = partial(_on_subset, setting, margin, share, choose, warm, seed)
        found[name] = run_once(f"w-triplet-{margin:g}-{name}-seed{seed}", work, checkpoints, "coresets")
    return found


Chosen = tuple[ImageSet, Tensor | None]
Choose = Callable[[ImageSet, Tensor, float, int], Chosen]
"""From images, their features, a share and a seed: the images to train on, and their weights."""


def _subsets() -> list[tuple[float, str, str, Choose]]:
    """Share, name, words and choice of each subset, in the order of the table."""
    ways: tuple[tuple[str, str, Choose], ...] = (
        ("wcraig", "WCRAIG subset", _wcraig),
        ("weighted", "WCRAIG subset, drawn by its weights", _weighted),
        ("random", "random subset", _random),
        ("all", "all images", lambda images, features, share, seed: (images, None)),
    )
    return [(share, *way) for share in SHARES for way in ways]


def _wcraig(images: ImageSet, features: Tensor, share: float, seed: int) -> Chosen:
    return images.subset(training_subset(features, images.labels, share).indices), None


def _weighted(images: ImageSet, features: Tensor, share: float, seed: int) -> Chosen:
    chosen = training_subset(features, images.labels, share)
    return images.subset(chosen.indices), chosen.weights


def _random(images: ImageSet, features: Tensor, share: float, seed: int) -> Chosen:
    """As many images of each class, at random."""
    # The size of each class as in the coreset, so that only the choice differs.
    generator = torch.Generator().manual_seed(seed)
    kept = []
    for label in images.labels.unique().tolist():
        members = (images.labels == label).nonzero()[:, 0]
        # Two at least: a triplet needs a positive.
        count = min(len(members), max(2, math.ceil(share * len(members))))
        kept.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return images.subset(torch.cat(kept)), None


class _Warm:
    """A network after the warm-up on all images, its features of them, and the seconds that took."""

    def __init__(self, setting: LearningSetting, margin: float, seed: int) -> None:
        started = time.perf_counter()
        short = replace(setting, config=replace(setting.config, steps=WARM_UP))
        self.network = train_one(METHODS["w-triplet"], margin, short, seed).network
        self.features = embed(self.network, setting.split.train)
        self.seconds = time.perf_counter() - started


def _on_subset(
    setting: LearningSetting,
    margin: float,
    share: float,
    choose: Choose,
    warm_up: Callable[[], _Warm],
    seed: int,
) -> LearningRun:
    """Choose after the warm-up on all images, and train on from there; the seconds hold all three."""
    warm = warm_up()
    started = time.perf_counter()
    chosen, weights = choose(setting.split.train, warm.features, share, seed)
    # As many passes over the subset as all images get in the full run.
    later = setting.for_share(share)
    # Each subset trains a copy: the next one begins with the same network.
    network = copy.deepcopy(warm.network)
    trained = train_one(METHODS["w-triplet"], margin, later, seed, chosen, network, weights)
    seconds = warm.seconds + time.perf_counter() - started
    return measure(replace(trained, seconds=seconds), setting)

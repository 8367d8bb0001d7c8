"""Experiments of [rankmi]: effects of its choices, and its learnt loss of distances."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.experiments.learning.chosen import chosen_values, closer_look
from retrieval_geometry.experiments.learning.data import LearningSetting
from retrieval_geometry.experiments.learning.methods import RANKMI, LearningMethod
from retrieval_geometry.experiments.learning.run import (
    LearningRun,
    as_vectors,
    checkpoints_of,
    learning_result,
    new_network,
    run_seeds,
    summarize,
    total_seconds,
    train_one,
)
from retrieval_geometry.features import EmbeddingNetwork
from retrieval_geometry.losses import RankMILoss
from retrieval_geometry.losses.statistics_network import negative_score, positive_score
from retrieval_geometry.reporting.details import Ablated, Heaps, Separated
from retrieval_geometry.reporting.results import Result
from retrieval_geometry.training import embed

BINS = 60
LOOKED_AT = 1_000
"""Test images whose pairs are counted in the figures of distances."""
LARGER_BATCHES = ("batch-96", "paper-batch")
"""Variants whose models cost as much as two or three others: not in the quick profile."""


def _variant(name: str, **settings: Any) -> LearningMethod:
    def make(n_classes: int, dim: int, seed: int, updates: float) -> nn.Module:
        # A variant comes last: it may change the tuned number itself.
        return RankMILoss(**{"updates": int(updates), "seed": seed, **settings})

    return replace(RANKMI, name=f"rankmi-{name}", make=make)


def variants() -> dict[str, tuple[LearningMethod, str, dict[str, int]]]:
    """RankMI with one thing changed: the method, the change in words, and changes of the budget."""
    # No pair is ever beyond an infinite margin.
    everything = float("inf")

    def with_(name: str, words: str, **settings: Any) -> tuple[LearningMethod, str, dict[str, int]]:
        return _variant(name, **settings), words, {}

    def budget(name: str, words: str, **changes: int) -> tuple[LearningMethod, str, dict[str, int]]:
        return replace(RANKMI, name=f"rankmi-{name}"), words, changes

    return {
        "base": (RANKMI, "as in the comparison", {}),
        "updates-3": with_("updates-3", "k = 3 statistics updates", updates=3),
        "depth-4": with_("depth-4", "statistics network with 4 inner layers", depth=4),
        "hidden-32": with_("hidden-32", "statistics network 32 wide", hidden=32),
        "dim-8": budget("dim-8", "embedding of 8 dimensions", dim=8),
        "dim-128": budget("dim-128", "embedding of 128 dimensions", dim=128),
        "batch-32": budget("batch-32", "batches of 32 images", batch_size=32),
        "batch-96": budget("batch-96", "batches of 96 images", batch_size=96),
        "paper-batch": budget(
            "paper-batch", "the paper's batches: 24 classes of 5 images", batch_size=120, per_class=5
        ),
        "all-pairs": with_("all-pairs", "all pairs, no sampling", sampling="all", margin=everything),
        "monotone": with_("monotone", "penalty on rising V", monotonicity=1.0),
    }


def _asked(context: RunContext) -> dict[str, tuple[LearningMethod, str, dict[str, int]]]:
    left_out = LARGER_BATCHES if context.profile == "quick" else ()
    return {name: variant for name, variant in variants().items() if name not in left_out}


def run_ablations(context: RunContext) -> Result:
    """RankMI with one choice changed at a time (the paper's supplement).

    In ``quick`` without batches that are larger than those of the comparison.
    """
    setting, updates = closer_look("rankmi", context), chosen_values(context.profile)["rankmi"]
    started = time.perf_counter()
    runs = {name: train_models() for name, train_models in _ablations(setting, context).items()}
    entries = [summarize(name, words, runs[name]) for name, (_, words, _) in _asked(context).items()]
    details = Ablated("updates", updates)
    seconds = total_seconds(started, runs.values())
    return learning_result("rankmi-ablations", context, setting, entries, details, seconds)


def ablation_parts(context: RunContext) -> list[Callable[[], object]]:
    """The models of each variant of :func:`run_ablations`, as a call that trains and keeps them."""
    return list(_ablations(closer_look("rankmi", context), context).values())


def _ablations(setting: LearningSetting, context: RunContext) -> dict[str, Callable[[], list[LearningRun]]]:
    updates, seed = chosen_values(context.profile)["rankmi"], context.seed
    found: dict[str, Callable[[], list[LearningRun]]] = {}
    for name, (method, _, changes) in _asked(context).items():
        changed = _changed(setting, changes)
        found[name] = partial(run_seeds, method, updates, changed, seed, checkpoints_of(changed), "ablation")
    return found


def _changed(setting: LearningSetting, changes: dict[str, int]) -> LearningSetting:
    config = setting.config
    batch_size = changes.get("batch_size", config.batch_size)
    config = replace(config, batch_size=batch_size, per_class=changes.get("per_class", config.per_class))
    return replace(setting, config=config, dim=changes.get("dim", setting.dim))


def run_distances(context: RunContext) -> Result:
    """[rankmi] Figures 1 and 3: distances of pairs before and after training, and the learnt loss."""
    setting, updates = closer_look("rankmi", context), chosen_values(context.profile)["rankmi"]
    started = time.perf_counter()
    untrained = new_network(RANKMI, setting, context.seed)
    trained = train_one(RANKMI, updates, setting, context.seed)
    objective = trained.objective
    assert isinstance(objective, RankMILoss)
    grid = torch.linspace(0, 2, BINS + 1)
    with torch.no_grad():
        # V over all distances between unit vectors, 0 to 2.
        learnt = objective.statistics(grid)
    details = Separated(
        updates=int(updates),
        edges=tuple(round(edge, 4) for edge in grid.tolist()),
        before=_histograms(untrained, setting),
        after=_histograms(trained.network, setting),
        statistic=_numbers(learnt),
        # Eq. 6 maximises the scores; losses are their negatives (erratum 3.3).
        positive_loss=_numbers(-positive_score(learnt)),
        negative_loss=_numbers(-negative_score(learnt)),
        beta=round(float(objective.beta), 5),
        margin=float(objective.margin),
        losses=_numbers(torch.tensor(trained.losses)),
    )
    seconds = time.perf_counter() - started
    # The result says that one model was trained, however many the setting asks for.
    alone = replace(setting, seeds=1)
    return learning_result("rankmi-distances", context, alone, (), details, seconds)


def _numbers(values: Tensor) -> tuple[float, ...]:
    return tuple(round(value, 5) for value in values.tolist())


def _histograms(network: EmbeddingNetwork, setting: LearningSetting) -> Heaps:
    """Shares of the distances of matching and of other pairs of test images, in bins of [0, 2]."""
    query = setting.split.query
    step = max(1, len(query) // LOOKED_AT)
    some = query.subset(torch.arange(0, len(query), step))
    vectors = as_vectors(embed(network, some))
    distances = torch.cdist(vectors, vectors)
    matching = some.labels[:, None] == some.labels
    # Each pair once, and no image with itself.
    upper = torch.ones_like(matching).triu(1)
    found = {}
    for name, pairs in (("matching", matching & upper), ("other", ~matching & upper)):
        counts = torch.histc(distances[pairs], BINS, min=0, max=2)
        # Shares: there are far more other pairs than matching ones.
        found[name] = _numbers(counts / counts.sum())
    return Heaps(**found)

"""Experiments on learning a metric: all losses under one budget and one rule for their hyper-parameters."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from retrieval_geometry.distances import pairwise_sinkhorn_divergence
from retrieval_geometry.evaluation import GroupMeans
from retrieval_geometry.evaluation.retrieval import average_precision, recall_at_k
from retrieval_geometry.experiments.checkpoints import Checkpoints
from retrieval_geometry.experiments.data import cache_folder
from retrieval_geometry.experiments.learning_data import (
    VALIDATION,
    LearningSetting,
    learning_setting,
    photographs,
    products,
)
from retrieval_geometry.experiments.learning_methods import METHODS, TEN_LOSSES, LearningMethod
from retrieval_geometry.experiments.learning_run import (
    LearningRun,
    as_vectors,
    checkpoints_of,
    learning_result,
    measure,
    measure_trunk,
    rows_of,
    run_name,
    run_once,
    run_seeds,
    summarize,
    total_seconds,
    train_one,
    values_of,
)
from retrieval_geometry.features import EmbeddingNetwork
from retrieval_geometry.reporting.details import Compared, Rows, Transport, Tuned
from retrieval_geometry.reporting.results import NoResultError, Result, load_recorded
from retrieval_geometry.training import embed

QUICK_METHODS = (*(method.name for method in TEN_LOSSES), "rankmi")
TUNED_BY = "AP@R"
ASKED = 150
"""Queries that are ranked by transport distances: each is compared with every other test image."""

BOTH_WAYS = ("R@1", "AP@R")
"""Metrics of those queries."""


def run_tuning(profile: str, data_root: str, device: str, seed: int) -> Result:
    """Choose one hyper-parameter of each loss: five values, one model each, by AP@R on validation classes.

    The validation classes are a quarter of the training classes; the models see the other three quarters.
    """
    setting = learning_setting(profile, data_root, device)
    started = time.perf_counter()
    tuning = _tune(setting, seed)
    validation = setting.for_validation()
    entries = [
        summarize(
            name,
            METHODS[name].label,
            [tuning.runs[name][value]],
            validation.groups,
            [f"{METHODS[name].tuned} = {value:g}"],
        )
        for name, value in tuning.chosen.items()
    ]
    rule = f"best {TUNED_BY} of {1 - VALIDATION:.0%} of the classes"
    details = Tuned(tuning.scores, tuning.chosen, rule)
    seconds = total_seconds(started, [list(runs.values()) for runs in tuning.runs.values()])
    return learning_result("learning-tuning", profile, seed, validation, entries, details, seconds)


def run_bench(profile: str, data_root: str, device: str, seed: int) -> Result:
    """[wasserstein-dml] Table 1 and [rankmi] Tables 1 to 3: losses under one budget, on unseen classes.

    ``quick``: eleven losses on glyphs; ``real``: seventeen on Omniglot; ``paper``: on CUB-200-2011.
    Hyper-parameters are those that the recorded run of ``learning-tuning`` chose on glyphs.
    """
    setting = learning_setting(profile, data_root, device)
    names = QUICK_METHODS if profile == "quick" else tuple(METHODS)
    chosen = chosen_values()
    return _bench("learning-bench", profile, setting, [METHODS[name] for name in names], chosen, seed)


def run_products(profile: str, data_root: str, device: str, seed: int) -> Result:
    """All losses on photographs of products (Grocery Store), with a head on frozen features."""
    return _head_bench("learning-products", products, profile, data_root, device, seed)


def run_photographs(profile: str, data_root: str, device: str, seed: int) -> Result:
    """All losses on small photographs (Tiny ImageNet), with a head on frozen features."""
    return _head_bench("learning-photographs", photographs, profile, data_root, device, seed)


def _head_bench(
    experiment: str,
    make: Callable[[str, str], LearningSetting],
    profile: str,
    data_root: str,
    device: str,
    seed: int,
) -> Result:
    """Heads train in seconds: each loss is tuned on the data itself, and stands beside the trunk alone."""
    if profile != "real":
        raise ValueError(f"profile must be real for {experiment}, got {profile!r}: its data is not bundled")
    setting = make(data_root, device)
    tuning = _tune(setting, seed)
    result = _bench(experiment, profile, setting, list(METHODS.values()), tuning.chosen, seed)
    tuned = sum(run.seconds for runs in tuning.runs.values() for run in runs.values())
    return replace(
        result,
        details=replace(result.told(Compared), scores=tuning.scores),
        provenance=replace(result.provenance, seconds=round(result.provenance.seconds + tuned, 3)),
    )


def chosen_values() -> dict[str, float]:
    """The values that the recorded tuning on glyphs chose; the middle candidates where none is recorded."""
    try:
        chosen = load_recorded("learning-tuning", "quick").told(Tuned).chosen
    except NoResultError:
        chosen = {}
    return {name: float(chosen.get(name, method.candidates[2])) for name, method in METHODS.items()}


class _Tuning(NamedTuple):
    runs: dict[str, dict[float, LearningRun]]

    @property
    def chosen(self) -> dict[str, float]:
        """The best value of each method; the first of those that are equal to nine decimals."""
        return {
            name: max(runs, key=lambda value: round(runs[value].mean(TUNED_BY), 9))
            for name, runs in self.runs.items()
        }

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """What each value reached."""
        return {
            name: {f"{value:g}": round(run.mean(TUNED_BY), 5) for value, run in runs.items()}
            for name, runs in self.runs.items()
        }


def _tune(setting: LearningSetting, seed: int) -> _Tuning:
    """Train one model for each candidate, on three quarters of the training classes; ask the last quarter."""
    validation = setting.for_validation()
    checkpoints = checkpoints_of(validation)
    return _Tuning(
        {
            name: {
                value: _validated(method, value, validation, seed, checkpoints) for value in method.candidates
            }
            for name, method in METHODS.items()
        }
    )


def _validated(
    method: LearningMethod, value: float, setting: LearningSetting, seed: int, checkpoints: Checkpoints
) -> LearningRun:
    return run_once(
        f"{method.name}-{value:g}-seed{seed}",
        lambda: measure(train_one(method, value, setting, seed), setting, clustering=False),
        checkpoints,
        "tuning",
    )


def _bench(
    experiment: str,
    profile: str,
    setting: LearningSetting,
    methods: Sequence[LearningMethod],
    chosen: Mapping[str, float],
    seed: int,
) -> Result:
    checkpoints = checkpoints_of(setting)
    started = time.perf_counter()
    by_transport = {
        name: run_once(
            f"{name}-{chosen[name]:g}-seed{seed}-transport",
            partial(_transport_run, METHODS[name], chosen[name], setting, seed, checkpoints),
            checkpoints,
            "transport at test time",
        )
        for name in ("w-triplet", "w-contrastive")
    }
    runs = {
        method.name: run_seeds(
            method, chosen[method.name], setting, seed, checkpoints, f"[{i}/{len(methods)}]"
        )
        for i, method in enumerate(methods, 1)
    }
    entries = [
        summarize(
            method.name,
            method.label,
            runs[method.name],
            setting.groups,
            [f"{method.tuned} = {chosen[method.name]:g}"],
        )
        for method in methods
    ]
    if setting.trunk.get("freeze_trunk"):
        alone = [measure_trunk(setting)]
        words = "the trunk alone, nothing learnt"
        entries.append(summarize("trunk", words, alone, setting.groups, trained=False))
    details = Compared(
        {method.name: chosen[method.name] for method in methods},
        transport_retrieval(setting, by_transport, runs),
    )
    seconds = total_seconds(started, runs.values())
    return learning_result(experiment, profile, seed, setting, entries, details, seconds)


def transport_retrieval(
    setting: LearningSetting,
    by_transport: Mapping[str, LearningRun],
    runs: Mapping[str, Sequence[LearningRun]],
) -> Transport:
    """The two Wasserstein losses at test time: transport distances against Euclidean ones of the means.

    For some queries, evenly spread, and one model of each loss; of the paper's ten losses all models are kept
    for the same queries.
    """
    asked = asked_of(setting)
    members = torch.tensor(setting.groups.of_query)[asked]

    def rows(values: Tensor) -> Rows:
        return rows_of(GroupMeans.of(values, members))

    def of(way: str) -> dict[str, dict[str, Rows]]:
        return {
            name: {metric: rows(values_of([run], f"{metric} {way}")) for metric in BOTH_WAYS}
            for name, run in by_transport.items()
        }

    others = {
        method.name: {metric: rows(values_of(runs[method.name], metric)[:, asked]) for metric in BOTH_WAYS}
        for method in TEN_LOSSES
        if method.name in runs
    }
    sizes = tuple(members.unique(return_counts=True)[1].tolist())
    return Transport(len(asked), sizes, of("transport"), of("Euclidean"), others)


def _transport_run(
    method: LearningMethod, value: float, setting: LearningSetting, seed: int, checkpoints: Checkpoints
) -> LearningRun:
    trained = train_one(method, value, setting, seed)
    # The model is that of the comparison: what it reaches by mean vectors is kept for it.
    shared = checkpoints.made_by(method.make).made_by(measure)
    shared.put(run_name(method, value, seed), measure(trained, setting))
    by_way = rank_both_ways(trained.network, setting)
    values = {
        f"{metric} {way}": tuple(round(v, 5) for v in of_queries.tolist())
        for way, metrics in by_way.items()
        for metric, of_queries in metrics.items()
    }
    return LearningRun({"R@1": values["R@1 transport"], **values}, (), round(trained.seconds, 2))


def asked_of(setting: LearningSetting) -> Tensor:
    """The queries that are ranked by transport distances, evenly spread."""
    n_queries = len(setting.split.query)
    return torch.arange(0, n_queries, max(1, n_queries // ASKED))[:ASKED]


def rank_both_ways(network: EmbeddingNetwork, setting: LearningSetting) -> dict[str, dict[str, Tensor]]:
    """R@1 and AP@R of some queries by the Sinkhorn divergence of local features, and by their means."""
    query, gallery = setting.split.query, setting.split.gallery
    features = embed(network, query, cache=cache_folder())
    others = features if gallery is None else embed(network, gallery, cache=cache_folder())
    labels = query.labels if gallery is None else gallery.labels
    asked = asked_of(setting)
    own, other = as_vectors(features[asked]), as_vectors(others)
    distances = {
        "transport": pairwise_sinkhorn_divergence(features[asked], others),
        "Euclidean": torch.cdist(own, other),
    }
    found = {}
    for way, values in distances.items():
        if gallery is None:
            values = values.index_put((torch.arange(len(asked)), asked), values.new_tensor(torch.inf))
        ranked = labels[values.sort(dim=1, stable=True).indices]
        if gallery is None:
            ranked = ranked[:, :-1]
        found[way] = {
            "R@1": recall_at_k(ranked, query.labels[asked], 1),
            "AP@R": average_precision(ranked, query.labels[asked]),
        }
    return found

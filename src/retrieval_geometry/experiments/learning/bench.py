"""The comparison of losses: all under one budget and one rule for their hyper-parameters."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from retrieval_geometry.distances import pairwise_sinkhorn_divergence
from retrieval_geometry.evaluation.retrieval import average_precision, recall_at_k
from retrieval_geometry.experiments.checkpoints import Checkpoints
from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.experiments.learning.chosen import chosen_rates, chosen_values
from retrieval_geometry.experiments.learning.data import (
    LearningSetting,
    finetuned,
    learning_setting,
    photographs,
    products,
)
from retrieval_geometry.experiments.learning.methods import METHODS, TEN_LOSSES, LearningMethod
from retrieval_geometry.experiments.learning.run import (
    ASKED_METRICS,
    LearningRun,
    as_vectors,
    asked_of,
    checkpoints_of,
    group_means,
    learning_result,
    measure,
    measure_trunk,
    run_name,
    run_once,
    run_seeds,
    summarize,
    total_seconds,
    train_one,
)
from retrieval_geometry.experiments.learning.tuning import tune
from retrieval_geometry.features import EmbeddingNetwork
from retrieval_geometry.reporting.details import Compared, Rows, Transport
from retrieval_geometry.reporting.results import Result
from retrieval_geometry.training import embed

FINETUNED = (
    "triplet",
    "contrastive",
    "multisimilarity",
    "proxyanchor",
    "supcon",
    "rankmi",
    "w-triplet",
)
"""The losses that the last stages of a network are trained with."""
QUICK_METHODS = (*(method.name for method in TEN_LOSSES), "rankmi")
ASKED_BY_TRANSPORT = ("w-triplet", "w-contrastive")
"""Losses that are asked by the distance they are trained with as well."""


def run_bench(context: RunContext) -> Result:
    """[wasserstein-dml] Table 1 and [rankmi] Tables 1 to 3: losses under one budget, on unseen classes.

    ``quick``: eleven losses on glyphs; ``real``: seventeen on Omniglot; ``paper``: on CUB-200-2011.
    Hyper-parameters are those that the recorded run of ``learning-tuning`` chose: on glyphs, and for ``real``
    on validation classes of Omniglot, where it chose the learning rates as well.
    """
    profile = context.profile
    setting, methods, chosen = learning_setting(context), _asked(context), chosen_values(profile)
    return _bench("learning-bench", context, setting, methods, chosen, chosen_rates(profile))


def bench_parts(context: RunContext) -> list[Callable[[], object]]:
    """The models of :func:`run_bench`, each as a call that trains and keeps it."""
    setting = learning_setting(context)
    chosen, rates = chosen_values(context.profile), chosen_rates(context.profile)
    # One model of every method before the second of any: what an interrupted run leaves can be compared.
    return [
        partial(
            _train,
            method,
            chosen[method.name],
            replace(setting.at_rate(rates.get(method.name)), seeds=1),
            seed,
            "part:",
        )
        for seed in range(context.seed, context.seed + setting.seeds)
        for method in _asked(context)
    ]


def keep_models(context: RunContext) -> list[str]:
    """Keep the finished models of :func:`run_bench` with the book, so that a later run goes on behind them.

    Returns:
        The names of those that are still to be trained.
    """
    setting, profile = learning_setting(context), context.profile
    chosen, rates = chosen_values(profile), chosen_rates(profile)
    missing = []
    for method in _asked(context):
        own = checkpoints_of(setting.at_rate(rates.get(method.name)))
        for seed in range(context.seed, context.seed + setting.seeds):
            name = run_name(method, chosen[method.name], seed)
            parts = {name: own.made_by(method.make).made_by(measure)}
            if method.name in ASKED_BY_TRANSPORT:
                parts[f"{name}-transport"] = own.made_by(_transport_run)
            missing += [part for part, found in parts.items() if not found.keep(part, LearningRun)]
    return missing


def _asked(context: RunContext) -> list[LearningMethod]:
    return [METHODS[name] for name in (QUICK_METHODS if context.profile == "quick" else METHODS)]


def run_products(context: RunContext) -> Result:
    """All losses on photographs of products (Grocery Store), with a head on frozen features."""
    return _head_bench("learning-products", context, products)


def run_photographs(context: RunContext) -> Result:
    """All losses on small photographs (Tiny ImageNet), with a head on frozen features."""
    return _head_bench("learning-photographs", context, photographs)


def _head_bench(
    experiment: str, context: RunContext, make: Callable[[RunContext], LearningSetting]
) -> Result:
    """Heads train in seconds: each loss is tuned on the data itself, and stands beside the trunk alone."""
    _check_real(experiment, context)
    return _tuned_bench(experiment, context, make(context), list(METHODS.values()))


def run_finetuned(context: RunContext) -> Result:
    """Seven losses that train the last stages of a network, on photographs of products (Grocery Store).

    Beside them stand three controls that learn nothing: the features of the whole network, their first
    principal axes, as many as an embedding has numbers, and these whitened.

    Raises:
        ValueError: another profile than ``real``.
        FileNotFoundError: the data are missing; the message says where to put them.
    """
    _check_real("learning-finetuned", context)
    setting = finetuned(context)
    result = _tuned_bench("learning-finetuned", context, setting, [METHODS[name] for name in FINETUNED])
    controls = [
        summarize(name, words, [measure_trunk(setting, whiten)], trained=False)
        for name, words, whiten in (
            ("trunk-axes", f"the trunk alone, first {setting.dim} principal axes", False),
            ("trunk-whitened", f"the trunk alone, first {setting.dim} principal axes, whitened", True),
        )
    ]
    return replace(result, methods=(*result.methods, *controls))


def finetuned_parts(context: RunContext) -> list[Callable[[], object]]:
    """The models of each loss of :func:`run_finetuned`, as a call that chooses its value and trains them."""
    _check_real("learning-finetuned", context)
    setting = finetuned(context)
    return [partial(_tune_and_train, METHODS[name], setting, context.seed) for name in FINETUNED]


def _tune_and_train(method: LearningMethod, setting: LearningSetting, seed: int) -> None:
    tuning = tune(setting, seed, [method])
    own = setting.at_rate(tuning.rates.get(method.name))
    _train(method, tuning.chosen[method.name], own, seed, "part:")


def _check_real(experiment: str, context: RunContext) -> None:
    if context.profile != "real":
        raise ValueError(
            f"profile must be real for {experiment}, got {context.profile!r}: its data is not bundled"
        )


def _tuned_bench(
    experiment: str, context: RunContext, setting: LearningSetting, methods: Sequence[LearningMethod]
) -> Result:
    # No recorded choice fits other images: the tuning belongs to this run, and its time counts.
    tuning = tune(setting, context.seed, methods)
    result = _bench(experiment, context, setting, methods, tuning.chosen, tuning.rates)
    tuned = sum(run.seconds for runs in tuning.all_runs for run in runs)
    return replace(
        result,
        details=replace(result.told(Compared), scores=tuning.scores),
        provenance=replace(result.provenance, seconds=round(result.provenance.seconds + tuned, 3)),
    )


def _bench(
    experiment: str,
    context: RunContext,
    setting: LearningSetting,
    methods: Sequence[LearningMethod],
    chosen: Mapping[str, float],
    rates: Mapping[str, float] | None = None,
) -> Result:
    started = time.perf_counter()
    rates = rates or {}
    by_transport, runs = {}, {}
    for i, method in enumerate(methods, 1):
        progress = f"[{i}/{len(methods)}]"
        own = setting.at_rate(rates.get(method.name))
        asked, runs[method.name] = _train(method, chosen[method.name], own, context.seed, progress)
        if asked:
            by_transport[method.name] = asked
    entries = [
        summarize(
            method.name,
            method.label,
            runs[method.name],
            _notes(method, chosen[method.name], rates.get(method.name)),
        )
        for method in methods
    ]
    # Where only a head is learnt, the features below it are the control.
    if setting.trunk.get("freeze_trunk"):
        alone = [measure_trunk(setting)]
        words = "the trunk alone, nothing learnt"
        entries.append(summarize("trunk", words, alone, trained=False))
    details = Compared(
        {method.name: chosen[method.name] for method in methods},
        transport_retrieval(setting, by_transport, runs),
        rates=dict(rates),
    )
    seconds = total_seconds(started, runs.values())
    return learning_result(experiment, context, setting, entries, details, seconds)


def _notes(method: LearningMethod, value: float, rate: float | None) -> list[str]:
    notes = [f"{method.tuned} = {value:g}"]
    return notes if rate is None else [*notes, f"learning rate = {rate:g}"]


def _train(
    method: LearningMethod, value: float, setting: LearningSetting, seed: int, progress: str
) -> tuple[list[LearningRun], list[LearningRun]]:
    """All models of a method by transport distances, where those are asked; and by Euclidean ones."""
    checkpoints, asked = checkpoints_of(setting), []
    if method.name in ASKED_BY_TRANSPORT:
        for s in range(seed, seed + setting.seeds):
            work = partial(_transport_run, method, value, setting, s, checkpoints)
            asked.append(run_once(f"{run_name(method, value, s)}-transport", work, checkpoints, progress))
    return asked, run_seeds(method, value, setting, seed, checkpoints, progress)


def transport_retrieval(
    setting: LearningSetting,
    by_transport: Mapping[str, Sequence[LearningRun]],
    runs: Mapping[str, Sequence[LearningRun]],
) -> Transport:
    """The two Wasserstein losses at test time: transport distances against Euclidean ones of the means.

    For some queries, evenly spread, and all models; of the paper's other losses too, for the same queries.
    """

    def of(way: str) -> dict[str, dict[str, Rows]]:
        return {
            name: {metric: tuple(run.groups[f"{metric} {way}"] for run in models) for metric in ASKED_METRICS}
            for name, models in by_transport.items()
        }

    others = {
        method.name: {
            metric: tuple(run.asked[metric] for run in runs[method.name]) for metric in ASKED_METRICS
        }
        for method in TEN_LOSSES
        if method.name in runs
    }
    sizes = _sizes_of_asked(setting)
    return Transport(sum(sizes), sizes, of("transport"), of("Euclidean"), others)


def _sizes_of_asked(setting: LearningSetting) -> tuple[int, ...]:
    members = torch.tensor(setting.groups.of_query)[asked_of(setting)]
    return tuple(members.unique(return_counts=True)[1].tolist())


def _transport_run(
    method: LearningMethod, value: float, setting: LearningSetting, seed: int, checkpoints: Checkpoints
) -> LearningRun:
    trained = train_one(method, value, setting, seed)
    # The model is that of the comparison, which keeps its metrics by mean vectors.
    shared = checkpoints.made_by(method.make).made_by(measure)
    shared.put(run_name(method, value, seed), measure(trained, setting))
    values = {
        f"{metric} {way}": of_queries
        for way, metrics in rank_both_ways(trained.network, setting).items()
        for metric, of_queries in metrics.items()
    }
    members = torch.tensor(setting.groups.of_query)[asked_of(setting)]
    means = group_means({"R@1": values["R@1 transport"], **values}, members)
    return LearningRun(means, _sizes_of_asked(setting), (), round(trained.seconds, 2))


def rank_both_ways(network: EmbeddingNetwork, setting: LearningSetting) -> dict[str, dict[str, Tensor]]:
    """R@1 and AP@R of some queries by the Sinkhorn divergence of local features, and by their means."""
    query, gallery = setting.split.query, setting.split.gallery
    features = embed(network, query, cache=setting.descriptors)
    others = features if gallery is None else embed(network, gallery, cache=setting.descriptors)
    labels = query.labels if gallery is None else gallery.labels
    asked = asked_of(setting)
    # All against themselves as one object: each pair is computed once.
    queries = features if len(asked) == len(features) else features[asked]
    own, other = as_vectors(queries), as_vectors(others)
    distances = {
        "transport": pairwise_sinkhorn_divergence(queries, others),
        "Euclidean": torch.cdist(own, other),
    }
    found = {}
    for way, values in distances.items():
        if gallery is None:
            # A query among the images that it is asked against: last of all, then cut off.
            values = values.index_put((torch.arange(len(asked)), asked), values.new_tensor(torch.inf))
        # Stable: equal distances keep the order of the images, on every machine.
        ranked = labels[values.sort(dim=1, stable=True).indices]
        if gallery is None:
            ranked = ranked[:, :-1]
        found[way] = {
            "R@1": recall_at_k(ranked, query.labels[asked], 1),
            "AP@R": average_precision(ranked, query.labels[asked]),
        }
    return found

"""Evaluation, results, claims and experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from retrieval_geometry import evaluation, experiments, reporting
from retrieval_geometry.evaluation import CONVENTIONS, GroupMeans
from retrieval_geometry.reporting import Comparison, Groups, Metric, Relevance

from .law import Entry
from .makers import always, labels, normal, one_of, uniform

RANKED = {"ranked_labels": lambda seed: labels(12)(seed).view(3, 4), "query_labels": labels(3)}
SETTINGS = {
    "profile": always("quick"),
    "data_root": always("data"),
    "device": always("cpu"),
    "seed": always(0),
}
RESAMPLED = {
    "confidence": always(0.95),
    "n_resamples": always(20),
    "seed": always(0),
    "groups": one_of(None, [0, 0, 1, 1, 2, 2, 3, 3]),
}


def group_means(other: int = 0) -> Any:
    """Means of two models in four groups."""
    return lambda seed: GroupMeans(normal(2, 4, other=other)(seed).double().numpy(), np.array([3, 1, 2, 4]))


ENTRIES: dict[str, Entry] = {
    "evaluation.GroupMeans": Entry(
        GroupMeans, {"values": lambda seed: normal(2, 4)(seed).numpy(), "sizes": always([3, 1, 2, 4])}
    ),
    **{
        f"evaluation.{name}": Entry(
            getattr(evaluation, name),
            {
                **RANKED,
                "convention": one_of(*CONVENTIONS),
                "k": one_of(2, None),
                "n_relevant": one_of(None, labels(3)(0) + 1),
            },
        )
        for name in ("average_precision", "mean_average_precision")
    },
    "evaluation.precision_at_k": Entry(evaluation.precision_at_k, {**RANKED, "k": always(2)}),
    "evaluation.recall_at_k": Entry(evaluation.recall_at_k, {**RANKED, "k": always(2)}),
    "evaluation.bootstrap_interval": Entry(
        evaluation.bootstrap_interval, {"values": uniform(8), **RESAMPLED}, unbounded=("n_resamples",)
    ),
    "evaluation.paired_bootstrap_difference": Entry(
        evaluation.paired_bootstrap_difference,
        {"a": uniform(8), "b": uniform(8, other=1), **RESAMPLED},
        unbounded=("n_resamples",),
    ),
    "evaluation.query_draw_interval": Entry(
        evaluation.query_draw_interval,
        {
            "values": uniform(8),
            "classes": labels(8, 2),
            "per_class": always(2),
            "n_draws": always(20),
            "confidence": always(0.9),
            "seed": always(0),
        },
        unbounded=("n_draws",),
    ),
    "evaluation.seed_interval": Entry(
        evaluation.seed_interval, {"values": uniform(4), "confidence": always(0.95)}
    ),
    "evaluation.mean_interval": Entry(
        evaluation.mean_interval,
        {"means": group_means(), "confidence": always(0.95), "comparisons": always(2)},
    ),
    "evaluation.mean_difference": Entry(
        evaluation.mean_difference,
        {
            "a": group_means(),
            "b": group_means(1),
            "confidence": always(0.95),
            "comparisons": always(2),
        },
        words=("means",),
    ),
    "evaluation.simultaneous_differences": Entry(
        lambda first, rival, confidence: evaluation.simultaneous_differences(
            first, {"rival": rival}, confidence
        ),
        {"first": group_means(), "rival": group_means(1), "confidence": always(0.95)},
        words=("rivals", "a", "b"),
    ),
    "evaluation.nearest_neighbours": Entry(
        evaluation.nearest_neighbours,
        {
            "queries": normal(4, 3),
            "gallery": one_of(normal(6, 3, other=1)(0), normal(6, 3, other=1)(1)),
            "k": always(2),
            "metric": one_of("euclidean", "cosine"),
            "exclude_self": one_of(None, labels(4)(0)),
        },
    ),
    "evaluation.evaluate_embeddings": Entry(
        evaluation.evaluate_embeddings,
        {
            "queries": normal(9, 3),
            "labels": labels(9),
            "ks": one_of((1, 2), (1, 4)),
            "metric": one_of("euclidean", "cosine"),
            "conventions": one_of(("R", "k"), ("hits", "ranks")),
            "clustering": one_of(True, False),
            "seed": always(0),
        },
        words=("convention",),
    ),
    **{
        f"evaluation.{name}": Entry(
            getattr(evaluation, name), {"classes": labels(9), "clusters": labels(9, 2)}
        )
        for name in ("normalized_mutual_information", "pairwise_f1")
    },
    "reporting.Metric": Entry(
        Metric,
        {"value": always(0.5), "low": always(0.4), "high": always(0.6), "n": always(3)},
        words=("metric",),
    ),
    "reporting.Groups": Entry(
        Groups,
        {"name": always("classes"), "sizes": always((2, 1)), "of_query": one_of((), (0, 0, 1))},
        words=("groups", "group"),
    ),
    "reporting.Relevance": Entry(
        lambda relevant, k: Relevance.pack(relevant).precision(k),
        {"relevant": always(np.array([[True, False], [True, True]])), "k": always(2)},
    ),
    "reporting.Comparison": Entry(
        lambda **given: Comparison("a", "b", "R@1", **given).verdict,
        {
            "value": always(0.1),
            "low": always(0.0),
            "high": always(0.2),
            "queries": always(3),
            "groups": always(2),
        },
    ),
    "reporting.check": Entry(
        lambda profile: reporting.check(experiments.claims()[5], {}, profile).verdict,
        {"profile": always("quick")},
    ),
    "reporting.check_all": Entry(
        lambda paper, profile: [
            row.verdict for row in reporting.check_all(experiments.claims(paper), {}, profile)
        ],
        {"paper": always("geometric"), "profile": always("quick")},
    ),
    "reporting.require_expected": Entry(reporting.require_expected, {"rows": always([])}),
    "reporting.collect_provenance": Entry(
        reporting.collect_provenance,
        {"seconds": always(1.0), "threads": always(1), "device": always("cpu"), "weights": always(())},
    ),
    "reporting.load_all": Entry(
        reporting.load_all, {"experiments": always(["geometric-table1"]), "profile": always("real")}
    ),
    "reporting.load_recorded": Entry(
        reporting.load_recorded, {"experiment": always("geometric-table1"), "profile": always("real")}
    ),
    "reporting.project_root": Entry(reporting.project_root, {"start": one_of(None, Path("."))}),
    "reporting.recorded_dir": Entry(reporting.recorded_dir),
    "reporting.results_dir": Entry(reporting.results_dir),
    "reporting.result_path": Entry(
        reporting.result_path, {"experiment": always("geometric-table1"), "profile": always("real")}
    ),
    "experiments.check_profile": Entry(experiments.check_profile, {"profile": always("quick")}),
    "experiments.claims": Entry(
        lambda paper: len(experiments.claims(paper)), {"paper": one_of(None, "geometric")}
    ),
    "experiments.find": Entry(experiments.find, {"name": always("geometric-table1")}, words=("experiment",)),
    "experiments.load_or_run": Entry(
        experiments.load_or_run, {"experiment": always("geometric-table1")}, only_spoilt=True
    ),
    "experiments.Experiment": Entry(
        lambda profile: experiments.find("geometric-table1").run(experiments.RunContext(profile)),
        {"profile": always("quick")},
        only_spoilt=True,
    ),
    "experiments.RunContext": Entry(lambda **given: experiments.RunContext(**given).folder, SETTINGS),
    "experiments.experiments": Entry(lambda: list(experiments.experiments())),
    "experiments.papers": Entry(lambda: list(experiments.papers())),
    "experiments.why_stale": Entry(
        lambda path, **given: experiments.why_stale(
            experiments.find("geometric-table1"), path, experiments.RunContext(**given)
        ),
        {"path": always(Path("no/such/file.json")), **SETTINGS},
    ),
}

METHODS: dict[str, Entry] = {
    "evaluation.GroupMeans.of": Entry(GroupMeans.of, {"values": uniform(8), "groups": labels(8, 3)}),
}

NO_CALL = {
    "evaluation.CONVENTIONS": "a table",
    "evaluation.Interval": "what the intervals return",
    "evaluation.Measure": "what evaluate_embeddings returns",
    "reporting.Claim": "an entry of a table",
    "reporting.ClaimError": "an error",
    "reporting.ClaimRow": "what check returns",
    "reporting.DatasetInfo": "a record; its file is tried",
    "reporting.Finding": "what a predicate returns",
    "reporting.MethodResult": "a record; its file is tried",
    "reporting.Models": "a record; its file is tried",
    "reporting.Provenance": "a record; its file is tried",
    "reporting.Result": "a record; its file is tried",
    "reporting.ResultError": "an error",
    "reporting.Scope": "a record; its file is tried",
    "reporting.Verdict": "an enumeration",
    "reporting.WeightsInfo": "a record; its file is tried",
    "experiments.Paper": "an entry of a table",
    "experiments.PROFILES": "a table",
}

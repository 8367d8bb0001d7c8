import dataclasses

import numpy as np
import pytest

from retrieval_geometry.evaluation import paired_bootstrap_difference
from retrieval_geometry.experiments import claims, experiments, papers
from retrieval_geometry.experiments.comparisons import compare
from retrieval_geometry.papers.geometric.claims import CLAIMS
from retrieval_geometry.papers.geometric.printed import TABLE1
from retrieval_geometry.reporting import (
    Claim,
    Groups,
    MethodResult,
    Metric,
    Relevance,
    Result,
    Scope,
    Verdict,
    check_all,
)
from retrieval_geometry.reporting.details import CloseRange, Dealt
from retrieval_geometry.reporting.findings import RULES, every

from ..reporting.conftest import make_result

TABLE, LAYERS, ROBUSTNESS = "geometric-table1", "geometric-layers", "geometric-robustness"


def by_id(name: str) -> Claim:
    return next(claim for claim in CLAIMS if claim.id == f"geometric-{name}")


CLASSES = Groups("classes", (20,) * 20, tuple(i // 20 for i in range(400)))


def table(precision: dict[str, float], seconds: dict[str, float] | None = None) -> dict[str, Result]:
    """A result in which every method finds each neighbour with the given chance, 20 queries of 20 classes."""
    rng = np.random.default_rng(0)
    entries = []
    for name, value in precision.items():
        hits = rng.random((400, 10)) < value
        metrics = {f"P@{k}": Metric(float(hits[:, :k].mean()), 0, 1, 400) for k in (1, 5, 10)}
        time = (seconds or {}).get(name, 1e-3)
        entries.append(MethodResult(name, name, metrics, time, None, Relevance.pack(hits)))
    return {TABLE: make_result(experiment=TABLE, methods=tuple(entries), groups=CLASSES)}


AS_PRINTED = {name: row["P@1"] for name, row in TABLE1.items()} | {
    "gmm-wasserstein": 0.9,
    "smt-wasserstein": 0.75,
    "gmm8-variational-kl": 0.45,
    "gmm-variational-kl": 0.3,
    "sift-bow-euclidean": 0.1,
}


def test_claims_are_well_formed():
    assert claims("geometric") == list(CLAIMS)
    assert claims() == [claim for paper in papers() for claim in claims(paper)]
    assert {claim.paper for claim in claims()} == set(papers())
    for claim in claims():
        assert set(claim.needs) <= experiments().keys()
        assert set(claim.expected) <= {"quick", "real", "paper"}
        assert claim.sentence.endswith(".")
        assert any(rule.partition(" worse by")[0] in claim.rule for rule in RULES.values())
    check_all(claims(), {}, "quick")  # ids differ


@pytest.mark.parametrize(
    "name",
    ["gmm-wasserstein-best", "wasserstein-beats-kl-gmm", "wasserstein-beats-kl-smt",
     "wasserstein-beats-riemannian", "gmm-beats-smt", "variational-last", "variational-conditioning",
     "deep-beats-sift"],
)  # fmt: skip
def test_a_table_like_the_papers_reproduces_its_claims(name):
    finding = by_id(name).predicate(table(AS_PRINTED))
    assert finding.verdict is Verdict.REPRODUCED, finding.evidence


def test_the_opposite_table_contradicts_them():
    turned = table(AS_PRINTED | {"gmm-wasserstein": 0.2, "smt-wasserstein": 0.2, "gmm-variational-kl": 0.8})
    for name in ("gmm-wasserstein-best", "wasserstein-beats-kl-gmm", "wasserstein-beats-riemannian"):
        assert by_id(name).predicate(turned).verdict is Verdict.CONTRADICTED
    assert by_id("variational-last").predicate(turned).verdict is Verdict.CONTRADICTED


def on(network: str, precision: dict[str, float]) -> dict[str, Result]:
    """The table of a run with every image asked."""
    return {network: dataclasses.replace(table(precision)[TABLE], experiment=network)}


def test_networks_with_every_image_asked_decide_together():
    turned = AS_PRINTED | {"smt-wasserstein": 0.2}
    claim = by_id("wasserstein-beats-riemannian")
    assert claim.replicas == ("geometric-squeezenet", "geometric-efficientnet", "geometric-mobilenet")
    first, second = claim.replicas[:2]
    both = table(turned) | on(first, AS_PRINTED) | on(second, AS_PRINTED)
    found = claim.predicate(both)
    assert found.verdict is Verdict.REPRODUCED  # the run with few queries has no say
    assert len(found.parts) == 6
    assert {part.at_once for part in found.parts} == {6}
    assert {part.first.partition(",")[0] for part in found.parts} == {"SqueezeNet 1.1", "EfficientNet-lite0"}
    one_against = claim.predicate(table(AS_PRINTED) | on(first, AS_PRINTED) | on(second, turned))
    assert one_against.verdict is Verdict.CONTRADICTED
    assert "EfficientNet-lite0" in one_against.evidence


def test_the_reach_of_replicas_is_theirs():
    claim = by_id("wasserstein-beats-riemannian")
    runs = table(AS_PRINTED)
    for network in claim.replicas[:2]:
        scope = Scope(network, 400, 400)
        runs |= {network: dataclasses.replace(on(network, AS_PRINTED)[network], scope=scope)}
    runs[TABLE] = dataclasses.replace(runs[TABLE], scope=Scope("few asked", 100, 400))
    (row,) = check_all([claim], runs, "quick")
    assert row.reach is not None
    assert row.reach.network == "geometric-squeezenet and geometric-efficientnet"
    assert (row.reach.queries, row.reach.possible) == (400, 400)
    assert not row.reach.partial


def test_claims_about_time_have_no_replicas():
    assert {claim.id for claim in CLAIMS if claim.replicas}.isdisjoint(
        {"geometric-wasserstein-slowest", "geometric-stein-cheaper", "geometric-layers-better"}
    )


def test_equal_methods_decide_nothing():
    equal = table(AS_PRINTED | {"gmm-wasserstein": 0.6, "smt-wasserstein": 0.6})
    assert by_id("gmm-beats-smt").predicate(equal).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [(1.0, Verdict.REPRODUCED), (1.2e-3, Verdict.INCONCLUSIVE), (1e-6, Verdict.CONTRADICTED)],
)
def test_times_must_differ_by_more_than_noise(seconds, verdict):
    slow = table(AS_PRINTED, {"gmm-wasserstein": seconds, "smt-wasserstein": seconds})
    assert by_id("wasserstein-slowest").predicate(slow).verdict is verdict


def test_stein_is_compared_with_the_riemannian_distance():
    results = table(AS_PRINTED | {"smt-stein": 0.5}, {"smt-riemannian": 5e-3})
    finding = by_id("stein-cheaper").predicate(results)
    assert finding.verdict is Verdict.REPRODUCED
    assert "5.00 times" in finding.evidence


@pytest.mark.parametrize("better", [True, False])
def test_layers_are_compared_under_three_distances(better):
    low, high = (0.3, 0.8) if better else (0.8, 0.3)
    methods = {
        f"{name}-{part}": high if part == "all" else low
        for name in ("mean-euclidean", "sample-wasserstein", "gmm-normal-kl")
        for part in ("last", "all")
    }
    results = {LAYERS: table(methods)[TABLE]}
    assert len(by_id("layers-better").predicate(results).parts) == 3
    expected = Verdict.REPRODUCED if better else Verdict.CONTRADICTED
    assert by_id("layers-better").predicate(results).verdict is expected


def test_robustness_is_compared_image_by_image():
    rng = np.random.default_rng(0)
    spread = {"gmm-wasserstein": 0.1, "smt-wasserstein": 0.1}
    names = ("gmm-wasserstein", "smt-wasserstein", "gmm-normal-kl", "smt-normal-kl", "smt-riemannian")
    images = {
        name: CloseRange(tuple((spread.get(name, 0.3) + 0.01 * rng.random(30)).tolist()), (), ())
        for name in names
    }
    methods = tuple(MethodResult(name, name, {"variation": Metric(0.1, 0.1, 0.1, 30)}) for name in names)
    groups = Groups("classes", (3,) * 10, tuple(i // 3 for i in range(30)))
    result = make_result(experiment=ROBUSTNESS, methods=methods, groups=groups, details=Dealt(images))
    assert by_id("wasserstein-robust").predicate({ROBUSTNESS: result}).verdict is Verdict.REPRODUCED


def of_two_methods(first: np.ndarray, second: np.ndarray, classes: list[int]) -> dict[str, Result]:
    """GMM- and SMT-Wasserstein with these hits (queries,) of the nearest image, repeated for all ten."""
    sizes = tuple(np.bincount(classes).tolist())
    entries = [
        MethodResult(name, name, {}, relevance=Relevance.pack(np.repeat(hits[:, None], 10, axis=1)))
        for name, hits in (("gmm-wasserstein", first), ("smt-wasserstein", second))
    ]
    groups = Groups("classes", sizes, tuple(classes))
    return {TABLE: make_result(experiment=TABLE, methods=tuple(entries), groups=groups)}


def test_queries_of_one_class_are_no_independent_witnesses():
    """Two classes of five speak for the first method with one voice each; forty queries would decide."""
    classes = [i // 20 for i in range(100)]
    second = np.zeros(100, bool)
    first = np.isin(classes, [0, 1])
    by_query = paired_bootstrap_difference(first, second)
    assert by_query.low > 0.25  # as if there were a hundred independent witnesses
    clustered = by_id("gmm-beats-smt").predicate(of_two_methods(first, second, classes))
    assert clustered.verdict is Verdict.INCONCLUSIVE
    assert clustered.parts[0].groups == 5
    spread = by_id("gmm-beats-smt").predicate(of_two_methods(first, second, list(range(100))))
    assert spread.verdict is Verdict.REPRODUCED


def test_the_best_of_seven_is_held_to_all_comparisons_at_once():
    """A lead that would be decided if it alone were looked at is open among twelve."""
    finding = by_id("gmm-wasserstein-best").predicate(table(AS_PRINTED))
    assert len(finding.parts) == 12  # six others, at Top-1 and Top-5
    assert {part.at_once for part in finding.parts} == {12}
    (alone,) = compare(table(AS_PRINTED)[TABLE], [("gmm-wasserstein", "smt-wasserstein", "P@1")])
    (same,) = (p for p in finding.parts if (p.second, p.metric) == ("smt-wasserstein", "P@1"))
    assert same.value == alone.value
    assert same.high - same.low > 1.3 * (alone.high - alone.low)


def test_equal_methods_are_rarely_decided():
    """Ten equal methods on clustered queries: the rival is chosen after looking, and yet few are decided."""
    rng = np.random.default_rng(0)
    decided = 0
    for _ in range(200):
        chance = rng.beta(4, 4, (10, 1)) + 0.15 * rng.standard_normal((10, 10))
        values = {f"m{i}": (rng.random((10, 15)) < chance[:, i : i + 1]).ravel() for i in range(10)}
        entries = tuple(
            MethodResult(name, name, {}, relevance=Relevance.pack(hits[:, None]))
            for name, hits in values.items()
        )
        groups = Groups("classes", (15,) * 10, tuple(i // 15 for i in range(150)))
        result = make_result(experiment=TABLE, methods=entries, groups=groups)
        found = every(compare(result, [("m0", f"m{i}", "P@1") for i in range(1, 10)]))
        decided += found.verdict is not Verdict.INCONCLUSIVE
    assert decided <= 10  # 5 %


def test_without_single_queries_nothing_is_claimed():
    results = table(AS_PRINTED)
    bare = tuple(dataclasses.replace(entry, relevance=None) for entry in results[TABLE].methods)
    results[TABLE] = dataclasses.replace(results[TABLE], methods=bare)
    assert by_id("gmm-beats-smt").predicate(results).verdict is Verdict.NOT_TESTED


@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if not claim.needs], ids=lambda claim: claim.id)
def test_mathematics_has_its_registered_verdict(claim):
    finding = claim.predicate({})
    assert {finding.verdict} == set(claim.expected.values()), finding.evidence

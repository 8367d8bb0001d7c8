import dataclasses

import numpy as np
import pytest

from retrieval_geometry.experiments import EXPERIMENTS, PAPERS, claims
from retrieval_geometry.experiments.geometric_claims import CLAIMS
from retrieval_geometry.experiments.geometric_paper import TABLE1
from retrieval_geometry.reporting import Claim, MethodResult, Metric, Relevance, Result, Verdict, check_all

from ..reporting.conftest import make_result

TABLE, LAYERS, ROBUSTNESS = "geometric-table1", "geometric-layers", "geometric-robustness"


def by_id(name: str) -> Claim:
    return next(claim for claim in CLAIMS if claim.id == f"geometric-{name}")


def table(precision: dict[str, float], seconds: dict[str, float] | None = None) -> dict[str, Result]:
    """A result in which every method finds each neighbour with the given chance, 400 queries."""
    rng = np.random.default_rng(0)
    entries = []
    for name, value in precision.items():
        hits = rng.random((400, 10)) < value
        metrics = {f"P@{k}": Metric(float(hits[:, :k].mean()), 0, 1, 400) for k in (1, 5, 10)}
        time = (seconds or {}).get(name, 1e-3)
        entries.append(MethodResult(name, name, metrics, time, None, Relevance.pack(hits)))
    return {TABLE: make_result(experiment=TABLE, methods=tuple(entries))}


AS_PRINTED = {name: row["P@1"] for name, row in TABLE1.items()} | {
    "gmm-wasserstein": 0.9,
    "smt-wasserstein": 0.75,
    "gmm8-variational-kl": 0.45,
    "gmm-variational-kl": 0.3,
    "sift-bow-euclidean": 0.1,
}


def test_claims_are_well_formed():
    assert claims("geometric") == list(CLAIMS)
    assert claims() == [claim for paper in PAPERS for claim in claims(paper)]
    assert {claim.paper for claim in claims()} == set(PAPERS)
    for claim in claims():
        assert set(claim.needs) <= EXPERIMENTS.keys()
        assert set(claim.expected) <= {"quick", "real", "paper"}
        assert claim.sentence.endswith(".")
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
    assert "5.0 times" in finding.evidence


@pytest.mark.parametrize("better", [True, False])
def test_layers_are_compared_under_three_distances(better):
    low, high = (0.3, 0.8) if better else (0.8, 0.3)
    methods = {
        f"{name}-{part}": high if part == "all" else low
        for name in ("mean-euclidean", "sample-wasserstein", "gmm-normal-kl")
        for part in ("last", "all")
    }
    results = {LAYERS: table(methods)[TABLE]}
    expected = Verdict.REPRODUCED if better else Verdict.CONTRADICTED
    assert by_id("layers-better").predicate(results).verdict is expected


def test_robustness_is_compared_image_by_image():
    rng = np.random.default_rng(0)
    spread = {"gmm-wasserstein": 0.1, "smt-wasserstein": 0.1}
    names = ("gmm-wasserstein", "smt-wasserstein", "gmm-normal-kl", "smt-normal-kl", "smt-riemannian")
    images = {name: {"variation": (spread.get(name, 0.3) + 0.01 * rng.random(30)).tolist()} for name in names}
    methods = tuple(MethodResult(name, name, {"variation": Metric(0.1, 0.1, 0.1, 30)}) for name in names)
    result = make_result(experiment=ROBUSTNESS, methods=methods, extra={"images": images})
    assert by_id("wasserstein-robust").predicate({ROBUSTNESS: result}).verdict is Verdict.REPRODUCED


def test_without_single_queries_nothing_is_claimed():
    results = table(AS_PRINTED)
    bare = tuple(dataclasses.replace(entry, relevance=None) for entry in results[TABLE].methods)
    results[TABLE] = dataclasses.replace(results[TABLE], methods=bare)
    assert by_id("gmm-beats-smt").predicate(results).verdict is Verdict.NOT_TESTED


@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if not claim.needs], ids=lambda claim: claim.id)
def test_mathematics_has_its_registered_verdict(claim):
    finding = claim.predicate({})
    assert {finding.verdict} == set(claim.expected.values()), finding.evidence

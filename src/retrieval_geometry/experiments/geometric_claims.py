"""The checkable claims of [geometric], and the verdicts that their results are known to get."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from retrieval_geometry.evaluation import paired_bootstrap_difference
from retrieval_geometry.experiments.geometric_paper import QUERIES, TABLE1
from retrieval_geometry.experiments.geometric_theorems import (
    kl_diverges_wasserstein_does_not,
    riemannian_is_invariant,
    smt_has_full_rank,
    stein_is_affine_invariant,
)
from retrieval_geometry.reporting.claims import Claim, Finding, Results, Verdict, all_of, from_interval

TABLE, LAYERS, ROBUSTNESS = "geometric-table1", "geometric-layers", "geometric-robustness"
DEEP = tuple(name for name in TABLE1 if name != "sift-bow-euclidean")
YES, NO, OPEN = Verdict.REPRODUCED, Verdict.CONTRADICTED, Verdict.INCONCLUSIVE


def difference(results: Results, first: str, second: str, k: int, experiment: str = TABLE) -> Finding:
    """Verdict on "P@k of the first method exceeds that of the second", by paired bootstrap."""
    a, b = (results[experiment][name] for name in (first, second))
    if a.relevance is None or b.relevance is None:
        return Finding(Verdict.NOT_TESTED, "no single queries were recorded")
    found = paired_bootstrap_difference(a.relevance.precision(k), b.relevance.precision(k))
    interval = f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    return from_interval(found.low, found.high, f"{a.label} minus {b.label}: P@{k} {interval}")


def _together(findings: Sequence[Finding]) -> Finding:
    """One verdict of several findings; what they all speak about is said once."""
    parts: dict[str, list[str]] = {}
    for finding in findings:
        subject, _, numbers = finding.evidence.rpartition(": ")
        parts.setdefault(subject, []).append(numbers)
    evidence = "; ".join(f"{subject}: {', '.join(numbers)}" for subject, numbers in parts.items())
    return Finding(all_of(findings).verdict, evidence)


def beats(first: str, others: Sequence[str], ks: Sequence[int] = (1, 5, 10)) -> Callable[[Results], Finding]:
    """The claim that a method has a higher P@k than each of the others, at every k."""

    def predicate(results: Results) -> Finding:
        return _together([_closest(results, first, others, k) for k in ks])

    return predicate


def _closest(results: Results, first: str, others: Sequence[str], k: int) -> Finding:
    """Against the best of the others, which is what decides."""
    best = max(others, key=lambda name: results[TABLE][name].metrics[f"P@{k}"].value)
    return difference(results, first, best, k)


def variational_is_last(results: Results) -> Finding:
    """Against the worst of the other deep methods."""
    others = [name for name in DEEP if name != "gmm-variational-kl"]
    findings = []
    for k in (1, 5, 10):
        worst = min(others, key=lambda name: results[TABLE][name].metrics[f"P@{k}"].value)
        findings.append(difference(results, worst, "gmm-variational-kl", k))
    return _together(findings)


def deep_beat_sift(results: Results) -> Finding:
    """The weakest deep method against SIFT."""
    findings = []
    for k in (1, 5, 10):
        worst = min(DEEP, key=lambda name: results[TABLE][name].metrics[f"P@{k}"].value)
        findings.append(difference(results, worst, "sift-bow-euclidean", k))
    return _together(findings)


def wasserstein_is_slowest(results: Results) -> Finding:
    """Both Wasserstein methods take longer than any other, by more than timing noise (a factor of 1.5)."""
    seconds = {name: results[TABLE][name].seconds_per_comparison or math.nan for name in TABLE1}
    wasserstein = min(seconds["gmm-wasserstein"], seconds["smt-wasserstein"])
    name, other = max(
        ((n, s) for n, s in seconds.items() if not n.endswith("-wasserstein")), key=lambda pair: pair[1]
    )
    ratio = wasserstein / other
    return from_interval(
        math.log(ratio / 1.5), math.log(ratio * 1.5), f"Wasserstein takes {ratio:.2f} times as long as {name}"
    )


def stein_is_cheaper(results: Results) -> Finding:
    """The Riemannian distance takes longer than Stein's, by more than timing noise."""
    stein, riemannian = (results[TABLE][name] for name in ("smt-stein", "smt-riemannian"))
    ratio = (riemannian.seconds_per_comparison or math.nan) / (stein.seconds_per_comparison or math.nan)
    evidence = f"the Riemannian distance takes {ratio:.1f} times as long as Stein's"
    return from_interval(math.log(ratio / 1.5), math.log(ratio * 1.5), evidence)


def printed_gaps_exceed_noise(results: Results) -> Finding:
    """From the printed numbers alone: Top-1 of the best Wasserstein row minus that of the best KL row."""
    a, b = TABLE1["gmm-wasserstein"]["P@1"], TABLE1["gmm-normal-kl"]["P@1"]
    error = math.sqrt((a * (1 - a) + b * (1 - b)) / QUERIES)
    low, high = a - b - 1.96 * error, a - b + 1.96 * error
    return from_interval(low, high, f"Top-1 {a:.2f} minus {b:.2f}: {a - b:+.2f} [{low:+.2f}, {high:+.2f}]")


def several_layers_are_better(results: Results) -> Finding:
    """All layers together against the last alone, under each of three distances."""
    methods = ("mean-euclidean", "sample-wasserstein", "gmm-normal-kl")
    return _together([difference(results, f"{m}-all", f"{m}-last", 1, LAYERS) for m in methods])


def wasserstein_varies_less(results: Results) -> Finding:
    """Coefficient of variation between two halves of one image, paired over images."""
    result = results[ROBUSTNESS]
    findings = []
    for ours, other in (("gmm-wasserstein", "gmm-normal-kl"), ("smt-wasserstein", "smt-normal-kl"),
                        ("smt-wasserstein", "smt-riemannian")):  # fmt: skip
        a, b = (np.array(result.extra["images"][name]["variation"]) for name in (other, ours))
        found = paired_bootstrap_difference(a, b)
        interval = f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
        evidence = f"variation of {result[other].label} minus {result[ours].label}: {interval}"
        findings.append(from_interval(found.low, found.high, evidence))
    return _together(findings)


def fewer_components_help(results: Results) -> Finding:
    """If ill-conditioned components are the cause, fewer of them should do better."""
    return _together(
        [difference(results, "gmm8-variational-kl", "gmm-variational-kl", k) for k in (1, 5, 10)]
    )


IMAGES = {"real": "af0c47f5c06ef7c1415f71a232407217a96d6186dae14bb24ab4969e0f270008"}
"""The recorded run: the first ten attributes of DTD, shorter side 256."""


def _claim(
    name: str,
    where: str,
    sentence: str,
    predicate: Callable[[Results], Finding],
    needs: tuple[str, ...] = (),
    expected: Mapping[str, Verdict] = MappingProxyType({}),
) -> Claim:
    return Claim(f"geometric-{name}", "geometric", where, sentence, predicate, needs, expected, IMAGES)


def _always(verdict: Verdict) -> dict[str, Verdict]:
    return {"quick": verdict, "real": verdict, "paper": verdict}


CLAIMS = (
    _claim(
        "gmm-wasserstein-best",
        "Table 1",
        "GMM-Wasserstein is the most precise of the seven methods at Top-1, Top-5 and Top-10.",
        beats("gmm-wasserstein", [name for name in TABLE1 if name != "gmm-wasserstein"]),
        (TABLE,),
        {"quick": NO, "real": OPEN},
    ),
    _claim(
        "wasserstein-beats-kl-gmm",
        "Abstract, section 3",
        "With mixtures, the Wasserstein distance retrieves better than the KL divergences.",
        beats("gmm-wasserstein", ["gmm-normal-kl", "gmm-variational-kl"]),
        (TABLE,),
        {"quick": NO, "real": OPEN},
    ),
    _claim(
        "wasserstein-beats-kl-smt",
        "Abstract, section 3",
        "With SMT covariances, the Wasserstein distance retrieves better than the KL divergence.",
        beats("smt-wasserstein", ["smt-normal-kl"]),
        (TABLE,),
        {"quick": NO, "real": OPEN},
    ),
    _claim(
        "wasserstein-beats-riemannian",
        "Table 1",
        "With SMT covariances, the Wasserstein distance retrieves better than the Riemannian distance.",
        beats("smt-wasserstein", ["smt-riemannian"]),
        (TABLE,),
        {"quick": NO, "real": YES},
    ),
    _claim(
        "gmm-beats-smt",
        "Table 1",
        "Under the Wasserstein distance, mixtures retrieve better than SMT covariances at Top-1.",
        beats("gmm-wasserstein", ["smt-wasserstein"], (1,)),
        (TABLE,),
        {"quick": OPEN, "real": OPEN},
    ),
    _claim(
        "variational-last",
        "Section 3",
        "The variational KL divergence is the least precise of the six measures on deep descriptors.",
        variational_is_last,
        (TABLE,),
        {"quick": OPEN, "real": NO},
    ),
    _claim(
        "variational-conditioning",
        "Section 3",
        "The variational KL divergence suffers from badly conditioned covariances (so 8 components should "
        "retrieve better than 64).",
        fewer_components_help,
        (TABLE,),
        {"quick": YES, "real": YES},
    ),
    _claim(
        "deep-beats-sift",
        "Table 1, section 4",
        "Every measure on deep descriptors retrieves better than SIFT words.",
        deep_beat_sift,
        (TABLE,),
        {"quick": YES, "real": OPEN},
    ),
    _claim(
        "wasserstein-slowest",
        "Table 1, section 4",
        "The Wasserstein distance takes more time than all other measures.",
        wasserstein_is_slowest,
        (TABLE,),
    ),
    _claim(
        "gaps-exceed-noise",
        "Table 1",
        "The lead of the Wasserstein distance over KL is larger than the noise of 94 queries.",
        printed_gaps_exceed_noise,
        expected=_always(OPEN),
    ),
    _claim(
        "kl-singular",
        "Section 4",
        "KL goes to infinity where a covariance becomes singular; the Wasserstein distance, without an "
        "inverse, stays finite.",
        kl_diverges_wasserstein_does_not,
        expected=_always(YES),
    ),
    _claim(
        "smt-full-rank",
        "Section 2.2",
        "The sparse matrix transform gives a covariance of full rank, whatever the number of descriptors.",
        smt_has_full_rank,
        expected=_always(YES),
    ),
    _claim(
        "riemannian-invariant",
        "Section 2.2.3",
        "However an image is manipulated (rescaled, normalised, whitened, filtered), its Riemannian distance "
        "from another stays the same.",
        riemannian_is_invariant,
        expected=_always(NO),
    ),
    _claim(
        "stein-invariant",
        "Section 4",
        "Stein's divergence keeps the affine invariance of the Riemannian distance.",
        stein_is_affine_invariant,
        expected=_always(YES),
    ),
    _claim(
        "stein-cheaper",
        "Section 4",
        "Stein's divergence takes less time than the Riemannian distance.",
        stein_is_cheaper,
        (TABLE,),
    ),
    _claim(
        "wasserstein-robust",
        "Section 4",
        "Between close distributions, the Wasserstein distance varies less than KL and Riemannian distances.",
        wasserstein_varies_less,
        (ROBUSTNESS,),
        {"quick": NO, "real": NO},
    ),
    _claim(
        "layers-better",
        "Section 4",
        "Descriptors of several layers retrieve better than those of the last layer, under any measure.",
        several_layers_are_better,
        (LAYERS,),
        {"quick": YES, "real": NO},
    ),
)

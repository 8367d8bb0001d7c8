"""The checkable claims of [geometric], and the verdicts that their results are known to get."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from retrieval_geometry.experiments.comparisons import compare
from retrieval_geometry.experiments.profiles import PROFILES
from retrieval_geometry.papers.geometric.networks import NETWORKS
from retrieval_geometry.papers.geometric.printed import QUERIES, TABLE1
from retrieval_geometry.papers.geometric.theorems import (
    kl_diverges_wasserstein_does_not,
    riemannian_is_invariant,
    smt_has_full_rank,
    stein_is_affine_invariant,
)
from retrieval_geometry.reporting.claims import Claim, Results
from retrieval_geometry.reporting.findings import (
    RULES,
    Comparison,
    Finding,
    Ratio,
    Verdict,
    every,
    not_tested,
)
from retrieval_geometry.reporting.results import MethodResult, Result

TABLE, LAYERS, ROBUSTNESS = "geometric-table1", "geometric-layers", "geometric-robustness"
REPLICAS = tuple(f"geometric-{name}" for name in NETWORKS)
"""Table 1 once more: every image asked, on the descriptors of several networks."""
DEEP = tuple(name for name in TABLE1 if name != "sift-bow-euclidean")
Predicate = Callable[[Results], Finding]
YES, NO, OPEN = Verdict.REPRODUCED, Verdict.CONTRADICTED, Verdict.INCONCLUSIVE


def beats(first: str, others: Sequence[str], ks: Sequence[int] = (1, 5, 10)) -> Predicate:
    """The claim that a method has a higher P@k than each of the others, at every k."""
    return _higher([(first, other) for other in others], ks)


def loses(last: str, others: Sequence[str]) -> Predicate:
    """The claim that each of the others has a higher P@k, at k = 1, 5 and 10."""
    return _higher([(other, last) for other in others], (1, 5, 10))


def _higher(pairs: Sequence[tuple[str, str]], ks: Sequence[int], experiment: str = TABLE) -> Predicate:
    """The first of every pair has the higher P@k, at every k, and on every network that was run."""

    def predicate(results: Results) -> Finding:
        if experiment == TABLE and (replicas := [name for name in REPLICAS if name in results]):
            return on_every_network([results[name] for name in replicas], pairs, ks)
        result = results[experiment]
        # Some records hold means alone; a paired difference needs the answers of single queries.
        if any(result[name].relevance is None for pair in pairs for name in pair):
            return not_tested("no single queries were recorded")
        # All pairs and all k in one call: their intervals hold at once, however many were looked at.
        return every(compare(result, [(*pair, f"P@{k}") for pair in pairs for k in ks]))

    return predicate


def on_every_network(runs: Sequence[Result], pairs: Sequence[tuple[str, str]], ks: Sequence[int]) -> Finding:
    """The first of every pair has the higher P@k at every k, in every run; all intervals hold at once."""
    triples = [(*pair, f"P@{k}") for pair in pairs for k in ks]
    return every(
        [
            replace(part, first=f"{network_of(run)}, {part.first}")
            for run in runs
            for part in compare(run, triples, runs=len(runs))
        ]
    )


def network_of(run: Result) -> str:
    """The network of a run of :data:`REPLICAS`, as tables call it."""
    return NETWORKS[run.experiment.removeprefix("geometric-")].label


def wasserstein_is_slowest(results: Results) -> Finding:
    """The faster of both Wasserstein methods against every other method."""
    table = results[TABLE]
    # The faster of the two: where even that is slower than a rival, both are.
    ours = min(("gmm-wasserstein", "smt-wasserstein"), key=lambda name: _seconds(table[name]))
    others = [name for name in TABLE1 if not name.endswith("-wasserstein")]
    return every([_ratio(table[ours], table[name]) for name in others])


def stein_is_cheaper(results: Results) -> Finding:
    """The Riemannian distance against Stein's."""
    return every([_ratio(results[TABLE]["smt-riemannian"], results[TABLE]["smt-stein"])])


def _ratio(first: MethodResult, second: MethodResult) -> Ratio:
    return Ratio(first.label, second.label, _seconds(first) / _seconds(second))


def _seconds(entry: MethodResult) -> float:
    # NaN is neither above nor below a bound: the ratio stays undecided.
    return math.nan if entry.seconds_per_comparison is None else entry.seconds_per_comparison


def printed_gaps_exceed_noise(results: Results) -> Finding:
    """From the printed numbers alone: Top-1 of the best Wasserstein row minus that of the best KL row."""
    a, b = TABLE1["gmm-wasserstein"]["P@1"], TABLE1["gmm-normal-kl"]["P@1"]
    # Two independent binomial shares: the paper has no single answers, whose correlation would narrow this.
    reach = 1.96 * math.sqrt((a * (1 - a) + b * (1 - b)) / QUERIES)
    # Every query counts as a group of its own: the paper does not say which belong together.
    names = ("GMM-Wasserstein, printed", "GMM-Normal KL, printed")
    interval = (a - b, a - b - reach, a - b + reach)
    return every([Comparison(*names, "P@1", *interval, QUERIES, QUERIES, "queries")])


def wasserstein_varies_less(results: Results) -> Finding:
    """Coefficient of variation between two halves of one image: that of the others is larger."""
    pairs = (
        ("gmm-normal-kl", "gmm-wasserstein"),
        ("smt-normal-kl", "smt-wasserstein"),
        ("smt-riemannian", "smt-wasserstein"),
    )
    return every(compare(results[ROBUSTNESS], [(*pair, "variation") for pair in pairs]))


MEASURES = ("mean-euclidean", "sample-wasserstein", "gmm-normal-kl")
"""Under which all layers together are compared with the last alone."""

IMAGES = {"real": "af0c47f5c06ef7c1415f71a232407217a96d6186dae14bb24ab4969e0f270008"}
"""The recorded run: the first ten attributes of DTD, shorter side 256."""


def _claim(
    name: str,
    where: str,
    sentence: str,
    predicate: Predicate,
    needs: tuple[str, ...] = (),
    expected: Mapping[str, Verdict] = MappingProxyType({}),
    rule: str = "all",
) -> Claim:
    replicas = REPLICAS if rule == "all" and needs == (TABLE,) else ()
    # A claim that reads no result is mathematics, and has the rule of a computation.
    words = RULES[rule if needs or rule != "all" else "computed"]
    return Claim(
        f"geometric-{name}", "geometric", where, sentence, words, predicate, needs, expected, IMAGES, replicas
    )


CLAIMS = (
    _claim(
        "gmm-wasserstein-best",
        "Table 1",
        "GMM-Wasserstein is the most precise of the seven methods at Top-1 and Top-5 (at Top-10 the table "
        "has a tie).",
        beats("gmm-wasserstein", [name for name in TABLE1 if name != "gmm-wasserstein"], (1, 5)),
        (TABLE,),
        {"quick": OPEN, "real": OPEN},
    ),
    _claim(
        "wasserstein-beats-kl-gmm",
        "Abstract, section 3",
        "With mixtures, the Wasserstein distance retrieves better than the KL divergences.",
        beats("gmm-wasserstein", ["gmm-normal-kl", "gmm-variational-kl"]),
        (TABLE,),
        {"quick": OPEN, "real": OPEN},
    ),
    _claim(
        "wasserstein-beats-kl-smt",
        "Abstract, section 3",
        "With SMT covariances, the Wasserstein distance retrieves better than the KL divergence.",
        beats("smt-wasserstein", ["smt-normal-kl"]),
        (TABLE,),
        {"quick": OPEN, "real": OPEN},
    ),
    _claim(
        "wasserstein-beats-riemannian",
        "Table 1",
        "With SMT covariances, the Wasserstein distance retrieves better than the Riemannian distance.",
        beats("smt-wasserstein", ["smt-riemannian"]),
        (TABLE,),
        {"quick": OPEN, "real": YES},
    ),
    _claim(
        "gmm-beats-smt",
        "Table 1",
        "Under the Wasserstein distance, mixtures retrieve better than SMT covariances at Top-1 (our reading "
        "of the numbers, not a sentence of the paper).",
        beats("gmm-wasserstein", ["smt-wasserstein"], (1,)),
        (TABLE,),
        {"quick": OPEN, "real": OPEN},
    ),
    _claim(
        "variational-last",
        "Section 3",
        "The variational KL divergence is the least precise of the six measures on deep descriptors.",
        loses("gmm-variational-kl", [name for name in DEEP if name != "gmm-variational-kl"]),
        (TABLE,),
        {"quick": OPEN, "real": OPEN},
    ),
    _claim(
        "variational-conditioning",
        "Section 3",
        "A possible cause of its low precision: the variational KL divergence suffers from badly conditioned "
        "covariances (so 8 components should retrieve better than 64).",
        beats("gmm8-variational-kl", ["gmm-variational-kl"]),
        (TABLE,),
        {"quick": OPEN, "real": OPEN},
    ),
    _claim(
        "deep-beats-sift",
        "Table 1, section 4",
        "Every measure on deep descriptors retrieves better than SIFT words.",
        loses("sift-bow-euclidean", DEEP),
        (TABLE,),
        {"quick": YES, "real": OPEN},
    ),
    _claim(
        "wasserstein-slowest",
        "Table 1, section 4",
        "The Wasserstein distance takes more time than all other measures.",
        wasserstein_is_slowest,
        (TABLE,),
        rule="time",
    ),
    _claim(
        "gaps-exceed-noise",
        "Table 1",
        "The lead of the Wasserstein distance over KL is larger than the noise of 94 queries (our question; "
        "the paper gives no intervals).",
        printed_gaps_exceed_noise,
        expected=dict.fromkeys(PROFILES, OPEN),
        rule="one",
    ),
    _claim(
        "kl-singular",
        "Section 4",
        "KL goes to infinity where a covariance becomes singular; the Wasserstein distance, without an "
        "inverse, stays finite.",
        kl_diverges_wasserstein_does_not,
        expected=dict.fromkeys(PROFILES, YES),
    ),
    _claim(
        "smt-full-rank",
        "Section 2.2",
        "The sparse matrix transform gives a covariance of full rank, whatever the number of descriptors.",
        smt_has_full_rank,
        expected=dict.fromkeys(PROFILES, YES),
    ),
    _claim(
        "riemannian-invariant",
        "Section 2.2.3",
        "However an image is manipulated (rescaled, normalised, whitened, filtered), its Riemannian distance "
        "from another stays the same.",
        riemannian_is_invariant,
        expected=dict.fromkeys(PROFILES, NO),
    ),
    _claim(
        "stein-invariant",
        "Section 4",
        "Stein's divergence keeps the affine invariance of the Riemannian distance.",
        stein_is_affine_invariant,
        expected=dict.fromkeys(PROFILES, YES),
    ),
    _claim(
        "stein-cheaper",
        "Section 4",
        "Stein's divergence takes less time than the Riemannian distance.",
        stein_is_cheaper,
        (TABLE,),
        rule="time",
    ),
    _claim(
        "wasserstein-robust",
        "Section 4",
        "A conjecture: between close distributions, the Wasserstein distance varies less than KL and "
        "Riemannian distances.",
        wasserstein_varies_less,
        (ROBUSTNESS,),
        {"quick": NO, "real": NO},
    ),
    _claim(
        "layers-better",
        "Section 4",
        "Descriptors of several layers retrieve better than those of the last layer, under any measure.",
        _higher([(f"{name}-all", f"{name}-last") for name in MEASURES], (1,), LAYERS),
        (LAYERS,),
        {"quick": OPEN, "real": NO},
    ),
)

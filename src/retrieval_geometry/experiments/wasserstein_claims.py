"""The checkable claims of [wasserstein-dml], and the verdicts that recorded results are known to get.

A build trains its own models, and another processor rounds otherwise: verdicts on trained models are
registered for recorded runs alone.
"""

from collections.abc import Mapping

import torch

from retrieval_geometry.distances import exact_transport_cost, sinkhorn_divergence
from retrieval_geometry.experiments.learning_methods import TEN_LOSSES
from retrieval_geometry.experiments.wasserstein import SHARES
from retrieval_geometry.reporting.claims import Claim, Finding, Results, Verdict, all_of, from_interval

OMNIGLOT = "400e1a69d742e1711da64368188abf5cd3e340953263ae7c76ccc2b3eff6dc86"
"""Of the archive that the verdicts of profile real were found on."""

BENCH, CORESETS = "learning-bench", "wasserstein-coresets"
YES, NO, OPEN = Verdict.REPRODUCED, Verdict.CONTRADICTED, Verdict.INCONCLUSIVE


def bench_difference(results: Results, first: str, second: str, metric: str) -> Finding:
    """Verdict on "the first loss has a higher metric than the second", over queries and seeds."""
    bench = results[BENCH]
    sign = 1
    differences = bench.extra["differences"]
    if second not in differences.get(first, {}):
        first, second, sign = second, first, -1
    if second not in differences.get(first, {}):
        return Finding(Verdict.NOT_TESTED, f"no run of {second} or {first}")
    value, low, high = (sign * end for end in differences[first][second][metric])
    low, high = min(low, high), max(low, high)
    if sign < 0:
        first, second = second, first
    names = f"{bench[first].label} minus {bench[second].label}"
    return from_interval(low, high, f"{names}: {metric} {value:+.3f} [{low:+.3f}, {high:+.3f}]")


def best_other(results: Results, name: str, metric: str, among: tuple[str, ...]) -> str:
    """Which of the others has the highest metric."""
    bench = results[BENCH]
    others = [other for other in among if other != name and bench.get(other) is not None]
    return max(others, key=lambda other: bench[other].metrics[metric].value)


def w_triplet_is_best(results: Results) -> Finding:
    """Against the best of the other nine, in the two metrics that queries give."""
    ten = tuple(method.name for method in TEN_LOSSES)
    findings = [
        bench_difference(results, "w-triplet", best_other(results, "w-triplet", metric, ten), metric)
        for metric in ("R@1", "AP@R")
    ]
    return all_of(findings)


def w_triplet_is_best_by_transport(results: Results) -> Finding:
    """The same with W-triplet asked by the distance that it was trained with, for some of the queries."""
    ten = tuple(method.name for method in TEN_LOSSES)
    against = results[BENCH].extra["transport"]["w-triplet"]["against"]
    findings = []
    for metric in ("R@1", "AP@R"):
        other = best_other(results, "w-triplet", metric, ten)
        value, low, high = against[other][metric]
        names = f"W-triplet by transport minus {results[BENCH][other].label}"
        findings.append(from_interval(low, high, f"{names}: {metric} {value:+.3f} [{low:+.3f}, {high:+.3f}]"))
    return all_of(findings)


def w_triplet_beats_triplet(results: Results) -> Finding:
    """The same loss on Euclidean distances, with its usual sampling."""
    return bench_difference(results, "w-triplet", "triplet", "R@1")


def transport_takes_more_time(results: Results) -> Finding:
    """Seconds of training of the two Wasserstein losses against the median of the others."""
    bench = results[BENCH]
    seconds = {entry.method: entry.seconds_model or 0.0 for entry in bench.methods}
    others = torch.tensor([s for name, s in seconds.items() if not name.startswith("w-")])
    ratios = [seconds[name] / float(others.median()) for name in ("w-triplet", "w-contrastive")]
    evidence = f"{ratios[0]:.1f} and {ratios[1]:.1f} times the median training time of the other losses"
    return Finding(YES if min(ratios) > 1.2 else NO, evidence)


def coresets_lose_little(results: Results) -> Finding:
    """WCRAIG subsets against random ones of the same size, and against all images for as few steps.

    Both are controls of ours: the paper says that coresets save time, and compares them with nothing.
    """
    differences: Mapping[str, Mapping[str, list[float]]] = results[CORESETS].extra["differences"]
    findings = []
    for share in SHARES:
        for way, words in (("random", "a random subset"), ("all", "all images")):
            value, low, high = differences[f"{way}-{share:g}"]["R@1"]
            text = (
                f"WCRAIG minus {words}, {share:.0%} of the steps: R@1 {value:+.3f} [{low:+.3f}, {high:+.3f}]"
            )
            findings.append(from_interval(low, high, text))
    return all_of(findings)


def sinkhorn_approximates(results: Results) -> Finding:
    """Random unit descriptors: the divergence against exact transport as epsilon falls."""
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.nn.functional.normalize(torch.randn(8, 16, 32, generator=generator, dtype=torch.float64), dim=2)
        for _ in range(2)
    )
    exact = exact_transport_cost(x, y)
    errors = [
        float(((sinkhorn_divergence(x, y, epsilon=e) - exact) / exact).abs().max()) for e in (0.05, 0.005)
    ]
    evidence = f"largest relative error {errors[0]:.3f} at epsilon 0.05, {errors[1]:.4f} at 0.005"
    return Finding(YES if errors[1] < 0.02 and errors[1] < errors[0] else NO, evidence)


def coreset_condition_is_sufficient(results: Results) -> Finding:
    """Lipschitz functions |x - c| of random centres: no mean differs by more than W1."""
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": torch.float64}
    x, y = torch.randn(1, 64, 3, **options), torch.randn(1, 64, 3, **options)  # type: ignore[call-overload]
    centres = 3 * torch.randn(1_000, 3, **options)  # type: ignore[call-overload]
    gaps = (torch.cdist(x[0], centres).mean(dim=0) - torch.cdist(y[0], centres).mean(dim=0)).abs()
    bound = float(exact_transport_cost(x, y))
    evidence = f"largest difference of means of 1,000 functions {float(gaps.max()):.3f}, W1 {bound:.3f}"
    return Finding(YES if float(gaps.max()) <= bound else NO, evidence)


def _always(verdict: Verdict) -> dict[str, Verdict]:
    return dict.fromkeys(("quick", "real", "paper"), verdict)


CLAIMS = (
    Claim(
        "wasserstein-dml-w-triplet-best",
        "wasserstein-dml",
        "Table 1",
        "W-triplet is better in most metrics than all other nine losses (vectors of one length, Euclidean).",
        w_triplet_is_best,
        (BENCH,),
        {"real": NO},
        {"real": OMNIGLOT},
    ),
    Claim(
        "wasserstein-dml-w-triplet-transport",
        "wasserstein-dml",
        "Table 1",
        "The same, if W-triplet compares images by the transport distance that it was trained with.",
        w_triplet_is_best_by_transport,
        (BENCH,),
        {"real": OPEN},
        {"real": OMNIGLOT},
    ),
    Claim(
        "wasserstein-dml-w-triplet-triplet",
        "wasserstein-dml",
        "Table 1",
        "The triplet loss gains by the Wasserstein distance between local features.",
        w_triplet_beats_triplet,
        (BENCH,),
        {"real": NO},
        {"real": OMNIGLOT},
    ),
    Claim(
        "wasserstein-dml-time",
        "wasserstein-dml",
        "Method",
        "Wasserstein losses take much more time than the others.",
        transport_takes_more_time,
        (BENCH,),
        {},
    ),
    Claim(
        "wasserstein-dml-coresets",
        "wasserstein-dml",
        "Method, Algorithm 1",
        "Wasserstein coresets (WCRAIG) bring down the high cost of training with Wasserstein losses.",
        coresets_lose_little,
        (CORESETS,),
        {"real": OPEN},
        {"real": OMNIGLOT},
    ),
    Claim(
        "wasserstein-dml-sinkhorn",
        "wasserstein-dml",
        "Equations 3 and 4",
        "The Sinkhorn divergence, debiased in the p-th power, approximates the Wasserstein distance.",
        sinkhorn_approximates,
        (),
        _always(YES),
    ),
    Claim(
        "wasserstein-dml-proposition",
        "wasserstein-dml",
        "Proposition 1",
        "A Wasserstein distance of at most epsilon is enough for an epsilon-coreset for Lipschitz functions.",
        coreset_condition_is_sufficient,
        (),
        _always(YES),
    ),
)

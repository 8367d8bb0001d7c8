"""The checkable claims of [edms] that need no training, and their verdicts."""

import torch
from torch import Tensor
from torch.nn import functional

from retrieval_geometry.experiments.profiles import PROFILES
from retrieval_geometry.losses import (
    hard_proxies,
    proxy_npair_loss,
    random_meta_classes,
    random_proxies,
    random_walk_similarity,
)
from retrieval_geometry.papers.edms.as_printed import (
    degrees_as_printed,
    gap_bound,
    gap_bound_as_printed,
    proxy_objective,
    random_triplets,
    restarted_walk,
    visits,
    walk_matrix,
)
from retrieval_geometry.papers.edms.printed import SETTINGS, TRAINING_CLASSES
from retrieval_geometry.papers.edms.toys import clustered_directions
from retrieval_geometry.reporting.claims import Claim, Results
from retrieval_geometry.reporting.findings import RULES, Computed, Finding, Verdict, every

YES, NO = Verdict.REPRODUCED, Verdict.CONTRADICTED
BATCH, PROXIES, DIM, ALPHA = (SETTINGS[name] for name in ("batch", "proxies", "dim", "alpha"))
POINTS = int(BATCH + PROXIES)
DRAWS = 5
"""How many draws of points a sentence about random points is tried on."""


def _directions(n: int, dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(n, dim, generator=generator, dtype=torch.float64), dim=1)


def _steps_to_converge(walk: Tensor, limit: Tensor, error: float) -> tuple[int, float]:
    """Steps of the walk until no entry is farther from the limit, and how far it is then."""
    restart = (1 - ALPHA) * torch.eye(len(walk), dtype=walk.dtype)
    found = restart
    for step in range(1, 1000):
        found = ALPHA * walk @ found + restart
        gap = float((found - limit).abs().max())
        if gap < error:
            return step, gap
    raise AssertionError("the walk does not converge")


def closed_form_is_the_limit(results: Results) -> Finding:
    """On random directions and on clusters."""
    parts = []
    for name, points in (
        ("random directions", _directions(60, 16)),
        ("clusters", clustered_directions(6, 10, 16)[0]),
    ):
        found = random_walk_similarity(points, ALPHA)
        steps, gap = _steps_to_converge(walk_matrix(points), found, 1e-10)
        parts.append(Computed(gap < 1e-10, f"{name}: {gap:.0e} apart after {steps} steps"))
    return every(parts)


def closed_form_is_cheaper(results: Results) -> Finding:
    """Multiplications for the columns of the proxies, to the rounding of single precision."""
    points = clustered_directions(20, 9, int(DIM))[0][:POINTS]
    steps, _ = _steps_to_converge(walk_matrix(points), random_walk_similarity(points, ALPHA), 1e-7)
    walked = steps * POINTS**2 * int(PROXIES)
    inverted = POINTS**3 + POINTS**2 * int(PROXIES)
    evidence = (
        f"{inverted / 1e6:.0f} million multiplications by an inverse, {walked / 1e6:.0f} million by the "
        f"{steps} steps that come within 1e-7"
    )
    return every([Computed(inverted < walked, evidence)])


def alpha_restarts(results: Results) -> Finding:
    """Where a walk on a ring is found in the long run."""
    ring = torch.zeros(6, 6, dtype=torch.float64)
    for i in range(6):
        ring[i, (i + 1) % 6] = ring[i, (i - 1) % 6] = 0.5
    closed = visits(ring, 1 - ALPHA)[0]  # eq. 9
    as_said, other = (
        float((restarted_walk(ring, restart) - closed).abs().max()) for restart in (ALPHA, 1 - ALPHA)
    )
    evidence = (
        f"on a ring of six points eq. 9 with alpha {ALPHA:g} is {as_said:.2f} away from a walk that restarts "
        f"with probability {ALPHA:g}, and {other:.0e} from one that does with {1 - ALPHA:.1f}"
    )
    return every([Computed(as_said < 1e-6, evidence)])


def degrees_have_roots(results: Results) -> Finding:
    """Random directions, as many and as long as in the paper."""
    degrees = torch.cat([degrees_as_printed(_directions(POINTS, int(DIM), seed)) for seed in range(DRAWS)])
    share = float((degrees <= 0).double().mean())
    evidence = f"{100 * share:.0f} % of the degrees of {POINTS} random directions are not positive"
    return every([Computed(share == 0, evidence)])


def losses_within_two_epsilon(results: Results) -> Finding:
    """Random triplets whose images lie near their proxies."""
    drawn = random_triplets(20_000, reach=0.3)
    beyond = int((drawn.gap > gap_bound_as_printed(drawn.epsilon)).sum())
    corrected = int((drawn.gap > gap_bound(drawn.epsilon)).sum())
    evidence = f"{beyond:,} of 20,000 triplets are beyond 2 eps, {corrected} beyond 2 sqrt(2 eps)"
    return every([Computed(beyond == 0, evidence)])


def expected_loss_is_bounded(results: Results) -> Finding:
    """Triplets, each a data set of its own, for which the probability of eq. 6 is zero."""
    drawn = random_triplets(20_000, reach=0.3)
    certain = drawn.lead.abs() > 2 * drawn.epsilon
    above = drawn.image_loss > drawn.proxy_loss
    share = float(above[certain].double().mean())
    evidence = (
        f"of {int(certain.sum()):,} triplets whose proxies differ by more than 2 eps, where eq. 6 adds "
        f"nothing, {100 * share:.0f} % have a larger N-pair loss than proxy loss"
    )
    return every([Computed(share == 0, evidence)])


def hard_proxy_exists(results: Results) -> Finding:
    """The initial proxy, made longer and longer."""
    images, initial = _directions(30, 4), _directions(1, 4, seed=7)[0]
    lengths = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    values = proxy_objective(lengths.unsqueeze(1) * initial, images, initial).tolist()
    evidence = "eq. 7 at the initial proxy times 1, 10, 100: " + ", ".join(f"{value:.2g}" for value in values)
    return every([Computed(not values[0] > values[1] > values[2], evidence)])


def _hardened(common: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, meta-classes, random proxies, and the hard ones where their descent ends."""
    x, labels = clustered_directions(20, 20, 16, common=common, seed=seed)
    meta = random_meta_classes(labels, 10, seed)
    initial = x[random_proxies(meta, 10, seed)]
    return x, meta, initial, hard_proxies(x, meta, initial, steps=200, lr=0.1)


def hard_proxies_are_difficult(results: Results) -> Finding:
    """The proxy loss at hard proxies, against that at the random ones they begin with."""
    parts = []
    for common in (0.0, 1.0):
        for seed in range(DRAWS):
            x, meta, *both = _hardened(common, seed)
            before, after = (float(proxy_npair_loss(x, meta, proxies)) for proxies in both)
            evidence = f"draw {seed}, common part {common:g}: loss {before:.3f} before, {after:.3f} after"
            parts.append(Computed(after > before, evidence))
    return every(parts)


def mean_cosine(proxies: Tensor) -> float:
    """Of two different proxies."""
    table = proxies @ proxies.mT
    return float((table.sum() - table.trace()) / (table.numel() - len(table)))


def hard_proxies_are_close(results: Results) -> Finding:
    """The mean cosine of two proxies, where all images share a direction, as those of networks do."""
    parts = []
    for seed in range(DRAWS):
        *_, initial, hard = _hardened(1.0, seed)
        before, after = mean_cosine(initial), mean_cosine(hard)
        evidence = f"draw {seed}: mean cosine of two proxies {before:.2f} before, {after:.2f} after"
        parts.append(Computed(after > before, evidence))
    return every(parts)


def proxies_are_few(results: Results) -> Finding:
    """50 proxies against the training classes of the three data sets."""
    shares = {name: PROXIES / classes for name, classes in TRAINING_CLASSES.items()}
    evidence = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
    return every([Computed(max(shares.values()) < 0.2, f"K over the number of classes: {evidence}")])


def ensemble_is_a_concatenation(results: Results) -> Finding:
    """Eq. 1 with equal weights, on random embeddings."""
    members = [_directions(40, 8, seed) for seed in range(5)]
    joined = torch.cat(members, dim=1)
    gap = float((joined @ joined.mT - torch.stack([x @ x.mT for x in members]).sum(0)).abs().max())
    return every([Computed(gap < 1e-12, f"{gap:.0e} apart")])


def epoch_is_quadratic(results: Results) -> Finding:
    """Multiplications of the inverses of an epoch, with batches of two images for each proxy."""
    images = 5_864

    def cost(n_proxies: int) -> float:
        batch = 2 * n_proxies
        return images / batch * (batch + n_proxies) ** 3

    ratios = [cost(2 * k) / cost(k) for k in (25, 50, 100)]
    evidence = f"twice as many proxies, and images in a batch, cost {ratios[0]:.1f} times as much"
    return every([Computed(all(abs(ratio - 4) < 1e-9 for ratio in ratios), evidence)])


CLAIMS = (
    Claim(
        "edms-closed-form",
        "edms",
        "Section 5, eq. 9",
        "The closed form is what the random walk converges to.",
        RULES["computed"],
        closed_form_is_the_limit,
        (),
        dict.fromkeys(PROFILES, YES),
    ),
    Claim(
        "edms-closed-form-cheap",
        "edms",
        "Sections 1 and 5",
        "On a batch and its proxies the closed form takes less than the iterations of the walk.",
        RULES["computed"],
        closed_form_is_cheaper,
        (),
        dict.fromkeys(PROFILES, YES),
    ),
    Claim(
        "edms-restart",
        "edms",
        "Section 5, below eq. 9",
        "Alpha is the probability that the walk restarts.",
        RULES["computed"],
        alpha_restarts,
        (),
        dict.fromkeys(PROFILES, NO),
    ),
    Claim(
        "edms-degrees",
        "edms",
        "Section 5",
        "A matrix of dot products can be normalised by the roots of its degrees.",
        RULES["computed"],
        degrees_have_roots,
        (),
        dict.fromkeys(PROFILES, NO),
    ),
    Claim(
        "edms-two-epsilon",
        "edms",
        "Section 4.1, eq. 5",
        "The N-pair loss and the proxy loss of a triplet differ by 2 eps at most.",
        RULES["computed"],
        losses_within_two_epsilon,
        (),
        dict.fromkeys(PROFILES, NO),
    ),
    Claim(
        "edms-expected-bound",
        "edms",
        "Section 4.1, eq. 6",
        "The mean N-pair loss is at most the mean proxy loss plus a probability.",
        RULES["computed"],
        expected_loss_is_bounded,
        (),
        dict.fromkeys(PROFILES, NO),
    ),
    Claim(
        "edms-hard-exists",
        "edms",
        "Section 4.2, eq. 7",
        "Among all vectors there is a hard proxy, which minimises eq. 7.",
        RULES["computed"],
        hard_proxy_exists,
        (),
        dict.fromkeys(PROFILES, NO),
    ),
    Claim(
        "edms-hard-loss",
        "edms",
        "Section 4.2",
        "Hard proxies make the proxy loss more difficult.",
        RULES["computed"],
        hard_proxies_are_difficult,
        (),
        dict.fromkeys(PROFILES, YES),
    ),
    Claim(
        "edms-hard-close",
        "edms",
        "Section 4.2",
        "Hard proxies become close to each other.",
        RULES["computed"],
        hard_proxies_are_close,
        (),
        dict.fromkeys(PROFILES, NO),
    ),
    Claim(
        "edms-few-proxies",
        "edms",
        "Sections 4.1 and 8",
        "There are far fewer proxies than classes, such as a tenth.",
        RULES["computed"] + " Far fewer: 50 are less than a fifth of the classes of each set.",
        proxies_are_few,
        (),
        dict.fromkeys(PROFILES, NO),
    ),
    Claim(
        "edms-complexity",
        "edms",
        "Section 7",
        "With K = N / 2 the inverses of an epoch cost M K^2.",
        RULES["computed"],
        epoch_is_quadratic,
        (),
        dict.fromkeys(PROFILES, YES),
    ),
    Claim(
        "edms-concatenation",
        "edms",
        "Section 3, eq. 1",
        "With equal weights the similarity of the ensemble is the dot product of the members' embeddings "
        "joined end to end.",
        RULES["computed"],
        ensemble_is_a_concatenation,
        (),
        dict.fromkeys(PROFILES, YES),
    ),
)

"""Errata of [wasserstein-dml] and [rankmi]: the printed form fails, the corrected one holds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from retrieval_geometry.coresets import craig, facility_location
from retrieval_geometry.distances import pairwise_sinkhorn_divergence, sinkhorn_divergence
from retrieval_geometry.losses import RankMILoss, estimate_divergence
from retrieval_geometry.losses.special_cases import (
    fixed_statistic,
    quadruplet_as_rankmi,
    quadruplet_loss,
    triplet_loss,
)
from retrieval_geometry.losses.statistics_network import divergence_bound
from retrieval_geometry.papers.rankmi.as_printed import (
    distances_as_printed,
    jensen_shannon,
    negative_pair_distribution,
    negative_pair_distribution_as_printed,
    optimal_bound,
    pair_losses,
    pair_losses_as_printed,
)
from retrieval_geometry.papers.wasserstein_dml.as_printed import (
    similarity_as_printed,
    sinkhorn_divergence_as_printed,
    wcraig_as_printed,
)
from retrieval_geometry.papers.wasserstein_dml.printed import METRICS, TABLE1
from tests.losses.common import LABELS, batch, gradient_agrees


def test_debiasing_roots_gives_another_number() -> None:
    """2.1: a translation by t is at W_2 = t, whatever epsilon; the printed form misses that by far."""
    x = batch(1, 6, 2)
    y = x + torch.tensor([1.0, 0.5])
    true = math.sqrt(1.25)
    corrected = float(sinkhorn_divergence(x, y, p=2, epsilon=1.0).sqrt())
    printed = float(sinkhorn_divergence_as_printed(x, y, 2, 1.0))
    assert corrected == pytest.approx(true, rel=1e-6)
    assert printed < 0.6 * true
    torch.testing.assert_close(
        sinkhorn_divergence_as_printed(x, y, 1, 1.0), sinkhorn_divergence(x, y, epsilon=1.0)
    )


def test_the_printed_similarity_makes_all_subsets_equal() -> None:
    """2.2."""
    x = batch(6, 3, 2)
    divergences = pairwise_sinkhorn_divergence(x, x)
    printed = similarity_as_printed(divergences)
    assert printed.diagonal().isinf().all()
    values = {float(printed[:, list(s)].amax(dim=1).sum()) for s in itertools.combinations(range(6), 2)}
    assert values == {math.inf}
    with pytest.raises(ValueError, match="NaN or infinite"):
        facility_location(printed, 2)
    corrected = {
        float(divergences[:, list(s)].amin(dim=1).sum()) for s in itertools.combinations(range(6), 2)
    }
    assert len(corrected) > 10
    chosen = craig(divergences, 2).indices
    assert float(divergences[:, chosen].amin(dim=1).sum()) < sorted(corrected)[5]


def test_the_printed_algorithm_returns_what_it_does_not_move() -> None:
    """2.3."""
    x = batch(10, 2)
    runs = [wcraig_as_printed(x, 3, gamma, 10, torch.Generator().manual_seed(0)) for gamma in (1e-9, 1.0)]
    assert torch.equal(runs[0][0], runs[1][0])
    assert len(runs[0][0]) == 1  # no loop: one element, whatever n
    assert not torch.allclose(runs[0][1], runs[1][1], atol=1e-3)


def test_two_rows_of_different_data_sets_agree_in_three_numbers() -> None:
    """2.4, a suspicion: no other two rows of the paper's Table 1 share more than one."""
    rows = {(data, name): row for data, group in TABLE1.items() for name, row in group.items()}
    shared = {
        (a, b): [metric for metric in METRICS if rows[a][metric] == rows[b][metric]]
        for a, b in itertools.combinations(rows, 2)
    }
    most = max(shared, key=lambda pair: len(shared[pair]))
    assert {name for _, name in most} == {"triplet", "w-contrastive"}
    assert most[0][0] != most[1][0]
    assert shared.pop(most) == ["R@1", "R@4", "F1"]
    assert max(map(len, shared.values())) == 1


def test_the_printed_distribution_of_negatives_forgets_one_image() -> None:
    """3.1: corrected it tends to the product of marginals with many classes."""
    errors = []
    for n_classes in (4, 40):
        conditional = batch(n_classes, 5).softmax(dim=1)
        prior = torch.full((n_classes,), 1 / n_classes, dtype=torch.float64)
        marginal = prior @ conditional
        corrected = negative_pair_distribution(conditional, prior)
        assert float(corrected.sum()) == pytest.approx(1 - 1 / n_classes)
        torch.testing.assert_close(corrected, corrected.T)
        errors.append(float((corrected - torch.outer(marginal, marginal)).abs().sum()))
        loops = sum(
            torch.outer(conditional[k], conditional[m]) * prior[k] * prior[m]
            for k, m in itertools.permutations(range(n_classes), 2)
        )
        torch.testing.assert_close(corrected, loops)
        printed = negative_pair_distribution_as_printed(conditional, prior)
        assert (printed == printed[:, :1]).all()  # x_j does not occur
        assert abs(float(printed.sum()) - 1) > 0.05
    assert errors[1] < 0.2 * errors[0]


def test_the_optimum_is_twice_the_divergence() -> None:
    """3.2: the factor 2 that eq. 2 lacks; f-GAN's generator of the divergence has it too."""
    p, q = batch(2, 9).softmax(dim=1)
    divergence = float(jensen_shannon(p, q))
    assert float(optimal_bound(p, q)) == pytest.approx(2 * divergence, rel=1e-12)
    assert divergence < float(optimal_bound(p, q))
    best = (p.log() - q.log()).requires_grad_(True)
    (p * torch.nn.functional.softplus(-best) + q * torch.nn.functional.softplus(best)).sum().backward()
    torch.testing.assert_close(best.grad, torch.zeros_like(p))  # no other V does better
    apart = jensen_shannon(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    assert float(apart) == pytest.approx(math.log(2))
    u = p / q
    generator = u * u.log() - (u + 1) * ((u + 1) / 2).log()
    assert float((q * generator).sum()) == pytest.approx(2 * divergence, rel=1e-12)
    softplus = torch.nn.functional.softplus
    v = u.log()  # without the log 2 of eq. 3 the constant is -log 4
    plain = -(p * softplus(-v) + q * softplus(v)).sum()
    assert float(plain) == pytest.approx(2 * divergence - math.log(4), rel=1e-12)


def supremum_of_lines(p: Tensor, q: Tensor, x: Tensor) -> float:
    """Supremum of the braces of eq. 2 over V(x) = a + b x, by quadrature and a search without derivatives."""

    def minus(ab: np.ndarray) -> float:
        v = ab[0] + ab[1] * x
        t = math.log(2) - torch.log1p(torch.exp(-v))
        return -float(torch.trapezoid(p * t + q * torch.log(2 - torch.exp(t)), x))

    return -minimize(minus, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10}).fun


@pytest.mark.parametrize(
    ("shift", "deviation", "rich"), [(1.0, 1.0, True), (1.5, 0.6, False), (0.0, 0.5, False)]
)
def test_the_supremum_over_a_family_is_a_lower_bound_of_twice_the_divergence(
    shift: float, deviation: float, rich: bool
) -> None:
    """3.2: ">=" is right as printed; equality needs a family with the log-ratio, here equal widths."""
    x = torch.linspace(-8, 9, 4_001, dtype=torch.float64)
    p, q = (
        torch.exp(-(((x - m) / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi))
        for m, s in ((0.0, 1.0), (shift, deviation))
    )
    middle = (p + q) / 2
    twice = float(torch.trapezoid(torch.xlogy(p, p / middle) + torch.xlogy(q, q / middle), x))
    found = supremum_of_lines(p, q, x)
    assert found <= twice + 1e-9
    assert (found > twice - 1e-6) == rich
    if shift:
        assert found > twice / 2 + 0.01  # as printed: above what it is said to bound


def test_twice_the_divergence_is_a_lower_bound_of_the_information() -> None:
    """3.2, fairly: the estimate is a lower bound of mutual information, as the paper says."""
    joint = batch(4, 5).flatten().softmax(0).reshape(4, 5)
    product = torch.outer(joint.sum(1), joint.sum(0))
    middle = (joint + product) / 2
    information = float((joint * (joint / product).log()).sum())
    gap = 2 * float((middle * (middle / product).log()).sum())
    twice = float(optimal_bound(joint.flatten(), product.flatten()))
    assert information - gap == pytest.approx(twice, rel=1e-10)
    assert 0 < twice < information
    prior = torch.tensor([0.5, 0.5], dtype=torch.float64)  # negatives of a batch, two classes: not M
    apart = torch.eye(2, dtype=torch.float64)
    negatives = negative_pair_distribution(apart, prior) * 2
    value = 2 * jensen_shannon((apart / 2).flatten(), negatives.flatten())
    assert float(value) == pytest.approx(2 * math.log(2))  # where the information is log 2


def test_without_minus_signs_descent_goes_the_wrong_way() -> None:
    """3.3: a loss of matches must rise with the distance, one of others fall."""
    for losses, sign in ((pair_losses, 1), (pair_losses_as_printed, -1)):
        d = torch.linspace(0.1, 1.9, 10, dtype=torch.float64, requires_grad=True)
        for loss, direction in zip(losses(1.0 - d), (1, -1), strict=True):
            (slope,) = torch.autograd.grad(loss.sum(), d, retain_graph=True)
            assert (slope.sign() == sign * direction).all()


def test_the_fixed_statistic_has_two_zeros_a_jump_and_a_hole() -> None:
    """3.4."""
    x = torch.tensor([-math.log(2), math.log(2), -1e-3, 1e-3, 0.0], dtype=torch.float64)
    v = fixed_statistic(x)
    torch.testing.assert_close(v[:2], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)
    assert v[2] < -6 < 6 < v[3]  # it rises through 0, where eq. 9 wants it to fall
    assert v[4].isnan()
    printed = torch.tensor([math.log(math.exp(1.5) - 1), -math.log(math.exp(1.5) - 1)], dtype=torch.float64)
    torch.testing.assert_close(fixed_statistic(torch.tensor([-1.5, 1.5], dtype=torch.float64)), printed)


def test_rankmi_is_the_quadruplet_loss_on_margin_violators_only() -> None:
    """3.4 and section 3.4."""
    positive, negative = 1 + torch.rand(7).double(), torch.rand(9).double()
    torch.testing.assert_close(
        quadruplet_as_rankmi(positive, negative, 1.0), quadruplet_loss(positive, negative, 0.0)
    )
    easy = torch.cat([positive, torch.tensor([0.5]).double()])
    with pytest.raises(ValueError, match="beyond beta=1"):
        quadruplet_as_rankmi(easy, negative, 1.0)
    value = divergence_bound(fixed_statistic(easy - 1), fixed_statistic(negative - 1))
    assert abs(float(2 * math.log(2) - value - quadruplet_loss(easy, negative, 0.0))) > 0.02


def test_triplets_are_quadruplets_of_one_anchor() -> None:
    d = batch(8, 8).abs()
    loops = 0.0
    for i in range(8):
        terms = [
            max(0.0, float(d[i, j] - d[i, k]) + 0.3)
            for j in range(8)
            for k in range(8)
            if j != i and LABELS[j] == LABELS[i] != LABELS[k]
        ]
        loops += sum(terms) / len(terms)
    assert float(triplet_loss(d, LABELS, 0.3)) == pytest.approx(loops)
    same = LABELS.unsqueeze(1) == LABELS
    violators = torch.where(same, 1 + torch.rand(8, 8), torch.rand(8, 8)).double()
    rankmi = sum(
        quadruplet_as_rankmi(violators[i][same[i] & (torch.arange(8) != i)], violators[i][~same[i]], 1.0)
        for i in range(8)
    )
    torch.testing.assert_close(rankmi, triplet_loss(violators, LABELS, 0.0))
    assert gradient_agrees(lambda t: triplet_loss(t, LABELS, 0.3), d)
    assert float(triplet_loss(d, torch.zeros(8).long(), 0.3)) == 0


def test_the_printed_algorithm_counts_an_image_as_its_own_match() -> None:
    """3.5, the listing: zeros among the matches flatter the estimate, and the gradient of a root is NaN."""
    x = batch(8, 6).requires_grad_(True)
    positive, negative = distances_as_printed(x, LABELS)
    assert int((positive == 0).sum()) == 8
    (gradient,) = torch.autograd.grad(positive.sum(), x, retain_graph=True)
    assert gradient.isnan().all()
    with_diagonal = divergence_bound(3 - positive, 3 - negative)
    without = divergence_bound(3 - positive[positive > 0], 3 - negative)
    assert float((with_diagonal - without).detach()) > 0.05


def test_the_diagonal_pretends_a_divergence_where_there_is_none() -> None:
    """3.5: a share s of zeros among distances of one density is worth what the formula of chapter 13 says."""
    s = 0.25  # four images of each class
    x = torch.rand(3_000, generator=torch.Generator().manual_seed(0)).double() + 0.5
    atom, rest = torch.tensor([s, 0.0]), torch.tensor([1 - s, 1.0])
    masses = torch.stack([atom, rest], dim=1).double()
    exact = s * math.log(2) + (1 - s) * math.log(2 * (1 - s) / (2 - s)) + math.log(2 / (2 - s))
    assert 2 * float(jensen_shannon(masses[0], masses[1])) == pytest.approx(exact)
    matches = torch.cat([x, torch.zeros(1_000)])[
        torch.randperm(4_000, generator=torch.Generator().manual_seed(1))
    ]
    assert estimate_divergence(x, x.flip(0), steps=100).value == pytest.approx(0, abs=0.02)
    assert estimate_divergence(matches, x, steps=250).value == pytest.approx(exact, abs=0.06)


def test_rankmi_leaves_the_diagonal_out() -> None:
    """3.5 corrected, as section 3.2 of the paper has it."""
    x = batch(8, 6).requires_grad_(True)
    objective = RankMILoss(margin=math.inf, sampling="all")
    objective.inner_step(x, LABELS)
    loss = objective(x, LABELS)
    z = torch.nn.functional.normalize(x)
    distances, same = torch.cdist(z, z), LABELS.unsqueeze(1) == LABELS
    value = objective.statistics(distances)
    diagonal = torch.eye(8, dtype=torch.bool)
    torch.testing.assert_close(loss, -divergence_bound(value[same & ~diagonal], value[~same]))
    assert abs(float((loss + divergence_bound(value[same], value[~same])).detach())) > 0.01
    (gradient,) = torch.autograd.grad(loss, x)
    assert gradient.isfinite().all()


def test_the_embedding_may_take_the_first_step() -> None:
    """3.5, fairly: by eq. 10 a fresh V is about -x, so matching pairs are pulled and others pushed."""
    for seed in range(20):
        objective = RankMILoss(margin=math.inf, sampling="all", seed=seed)
        d = torch.linspace(0.02, 2, 100, dtype=torch.float64, requires_grad=True)
        v = objective.statistics(d)
        assert float((v + d).abs().max().detach()) < 0.5
        losses = pair_losses(v)
        pull, push = (torch.autograd.grad(loss.sum(), d, retain_graph=True)[0] for loss in losses)
        assert (pull > 0).all()
        assert (push < 0).all()
        for loss, x in zip(losses, (d, -d), strict=True):  # the soft hinge log(1 + e^x) - log 2
            hinge = torch.nn.functional.softplus(x) - math.log(2)
            torch.testing.assert_close(loss, hinge, rtol=0, atol=0.4)

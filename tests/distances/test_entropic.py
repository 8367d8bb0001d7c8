"""The solver of entropic transport: its plan, its two domains, its limits, what it does when it fails."""

from __future__ import annotations

import math
import warnings

import numpy as np
import ot
import pytest
import torch

from retrieval_geometry.distances import (
    _entropic,
    exact_transport_cost,
    pairwise_sinkhorn_divergence,
    sinkhorn_divergence,
)
from retrieval_geometry.distances._entropic import optimal_potentials
from tests.distances.common import measures, normal, source

TIGHT = 1e-9


def problem(
    seed: int = 0, n_sets: int = 3, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Costs ``(B, 5, 6)`` and masses."""
    (x, a), (y, b) = measures(n_sets, 5, 2, seed), measures(n_sets, 6, 2, seed + 1)
    return scale * torch.cdist(x, y), a, b


def entropic(cost: torch.Tensor, a: torch.Tensor, b: torch.Tensor, epsilon: float) -> torch.Tensor:
    """The dual value."""
    f, g, _ = optimal_potentials(cost, a, b, epsilon, TIGHT)
    return (a * f).sum(dim=1) + (b * g).sum(dim=1)


def optimal_plan(cost: torch.Tensor, a: torch.Tensor, b: torch.Tensor, epsilon: float) -> torch.Tensor:
    return a.unsqueeze(2) * optimal_potentials(cost, a, b, epsilon, TIGHT)[2]


@pytest.mark.parametrize("epsilon", [1e-3, 0.05, 1.0, 100.0])
def test_the_plan_has_these_marginals(epsilon: float) -> None:
    """It is the only one of its form that has."""
    cost, a, b = problem()
    plan = optimal_plan(cost, a, b, epsilon)
    assert (plan >= 0).all()
    torch.testing.assert_close(plan.sum(dim=2), a, rtol=0, atol=1e-8)
    torch.testing.assert_close(plan.sum(dim=1), b, rtol=0, atol=1e-8)


@pytest.mark.parametrize("epsilon", [0.05, 1.0])
def test_primal_and_dual_have_one_value(epsilon: float) -> None:
    """Strong duality: <P, C> + eps KL(P || ab') of the returned plan is the returned value."""
    cost, a, b = problem(3)
    value, plan = entropic(cost, a, b, epsilon), optimal_plan(cost, a, b, epsilon)
    product = a.unsqueeze(2) * b.unsqueeze(1)
    kl = torch.xlogy(plan, plan / product).sum(dim=(1, 2))
    torch.testing.assert_close((plan * cost).sum(dim=(1, 2)) + epsilon * kl, value, rtol=1e-8, atol=0)


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1.0])
def test_between_exact_transport_and_its_entropy(epsilon: float) -> None:
    """OT <= OT_eps <= OT + eps min(H(a), H(b)), because KL(P || ab') is at most either entropy."""
    cost, a, b = problem(5)
    exact = torch.tensor([ot.emd2(*(t.numpy() for t in parts)) for parts in zip(a, b, cost, strict=True)])
    entropy = torch.minimum(*(-torch.xlogy(m, m).sum(dim=1) for m in (a, b)))
    value = entropic(cost, a, b, epsilon)
    assert (exact - 1e-9 <= value).all()
    assert (value <= exact + epsilon * entropy + 1e-9).all()


def test_the_value_grows_with_epsilon_from_exact_to_product() -> None:
    """KL is not negative, so the minimum grows with its weight, and ends at the cost of the product plan."""
    cost, a, b = problem(7)
    values = torch.stack([entropic(cost, a, b, epsilon) for epsilon in (0.001, 0.01, 0.1, 1.0, 10.0, 1e4)])
    assert (values.diff(dim=0) >= -1e-9).all()
    product = torch.einsum("bi,bij,bj->b", a, cost, b)
    torch.testing.assert_close(values[-1], product, rtol=1e-3, atol=0)


WAYS = {"compiled": (300.0, 60.0), "scaling": (-1.0, 60.0), "logarithmic": (-1.0, 0.0)}
"""Each way to a plan: the ranges of the compiled loops and of scaling in float32 that lead there."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Take this way, whatever the costs."""
    compiled, scaling = WAYS[request.param]
    monkeypatch.setattr(_entropic, "COMPILED_RANGE", compiled)
    monkeypatch.setattr(_entropic, "SCALING_RANGE", scaling)
    return str(request.param)


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_every_way_leads_to_one_value_and_plan(epsilon: float, way: str) -> None:
    cost, a, b = problem(9)
    cost, a, b = cost[:1], a[:1], b[:1]
    arrays = a[0].numpy(), b[0].numpy(), cost[0].numpy()
    plan = ot.bregman.sinkhorn_log(*arrays, reg=epsilon, numItermax=100_000, stopThr=1e-14)
    torch.testing.assert_close(optimal_plan(cost, a, b, epsilon)[0], torch.tensor(plan), rtol=1e-6, atol=1e-8)


def test_every_way_of_a_measure_to_itself(way: str) -> None:
    x, a = measures(3, 6, 2, 10)
    cost = torch.cdist(x, x)
    f, g, plan = optimal_potentials(cost, a, a, 0.1, TIGHT, symmetric=True)
    columns = (a.unsqueeze(2) * plan).sum(dim=1)
    torch.testing.assert_close(columns, a, rtol=0, atol=1e-8)
    plain = optimal_potentials(cost, a, a, 0.1, TIGHT)
    for mine, other in zip((f + g, plan), (plain[0] + plain[1], plain[2]), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("p", [1, 2])
def test_all_ways_give_one_divergence(p: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (x, a), (y, b) = measures(2, 5, 2, 11), measures(2, 4, 2, 12)
    values = []
    for compiled, scaling in WAYS.values():
        monkeypatch.setattr(_entropic, "COMPILED_RANGE", compiled)
        monkeypatch.setattr(_entropic, "SCALING_RANGE", 1e9 if scaling else 0.0)
        values.append(sinkhorn_divergence(x, y, a, b, p=p, epsilon=0.2))
    for value in values[1:]:
        torch.testing.assert_close(value, values[0], rtol=1e-7, atol=0)


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_huge_costs_neither_overflow_nor_vanish(scale: float) -> None:
    """exp(-C / eps) is 0 in every entry here; what is left is exact transport."""
    cost, a, b = problem(13, scale=scale)
    assert float((-cost / 0.05).exp().max()) < 1e-40 or scale < 1e5
    exact = [ot.emd2(*(t.numpy() for t in parts)) for parts in zip(a, b, cost, strict=True)]
    found = entropic(cost, a, b, 0.05)
    torch.testing.assert_close(found, torch.tensor(exact).double(), rtol=1e-3, atol=0)


def test_costs_of_any_offset() -> None:
    """A constant added to all costs is added to the value, even one of 1e5 epsilons."""
    cost, a, b = problem(15)
    moved = entropic(cost + 1e4, a, b, 0.1)
    torch.testing.assert_close(moved - 1e4, entropic(cost, a, b, 0.1), rtol=0, atol=1e-6)


def test_easy_and_hard_problems_in_one_batch() -> None:
    """The scales of the others decide the domain, not the value."""
    cost, a, b = problem(17)
    mixed = cost * torch.tensor([1e-3, 1.0, 1e3]).double().view(3, 1, 1)
    alone = torch.cat([entropic(mixed[i : i + 1], a[i : i + 1], b[i : i + 1], 0.1) for i in range(3)])
    torch.testing.assert_close(entropic(mixed, a, b, 0.1), alone, rtol=1e-7, atol=1e-10)


def test_one_point_leaves_no_choice() -> None:
    """From a single point only one plan leads away: the mean cost, whatever epsilon."""
    cost, _, b = problem(19)
    one = torch.ones(3, 1, dtype=torch.float64)
    for epsilon in (1e-3, 10.0):
        found = entropic(cost[:, :1], one, b, epsilon)
        torch.testing.assert_close(found, (cost[:, 0] * b).sum(dim=1), rtol=1e-9, atol=0)
    x, y = torch.zeros(1, 1, 2).double(), torch.tensor([[[3.0, 4.0]]]).double()
    assert float(sinkhorn_divergence(x, y)) == pytest.approx(5)
    assert float(sinkhorn_divergence(x, y, p=2)) == pytest.approx(25)


def test_the_potentials_of_massless_points_are_the_half_steps() -> None:
    """Without mass a point has no constraint; its potential is what the gradient for its mass needs."""
    cost, a, _ = problem(21)
    b = torch.tensor([0.3, 0.0, 0.2, 0.1, 0.4, 0.0]).double().expand(3, -1)
    f, g, _ = optimal_potentials(cost, a, b, 0.5, TIGHT)
    inner = ((f.unsqueeze(2) - cost) / 0.5).exp() * a.unsqueeze(2)
    torch.testing.assert_close(g, -0.5 * inner.sum(dim=1).log(), rtol=0, atol=1e-6)


def test_too_few_steps_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a wrong number without a word."""
    monkeypatch.setattr(_entropic, "COMPILED_RANGE", -1.0)
    cost, a, b = problem(23)
    right = entropic(cost, a, b, 0.1)
    monkeypatch.setattr(_entropic, "NEWTON_STEPS", 0)
    monkeypatch.setattr(_entropic, "SCALING_STEPS", 1)
    with pytest.warns(RuntimeWarning, match=r"3 of 3 entropic transport plans .*epsilon=0\.1; raise epsilon"):
        wrong = entropic(cost, a, b, 0.1)
    assert (wrong < right - 1e-6).all()  # the dual, not yet at its maximum


@pytest.mark.parametrize("p", [1, 2])
def test_convergence_is_silent_over_six_orders_of_epsilon(p: int) -> None:
    (x, a), (y, b) = measures(4, 6, 2, 25), measures(4, 7, 2, 26)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for epsilon in (1e-3, 1e-1, 1e1, 1e3):
            assert sinkhorn_divergence(x, y, a, b, p=p, epsilon=epsilon).isfinite().all()


def test_erratum_the_other_entropy_is_another_cost_but_the_same_divergence() -> None:
    """sum P log P (POT's plain Sinkhorn, ot.batch) against KL to the product: masses' entropies cancel."""
    (x, a), (y, b) = measures(1, 5, 2, 27), measures(1, 6, 2, 28)
    epsilon = 0.5

    def with_entropy(u: torch.Tensor, v: torch.Tensor, m: torch.Tensor, n: torch.Tensor) -> float:
        cost = torch.cdist(u, v)[0].numpy()
        plan = ot.sinkhorn(m[0].numpy(), n[0].numpy(), cost, reg=epsilon, numItermax=20_000, stopThr=1e-13)
        return float((plan * cost).sum() + epsilon * (plan * np.log(plan)).sum())

    parts = [with_entropy(x, y, a, b), with_entropy(x, x, a, a), with_entropy(y, y, b, b)]
    kl = float(entropic(torch.cdist(x, y), a, b, epsilon))
    entropies = sum(float(torch.xlogy(m, m).sum()) for m in (a, b))
    assert parts[0] == pytest.approx(kl + epsilon * entropies, rel=1e-7)
    assert abs(parts[0] - kl) > 0.5
    debiased = parts[0] - (parts[1] + parts[2]) / 2
    assert float(sinkhorn_divergence(x, y, a, b, epsilon=epsilon)) == pytest.approx(debiased, rel=1e-6)


def test_agrees_with_pots_log_domain_at_small_epsilon() -> None:
    cost, a, b = problem(29, n_sets=1)
    epsilon = 0.05
    arrays = a[0].numpy(), b[0].numpy(), cost[0].numpy()
    plan = ot.bregman.sinkhorn_log(*arrays, reg=epsilon, numItermax=50_000, stopThr=1e-12)
    ratio = plan / np.outer(*arrays[:2])
    # 0 log 0 = 0 where the plan underflows.
    kl = (plan * np.log(np.where(plan > 0, ratio, 1))).sum()
    expected = float((plan * arrays[2]).sum() + epsilon * kl)
    assert float(entropic(cost, a, b, epsilon)) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    ("masses", "problem_"),
    [
        ([0.5, 0.5, 0.5], "sum above one"),
        ([0.2, 0.2, 0.2], "sum below one"),
        ([1.2, -0.4, 0.2], "a negative mass, the sum is one"),
        ([0.0, 0.0, 0.0], "nothing"),
        ([math.nan, 0.5, 0.5], "NaN"),
        ([math.inf, 0.0, 0.0], "infinite"),
    ],
)
@pytest.mark.parametrize("side", ["a", "b"])
def test_bad_masses_are_refused_with_the_set(masses: list[float], problem_: str, side: str) -> None:
    x = normal(source(31), 2, 3, 2)
    good = torch.full((3,), 1 / 3, dtype=torch.float64)
    both = torch.stack([good, torch.tensor(masses, dtype=torch.float64)])
    for distance in (sinkhorn_divergence, pairwise_sinkhorn_divergence):
        with pytest.raises(ValueError, match=f"{side} of set 1 must be non-negative masses that sum to 1"):
            distance(x, x + 1, **{side: both})


@pytest.mark.parametrize("epsilon", [0, 0.0, -0.1, math.nan, math.inf, "0.1", None])
def test_bad_epsilon_is_refused(epsilon: object) -> None:
    x = normal(source(31), 2, 3, 2)
    for distance in (sinkhorn_divergence, pairwise_sinkhorn_divergence):
        with pytest.raises(ValueError, match="epsilon must be a finite number above 0, got"):
            distance(x, x, epsilon=epsilon)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, :0], "empty axis"),
        (lambda x: x.long(), "float32 or float64"),
        (lambda x: x * math.inf, "x of image 0 has a NaN or infinite"),
    ],
)
def test_bad_points_are_refused(change: object, message: str) -> None:
    x = normal(source(31), 2, 3, 2)
    for distance in (sinkhorn_divergence, pairwise_sinkhorn_divergence):
        with pytest.raises(ValueError, match=message):
            distance(change(x), x)  # type: ignore[operator]


def test_no_sets_give_an_empty_result() -> None:
    """As every other distance does."""
    x = normal(source(31), 2, 3, 2)
    assert sinkhorn_divergence(x[:0], x[:0]).shape == (0,)
    assert pairwise_sinkhorn_divergence(x[:0], x).shape == (0, 2)
    assert pairwise_sinkhorn_divergence(x, x[:0]).shape == (2, 0)


def test_a_power_given_as_text_is_no_other_power() -> None:
    x = normal(source(31), 2, 3, 2)
    with pytest.raises(ValueError, match="p must be one of 1, 2"):
        sinkhorn_divergence(x, x + 1, p="1")  # type: ignore[arg-type]


def test_masses_shared_by_all_sets_may_be_one_vector() -> None:
    x, y = normal(source(33), 2, 3, 2), normal(source(34), 2, 3, 2)
    shared = torch.tensor([0.2, 0.3, 0.5]).double()
    expected = sinkhorn_divergence(x, y, shared.expand(2, -1), shared.expand(2, -1))
    torch.testing.assert_close(sinkhorn_divergence(x, y, shared, shared), expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match="share one dtype"):
        sinkhorn_divergence(x, y, shared.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_descriptors_of_a_layer(dtype: torch.dtype) -> None:
    """169 descriptors in 512 dimensions, 2 x 2 pairs: far apart, where self terms nearly vanish."""
    x = normal(source(35), 4, 169, 512)
    found = pairwise_sinkhorn_divergence(x[:2].to(dtype), x[2:].to(dtype), epsilon=1.0)
    cost = torch.cdist(x[0], x[2]).numpy()
    masses = np.full(169, 1 / 169)

    def value(cost: np.ndarray) -> float:
        return float(ot.solve(cost, masses, masses, reg=1.0, reg_type="KL", max_iter=5000, tol=1e-11).value)

    own = [value(torch.cdist(x[i], x[i]).numpy()) for i in (0, 2)]
    expected = value(cost) - sum(own) / 2
    assert float(found[0, 0]) == pytest.approx(expected, rel=1e-3 if dtype == torch.float32 else 1e-6)


@pytest.mark.parametrize("p", [1, 2])
def test_far_points_are_refused_at_once(p: int) -> None:
    """1e160 apart, the costs are infinite, and halving an infinite epsilon never ends."""
    x = torch.tensor([[[0.0], [1.0]], [[0.0], [1e160]], [[2.0], [1.0]]], dtype=torch.float64)
    for distance in (sinkhorn_divergence, pairwise_sinkhorn_divergence):
        with pytest.raises(
            ValueError, match="y of image 1 has a coordinate of size 1e\\+160, above 1e\\+150"
        ):
            distance(x[[0, 0, 2]], x, p=p)
        with pytest.raises(ValueError, match=r"the largest coordinate of all, 2e-200; below 1e-140"):
            distance(x[[0, 2]] * 1e-200, x[[0, 2]] * 1e-200, p=p)
        with pytest.raises(ValueError, match=r"above 1e\+15.*or convert it with \.double\(\)"):
            distance((x[[0, 2]] * 1e16).float(), x[[0, 2]].float(), p=p)
        with pytest.raises(ValueError, match=r"between set . of x and set 1 of y; raise epsilon, or"):
            distance(*(x[[0, 2]] * torch.tensor([1.0, 1e14]).double()[:, None, None] for _ in range(2)), p=p)


@pytest.mark.parametrize("scale", [1e-130, 1e-12, 1.0, 1e9, 1e145])
@pytest.mark.parametrize("p", [1, 2])
def test_the_scale_is_a_unit(p: int, scale: float) -> None:
    """S(s x, s y; s^p eps) = s^p S(x, y; eps), and so for exact transport."""
    x, y = normal(source(51), 3, 5, 2), normal(source(52), 3, 5, 2)
    expected = sinkhorn_divergence(x, y, p=p, epsilon=0.3)
    found = sinkhorn_divergence(scale * x, scale * y, p=p, epsilon=0.3 * scale**p)
    torch.testing.assert_close(found / scale**p, expected, rtol=1e-9, atol=0)
    exact = exact_transport_cost(scale * x, scale * y, p)
    torch.testing.assert_close(exact / scale**p, exact_transport_cost(x, y, p), rtol=1e-9, atol=0)


@pytest.mark.parametrize("ratio", [1e3, 1e6, 1e9, 1e11])
def test_small_epsilons_come_to_exact_transport(ratio: float) -> None:
    """Also between points of a grid, where many plans are equally good."""
    grid = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0)).double()
    x, y = torch.stack([grid, grid]), torch.stack([grid.flip(0) + 1, 2 * grid])
    found = sinkhorn_divergence(x, y, p=2, epsilon=32 / ratio)
    torch.testing.assert_close(found, exact_transport_cost(x, y, p=2), rtol=1e-2, atol=32 * 5 / ratio)


@pytest.mark.parametrize("epsilon", [1e4, 1e8, 1e12, 1e18, 1e100, 1e300])
def test_large_epsilons_come_to_the_energy_distance(epsilon: float) -> None:
    """OT_eps goes to the mean cost; epsilon times a logarithm would be rounding alone."""
    x, y = normal(source(53), 3, 5, 2), normal(source(54), 3, 5, 2)
    mean = [torch.cdist(u, v).mean(dim=(1, 2)) for u, v in ((x, y), (x, x), (y, y))]
    found = sinkhorn_divergence(x, y, epsilon=epsilon)
    torch.testing.assert_close(found, mean[0] - (mean[1] + mean[2]) / 2, rtol=0, atol=20 / epsilon + 1e-7)


def test_a_pairs_value_does_not_depend_on_the_others(way: str) -> None:
    """Beside a pair whose costs span a billion epsilons, whichever way is taken."""
    cost, a, b = problem(55)
    extreme = torch.cat([cost, 1e8 * cost[:1], 1e-6 * cost[:1]])
    masses = torch.cat([a, a[:1], a[:1]]), torch.cat([b, b[:1], b[:1]])
    alone, together = (
        optimal_potentials(cost, a, b, 0.1, TIGHT),
        optimal_potentials(extreme, *masses, 0.1, TIGHT),
    )
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(other[:3], one, rtol=1e-12, atol=1e-13)

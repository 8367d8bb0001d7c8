"""Sinkhorn divergence against converged references of POT and GeomLoss, and its gradient."""

from __future__ import annotations

import functools
import itertools

import geomloss
import ot
import pytest
import torch

from retrieval_geometry.distances import (
    _point_transport,
    pairwise_sinkhorn_divergence,
    sinkhorn_divergence,
)
from tests import definitions
from tests.distances.common import DEVICES, DTYPES, TOLERANCE, measures, normal, source


@functools.cache
def references(p: int, epsilon: float) -> list[float]:
    (x, a), (y, b) = measures(2, 5, 3, 1), measures(2, 6, 3, 2)
    return [
        definitions.sinkhorn_divergence(*(t[i].numpy() for t in (x, y, a, b)), p, epsilon) for i in range(2)
    ]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("epsilon", [0.5, 2.0])
@pytest.mark.parametrize("p", [1, 2])
def test_agrees_with_many_plain_iterations(p: int, epsilon: float, dtype: torch.dtype, device: str) -> None:
    (x, a), (y, b) = measures(2, 5, 3, 1), measures(2, 6, 3, 2)
    expected = references(p, epsilon)
    found = sinkhorn_divergence(*(t.to(device, dtype) for t in (x, y, a, b)), p=p, epsilon=epsilon)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.cpu().double(), torch.tensor(expected).double(), rtol=TOLERANCE[dtype], atol=0
    )


@pytest.mark.parametrize("p", [1, 2])
def test_agrees_with_pot(p: int) -> None:
    (x, a), (y, b) = measures(1, 5, 3, 3), measures(1, 6, 3, 4)

    def value(x: torch.Tensor, y: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> float:
        cost = torch.cdist(x, y)[0].numpy() ** p
        solved = ot.solve(cost, a[0].numpy(), b[0].numpy(), reg=0.5, reg_type="KL", max_iter=3000, tol=1e-12)
        return float(solved.value)

    expected = value(x, y, a, b) - (value(x, x, a, a) + value(y, y, b, b)) / 2
    assert float(sinkhorn_divergence(x, y, a, b, p=p, epsilon=0.5)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("p", "blur", "factor"), [(1, 0.5, 1.0), (2, 0.7, 2.0)])
def test_agrees_with_geomloss_and_its_conventions(p: int, blur: float, factor: float) -> None:
    """GeomLoss halves the square; slow annealing brings it near convergence, not to it."""
    (x, a), (y, b) = measures(3, 5, 3, 5), measures(3, 6, 3, 6)
    loss = geomloss.SamplesLoss("sinkhorn", p=p, blur=blur, scaling=0.99, backend="tensorized")
    found = sinkhorn_divergence(x, y, a, b, p=p, epsilon=factor * blur**p)
    torch.testing.assert_close(found, factor * loss(a, x, b, y), rtol=5e-3, atol=0)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("epsilon", [0.05, 1.0])
def test_gradients_are_right(p: int, epsilon: float) -> None:
    (x, a), (y, b) = measures(2, 4, 2, 7), measures(2, 3, 2, 8)
    parts = [t.clone().requires_grad_() for t in (x, y, a, b)]
    assert torch.autograd.gradcheck(
        lambda x, y, a, b: sinkhorn_divergence(x, y, a, b, p=p, epsilon=epsilon), parts, atol=1e-5
    )


@pytest.mark.parametrize("p", [1, 2])
def test_gradient_at_equal_sets_is_zero(p: int) -> None:
    """Coinciding points have distance 0, where the root of a square has no derivative."""
    x = normal(source(9), 2, 5, 3)
    moved = x.clone().requires_grad_()
    values = sinkhorn_divergence(moved, x, p=p)
    values.sum().backward()
    torch.testing.assert_close(values, torch.zeros(2).double(), rtol=0, atol=1e-7)
    torch.testing.assert_close(moved.grad, torch.zeros_like(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("p", [1, 2])
def test_positive_symmetric_and_zero_only_for_equal_measures(p: int) -> None:
    """Feydy et al. 2019, theorem 1."""
    x, a = measures(6, 5, 2, 10)
    d = pairwise_sinkhorn_divergence(x, x, a, a, p=p, epsilon=0.3)
    torch.testing.assert_close(d, d.mT, rtol=1e-6, atol=1e-8)
    assert (d.diagonal() < 1e-7).all()
    assert (d[~torch.eye(6, dtype=torch.bool)] > 1e-3).all()


def test_shift_of_a_measure_in_closed_form() -> None:
    """For squared costs a common shift adds its square, whatever the regularisation."""
    x, a = measures(3, 6, 4, 11)
    shift = normal(source(12), 3, 1, 4)
    found = sinkhorn_divergence(x, x + shift, a, a, p=2, epsilon=0.7)
    torch.testing.assert_close(found, shift.square().sum(dim=(1, 2)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("p", [1, 2])
def test_small_epsilon_gives_exact_transport(p: int) -> None:
    """Costs of several thousand epsilons: no scaling of exp(-C / epsilon) would survive."""
    (x, a), (y, b) = measures(3, 8, 2, 13), measures(3, 9, 2, 14)
    found = sinkhorn_divergence(x, y, a, b, p=p, epsilon=1e-3)
    cost = torch.cdist(x, y).pow(p).numpy()
    exact = [ot.emd2(a[i].numpy(), b[i].numpy(), cost[i]) for i in range(3)]
    torch.testing.assert_close(found, torch.tensor(exact).double(), rtol=2e-2, atol=0)


def test_large_epsilon_gives_the_energy_distance() -> None:
    """Ramdas et al. 2017: an infinite regularisation leaves the product plan."""
    (x, a), (y, b) = measures(2, 4, 3, 15), measures(2, 5, 3, 16)

    def mean_cost(x: torch.Tensor, y: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bi,bij,bj->b", a, torch.cdist(x, y), b)

    energy = mean_cost(x, y, a, b) - (mean_cost(x, x, a, a) + mean_cost(y, y, b, b)) / 2
    torch.testing.assert_close(sinkhorn_divergence(x, y, a, b, epsilon=1e5), energy, rtol=1e-4, atol=0)


@pytest.mark.parametrize("same", [True, False])
def test_all_pairs_agree_with_pairs(same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    (x, a), (y, b) = measures(4, 5, 3, 17), measures(3, 6, 3, 18)
    if same:
        y, a, b = x, None, None
    found = pairwise_sinkhorn_divergence(x, y, a, b, epsilon=0.3)
    rows, columns = torch.cartesian_prod(torch.arange(len(x)), torch.arange(len(y))).unbind(1)
    masses = (None, None) if a is None else (a[rows], b[columns])
    expected = sinkhorn_divergence(x[rows], y[columns], *masses, epsilon=0.3)
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-7, atol=1e-9)
    monkeypatch.setattr(_point_transport, "COST_BYTES", {"cpu": 300})
    chunked = pairwise_sinkhorn_divergence(x, y, a, b, epsilon=0.3)
    torch.testing.assert_close(chunked, found, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("same", [True, False])
def test_without_debiasing_it_is_the_entropic_cost(same: bool) -> None:
    (x, a), (y, b) = measures(2, 5, 3, 40), measures(3, 6, 3, 41)
    if same:
        y, a, b = x, None, None
    found = pairwise_sinkhorn_divergence(x, y, a, b, epsilon=0.5, debias=False)
    uniform = torch.full((len(x), x.shape[1]), 1 / x.shape[1], dtype=torch.float64)
    left, right = (uniform if m is None else m for m in (a, b))
    for i, j in itertools.product(range(len(x)), range(len(y))):
        arrays = (t.numpy() for t in (x[i], y[j], left[i], right[j]))
        assert float(found[i, j]) == pytest.approx(definitions.entropic_cost(*arrays, 1, 0.5), rel=1e-6)
    if not same:
        paired = sinkhorn_divergence(x, y[:2], a, b[:2], epsilon=0.5, debias=False)
        torch.testing.assert_close(paired, found[:, :2].diagonal())


def test_gradient_of_all_pairs() -> None:
    x = normal(source(19), 3, 4, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pairwise_sinkhorn_divergence(x, x, epsilon=0.3), x, atol=1e-5)


def test_points_without_mass_do_not_count() -> None:
    (x, _), (y, b) = measures(1, 4, 2, 20), measures(1, 5, 2, 21)
    a = torch.tensor([[0.5, 0.0, 0.2, 0.3]]).double()
    kept = [0, 2, 3]
    for epsilon in (0.01, 0.5):
        found = sinkhorn_divergence(x, y, a, b, epsilon=epsilon)
        expected = sinkhorn_divergence(x[:, kept], y, a[:, kept], b, epsilon=epsilon)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)


def test_erratum_debiasing_roots_is_another_number() -> None:
    """Erratum 2.1: eq. 4 must debias the p-th power; the roots debiased give something else."""
    (x, a), (y, b) = measures(1, 5, 3, 22), measures(1, 5, 3, 23)
    arrays = [t[0].numpy() for t in (x, y, a, b)]
    powers = [
        definitions.entropic_cost(arrays[i], arrays[j], arrays[2 + i], arrays[2 + j], 2, 1.0)
        for i, j in ((0, 1), (0, 0), (1, 1))
    ]
    roots = [max(value, 0.0) ** 0.5 for value in powers]
    root_of_debiased = float(sinkhorn_divergence(x, y, a, b, p=2, epsilon=1.0)) ** 0.5
    assert root_of_debiased == pytest.approx((powers[0] - (powers[1] + powers[2]) / 2) ** 0.5, rel=1e-6)
    assert abs(root_of_debiased - (roots[0] - (roots[1] + roots[2]) / 2)) > 0.1 * root_of_debiased


def test_bad_input_is_refused() -> None:
    x, a = measures(2, 4, 3, 24)
    cases = [
        ((x[0], x), {}, "x must have shape"),
        ((x, x[:1]), {}, "same number of sets, got 2 and 1"),
        ((x, x[..., :2]), {}, r"y must have shape \(2, points, 3\)"),
        ((x, x.float()), {}, "share one dtype"),
        ((x, x), {"p": 3}, "p must be one of 1, 2; got 3"),
        ((x, x), {"epsilon": 0.0}, "epsilon must be a finite number above 0, got 0.0"),
        ((x, x), {"a": a + 1}, "a of set 0 must be non-negative masses that sum to 1"),
        ((x, x), {"b": a[:, :2]}, "b must have shape"),
        ((x, x.clone().fill_(torch.nan)), {}, "y of image 0 has a NaN"),
    ]
    for arguments, settings, message in cases:
        with pytest.raises(ValueError, match=message):
            sinkhorn_divergence(*arguments, **settings)


def test_several_threads_give_the_same_bits() -> None:
    x = normal(source(42), 12, 6, 3).requires_grad_()
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            values = pairwise_sinkhorn_divergence(x, x, epsilon=0.3)
            found.append((values.detach(), torch.autograd.grad(values.sum(), x)[0]))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_masses_that_ask_for_gradients_are_transported_by_several_threads() -> None:
    x = torch.rand(6, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = torch.full((6, 5), 0.2, dtype=torch.float64, requires_grad=True)
    threads = torch.get_num_threads()
    found = []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            value = pairwise_sinkhorn_divergence(x, x, a, a, epsilon=0.1)
            found.append((value, *torch.autograd.grad(value.sum(), a)))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(found[0], found[1])

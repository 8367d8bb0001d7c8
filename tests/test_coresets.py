"""Coresets: greedy against brute force, selection by transport, and points that move."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from retrieval_geometry.coresets import (
    craig,
    facility_location,
    training_subset,
    wasserstein_coreset,
    wcraig,
)
from retrieval_geometry.distances import pairwise_sinkhorn_divergence, sinkhorn_divergence
from tests.definitions import greedy


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value(similarity: torch.Tensor, subset: list[int]) -> float:
    return float(similarity[:, subset].amax(dim=1).sum())


@pytest.mark.parametrize("seed", range(5))
def test_lazy_greedy_chooses_what_greedy_chooses(seed: int) -> None:
    similarity = normal(20, 15, seed=seed).abs()
    whole = similarity.mul(2).round()
    noise = normal(20, 15, seed=seed + 50)
    cases = [similarity, whole, whole.float(), torch.zeros(20, 15), whole[:, torch.arange(15) // 2]]
    cases += [(whole + size * noise).abs() for size in (1e-15, 1e-9, 3e-7, 1e-6, 1e-3)]
    for case in cases:
        for size in (1, 8, 15):
            assert facility_location(case, size).tolist() == greedy(case, size)


def test_the_choice_does_not_hang_on_last_bits() -> None:
    """Two that are nearest to each other gain the same, but for rounding: the lower index is chosen."""
    for seed in range(40):
        x = normal(12, 2, seed=seed)
        d = torch.cdist(x, x)
        expected = craig(d, 6)
        for size in (1e-15, 1e-12):
            found = craig(d * (1 + size * normal(12, 12, seed=seed + 100)), 6)
            assert torch.equal(found.indices, expected.indices)
            assert torch.equal(found.weights, expected.weights)
    x = torch.tensor([[0.0, 0.3], [1.0, 0.3], [0.0, 1.3], [1.0, 1.3], [0.5, 0.8]])  # the square's corners tie
    assert craig(torch.cdist(x, x), 3).indices.tolist() == [4, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_image_between_two_chosen_belongs_to_the_first(dtype: torch.dtype) -> None:
    for share in (0.0, 1.0, -1.0):
        noise = share * torch.finfo(dtype).eps
        d = torch.tensor([[0, 9, 9], [9, 0, 9], [1 + noise, 1 - noise, 0]], dtype=dtype)
        found = craig(d, 2)
        assert (found.indices.tolist(), found.weights.tolist()) == ([0, 1], [2, 1])


@pytest.mark.parametrize("seed", range(5))
def test_greedy_reaches_its_share_of_the_best_subset(seed: int) -> None:
    """Nemhauser, Wolsey and Fisher 1978."""
    x = normal(12, 2, seed=seed)
    similarity = torch.cdist(x, x)
    similarity = similarity.max() - similarity
    for size in (1, 2, 4):
        best = max(value(similarity, list(s)) for s in itertools.combinations(range(12), size))
        found = value(similarity, facility_location(similarity, size).tolist())
        assert (1 - 1 / math.e) * best <= found <= best + 1e-12
        assert size > 1 or found == pytest.approx(best)


def test_a_beginning_is_a_greedy_choice_of_its_size() -> None:
    similarity = normal(20, 20).abs()
    assert facility_location(similarity, 9)[:4].tolist() == facility_location(similarity, 4).tolist()
    assert sorted(facility_location(similarity, 20).tolist()) == list(range(20))


def test_craig_is_the_facility_location_with_an_auxiliary_element() -> None:
    """L({s0}) - L(S + {s0}) with s0 as far as the farthest two: the greedy steps by definition."""
    x = normal(12, 2)
    d = torch.cdist(x, x)
    auxiliary = torch.full((12,), float(d.max()), dtype=torch.float64)

    def gain(subset: list[int]) -> float:
        nearest = torch.cat([d[:, subset], auxiliary.unsqueeze(1)], dim=1).amin(dim=1)
        return float(auxiliary.sum() - nearest.sum())

    found = craig(d, 4)
    chosen = found.indices.tolist()
    for step in range(4):  # gains, not indices: two that are nearest to each other gain the same
        best = max(gain([*chosen[:step], j]) for j in range(12) if j not in chosen[:step])
        assert gain(chosen[: step + 1]) == pytest.approx(best, rel=1e-6)
    nearest = d[:, chosen].argmin(dim=1)
    assert found.weights.tolist() == torch.bincount(nearest, minlength=4).tolist()


@pytest.mark.parametrize("size", [1, 3, 6])
def test_weights_count_all_images_even_where_some_are_equal(size: int) -> None:
    x = torch.tensor([[0.0], [0.0], [0.0], [5.0], [5.0], [9.0]])
    found = craig(torch.cdist(x, x), size)
    assert float(found.weights.sum()) == 6
    assert (found.weights >= 1).all()
    assert len(found.indices.unique()) == size


def test_wcraig_is_craig_on_sinkhorn_divergences() -> None:
    x = normal(10, 4, 2)
    d = pairwise_sinkhorn_divergence(x, x.clone(), p=2, epsilon=0.3)
    expected, found = craig(d, 4), wcraig(x, 4, p=2, epsilon=0.3)
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.weights, expected.weights)
    vectors = normal(10, 3)
    assert torch.equal(
        wcraig(vectors.unsqueeze(1), 4).indices, craig(torch.cdist(vectors, vectors), 4).indices
    )


def test_wcraig_sees_shape_where_means_do_not() -> None:
    """Two kinds of image with one mean: a subset of two has one of each."""
    shape, scales = normal(8, 2), torch.tensor([1.0] * 6 + [3.0] * 3)
    x = scales[:, None, None] * shape + 0.1 * normal(9, 8, 2, seed=1)
    x = x - x.mean(dim=1, keepdim=True)
    chosen = wcraig(x, 2)
    assert sorted(int(i) >= 6 for i in chosen.indices) == [False, True]
    assert sorted(chosen.weights.tolist()) == [3, 6]


@pytest.mark.parametrize("shape", [(20, 3), (20, 4, 3)])
def test_a_training_subset_takes_a_share_of_each_class(shape: tuple[int, ...]) -> None:
    x, labels = normal(*shape).requires_grad_(True), torch.tensor([2] * 10 + [0] * 6 + [7] * 3 + [4])
    found = training_subset(x, labels, 0.3)
    counts = {label: int((labels[found.indices] == label).sum()) for label in (2, 0, 7, 4)}
    assert counts == {2: 3, 0: 2, 7: 2, 4: 1}
    for label in (2, 0, 7, 4):
        members = labels[found.indices] == label
        assert float(found.weights[members].sum()) == int((labels == label).sum())
    assert sorted(training_subset(x, labels, 1.0).indices.tolist()) == list(range(20))
    points = x.detach() if x.ndim == 3 else x.detach().unsqueeze(1)
    assert found.indices[:2].tolist() == (10 + wcraig(points[10:16], 2).indices).tolist()


def test_one_point_goes_to_the_mean_or_the_median() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [40.0, 0.0]]).double()
    mean = wasserstein_coreset(x, 1, p=2)
    torch.testing.assert_close(mean, x.mean(dim=0, keepdim=True))
    median = wasserstein_coreset(x, 1, p=1, steps=100)
    assert float(median[0, 0]) == pytest.approx(2, abs=0.6)
    masses = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.6]).double()
    torch.testing.assert_close(wasserstein_coreset(x, 1, p=2, masses=masses), (masses @ x).unsqueeze(0))


def test_points_on_a_line_go_to_the_means_of_equal_shares() -> None:
    """In one dimension the best m points of p = 2 are the means of the m quantile intervals."""
    x = normal(60, 1).sort(dim=0).values
    found = wasserstein_coreset(x, 3, p=2, epsilon=1e-3, steps=60, generator=torch.Generator().manual_seed(0))
    expected = x.view(3, 20).mean(dim=1)
    torch.testing.assert_close(found.flatten().sort().values, expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("batch_size", [None, 30])
@pytest.mark.parametrize("p", [1, 2])
def test_descent_comes_closer_than_a_random_subset(p: int, batch_size: int | None) -> None:
    x = torch.cat([normal(30, 2), normal(30, 2, seed=1) + 6])

    def divergence(points: torch.Tensor) -> float:
        return float(sinkhorn_divergence(points.unsqueeze(0), x.unsqueeze(0), p=p, epsilon=0.1))

    start, found = (
        wasserstein_coreset(
            x, 6, p, 0.1, steps=steps, batch_size=batch_size, generator=torch.Generator().manual_seed(3)
        )
        for steps in (0, 40)
    )
    assert all((row == x).all(dim=1).any() for row in start)  # the start is a subset
    assert divergence(found) < 0.8 * divergence(start)


def test_bad_input_is_refused() -> None:
    d = torch.cdist(normal(5, 2), normal(5, 2))
    with pytest.raises(ValueError, match="similarity must not be negative"):
        facility_location(-d, 2)
    with pytest.raises(ValueError, match="similarity of element 3 has a NaN"):
        facility_location(d.index_fill(0, torch.tensor(3), torch.nan), 2)
    for size in (0, 6, 2.5):
        with pytest.raises(ValueError, match="size must be a whole number"):
            facility_location(d, size)
    with pytest.raises(ValueError, match="distances must have shape"):
        craig(d[:, :4], 2)
    with pytest.raises(ValueError, match="distances must not be negative"):
        craig(-d, 2)
    with pytest.raises(ValueError, match="x must have shape"):
        wcraig(normal(5, 2), 2)
    with pytest.raises(ValueError, match="epsilon"):
        wcraig(normal(5, 2, 2), 2, epsilon=0)
    with pytest.raises(ValueError, match="labels must be 5 whole numbers"):
        training_subset(normal(5, 2), torch.zeros(4).long(), 0.5)
    with pytest.raises(ValueError, match=r"labels must be 5 whole numbers, .* got torch\.complex64"):
        training_subset(normal(5, 2), torch.ones(5) * 1j, 0.5)
    with pytest.raises(ValueError, match="x of image 2 has a coordinate of size 1e"):
        wcraig(normal(5, 2, 2).index_fill(0, torch.tensor(2), 1e160), 2)
    for share in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="share must be"):
            training_subset(normal(5, 2), torch.zeros(5).long(), share)


def test_bad_measures_are_refused() -> None:
    x, equal = normal(5, 2), torch.full((5,), 0.2, dtype=torch.float64)
    for masses in (2 * equal, equal - torch.tensor([0.4, -0.4, 0, 0, 0])):
        with pytest.raises(ValueError, match="masses must be non-negative and sum to 1"):
            wasserstein_coreset(x, 2, masses=masses)
    with pytest.raises(ValueError, match="size"):
        wasserstein_coreset(x, 2, masses=torch.tensor([1.0, 0, 0, 0, 0]).double())
    with pytest.raises(ValueError, match="masses must have shape"):
        wasserstein_coreset(x, 2, masses=equal[:4])
    with pytest.raises(ValueError, match="x of point 1 has a NaN"):
        wasserstein_coreset(x.index_fill(0, torch.tensor(1), torch.nan), 2)
    with pytest.raises(ValueError, match="step_size"):
        wasserstein_coreset(x, 2, step_size=0)
    with pytest.raises(ValueError, match="batch_size"):
        wasserstein_coreset(x, 2, batch_size=0)
    same = wasserstein_coreset(torch.ones(4, 2), 2)
    torch.testing.assert_close(same, torch.ones(2, 2))

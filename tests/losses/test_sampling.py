"""Distance-weighted negatives: the distribution they are drawn from, and the trap of one maximum for all."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning.miners import DistanceWeightedMiner

from retrieval_geometry.losses import RowDistanceWeightedMiner
from retrieval_geometry.losses.sampling import distance_weights, draw_negatives
from tests.losses.common import batch


def near_pair() -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of 112 in which two images of different classes nearly coincide, as it happens in training."""
    x = torch.nn.functional.normalize(batch(112, 512, dtype=torch.float32))
    x[2] = torch.nn.functional.normalize(x[0] + 0.02 * x[2], dim=0)
    return x, torch.arange(112) // 2


def test_weights_are_the_inverse_density_of_distances_of_each_row() -> None:
    x = torch.nn.functional.normalize(batch(12, 6))
    d, other = torch.cdist(x, x), ~torch.eye(12, dtype=torch.bool)
    found = distance_weights(d, other, 6)
    for i in range(12):
        expected = [
            0.0
            if i == j or d[i, j] >= 1.4
            else max(d[i, j], 0.5) ** -4 * (1 - max(d[i, j], 0.5) ** 2 / 4) ** -1.5
            for j in range(12)
        ]
        torch.testing.assert_close(found[i], torch.tensor(expected, dtype=d.dtype) / max(expected))


def test_draws_follow_the_weights() -> None:
    weights = torch.tensor(
        [[0.0, 1.0, 3.0, 0.0], [0.5, 0.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 2.0, 0.0]]
    )
    anchors = torch.arange(4).repeat(20_000)
    found, negatives = draw_negatives(weights, anchors, torch.Generator().manual_seed(0))
    counts = torch.zeros(4, 4).index_put_(
        (anchors[found], negatives), torch.ones(len(found)), accumulate=True
    )
    expected = 20_000 * weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-9)
    assert (counts[expected == 0] == 0).all()
    deviation = (counts - expected)[expected > 0] / expected[expected > 0].sqrt()
    assert float(deviation.abs().max()) < 4


def test_one_maximum_for_all_rows_starves_anchors_and_ours_does_not() -> None:
    x, labels = near_pair()
    kept = len(DistanceWeightedMiner()(x, labels)[0])
    anchors, positives, negatives = RowDistanceWeightedMiner()(x, labels)
    assert kept <= 5 < len(anchors) == 112
    assert (labels[anchors] == labels[positives]).all()
    assert (labels[anchors] != labels[negatives]).all()
    assert (anchors != positives).all()


def test_an_anchor_whose_negatives_are_all_far_gives_no_triplet() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.01], [-1.0, 0.0], [-1.0, 0.01]])
    assert [len(t) for t in RowDistanceWeightedMiner()(x, torch.tensor([0, 0, 1, 1]))] == [0, 0, 0]


@pytest.mark.parametrize("labels", [torch.zeros(6), torch.arange(6)], ids=["one class", "one image each"])
def test_batches_without_triplets_give_none(labels: torch.Tensor) -> None:
    assert len(RowDistanceWeightedMiner()(batch(6, 4), labels.long())[0]) == 0


def test_draws_go_on_after_a_restart() -> None:
    x, labels = near_pair()
    miner, other = RowDistanceWeightedMiner(seed=3), RowDistanceWeightedMiner(seed=4)
    miner(x, labels)
    other.load_state_dict(miner.state_dict())
    first, second = miner(x, labels), other(x, labels)
    assert torch.equal(first[2], second[2])
    assert not torch.equal(first[2], miner(x, labels)[2])


def test_bad_bounds_are_refused() -> None:
    d = torch.ones(2, 2)
    with pytest.raises(ValueError, match="farthest must be below 2"):
        distance_weights(d, d > 0, 4, farthest=2.0)
    with pytest.raises(ValueError, match="nearest"):
        distance_weights(d, d > 0, 4, nearest=0.0)
    with pytest.raises(ValueError, match="allowed must have shape"):
        distance_weights(d, torch.ones(3, 3) > 0, 4)
    with pytest.raises(ValueError, match="ref_emb must be left out"):
        RowDistanceWeightedMiner()(d, torch.arange(2), d.clone(), torch.arange(2))
    assert math.isfinite(float(distance_weights(2 * d, d > 0, 128).sum()))


@pytest.mark.parametrize(
    ("key", "value"),
    [("nearest", math.nan), ("nearest", 1.5), ("farthest", math.nan), ("farthest", 2.0), ("seed", -1)],
)
def test_a_miner_checks_its_settings_when_it_is_made(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{key} must be"):
        RowDistanceWeightedMiner(**{key: value})

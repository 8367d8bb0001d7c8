"""Batches of some images of each of some classes."""

import pytest
import torch

from retrieval_geometry.datasets import MPerClassBatches

LABELS = torch.tensor([7] * 9 + [3] * 5 + [4] * 2 + [1] * 6 + [0] * 4)


def test_an_epoch_shows_each_class_once_with_different_images():
    batches = MPerClassBatches(LABELS, batch_size=8, per_class=4, seed=3)
    assert batches.batches_per_epoch == 2
    for epoch in range(6):
        seen = []
        for t in (2 * epoch, 2 * epoch + 1):
            indices = batches.batch(t)
            assert indices.shape == (8,)
            for group in indices.view(2, 4):
                assert len(LABELS[group].unique()) == 1
                seen.append(int(LABELS[group[0]]))
                assert len(group.unique()) == min(4, int((seen[-1] == LABELS).sum()))
        assert len(set(seen)) == 4


def test_a_batch_depends_on_seed_and_number_alone():
    one, two, other = (MPerClassBatches(LABELS, 6, 3, seed) for seed in (5, 5, 6))
    forward = [one.batch(t) for t in range(8)]
    assert all(torch.equal(two.batch(t), forward[t]) for t in reversed(range(8)))
    assert any(not torch.equal(other.batch(t), forward[t]) for t in range(8))


def test_all_images_are_drawn_about_equally_often_within_a_class():
    batches = MPerClassBatches(LABELS, 4, 2)
    drawn = torch.cat([batches.batch(t) for t in range(1500)])
    counts = torch.bincount(drawn, minlength=len(LABELS)).double()
    for label in LABELS.unique():
        own = counts[label == LABELS]
        # Binomial with a standard deviation below 23; five of them.
        assert (own - own.mean()).abs().max() < 115
        assert abs(float(own.sum()) - 1200) < 120


def test_a_small_class_repeats_as_little_as_it_can():
    indices = MPerClassBatches(torch.tensor([0, 0, 1, 1, 1]), 10, 5).batch(0)
    counts = torch.bincount(indices, minlength=5)
    assert sorted(counts[:2].tolist()) == [2, 3]
    assert sorted(counts[2:].tolist()) == [1, 2, 2]


def test_weights_set_how_often_an_image_is_drawn():
    labels = torch.tensor([0] * 3 + [1] * 2)
    weights = torch.tensor([5.0, 2.0, 1.0, 30.0, 10.0])
    batches = MPerClassBatches(labels, 8, 4, seed=2, weights=weights)
    shares = 4 * torch.tensor([5 / 8, 2 / 8, 1 / 8, 3 / 4, 1 / 4])
    counts = torch.stack([batches.batch(t).bincount(minlength=5) for t in range(2000)]).double()
    assert ((counts >= shares.floor()) & (counts <= shares.ceil())).all()  # in every single batch
    # A share is met by 0 or 1 more: a standard deviation of at most 0.012 of the mean; five of them.
    assert (counts.mean(dim=0) - shares).abs().max() < 0.06
    again = MPerClassBatches(labels, 8, 4, seed=2, weights=3 * weights)
    assert torch.equal(again.batch(7), batches.batch(7))  # only their ratios count


def test_weights_of_any_scale():
    labels, weights = torch.tensor([0, 0, 1, 1]), torch.tensor([1.0, 2.0, 3.0, 1.0]).double()
    expected = MPerClassBatches(labels, 4, 2, weights=weights).batch(3)
    for scale in (1e-320, 5e307):
        assert torch.equal(MPerClassBatches(labels, 4, 2, weights=scale * weights).batch(3), expected)


@pytest.mark.parametrize(
    "weights",
    [
        torch.ones(25),
        torch.ones(26, 1),
        torch.zeros(26),
        torch.full((26,), float("nan")),
        torch.ones(26) + 1j,
    ],
)
def test_weights_that_cannot_be_used(weights):
    with pytest.raises(ValueError, match="weights must be 26 positive numbers"):
        MPerClassBatches(LABELS, 8, 4, weights=weights)


@pytest.mark.parametrize(
    ("labels", "batch_size", "per_class", "message"),
    [
        (torch.zeros(9, dtype=torch.int64), 4, 2, "at least two classes"),
        (LABELS, 7, 2, "must be a multiple of per_class = 2"),
        (LABELS, 4, 4, "a batch of one class has no negatives"),
        (LABELS, 12, 2, "needs 6 classes, but there are 5"),
        (LABELS.double(), 4, 2, "whole numbers"),
        (LABELS + 1j, 4, 2, "whole numbers, got torch.complex64"),
        (LABELS, 4, 0, "per_class must be"),
    ],
)
def test_what_cannot_be_sampled(labels, batch_size, per_class, message):
    with pytest.raises(ValueError, match=message):
        MPerClassBatches(labels, batch_size, per_class)

"""Proxies that are found anew each epoch, in a training run."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from retrieval_geometry.datasets import ImageSet
from retrieval_geometry.losses import (
    ManifoldProxyLoss,
    ProxyNPairLoss,
    RenewedProxies,
    hard_proxies,
    random_meta_classes,
    random_proxies,
)
from retrieval_geometry.training import NonFiniteLossError, TrainingConfig, embed, stack_images, train
from tests.training.toy import SETTINGS, new_network, toy_images


def meta_images(n_meta: int = 4) -> ImageSet:
    """The toy images under the names of meta-classes, dealt by themselves."""
    images = toy_images()
    meta = random_meta_classes(images.labels, n_meta, dealt="images")
    return replace(images, labels=meta, classes=tuple(map(str, range(n_meta))))


def proxies(images: ImageSet, kind: type[ProxyNPairLoss] = ProxyNPairLoss, **settings) -> RenewedProxies:
    settings = {"renew_every": 3, "lr": 0.01, **settings}
    return RenewedProxies(kind(torch.eye(8)[:4]), random_proxies(images.labels), **settings)


class Seen(nn.Module):
    """Remembers what it was shown, and its copies of the network at that time."""

    renew_every = 3

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network, self.shown = [network], []

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return embeddings.square().sum() + embeddings.sum()

    def renew(self, embeddings: Tensor, labels: Tensor) -> None:
        network = self._network[0]
        assert not network.training
        assert not torch.is_grad_enabled()
        self.shown.append((embeddings, labels, embed(network, toy_images())))


@pytest.mark.parametrize("freeze", [False, True])
def test_an_objective_is_shown_all_images_each_epoch(freeze):
    network = new_network(freeze_trunk=freeze)
    objective = Seen(network)
    settings = {**SETTINGS, **({"augment": TrainingConfig(steps=1).augment} if freeze else {})}
    train(network, objective, toy_images(), TrainingConfig(steps=7, **settings))
    assert len(objective.shown) == 3  # before the first, the fourth and the seventh step
    for embeddings, labels, expected in objective.shown:
        torch.testing.assert_close(embeddings, expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(labels, toy_images().labels)
    assert not torch.allclose(objective.shown[0][0], objective.shown[1][0])


@pytest.mark.parametrize("hard", [True, False])
def test_proxies_are_the_embeddings_of_their_images_or_hard_ones(hard):
    images, network = meta_images(), new_network()
    objective = proxies(images, hard=hard, steps=20)
    start = functional.normalize(embed(network, images), dim=1)
    expected = start[objective.images]
    if hard:
        expected = hard_proxies(start, images.labels, expected, 20, 0.01)
        assert not torch.allclose(expected, start[objective.images], atol=1e-3)
    train(network, objective, images, TrainingConfig(steps=2, **SETTINGS))
    torch.testing.assert_close(objective.loss.proxies, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [ProxyNPairLoss, ManifoldProxyLoss])
def test_a_run_in_two_parts_is_the_run_in_one(tmp_path, kind):
    images, path = meta_images(), tmp_path / "run.pt"
    whole, resumed = new_network(), new_network()
    one = train(whole, proxies(images, kind), images, TrainingConfig(steps=8, **SETTINGS))
    # Within an epoch: the proxies of its beginning are part of the checkpoint.
    train(new_network(), proxies(images, kind), images, TrainingConfig(steps=5, **SETTINGS), checkpoint=path)
    two = train(resumed, proxies(images, kind), images, TrainingConfig(steps=8, **SETTINGS), checkpoint=path)
    assert one.losses == two.losses
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_meta_classes_are_learnt():
    images, network = toy_images(), new_network()
    network.standardize_head(stack_images(images, network))
    meta = random_meta_classes(images.labels, 4)
    images = replace(images, labels=meta, classes=("a", "b", "c", "d"))
    # A higher rate outruns the proxies of an epoch, and all embeddings fall into one.
    config = TrainingConfig(steps=60, lr=1e-4, **SETTINGS)
    losses = train(network, proxies(images, renew_every=10), images, config).losses
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_images_that_are_no_proxies_are_refused():
    images = meta_images()
    with pytest.raises(ValueError, match="images must be one for each of 4 proxies, got 3"):
        RenewedProxies(ProxyNPairLoss(torch.eye(8)[:4]), torch.arange(3), renew_every=2)
    swapped = RenewedProxies(
        ProxyNPairLoss(torch.eye(8)[:4]), random_proxies(images.labels).flip(0), renew_every=2
    )
    with pytest.raises(ValueError, match="one of each meta-class in order, got"):
        train(new_network(), swapped, images, TrainingConfig(steps=1, **SETTINGS))
    beyond = RenewedProxies(ProxyNPairLoss(torch.eye(8)[:4]), torch.tensor([0, 1, 2, 99]), renew_every=2)
    with pytest.raises(ValueError, match="among the 60 that are embedded, got number 99"):
        train(new_network(), beyond, images, TrainingConfig(steps=1, **SETTINGS))


class Drawn(Seen):
    """Draws at random each time it is shown the images."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.register_buffer("drawn", torch.zeros(()))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return embeddings.sum() * self.drawn

    def renew(self, embeddings: Tensor, labels: Tensor) -> None:
        self.drawn.copy_(torch.rand(()))


def test_draws_of_a_renewal_follow_the_seed_and_the_step(tmp_path):
    losses, path = [], tmp_path / "run.pt"
    for outside in (1, 2):
        torch.manual_seed(outside)
        losses.append(train(new_network(), Drawn(), toy_images(), TrainingConfig(steps=5, **SETTINGS)).losses)
    assert losses[0] == losses[1]
    for steps in (3, 5):  # resumed where a new epoch begins
        config = TrainingConfig(steps=steps, **SETTINGS)
        history = train(new_network(), Drawn(), toy_images(), config, checkpoint=path)
    assert history.losses == losses[0]


@pytest.mark.parametrize("every", [0, -1, 1.5, None])
def test_an_epoch_that_is_no_number_of_steps_is_refused(every):
    objective = Drawn()
    objective.renew_every = every
    with pytest.raises(ValueError, match=r"objective\.renew_every must be a whole number at least 1"):
        train(new_network(), objective, toy_images(), TrainingConfig(steps=1, **SETTINGS))


@pytest.mark.parametrize("hard", [True, False])
def test_embeddings_that_are_not_finite_end_the_run_at_its_step(hard):
    images, network = meta_images(), new_network()
    with torch.no_grad():
        network.head.weight[0, 0] = math.nan
    with pytest.raises(NonFiniteLossError, match="embeddings at step 0 are NaN or infinite"):
        train(network, proxies(images, hard=hard), images, TrainingConfig(steps=1, **SETTINGS))
    assert network.training


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": torch.full((60, 8), math.nan)}, "embeddings of image 0 has a NaN"),
        (
            {"embeddings": torch.ones(60, 1)},
            "embeddings must have as many dimensions as the proxies, 8, got 1",
        ),
        ({"embeddings": torch.arange(60.0).unsqueeze(1).expand(60, 8)}, "embedding of image 0 is zero"),
        ({"labels": torch.arange(50)}, "labels must be 60 whole numbers"),
    ],
)
def test_wrong_images_of_a_renewal_are_refused(hard, change, message):
    images = meta_images()
    objective = proxies(images, hard=hard)
    before = objective.loss.proxies.clone()
    with pytest.raises(ValueError, match=message):
        objective.renew(**{"embeddings": torch.ones(60, 8), "labels": images.labels, **change})
    assert torch.equal(objective.loss.proxies, before)


def test_numbers_of_images_are_its_own_and_not_negative():
    with pytest.raises(ValueError, match="images must be numbers from 0"):
        RenewedProxies(ProxyNPairLoss(torch.eye(3)), torch.tensor([0, 1, -1]), renew_every=2)
    given = torch.tensor([3, 4, 5])
    objective = RenewedProxies(ProxyNPairLoss(torch.eye(3)), given, renew_every=2)
    objective.load_state_dict({**objective.state_dict(), "images": torch.zeros(3).long()})
    assert given.tolist() == [3, 4, 5]

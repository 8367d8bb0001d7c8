"""The training loop: what it learns, what it resumes, what it refuses, and several processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import TripletMarginLoss
from torch import Tensor, nn

from retrieval_geometry.datasets import class_split, handwritten_digits
from retrieval_geometry.evaluation import evaluate_embeddings
from retrieval_geometry.features import EmbeddingNetwork
from retrieval_geometry.training import (
    Augmentation,
    NonFiniteLossError,
    TrainingConfig,
    embed,
    stack_images,
    train,
)
from tests.training.toy import SETTINGS, LearntScale, new_network, new_proxies, toy_images

ROOT = Path(__file__).resolve().parents[2]


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_training_learns_to_retrieve_new_classes():
    learnt, new = class_split(handwritten_digits().subset(range(700)), 5)
    network = new_network()
    pixels = stack_images(new, network)

    def map_at_r(network: EmbeddingNetwork) -> float:
        measures = evaluate_embeddings(embed(network, pixels), new.labels, clustering=False)
        return measures["AP@R"].interval.value

    before = map_at_r(network)
    config = TrainingConfig(steps=60, batch_size=30, per_class=6, lr=2e-3, accelerator="cpu")
    history = train(network, TripletMarginLoss(), learnt, config)
    assert np.mean(history.losses[-10:]) < 0.8 * np.mean(history.losses[:10])
    assert map_at_r(network) > before + 0.05


def test_proxies_are_trained_at_their_own_rate():
    config = TrainingConfig(steps=1, objective_lr=0.25, **SETTINGS)
    objective = new_proxies()
    start = objective.proxies.detach().clone()
    train(new_network(), objective, toy_images(), config)
    # Adam's first step is the learning rate, whatever the gradient.
    assert float((objective.proxies.detach() - start).abs().max()) == pytest.approx(0.25, rel=1e-3)


def test_learning_rates_of_head_and_trunk_drop_as_asked():
    network = new_network()
    start = [network.head.weight.detach().clone(), next(network.trunk.parameters()).detach().clone()]
    config = TrainingConfig(steps=1, lr=0.1, trunk_lr_factor=0.01, lr_drops=(1,), **SETTINGS)
    train(network, TripletMarginLoss(), toy_images(), config)
    weights = [network.head.weight.detach(), next(network.trunk.parameters()).detach()]
    moved = [after - before for after, before in zip(weights, start, strict=True)]
    assert float(moved[0].abs().max()) == pytest.approx(0.1, rel=1e-2)
    assert float(moved[1].abs().max()) == pytest.approx(0.001, rel=1e-2)
    assert [config.lr_scale(step) for step in (0, 1, 7)] == pytest.approx([1, 0.1, 0.1])


def test_weights_choose_among_the_images_of_a_class(tmp_path):
    seen = []

    class Seen(TripletMarginLoss):
        def forward(self, embeddings, labels):
            seen.append(embeddings.detach())
            return super().forward(embeddings, labels)

    images = toy_images()
    weights = torch.full((len(images),), 1e-9)
    for label in images.labels.unique():
        weights[(images.labels == label).nonzero()[0]] = 1.0
    config = TrainingConfig(steps=2, **SETTINGS | {"augment": Augmentation()})
    file = tmp_path / "run.pt"
    train(new_network(), Seen(), images, config, weights=weights, checkpoint=file)
    for embeddings in seen:  # one image of each class, again and again
        of_class = embeddings.view(-1, config.per_class, embeddings.shape[1])
        torch.testing.assert_close(of_class, of_class[:, :1].expand_as(of_class))
    with pytest.raises(ValueError, match="images"):
        train(new_network(), Seen(), images, config, checkpoint=file)


def test_an_inner_step_precedes_and_leaves_the_parameters_to_the_objective():
    objective = LearntScale()
    train(new_network(), objective, toy_images(), TrainingConfig(steps=1, **SETTINGS))
    moved = float((objective.scale.detach() - 1).abs())
    assert moved == pytest.approx(0.05, rel=1e-3)  # a step of its own Adam, and of no other


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    expected = torch.rand(2), np.random.rand(2)  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    train(new_network(), LearntScale(), toy_images(), TrainingConfig(steps=2, **SETTINGS))
    assert torch.equal(torch.rand(2), expected[0])
    np.testing.assert_array_equal(np.random.rand(2), expected[1])  # noqa: NPY002


def test_early_stop_leaves_the_best_weights():
    values, kept = iter([0.1, 0.5, 0.4, 0.3, 0.2]), {}

    def validate(network: EmbeddingNetwork) -> float:
        value = next(values)
        kept[value] = network.head.weight.detach().clone()
        assert not network.training
        return value

    network = new_network()
    config = TrainingConfig(steps=20, validate_every=2, patience=2, **SETTINGS)
    history = train(network, TripletMarginLoss(), toy_images(), config, validate)
    assert history.validations == [(2, 0.1), (4, 0.5), (6, 0.4), (8, 0.3)]
    assert history.stopped_early
    assert history.best == (4, 0.5)
    assert torch.equal(network.head.weight, kept[0.5])
    assert not torch.equal(network.head.weight, kept[0.3])


@pytest.mark.parametrize("make", [LearntScale, new_proxies])
def test_a_run_in_two_parts_is_the_run_in_one(tmp_path, make):
    whole, parts = (new_network(), make()), (new_network(), make())
    one = train(*whole, toy_images(), TrainingConfig(steps=7, **SETTINGS))
    path = tmp_path / "run.pt"
    train(*parts, toy_images(), TrainingConfig(steps=4, **SETTINGS), checkpoint=path)
    resumed = new_network(), make()
    two = train(*resumed, toy_images(), TrainingConfig(steps=7, **SETTINGS), checkpoint=path)
    assert one.losses == two.losses
    assert same_weights(whole[0], resumed[0])
    assert same_weights(whole[1], resumed[1])
    assert train(*resumed, toy_images(), TrainingConfig(steps=7, **SETTINGS), checkpoint=path) == two


def test_the_number_of_threads_outside_changes_nothing():
    runs, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            network = new_network()
            history = train(network, TripletMarginLoss(), toy_images(), TrainingConfig(steps=8, **SETTINGS))
            assert torch.get_num_threads() == threads
            runs.append((history.losses, network))
    finally:
        torch.set_num_threads(before)
    for losses, network in runs[1:]:
        assert losses == runs[0][0]
        assert same_weights(network, runs[0][1])


@pytest.mark.slow
def test_kill_and_resume_gives_the_same_numbers(tmp_path):
    command = [sys.executable, "-m", "tests.training.toy", "slow", str(tmp_path)]
    path = tmp_path / "run.pt"
    with subprocess.Popen(command, cwd=ROOT) as process:
        until = time.monotonic() + 300
        while not path.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.2)  # somewhere behind a checkpoint
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    reached = len(torch.load(path, weights_only=True)["history"]["losses"])
    assert 3 <= reached < 40
    config = TrainingConfig(steps=40, checkpoint_every=3, **SETTINGS)
    resumed, whole = (new_network(), LearntScale()), (new_network(), LearntScale())
    two = train(*resumed, toy_images(), config, checkpoint=path)
    one = train(*whole, toy_images(), config)
    assert one.losses == two.losses
    assert same_weights(resumed[0], whole[0])
    assert torch.equal(resumed[1].scale, whole[1].scale)


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path):
    command = [sys.executable, "-m", "tests.training.toy", "shared", str(tmp_path)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What torchrun tells the processes that it starts.
    shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1"}
    processes = []
    for rank in (0, 1):
        settings = {**shared, "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": 1}
        environment = os.environ | {name: str(value) for name, value in settings.items()}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment))
    assert [process.wait(timeout=600) for process in processes] == [0, 0]
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    network, objective = new_network(), new_proxies()
    history = train(network, objective, toy_images(), TrainingConfig(steps=6, **SETTINGS))
    for rank in ranks:
        np.testing.assert_allclose(rank["losses"], history.losses, rtol=1e-5)
        for name, value in network.state_dict().items():
            torch.testing.assert_close(rank["network"][name], value, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(rank["proxies"], objective.proxies.detach(), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(ranks[0]["network"][name], value) for name, value in ranks[1]["network"].items())


def test_checkpoints_of_other_settings_and_damaged_ones_are_refused(tmp_path):
    path = tmp_path / "run.pt"
    train(new_network(), LearntScale(), toy_images(), TrainingConfig(steps=2, **SETTINGS), checkpoint=path)
    other = TrainingConfig(steps=2, lr=0.5, **SETTINGS)
    with pytest.raises(ValueError, match=r"other settings: lr was 0\.001, is 0\.5\. Give another path"):
        train(new_network(), LearntScale(), toy_images(), other, checkpoint=path)
    config = TrainingConfig(steps=2, **SETTINGS)
    with pytest.raises(ValueError, match="images was"):
        train(new_network(), LearntScale(), toy_images(7), config, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"run\.pt is damaged; remove it"):
        train(new_network(), LearntScale(), toy_images(), config, checkpoint=path)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no checkpoint of this version"):
        train(new_network(), LearntScale(), toy_images(), config, checkpoint=path)


class Failing(nn.Module):
    """Well until the third call; then its value or its gradient is NaN."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.calls = how, 0

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        if self.calls < 3:
            return embeddings[:, 0].mean()
        zero = (embeddings - embeddings.detach()).sum()
        return zero + torch.nan if self.how == "loss" else zero.abs().sqrt() * 1.0


@pytest.mark.parametrize("how", ["loss", "gradients"])
def test_nan_stops_before_the_weights_are_spoilt(how):
    network, images = new_network(), toy_images()
    with pytest.raises(NonFiniteLossError, match=f"{how}.* at step 2 are NaN.*{images.ids[0][0]}") as caught:
        train(network, Failing(how), images, TrainingConfig(steps=9, **SETTINGS))
    assert caught.value.step == 2
    assert len(caught.value.image_ids) == 12
    assert set(caught.value.image_ids) <= set(images.ids)
    healthy = new_network()
    train(healthy, Failing("loss"), images, TrainingConfig(steps=2, **SETTINGS))
    assert same_weights(network, healthy)


def test_objectives_that_are_none(tmp_path):
    class Constant(nn.Module):
        def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
            return torch.tensor(1.0)

    class PerImage(nn.Module):
        def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
            return embeddings.sum(dim=1)

    for objective in (Constant(), PerImage()):
        with pytest.raises(ValueError, match="one number that depends on the embeddings"):
            train(new_network(), objective, toy_images(), TrainingConfig(steps=1, **SETTINGS))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be a whole number"),
        ({"steps": 1, "lr": 0.0}, "lr must be"),
        ({"steps": 1, "lr": float("nan")}, "lr must be"),
        ({"steps": 1, "augment": {"shift": 2}}, "augment must be an Augmentation, got dict"),
        ({"steps": 1, "optimizer": "lion"}, "optimizer must be one of"),
        ({"steps": 1, "precision": "8"}, "precision must be one of"),
        ({"steps": 1, "weight_decay": -1.0}, "weight_decay must be"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)


def test_a_frozen_trunk_is_run_once_and_left_alone(tmp_path):
    images = toy_images()
    frozen, config = new_network(freeze_trunk=True), TrainingConfig(steps=5, batch_size=12, accelerator="cpu")
    trunk = [value.clone() for value in frozen.trunk.parameters()]
    train(frozen, TripletMarginLoss(), images, config, cache=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(trunk, frozen.trunk.parameters(), strict=True))
    assert not torch.equal(frozen.head.weight, new_network().head.weight)
    assert list(tmp_path.rglob("*.safetensors"))
    expected = frozen.eval()(stack_images(images, frozen)).detach()
    torch.testing.assert_close(embed(frozen, images, cache=tmp_path), expected, rtol=1e-4, atol=1e-6)


def test_images_that_do_not_fit_into_memory_give_the_same_run(monkeypatch):
    config = TrainingConfig(steps=3, **SETTINGS)
    held, read = new_network(), new_network()
    first = train(held, TripletMarginLoss(), toy_images(), config)
    monkeypatch.setattr("retrieval_geometry.training._run.HELD_BYTES", 0)
    assert train(read, TripletMarginLoss(), toy_images(), config).losses == first.losses
    assert same_weights(held, read)


def test_embed_in_any_batch_size_and_its_errors():
    network, images = new_network(output="map").train(), toy_images(3, 3)
    embedded = embed(network, images, batch_size=4)
    assert embedded.shape == (9, 16, 8)
    assert network.training
    torch.testing.assert_close(embedded, embed(network, stack_images(images, network)))
    with pytest.raises(ValueError, match="images is empty"):
        embed(network, images.subset([]))
    with torch.no_grad():
        network.head.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="image 0/0 is NaN"):
        embed(network, images)

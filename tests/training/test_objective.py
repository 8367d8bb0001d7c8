"""A checkpoint belongs to an objective of one class with one set of settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from torch import Tensor, nn

from retrieval_geometry.losses import (
    BASELINES,
    RankMILoss,
    WassersteinContrastiveLoss,
    WassersteinTripletLoss,
    baseline_loss,
)
from retrieval_geometry.training import TrainingConfig, train
from retrieval_geometry.training._objective import describe
from tests.training.toy import SETTINGS, new_network, toy_images

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[[], nn.Module]


def run(make: Make, steps: int, checkpoint: Path | None = None, output: str = "vector") -> tuple[Any, ...]:
    network, objective = new_network(output=output), make()
    config = TrainingConfig(steps=steps, **SETTINGS)
    history = train(network, objective, toy_images(), config, checkpoint=checkpoint)
    return history.losses, network, objective


def same(a: nn.Module, b: nn.Module) -> bool:
    found, others = ([*m.parameters(), *m.buffers()] for m in (a, b))
    return all(torch.equal(x, y) for x, y in zip(found, others, strict=True))


def baseline(name: str, **settings: float) -> Make:
    sizes = {"n_classes": 6, "dim": 8} if BASELINES[name].needs else {}
    return lambda: baseline_loss(name, **sizes, **settings)


def tuned_otherwise(name: str) -> Make:
    key = BASELINES[name].tuned
    value = BASELINES[name].settings[key]
    return baseline(name, **{key: value - 2 if isinstance(value, int) else value * 0.9})


# What the first part of a run is made with, another one with its settings, and what the difference is called.
CASES: dict[str, tuple[Make, Make, str]] = {
    "w-triplet": (
        lambda: WassersteinTripletLoss(margin=0.1),
        lambda: WassersteinTripletLoss(margin=0.9, epsilon=5.0, p=2),
        r"objective\.distance\.p was 1, is 2; .*objective\.margin was 0\.1, is 0\.9",
    ),
    "w-contrastive": (
        WassersteinContrastiveLoss,
        lambda: WassersteinContrastiveLoss(debias=False),
        r"objective\.distance\.debias was True, is False",
    ),
    "rankmi": (RankMILoss, lambda: RankMILoss(margin=0.3), r"objective\.margin was 0\.2, is 0\.3"),
    **{
        name: (baseline(name), tuned_otherwise(name), rf"\.{BASELINES[name].tuned} was") for name in BASELINES
    },
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_goes_on_with_the_same_settings_alone(name: str, tmp_path: Path) -> None:
    make, other, message = CASES[name]
    output = "map" if name.startswith("w-") else "vector"
    path = tmp_path / "run.pt"
    whole = run(make, 4, output=output)
    run(make, 2, path, output)
    with pytest.raises(ValueError, match=rf"belongs to a run of other settings: .*{message}"):
        run(other, 4, path, output)
    resumed = run(make, 4, path, output)
    assert resumed[0] == whole[0]
    assert same(resumed[1], whole[1])
    assert same(resumed[2], whole[2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"updates": 3}, "objective.updates was 1, is 3"),
        ({"sampling": "all"}, "objective.sampling was 'distance', is 'all'"),
        ({"monotonicity": 1.0}, "objective.monotonicity was 0.0, is 1.0"),
        ({"hidden": 32}, "objective.statistics.layers.0.weight was 'parameter of shape (128, 1)'"),
        ({"depth": 3}, "objective.statistics.layers was "),
        ({"learning_rate": 0.1}, "objective.optimizer.lr was 0.001, is 0.1"),
        ({"weight_decay": 0.1}, "objective.optimizer.weight_decay was 0.0001, is 0.1"),
        ({"seed": 1}, "objective.generator was 'generator of seed 0', is 'generator of seed 1'"),
        ({"distance": distances.CosineSimilarity()}, "objective.distance was "),
    ],
)
def test_every_setting_of_rankmi_counts_and_its_state_does_not(settings, message, tmp_path) -> None:
    path = tmp_path / "run.pt"
    trained = run(RankMILoss, 2, path)[2]
    assert float(trained.beta) != 1.0
    with pytest.raises(ValueError, match=re.escape(message)):
        run(lambda: RankMILoss(**settings), 3, path)
    run(lambda: trained, 3, path)  # an objective that has been trained is the same one


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"distance": distances.LpDistance(power=2)}, "objective.distance.power was 1, is 2"),
        ({"distance": distances.CosineSimilarity()}, "objective.distance was"),
        ({"reducer": reducers.ThresholdReducer(low=0.1)}, "objective.reducer was"),
        ({"embedding_regularizer": regularizers.LpRegularizer()}, "objective was"),
        ({"swap": True}, "objective.swap was False, is True"),
    ],
)
def test_parts_of_the_librarys_losses_count(other: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    run(losses.TripletMarginLoss, 1, path)
    with pytest.raises(ValueError, match=re.escape(message)):
        run(lambda: losses.TripletMarginLoss(**other), 2, path)


def test_a_part_that_is_another_one_is_named_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    run(losses.TripletMarginLoss, 1, path)
    with pytest.raises(ValueError, match="TripletMarginLoss") as caught:
        run(losses.ContrastiveLoss, 2, path)
    assert "margin was" not in str(caught.value)


class Own(nn.Module):
    """Somebody's objective, with everything that may hang on one."""

    def __init__(self, scale: float = 1.0, **more: Any) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("mean", torch.zeros(8))
        self.calls, self._last = 0, None
        self.norm = nn.BatchNorm1d(8)
        self.more = more
        self.mine = miners.TripletMarginMiner()

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        self._last = embeddings.detach()
        self.mean += self._last.mean(dim=0)
        return (self.norm(embeddings).abs().sum() + embeddings[:, 0].sum()) * self.scale


def power_by(exponent: float) -> Callable[[float], float]:
    return lambda x: x**exponent


def one(x: float) -> float:
    return x


def two(x: float) -> float:
    return x


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"scale": 1.0}, {"scale": 2.0}),  # a buffer that is a setting
        ({"weights": [1.0, 2.0]}, {"weights": [1.0, 3.0]}),
        ({"nested": {"a": (1, {2, 3})}}, {"nested": {"a": (1, {2, 4})}}),
        ({"weights": torch.arange(9.0)}, {"weights": torch.arange(9.0) + 1}),
        ({"weights": list(range(1000))}, {"weights": [*range(999), 0]}),
        ({"f": one}, {"f": two}),
        ({"f": torch.exp}, {"f": torch.log}),
        ({"f": lambda x: x}, {"f": lambda x: x + 1}),
        ({"f": power_by(2)}, {"f": power_by(3)}),
        ({"f": partial(one, x=1)}, {"f": partial(one, x=2)}),
        ({"losses": nn.ModuleList([nn.L1Loss()])}, {"losses": nn.ModuleList([nn.L1Loss(), nn.L1Loss()])}),
        ({"of": [losses.SupConLoss(0.1)]}, {"of": [losses.SupConLoss(0.2)]}),
        ({"kind": nn.ReLU}, {"kind": nn.GELU}),
        ({"nan": float("nan")}, {"nan": 0.0}),
        ({"half": torch.ones(2, dtype=torch.bfloat16)}, {"half": torch.zeros(2, dtype=torch.bfloat16)}),
    ],
)
def test_whatever_hangs_on_an_objective_counts(first: dict, second: dict, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    used = run(partial(Own, **first), 2, path)[2]
    with pytest.raises(ValueError, match=r"other settings: objective\."):
        run(partial(Own, **second), 3, path)
    assert len(run(partial(Own, **first), 3, path)[0]) == 3
    assert (
        len(run(lambda: used, 4, path)[0]) == 4
    )  # counters and running means have changed, settings have not


def test_odd_objects_do_no_harm() -> None:
    import logging
    import threading

    objective = Own(log=logging.getLogger(), lock=threading.Lock(), module=os, file=sys.stderr, n=Ellipsis)
    objective.more["itself"] = objective
    circle: list[Any] = [0] * 100
    circle.append(circle)
    objective.more["circle"] = circle
    assert describe(objective) == describe(objective)
    assert "0x" not in repr(describe(objective))


def odd_one() -> Own:
    return Own(f=lambda x: x in {"a", "b", "c", "d"}, s={"a", "b", "c"}, g=power_by(2), t=torch.rand)


def test_the_description_is_that_of_another_process() -> None:
    code = (
        "from tests.training.test_objective import RankMILoss, describe, odd_one\n"
        "print({**describe(RankMILoss()), **describe(odd_one())})"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "7"},
        text=True,
        capture_output=True,
        check=True,
    )
    assert found.stdout.strip() == repr({**describe(RankMILoss()), **describe(odd_one())})

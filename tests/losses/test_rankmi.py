"""RankMI against plain loops, finite differences, a restart, and bad batches."""

from __future__ import annotations

import io
import math

import pytest
import torch

from retrieval_geometry.losses import RankMILoss, SinkhornDistance
from retrieval_geometry.losses.statistics_network import divergence_bound
from tests.losses.common import LABELS, batch, gradient_agrees, value_and_gradient

ALL = {"sampling": "all", "margin": math.inf}


def trained(steps: int = 30, **settings: object) -> tuple[RankMILoss, torch.Tensor]:
    """A loss whose statistics have seen a batch in which classes are somewhat apart."""
    x = batch(8, 6) + 1.5 * batch(3, 6, seed=1)[LABELS]
    loss = RankMILoss(**settings)
    for _ in range(steps):
        loss.inner_step(x, LABELS)
    return loss, x


@pytest.mark.parametrize("margin", [math.inf, 0.4, 0.2])
def test_is_the_plain_double_loop_of_equation_6(margin: float) -> None:
    loss, x = trained(sampling="all", margin=margin)
    unit, beta = torch.nn.functional.normalize(x, dim=1), float(loss.beta)
    positive, negative = [], []
    for i in range(8):
        for j in range(8):
            d = torch.linalg.vector_norm(unit[i] - unit[j])
            t = math.log(2) - math.log(1 + math.exp(-float(loss.statistics(d))))
            if LABELS[i] == LABELS[j] and i != j and d > beta - margin:
                positive.append(t)
            if LABELS[i] != LABELS[j] and d < beta + margin:
                negative.append(math.log(2 - math.exp(t)))
    expected = -sum(positive) / len(positive) - sum(negative) / len(negative)
    assert float(loss(x, LABELS)) == pytest.approx(expected, rel=1e-5)
    assert (len(positive), len(negative)) != (14, 42) or margin == math.inf


def test_gradient_is_that_of_finite_differences() -> None:
    loss, x = trained(**ALL)
    loss.double()
    assert gradient_agrees(lambda t: loss(t, LABELS), x)


def test_drawn_pairs_gradient_is_that_of_finite_differences() -> None:
    loss, x = trained()
    state = loss.double().generator.get_state()

    def restarted(t: torch.Tensor) -> torch.Tensor:
        loss.generator.set_state(state)
        return loss(t, LABELS)

    assert gradient_agrees(restarted, x)


def test_inner_steps_tighten_the_bound_and_find_beta() -> None:
    loss, x = trained(0, **ALL)
    values = []
    for _ in range(60):
        loss.inner_step(x, LABELS)
        values.append(float(loss(x, LABELS)))
    assert values[-1] < values[0] - 0.1
    assert values[-1] > -2 * math.log(2)
    assert abs(float(loss.statistics(loss.beta))) < 1e-4
    d = loss.distance(x)
    same = LABELS.unsqueeze(1) == LABELS
    above = torch.ones_like(same).triu(1)
    bound = divergence_bound(loss.statistics(d[same & above]), loss.statistics(d[~same & above]))
    assert values[-1] == pytest.approx(-float(bound), rel=1e-4)  # each pair once or twice: the same means


def test_more_updates_are_as_many_inner_steps() -> None:
    twice, _ = trained(4, updates=2)
    once, _ = trained(8)
    for a, b in zip(twice.statistics.parameters(), once.statistics.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_outer_optimiser_does_not_see_the_statistics() -> None:
    loss, x = trained(1)
    before = [p.clone() for p in loss.statistics.parameters()]
    leaf = x.requires_grad_(True)
    outer = torch.optim.Adam([leaf, *loss.parameters()], lr=0.1, weight_decay=0.1)
    loss(leaf, LABELS).backward()
    outer.step()
    assert not [p for p in loss.parameters() if p.requires_grad or p.grad is not None]
    assert leaf.grad is not None
    assert leaf.grad.abs().max() > 0
    for old, new in zip(before, loss.statistics.parameters(), strict=True):
        assert torch.equal(old, new)


def test_a_step_of_the_embedding_pulls_matches_together_and_others_apart() -> None:
    loss, x = trained(20)
    leaf = x.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([leaf], lr=0.05)
    same = (LABELS.unsqueeze(1) == LABELS).fill_diagonal_(False)

    def gap() -> float:
        d = loss.distance(leaf).detach()
        return float(d[LABELS.unsqueeze(1) != LABELS].mean() - d[same].mean())

    before = gap()
    for _ in range(20):
        loss.inner_step(leaf.detach(), LABELS)
        optimiser.zero_grad()
        loss(leaf, LABELS).backward()
        optimiser.step()
    assert gap() > before + 0.2


def test_pairs_are_margin_violators_with_a_negative_drawn_for_each_match() -> None:
    loss, x = trained(50, margin=0.1)
    d, beta = loss.distance(x), float(loss.beta)
    (a, p), (i, n) = loss._pairs(d, LABELS, 6)
    assert len(a) > 0
    assert len(n) > 0
    assert (LABELS[a] == LABELS[p]).all()
    assert (a != p).all()
    assert (d[a, p] > beta - 0.1).all()
    assert (LABELS[i] != LABELS[n]).all()
    assert (d[i, n] < beta + 0.1).all()
    draws = torch.bincount(i, minlength=8)
    assert all(
        int(k) in (0, int((label == LABELS).sum()) - 1) for k, label in zip(draws, LABELS, strict=True)
    )


def test_the_soft_constraint_keeps_v_falling() -> None:
    """Matches farther apart than others: without the constraint V learns to rise (eq. 9)."""
    labels = torch.arange(6) % 2
    angle = torch.tensor([0.0, 0.1, 2.0, 2.1, 4.0, 4.1], dtype=torch.float64)
    x = torch.stack([angle.cos(), angle.sin()], dim=1)
    rises = []
    for weight in (0.0, 10.0):
        loss = RankMILoss(monotonicity=weight, learning_rate=1e-2)
        for _ in range(100):
            loss.inner_step(x, labels)
        values = loss.statistics(torch.linspace(0, 1.9, 40, dtype=torch.float64))
        rises.append(float(values.diff().clamp_min(0).sum()))
    assert rises[0] > 1
    assert rises[1] < 0.1 * rises[0]


def test_a_restart_goes_on_to_the_bit() -> None:
    straight, x = trained(3)
    for _ in range(3):
        straight(x, LABELS)
    file = io.BytesIO()
    torch.save(straight.state_dict(), file)
    file.seek(0)
    resumed = RankMILoss(seed=9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    values = []
    for loss in (straight, resumed):
        for _ in range(3):
            loss.inner_step(x, LABELS)
        values.append(loss(x, LABELS))
    assert torch.equal(values[0], values[1])
    assert torch.equal(straight.beta, resumed.beta)


def test_processes_with_one_seed_agree_and_leave_the_callers_random_state_alone() -> None:
    torch.manual_seed(1)
    first, x = trained(2)
    drawn = torch.rand(())
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(()))
    torch.manual_seed(2)
    second, _ = trained(2)
    assert torch.equal(first(x, LABELS), second(x, LABELS))


def test_local_features_go_through_transport() -> None:
    loss, x = RankMILoss(distance=SinkhornDistance(), sampling="all"), batch(8, 4, 3)
    loss.inner_step(x, LABELS)
    value, gradient = value_and_gradient(loss, x, LABELS)
    assert value.isfinite()
    assert gradient.isfinite().all()
    with pytest.raises(ValueError, match="compares vectors"):
        RankMILoss(distance=SinkhornDistance())(x, LABELS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("settings", [{}, ALL], ids=["drawn", "all"])
@pytest.mark.parametrize("case", ["equal", "one class", "one image each", "one image", "twins", "huge"])
def test_odd_batches_have_finite_values_and_gradients(case: str, settings: dict, dtype: torch.dtype) -> None:
    x, labels = batch(8, 6, dtype=dtype), LABELS
    if case == "equal":
        x = torch.ones_like(x)
    elif case == "one class":
        labels = torch.zeros_like(LABELS)
    elif case == "one image each":
        labels = torch.arange(8)
    elif case == "one image":
        x, labels = x[:1], labels[:1]
    elif case == "twins":
        x[1], x[3] = x[0], x[0]
    else:
        x = 1e6 * x
    loss = RankMILoss(**settings)
    before = [p.clone() for p in loss.statistics.parameters()]
    loss.inner_step(x, labels)
    value, gradient = value_and_gradient(loss, x, labels)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert loss.beta.isfinite()
    if case.startswith("one "):  # a kind of pair is missing
        for old, new in zip(before, loss.statistics.parameters(), strict=True):
            assert torch.equal(old, new)
    if case == "one image":
        assert float(value) == 0


def test_bad_batches_are_refused() -> None:
    loss, x = RankMILoss(), batch(8, 6)
    for call in (loss, loss.inner_step):
        with pytest.raises(ValueError, match="labels must be 8 whole numbers"):
            call(x, LABELS[:7])
        with pytest.raises(ValueError, match="embeddings of image 2 has a NaN"):
            call(x.index_fill(0, torch.tensor(2), torch.nan), LABELS)
        with pytest.raises(ValueError, match="embedding of image 4 is zero"):
            call(x.index_fill(0, torch.tensor(4), 0), LABELS)


@pytest.mark.parametrize(
    "settings",
    [
        {"updates": 0},
        {"margin": -0.1},
        {"sampling": "hard"},
        {"monotonicity": -1},
        {"learning_rate": 0},
        {"seed": -1},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        RankMILoss(**settings)

"""The baselines: what is claimed of them, finite differences, traps of the library, and bad batches."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning import losses

from retrieval_geometry.losses import BASELINES, RowDistanceWeightedMiner, _faster, baseline_loss
from tests.losses.common import LABELS, batch, gradient_agrees, value_and_gradient

NAMES = sorted(BASELINES)
SIZES = {"n_classes": 5, "dim": 6}


@pytest.mark.parametrize("name", NAMES)
def test_is_what_its_entry_says(name: str) -> None:
    config, loss = BASELINES[name], baseline_loss(name, **SIZES)
    assert type(loss.loss) is config.loss
    assert config.tuned in config.settings
    assert (loss.miner is None) == (config.miner is None)
    parameters = list(loss.parameters())
    assert bool(parameters) == (config.parameter_lr is not None) == bool(config.needs)
    value = 0.7 * config.settings[config.tuned] if name not in ("histogram", "fastap") else 8
    x = batch(8, 6)
    changed = baseline_loss(name, **SIZES, **{config.tuned: value})
    assert float(loss(x, LABELS).detach()) != float(changed(x, LABELS).detach())


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_that_of_finite_differences(name: str) -> None:
    loss = baseline_loss(name, **SIZES)
    state = loss.state_dict()

    def restarted(x: torch.Tensor) -> torch.Tensor:
        loss.load_state_dict(state)
        return loss(x, LABELS)

    assert gradient_agrees(restarted, batch(8, 6))


@pytest.mark.parametrize("name", [n for n in NAMES if BASELINES[n].needs])
def test_own_parameters_are_learnt_and_start_from_the_seed(name: str) -> None:
    loss, same, other = (baseline_loss(name, **SIZES, seed=seed) for seed in (3, 3, 4))
    loss(batch(8, 6), LABELS).backward()
    for a, b, c in zip(loss.parameters(), same.parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        # Where a match and another pair both violate their margins, the slopes of their boundary cancel.
        assert name == "margin" or a.grad.abs().max() > 0
        assert torch.equal(a.detach().float(), b.detach().float())
        assert name == "margin" or not torch.equal(b, c)


def test_making_a_loss_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    baseline_loss("proxynca", **SIZES)
    assert torch.equal(expected, torch.rand(()))


@pytest.mark.parametrize("name", [n for n in NAMES if BASELINES[n].normalized])
def test_losses_on_the_sphere_do_not_see_lengths(name: str) -> None:
    x = batch(8, 6)
    values = [baseline_loss(name, **SIZES)(scale * x, LABELS).detach() for scale in (1, 7.5)]
    torch.testing.assert_close(values[0], values[1])


def test_contrastive_and_triplet_average_over_the_drawn_triplets() -> None:
    x = batch(8, 6)
    unit = torch.nn.functional.normalize(x, dim=1)
    triplets = RowDistanceWeightedMiner()(unit, LABELS)
    near, far = ((unit[triplets[0]] - unit[other]).norm(dim=1) for other in triplets[1:])
    expected = near.mean() + (1 - far).relu().mean()
    torch.testing.assert_close(baseline_loss("contrastive")(x, LABELS), expected)
    torch.testing.assert_close(baseline_loss("triplet")(x, LABELS), (near - far + 0.2).relu().mean())


def test_proxynca_is_the_formula_of_the_paper() -> None:
    x, loss = batch(8, 6), baseline_loss("proxynca", **SIZES)
    loss(x, LABELS)
    unit, proxies = (
        torch.nn.functional.normalize(t.detach().double(), dim=1) for t in (x, loss.loss.proxies)
    )
    logits = -9 * torch.cdist(unit, proxies).square()
    torch.testing.assert_close(loss(x, LABELS).detach(), torch.nn.functional.cross_entropy(logits, LABELS))


def test_angular_is_the_formula_of_the_paper() -> None:
    x = batch(8, 6)
    unit, square = torch.nn.functional.normalize(x, dim=1), math.tan(math.radians(45)) ** 2
    terms = []
    for a in range(8):
        for p in range(8):
            if a != p and LABELS[a] == LABELS[p]:
                others = unit[LABELS[a] != LABELS]
                f = 4 * square * (unit[a] + unit[p]) @ others.T - 2 * (1 + square) * unit[a] @ unit[p]
                terms.append(torch.log1p(f.exp().sum()))
    torch.testing.assert_close(baseline_loss("angular")(x, LABELS), torch.stack(terms).mean())


def test_histogram_is_the_plain_loop_over_pairs() -> None:
    x = batch(8, 6)
    cosine = torch.nn.functional.normalize(x, dim=1)
    cosine = cosine @ cosine.T
    histograms = {True: torch.zeros(66).double(), False: torch.zeros(66).double()}
    for i in range(8):
        for j in range(i):
            place = float(cosine[i, j] + 1) / (2 / 65)
            left = int(place)
            histogram = histograms[bool(LABELS[i] == LABELS[j])]
            histogram[left] += left + 1 - place
            histogram[left + 1] += place - left
    positive, negative = (h / h.sum() for h in (histograms[True], histograms[False]))
    expected = (negative * positive.cumsum(dim=0)).sum()
    torch.testing.assert_close(baseline_loss("histogram")(x, LABELS), expected)


def test_trap_the_librarys_histogram_reads_past_its_last_bin() -> None:
    """Where a similarity of 1 is rounded up; which vectors do that depends on the processor."""
    failed = 0
    for seed in range(50):
        x = torch.randn(6, generator=torch.Generator().manual_seed(seed)).expand(8, 6)
        try:
            losses.HistogramLoss(n_bins=65)(x, LABELS)
        except RuntimeError as error:
            failed += "out of bounds" in str(error)
        assert float(baseline_loss("histogram")(x, LABELS)) == pytest.approx(1, abs=1e-3)
    assert failed


def test_trap_the_librarys_manifold_loss_draws_new_meta_classes_at_every_call() -> None:
    loss, x = losses.ManifoldLoss(l=6, K=3), batch(8, 6, dtype=torch.float32)
    values = {float(loss(x).detach()) for _ in range(10)}
    assert len(values) > 1
    fixed = {float(loss(x, indices_tuple=torch.arange(8) % 3).detach()) for _ in range(10)}
    assert len(fixed) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["equal", "one class", "one image each", "one image", "twins", "huge"])
def test_odd_batches_have_finite_values_and_gradients(case: str, name: str) -> None:
    x, labels = batch(8, 6, dtype=torch.float32), LABELS
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
        x = 1e4 * x
    loss = baseline_loss(name, n_classes=40, dim=6)  # more proxies than images
    value, gradient = value_and_gradient(loss, x, labels)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in loss.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_bad_batches_are_refused(name: str) -> None:
    loss, x = baseline_loss(name, **SIZES), batch(8, 6)
    with pytest.raises(ValueError, match="labels must be 8 whole numbers"):
        loss(x, LABELS[:7])
    with pytest.raises(ValueError, match="embeddings of image 2 has a NaN"):
        loss(x.index_fill(0, torch.tensor(2), torch.nan), LABELS)
    zero = x.index_fill(0, torch.tensor(4), 0)
    if BASELINES[name].normalized:
        with pytest.raises(ValueError, match="embedding of image 4 is zero"):
            loss(zero, LABELS)
    else:
        assert value_and_gradient(loss, zero, LABELS)[1].isfinite().all()
    if BASELINES[name].needs:
        with pytest.raises(ValueError, match=r"labels must lie in 0\.\.4"):
            loss(x, LABELS + 3)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="name must be one of"):
        baseline_loss("tripletloss")
    with pytest.raises(ValueError, match="hyper-parameter of triplet must be one of margin"):
        baseline_loss("triplet", alpha=1.0)
    with pytest.raises(ValueError, match="n_classes must be given for proxynca"):
        baseline_loss("proxynca", dim=6)
    with pytest.raises(ValueError, match="dim must be given for arcface"):
        baseline_loss("arcface", n_classes=5)


@pytest.mark.parametrize("name", NAMES)
def test_every_override_is_checked(name: str) -> None:
    """A margin that is NaN makes a loss of 0, for max(NaN, 0) is 0 there."""
    for key, default in BASELINES[name].settings.items():
        assert baseline_loss(name, **SIZES, **{key: default}) is not None
        bad = [math.nan, math.inf, -math.inf, -1.0, "1", None, 1j, torch.tensor([1.0, 2.0])]
        if isinstance(default, bool):
            bad = [math.nan, 1, 0.5, "yes", None]
        elif isinstance(default, int):
            bad += [2.5, 1, 0, True]
        else:
            bad += [True]
        for value in bad:
            with pytest.raises(ValueError, match=f"{key} of {name} must be"):
                baseline_loss(name, **SIZES, **{key: value})
    positive = {"alpha", "beta", "scale", "softmax_scale", "temperature"} & BASELINES[name].settings.keys()
    for key in positive:
        with pytest.raises(ValueError, match=f"{key} of {name} must be a finite number above 0"):
            baseline_loss(name, **SIZES, **{key: 0.0})


def test_angles_end_where_their_tangent_does() -> None:
    for name, key, value in (("angular", "alpha", 90.0), ("arcface", "margin", 181.0)):
        with pytest.raises(ValueError, match=f"{key} of {name} must be a finite number .* at most"):
            baseline_loss(name, **SIZES, **{key: value})
    assert baseline_loss("histogram", n_bins=65.0).loss is not None  # a whole number, however it is written


@pytest.mark.parametrize("name", NAMES)
def test_complex_labels_and_huge_embeddings_are_refused(name: str) -> None:
    loss, x = baseline_loss(name, **SIZES), batch(8, 6)
    with pytest.raises(ValueError, match=r"labels must be 8 whole numbers, .* got torch\.complex"):
        loss(x, LABELS + 1j)
    with pytest.raises(ValueError, match=r"embeddings of image 3 has a coordinate .* overflow"):
        loss(x.index_fill(0, torch.tensor(3), 1e160), LABELS)


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (_faster.HistogramLoss, losses.HistogramLoss, {"n_bins": 17}),
        (_faster.LiftedStructureLoss, losses.LiftedStructureLoss, {"neg_margin": 0.7}),
    ],
)
@pytest.mark.parametrize(
    "labels",
    [
        [0, 0, 1, 1, 2, 2, 0, 2],
        [0, 0, 1, 2, 3, 1, 4, 5],  # images without a match
        [0, 0, 0, 0],  # no negatives
        [0, 1, 2, 3],  # no positives
        [0, 0, 1, 2],
    ],
)
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # the library's histogram loss
def test_the_faster_losses_are_the_librarys(ours, theirs, settings, labels) -> None:
    labels = torch.tensor(labels)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(labels), 5, generator=generator, dtype=torch.float64).requires_grad_()
    found, expected = (make(**settings)(x, labels) for make in (ours, theirs))
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(value, x)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert gradients[0].isfinite().all()

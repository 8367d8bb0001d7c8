"""Transport inside the loss: against exact transport, plain loops, finite differences, and bad batches."""

from __future__ import annotations

import itertools
import math

import ot
import pytest
import torch
from pytorch_metric_learning import losses, miners, reducers
from scipy.stats import wasserstein_distance

from retrieval_geometry.distances import pairwise_sinkhorn_divergence
from retrieval_geometry.losses import (
    SinkhornDistance,
    WassersteinContrastiveLoss,
    WassersteinTripletLoss,
    wasserstein,
)
from tests import definitions
from tests.losses.common import LABELS, batch, gradient_agrees, value_and_gradient

LOSSES = [WassersteinContrastiveLoss, WassersteinTripletLoss]
READINGS = [
    {"measure": "features"},
    {"measure": "atoms", "atoms": 4},
    {"measure": "histogram"},
]


def embeddings(measure: str, n: int = 8) -> torch.Tensor:
    return batch(n, 4, 3) if measure == "features" else batch(n, 12)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("reading", READINGS, ids=lambda reading: reading["measure"])
def test_is_symmetric_non_negative_and_zero_between_equal_measures(reading: dict, p: int) -> None:
    """Feydy et al. 2019, theorem 1."""
    x = embeddings(reading["measure"])
    found = SinkhornDistance(p=p, epsilon=0.1, **reading)(torch.cat([x, x[:2]]))
    torch.testing.assert_close(found, found.mT, rtol=0, atol=1e-9)
    assert (found >= 0).all()
    assert float(found.diagonal().abs().max()) < 1e-6
    assert float(found[8, 0]) < 1e-4 < float(found[0, 1])


@pytest.mark.parametrize("p", [1, 2])
def test_is_the_root_of_the_divergence_of_normalised_features(p: int) -> None:
    x = batch(5, 4, 3)
    unit = torch.nn.functional.normalize(x, dim=2)
    expected = pairwise_sinkhorn_divergence(unit, unit, p=p, epsilon=0.2) ** (1 / p)
    found = SinkhornDistance(p=p, epsilon=0.2)(x)
    off = ~torch.eye(5, dtype=torch.bool)
    torch.testing.assert_close(found[off], expected[off])
    torch.testing.assert_close(SinkhornDistance(p=p, epsilon=0.2)(x, x[:2].clone())[2:], found[2:, :2])
    torch.testing.assert_close(
        SinkhornDistance(p=p, epsilon=0.2).pairwise_distance(unit[:2], unit[3:]),
        torch.stack([found[0, 3], found[1, 4]]),
    )


def test_atoms_are_pieces_of_the_normalised_vector() -> None:
    x = batch(4, 12)
    pieces = torch.nn.functional.normalize(x, dim=1).view(4, 4, 3)
    expected = SinkhornDistance(normalize_embeddings=False)(pieces)
    torch.testing.assert_close(SinkhornDistance(measure="atoms", atoms=4)(x), expected)


@pytest.mark.parametrize("p", [1, 2])
def test_exact_transport_is_that_of_pot(p: int) -> None:
    x = torch.nn.functional.normalize(batch(3, 5, 3), dim=2)
    expected = [[float(ot.emd2([], [], torch.cdist(a, b).pow(p).numpy())) for b in x] for a in x]
    found = SinkhornDistance(p, exact=True)(x)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64).clamp_min(0) ** (1 / p))


def test_exact_histograms_are_scipys_and_the_limit_of_the_entropic_ones() -> None:
    x = batch(4, 10)
    masses, positions = x.softmax(dim=1).numpy(), torch.linspace(0, 1, 10).numpy()
    pairs = itertools.product(masses, masses)
    expected = torch.tensor([wasserstein_distance(positions, positions, a, b) for a, b in pairs])
    exact = SinkhornDistance(measure="histogram", exact=True)(x)
    torch.testing.assert_close(exact, expected.view(4, 4), rtol=1e-6, atol=1e-9)
    entropic = SinkhornDistance(measure="histogram", epsilon=2e-3)(x)
    torch.testing.assert_close(entropic, exact, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("p", [1, 2])
def test_without_debiasing_it_is_the_entropic_cost(p: int) -> None:
    x = torch.nn.functional.normalize(batch(3, 4, 3), dim=2)
    expected = [
        [
            float(
                ot.solve(
                    torch.cdist(a, b).pow(p).numpy(), reg=1.0, reg_type="KL", tol=1e-10, max_iter=1000
                ).value
            )
            for b in x
        ]
        for a in x
    ]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(
        SinkhornDistance(p, 1.0, debias=False)(x), expected ** (1 / p), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(
    "settings", [{}, {"p": 2}, {"exact": True}, {"measure": "atoms", "atoms": 4}], ids=str
)
def test_losses_are_the_plain_loops_of_the_paper(settings: dict) -> None:
    x = embeddings(settings.get("measure", "features"))
    d = SinkhornDistance(**settings)(x).numpy()
    expected = definitions.contrastive(d, LABELS.tolist(), 0.8)
    assert float(WassersteinContrastiveLoss(0.8, **settings)(x, LABELS)) == pytest.approx(expected, rel=1e-6)
    expected = definitions.triplet(d, LABELS.tolist(), 0.1)
    assert float(WassersteinTripletLoss(0.1, **settings)(x, LABELS)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "settings",
    [
        *({"p": p, "epsilon": 0.2, **reading} for p in (1, 2) for reading in READINGS),
        {"debias": False},
        {"p": 2, "debias": False},
        {"exact": True},
        {"p": 2, "exact": True},
        {"exact": True, "measure": "histogram"},
    ],
    ids=str,
)
def test_gradient_is_that_of_finite_differences(loss: type, settings: dict) -> None:
    x = embeddings(settings.get("measure", "features"), 4)
    labels = torch.tensor([0, 0, 1, 1])
    assert gradient_agrees(lambda t: loss(1.5, **settings)(t, labels), x)


def test_triplet_loss_tends_to_that_of_exact_transport() -> None:
    x = batch(8, 5, 3)
    exact = float(WassersteinTripletLoss(exact=True)(x, LABELS))
    gaps = [abs(float(WassersteinTripletLoss(epsilon=e)(x, LABELS)) - exact) for e in (0.3, 0.03, 0.003)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 5e-3 * exact


def test_the_distance_is_asked_for_each_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def spy(x: torch.Tensor, y: torch.Tensor, *rest: object) -> torch.Tensor:
        calls.append(x is y)
        return pairwise_sinkhorn_divergence(x, y, *rest)

    monkeypatch.setattr(wasserstein, "pairwise_sinkhorn_divergence", spy)
    for loss in LOSSES:
        loss()(batch(8, 4, 3), LABELS)
    assert calls == [True, True]


@pytest.mark.parametrize(
    "loss",
    [
        losses.MarginLoss,
        losses.MultiSimilarityLoss,
        losses.NTXentLoss,
        losses.GeneralizedLiftedStructureLoss,
        losses.LiftedStructureLoss,
        lambda **parts: losses.TripletMarginLoss(
            swap=True, reducer=reducers.ThresholdReducer(low=0), **parts
        ),
        lambda **parts: losses.ContrastiveLoss(reducer=reducers.PerAnchorReducer(), **parts),
    ],
)
def test_mixes_with_losses_and_reducers_of_the_library(loss: type) -> None:
    value, gradient = value_and_gradient(loss(distance=SinkhornDistance()), batch(8, 4, 3), LABELS)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize(
    "miner",
    [
        miners.BatchHardMiner,
        miners.TripletMarginMiner,
        miners.MultiSimilarityMiner,
        miners.BatchEasyHardMiner,
    ],
)
def test_mixes_with_miners_of_the_library(miner: type) -> None:
    x, distance = batch(8, 4, 3), SinkhornDistance()
    pairs = miner(distance=distance)(x, LABELS)
    assert len(pairs[0])
    assert WassersteinTripletLoss()(x, LABELS, pairs).isfinite()
    if miner is miners.BatchHardMiner:
        apart = distance(x).masked_fill(LABELS.unsqueeze(1) == LABELS, torch.inf)
        torch.testing.assert_close(pairs[2], apart.argmin(dim=1)[pairs[0]])


def test_a_few_steps_pull_classes_apart() -> None:
    x = batch(8, 4, 3).requires_grad_(True)
    loss = WassersteinTripletLoss()
    optimiser = torch.optim.Adam([x], lr=0.05)
    first = float(loss(x, LABELS).detach())
    for _ in range(30):
        optimiser.zero_grad()
        loss(x, LABELS).backward()
        optimiser.step()
    assert float(loss(x, LABELS).detach()) < 0.1 * first


@pytest.mark.parametrize(
    "settings", [{}, {"p": 2}, {"exact": True}, {"p": 2, "exact": True}, {"debias": False}], ids=str
)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "case", ["equal", "zero", "one zero feature", "one class", "one image each", "one image", "twins", "huge"]
)
def test_odd_batches_have_finite_values_and_gradients(
    case: str, dtype: torch.dtype, loss: type, settings: dict
) -> None:
    x, labels = batch(8, 4, 3, dtype=dtype), LABELS
    if case == "equal":
        x = torch.ones_like(x)
    elif case == "zero":
        x = torch.zeros_like(x)
    elif case == "one zero feature":
        x[0, 0] = 0
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
    value, gradient = value_and_gradient(loss(**settings), x, labels)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert float(gradient.abs().max()) < 1e3
    if case == "one image" or (
        case.startswith("one ") and loss is WassersteinTripletLoss and "zero" not in case
    ):
        assert float(value) == 0


@pytest.mark.filterwarnings("ignore:.*entropic transport plans")
def test_costs_of_many_epsilons_stay_finite() -> None:
    distance = SinkhornDistance(normalize_embeddings=False)
    found = distance(1e5 * batch(4, 5, 3))
    exact = SinkhornDistance(normalize_embeddings=False, exact=True)(1e5 * batch(4, 5, 3))
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_bad_batches_are_refused(loss: type) -> None:
    x = batch(8, 4, 3)
    for labels in (LABELS[:7], LABELS.double(), LABELS.unsqueeze(1)):
        with pytest.raises(ValueError, match="labels must be 8 whole numbers"):
            loss()(x, labels)
    with pytest.raises(ValueError, match="embeddings of image 3 has a NaN"):
        loss()(x.index_fill(0, torch.tensor(3), torch.nan), LABELS)
    with pytest.raises(ValueError, match='measure="features"'):
        loss()(x[:, 0], LABELS)
    with pytest.raises(ValueError, match="atoms=5 must divide the 12 dimensions"):
        loss(measure="atoms", atoms=5)(x.flatten(1), LABELS)
    with pytest.raises(ValueError, match="float32 or float64"):
        loss()(x.half(), LABELS)
    with pytest.raises(ValueError, match="without an empty axis"):
        loss()(x[:, :0], LABELS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0}, "epsilon must be a finite number above 0"),
        ({"epsilon": torch.nan}, "epsilon"),
        ({"p": 3}, "p must be one of 1, 2"),
        ({"measure": "pixels"}, "measure must be one of"),
        ({"atoms": 0}, "atoms must be a whole number"),
        ({"margin": -1}, "margin must be"),
        ({"measure": "histogram", "exact": True, "p": 2}, "exact histograms"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    for loss in LOSSES:
        with pytest.raises(ValueError, match=message):
            loss(**settings)


def test_exact_transport_needs_sets_of_one_size() -> None:
    with pytest.raises(ValueError, match="sets of one size, got 4 and 5"):
        SinkhornDistance(exact=True)(batch(2, 4, 3), batch(2, 5, 3))


@pytest.mark.parametrize("kind", [WassersteinTripletLoss, WassersteinContrastiveLoss])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("margin", math.nan),
        ("margin", math.inf),
        ("margin", -0.1),
        ("margin", "1"),
        ("margin", True),
        ("epsilon", math.nan),
        ("epsilon", 0),
        ("p", 3),
        ("p", True),
        ("measure", "masses"),
        ("atoms", 2.5),
        ("debias", "no"),
        ("exact", 1),
    ],
)
def test_every_setting_is_checked(kind: type, key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{key} must be"):
        kind(**{key: value})


@pytest.mark.parametrize("exact", [False, True])
def test_a_far_image_does_not_make_the_others_equal(exact: bool) -> None:
    """What is rounding for one pair is a distance for another."""
    x = batch(4, 3, 2)
    x[3] *= 1e9
    distance = SinkhornDistance(p=2, epsilon=1e9, exact=exact, normalize_embeddings=False)
    alone, together = distance(x[:3].clone()), distance(x)[:3, :3]
    assert alone[0, 1] > 0.1
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", [WassersteinTripletLoss, WassersteinContrastiveLoss])
def test_lengths_that_overflow_and_complex_labels_are_refused(kind: type) -> None:
    """The norm of 1e160 is infinite, and a vector divided by it is 0: all distances were 0."""
    x = batch(8, 4, 3)
    with pytest.raises(ValueError, match="squares overflow"):
        kind()(1e160 * x, LABELS)
    with pytest.raises(ValueError, match="squares overflow"):
        SinkhornDistance()(1e160 * x)
    with pytest.raises(ValueError, match="labels must be 8 whole numbers"):
        kind()(x, LABELS + 1j)

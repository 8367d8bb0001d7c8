"""AE-SVC: its loss is equations 1 to 5, its constraints are met where they can be."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from torch import Tensor, nn

from retrieval_geometry.projections import (
    AESVC,
    VAE,
    PCAWhitening,
    Projection,
    constraint_losses,
    covariance_floor,
)
from retrieval_geometry.projections._objective import Objective
from retrieval_geometry.projections._trained import References
from retrieval_geometry.projections.variational import gaussian_divergence

from .common import cosines, references
from .test_constraints import transcription

WEIGHTS = {"rec": 25.0, "cov": 1.0, "var": 15.0, "mean": 1.0}
QUICK = {"epochs": 3, "depth": 2}


def objective(x: Tensor, constraint: str = "batch", momentum: float = 0.0) -> Objective:
    """The same two small networks each time."""
    torch.manual_seed(0)
    parts = {"encoder": nn.Linear(6, 4), "decoder": nn.Linear(4, 6)}
    network = nn.ModuleDict(parts).to(x.dtype)
    return Objective(network, References(x, AESVC(held_out=0.0)), WEIGHTS, constraint, momentum)


def gradient(work: Objective, batches: list[Tensor]) -> tuple[float, Tensor]:
    """Value and gradient of all terms of an epoch together."""
    total = 0.0
    for term, _ in work.terms(batches):
        term.backward()
        total += float(term.detach())
    parts = [p.grad.flatten() for net in (work.encoder, work.decoder) for p in net.parameters()]
    return total, torch.cat(parts)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_loss_is_that_of_equations_1_to_5(dtype: torch.dtype, tolerance: float) -> None:
    x = references(20, 6).to(dtype)
    work = objective(x)
    ((found, _),) = list(work.terms([torch.arange(20)]))
    z = work.encoder(x)
    decoded = work.decoder(z)
    rec = sum(float((x[i] - decoded[i]).detach().double().square().sum()) for i in range(20)) / 20
    parts = transcription(z.detach())
    expected = 25 * rec + parts["cov"] + 15 * parts["var"] + parts["mean"]
    assert float(found.detach()) == pytest.approx(expected, rel=tolerance)


def test_the_full_set_in_batches_has_the_gradient_of_one_batch() -> None:
    x = references(20, 6)
    order = torch.randperm(20)
    whole = gradient(objective(x), [order])
    found = gradient(objective(x, "full"), list(order.split(7)))
    assert found[0] == pytest.approx(whole[0], rel=1e-12)
    torch.testing.assert_close(found[1], whole[1])


def test_the_full_set_is_one_step_and_batches_are_one_each() -> None:
    x, parts = references(20, 6), list(torch.arange(20).split(7))
    assert [step for _, step in objective(x, "full").terms(parts)] == [False, False, True]
    assert [step for _, step in objective(x).terms(parts)] == [True, True, True]


def test_running_moments_without_memory_are_those_of_the_batch() -> None:
    x, parts = references(20, 6), list(torch.arange(20).split(10))
    batch, running = (gradient(objective(x, kind), parts) for kind in ("batch", "running"))
    assert running[0] == pytest.approx(batch[0], rel=1e-12)
    torch.testing.assert_close(running[1], batch[1])


def test_running_moments_remember() -> None:
    """Twice the same batch is that batch; small batches come nearer to the loss of all than each alone."""
    x = references(40, 6)
    work = objective(x, "running", momentum=0.9)
    first, second = (float(term.detach()) for term, _ in work.terms([torch.arange(20)] * 2))
    assert second == pytest.approx(first, rel=1e-12)
    parts = list(torch.arange(40).split(2)) * 20
    last = [float(t.detach()) for t, _ in objective(x, "running", 0.95).terms(parts)][-20:]
    alone = [float(t.detach()) for t, _ in objective(x).terms(parts)][-20:]
    whole = gradient(objective(x), [torch.arange(40)])[0]
    assert abs(np.mean(last) - whole) < 0.3 * abs(np.mean(alone) - whole)


def test_a_linear_one_finds_the_closed_form() -> None:
    """Whitened principal axes, up to a rotation: no constraint is left, and the cosines are those."""
    x = references(200, 4)
    model = AESVC(
        activation="identity", depth=1, standardize=True, lr=0.02, epochs=600, patience=600, held_out=0.0
    ).fit(x)
    assert model.residuals_["cov"] < 1e-2
    assert model.residuals_["rec"] < 1e-2
    expected = cosines(PCAWhitening().fit_transform(x))
    before, after = (float((cosines(y) - expected).abs().mean()) for y in (x, model.transform(x)))
    assert after < 0.05 * before


def test_residuals_are_those_of_all_references() -> None:
    x = references(50, 6)
    model = AESVC(latent=3, **QUICK).fit(x)
    found = constraint_losses(model.transform(x))
    for name, value in found.items():
        assert model.residuals_[name] == pytest.approx(float(value), rel=1e-9), name
    rec = float((x - model.reconstruct(x)).square().sum(dim=1).mean())
    assert model.residuals_["rec"] == pytest.approx(rec, rel=1e-9)
    assert model.residuals_["floor"] == 0


def test_a_batch_below_the_dimension_is_told_and_cannot_do_better() -> None:
    x = references(40, 12)
    with pytest.warns(
        UserWarning, match=r"of 5 vectors in 12 dimensions cannot fall below 8; take constraint"
    ):
        AESVC(batch_size=5, **QUICK).fit(x)
    with pytest.warns(UserWarning, match="take a smaller latent"):
        model = AESVC(**QUICK).fit(references(10, 12))
    assert model.residuals_["floor"] == covariance_floor(10, 12) == 3
    assert model.residuals_["cov"] >= 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AESVC(**QUICK).fit(x)  # the default batch has all 36 that are trained on
        AESVC(batch_size=5, constraint="running", **QUICK).fit(x)
        AESVC(batch_size=5, constraint="full", **QUICK).fit(x)


@pytest.mark.parametrize("constraint", ["batch", "running", "full"])
def test_training_brings_the_loss_down(constraint: str) -> None:
    model = AESVC(constraint=constraint, depth=1, batch_size=20, lr=0.02, epochs=40, patience=40)
    for losses in model.fit(references(60, 4)).history_.values():
        assert min(losses) < 0.5 * losses[0]


@pytest.mark.parametrize("model", [AESVC(**QUICK), VAE(**QUICK)], ids=repr)
def test_the_same_again_and_the_callers_random_state_is_left_alone(model: Projection) -> None:
    x = references(dtype=torch.float32)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (clone(model).fit_transform(x) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    other = clone(model).set_params(random_state=1).fit_transform(x)
    assert not torch.allclose(other, first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("model", [AESVC(latent=3, **QUICK), VAE(latent=3, **QUICK)], ids=repr)
def test_dtype_and_kind_follow_the_input(model: Projection, dtype: torch.dtype) -> None:
    x = references(dtype=dtype)
    tensor, array = (clone(model).fit_transform(given) for given in (x, x.numpy()))
    assert tensor.dtype == dtype
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(tensor.numpy(), array)
    assert model.fit(x).transform(x.float()).dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("model", [AESVC(latent=3, epochs=3), VAE(latent=3, epochs=3)], ids=repr)
def test_a_gpu_agrees_with_the_cpu(model: Projection) -> None:
    x = references()
    here, there = clone(model).fit_transform(x), clone(model).fit_transform(x.cuda())
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-4)


def test_no_row_depends_on_those_beside_it() -> None:
    x = references()
    model = AESVC(**QUICK).fit(x)
    found = torch.cat([model.transform(x[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(found, model.transform(x))


def test_training_stops_when_the_held_out_loss_does_not_fall() -> None:
    model = AESVC(epochs=500, patience=3, lr=0.1).fit(references())
    held = model.history_["held_out"]
    assert len(held) < 500
    assert len(model.history_["train"]) == len(held) == held.index(min(held)) + 4


def test_the_weights_are_those_of_the_best_epoch() -> None:
    x = references()
    long = AESVC(epochs=500, patience=3, lr=0.1).fit(x)
    best = long.history_["held_out"].index(min(long.history_["held_out"]))
    short = AESVC(epochs=best + 1, patience=500, lr=0.1).fit(x)
    assert torch.equal(short.transform(x), long.transform(x))


def test_nothing_is_held_out_on_request() -> None:
    model = AESVC(held_out=0.0, latent=1, **QUICK).fit(references(2))
    assert model.history_["held_out"] == []
    assert len(model.history_["train"]) == 3


def test_an_interrupted_fit_leaves_the_former_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x = references()
    model = AESVC(**QUICK).fit(x)
    before = model.transform(x)

    def interrupt(self: Objective) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(Objective, "held_out", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(latent=2).fit(x)
    assert torch.equal(model.transform(x), before)
    fresh = AESVC(**QUICK)
    with pytest.raises(KeyboardInterrupt):
        fresh.fit(x)
    with pytest.raises(NotFittedError):
        fresh.transform(x)


@pytest.mark.parametrize("model", [AESVC(standardize=True, **QUICK), VAE(**QUICK)], ids=repr)
def test_standardised_input_has_no_unit(model: Projection) -> None:
    x = references()
    scales = torch.logspace(-3, 3, 6).double()
    first = clone(model).fit_transform(x)
    torch.testing.assert_close(clone(model).fit_transform(x * scales + 7), first, rtol=1e-5, atol=1e-7)


def test_constant_and_repeated_coordinates_are_no_obstacle() -> None:
    x = torch.cat([references(), torch.full((60, 2), 3.0).double()], dim=1)
    for standardize in (True, False):
        model = AESVC(standardize=standardize, **QUICK).fit(torch.cat([x, x]))
        assert bool(model.transform(x).isfinite().all())
        assert bool(model.reconstruct(x).isfinite().all())


def test_large_references_are_read_from_their_file(monkeypatch: pytest.MonkeyPatch) -> None:
    x = references().numpy()
    expected = AESVC(**QUICK).fit(x)
    monkeypatch.setattr("retrieval_geometry.projections._trained.HELD_BYTES", 0)
    monkeypatch.setattr("retrieval_geometry.projections._rows.BLOCK_BYTES", 500)
    found = AESVC(**QUICK).fit(x)
    assert found.history_ == expected.history_
    assert found.residuals_ == pytest.approx(expected.residuals_, rel=1e-9)


def test_they_are_transformers_of_scikit_learn() -> None:
    x = references().numpy()
    for model in (AESVC(latent=3, weights=(1, 2, 3, 4), **QUICK), VAE(latent=2, beta=0.5, **QUICK)):
        assert clone(model).get_params() == model.get_params()
        pipeline = make_pipeline(PCAWhitening(0.0), model).fit(x)
        assert pipeline.transform(x).shape == (60, model.latent)


def test_the_divergence_is_that_of_torch() -> None:
    mean, log_variance = references(5, 3), references(5, 3, seed=1)
    normals = torch.distributions.Normal(mean, (log_variance / 2).exp())
    standard = torch.distributions.Normal(torch.zeros(3).double(), torch.ones(3).double())
    expected = torch.distributions.kl_divergence(normals, standard).sum(dim=1)
    torch.testing.assert_close(gaussian_divergence(mean, log_variance), expected)


def test_a_heavy_prior_empties_the_latent_space() -> None:
    x = references(100, 4)
    spreads = [
        float(VAE(latent=2, beta=beta, lr=0.01, epochs=60).fit_transform(x).std(dim=0).max())
        for beta in (0.01, 100.0)
    ]
    assert spreads[0] > 2 * spreads[1]


SETTINGS = [
    ({"depth": 0}, "depth must be"),
    ({"epochs": 0}, "epochs must be"),
    ({"patience": 0}, "patience must be"),
    ({"hidden": 0}, "hidden must be"),
    ({"batch_size": 1}, "batch_size must be"),
    ({"threads": 0}, "threads must be"),
    ({"latent": 0}, "latent must be"),
    ({"lr": 0.0}, "lr must be"),
    ({"held_out": 0.7}, "held_out must be"),
    ({"activation": "tanh"}, "activation must be one of relu, identity"),
    ({"standardize": 1}, "standardize must be True or False"),
    ({"random_state": -1}, "random_state must be"),
    ({"device": "nowhere"}, "device 'nowhere' is not usable"),
]
BAD = [
    *((kind(**settings), references(), message) for kind in (AESVC, VAE) for settings, message in SETTINGS),
    (AESVC(weights=(1, 2, 3)), references(), "weights must be four numbers"),
    (AESVC(weights=(1, 2, 3, -1)), references(), "weights must be"),
    (AESVC(constraint="epoch"), references(), "constraint must be one of batch, running, full"),
    (AESVC(momentum=1.0), references(), "momentum must be"),
    (VAE(beta=-1), references(), "beta must be"),
    *((kind(), x, message) for kind in (AESVC, VAE) for x, message in (
        (references(1), "X must have at least 4 row(s), of which two are held out, got 1"),
        (torch.ones(9, 3), "all alike"),
        (references().index_fill(0, torch.tensor([7]), torch.nan), "X of row 7 has a NaN"),
        (references()[0], "X must have shape (n, d)"),
    )),
]  # fmt: skip


@pytest.mark.parametrize(("model", "x", "message"), BAD, ids=[f"{type(m).__name__} {t}" for m, _, t in BAD])
def test_bad_input_is_named(model: Projection, x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(x)


@pytest.mark.parametrize("model", [AESVC(**QUICK), VAE(**QUICK)], ids=repr)
def test_a_loss_that_is_no_longer_finite_is_told(model: Projection) -> None:
    x = references(dtype=torch.float32)
    with pytest.raises(ValueError, match="lr = 1e\\+30; try a lower lr"):
        clone(model).set_params(lr=1e30).fit(x)


@pytest.mark.parametrize("model", [AESVC(**QUICK), VAE(**QUICK)], ids=repr)
def test_what_is_fitted_is_projected_and_nothing_else(model: Projection) -> None:
    x = references()
    with pytest.raises(NotFittedError):
        clone(model).transform(x)
    fitted = clone(model).fit(x)
    with pytest.raises(ValueError, match="rows of length 6"):
        fitted.transform(x[:, :5])
    with pytest.raises(ValueError, match="to project, got 0"):
        fitted.transform(x[:0])

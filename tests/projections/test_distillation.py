"""(SS)2D and SSD: every prefix learns the similarities of its teacher."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from torch import Tensor

from retrieval_geometry.projections import SS2D, SSD, PCAWhitening, nested_similarity_loss

from .common import references

SIZES = [2, 4]
QUICK = {"epochs": 3, "depth": 2}


def divergences(z: Tensor, teacher: Tensor) -> list[float]:
    return [float(nested_similarity_loss(z[:, :m], teacher, [m])) for m in SIZES]


LONG = {"depth": 1, "lr": 0.02, "epochs": 80, "held_out": 0.0}


def test_prefixes_are_nearer_to_the_teacher_than_principal_axes() -> None:
    x = references(100, 8)
    z = SS2D(SIZES, **LONG).fit_transform(x)
    axes = PCAWhitening(0.0).fit_transform(x)
    for learnt, principal in zip(divergences(z, x), divergences(axes, x), strict=True):
        assert learnt < principal


def test_the_first_loss_is_that_of_equation_7_over_rows_and_sizes() -> None:
    x = references(40, 6)
    model = SS2D(SIZES, depth=1, epochs=1, lr=1e-12, held_out=0.0).fit(x)
    expected = float(nested_similarity_loss(model.transform(x), x, SIZES)) / (40 * 2)
    assert model.history_["train"][0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("batch_size", [None, 10, 3])
def test_the_held_out_loss_is_over_its_rows(batch_size: int | None) -> None:
    x = references(50, 6)
    model = SS2D(SIZES, batch_size=batch_size, **QUICK).fit(x)
    assert len(model.history_["held_out"]) == 3
    assert all(0 < value < 100 for value in model.history_["held_out"])


def test_another_teacher_is_learnt_from() -> None:
    x = references(100, 8)
    teacher = PCAWhitening().fit_transform(x)
    own, other = (SS2D(SIZES, **LONG).fit(x, y).transform(x) for y in (None, teacher))
    assert divergences(other, teacher)[1] < divergences(own, teacher)[1]
    assert divergences(own, x)[1] < divergences(other, x)[1]
    assert SS2D(SIZES, **QUICK).fit(x, teacher[:, :5].numpy()).transform(x).shape == (100, 4)


def test_a_size_is_a_prefix() -> None:
    x = references()
    model = SS2D(SIZES, **QUICK).fit(x)
    z = model.transform(x)
    assert z.shape == (60, 4)
    assert torch.equal(model.transform(x, size=2), z[:, :2])
    out = np.zeros((60, 2))
    assert model.transform(x, out=out, size=2) is out
    np.testing.assert_array_equal(out, z[:, :2].numpy())


def test_ssd_is_one_model_a_size() -> None:
    x = references()
    model = SSD(SIZES, **QUICK).fit(x)
    for size in SIZES:
        alone = SS2D([size], **QUICK).fit(x)
        assert torch.equal(model.transform(x, size=size), alone.transform(x))
    assert model.transform(x).shape == (60, 4)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(model.transform(x)[:, :2], model.transform(x, size=2))


def test_reverse_and_temperature_are_used() -> None:
    x = references()
    plain = SS2D(SIZES, **QUICK).fit_transform(x)
    for settings in ({"reverse": True}, {"temperature": 0.5}):
        assert not torch.allclose(SS2D(SIZES, **settings, **QUICK).fit_transform(x), plain)


@pytest.mark.parametrize("kind", [SS2D, SSD])
def test_the_same_again(kind: type[SS2D]) -> None:
    x = references(dtype=torch.float32)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (kind(SIZES, **QUICK).fit_transform(x) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.dtype == torch.float32


@pytest.mark.gpu
def test_a_gpu_agrees_with_the_cpu() -> None:
    x = references()
    here, there = (SS2D(SIZES, epochs=3).fit_transform(given) for given in (x, x.cuda()))
    torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-4)


def test_it_is_a_transformer_of_scikit_learn() -> None:
    x = references().numpy()
    for model in (SS2D(SIZES, **QUICK), SSD(SIZES, **QUICK)):
        assert clone(model).get_params() == model.get_params()
        assert make_pipeline(PCAWhitening(), model).fit(x).transform(x).shape == (60, 4)


ROW = torch.tensor([3])
BAD = [
    ({"sizes": []}, references(), None, "sizes must be a list"),
    ({"sizes": [0, 2]}, references(), None, "sizes must be from 1, got 0"),
    ({"sizes": [2, 7]}, references(), None, "sizes must be from 1 to 6, the dimension, got 7"),
    (
        {"sizes": [4, 2]},
        references(),
        None,
        "sizes must ascend without repetition, got [4, 2]; give sizes=[2, 4]",
    ),
    ({"sizes": [2, 2]}, references(), None, "sizes must ascend"),
    ({"temperature": 0}, references(), None, "temperature must be"),
    ({"reverse": "yes"}, references(), None, "reverse must be"),
    ({"epochs": 0}, references(), None, "epochs must be"),
    ({}, references(1), None, "X must have at least 4 row(s)"),
    (
        {},
        references(),
        references(59),
        "y (the teacher) must have a row for each of the 60 references, got 59",
    ),
    ({}, references(), torch.arange(60), "y (the teacher) must be float32 or float64"),
    ({}, references(), np.arange(60), "y (the teacher) must have shape (n, d)"),
    ({}, references(), references().index_fill(0, ROW, torch.nan), "y (the teacher) of row 3 has a NaN"),
    ({}, references(), references().index_fill(0, ROW, 0.0), "y (the teacher) of row 3 is zero"),
    ({}, references().index_fill(0, ROW, 0.0), None, "X of row 3 is zero"),
]


@pytest.mark.parametrize("kind", [SS2D, SSD])
@pytest.mark.parametrize(("settings", "x", "y", "message"), BAD, ids=[message for *_, message in BAD])
def test_bad_input_is_named(
    kind: type[SS2D], settings: dict[str, object], x: Tensor, y: object, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(**{"sizes": SIZES, **settings}).fit(x, y)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [SS2D, SSD])
def test_what_is_fitted_is_projected_and_nothing_else(kind: type[SS2D]) -> None:
    x = references()
    with pytest.raises(NotFittedError):
        kind(SIZES).transform(x)
    model = kind(SIZES, **QUICK).fit(x)
    with pytest.raises(ValueError, match=re.escape("size must be one of the trained sizes [2, 4], got 3")):
        model.transform(x, size=3)
    with pytest.raises(ValueError, match="rows of length 6"):
        model.transform(x[:, :5])
    with pytest.raises(ValueError, match="to project, got 0"):
        model.transform(x[:0])

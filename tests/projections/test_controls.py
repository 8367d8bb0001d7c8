"""Controls: rotations, truncation, all but the top, codes."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from retrieval_geometry.projections import (
    AllButTheTop,
    PCAWhitening,
    ProductQuantization,
    Projection,
    RandomRotation,
    Truncation,
)

from .common import cosines, references


def test_the_top_axes_are_gone_and_nothing_else() -> None:
    x = references(80, 6)
    found = AllButTheTop(2).fit_transform(x)
    axes = PCAWhitening(0.0).fit(x).matrix_
    torch.testing.assert_close(found @ axes[:2].mT, torch.zeros(80, 2).double())
    torch.testing.assert_close(found @ axes[2:].mT, (x - x.mean(dim=0)) @ axes[2:].mT)


@pytest.mark.parametrize(("dim", "removed"), [(3, 1), (149, 1), (300, 3)])
def test_one_axis_of_a_hundred_is_removed(dim: int, removed: int) -> None:
    matrix = AllButTheTop().fit(references(400, dim)).matrix_
    assert round(dim - float(matrix.trace())) == removed


def test_a_rotation_changes_no_cosine_and_is_drawn_from_its_seed() -> None:
    x = references()
    first, again, other = (RandomRotation(random_state=seed).fit(x) for seed in (1, 1, 2))
    torch.testing.assert_close(cosines(first.transform(x)), cosines(x))
    assert torch.equal(first.matrix_, again.matrix_)
    assert not torch.allclose(first.matrix_, other.matrix_)
    assert torch.equal(RandomRotation(2, random_state=1).fit(x).matrix_, first.matrix_[:2])


def test_rotations_are_uniform() -> None:
    """Mezzadri 2007: without the signs of R the first entry would never be positive."""
    first = [
        float(RandomRotation(random_state=seed).fit(references(2, 3)).matrix_[0, 0]) for seed in range(40)
    ]
    assert 8 < sum(entry > 0 for entry in first) < 32


def test_truncation_keeps_the_first_coordinates() -> None:
    x = references()
    assert torch.equal(Truncation(2).fit_transform(x), x[:, :2])
    assert torch.equal(Truncation().fit_transform(x), x)


def test_codes_name_the_nearest_centres() -> None:
    x = references(300, 5, dtype=torch.float32)
    model = ProductQuantization(n_bytes=2).fit(x)
    codes = model.codes(x)
    assert codes.dtype == torch.uint8
    assert model.centres_.shape == (2, 256, 3)  # five coordinates and a zero
    padded = torch.cat([x, torch.zeros(300, 1)], dim=1).view(300, 2, 3)
    for part in range(2):
        nearest = torch.cdist(padded[:, part], model.centres_[part]).argmin(dim=1)
        assert torch.equal(nearest.to(torch.uint8), codes[:, part])
        decoded = model.transform(x)[:, 3 * part : 3 * part + 3]
        assert torch.equal(decoded, model.centres_[part][nearest][:, : decoded.shape[1]])


def test_more_bytes_lose_less_and_one_a_coordinate_next_to_nothing() -> None:
    x = references(400, 8, dtype=torch.float32)
    losses = [
        float((ProductQuantization(n).fit_transform(x) - x).square().sum() / x.square().sum())
        for n in (1, 2, 8)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 1e-3


BAD = [
    (AllButTheTop(6), references(), "n_removed must be below 6"),
    (AllButTheTop(-1), references(), "n_removed must be"),
    (AllButTheTop(), references(1), "X must have at least 2 row(s)"),
    (AllButTheTop(), torch.ones(4, 3), "all alike"),
    (RandomRotation(9), references(), "n_components must be at most 6"),
    (RandomRotation(random_state="0"), references(), "random_state must be"),
    (Truncation(9), references(), "n_components must be at most 6"),
    (Truncation(), references(0), "X must have at least 1 row(s)"),
    (ProductQuantization(7), references(300), "n_bytes must be at most 6"),
    (ProductQuantization(0), references(300), "n_bytes must be"),
    (ProductQuantization(2), references(255), "X must have at least 256 row(s) for 256 centres"),
    (ProductQuantization(2), references(300).index_fill(0, torch.tensor([290]), torch.nan), "row 290"),
]


@pytest.mark.parametrize(("model", "x", "message"), BAD, ids=[message for *_, message in BAD])
def test_bad_input_is_named(model: Projection, x: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(x)


@pytest.mark.parametrize(
    "model", [AllButTheTop(), RandomRotation(3), Truncation(3), ProductQuantization(3)], ids=repr
)
def test_arrays_and_tensors_give_the_same(model: Projection) -> None:
    x = references(300)
    found = model.fit_transform(x.numpy())
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, model.fit_transform(x).numpy())

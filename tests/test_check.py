"""The checks at the door: what passes, what is refused, and with which words."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from retrieval_geometry import _check, _covariances, _tolerances


def test_floating() -> None:
    for dtype in (torch.float32, torch.float64):
        x = torch.zeros(2, dtype=dtype)
        assert _check.check_floating(x, "x") is x
    for dtype in (torch.int64, torch.float16, torch.complex64):
        with pytest.raises(ValueError, match=rf"x must be float32 or float64, got {dtype}"):
            _check.check_floating(torch.zeros(2, dtype=dtype), "x")
    with pytest.raises(ValueError, match="x must be a torch tensor, got list"):
        _check.check_floating([1.0], "x")  # type: ignore[arg-type]


def test_shape() -> None:
    x = torch.zeros(2, 3)
    assert _check.check_shape(x, "x", ("images", 3)) is x
    for wrong in (torch.zeros(2), torch.zeros(2, 4), torch.zeros(0, 3), torch.zeros(2, 3, 1)):
        with pytest.raises(ValueError, match=r"x must have shape \(images, 3\) without an empty axis, got"):
            _check.check_shape(wrong, "x", ("images", 3))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2)])
def test_finite_names_the_image(value: float, shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape)
    assert _check.check_finite(x, "x") is x
    x[2] = value
    with pytest.raises(ValueError, match="x of image 2 has a NaN or infinite value"):
        _check.check_finite(x, "x")
    with pytest.raises(ValueError, match="x of picture 2 has"):
        _check.check_finite(x, "x", _check.ImageName(kind="picture"))


def test_finite_is_not_misled_by_sums() -> None:
    """The sum of a row can overflow, and infinities can meet, without and with a wrong value."""
    largest = torch.finfo(torch.float32).max
    _check.check_finite(torch.full((2, 3), largest), "x")
    with pytest.raises(ValueError, match="image 1"):
        _check.check_finite(torch.tensor([[largest, largest], [torch.inf, -torch.inf]]), "x")
    _check.check_finite(torch.zeros(0, 3), "x")


def test_same_kind() -> None:
    _check.check_same_kind([torch.zeros(1), torch.ones(2)], "p and q")
    with pytest.raises(
        ValueError, match=r"p and q must share one dtype and one device, got torch\.float32 on"
    ):
        _check.check_same_kind([torch.zeros(1), torch.zeros(1).double()], "p and q")


def test_number() -> None:
    assert _check.check_number(0.5, "s", at_least=0, at_most=1) == 0.5
    assert _check.check_number(0, "s", at_least=0) == 0
    for wrong in (-0.1, 1.1, float("nan"), float("inf"), "1", True, None):
        with pytest.raises(ValueError, match="s must be a finite number at least 0 and at most 1, got"):
            _check.check_number(wrong, "s", at_least=0, at_most=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="s must be a finite number above 0, got 0"):
        _check.check_number(0, "s", above=0)
    with pytest.raises(ValueError, match="s must be a finite number, got inf"):
        _check.check_number(float("inf"), "s")


def test_count() -> None:
    assert _check.check_count(3, "k", at_most=3) == 3
    for wrong in (0, 4, 2.0, True, "2"):
        with pytest.raises(ValueError, match="k must be a whole number from 1 to 3, got"):
            _check.check_count(wrong, "k", at_most=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="k must be a whole number at least 2, got 1"):
        _check.check_count(1, "k", at_least=2)


def test_choice() -> None:
    assert _check.check_choice("b", "name", ["a", "b"]) == "b"
    with pytest.raises(ValueError, match="name must be one of a, b; got 'c'"):
        _check.check_choice("c", "name", ["a", "b"])


def test_symmetric() -> None:
    x = torch.eye(3).repeat(3, 1, 1)
    assert _covariances.check_symmetric(x) is x
    x[1, 0, 2] = 0.5
    with pytest.raises(ValueError, match="cov of image 1 is not symmetric"):
        _covariances.check_symmetric(x)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_positive_definite_whatever_the_units(scale: float) -> None:
    """One variable in other units than the next is no reason to refuse."""
    cov = torch.diag(torch.tensor([1.0, scale, scale**2])).double().unsqueeze(0)
    factor = _covariances.cholesky_factor(cov)
    torch.testing.assert_close(factor @ factor.mT, cov)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [3, 20, 200])
def test_singular_is_refused_even_where_rounding_hides_it(dim: int, dtype: torch.dtype) -> None:
    """A repeated channel: half of the time its pivot comes out positive, by rounding alone."""
    generator = torch.Generator().manual_seed(dim)
    hidden = 0
    for _ in range(20):
        x = torch.randn(dim - 1, 2 * dim, generator=generator, dtype=dtype)
        x = torch.cat([x, x[:2].sum(dim=0, keepdim=True)])
        cov = (x @ x.mT).unsqueeze(0)
        cov = (cov + cov.mT) / 2
        hidden += int(torch.linalg.cholesky_ex(cov.double()).info) == 0
        with pytest.raises(ValueError, match=r"cov of image 0 is not positive definite.*shrink"):
            _covariances.cholesky_factor(cov.double(), precision=dtype)
    assert hidden > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coordinates_have_a_range(dtype: torch.dtype) -> None:
    low, high = _tolerances.COORDINATES[dtype]
    x = torch.tensor([[0.0, 0.0], [-1.0, 0.5]], dtype=dtype)
    for scale in (0.0, 1.01 * low, 1.0, 0.99 * high):
        assert _check.check_coordinates(scale * x, "x") is not None
    with pytest.raises(ValueError, match=r"x of image 1 has a coordinate of size .* squares overflow"):
        _check.check_coordinates(1.01 * high * x, "x")
    with pytest.raises(ValueError, match=r"x of image 1 has the largest coordinate .* squares vanish"):
        _check.check_coordinates(0.99 * low * x, "x")
    assert (x * high).square().sum().isfinite()
    assert (x * low * torch.finfo(dtype).eps).square().sum() > 0


def test_an_image_error_carries_side_and_index() -> None:
    """A caller that knows files names them, without a look at the words."""
    x = torch.eye(3).repeat(3, 1, 1)
    x[1, 0, 0] = torch.nan
    for name, image, side in ((_check.IMAGE, 1, None), (_check.ImageName("p", 4), 5, "p")):
        with pytest.raises(_check.ImageError) as caught:
            _check.check_finite(x, "cov of image 7", name)
        for error in (caught.value, pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
            assert (error.image, error.side) == (image, side)
            assert str(error).startswith(f"cov of image 7 of image {image}")
            assert str(error.called("image 3 of p.png")) == (
                "cov of image 7 of image 3 of p.png has a NaN or infinite value; remove that image or mend it"
            )


@pytest.mark.parametrize(
    ("refuse", "words"),
    [
        (lambda x, name: _covariances.check_symmetric(x, "cov", name), "is not symmetric"),
        (lambda x, name: _covariances.cholesky_factor(x, "cov", image_name=name), "is not positive definite"),
    ],
)
def test_matrices_are_refused_by_image(refuse: object, words: str) -> None:
    x = torch.eye(2).repeat(3, 1, 1)
    x[2] = torch.tensor([[1.0, 2.0], [3.0 if "symmetric" in words else 2.0, 1.0]])
    with pytest.raises(_check.ImageError, match=f"cov of image 12 of q {words}") as caught:
        refuse(x, _check.ImageName("q", 10))  # type: ignore[operator]
    assert (caught.value.side, caught.value.image) == ("q", 12)


def test_whole_labels() -> None:
    assert _check.is_whole(torch.zeros(2).long())
    for labels in (torch.zeros(2), torch.zeros(2) + 1j, [1, 2], None):
        assert not _check.is_whole(labels)

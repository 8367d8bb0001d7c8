"""A search is the full sort at every scale, for missing channels and few descriptors."""

from __future__ import annotations

import pytest
import torch

from retrieval_geometry.distances import GalleryIndex, covariance_only, rank
from retrieval_geometry.image_models import Gaussian, fit_gaussian
from tests.distances.searching import assert_is_searched_exactly, gaussians


def test_a_query_in_the_null_space_of_the_database() -> None:
    """The weights of the dual bound were zero, its bounds NaN, and what is NaN was passed over."""
    db = Gaussian(torch.arange(100.0)[:, None].flip(0), torch.zeros(100, 1, 1))
    q = Gaussian(torch.zeros(1, 1), torch.full((1, 1, 1), 9.0))
    assert rank(q, db, "wasserstein2", 3).indices.tolist() == [[99, 98, 97]]
    assert GalleryIndex(db).rank(q, 3).indices.tolist() == [[99, 98, 97]]
    assert rank(q, db, "wasserstein2", 3).evaluated.item() < 100


@pytest.mark.parametrize("leak", [0.0, 1e-300, 1e-160, 1e-16, 1e-9, 1e-4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_channels_that_are_missing_on_one_side(leak: float, dtype: torch.dtype) -> None:
    """Wholly or nearly; in the axes of the channels and turned."""
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(80, 6, 9, generator=generator, dtype=torch.float64)
    here = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)[:, None]
    q, p = factor * (here + leak), factor[:3] * (1 - here + leak)
    mean = torch.randn(80, 6, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(factor[0][:, :6]).Q
    for left, right in ((p, q), (turn @ p, turn @ q), (q[:3], p[torch.arange(80) % 3])):
        queries, images = (Gaussian(m, f @ f.mT).to(dtype) for m, f in ((mean[:3], left), (mean, right)))
        assert_is_searched_exactly(queries, images, "wasserstein2", 4)
        assert_is_searched_exactly(covariance_only(queries), covariance_only(images), "wasserstein2", 4)


@pytest.mark.parametrize("n_descriptors", [1, 2])
def test_one_descriptor_an_image(n_descriptors: int) -> None:
    """The covariances of the database are zero or of rank one, those of the queries are not."""
    x = torch.randn(80, 12, 5, generator=torch.Generator().manual_seed(0))
    points, spread = fit_gaussian(x[:, :n_descriptors]), fit_gaussian(x[:4])
    assert_is_searched_exactly(spread, points, "wasserstein2", 5)
    assert_is_searched_exactly(points[:4], fit_gaussian(x), "wasserstein2", 5)


@pytest.mark.parametrize("exponent", [-165, -150, -135, -70, 70, 140, 153])
def test_the_scale_of_covariances_does_not_matter(exponent: int) -> None:
    """Times 1e-165 ranks were wrong, times 1e153 an eigensolver failed."""
    images = gaussians("random", 80, 4, 8)
    factor = torch.linalg.cholesky(images.cov)
    for distance in ("wasserstein2_squared", "affine_invariant"):
        scaled = covariance_only(Gaussian(images.mean, images.cov * 10.0**exponent))
        assert_is_searched_exactly(scaled[:3], scaled, distance, 4)
    root = 10.0 ** (exponent / 2)
    carried = Gaussian(images.mean * root, (factor * root) @ (factor * root).mT, factor * root)
    assert_is_searched_exactly(carried[:3], carried, "wasserstein2", 4)
    assert_is_searched_exactly(images[:3], carried, "wasserstein2", 4)


@pytest.mark.parametrize(
    ("distance", "exponent"),
    [("wasserstein2", e) for e in (-44, -30, -23, -19, 15, 19)]
    + [("wasserstein2_squared", e) for e in (-17, 15)],
)
def test_the_scale_of_means_does_not_matter(distance: str, exponent: int) -> None:
    """Squares that underflow or overflow in float32: what the full sort makes of them, ties or not."""
    generator = torch.Generator().manual_seed(0)
    means = (torch.randn(90, 3, generator=generator, dtype=torch.float64) * 10.0**exponent).float()
    images = Gaussian(means, torch.zeros(90, 3, 3))
    assert_is_searched_exactly(images[-3:], images, distance, 5)


def test_images_of_every_scale_at_once() -> None:
    images = gaussians("random", 90, 3, 9)
    scales = torch.logspace(-140, 140, 90, dtype=torch.float64)[:, None]
    images = Gaussian(images.mean * scales.sqrt(), images.cov * scales.unsqueeze(2))
    for distance in ("wasserstein2", "affine_invariant"):
        assert_is_searched_exactly(images[::30], images, distance, 6)


@pytest.mark.parametrize("exponent", [-23, 23])
def test_squares_that_float32_cannot_hold_are_refused_as_the_distance_refuses_them(exponent: int) -> None:
    means = (torch.arange(60.0)[:, None] + 1) * 10.0**exponent
    images = Gaussian(means, torch.zeros(60, 1, 1))
    query = Gaussian(torch.zeros(1, 1), torch.zeros(1, 1, 1))
    for find in (rank, lambda q, g, d, k: GalleryIndex(g, d).rank(q, k)):
        with pytest.raises(ValueError, match=r"too (small|large) for torch\.float32"):
            find(query, images, "wasserstein2_squared", 3)
    assert rank(query, images, "wasserstein2", 3).indices.tolist() == [[0, 1, 2]]
    assert rank(images[:3], images, "wasserstein2", 1).indices.tolist() == [[0], [1], [2]]

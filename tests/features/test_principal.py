"""Principal axes against scikit-learn's."""

import pytest
import torch
from sklearn.decomposition import PCA

from retrieval_geometry.features.principal import principal_axes


@pytest.fixture
def vectors() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(40, 7, generator=generator) @ torch.randn(7, 7, generator=generator)
    return mixed + 3


@pytest.mark.parametrize("whiten", [False, True])
def test_coordinates_are_those_of_scikit_learn(vectors, whiten):
    fitted, others = vectors[:30], vectors[30:]
    reference = PCA(4, whiten=whiten, svd_solver="full").fit(fitted.double().numpy())
    expected = torch.from_numpy(reference.transform(others.double().numpy()))
    found = principal_axes(fitted, 4).project(others, whiten)
    assert found.dtype == others.dtype
    # An axis has no sign of its own.
    torch.testing.assert_close(found.double().abs(), expected.abs(), rtol=1e-4, atol=1e-5)


def test_whitened_coordinates_have_variance_one_over_the_fitted_vectors_alone(vectors):
    axes = principal_axes(vectors[:30].double(), 5)
    found = axes.project(vectors[:30].double(), whiten=True)
    torch.testing.assert_close(torch.cov(found.mT), torch.eye(5, dtype=torch.float64))
    assert not torch.allclose(
        torch.cov(axes.project(vectors[30:].double(), whiten=True).mT),
        torch.eye(5, dtype=torch.float64),
        atol=1e-2,
    )


def test_vectors_that_have_no_such_axes_are_refused(vectors):
    with pytest.raises(ValueError, match="vectors vary in 2 directions only, too few for dim = 3"):
        principal_axes(vectors[:3], 3)
    with pytest.raises(ValueError, match="vectors vary in 0 directions only, too few for dim = 1"):
        principal_axes(torch.ones(5, 3), 1)
    with pytest.raises(ValueError, match="vectors must be at least two"):
        principal_axes(vectors[:1], 1)
    with pytest.raises(ValueError, match="dim must be"):
        principal_axes(vectors, 0)
    with pytest.raises(ValueError, match="vectors must"):
        principal_axes(vectors[0], 1)
    with pytest.raises(ValueError, match="vectors"):
        principal_axes(torch.full((5, 3), torch.nan), 1)

"""One vector for each image: against the formula, at its limits, with its gradient."""

from itertools import pairwise

import pytest
import torch

from retrieval_geometry.features import pool_descriptors


@pytest.fixture(params=[torch.float32, torch.float64])
def descriptors(request):
    return torch.rand(3, 20, 5, generator=torch.Generator().manual_seed(0)).to(request.param)


def test_average_and_generalised_mean_by_their_formulas(descriptors):
    torch.testing.assert_close(pool_descriptors(descriptors), descriptors.mean(dim=1))
    formula = (descriptors**3).mean(dim=1) ** (1 / 3)
    torch.testing.assert_close(pool_descriptors(descriptors, "gem"), formula)


def test_the_generalised_mean_goes_from_the_average_to_the_largest(descriptors):
    """The inequality of power means."""
    pooled = [pool_descriptors(descriptors, "gem", p) for p in (1, 2, 3, 10, 100)]
    torch.testing.assert_close(pooled[0], descriptors.mean(dim=1))
    assert all((low < high).all() for low, high in pairwise(pooled))
    torch.testing.assert_close(pooled[-1], descriptors.amax(dim=1), rtol=0.04, atol=0)


def test_what_is_negative_counts_as_zero_in_the_generalised_mean(descriptors):
    x = descriptors - 0.5
    assert torch.equal(pool_descriptors(x, "gem"), pool_descriptors(x.clamp(min=0), "gem"))
    assert torch.equal(pool_descriptors(-descriptors, "gem"), torch.zeros_like(descriptors[:, 0]))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale(descriptors, scale):
    for kind in ("average", "gem"):
        expected = scale * pool_descriptors(descriptors, kind)
        torch.testing.assert_close(pool_descriptors(scale * descriptors, kind), expected, atol=0, rtol=1e-5)


@pytest.mark.parametrize("kind", ["average", "gem"])
def test_gradient(kind):
    x = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x[0, :, 0] = -1  # nothing positive
    assert torch.autograd.gradcheck(lambda y: pool_descriptors(y, kind), x.requires_grad_())


def test_an_image_alone_gives_the_same_numbers(descriptors):
    for kind in ("average", "gem"):
        assert torch.equal(pool_descriptors(descriptors, kind)[1:2], pool_descriptors(descriptors[1:2], kind))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.rand(3, 4),), "descriptors must have shape"),
        ((torch.rand(3, 0, 4),), "without an empty axis"),
        ((torch.rand(3, 4, 4).int(),), "descriptors"),
        ((torch.full((1, 2, 2), torch.nan),), "descriptors"),
        ((torch.rand(3, 4, 4), "max"), "kind must be"),
        ((torch.rand(3, 4, 4), "gem", 0.5), "p must be a finite number at least 1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        pool_descriptors(*arguments)

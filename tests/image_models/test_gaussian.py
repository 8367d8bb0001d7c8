"""The Gaussian of an image: moments, factor, shrinkage, indexing, refusals."""

from functools import partial

import numpy as np
import pytest
import torch

from retrieval_geometry._check import ImageError
from retrieval_geometry.image_models import Gaussian, fit_gaussian, fit_mixture, smt_covariance


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(4, 20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments_are_numpys(x, dtype):
    gaussian = fit_gaussian(x.to(dtype))
    assert gaussian.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for image, points in enumerate(x.numpy()):
        np.testing.assert_allclose(gaussian.mean[image], points.mean(0), atol=tolerance)
        np.testing.assert_allclose(gaussian.cov[image], np.cov(points.T, bias=True), atol=tolerance)


def test_factor_times_its_transpose_is_the_covariance(x):
    gaussian = fit_gaussian(x[:, :4])
    torch.testing.assert_close(gaussian.factor @ gaussian.factor.mT, gaussian.cov)
    assert int(torch.linalg.matrix_rank(gaussian.cov[0])) == 3  # one degree of freedom goes into the mean


def test_mean_of_far_descriptors_keeps_its_digits():
    # A float32 running sum of these loses the last digits of the mean, and so the covariance.
    x = torch.randn(1, 50_000, 2, generator=torch.Generator().manual_seed(0)) + 1000
    cov = fit_gaussian(x).cov
    torch.testing.assert_close(cov[0], torch.cov(x[0].double().T, correction=0).float(), rtol=1e-4, atol=1e-5)


def test_one_descriptor_is_a_point_mass(x):
    gaussian = fit_gaussian(x[:, :1])
    assert torch.equal(gaussian.mean, x[:, 0])
    assert not gaussian.cov.any()


@pytest.mark.parametrize("shrinkage", [0.3, 1.0, [0.0, 0.2, 0.5, 1.0], torch.tensor([0.0, 0.2, 0.5, 1.0])])
def test_shrinkage_moves_towards_the_scaled_identity_and_keeps_the_trace(x, shrinkage):
    plain, shrunk = fit_gaussian(x), fit_gaussian(x, shrinkage=shrinkage)
    amount = torch.as_tensor(shrinkage, dtype=x.dtype).expand(4)
    for image in range(4):
        target = plain.cov[image].trace() / 6 * torch.eye(6, dtype=x.dtype)
        expected = (1 - amount[image]) * plain.cov[image] + amount[image] * target
        torch.testing.assert_close(shrunk.cov[image], expected)
    trace = shrunk.cov.diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(trace, plain.cov.diagonal(dim1=-2, dim2=-1).sum(-1))
    assert shrunk.factor is None


def test_no_shrinkage_anywhere_keeps_the_factor(x):
    assert fit_gaussian(x, shrinkage=[0.0] * 4).factor is not None


def test_gradients_reach_the_descriptors(x):
    small = x[:1, :4, :2].requires_grad_()
    assert torch.autograd.gradcheck(lambda t: fit_gaussian(t).cov, small)
    assert torch.autograd.gradcheck(lambda t: fit_gaussian(t, shrinkage=0.2).cov, small)


@pytest.mark.parametrize(
    ("index", "images"),
    [
        (1, [1]),
        (-1, [3]),
        (slice(1, 3), [1, 2]),
        ([2, 0], [2, 0]),
        ([], []),
        ([True, False, False, True], [0, 3]),
        (torch.tensor([3, 3]), [3, 3]),
        (np.array([1, 2]), [1, 2]),
        (torch.tensor(2), [2]),
    ],
)
def test_indexing_keeps_the_batch_axis(x, index, images):
    part = fit_gaussian(x)[index]
    assert len(part) == len(images)
    assert part.cov.shape == (len(images), 6, 6)
    assert torch.equal(part.mean, x.mean(1)[images])


def test_iteration_visits_every_image(x):
    assert [len(one) for one in fit_gaussian(x)] == [1] * 4
    with pytest.raises(IndexError, match="image 4"):
        fit_gaussian(x)[4]


def test_to_converts_every_part(x):
    gaussian = fit_gaussian(x).to(torch.float32)
    assert {gaussian.mean.dtype, gaussian.cov.dtype, gaussian.factor.dtype} == {torch.float32}
    assert fit_gaussian(x, shrinkage=0.1).to("cpu").device == torch.device("cpu")
    assert gaussian.dim == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], "x must have shape"),
        (lambda x: x[:0], "empty axis"),
        (lambda x: x.long(), "float32 or float64"),
        (lambda x: x.index_put((torch.tensor(2),), torch.tensor(torch.nan, dtype=x.dtype)), "image 2"),
        (lambda x: x / 0, "NaN or infinite"),
    ],
)
def test_bad_descriptors_are_refused(x, change, message):
    with pytest.raises(ValueError, match=message):
        fit_gaussian(change(x))


@pytest.mark.parametrize("fit", [fit_gaussian, fit_mixture, smt_covariance])
@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.float32, 1e20), (torch.float32, 1e-25), (torch.float64, 1e160), (torch.float64, 1e-170)],
)
def test_variances_that_leave_the_dtype_are_refused(fit, dtype, scale):
    """Squares overflow or vanish; the image is named, and what to do."""
    x = torch.randn(3, 70, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    x[2] *= scale
    with pytest.raises(ValueError, match=r"descriptors of image 2 of x have the mean variance .*; scale x"):
        fit(x.to(dtype))
    remedy = "or convert it with .double()"
    with pytest.raises(ImageError) as caught:
        fit(x.to(dtype)[1:])
    assert (caught.value.image, remedy in str(caught.value)) == (1, dtype == torch.float32)


@pytest.mark.parametrize("fit", [fit_gaussian, fit_mixture, partial(smt_covariance, order=4, shrinkage=0.2)])
@pytest.mark.parametrize(
    ("dtype", "scales"), [(torch.float32, (1e-14, 1e15)), (torch.float64, (1e-69, 1e69))]
)
def test_models_have_any_unit_inside_the_range(fit, dtype, scales):
    x = torch.randn(2, 80, 4, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    expected = fit(x.to(dtype))
    for scale in scales:
        found = fit((x * scale).to(dtype))
        powers = {"mean": 1, "means": 1, "cov": 2, "variances": 2}
        for name, power in powers.items():
            if hasattr(expected, name):
                part = getattr(found, name).double() / scale**power
                close = (
                    {"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-9}
                )
                torch.testing.assert_close(part, getattr(expected, name).double(), **close)


def test_an_image_that_does_not_vary_is_no_fault():
    assert fit_gaussian(torch.full((2, 5, 3), 0.1)).cov.eq(0).all()


@pytest.mark.parametrize("shrinkage", [-0.1, 1.1, float("nan"), [0.1, 0.2], [[0.1] * 4]])
def test_bad_shrinkage_is_refused(x, shrinkage):
    with pytest.raises(ValueError, match="shrinkage must"):
        fit_gaussian(x, shrinkage=shrinkage)


@pytest.mark.parametrize(
    ("mean", "cov", "factor", "message"),
    [
        (torch.zeros(3), torch.eye(3), None, "mean must have shape"),
        (torch.zeros(1, 3), torch.eye(3), None, "cov must have shape"),
        (torch.zeros(1, 3), torch.eye(3)[None], torch.eye(3), "factor must have shape"),
        (torch.zeros(1, 3), torch.eye(3)[None].double(), None, "one dtype"),
        (torch.zeros(1, 3).long(), torch.eye(3)[None].long(), None, "must be float32 or float64"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(mean, cov, factor, message):
    with pytest.raises(ValueError, match=message):
        Gaussian(mean, cov, factor)


@pytest.mark.gpu
@pytest.mark.parametrize("shrinkage", [0.0, [0.0, 0.2, 0.5, 1.0]])
def test_cpu_and_gpu_agree(x, shrinkage):
    cpu, gpu = fit_gaussian(x, shrinkage=shrinkage), fit_gaussian(x.cuda(), shrinkage=shrinkage)
    assert gpu.device.type == "cuda"
    torch.testing.assert_close(gpu.cov.cpu(), cpu.cov)
    torch.testing.assert_close(gpu[[2, 0]].mean.cpu(), cpu[[2, 0]].mean)

"""Mixtures by EM: against scikit-learn and by the properties that EM and its start must have."""

import warnings

import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from retrieval_geometry.image_models import GaussianMixture, fit_gaussian, fit_mixture
from retrieval_geometry.image_models._em import expectation_maximisation, kmeans_plus_plus, maximise, moments


@pytest.fixture
def x() -> torch.Tensor:
    """Three images, each three clouds of 60 points in five dimensions."""
    source = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(3, 3, 1, 5, generator=source, dtype=torch.float64)
    clouds = centres + torch.randn(3, 3, 60, 5, generator=source, dtype=torch.float64)
    return clouds.flatten(1, 2)


def _after(x: torch.Tensor, iterations: int, **settings: float) -> GaussianMixture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit_mixture(x, 8, max_iterations=iterations, tolerance=0, **settings)


def _dense_sample(n_images: int, n_points: int, dim: int) -> torch.Tensor:
    """Correlated, non-negative, partly zero: like descriptors after a ReLU."""
    source = torch.Generator().manual_seed(1)
    z = torch.randn(n_images, n_points, 8, generator=source) @ torch.randn(n_images, 8, dim, generator=source)
    return z.clamp(min=0)


@pytest.mark.parametrize("iterations", [1, 7, 40])
def test_same_start_and_steps_as_scikit_learn(x, iterations):
    points = x - x.mean(dim=1, keepdim=True)
    draws = torch.rand(3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    floor = 1e-9 * torch.ones(3, dtype=torch.float64)
    features = moments(points)
    start = maximise(features, kmeans_plus_plus(points, draws), floor)
    (weights, means, variances), _ = expectation_maximisation(features, start, floor, iterations, 0.0)
    ours = GaussianMixture(weights, means, variances)
    for image in range(3):
        reference = Reference(
            4, covariance_type="diag", reg_covar=0, max_iter=iterations, tol=0,
            weights_init=start[0][image].numpy(), means_init=start[1][image].numpy(),
            precisions_init=1 / start[2][image].numpy(),
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            reference.fit(points[image].numpy())
        found = (weights[image], means[image], variances[image])
        expected = (reference.weights_, reference.means_, reference.covariances_)
        for ours_part, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours_part, torch.from_numpy(theirs), rtol=1e-8, atol=1e-8)
        score = reference.score_samples(points[image].numpy())
        torch.testing.assert_close(
            ours[image].log_prob(points[image : image + 1])[0], torch.from_numpy(score)
        )


def test_stops_at_the_iteration_where_scikit_learn_stops(x):
    points = x[:1] - x[:1].mean(dim=1, keepdim=True)
    draws = torch.rand(1, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    floor, features = torch.full((1,), 1e-9, dtype=torch.float64), moments(points)
    start = maximise(features, kmeans_plus_plus(points, draws), floor)
    (weights, means, variances), moving = expectation_maximisation(features, start, floor, 500, 1e-4)
    assert moving == 0
    reference = Reference(
        4, covariance_type="diag", reg_covar=0, max_iter=500, tol=1e-4, weights_init=start[0][0].numpy(),
        means_init=start[1][0].numpy(), precisions_init=1 / start[2][0].numpy(),
    ).fit(points[0].numpy())  # fmt: skip
    torch.testing.assert_close(means[0], torch.from_numpy(reference.means_))
    torch.testing.assert_close(variances[0], torch.from_numpy(reference.covariances_))
    torch.testing.assert_close(weights[0], torch.from_numpy(reference.weights_))


@pytest.mark.parametrize("floor", [1e-3, 0.5])
def test_likelihood_never_falls_even_at_the_floor(floor):
    # Dempster, Laird and Rubin (1977), theorem 1: a clamped variance is the M-step's constrained maximum.
    x = _dense_sample(4, 40, 12).double()
    path = torch.stack([_after(x, i, variance_floor=floor).log_prob(x).mean(1) for i in range(1, 12)])
    assert (path.diff(dim=0) >= -1e-9).all()
    assert path[-1].sum() > path[0].sum()


def test_collapse_has_the_moments_of_brute_force(x):
    # [geometric] eq. 1, by loops.
    mixture = fit_mixture(x, 5)
    collapsed = mixture.collapse()
    for image in range(len(x)):
        mean = sum(w * m for w, m in zip(mixture.weights[image], mixture.means[image], strict=True))
        cov = torch.zeros(5, 5, dtype=x.dtype)
        for w, m, v in zip(
            mixture.weights[image], mixture.means[image], mixture.variances[image], strict=True
        ):
            cov += w * (torch.diag(v) + torch.outer(m - mean, m - mean))
        torch.testing.assert_close(collapsed.mean[image], mean)
        torch.testing.assert_close(collapsed.cov[image], cov)
    assert collapsed.factor is None
    assert torch.linalg.cholesky_ex(collapsed.cov).info.eq(0).all()


def test_collapse_keeps_mean_and_variances_of_the_data(x):
    # Any M-step matches the first moments and the second moments of its coordinates, where no floor binds.
    collapsed, plain = fit_mixture(x, 6).collapse(), fit_gaussian(x)
    torch.testing.assert_close(collapsed.mean, plain.mean)
    torch.testing.assert_close(collapsed.cov.diagonal(dim1=-2, dim2=-1), plain.cov.diagonal(dim1=-2, dim2=-1))


def test_one_component_is_the_diagonal_gaussian(x):
    mixture, plain = fit_mixture(x, 1), fit_gaussian(x)
    torch.testing.assert_close(mixture.means[:, 0], plain.mean)
    torch.testing.assert_close(mixture.variances[:, 0], plain.cov.diagonal(dim1=-2, dim2=-1))
    assert torch.equal(mixture.weights, torch.ones(3, 1, dtype=x.dtype))


def test_far_clouds_are_found():
    x = torch.tensor([[[0.0], [1.0], [100.0], [101.0], [1000.0], [1001.0]]])
    mixture = fit_mixture(x, 3)
    assert sorted(mixture.means.flatten().tolist()) == pytest.approx([0.5, 100.5, 1000.5])
    assert mixture.weights.flatten().tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("memory_bytes", [1, 200_000])
def test_chunks_do_not_change_the_result(x, memory_bytes):
    whole, cut = fit_mixture(x, 8), fit_mixture(x, 8, memory_bytes=memory_bytes)
    torch.testing.assert_close(cut.means, whole.means)
    torch.testing.assert_close(cut.variances, whole.variances)


def test_float32_agrees_with_float64():
    x = _dense_sample(3, 60, 16)
    single, double = fit_mixture(x, 10), fit_mixture(x.double(), 10)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.means.double(), double.means, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(single.variances.double(), double.variances, rtol=1e-5, atol=1e-6)


def test_shift_and_scale_carry_over():
    # EM with a relative floor is equivariant under x -> 3 x + 1000.
    x = _dense_sample(2, 50, 6).double()
    mixture, moved = fit_mixture(x, 6), fit_mixture(3 * x + 1000, 6)
    torch.testing.assert_close(moved.means, 3 * mixture.means + 1000)
    torch.testing.assert_close(moved.variances, 9 * mixture.variances, rtol=1e-6, atol=1e-8)


def test_generator_decides_the_start():
    x = _dense_sample(2, 50, 6)
    fits = [fit_mixture(x, 8, torch.Generator().manual_seed(seed)).means for seed in (0, 0, 1)]
    assert torch.equal(fits[0], fits[1])
    assert not torch.equal(fits[0], fits[2])
    assert torch.equal(fit_mixture(x, 8).means, fits[0])


def test_as_many_components_as_descriptors_meet_the_floor():
    x = _dense_sample(1, 16, 9).double()
    mixture = fit_mixture(x, 16)
    floor = 1e-3 * fit_gaussian(x).cov.diagonal(dim1=-2, dim2=-1).mean()
    torch.testing.assert_close(mixture.variances.amin(), floor)
    assert torch.isfinite(mixture.log_prob(x)).all()


def test_repeated_descriptors_leave_empty_components_harmless():
    # Two distinct points cannot feed eight components: six fall back to the image's own distribution.
    x = torch.tensor([[[0.0, 0.0], [2.0, 1.0]]]).repeat(1, 10, 1)
    mixture = fit_mixture(x, 8)
    assert torch.isfinite(mixture.log_prob(x)).all()
    assert mixture.weights.sort().values[0, -2:].tolist() == pytest.approx([0.5, 0.5])
    torch.testing.assert_close(mixture.collapse().mean, fit_gaussian(x).mean)


def test_seeds_are_drawn_by_squared_distance():
    # k-means++ (Arthur and Vassilvitskii, 2007): second seed with probability D^2 / sum D^2.
    x = torch.tensor([[[0.0], [1.0], [3.0]]], dtype=torch.float64).repeat(4000, 1, 1)
    draws = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws[:, 0] = 0  # the first seed is point 0
    labels = kmeans_plus_plus(x, draws).argmax(2)
    # With the second seed at 3 the point at 1 stays with 0; with the second seed at 1 it leaves.
    assert float((labels[:, 1] == 0).double().mean()) == pytest.approx(9 / 10, abs=0.02)


def test_repeated_descriptors_go_to_the_first_of_equal_seeds():
    """Rounding of products must not share them out between seeds that are one point."""
    few = torch.randn(1, 3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for seed in range(20):
        draws = torch.rand(1, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        labels = kmeans_plus_plus(few.repeat(1, 20, 1), draws).argmax(2)[0].view(20, 3)
        assert (labels == labels[0]).all()
        assert sorted(labels[0].tolist()) == [0, 1, 2]  # three points, three seeds; the others stay empty


def test_values_that_overflow_are_refused():
    mixture = GaussianMixture(torch.ones(2, 1), torch.zeros(2, 1, 3), torch.ones(2, 1, 3))
    far = torch.zeros(2, 1, 3)
    far[1] = 3e38
    with pytest.raises(ValueError, match="log-density of image 1 has a NaN or infinite"):
        mixture.log_prob(torch.cat([far, -far], dim=1))
    halves = torch.full((1, 2), 0.5)
    with pytest.raises(ValueError, match="covariance of image 0 has a NaN or infinite"):
        GaussianMixture(halves, torch.tensor([[[1e30], [-1e30]]]), torch.ones(1, 2, 1)).collapse()


def test_warns_when_iterations_run_out(x):
    with pytest.warns(UserWarning, match="3 of 3 mixtures still moved"):
        early = fit_mixture(x, 8, max_iterations=1)
    late = fit_mixture(x, 8, max_iterations=500)
    likelihood = [model.log_prob(x).mean(dim=1) for model in (early, late)]
    assert (likelihood[0] < likelihood[1] - 1e-3).all()


def test_fewer_descriptors_than_components_are_refused_with_a_remedy(x):
    with pytest.raises(ValueError, match=r"n_components=181 .* got 180: take fewer components"):
        fit_mixture(x, 181)


def test_constant_image_is_named(x):
    x[1] = 7
    with pytest.raises(ValueError, match="image 1 of x are equal"):
        fit_mixture(x, 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_components": 0},
        {"max_iterations": 0},
        {"tolerance": -1},
        {"variance_floor": 0},
        {"memory_bytes": 0},
    ],
)
def test_bad_settings_are_refused(x, settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        fit_mixture(x, **settings)


def test_mixture_indexes_converts_and_checks(x):
    mixture = fit_mixture(x, 4)
    assert len(mixture[1:]) == 2
    assert len(mixture[0]) == 1
    assert (mixture.dim, mixture.n_components) == (5, 4)
    assert mixture.to(torch.float32).variances.dtype == torch.float32
    with pytest.raises(ValueError, match="x has shape"):
        mixture.log_prob(x[:2])


@pytest.mark.parametrize(
    ("weights", "means", "variances", "message"),
    [
        ([[0.5, 0.6]], torch.zeros(1, 2, 3), torch.ones(1, 2, 3), "weights of image 0"),
        ([[1.5, -0.5]], torch.zeros(1, 2, 3), torch.ones(1, 2, 3), "weights of image 0"),
        ([[0.5, 0.5]], torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), "variances of image 0"),
        ([[0.5, 0.5]], torch.zeros(1, 2, 3) / 0, torch.ones(1, 2, 3), "means of image 0 must be finite"),
        ([[0.5, 0.5]], torch.zeros(2, 3), torch.ones(1, 2, 3), "means must have shape"),
        ([0.5, 0.5], torch.zeros(1, 2, 3), torch.ones(1, 2, 3), "weights has shape"),
        ([[0.5, 0.5]], torch.zeros(1, 2, 3), torch.ones(1, 2), "variances has shape"),
        ([[0.5, 0.5]], torch.zeros(1, 2, 3).double(), torch.ones(1, 2, 3).double(), "one dtype"),
    ],
)
def test_parts_of_a_mixture_are_checked(weights, means, variances, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(torch.tensor(weights), means, variances)


@pytest.mark.gpu
def test_cpu_and_gpu_agree(x):
    cpu, gpu = fit_mixture(x, 6), fit_mixture(x.cuda(), 6)
    assert gpu.device.type == "cuda"
    torch.testing.assert_close(gpu.means.cpu(), cpu.means)
    torch.testing.assert_close(gpu.collapse().cov.cpu(), cpu.collapse().cov)
    fit_mixture(x.cuda(), 6, torch.Generator("cuda").manual_seed(0))

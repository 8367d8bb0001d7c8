"""The sparse matrix transform: against a full search and a full cross-validation, and by its theorems."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from retrieval_geometry.image_models import fit_gaussian, fit_smt, smt_covariance
from retrieval_geometry.image_models._smt_search import first_of_best


def _sample(n_images: int, n_points: int, dim: int, seed: int = 0) -> torch.Tensor:
    """Correlated descriptors of unequal scales, away from the origin."""
    source = torch.Generator().manual_seed(seed)
    options = {"generator": source, "dtype": torch.float64}
    mixing = torch.randn(n_images, 3, dim, **options) * (torch.rand(n_images, 3, dim, **options) < 0.3)
    noise = torch.randn(n_images, n_points, dim, **options)
    return (
        torch.randn(n_images, n_points, 3, **options) @ mixing * 2 + noise * torch.linspace(0.5, 2, dim) + 3
    )


def _full_search(
    cov: np.ndarray, order: int
) -> tuple[list[tuple[int, int]], list[float], np.ndarray, np.ndarray]:
    """The greedy rotations with every pair looked at in every step, by matrix products."""
    s, e, pairs, angles = cov.copy(), np.eye(len(cov)), [], []
    for _ in range(order):
        squared = s**2 / np.outer(np.diag(s), np.diag(s))
        i, j = np.unravel_index(np.argmax(np.triu(squared, 1)), squared.shape)
        theta = 0.5 * np.arctan2(-2 * s[i, j], s[i, i] - s[j, j])
        rotation = np.eye(len(s))
        rotation[i, i] = rotation[j, j] = np.cos(theta)
        rotation[i, j], rotation[j, i] = np.sin(theta), -np.sin(theta)
        s, e = rotation.T @ s @ rotation, e @ rotation
        pairs.append((int(i), int(j)))
        angles.append(theta)
    return pairs, angles, e, s


@pytest.mark.parametrize(("n_points", "dim", "order"), [(60, 8, 30), (20, 32, 60), (50, 33, 186)])
def test_rotations_and_covariance_of_the_full_search(n_points, dim, order):
    x = _sample(2, n_points, dim)
    fit = fit_smt(x, order=order, shrinkage=1.0)
    for image, points in enumerate(x.numpy()):
        pairs, angles, e, s = _full_search(np.cov(points.T, bias=True), order)
        assert [tuple(pair) for pair in fit.rotations[image].pairs.tolist()] == pairs
        np.testing.assert_allclose(fit.rotations[image].angles, angles, atol=1e-9)
        np.testing.assert_allclose(fit.rotations[image].matrix(dim), e, atol=1e-9)
        np.testing.assert_allclose(fit.gaussian.cov[image], e @ np.diag(np.diag(s)) @ e.T, atol=1e-9)


def test_determinant_falls_by_one_minus_the_squared_correlation():
    # Erratum 0.5: rotating a pair makes the product of the variances fall by exactly 1 - rho^2.
    x = _sample(1, 100, 10)
    s = np.cov(x[0].numpy().T, bias=True)
    for order in range(1, 25):
        squared = s**2 / np.outer(np.diag(s), np.diag(s))
        largest = (squared - np.eye(10)).max()
        e = fit_smt(x, order=order, shrinkage=1.0).rotations[0].matrix(10).numpy()
        rotated = e.T @ np.cov(x[0].numpy().T, bias=True) @ e
        fall = np.prod(np.diag(rotated)) / np.prod(np.diag(s))
        assert fall == pytest.approx(1 - largest, rel=1e-10)
        s = rotated


def test_angle_of_equation_4_zeroes_the_entry_only_with_the_corrected_sign():
    # Erratum 0.5: with eq. 4's signs theta = 0.5 atan2(-2 S_ij, S_ii - S_jj); the sign reversed does not.
    s = np.array([[3.0, 1.0], [1.0, 2.0]])

    def rotated(theta: float) -> np.ndarray:
        e = np.array([[np.cos(theta), np.sin(theta)], [-np.sin(theta), np.cos(theta)]])
        return e.T @ s @ e

    theta = 0.5 * np.arctan2(-2 * s[0, 1], s[0, 0] - s[1, 1])
    assert rotated(theta)[0, 1] == pytest.approx(0, abs=1e-15)
    assert rotated(theta)[0, 0] > rotated(theta)[1, 1]  # the larger variance goes first
    assert abs(rotated(-theta)[0, 1]) > 0.8
    points = np.linalg.cholesky(s) @ np.array([[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]])
    fit = fit_smt(torch.from_numpy(points.T.copy())[None], order=1, shrinkage=1.0)
    assert float(fit.rotations[0].angles[0]) == pytest.approx(theta)


def test_the_printed_product_of_rotations_does_not_lead_to_the_variances():
    # Erratum 0.5: eq. 3 prints E_1 E_1 ... for E_1 E_2 ...; and the bars of eq. 2 cannot be the sum.
    x = _sample(1, 60, 8)
    s = np.cov(x[0].numpy().T, bias=True)
    products = [fit_smt(x, order=order, shrinkage=1.0).rotations[0].matrix(8).numpy() for order in (1, 2, 3)]
    first, third = products[0], products[1].T @ products[2]
    variances = np.diag(products[2].T @ s @ products[2])
    printed = np.diag((first @ first @ third).T @ s @ (first @ first @ third))
    fitted = fit_smt(x, order=3, shrinkage=1.0).gaussian.cov[0].numpy()
    np.testing.assert_allclose(products[2] @ np.diag(variances) @ products[2].T, fitted, atol=1e-9)
    assert np.abs(printed / variances - 1).max() > 0.01
    assert variances.sum() == pytest.approx(np.trace(s))
    assert variances.prod() < 0.999 * np.diag(s).prod()


def test_rotations_are_orthonormal():
    e = fit_smt(_sample(1, 30, 40), order=213, shrinkage=1.0).rotations[0].matrix(40)
    torch.testing.assert_close(e.mT @ e, torch.eye(40, dtype=torch.float64), rtol=0, atol=1e-12)


def test_enough_rotations_give_the_sample_covariance():
    # Givens rotations of the largest entry diagonalise (Jacobi), and then E Lambda E' is S.
    x = _sample(2, 200, 12)
    fit = fit_smt(x, order=2000, shrinkage=1.0)
    torch.testing.assert_close(fit.gaussian.cov, fit_gaussian(x).cov)
    assert (fit.order < 2000).all()  # it stops once nothing is left to rotate


def test_order_zero_is_the_diagonal():
    x = _sample(2, 15, 30)
    diagonal = torch.diag_embed(fit_gaussian(x).cov.diagonal(dim1=-2, dim2=-1))
    fit = fit_smt(x, order=0, shrinkage=1.0)
    torch.testing.assert_close(fit.gaussian.cov, diagonal)
    assert len(fit.rotations[0]) == 0


def test_diagonal_truth_is_recovered_exactly():
    # Orthogonal columns have a diagonal sample covariance: nothing to rotate, at any order.
    signs = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    fit = fit_smt((signs * torch.tensor([1.0, 2, 3]))[None], order=50, shrinkage=1.0)
    assert torch.equal(fit.gaussian.cov[0], torch.diag(torch.tensor([1.0, 4, 9], dtype=torch.float64)))
    assert fit.order.tolist() == [0]


def test_shrinkage_is_equation_6():
    x = _sample(2, 60, 8)
    sparse, sample = smt_covariance(x, order=5, shrinkage=1.0).cov, fit_gaussian(x).cov
    torch.testing.assert_close(smt_covariance(x, order=5, shrinkage=0.3).cov, 0.3 * sparse + 0.7 * sample)
    torch.testing.assert_close(smt_covariance(x, order=5, shrinkage=0.0).cov, sample)


def _folds(n_points: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    permutation = torch.randperm(n_points, generator=torch.Generator().manual_seed(seed)).numpy()
    held = [np.sort(permutation[k::3]) for k in range(3)]
    return [(np.setdiff1d(np.arange(n_points), part), part) for part in held]


def _moments(points: np.ndarray, zero_mean: bool) -> tuple[np.ndarray, np.ndarray]:
    mean = np.zeros(points.shape[1]) if zero_mean else points.mean(0)
    return mean, (points - mean).T @ (points - mean) / len(points)


@pytest.mark.parametrize("zero_mean", [False, True])
@pytest.mark.parametrize(("n_points", "dim"), [(25, 7), (13, 16)])
def test_order_and_shrinkage_of_the_full_cross_validation(n_points, dim, zero_mean):
    x = _sample(3, n_points, dim, seed=5)
    fit = fit_smt(x, zero_mean=zero_mean)
    largest = int(np.ceil(dim * np.log2(n_points)))
    alphas = np.linspace(0.01, 1, 100)
    for image, points in enumerate(x.numpy()):
        curve, shrunk = np.zeros(largest + 1), np.zeros(100)
        for train, held in _folds(n_points):
            mean, cov = _moments(points[train], zero_mean)
            for order in range(largest + 1):
                e, s = _full_search(cov, order)[2:]
                sparse = (e * np.maximum(np.diag(s), 1e-6)) @ e.T
                curve[order] += multivariate_normal(mean, sparse).logpdf(points[held]).sum()
        best = int(fit.order[image])  # likelihoods, not positions: what is equal but for rounding is equal
        assert curve[best] >= curve.max() - 1e-8 * n_points
        assert (curve[:best] < curve[best]).all()
        for train, held in _folds(n_points):
            mean, cov = _moments(points[train], zero_mean)
            e, s = _full_search(cov, best)[2:]
            for a, alpha in enumerate(alphas):
                total = alpha * (e * np.diag(s)) @ e.T + (1 - alpha) * cov
                shrunk[a] += multivariate_normal(mean, total).logpdf(points[held]).sum()
        chosen = round(100 * float(fit.shrinkage[image])) - 1
        assert shrunk[chosen] >= shrunk.max() - 1e-8 * n_points
        stable = curve > curve.max() - 1e3  # beyond, variances near zero
        np.testing.assert_allclose(fit.held_out[image][stable], curve[stable] / n_points, rtol=1e-6)


def test_equal_likelihoods_take_the_first():
    """A plateau that rounding makes uneven is one."""
    noise = 1e-13 * torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    level = torch.tensor([-3.0, -2.0, -1.0, -1.0, -1.0, -1.5], dtype=torch.float64)
    assert first_of_best(level + noise).tolist() == [2] * 20


def test_cross_validated_covariance_beats_the_sample_on_new_descriptors():
    # The point of the method (Cao and Bouman): fewer samples than dimensions, still a likelihood.
    x = _sample(1, 400, 24)
    few, new = x[:, :16], x[0, 16:].numpy()

    def score(cov: torch.Tensor) -> float:
        return float(multivariate_normal(few[0].mean(0).numpy(), cov[0].numpy()).logpdf(new).mean())

    chosen = score(smt_covariance(few).cov)
    assert chosen > score(fit_gaussian(few, shrinkage=0.01).cov)
    assert chosen > score(smt_covariance(few, order=100, shrinkage=1.0).cov)


def test_structure_is_found_by_cross_validation():
    # Pairs of correlated coordinates: one rotation each, and no more of them than needed by far.
    source = torch.Generator().manual_seed(0)
    z = torch.randn(1, 150, 10, generator=source, dtype=torch.float64)
    x = torch.cat([z, z + 0.3 * torch.randn(1, 150, 10, generator=source, dtype=torch.float64)], dim=2)
    fit = fit_smt(x)
    first = {tuple(pair) for pair in fit.rotations[0].pairs[:10].tolist()}
    assert first == {(i, i + 10) for i in range(10)}
    assert 10 <= int(fit.order[0]) < 40


def test_zero_mean_is_as_printed():
    x = _sample(2, 30, 6)
    fit = fit_smt(x, order=0, shrinkage=0.0, zero_mean=True)
    torch.testing.assert_close(fit.gaussian.cov, x.mT @ x / 30)
    assert not fit.gaussian.mean.any()
    torch.testing.assert_close(smt_covariance(x).mean, x.mean(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fewer_descriptors_than_dimensions_give_full_rank(dtype):
    gaussian = smt_covariance(_sample(3, 12, 40).to(dtype))
    assert gaussian.cov.dtype == dtype
    assert gaussian.factor is None
    assert (torch.linalg.eigvalsh(gaussian.cov) > 0).all()


def test_dead_and_repeated_coordinates_get_the_floor():
    x = _sample(1, 40, 6)
    x[:, :, 2] = 5.0
    x[:, :, 4] = x[:, :, 3]
    fit = fit_smt(x, order=3, shrinkage=1.0)
    floor = 1e-6 * float(fit_gaussian(x).cov.diagonal(dim1=-2, dim2=-1).mean())
    assert float(fit.gaussian.cov[0, 2, 2]) == pytest.approx(floor)
    assert float(torch.linalg.eigvalsh(fit.gaussian.cov)[0, 0]) == pytest.approx(floor, rel=1e-4)
    assert (3, 4) in {tuple(pair) for pair in fit.rotations[0].pairs.tolist()}
    assert torch.linalg.cholesky_ex(smt_covariance(x).cov).info.eq(0).all()


def test_images_do_not_see_each_other_nor_the_budget():
    x = _sample(5, 20, 10)
    together, alone = fit_smt(x), [fit_smt(one[None], memory_bytes=1) for one in x]
    cut = fit_smt(x, memory_bytes=60_000)
    assert together.order.tolist() == [int(fit.order) for fit in alone] == cut.order.tolist()
    torch.testing.assert_close(together.gaussian.cov, torch.cat([fit.gaussian.cov for fit in alone]))
    torch.testing.assert_close(together.gaussian.cov, cut.gaussian.cov)


def test_generator_deals_the_folds():
    x = _sample(2, 20, 10)
    curves = [fit_smt(x, generator=torch.Generator().manual_seed(seed)).held_out for seed in (0, 0, 1)]
    assert torch.equal(curves[0], curves[1])
    assert not torch.equal(curves[0], curves[2])
    assert fit_smt(x, order=3).held_out is None


def test_directions_without_variance_have_no_say():
    # A constant coordinate and a copy take the floor; order, shrinkage and the rest stay as without them.
    x = _sample(3, 13, 9)
    wide = torch.cat([x, torch.full((3, 13, 20), 4.0)], dim=2)
    plain, fit = fit_smt(x), fit_smt(wide)
    assert fit.order.tolist() == plain.order.tolist()
    torch.testing.assert_close(fit.shrinkage, plain.shrinkage)
    torch.testing.assert_close(fit.gaussian.cov[:, :9, :9], plain.gaussian.cov)
    floor = 1e-6 * fit_gaussian(wide).cov.diagonal(dim1=-2, dim2=-1).mean(1)
    torch.testing.assert_close(fit.gaussian.cov[:, 9:, 9:], floor[:, None, None] * torch.eye(20))
    assert not fit.gaussian.cov[:, :9, 9:].any()
    doubled = fit_smt(torch.cat([x, x[:, :, :1]], dim=2))
    assert (doubled.shrinkage > 0.05).all()
    assert torch.linalg.cholesky_ex(doubled.gaussian.cov).info.eq(0).all()


def test_singular_result_names_the_image():
    x = _sample(3, 30, 6)
    x[1, 3:] = x[1, :1]
    with pytest.raises(ValueError, match="image 1 is not positive definite"):
        fit_smt(x, order=2, shrinkage=0.0, memory_bytes=1)


def test_constant_image_is_named():
    x = _sample(3, 10, 4)
    x[2] = 1.5
    with pytest.raises(ValueError, match="image 2 of x are equal"):
        smt_covariance(x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "best"}, 'order must be "cv" or a number'),
        ({"order": -1}, "order must be a whole number"),
        ({"order": 2.5}, "order must be a whole number"),
        ({"shrinkage": "auto"}, 'shrinkage must be "cv" or a number'),
        ({"shrinkage": 1.5}, "shrinkage must be"),
        ({"variance_floor": 0}, "variance_floor must be"),
        ({"memory_bytes": 0}, "memory_bytes must be"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        fit_smt(_sample(1, 10, 4), **settings)


def test_too_few_descriptors_for_cross_validation_are_refused():
    x = _sample(1, 2, 4)
    with pytest.raises(ValueError, match="2 descriptors per image, too few for cross-validation"):
        smt_covariance(x)
    assert smt_covariance(x, order=1, shrinkage=1.0).cov.shape == (1, 4, 4)


@pytest.mark.gpu
def test_result_is_on_the_device_of_the_descriptors():
    x = _sample(2, 15, 10)
    cpu, gpu = fit_smt(x), fit_smt(x.cuda())
    assert gpu.gaussian.device.type == gpu.order.device.type == gpu.shrinkage.device.type == "cuda"
    torch.testing.assert_close(gpu.gaussian.cov.cpu(), cpu.gaussian.cov)

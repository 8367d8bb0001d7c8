r"""A full-rank covariance from few descriptors: the sparse matrix transform of Cao and Bouman.

The eigenvectors are a product of K Givens rotations, chosen greedily: each step rotates the pair of
coordinates with the largest squared correlation :math:`S_{ij}^2 / (S_{ii} S_{jj})`. This is the exact greedy
step of [geometric] eq. 5: the product of the variances falls by the factor one minus it (erratum 0.5). The
order K and the shrinkage of eq. 6 are those under which descriptors held out from the fit are most likely.
"""

from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil, log2
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from retrieval_geometry._check import ImageError, ImageName, check_count, check_generator, check_number
from retrieval_geometry.image_models._descriptors import check_descriptors, check_variance, check_varied
from retrieval_geometry.image_models._smt_search import (
    FOLDS,
    choose_shrinkage,
    first_of_best,
    order_curves,
    search_all,
    second_moment,
    split_folds,
)
from retrieval_geometry.image_models.gaussian import Gaussian

MOST_ROTATIONS = 1_000
"""Times the square of the dimension: long before, no correlation is left to rotate away."""


@dataclass(frozen=True, eq=False)
class Rotations:
    r"""The K Givens rotations of one image, in the order in which they were found.

    Derived in chapter 2.

    Step k leaves all but two coordinates alone, and on these it is, with the signs of [geometric] eq. 4,
    :math:`E_k = \begin{pmatrix} \cos\theta & \sin\theta \\ -\sin\theta & \cos\theta \end{pmatrix}` with
    :math:`\theta = \frac12 \operatorname{atan2}(-2 S_{ij}, S_{ii} - S_{jj})` (erratum 0.5).

    Attributes:
        pairs: ``(K, 2)``, the coordinates (i, j), i < j.
        angles: ``(K,)``, in radians, float64.
    """

    pairs: Tensor
    angles: Tensor

    def __len__(self) -> int:
        return len(self.angles)

    def matrix(self, dim: int) -> Tensor:
        """Return their product E = E_1 E_2 ... E_K, orthonormal, ``(dim, dim)`` in float64.

        Raises:
            ValueError: a dimension that does not hold all coordinates of the pairs.
        """
        from retrieval_geometry.image_models._smt_kernels import rotate_rows  # numba is slow to import

        check_count(dim, "dim", at_least=int(self.pairs.max()) + 1 if len(self) else 1)
        transposed = np.eye(dim)
        rotate_rows(transposed, self.pairs.numpy(), self.angles.numpy())
        return torch.from_numpy(transposed).mT


@dataclass(frozen=True, eq=False)
class SMTFit:
    """A sparse matrix transform covariance of each image, with its order, shrinkage and rotations.

    Used in chapter 2.

    Attributes:
        gaussian: the mean ``(B, D)`` and the shrunk covariance ``(B, D, D)``; no factor, it has full rank.
        order: ``(B,)``, the number of rotations K.
        shrinkage: ``(B,)``, the weight alpha of the SMT covariance against the sample covariance.
        rotations: one entry per image.
        held_out: ``(B, ceil(D log2 N) + 1)``, the mean log-likelihood (nats) of a held-out descriptor at each
            order before shrinkage; None where the order was given.
    """

    gaussian: Gaussian
    order: Tensor
    shrinkage: Tensor
    rotations: tuple[Rotations, ...]
    held_out: Tensor | None


def smt_covariance(
    x: Tensor,
    order: int | Literal["cv"] = "cv",
    shrinkage: float | Literal["cv"] = "cv",
    zero_mean: bool = False,
    *,
    variance_floor: float = 1e-6,
    progress: bool = False,
) -> Gaussian:
    """Gaussian with a sparse matrix transform covariance ``(B, D, D)``, from descriptors ``(B, N, D)``.

    Source: [geometric] eqs. 2-6, erratum 0.5; Cao and Bouman 2008. Derived in chapter 2.

    It is the Gaussian of :func:`fit_smt`, which documents the arguments.

    Raises:
        ValueError: as :func:`fit_smt`.

    Example:
        >>> x = torch.randn(1, 20, 30, generator=torch.Generator().manual_seed(0))
        >>> g = smt_covariance(x)
        >>> bool((torch.linalg.eigvalsh(g.cov) > 0).all())  # of full rank, from 20 descriptors
        True
    """
    return fit_smt(x, order, shrinkage, zero_mean, variance_floor=variance_floor, progress=progress).gaussian


def fit_smt(
    x: Tensor,
    order: int | Literal["cv"] = "cv",
    shrinkage: float | Literal["cv"] = "cv",
    zero_mean: bool = False,
    *,
    variance_floor: float = 1e-6,
    generator: torch.Generator | None = None,
    memory_bytes: int = 2**28,
    progress: bool = False,
) -> SMTFit:
    r"""Sparse matrix transform covariance of the descriptors of each image, and how it was found.

    .. math:: \Sigma = \alpha\,E \Lambda E^\top + (1 - \alpha)\,S, \qquad E = E_1 \cdots E_K, \qquad
              \Lambda = \operatorname{diag}(E^\top S E)

    Source: [geometric] eqs. 2-6, erratum 0.5; Cao and Bouman 2008. Derived in chapter 2.

    With ``"cv"`` the descriptors are dealt at random into three folds, the same for all images. K, from 0 to
    ceil(D log2 N), maximises the likelihood of the held-out folds under :math:`E \Lambda E^\top`; then alpha,
    from 0.01 to 1 in steps of 0.01, under :math:`\Sigma`; the lowest of those within 1e-9 nats of the best.
    In float64 on the CPU, on all threads that torch uses; the result has the dtype and device of ``x``.

    Variances stop at a floor. A direction that falls to it, because a coordinate never varies or two of them
    are copies, counts as constant: it has the floor for its variance and no correlations, in both terms of
    :math:`\Sigma`, and has no say in the choice of alpha. Elsewhere the floor changes nothing.

    Args:
        x: ``(B, N, D)`` descriptors, float32 or float64.
        order: the number of rotations K, at most 1,000 D^2, or "cv". An image whose covariance is diagonal
            earlier takes fewer.
        shrinkage: alpha in [0, 1], or "cv". 1 is the SMT alone, 0 the sample covariance: the reverse of the
            shrinkage of :func:`fit_gaussian`.
        zero_mean: as printed, S = sum x x' / N and a mean of zero; by default S and the mean are the
            sample's.
        variance_floor: least variance, as a share of the image's variance averaged over dimensions.
        generator: deals the folds; None stands for a fresh generator with seed 0.
        memory_bytes: working memory; sets how many images are fitted at once.
        progress: show a bar over images, in a terminal.

    Raises:
        ValueError: a wrong shape or dtype, a NaN or infinite descriptor, fewer than three descriptors for
            "cv", an image whose descriptors are all equal or whose mean variance is outside 1e-30 to 1e32 in
            float32, 1e-140 to 1e140 in float64, a covariance that is not positive definite in the dtype of
            ``x`` (shrinkage near zero; the image is named), or a setting out of its range.
    """
    check_varied(check_descriptors(x))
    settings = _checked_settings(x, order, shrinkage, zero_mean, variance_floor, generator)
    memory_bytes = check_count(memory_bytes, "memory_bytes")
    n_points, dim = x.shape[1:]
    size = max(1, memory_bytes // (8 * (7 * dim**2 + 12 * n_points * dim)))
    fits: list[_ChunkFit] = []
    with (
        ThreadPoolExecutor(torch.get_num_threads()) as pool,
        tqdm(
            total=len(x), desc="sparse matrix transforms", unit="image", disable=None if progress else True
        ) as bar,
    ):
        for part in x.detach().split(size):
            fits.append(_fit_chunk(part, settings, pool, n_before=sum(len(fit.mean) for fit in fits)))
            bar.update(len(part))
    return SMTFit(
        gaussian=Gaussian(torch.cat([fit.mean for fit in fits]), torch.cat([fit.cov for fit in fits])),
        order=torch.cat([fit.order for fit in fits]),
        shrinkage=torch.cat([fit.shrinkage for fit in fits]),
        rotations=tuple(rotations for fit in fits for rotations in fit.rotations),
        held_out=torch.cat([fit.held_out for fit in fits]) if order == "cv" else None,
    )


class _Settings(NamedTuple):
    order: int | None  # None: by cross-validation
    largest_order: int
    shrinkage: float | None
    zero_mean: bool
    variance_floor: float
    permutation: Tensor


class _ChunkFit(NamedTuple):
    mean: Tensor
    cov: Tensor
    order: Tensor
    shrinkage: Tensor
    rotations: list[Rotations]
    held_out: Tensor


def _checked_settings(
    x: Tensor,
    order: int | str,
    shrinkage: float | str,
    zero_mean: bool,
    variance_floor: float,
    generator: torch.Generator | None,
) -> _Settings:
    for value, name in ((order, "order"), (shrinkage, "shrinkage")):
        if isinstance(value, str) and value != "cv":
            raise ValueError(f'{name} must be "cv" or a number, got {value!r}')
    most = MOST_ROTATIONS * x.shape[2] ** 2
    fixed_order = None if isinstance(order, str) else check_count(order, "order", 0, at_most=most)
    fixed_shrinkage = (
        None if isinstance(shrinkage, str) else check_number(shrinkage, "shrinkage", at_least=0, at_most=1)
    )
    check_number(variance_floor, "variance_floor", above=0, at_most=1)
    n_points, dim = x.shape[1:]
    if n_points < FOLDS and (fixed_order is None or fixed_shrinkage is None):
        raise ValueError(
            f"x has {n_points} descriptors per image, too few for cross-validation in {FOLDS} folds; "
            "give order and shrinkage as numbers"
        )
    source = check_generator(generator)
    permutation = torch.randperm(n_points, generator=source, device=source.device).cpu()
    largest = ceil(dim * log2(n_points)) if fixed_order is None else fixed_order
    return _Settings(fixed_order, largest, fixed_shrinkage, zero_mean, variance_floor, permutation)


def _fit_chunk(x: Tensor, settings: _Settings, pool: Executor, n_before: int) -> _ChunkFit:
    """Fit the images of one chunk, the first of which is image ``n_before`` of the batch."""
    points = x.to("cpu", torch.float64)
    mean = torch.zeros_like(points[:, 0]) if settings.zero_mean else points.mean(dim=1)
    centred = points - mean.unsqueeze(1)
    variance = centred.square().mean(dim=(1, 2))
    check_variance(variance, x, n_before)
    floors = (settings.variance_floor * variance).numpy()
    # Order and shrinkage from the folds, then the rotations from all descriptors.
    orders, alphas, held_out = _cross_validate(points, floors, settings, pool)
    paths = search_all(centred, floors, orders, pool)
    rotations = [Rotations(torch.from_numpy(path.pairs), torch.from_numpy(path.angles)) for path in paths]
    eigenvectors = torch.stack([one.matrix(x.shape[2]) for one in rotations])
    variances = torch.from_numpy(np.stack([path.variances(len(path.angles)) for path in paths]))
    # Directions at the floor are constant: both terms of eq. 6 have the floor there.
    dead = variances <= torch.from_numpy(floors).unsqueeze(1)
    cov = _shrunk_covariance(centred, eigenvectors, variances, dead, alphas).to(x)
    _check_positive_definite(cov, n_before)
    order = torch.tensor([len(one) for one in rotations], device=x.device)
    return _ChunkFit(mean.to(x), cov, order, alphas.to(x), rotations, held_out)


def _shrunk_covariance(
    centred: Tensor, eigenvectors: Tensor, variances: Tensor, dead: Tensor, alphas: Tensor
) -> Tensor:
    """[geometric] eq. 6; directions at the floor have that variance in both of its terms."""
    gone = eigenvectors * dead.unsqueeze(1)
    sample = second_moment(centred - (centred @ gone) @ gone.mT)
    weight = alphas[:, None, None]
    # alpha E Lambda E' + (1 - alpha) S.
    spectrum = torch.where(dead, variances, alphas.unsqueeze(1) * variances)
    return (eigenvectors * spectrum.unsqueeze(1)) @ eigenvectors.mT + (1 - weight) * sample


def _cross_validate(
    points: Tensor, floors: np.ndarray, settings: _Settings, pool: Executor
) -> tuple[list[int], Tensor, Tensor]:
    """Return the order and the shrinkage of each image, and the held-out likelihoods of all orders."""
    n_images, largest = len(points), settings.largest_order
    orders, held_out = [largest] * n_images, torch.empty(0)
    if settings.order is not None and settings.shrinkage is not None:
        return orders, torch.full((n_images,), settings.shrinkage, dtype=torch.float64), held_out
    folds = split_folds(points, settings.permutation, settings.zero_mean)
    paths = [search_all(fold.train, floors, orders, pool) for fold in folds]
    if settings.order is None:
        curves = order_curves(folds, paths, largest, pool)
        held_out = torch.from_numpy(curves)
        orders = first_of_best(held_out).tolist()  # K first; alpha is chosen for it
    if settings.shrinkage is not None:
        return orders, torch.full((n_images,), settings.shrinkage, dtype=torch.float64), held_out
    return orders, choose_shrinkage(folds, paths, floors, orders), held_out


def _check_positive_definite(cov: Tensor, n_before: int) -> None:
    singular = torch.linalg.cholesky_ex(cov).info != 0
    if singular.any():
        after = (
            f" is not positive definite in {cov.dtype}; take a larger shrinkage or variance_floor, "
            "or float64 descriptors"
        )
        raise ImageError("the covariance of ", int(singular.nonzero()[0]), after, ImageName(start=n_before))

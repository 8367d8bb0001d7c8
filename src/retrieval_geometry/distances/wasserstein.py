r"""2-Wasserstein distance between Gaussians, with any rank of the covariances.

For any factors :math:`\Sigma_p = A A^\top` and :math:`\Sigma_q = C C^\top` the fidelity
:math:`F = \operatorname{tr} (\Sigma_p^{1/2} \Sigma_q \Sigma_p^{1/2})^{1/2}` is the nuclear norm of
:math:`A^\top C`: no square root of a matrix, no inverse, and for 169 descriptors in 512 dimensions singular
values of 169 x 169 only.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from retrieval_geometry._check import (
    ImageError,
    check_finite,
)
from retrieval_geometry._covariances import pivots_are_positive
from retrieval_geometry._tolerances import FACTOR_TRACE, UNDERFLOW
from retrieval_geometry.distances._blocks import Comparison, all_pairs, blocks
from retrieval_geometry.distances._certified import in_dtype
from retrieval_geometry.distances._gaussians import (
    check_gaussians,
    checked_covariance,
    image_namer,
    pad_identity,
    product_with_each,
    safe_sqrt,
    singular_values,
    squared_euclidean,
)
from retrieval_geometry.image_models import Gaussian

NARROW = 256
"""Factors of up to this many columns are compared by singular values, wider ones by their Gram matrix."""


def wasserstein2_squared(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Squared 2-Wasserstein distance of every p from every q.

    .. math:: W_2^2(p, q) = \|\mu_p - \mu_q\|^2 + \operatorname{tr} \left( \Sigma_p + \Sigma_q
              - 2 (\Sigma_p^{1/2} \Sigma_q \Sigma_p^{1/2})^{1/2} \right)

    Source: [geometric] eq. 13, erratum 0.4 (the paper prints this square as the distance itself). Derived in
    chapter 3.

    The root is a metric; covariances may be singular. Where the Gaussians carry a factor with fewer columns
    than dimensions, the factor is used.

    Args:
        p: P images in D dimensions.
        q: Q images.

    Returns:
        ``(P, Q)``, squared units of the descriptors, at least 0, computed in float64 from the pair alone. The
        gradient is finite everywhere, and right wherever the distance is differentiable.

    Raises:
        ValueError: a covariance has a negative eigenvalue, is not symmetric or does not belong to its factor
            (the image is named), float64 descriptors are outside 1e-130 to 1e130, a squared distance is too
            large or too small for float32 (the pair is named), or ``p`` and ``q`` differ in dimension, dtype
            or device.

    Example:
        >>> p = Gaussian(torch.zeros(1, 2), torch.diag(torch.tensor([4.0, 0.0]))[None])
        >>> q = Gaussian(torch.ones(1, 2), torch.diag(torch.tensor([1.0, 9.0]))[None])
        >>> wasserstein2_squared(p, q).round(decimals=3)  # (1 + 1) + (2 - 1)^2 + (0 - 3)^2
        tensor([[12.]])
    """
    values = _squares(p, q)
    _check_underflow(values.detach(), p, q)
    return in_dtype(values, p.dtype, "squared distance")


def _squares(p: Gaussian, q: Gaussian) -> Tensor:
    check_gaussians(p, q)
    return all_pairs(p, q, *wasserstein2_squared_comparison(p, q), torch.float64)


def _check_underflow(values: Tensor, p: Gaussian, q: Gaussian) -> None:
    """Refuse squared distances above rounding that are too small for the dtype."""
    size, other = (g.cov.detach().diagonal(dim1=-2, dim2=-1).double().sum(dim=1) for g in (p, q))
    rounding = UNDERFLOW * (size.unsqueeze(1) + other)
    lost = (values > rounding) & (values < torch.finfo(p.dtype).tiny)
    if lost.any():
        i, j = lost.nonzero()[0].tolist()
        raise ValueError(
            f"the squared distance of image {i} of p and image {j} of q, {float(values[i, j]):.3g}, is too "
            f"small for {p.dtype}: take wasserstein2, or rescale all images by one factor"
        )


def wasserstein2(p: Gaussian, q: Gaussian) -> Tensor:
    r"""2-Wasserstein distance, the root of :func:`wasserstein2_squared`: a metric between distributions.

    Source: [geometric] eq. 13, erratum 0.4. Derived in chapter 3.

    Args:
        p: P images in D dimensions.
        q: Q images.

    Returns:
        ``(P, Q)``, units of the descriptors; the root is taken in float64, where no square of float32
        descriptors is too small. Where it is 0 its gradient is set to 0.

    Raises:
        ValueError: as :func:`wasserstein2_squared`.
    """
    return in_dtype(safe_sqrt(_squares(p, q)), p.dtype, "distance")


def wasserstein2_squared_comparison(p: Gaussian, q: Gaussian) -> Comparison:
    """The preparation of images and their comparison, for :func:`wasserstein2_squared`."""
    # Of a whole side at once: a factor has as many columns in every block, and so the same last bits.
    centred = {"p": columns_sum_to_zero(p), "q": columns_sum_to_zero(q)}

    def prepare(g: Gaussian, side: str, start: int) -> FactorFeatures:
        return factor_features(g, side, start, centred[side])

    return Comparison(prepare, _compare, bytes_per_image=40 * p.dim**2)


def columns_sum_to_zero(g: Gaussian) -> bool:
    """Whether the columns of every factor sum to zero, as those of centred descriptors do."""
    if g.factor is None or g.factor.shape[2] == 1 or not g.factor.isfinite().all():
        return False
    cuts = blocks(len(g), 16 * g.dim * g.factor.shape[2])
    return all(bool(_centred(g.factor[cut].detach().double(), g.dtype).all()) for cut in cuts)


def _centred(factor: Tensor, precision: torch.dtype) -> Tensor:
    """Whether the columns of each factor ``(B, D, R)`` sum to zero, within rounding of their dtype."""
    total = factor.sum(dim=2).square().sum(dim=1) / factor.shape[2]
    return total <= (8 * torch.finfo(precision).eps) ** 2 * _squared_norms(factor)


def _squared_norms(factor: Tensor) -> Tensor:
    # Rows first: the sum of all entries of a single matrix would be split between threads.
    return factor.square().sum(dim=2).sum(dim=1)


class FactorFeatures(NamedTuple):
    """Images prepared for the fidelity, in float64."""

    mean: Tensor
    """``(B, D)``."""
    factor: Tensor
    """``(B, D, R)``, R at most D."""
    trace: Tensor
    """``(B,)``, the trace of the covariance."""
    cov: Tensor | None
    """``(B, D, D)`` where the gradient goes to the covariance and not to the factor, else None."""


def factor_features(g: Gaussian, side: str, start: int, centred: bool) -> FactorFeatures:
    """Means, factors and traces of a block of images, checked.

    Args:
        g: the images.
        side: "p" or "q", for messages.
        start: index of the first image, for messages.
        centred: whether the columns of every factor of the side sum to zero, so that all can lose one.

    Raises:
        ValueError: a covariance is no covariance, or not that of its factor; the image is named.
    """
    if g.factor is None or (g.cov.requires_grad and not g.factor.requires_grad):
        return _covariance_features(g, side, start)
    features = given_features(g, g.factor, side, start)
    if g.factor.requires_grad and g.factor.shape[2] > g.dim:
        # Folding more columns than dimensions has no gradient at lower rank; the covariance has.
        return _covariance_features(Gaussian(g.mean, g.factor @ g.factor.mT), side, start)
    return features._replace(factor=_narrowed(features.factor, centred, g.dtype))


def given_features(g: Gaussian, factor: Tensor, side: str, start: int) -> FactorFeatures:
    """Images with their factors as they are given, checked; see :func:`factor_features`."""
    factor = check_finite(factor, "the factor", image_namer(side, start)).double()
    factor = factor.contiguous()  # the last bits of a product depend on the order in memory
    trace = _squared_norms(factor)
    _check_factor(g, factor.detach(), trace.detach(), side, start)
    return FactorFeatures(g.mean.double(), factor, trace, None)


def _covariance_features(g: Gaussian, side: str, start: int) -> FactorFeatures:
    cov = checked_covariance(g, side, start)
    trace = cov.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    factor = semidefinite_factor(cov.detach(), g.dtype, side, start)
    return FactorFeatures(g.mean.double(), factor, trace, cov if cov.requires_grad else None)


def _check_factor(g: Gaussian, factor: Tensor, trace: Tensor, side: str, start: int) -> None:
    """Refuse factors that are not finite, have another trace than the covariance, or map a vector elsewhere.

    Two fixed vectors of random signs are mapped: a wrong factor maps both right with probability 0 for normal
    draws, and next to 0 for signs. Rounding of the covariance, entry by entry, is at most
    :math:`R \\epsilon` times the product of two deviations; the deviations of a sum add up.
    """
    given = g.cov.diagonal(dim1=-2, dim2=-1).sum(dim=-1).double()
    wrong = ~((trace - given).abs() <= FACTOR_TRACE * trace.abs())
    if wrong.any():
        image = int(wrong.nonzero()[0])
        after = (
            " does not belong to its covariance: factor @ factor.mT has trace "
            f"{float(trace[image]):.6g}, the covariance {float(given[image]):.6g}"
        )
        raise ImageError("the factor of ", image, after, image_namer(side, start))
    x = torch.randn(g.dim, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(g.device)
    difference = factor @ (factor.mT @ x) - (g.cov.detach() @ x.to(g.dtype)).double()
    deviations = factor.square().sum(dim=2).sqrt().unsqueeze(2)
    reach = deviations * (deviations * x.abs()).sum(dim=1, keepdim=True)
    rounding = 8 * (g.dim + factor.shape[2]) * torch.finfo(g.dtype).eps
    wrong = (difference.abs() > rounding * reach).flatten(1).any(dim=1)
    if wrong.any():
        image = int(wrong.nonzero()[0])
        after = " does not belong to its covariance: both have one trace, and map a vector to different ones"
        raise ImageError("the factor of ", image, after, image_namer(side, start))


def _narrowed(factor: Tensor, centred: bool, precision: torch.dtype) -> Tensor:
    """Factors of the same matrices with as few columns as is cheap to find, a multiple of 8 of them.

    Centred descriptors sum to zero: a reflection that takes the diagonal to the first axis empties the first
    column. Where some of a side are not centred, it is put at 0 in those that are, and stays. More columns
    than dimensions fold into a triangle by a QR factorisation.
    """
    if centred:
        factor = _first_column_emptied(factor)[:, :, 1:]
    elif factor.shape[2] > 1 and (each := _centred(factor.detach(), precision)).any():
        emptied = torch.nn.functional.pad(_first_column_emptied(factor)[:, :, 1:], (1, 0))
        factor = torch.where(each[:, None, None], emptied, factor)
    folds = factor.shape[2] > factor.shape[1]
    factor = pad_columns(factor)
    return pad_columns(torch.linalg.qr(factor.mT, mode="r").R.mT) if folds else factor


def _first_column_emptied(factor: Tensor) -> Tensor:
    """Columns reflected so that their sum goes to the first, times a constant."""
    n_columns = factor.shape[2]
    normal = torch.full((n_columns,), n_columns**-0.5, dtype=factor.dtype, device=factor.device)
    normal[0] -= 1  # Householder: the unit vector of equal entries goes to the first axis
    length = torch.linalg.vector_norm(normal)
    # Row by row: a product of all images with one vector would be one long product, whose rounding depends on
    # the place of an image in the batch.
    along = (factor.sum(dim=2) * n_columns**-0.5 - factor[:, :, 0]) / length
    return factor - 2 * along.unsqueeze(2) * (normal / length)


def pad_columns(factor: Tensor) -> Tensor:
    """Append empty columns up to a multiple of 8, for the reason given at ``pad_identity``."""
    return torch.nn.functional.pad(factor, (0, -factor.shape[2] % 8)).contiguous()


def semidefinite_factor(cov: Tensor, precision: torch.dtype, side: str, start: int) -> Tensor:
    """Factors ``(B, D, R)`` of covariances of any rank; R is D, up to a multiple of 8.

    Cholesky where it is safe. Elsewhere eigenvectors: directions whose variance is rounding are left out,
    because the root of a rounding error is no rounding error.

    Args:
        cov: ``(B, D, D)`` in float64.
        precision: the dtype in which the covariances were computed.
        side: "p" or "q", for the message.
        start: index of the first image, for the message.

    Raises:
        ValueError: a covariance has a negative eigenvalue; the image is named.
    """
    dim = cov.shape[-1]
    lower, info = torch.linalg.cholesky_ex(pad_identity(cov))  # any factor will do: eq. 13 sees A A' only
    factor = lower[:, :dim]
    singular = ((info != 0) | ~pivots_are_positive(factor[:, :, :dim], cov, precision)).nonzero().flatten()
    for image in singular.tolist():
        values, vectors = torch.linalg.eigh(cov[image])
        rounding = max(16.0, dim**0.5) * torch.finfo(precision).eps * float(values.abs().max())
        if values[0] < -10 * rounding:
            after = (
                f" has the negative eigenvalue {float(values[0]):.3g}; a covariance is positive semi-definite"
            )
            raise ImageError("the covariance of ", image, after, image_namer(side, start))
        # sqrt(1e-16) is 1e-8: a direction that is rounding would come back as a real one.
        roots = torch.where(values > rounding, values, 0.0).sqrt()
        factor[image, :, :dim] = vectors * roots
    return factor.contiguous()


def _compare(a: FactorFeatures, b: FactorFeatures) -> Tensor:
    # tr(S_p + S_q) - 2 F of eq. 13; rounding may leave it below 0 between equal images.
    spread = a.trace.unsqueeze(1) + b.trace - 2 * fidelity(a, b)
    return squared_euclidean(a.mean, b.mean) + spread.clamp_min(0)


def fidelity(a: FactorFeatures, b: FactorFeatures) -> Tensor:
    """Fidelities ``(p, q)``, with a gradient to the factors or, where they are kept, to the covariances."""
    if a.cov is None and b.cov is None:
        return _nuclear_norms(a.factor, b.factor)
    covs = (f.factor @ f.factor.mT if f.cov is None else f.cov for f in (a, b))
    return _CovarianceFidelity.apply(*covs, a.factor.detach(), b.factor.detach())


def _nuclear_norms(left: Tensor, right: Tensor) -> Tensor:
    """Nuclear norms ``(p, q)`` of ``left[i].mT @ right[j]``, factors ``(p, D, R)`` and ``(q, D, S)``."""
    units, others = _units(left), _units(right)
    if (units != 1).any() or (others != 1).any():
        left, right = left / units[:, None, None], right / others[:, None, None]
    # The fidelity of a pair: F = |A' C|_*, from R x S numbers whatever D is.
    columns = blocks(len(right), 32 * max(left.shape[2], right.shape[2]) ** 2)
    narrow = min(left.shape[2], right.shape[2]) <= NARROW or left.requires_grad or right.requires_grad
    norms = _norms_by_singular_values if narrow else _norms_by_gram
    values = torch.stack(
        [torch.cat([norms(product_with_each(factor.mT, right[j])) for j in columns]) for factor in left]
    )
    return values * units.unsqueeze(1) * others


@torch.no_grad()
def _units(factors: Tensor) -> Tensor:
    """Powers of two ``(B,)`` by which to divide factors whose squares might leave the numbers of float64."""
    size = factors.abs().amax(dim=(1, 2)).log2().floor()
    return torch.where(size.isfinite() & (size.abs() > 100), size, 0.0).exp2()


def _norms_by_singular_values(products: Tensor) -> Tensor:
    return torch.linalg.svdvals(products).sum(dim=-1)


def _norms_by_gram(products: Tensor) -> Tensor:
    return singular_values(products).sum(dim=-1)


class _CovarianceFidelity(torch.autograd.Function):
    r"""Fidelity as a function of covariances without a differentiable factor.

    With :math:`A^\top C = U S V^\top` the gradient is :math:`\frac12 C V S^{+} V^\top C^\top` for
    :math:`\Sigma_p = A A^\top` and :math:`\frac12 A U S^{+} U^\top A^\top` for :math:`\Sigma_q = C C^\top`:
    half the transport maps. The pseudo-inverse keeps it finite where a covariance is singular, and no
    difference of eigenvalues is divided by.
    """

    @staticmethod
    def forward(ctx: object, cov_p: Tensor, cov_q: Tensor, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(left, right)  # type: ignore[attr-defined]
        return _nuclear_norms(left, right)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        left, right = ctx.saved_tensors  # type: ignore[attr-defined]
        dim = left.shape[1]
        grad_p, grad_q = (
            torch.zeros(len(f), dim, dim, dtype=f.dtype, device=f.device) for f in (left, right)
        )
        for i, factor in enumerate(left):
            for j in blocks(len(right), 64 * dim**2):
                # A' C = U S V', and half a transport map on either side.
                u, s, vt = torch.linalg.svd(factor.mT @ right[j], full_matrices=False)
                kept = s > dim * torch.finfo(s.dtype).eps * s[:, :1]
                weight = torch.where(kept, 0.5 / torch.where(kept, s, 1.0), 0.0) * grad[i, j, None]
                forward, backward = right[j] @ vt.mT, factor @ u
                grad_p[i] += ((forward * weight.unsqueeze(1)) @ forward.mT).sum(dim=0)
                grad_q[j] += (backward * weight.unsqueeze(1)) @ backward.mT
        return grad_p, grad_q, None, None

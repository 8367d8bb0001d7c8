"""One multivariate normal distribution per image.

The covariance of N descriptors in D dimensions has rank below N: with 169 descriptors of 512 dimensions it is
singular. The centred descriptors themselves are a factor of it, ``cov = factor @ factor.mT``; keeping them
lets the 2-Wasserstein distance work with 169 columns instead of 512. Distances that need an inverse need
shrinkage.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retrieval_geometry._check import check_floating
from retrieval_geometry.image_models._descriptors import check_descriptors, check_variance

Index = int | slice | Tensor | Sequence[int]


def keep_batch_axis(index: Index, length: int) -> slice | Tensor:
    """Turn any index into one that keeps the batch axis: a single integer picks a batch of one."""
    if isinstance(index, slice):
        return index
    picked = torch.as_tensor(index)
    if picked.ndim == 1:
        return picked if picked.numel() else picked.long()
    position = operator.index(index)  # type: ignore[arg-type]
    if not -length <= position < length:
        raise IndexError(f"image {position} asked for, but the batch holds {length}")
    return slice(position % length, position % length + 1)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A batch of B multivariate normal distributions in D dimensions.

    Derived in chapter 2.

    Attributes:
        mean: ``(B, D)``.
        cov: ``(B, D, D)``, symmetric, positive semi-definite.
        factor: ``(B, D, R)`` with ``cov = factor @ factor.mT``, or None where no thin factor is known.

    Indexing keeps the batch axis: ``g[3]`` is a batch of one, ``g[2:5]`` of three.

    Raises:
        ValueError: no tensors of float32 or float64, no dimension, or shapes, dtypes or devices that do not
            belong together.
    """

    mean: Tensor
    cov: Tensor
    factor: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "cov") if self.factor is None else ("mean", "cov", "factor"):
            check_floating(getattr(self, name), name)
        if self.mean.ndim != 2 or not self.mean.shape[1]:
            raise ValueError(
                f"mean must have shape (images, dimensions) with a dimension, got {tuple(self.mean.shape)}"
            )
        n_images, dim = self.mean.shape
        if self.cov.shape != (n_images, dim, dim):
            raise ValueError(
                f"cov must have shape {(n_images, dim, dim)} to go with mean {tuple(self.mean.shape)}, "
                f"got {tuple(self.cov.shape)}"
            )
        parts = [self.cov]
        if self.factor is not None:
            if self.factor.ndim != 3 or self.factor.shape[:2] != (n_images, dim):
                raise ValueError(
                    f"factor must have shape ({n_images}, {dim}, rank) to go with mean "
                    f"{tuple(self.mean.shape)}, got {tuple(self.factor.shape)}"
                )
            parts.append(self.factor)
        if any(part.dtype != self.mean.dtype or part.device != self.mean.device for part in parts):
            raise ValueError("mean, cov and factor must share one dtype and one device; convert with .to")

    def __len__(self) -> int:
        return self.mean.shape[0]

    def __getitem__(self, index: Index) -> "Gaussian":
        keep = keep_batch_axis(index, len(self))
        return Gaussian(self.mean[keep], self.cov[keep], None if self.factor is None else self.factor[keep])

    @property
    def dim(self) -> int:
        """The number of dimensions D."""
        return self.mean.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the mean, the covariance and the factor share."""
        return self.mean.dtype

    @property
    def device(self) -> torch.device:
        """The device that the mean, the covariance and the factor share."""
        return self.mean.device

    def to(self, *args: object, **kwargs: object) -> "Gaussian":
        """Move or convert every part, as ``Tensor.to`` does."""
        factor = None if self.factor is None else self.factor.to(*args, **kwargs)  # type: ignore[call-overload]
        mean, cov = (part.to(*args, **kwargs) for part in (self.mean, self.cov))  # type: ignore[call-overload]
        return Gaussian(mean, cov, factor)


def fit_gaussian(x: Tensor, shrinkage: float | Sequence[float] | Tensor = 0.0) -> Gaussian:
    r"""Normal distribution of the descriptors of each image: maximum likelihood, then shrinkage.

    .. math:: S = \frac1N \sum_n (x_n - \mu)(x_n - \mu)^\top, \qquad
              \Sigma = (1 - s)\,S + s\,\frac{\operatorname{tr} S}{D}\,I

    Source: [geometric] section 2.2 (which divides by N); Ledoit and Wolf 2004. Derived in chapter 2.

    The trace does not change with the shrinkage. Sums for the mean are accumulated in float64.

    Args:
        x: ``(B, N, D)`` descriptors, float32 or float64.
        shrinkage: s in [0, 1]: one number, or one per image.

    Returns:
        A :class:`Gaussian` with mean ``(B, D)`` and cov ``(B, D, D)``. Where no image is shrunk, it carries
        the factor ``(B, D, N)``: the centred descriptors over :math:`\sqrt N`.

    Raises:
        ValueError: a wrong shape or dtype, a NaN or infinite descriptor, an image whose mean variance is
            above 0 and outside 1e-30 to 1e32 in float32, 1e-140 to 1e140 in float64 (the image is named), or
            a shrinkage outside [0, 1] or of a length other than B.

    Example:
        >>> g = fit_gaussian(torch.tensor([[[0.0, 0.0], [4.0, 0.0], [0.0, 0.0], [4.0, 0.0]]]))
        >>> g.mean.tolist(), g.cov.tolist()
        ([[2.0, 0.0]], [[[4.0, 0.0], [0.0, 0.0]]])
    """
    check_descriptors(x)
    amount = _check_shrinkage(shrinkage, x)
    mean = x.mean(dim=1, dtype=torch.float64).to(x.dtype)
    factor = (x - mean.unsqueeze(1)).mT / x.shape[1] ** 0.5  # S = A A', with N columns and not D
    cov = factor @ factor.mT
    check_variance(cov.detach().diagonal(dim1=-2, dim2=-1).mean(dim=-1), x)
    if not amount.any():
        return Gaussian(mean, cov, factor)
    # (1 - s) S + s (tr S / D) I: full rank for any s above 0.
    target = cov.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    cov = (1 - amount)[:, None, None] * cov
    cov.diagonal(dim1=-2, dim2=-1).add_((amount * target).unsqueeze(-1))
    return Gaussian(mean, cov)


def _check_shrinkage(shrinkage: float | Sequence[float] | Tensor, x: Tensor) -> Tensor:
    """Return the shrinkage as one number per image, ``(B,)``."""
    try:
        amount = torch.as_tensor(shrinkage, dtype=x.dtype, device=x.device)
    except (TypeError, ValueError, RuntimeError):  # a word, None, a ragged list
        raise ValueError(f"shrinkage must be a number or one for each image, got {shrinkage!r}") from None
    if amount.ndim > 1 or (amount.ndim == 1 and len(amount) != len(x)):
        raise ValueError(
            f"shrinkage must be one number or one for each of the {len(x)} images, "
            f"got shape {tuple(amount.shape)}"
        )
    amount = amount.expand(len(x))
    wrong = ~((amount >= 0) & (amount <= 1))
    if wrong.any():
        raise ValueError(f"shrinkage must lie in [0, 1], got {float(amount[wrong][0])}")
    return amount

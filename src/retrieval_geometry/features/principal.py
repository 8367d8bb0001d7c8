"""Principal axes of vectors: a projection to fewer numbers, with or without whitening."""

from typing import NamedTuple

import torch
from torch import Tensor

from retrieval_geometry._check import check_count, check_finite, check_floating, check_shape
from retrieval_geometry._tolerances import NULL_DIRECTION


class PrincipalAxes(NamedTuple):
    """The axes along which vectors vary most, in float64.

    Attributes:
        mean: ``(D,)``, of the vectors.
        axes: ``(dim, D)``, orthonormal rows, the one of the largest variance first.
        variances: ``(dim,)``, along the axes, with n - 1 in the denominator.
    """

    mean: Tensor
    axes: Tensor
    variances: Tensor

    def project(self, vectors: Tensor, whiten: bool = False) -> Tensor:
        """Coordinates ``(n, dim)`` of vectors ``(n, D)`` on the axes; whitened, all have variance 1.

        They have the dtype of the vectors. The variance is 1 over the vectors that the axes were fitted to.
        """
        found = (vectors.double() - self.mean) @ self.axes.mT
        return (found / self.variances.sqrt() if whiten else found).to(vectors.dtype)


def principal_axes(vectors: Tensor, dim: int) -> PrincipalAxes:
    """Fit the first ``dim`` principal axes of ``(n, D)`` vectors: eigenvectors of their covariance.

    Source: Jégou and Chum 2012 (whitening of image vectors). Used in chapter 14.

    Args:
        vectors: float32 or float64.
        dim: number of axes, at most n - 1 and D.

    Raises:
        ValueError: another shape or dtype, NaN or infinity, or vectors that vary in fewer than ``dim``
            directions.

    Example:
        >>> axes = principal_axes(torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]]), dim=1)
        >>> axes.project(torch.tensor([[6.0, 9.0]]), whiten=True).abs()
        tensor([[2.]])
    """
    check_floating(vectors, "vectors")
    check_shape(vectors, "vectors", ("vectors", "dimensions"))
    check_finite(vectors, "vectors")
    check_count(dim, "dim")
    if len(vectors) < 2:
        raise ValueError(f"vectors must be at least two to have axes, got {len(vectors)}")
    exact = vectors.double()
    mean = exact.mean(dim=0)
    centred = exact - mean
    variances, columns = torch.linalg.eigh(centred.mT @ centred / (len(vectors) - 1))
    variances, axes = variances.flip(0), columns.flip(1).mT
    directions = int((variances > NULL_DIRECTION * variances[0]).sum())
    if dim > directions:
        raise ValueError(f"vectors vary in {directions} directions only, too few for dim = {dim}")
    return PrincipalAxes(mean, axes[:dim].contiguous(), variances[:dim])

"""Whitening in closed form: it meets all constraints of [ae-svc] without training."""

from typing import Any, Self

import torch
from torch import Tensor

from retrieval_geometry._check import check_choice, check_count, check_number, check_seed
from retrieval_geometry._tolerances import NULL_DIRECTION
from retrieval_geometry.projections._automatic import choose
from retrieval_geometry.projections._base import LinearProjection, leading_axes
from retrieval_geometry.projections._rows import Rows
from retrieval_geometry.projections.moments import StreamingMoments, check_variation, moments_of

SHRINKAGES = ("ledoit-wolf", "auto")


class PCAWhitening(LinearProjection):
    r"""Principal axes, each divided by a power of its standard deviation.

    .. math::
        z_i = v_i^{-p/2} \, u_i^\top (x - \mu), \quad v_i = (1 - s) \lambda_i + \frac{s}{d} \sum_j \lambda_j

    with eigenvalues :math:`\lambda_i` and axes :math:`u_i` of the references' covariance. Power p = 1 without
    shrinkage s is full whitening: mean, variances and covariances of the references are those that [ae-svc]
    asks for, exactly. p = 0 is principal component analysis, and with all components has the cosines of
    centred embeddings. Shrinkage towards equal eigenvalues keeps noise in small ones from being blown up.

    Source: Jégou and Chum 2012; Ledoit and Wolf 2004 for the shrinkage. Used in no chapter.

    ``"auto"`` chooses shrinkage and power without labels. A quarter of the references, 2,000 at most, is held
    out; the shrinkage is the one under which a Gaussian fitted to the others makes them most likely. The
    power is the one at which two halves of the coordinates, whitened apart, agree most on who are the ten
    nearest among them: what both halves show is more than noise. Whether it is what one looks for no such
    rule can know.

    It is fitted in one pass over the references (two for Ledoit and Wolf) and in bounded memory.

    Args:
        power: p, from 0; a fourth, a half, ... whiten in part. With ``"auto"`` it is not used.
        shrinkage: s from 0 to 1, ``None`` for 0, ``"ledoit-wolf"``, or ``"auto"``.
        n_components: the axes that are kept, those of the largest variance; all by default.
        random_state: seed of the draws of ``"auto"``.

    Attributes:
        mean_: ``(d,)`` float64.
        variances_: ``(k,)``, eigenvalues of the axes that are kept, with n in the denominator.
        matrix_: ``(k, d)``.
        power_, shrinkage_: numbers that were used.
        scores_: with ``"auto"``, the agreement at each power.

    Raises:
        ValueError: on ``fit``, fewer than two references, NaN or infinity, references that are all alike,
            that vary in too few directions to be whitened (fewer references than dimensions, or constant
            dimensions), or settings out of range.

    Example:
        >>> x = torch.randn(99, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 1.0])
        >>> z = PCAWhitening().fit_transform(x)
        >>> torch.allclose(torch.cov(z.mT, correction=0), torch.eye(2), atol=1e-5)
        True
    """

    stored = (*LinearProjection.stored, "variances_", "power_", "shrinkage_", "scores_")

    scores_: dict[str, float]

    def __init__(
        self,
        power: float = 1.0,
        shrinkage: float | str | None = None,
        n_components: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.power = power
        self.shrinkage = shrinkage
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit to references ``(n, d)``, which may be a memory-mapped array; ``y`` is not used."""
        check_number(self.power, "power", at_least=0, at_most=4)
        check_seed(self.random_state, "random_state")
        if isinstance(self.shrinkage, str):
            check_choice(self.shrinkage, "shrinkage", SHRINKAGES)
        elif self.shrinkage is not None:
            check_number(self.shrinkage, "shrinkage", at_least=0, at_most=1)
        rows = Rows(X, at_least=2, why=" to have a covariance")
        k = rows.dim if self.n_components is None else check_count(self.n_components, "n_components")
        if k > rows.dim:
            raise ValueError(f"n_components must be at most {rows.dim}, the dimension of X, got {k}")
        moments = check_variation(moments_of(rows))
        power, share, scores = self._settled(rows, moments)
        variances, axes = leading_axes(moments.covariance)
        shrunk = shrink(variances, share)
        if power:
            _check_directions(shrunk, k, rows)
        self.power_, self.shrinkage_, self.scores_ = power, share, scores
        self.variances_ = variances[:k].cpu()
        self._hold(moments.mean, axes[:k] * shrunk[:k, None] ** (-power / 2))
        return self

    def _settled(self, rows: Rows, moments: StreamingMoments) -> tuple[float, float, dict[str, float]]:
        """Power, shrinkage, and what the powers were chosen by."""
        if self.shrinkage == "auto":
            return choose(rows, moments, self.random_state)
        if self.shrinkage == "ledoit-wolf":
            return float(self.power), ledoit_wolf(rows, moments), {}
        return float(self.power), float(self.shrinkage or 0), {}


def _check_directions(variances: Tensor, k: int, rows: Rows) -> None:
    """What does not vary cannot be brought to variance 1."""
    directions = int((variances > NULL_DIRECTION * variances[0]).sum())
    if k > directions:
        raise ValueError(
            f"X has {rows.n} references that vary in {directions} of {rows.dim} directions, too few for "
            f"whitening with {k} components; use n_components={directions} or fewer, or a shrinkage such "
            'as "ledoit-wolf"'
        )


def shrink(variances: Tensor, share: float) -> Tensor:
    """Eigenvalues moved towards their mean."""
    return (1 - share) * variances + share * variances.mean()


def ledoit_wolf(rows: Rows, moments: StreamingMoments) -> float:
    """The share at which a shrunk covariance is expected to be nearest to the true one, in a second pass.

    Ledoit and Wolf 2004, Theorem 3.2 with their consistent estimates.
    """
    n, dim = moments.n, rows.dim
    unit = float(moments.covariance.trace()) / dim  # so that fourth powers are numbers
    cov = moments.covariance / unit
    fourth = torch.zeros((), dtype=torch.float64, device=rows.device)
    for _, block in rows.blocks("shrinking the covariance"):
        centred = (block.double() - moments.mean) / unit**0.5
        fourth += centred.square().sum(dim=1).square().sum()
    size = float(cov.square().sum())
    distance = size - dim  # from the nearest multiple of the identity, which is now the identity
    error = (float(fourth) / n - size) / n
    return 0.0 if distance <= 0 else max(0.0, min(1.0, error / distance))

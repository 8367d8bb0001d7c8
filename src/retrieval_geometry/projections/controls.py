"""Projections that learn next to nothing: what a learnt one must beat at the same size."""

from typing import Any, Self

import torch
from torch import Tensor

from retrieval_geometry._check import check_count, check_seed
from retrieval_geometry.projections._base import LinearProjection, leading_axes
from retrieval_geometry.projections._rows import Rows
from retrieval_geometry.projections.moments import check_variation, moments_of


class AllButTheTop(LinearProjection):
    r"""Centring, and removal of the axes of largest variance.

    .. math:: z = x - \mu - \sum_{i \le k} u_i u_i^\top (x - \mu)

    The bluntest way to keep few directions from ruling a cosine.

    Source: Mu and Viswanath 2018. Used in no chapter.

    Args:
        n_removed: k, below d; by default d / 100, rounded, at least 1.

    Attributes:
        mean_: ``(d,)``.
        matrix_: ``(d, d)``, a projector.

    Raises:
        ValueError: on ``fit``, fewer than two references, NaN or infinity, references that are all alike, or
            as many axes as dimensions.

    Example:
        >>> x = torch.tensor([[9.0, 0.0], [-9.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> AllButTheTop().fit(x).transform(torch.tensor([[5.0, 2.0]]))
        tensor([[0., 2.]])
    """

    def __init__(self, n_removed: int | None = None) -> None:
        self.n_removed = n_removed

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit to references ``(n, d)``; ``y`` is not used."""
        rows = Rows(X, at_least=2, why=" to have a covariance")
        k = max(1, round(rows.dim / 100)) if self.n_removed is None else self.n_removed
        if check_count(k, "n_removed", at_least=0) >= rows.dim:
            raise ValueError(f"n_removed must be below {rows.dim}, the dimension of X, got {k}")
        moments = check_variation(moments_of(rows))
        top = leading_axes(moments.covariance)[1][:k]
        self._hold(moments.mean, torch.eye(rows.dim, dtype=torch.float64, device=rows.device) - top.mT @ top)
        return self


class RandomRotation(LinearProjection):
    """Random rotation, of which the first coordinates are kept: what truncation costs without learning.

    The rotation is uniform over all of them; of the references it uses their length alone. All coordinates
    together have the cosines of the embeddings as they are.

    Source: Johnson and Lindenstrauss 1984. Used in no chapter.

    Args:
        n_components: coordinates that are kept; all by default.
        random_state: seed of the rotation.

    Attributes:
        mean_: ``(d,)`` zeros.
        matrix_: ``(k, d)``, orthonormal rows.

    Raises:
        ValueError: on ``fit``, no references, or more components than dimensions.

    Example:
        >>> round(float(RandomRotation().fit_transform(torch.tensor([[3.0, 4.0]])).norm()), 5)
        5.0
    """

    def __init__(self, n_components: int | None = None, random_state: int = 0) -> None:
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Draw the rotation for references ``(n, d)``; ``y`` is not used."""
        rows = Rows(X)
        k = _components(self.n_components, rows)
        generator = torch.Generator().manual_seed(check_seed(self.random_state, "random_state"))
        drawn = torch.randn(rows.dim, rows.dim, generator=generator, dtype=torch.float64)
        q, r = torch.linalg.qr(drawn)
        # Mezzadri 2007: without these signs the rotation would not be uniform.
        rotation = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
        self._hold(torch.zeros(rows.dim, dtype=torch.float64), rotation.mT[:k])
        return self


class Truncation(LinearProjection):
    """The first coordinates of embeddings, as they are: how nested embeddings are cut.

    Source: Kusupati et al. 2022 (Matryoshka embeddings). Used in no chapter.

    Args:
        n_components: coordinates that are kept; all by default, which changes nothing.

    Attributes:
        mean_: ``(d,)`` zeros.
        matrix_: ``(k, d)``, rows of the identity.

    Raises:
        ValueError: on ``fit``, no references, or more components than dimensions.

    Example:
        >>> Truncation(2).fit_transform(torch.tensor([[3.0, 4.0, 5.0]]))
        tensor([[3., 4.]])
    """

    def __init__(self, n_components: int | None = None) -> None:
        self.n_components = n_components

    def fit(self, X: Any, y: Any = None) -> Self:
        """Take the length of the references ``(n, d)``; ``y`` is not used."""
        rows = Rows(X)
        k = _components(self.n_components, rows)
        eye = torch.eye(rows.dim, dtype=torch.float64)
        self._hold(torch.zeros(rows.dim, dtype=torch.float64), eye[:k])
        return self

    def _project(self, block: Tensor) -> Tensor:
        return block[:, : self._width()]


def _components(n_components: int | None, rows: Rows) -> int:
    if n_components is None:
        return rows.dim
    if check_count(n_components, "n_components") > rows.dim:
        raise ValueError(f"n_components must be at most {rows.dim}, the dimension of X, got {n_components}")
    return n_components

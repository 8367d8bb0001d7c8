"""What all projections share: they are scikit-learn's transformers, and take tensors as well as arrays."""

from typing import Any, ClassVar, Self

import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from retrieval_geometry.projections._rows import Rows


class Projection(TransformerMixin, BaseEstimator):
    """Projection of embeddings, fitted to references: what all of them share.

    Source: this package's own, in the manner of Buitinck et al. 2013 (scikit-learn's interface). Used in no
    chapter.

    ``fit`` takes references ``(n, d)`` and checks the arguments, as scikit-learn's custom is; ``transform``
    gives an array for an array and a tensor for a tensor, of the same dtype, on the same device.

    Raises:
        ValueError: on ``transform``, not fitted yet, or embeddings that are no finite ``(n, d)``.
    """

    stored: ClassVar[tuple[str, ...]]
    """Fitted attributes that a file holds: tensors, modules and plain values."""

    n_features_in_: int

    def transform(self, X: Any, out: Any = None) -> Any:
        """Project embeddings.

        Args:
            X: ``(n, d)``, of the length that the projection was fitted to; memory-mapped arrays are read
                block by block.
            out: ``(n, k)``, an array or a tensor to write to, such as ``np.lib.format.open_memmap`` makes.

        Raises:
            ValueError: not fitted yet (scikit-learn's ``NotFittedError``), no rows, rows of another length,
                NaN or infinity in a row, which is named, or ``out`` of another shape.
        """
        rows = self._opened(X)
        return rows.mapped(self._project, self._width(), out, self._bytes_each())

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit to references."""
        raise NotImplementedError

    def _check_fitted(self) -> None:
        check_is_fitted(self, "n_features_in_")

    def _opened(self, X: Any) -> Rows:
        self._check_fitted()
        return Rows(X, why=" to project", dim=self.n_features_in_)

    def _project(self, block: Tensor) -> Tensor:
        raise NotImplementedError

    def _width(self) -> int:
        raise NotImplementedError

    def _bytes_each(self) -> int:
        """What the projection of a row takes while it is made, beside its input and its output."""
        return 0

    def _rebuild(self) -> None:
        """Make the modules of a projection that is read from a file, for their weights to be put in."""


class LinearProjection(Projection):
    """A projection x -> (x - mean) A^T, computed in float64."""

    stored: ClassVar[tuple[str, ...]] = ("n_features_in_", "mean_", "matrix_")
    mean_: Tensor
    matrix_: Tensor

    def _project(self, block: Tensor) -> Tensor:
        mean, matrix = self.mean_.to(block.device), self.matrix_.to(block.device)
        return ((block.double() - mean) @ matrix.mT).to(block.dtype)

    def _width(self) -> int:
        return len(self.matrix_)

    def _hold(self, mean: Tensor, matrix: Tensor) -> None:
        self.n_features_in_ = matrix.shape[1]
        self.mean_, self.matrix_ = mean.cpu(), matrix.contiguous().cpu()


def leading_axes(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, largest first and none below 0, and their axes in rows, each with its sign made certain.

    An eigenvector is one up to its sign; here its largest entry is positive, whatever the library.
    """
    values, columns = torch.linalg.eigh(covariance)
    axes = columns.flip(1).mT
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return values.flip(0).clamp(min=0), axes * torch.where(largest < 0, -1.0, 1.0)

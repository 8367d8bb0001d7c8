"""Product quantisation: the other way to make embeddings small, at equal bytes."""

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from retrieval_geometry._check import check_count
from retrieval_geometry._tolerances import COORDINATES
from retrieval_geometry.projections._base import Projection
from retrieval_geometry.projections._rows import Rows

CODES = 256
"""Centres of each part of a vector: its number fits a byte."""

TRAINED_ON = 2**16
"""Vectors that the centres are learnt from; more change little."""


class ProductQuantization(Projection):
    """Product quantisation: a vector is cut into parts, and each is replaced by the nearest of 256 centres.

    An embedding takes ``n_bytes`` bytes, as many as ``n_bytes / 4`` numbers in float32. ``transform`` gives
    vectors as they are decoded, of the length they had, so that any comparison of embeddings shows what is
    lost. A query need not be compressed: compare it as it is with the decoded references.

    Source: Jégou, Douze and Schmid 2011, centres by FAISS. Used in no chapter.

    Args:
        n_bytes: parts of a vector, at most d. A length that it does not divide is filled up with zeros.
        random_state: seed of the k-means.

    Attributes:
        centres_: ``(n_bytes, 256, w)`` float32, w the length of a part.

    Raises:
        ValueError: on ``fit``, fewer than 256 references, NaN or infinity, or more parts than dimensions.

    Example:
        >>> x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
        >>> found = ProductQuantization(n_bytes=2).fit(x)
        >>> found.codes(x).shape, found.transform(x).shape
        (torch.Size([300, 2]), torch.Size([300, 4]))
    """

    stored = ("n_features_in_", "centres_")
    centres_: Tensor

    def __init__(self, n_bytes: int, random_state: int = 0) -> None:
        self.n_bytes = n_bytes
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the centres from references ``(n, d)``, 65,536 of them at most; ``y`` is not used."""
        import faiss  # slow to import

        parts = check_count(self.n_bytes, "n_bytes")
        seed = check_count(self.random_state, "random_state", at_least=0, at_most=2**31 - 1)
        rows = Rows(X, at_least=CODES, why=f" for {CODES} centres")
        if parts > rows.dim:
            raise ValueError(f"n_bytes must be at most {rows.dim}, the dimension of X, got {parts}")
        for _, block in rows.blocks("reading the references"):
            _single(block)
        chosen = torch.randperm(rows.n, generator=torch.Generator().manual_seed(seed))[:TRAINED_ON]
        sample = self._padded(rows.take(chosen.sort().values).float().cpu(), parts)
        quantizer = faiss.ProductQuantizer(sample.shape[1], parts, 8)
        quantizer.cp.seed = seed
        quantizer.cp.min_points_per_centroid = 1  # a warning on stderr otherwise
        quantizer.train(np.ascontiguousarray(sample.numpy()))
        centres = faiss.vector_to_array(quantizer.centroids).reshape(parts, CODES, -1)
        self.centres_ = torch.from_numpy(centres.copy())
        self.n_features_in_ = rows.dim
        return self

    def codes(self, X: Any) -> Tensor:
        """Numbers of the nearest centres, ``(n, n_bytes)`` uint8.

        Raises:
            ValueError: as ``transform``.
        """
        rows = self._opened(X)
        blocks = rows.blocks("coding", self._bytes_each())
        return torch.cat([self._codes(block).cpu().to(torch.uint8) for _, block in blocks])

    def _codes(self, block: Tensor) -> Tensor:
        centres = self.centres_.to(block.device)
        parts = self._padded(_single(block), len(centres)).view(len(block), len(centres), -1)
        return torch.cdist(parts.transpose(0, 1), centres).argmin(dim=2).T

    def _project(self, block: Tensor) -> Tensor:
        centres = self.centres_.to(block.device)
        numbers = torch.arange(len(centres), device=block.device)
        decoded = centres[numbers, self._codes(block)].flatten(1)
        return decoded[:, : self.n_features_in_].to(block.dtype)

    def _padded(self, block: Tensor, parts: int) -> Tensor:
        return functional.pad(block, (0, -block.shape[1] % parts))

    def _width(self) -> int:
        return self.n_features_in_

    def _bytes_each(self) -> int:
        return 4 * CODES * len(self.centres_)  # the distances to all centres


def _single(block: Tensor) -> Tensor:
    """A block in the precision of FAISS.

    Raises:
        ValueError: it leaves the range of single precision.
    """
    largest = float(block.abs().max()) if len(block) else 0.0
    low, high = COORDINATES[torch.float32]
    if largest > high or 0 < largest < low:
        raise ValueError(
            f"X has a largest coordinate of {largest:.3g}, not from {low:g} to {high:g}; scale X"
        )
    return block.float()

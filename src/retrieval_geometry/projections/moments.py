"""Mean and covariance of embeddings that need not fit in memory."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from retrieval_geometry._check import check_count, check_device, check_finite, check_floating, check_shape
from retrieval_geometry._tolerances import ALIKE
from retrieval_geometry.projections._rows import Rows


class StreamingMoments:
    r"""Mean and covariance of all embeddings that were shown, block after block, in float64.

    .. math:: \Sigma = \frac{1}{n} \sum_i (x_i - \mu) (x_i - \mu)^\top

    The sums are taken about the mean of each block and put together by the rule of Chan et al., so that a
    large common offset costs no digits. Memory is that of one block and of ``(d, d)``.

    Source: Chan, Golub and LeVeque 1983. Used in no chapter.

    Args:
        dim: d, the length of an embedding.
        device: where the sums are.

    Attributes:
        n: embeddings that were shown.
        mean: ``(d,)``.
        scatter: ``(d, d)``, n times the covariance.

    Raises:
        ValueError: a dimension below 1, no such device; on update, a block that is no finite ``(n, d)``.

    Example:
        >>> moments = StreamingMoments(1).update(torch.tensor([[1.0], [3.0]])).update(torch.tensor([[5.0]]))
        >>> moments.n, float(moments.mean), round(float(moments.covariance), 4)
        (3, 3.0, 2.6667)
    """

    def __init__(self, dim: int, device: str | torch.device = "cpu") -> None:
        check_count(dim, "dim")
        self.n = 0
        self.mean = torch.zeros(dim, dtype=torch.float64, device=check_device(device))
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    @property
    def covariance(self) -> Tensor:
        """``(d, d)``, with n in the denominator, as [ae-svc] eq. 2 has it."""
        return self.scatter / max(self.n, 1)

    def update(self, block: Tensor) -> "StreamingMoments":
        """Show a block ``(n, d)``; gives itself.

        Raises:
            ValueError: another shape or dtype, NaN or infinity.
        """
        check_shape(check_floating(block, "block"), "block", ("rows", len(self.mean)))
        return self._add(check_finite(block, "block"), 1)

    def without(self, block: Tensor) -> "StreamingMoments":
        """New moments, of what was shown but for these embeddings ``(n, d)``, which were among it."""
        rest = StreamingMoments(len(self.mean), self.mean.device)
        rest.n, rest.mean, rest.scatter = self.n, self.mean.clone(), self.scatter.clone()
        return rest._add(block, -1)

    def _add(self, block: Tensor, sign: int) -> "StreamingMoments":
        exact = block.detach().to(self.mean.device, torch.float64)
        mean = exact.mean(dim=0)
        centred = exact - mean
        n, more = self.n, sign * len(exact)
        shift = mean - self.mean
        self.n = n + more
        self.scatter += sign * (centred.mT @ centred) + torch.outer(shift, shift) * (n * more / self.n)
        self.mean += shift * (more / self.n)
        return self


def streaming_moments(X: Any) -> StreamingMoments:
    """Moments of all rows of ``(n, d)`` in one pass, in bounded memory, with a bar where it takes long.

    Source: this package's own. Used in no chapter.

    Args:
        X: a tensor, an array, or a memory-mapped array such as ``np.load(path, mmap_mode="r")``; float32 or
            float64.

    Raises:
        ValueError: another shape, no rows, or a row with NaN or infinity, which is named.

    Example:
        >>> streaming_moments(np.eye(2)).covariance
        tensor([[ 0.2500, -0.2500],
                [-0.2500,  0.2500]], dtype=torch.float64)
    """
    return moments_of(Rows(X))


def moments_of(rows: Rows) -> StreamingMoments:
    """The same for rows that are opened already."""
    return moments_of_blocks(block for _, block in rows.blocks("reading the references"))


def moments_of_blocks(blocks: Iterable[Tensor]) -> StreamingMoments:
    """Moments of blocks ``(n, d)``, at least one, that are checked already."""
    moments: StreamingMoments | None = None
    for block in blocks:
        moments = moments or StreamingMoments(block.shape[1], block.device)
        moments._add(block, 1)
    assert moments is not None
    return moments


def check_variation(moments: StreamingMoments) -> StreamingMoments:
    """Refuse references that are all alike, but for rounding."""
    spread, size = float(moments.covariance.trace()), float(moments.mean.square().sum())
    if not spread > ALIKE * size:
        raise ValueError(f"X has {moments.n} references that are all alike; nothing can be fitted to them")
    return moments

"""Distances of some pairs of two batches, each from its two images alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from retrieval_geometry.distances._blocks import BUDGET_BYTES, Model, all_pairs, blocks, take
from retrieval_geometry.distances._gaussians import checked_cholesky
from retrieval_geometry.image_models import Gaussian

PAIRS_BYTES = 2**24
"""Memory of the pairs that are compared at a time."""


class _Placed(NamedTuple):
    features: Any
    position: Tensor
    """``(B,)``, in the batch."""


def wanted_pairs(
    p: Model,
    q: Model,
    wanted: Tensor,
    prepare: Callable[[Model, str, int], Any],
    of_pairs: Callable[[Any, Any], Tensor],
    bytes_per_image: int,
    bytes_per_pair: int,
) -> Tensor:
    """A distance ``(P, Q)`` of the wanted pairs, float64; 0 elsewhere.

    Args:
        p: P images.
        q: Q images.
        wanted: ``(P, Q)``, boolean.
        prepare: as for :func:`all_pairs`.
        of_pairs: distances ``(n,)`` of n pairs, from their prepared images.
        bytes_per_image: memory of a prepared image.
        bytes_per_pair: memory of the comparison of a pair.
    """
    # Only images that occur in a wanted pair are prepared.
    rows, columns = (wanted.any(dim=axis).nonzero().flatten() for axis in (1, 0))

    def placed(g: Model, side: str, start: int) -> _Placed:
        return _Placed(prepare(g, side, start), torch.arange(start, start + len(g), device=g.device))

    def compare(a: _Placed, b: _Placed) -> Tensor:
        values = torch.zeros(len(a.position), len(b.position), dtype=torch.float64, device=p.device)
        i, j = wanted[rows[a.position]][:, columns[b.position]].nonzero(as_tuple=True)
        cuts = blocks(len(i), BUDGET_BYTES // PAIRS_BYTES * bytes_per_pair)
        found = [of_pairs(take(a.features, i[cut]), take(b.features, j[cut])) for cut in cuts]
        return values.index_put((i, j), torch.cat(found)) if found else values

    values = torch.zeros(wanted.shape, dtype=torch.float64, device=p.device)
    found = all_pairs(p[rows], q[columns], placed, compare, bytes_per_image, torch.float64)
    return values.index_put((rows.unsqueeze(1), columns), found)


class Factored(NamedTuple):
    """Means and Cholesky factors of Gaussians, float64."""

    mean: Tensor
    """``(n, D)``."""
    lower: Tensor
    """``(n, D, D)``, the Cholesky factors of the covariances."""


def by_factors(
    p: Gaussian, q: Gaussian, wanted: Tensor, of_pairs: Callable[[Factored, Factored], Tensor]
) -> Tensor:
    """Distances ``(P, Q)`` of the wanted pairs of Gaussians, from means and Cholesky factors, float64.

    The distance is exactly 0 between identical images, and 0 stands for the pairs that are not wanted.
    """

    def prepare(g: Gaussian, side: str, start: int) -> Factored:
        return Factored(g.mean.double(), checked_cholesky(g, side, start)[1])

    def or_zero(a: Factored, b: Factored) -> Tensor:
        return zero_if_identical(of_pairs(a, b), a, b)

    return wanted_pairs(p, q, wanted, prepare, or_zero, 16 * p.dim**2, 32 * p.dim**2)


def zero_if_identical(values: Tensor, a: Factored, b: Factored) -> Tensor:
    """The values ``(n,)`` of n pairs, exactly 0 between identical images."""
    same = (a.mean == b.mean).all(dim=1)
    if same.any():  # few are: the factors are rarely read
        same = same & (a.lower == b.lower).flatten(1).all(dim=1)
    return torch.where(same, values - values.detach(), values)  # exactly 0, with its gradient

"""Some pairs of two batches of Gaussians, each from its two images alone."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from retrieval_geometry.distances._blocks import MEMORY_BUDGET, all_pairs, blocks
from retrieval_geometry.distances._gaussians import checked_cholesky
from retrieval_geometry.image_models import Gaussian

PAIRS_BYTES = 2**24
"""Of the matrices of one kind of the pairs that are compared at a time."""


class Factored(NamedTuple):
    """Images as a pair needs them, float64."""

    mean: Tensor
    """``(n, D)``."""
    lower: Tensor
    """``(n, D, D)``, the Cholesky factors of the covariances."""


class _Placed(NamedTuple):
    images: Factored
    position: Tensor


def by_factors(
    p: Gaussian, q: Gaussian, wanted: Tensor, of_pairs: Callable[[Factored, Factored], Tensor]
) -> Tensor:
    """A distance of the pairs that are ``wanted``, ``(P, Q)``, float64; 0 elsewhere.

    Args:
        p: P images.
        q: Q images.
        wanted: ``(P, Q)``, boolean.
        of_pairs: the distances ``(n,)`` of n pairs; exactly 0 is put for identical images.
    """
    rows, columns = (wanted.any(dim=axis).nonzero().flatten() for axis in (1, 0))

    def prepare(g: Gaussian, side: str, start: int) -> _Placed:
        position = torch.arange(start, start + len(g), device=g.device)
        return _Placed(Factored(g.mean.double(), checked_cholesky(g, side, start)[1]), position)

    def compare(a: _Placed, b: _Placed) -> Tensor:
        values = torch.zeros(len(a.position), len(b.position), dtype=torch.float64, device=p.device)
        i, j = wanted[rows[a.position]][:, columns[b.position]].nonzero(as_tuple=True)
        found = []
        for cut in blocks(len(i), MEMORY_BUDGET // PAIRS_BYTES * 8 * p.dim**2):
            left, right = (
                Factored(s.images.mean[at[cut]], s.images.lower[at[cut]]) for s, at in ((a, i), (b, j))
            )
            distances = of_pairs(left, right)
            found.append(torch.where(_same(left, right), distances - distances.detach(), distances))
        return values.index_put((i, j), torch.cat(found)) if found else values

    values = torch.zeros(wanted.shape, dtype=torch.float64, device=p.device)
    found = all_pairs(p[rows], q[columns], prepare, compare, 16 * p.dim**2, torch.float64)
    return values.index_put((rows.unsqueeze(1), columns), found)


def _same(a: Factored, b: Factored) -> Tensor:
    return (a.mean == b.mean).all(dim=1) & (a.lower == b.lower).flatten(1).all(dim=1)

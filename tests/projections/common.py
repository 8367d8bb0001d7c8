"""References for the tests of projections."""

from __future__ import annotations

import torch
from torch import Tensor


def references(n: int = 60, dim: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Correlated draws with a mean that is not 0 and standard deviations from 1 to 1/4."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -0.6, dim, dtype=torch.float64)
    mixing = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]
    drawn = torch.randn(n, dim, generator=generator, dtype=torch.float64) * scales
    return (drawn @ mixing + 0.3).to(dtype)


def cosines(x: Tensor) -> Tensor:
    """Of all pairs of rows."""
    unit = torch.nn.functional.normalize(x, dim=1)
    return unit @ unit.mT

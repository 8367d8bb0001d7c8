"""Checks of vectors of any floating-point dtype."""

import torch
from torch import Tensor

from retrieval_geometry._check import check_dense, check_finite, check_kind


def check_vectors(vectors: Tensor, name: str) -> Tensor:
    """Refuse anything but finite vectors ``(n, d)``.

    Raises:
        ValueError: no floating-point tensor of that shape, empty, or with a NaN or infinite value.
    """
    check_dense(check_kind(vectors, name, torch.Tensor), name)
    if not vectors.is_floating_point() or vectors.ndim != 2 or not vectors.numel():
        raise ValueError(
            f"{name} must be floating-point vectors (n, dimensions), not empty, got {vectors.dtype} of shape "
            f"{tuple(vectors.shape)}"
        )
    return check_finite(vectors, name)

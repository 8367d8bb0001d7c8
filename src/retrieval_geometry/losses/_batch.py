"""Checks of a batch, common to all losses."""

import torch
from torch import Tensor

from retrieval_geometry._check import (
    ImageError,
    check_coordinates,
    check_finite,
    check_floating,
    check_labels,
)


def check_batch(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Refuse embeddings and labels that do not go together; return the labels on the embeddings' device.

    Args:
        embeddings: ``(B, D)``, or ``(B, n, d)`` local features.
        labels: ``(B,)`` whole numbers.

    Returns:
        ``(B,)`` int64.

    Raises:
        ValueError: embeddings that are no tensor, of another shape or dtype, empty, or with a NaN or infinite
            value; labels that are no whole numbers or not one for each image.
    """
    check_floating(embeddings, "embeddings")
    if embeddings.ndim not in (2, 3) or not embeddings.numel():
        raise ValueError(
            "embeddings must have shape (images, dimensions) or (images, features, dimensions) without an "
            f"empty axis, got {tuple(embeddings.shape)}"
        )
    check_coordinates(check_finite(embeddings, "embeddings"), "embeddings")
    return check_labels(labels, len(embeddings)).to(embeddings.device)


def check_directions(embeddings: Tensor) -> Tensor:
    """Refuse vectors ``(B, D)`` that have no direction: projected to the sphere, their gradient explodes.

    Raises:
        ValueError: another shape, or the embedding of an image is zero.
    """
    if embeddings.ndim != 2:
        raise ValueError(
            f"embeddings must have shape (images, dimensions), got {tuple(embeddings.shape)}; this loss "
            "compares vectors, so give it the network's vector output"
        )
    # The gradient of x / |x| grows as 1 / |x|; 1e-12 is the eps of torch's own normalisation.
    zero = torch.linalg.vector_norm(embeddings.detach(), dim=1) < 1e-12
    if zero.any():
        after = (
            " is zero and has no direction; look for a dead layer before the embedding, or give the "
            "embedding layer a bias"
        )
        raise ImageError("embedding of ", int(zero.nonzero()[0]), after)
    return embeddings

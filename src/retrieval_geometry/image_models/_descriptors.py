"""Checks of descriptors, common to all image models."""

import torch
from torch import Tensor

from retrieval_geometry._check import ImageError, ImageName, check_finite, check_floating, check_shape

VARIANCES = {torch.float32: (1e-30, 1e32), torch.float64: (1e-140, 1e140)}
"""Smallest and largest mean variance of an image: beyond, products of variances overflow or vanish."""


def check_descriptors(x: Tensor, name: str = "x") -> Tensor:
    """Refuse anything but a finite floating-point ``(B, N, D)`` tensor without an empty axis.

    Raises:
        ValueError: not a tensor, another dtype or shape, an empty axis, or a NaN or infinity (the image is
            named).
    """
    check_shape(check_floating(x, name), name, ("images", "descriptors", "dimensions"))
    return check_finite(x, name)


def check_varied(x: Tensor, name: str = "x") -> Tensor:
    """Refuse ``(B, N, D)`` descriptors that are the same all over an image.

    Raises:
        ValueError: the descriptors of an image are all equal (the image is named).
    """
    constant = (x == x[:, :1]).flatten(1).all(dim=1)
    if constant.any():
        image = int(constant.nonzero()[0])
        raise ImageError("all descriptors of ", image, f" of {name} are equal; leave that image out")
    return x


def check_variance(variance: Tensor, x: Tensor, start: int = 0, name: str = "x") -> None:
    """Refuse ``(B, N, D)`` descriptors that vary too much or too little for the model to be one in numbers.

    Args:
        variance: ``(B,)``, of each image, the mean over its dimensions.
        x: the descriptors; an image that does not vary at all is no fault here.
        start: index of the first image in the batch.
        name: what the message calls them.

    Raises:
        ImageError: a variance outside :data:`VARIANCES`.
    """
    low, high = VARIANCES[x.dtype]
    for image in (~((variance >= low) & (variance <= high))).nonzero().flatten().tolist():
        if (x[image] != x[image, :1]).any():
            after = (
                f" of {name} have the mean variance {float(variance[image]):.3g}, and models in {x.dtype} "
                f"hold {low:g} to {high:g}; scale {name}"
            )
            after += ", or convert it with .double()" if x.dtype == torch.float32 else ""
            raise ImageError("descriptors of ", image, after, ImageName(start=start))

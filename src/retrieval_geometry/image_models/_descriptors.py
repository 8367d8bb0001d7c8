"""What every image model asks of its descriptors, checked once at the door."""

import torch
from torch import Tensor


def check_descriptors(x: Tensor, name: str = "x") -> None:
    """Refuse anything but a finite floating-point ``(B, N, D)`` tensor without an empty axis.

    Raises:
        TypeError: ``x`` is no tensor.
        ValueError: wrong number of axes, an empty axis, a dtype other than float32 or float64, or a NaN or
            infinity (the message names the first image that has one).
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor of shape (images, descriptors, dimensions), got {type(x)}")
    if x.ndim != 3:
        raise ValueError(
            f"{name} must have shape (images, descriptors, dimensions), got {tuple(x.shape)}; "
            "add the missing axis with unsqueeze"
        )
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {x.dtype}; convert it with .float()")
    if x.shape[1] == 0 or x.shape[2] == 0:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: every image needs a descriptor")
    bad = ~x.detach().isfinite().flatten(1).all(dim=1)
    if bad.any():
        image = int(bad.nonzero()[0])
        raise ValueError(f"{name} has a NaN or infinite descriptor in image {image}; remove that image")

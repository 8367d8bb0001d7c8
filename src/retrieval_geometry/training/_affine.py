"""Random affine maps of the images of a batch, each with a map of its own."""

import torch
from torch import Tensor
from torch.nn import functional


def inverse_maps(draws: Tensor, rotation: float, shear: float, scale: float) -> Tensor:
    """Matrices ``(B, 2, 2)`` that say where a pixel of a changed image comes from.

    Args:
        draws: ``(B, 3)`` in [-1, 1): of the angle, the shear and the size.
        rotation: largest angle, in degrees.
        shear: largest angle by which upright lines lean, in degrees.
        scale: images grow and shrink by a factor of up to ``1 + scale``.
    """
    angle, lean = torch.deg2rad(draws[:, 0] * rotation), torch.tan(torch.deg2rad(draws[:, 1] * shear))
    size = (1 + scale) ** draws[:, 2]
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    # The inverse of size * rotation * shear: turned back, then straightened, then brought to its old size.
    return torch.stack([cos + lean * sin, sin - lean * cos, -sin, cos], dim=1).view(-1, 2, 2)


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` changed about their middle; beyond their edge it is repeated.

    Coordinates are multiplied out one by one: a matrix product rounds by the number of images, and an image
    shall not depend on those beside it.
    """
    height, width = images.shape[-2:]
    y = torch.arange(height, dtype=torch.float32)[:, None] - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float32)[None, :] - (width - 1) / 2
    rows, columns = (maps[:, i, :, None, None] for i in (1, 0))
    places = torch.stack(
        [
            (columns[:, 0] * x + columns[:, 1] * y) * (2 / max(width - 1, 1)),
            (rows[:, 0] * x + rows[:, 1] * y) * (2 / max(height - 1, 1)),
        ],
        dim=-1,
    )
    warped = functional.grid_sample(images.float(), places, padding_mode="border", align_corners=True)
    if images.is_floating_point():  # a mean of grey levels may round beyond the largest
        low, high = (bound(images, (1, 2, 3), keepdim=True) for bound in (torch.amin, torch.amax))
        return warped.to(images.dtype).clamp(low, high)
    return warped.round().to(images.dtype)

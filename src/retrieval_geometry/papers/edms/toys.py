"""Points on a sphere whose classes or manifolds are known: what [edms] is tried on before anything learns."""

import torch
from torch import Tensor
from torch.nn import functional


def clustered_directions(
    classes: int, images: int, dim: int, spread: float = 0.5, common: float = 0.0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Directions in clusters, as embeddings of classes are.

    Args:
        classes: number of clusters, whose centres are drawn anywhere on the sphere.
        images: of each.
        dim: of the space.
        spread: of a cluster, relative to the length of its centre.
        common: length of a part that all directions share, relative to the rest; embeddings of networks have
            one, as their mean is not zero.
        seed: of the draw.

    Returns:
        ``(classes * images, dim)`` float64 of length one, and the class of each.
    """
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(classes * images, dim, generator=generator, dtype=torch.float64)
    x = functional.normalize(centres.repeat_interleave(images, dim=0) + spread * noise, dim=1)
    x[:, 0] += common
    return functional.normalize(x, dim=1), torch.arange(classes).repeat_interleave(images)


def two_moons(points: int = 100, noise: float = 0.08, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Two interlocking half circles, in the plane and wrapped around a sphere.

    The sphere is reached by the inverse of a stereographic projection: angles are kept, and both moons
    together cover about half of it.

    Args:
        points: of each moon.
        noise: of their places, relative to the radius of a moon.
        seed: of the draw.

    Returns:
        ``(2 points, 2)`` float64 in the plane, ``(2 points, 3)`` of length one, and the moon of each.
    """
    generator = torch.Generator().manual_seed(seed)
    angle = torch.pi * torch.rand(points, generator=generator, dtype=torch.float64)
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
    jitter = noise * torch.randn(2 * points, 2, generator=generator, dtype=torch.float64)
    plane = torch.cat([upper, -upper]) + jitter
    squares = plane.square().sum(dim=1, keepdim=True)
    sphere = torch.cat([2 * plane, 1 - squares], dim=1) / (1 + squares)
    return plane, sphere, torch.arange(2).repeat_interleave(points)


def share_of_own(similarity: Tensor, labels: Tensor) -> Tensor:
    """R-precision of each point when the others are ranked by a table of similarities.

    Args:
        similarity: ``(n, n)``; the diagonal is not looked at.
        labels: ``(n,)``.

    Returns:
        ``(n,)``: of the R most similar others, R as many as share the label, the share that do.
    """
    others = similarity.clone().fill_diagonal_(-torch.inf)
    ranked = others.argsort(dim=1, descending=True, stable=True)
    right = (labels[ranked] == labels.unsqueeze(1)).double()
    counts = (labels.unsqueeze(1) == labels).sum(dim=1, keepdim=True) - 1
    within = torch.arange(len(labels), device=labels.device) < counts
    return (right * within).sum(dim=1) / counts.squeeze(1)

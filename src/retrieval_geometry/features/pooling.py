"""One vector for each image from its local descriptors."""

import torch
from torch import Tensor

from retrieval_geometry._check import check_choice, check_finite, check_floating, check_number, check_shape


def pool_descriptors(descriptors: Tensor, kind: str = "average", p: float = 3.0) -> Tensor:
    r"""Global vectors ``(B, D)`` of images from their local descriptors ``(B, N, D)``.

    .. math:: f_d = \frac1N \sum_n x_{nd} \quad\text{("average")}, \qquad
              f_d = \Bigl(\frac1N \sum_n \max(x_{nd}, 0)^p\Bigr)^{1/p} \quad\text{("gem")}

    The generalised mean stands between the average (p = 1, of what is not negative) and the largest
    (p to infinity). It is meant for rectified descriptors; what is negative counts as zero.

    Source: Radenovic et al. 2019, eq. 2 to 4 (the generalised mean). Used in chapter 2.

    Args:
        descriptors: ``(B, N, D)``, float32 or float64.
        kind: ``"average"`` or ``"gem"``.
        p: the exponent of the generalised mean, at least 1.

    Raises:
        ValueError: another shape, dtype or kind, NaN or infinity, no descriptors, or p out of range.

    Example:
        >>> x = torch.tensor([[[1.0, 0.0], [3.0, 2.0]]])
        >>> pool_descriptors(x), pool_descriptors(x, "gem").round(decimals=2)
        (tensor([[2., 1.]]), tensor([[2.4100, 1.5900]]))
    """
    check_floating(descriptors, "descriptors")
    check_shape(descriptors, "descriptors", ("images", "places", "dimensions"))
    check_finite(descriptors, "descriptors")
    check_choice(kind, "kind", ("average", "gem"))
    check_number(p, "p", at_least=1, at_most=100)
    x = descriptors if kind == "average" else descriptors.clamp(min=0)
    # Over the largest entry: powers and sums of huge ones would leave the range of the dtype.
    largest = x.detach().abs().amax(dim=1, keepdim=True)
    x = x / torch.where(largest > 0, largest, 1)
    largest = largest.squeeze(1)
    if kind == "average":
        return largest * x.mean(dim=1)
    mean = x.pow(p).mean(dim=1)
    # The root has no gradient at 0, where no descriptor is positive.
    return torch.where(mean > 0, largest * torch.where(mean > 0, mean, 1).pow(1 / p), 0)

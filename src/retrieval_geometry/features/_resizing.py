"""How an image is made to fit a network: its shorter side resized, its middle cut out.

torchvision does the same (a test compares them bit by bit), but takes longer to import than PyTorch.
"""

from torch import Tensor
from torch.nn import functional

MAX_ASPECT = 8
"""Of an image that is longer than so many times its shorter side, the middle of that length is seen."""

INTERPOLATIONS = ("bilinear", "bicubic")


def resize_shorter_side(image: Tensor, side: int, interpolation: str = "bilinear") -> Tensor:
    """Resize an image ``(3, H, W)``, antialiased, so that its shorter side has ``side`` pixels.

    Of one longer than :data:`MAX_ASPECT` times that the ends are cut off first: one of 1 x 300,000 pixels
    would take 33 GB.
    """
    shorter = min(image.shape[1:])
    image = cut_middle(image, *(min(length, MAX_ASPECT * shorter) for length in image.shape[1:]))
    size = [int(side * length / shorter) for length in image.shape[1:]]
    if size == list(image.shape[1:]):
        return image
    return functional.interpolate(image.unsqueeze(0), size, mode=interpolation, antialias=True).squeeze(0)


def cut_middle(image: Tensor, height: int, width: int) -> Tensor:
    """Cut ``(3, height, width)`` out of the middle of an image; surround what is smaller with zeros."""
    borders = []
    for length, wanted in ((image.shape[2], width), (image.shape[1], height)):
        before = (wanted - length) // 2 if wanted > length else -round((length - wanted) / 2)
        borders += [before, wanted - length - before]
    return functional.pad(image, borders)

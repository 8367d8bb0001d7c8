"""What every image model asks of its descriptors, checked once at the door."""

from torch import Tensor

from retrieval_geometry._check import ImageError, check_finite, check_floating, check_shape


def check_descriptors(x: Tensor, name: str = "x") -> Tensor:
    """Refuse anything but a finite floating-point ``(B, N, D)`` tensor without an empty axis.

    Raises:
        TypeError: not a tensor.
        ValueError: another dtype or shape, an empty axis, or a NaN or infinity (the image is named).
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

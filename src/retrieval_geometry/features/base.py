"""The base of all extractors of local descriptors."""

from itertools import chain

import torch
from torch import Tensor, nn

from retrieval_geometry._check import (
    check_choice,
    check_count,
    check_dense,
    check_finite,
    check_floating,
    check_kind,
    check_shape,
)
from retrieval_geometry.features._resizing import INTERPOLATIONS, cut_middle, resize_shorter_side

IDENTITY = ("name", "layer", "input_size", "resize_size", "weights", "weights_sha256", "interpolation")


class Backbone(nn.Module):
    """Base of networks that turn images ``(B, 3, S, S)`` in [0, 1] into local descriptors ``(B, N, D)``.

    Source: [geometric] section 2.1. Used in chapter 2.

    Attributes:
        name: of the network.
        layer: whose feature map the descriptors are read from.
        input_size: S, the side of the square images it takes.
        resize_size: the shorter side that :meth:`prepare` gives an image before it cuts out the middle.
        interpolation: how it is resized, ``"bilinear"`` or ``"bicubic"``.
        dim: D, the length of a descriptor.
        weights: a torchvision name, the name of a file, ``"random"`` or ``"none"``.
        weights_sha256: of the weight file; empty where there is none.

    Raises:
        ValueError: a size below 1; on call, images of another shape, dtype or device, or outside [0, 1].
    """

    dim: int

    def __init__(
        self,
        name: str,
        layer: str,
        input_size: int,
        resize_size: int,
        weights: str = "none",
        weights_sha256: str = "",
        interpolation: str = "bilinear",
    ) -> None:
        super().__init__()
        self.name, self.layer = name, layer
        self.input_size = check_count(input_size, "input_size")
        self.resize_size = check_count(resize_size, "resize_size")
        self.weights, self.weights_sha256 = weights, weights_sha256
        self.interpolation = check_choice(interpolation, "interpolation", INTERPOLATIONS)

    @property
    def identity(self) -> dict[str, str | int]:
        """Settings that determine the descriptors of an image: for provenance, and in the key of a cache."""
        return {name: getattr(self, name) for name in IDENTITY}

    @property
    def device(self) -> torch.device:
        """The device of the network, and of its images."""
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the network, and of its images."""
        return next(chain(self.parameters(), self.buffers())).dtype

    def prepare(self, image: Tensor) -> Tensor:
        """Fit an image to the network: uint8 RGB ``(3, H, W)`` of any size to float32 ``(3, S, S)``.

        The shorter side is resized to ``resize_size`` (antialiased) and the middle cut out; an image
        that has the right size already passes through untouched. Of an image that is longer than eight times
        its shorter side the middle is taken first.

        Raises:
            ValueError: not a uint8 tensor of shape ``(3, H, W)``.
        """
        if check_dense(check_kind(image, "image", Tensor), "image").dtype != torch.uint8:
            raise ValueError(f"image must be uint8, got {image.dtype}")
        check_shape(image, "image", (3, "height", "width"))
        if image.shape[1:] != (self.input_size, self.input_size):
            # Through float: resizing in uint8 rounds once more.
            image = resize_shorter_side(image.float(), self.resize_size, self.interpolation)
            image = cut_middle(image, self.input_size, self.input_size)
        return image.float().clamp(0, 255) / 255

    def forward(self, images: Tensor) -> Tensor:
        """Describe a batch of images.

        Args:
            images: ``(B, 3, S, S)`` in [0, 1], as :meth:`prepare` makes them, in the network's dtype and on
                its device.

        Returns:
            ``(B, N, D)``, the N places of the feature map row by row.

        Raises:
            ValueError: another shape, dtype or device, values outside [0, 1], NaN or infinity.
        """
        check_floating(images, "images")
        check_shape(images, "images", ("batch", 3, self.input_size, self.input_size))
        check_finite(images, "images")
        if (self.dtype, self.device) != (images.dtype, images.device):
            raise ValueError(
                f"images are {images.dtype} on {images.device}, but {self.name} is {self.dtype} on "
                f"{self.device}; convert one with .to"
            )
        low, high = (float(bound) for bound in images.detach().aminmax())
        if low < 0 or high > 1:
            raise ValueError(
                f"images must lie in [0, 1], got {low:g} to {high:g}; divide uint8 pixels by 255"
            )
        return self.feature_map(images).flatten(2).mT.contiguous()

    def feature_map(self, images: Tensor) -> Tensor:
        """Compute the feature map ``(B, D, rows, columns)`` of checked images."""
        raise NotImplementedError

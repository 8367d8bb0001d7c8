"""From any image file to uint8 RGB."""

from io import BytesIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


def decode_rgb(content: bytes) -> Tensor:
    """Decode the bytes of an image file to uint8 RGB, ``(3, H, W)``.

    Turned upright where EXIF asks for it; 16-bit grey is scaled (65535 becomes 255), not clipped; what is
    transparent is laid over white; grey is repeated over the three channels; of several frames the first is
    taken.

    Raises:
        ValueError: pixels whose white is unknown (floating point, or integers beyond 16 bits).
        Exception: whatever the decoder raises on a file that is no image, or a damaged one.
    """
    with Image.open(BytesIO(content)) as image:
        return torch.from_numpy(to_rgb(ImageOps.exif_transpose(image))).permute(2, 0, 1).contiguous()


def check_image(content: bytes) -> None:
    """Decode an image file as cheaply as finds every fault that :func:`decode_rgb` would meet.

    Raises:
        Exception: as :func:`decode_rgb` does.
    """
    with Image.open(BytesIO(content)) as image:
        # A JPEG can be decoded at an eighth of its size; it is still read to its end.
        image.draft(None, (max(image.width // 8, 1), max(image.height // 8, 1)))
        to_rgb(ImageOps.exif_transpose(image))


def to_rgb(image: Image.Image) -> np.ndarray:
    """Convert an image of any mode to a uint8 array ``(H, W, 3)``."""
    if image.mode == "F":
        raise ValueError("floating-point pixels: which value is white is not known")
    if image.mode.startswith("I"):
        image = _scale_16_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def _scale_16_bits(image: Image.Image) -> Image.Image:
    """Bring 0..65535 to 0..255; a plain conversion would clip at 255."""
    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("integer pixels beyond 16 bits: which value is white is not known")
    return Image.fromarray(((pixels + 128) // 257).astype(np.uint8))

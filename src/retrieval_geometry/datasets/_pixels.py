"""From any image file to uint8 RGB."""

import threading
import warnings
from io import BytesIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

ALL_WHITE = ("PPM", "JPEG2000")
"""Formats whose files say which value is white, and whose decoder scales by it."""

DIM = 2**14
"""A picture of 16 bits without a value as large is one of fewer bits, or so dark that nothing is seen."""

_opening = threading.Lock()


def open_image(content: bytes) -> Image.Image:
    """Read the head of an image file.

    Raises:
        ValueError: so many pixels that they would fill the memory: the limit is Pillow's.
        Exception: whatever the decoder raises on a file that is no image.
    """
    bombs = Image.DecompressionBombWarning, Image.DecompressionBombError
    with _opening, warnings.catch_warnings():  # filters of warnings are shared by threads
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(BytesIO(content))
        except bombs:
            limit = f"{Image.MAX_IMAGE_PIXELS:,}"
            raise ValueError(
                f"more than {limit} pixels, a decompression bomb or too large; scale it down"
            ) from None


def decode_rgb(content: bytes) -> Tensor:
    """Decode the bytes of an image file to uint8 RGB, ``(3, H, W)``.

    It is turned upright where EXIF asks for it; 16-bit grey is scaled (white becomes 255), not clipped;
    transparent pixels are laid over white; grey is repeated over the three channels; of several frames the
    first is taken. White is 65535, or what a TIFF file says (its bits, or its MaxSampleValue).

    Raises:
        ValueError: too many pixels, or pixels whose white is unknown: floating point, integers beyond 16
            bits, or 16 bits of which the first two are used nowhere.
        Exception: whatever the decoder raises on a file that is no image, or a damaged one.
    """
    with open_image(content) as image:
        return torch.from_numpy(to_rgb(image)).permute(2, 0, 1).contiguous()


def check_image(content: bytes) -> None:
    """Decode an image file at small size, to find every fault that :func:`decode_rgb` would meet.

    Raises:
        Exception: as :func:`decode_rgb` does.
    """
    with open_image(content) as image:
        # A JPEG can be decoded at an eighth of its size; it is still read to its end.
        image.draft(None, (max(image.width // 8, 1), max(image.height // 8, 1)))
        to_rgb(image)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Convert an image of any mode to a uint8 array ``(H, W, 3)``, upright."""
    white, is_deep = _white(image), ";16" in str(getattr(image, "tile", ""))
    is_said = white != 65535 or image.format in ALL_WHITE
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels: which value is white is not known")
    if image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.int64)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("integer pixels beyond 16 bits: which value is white is not known")
        _check_white(int(pixels.max()), 1, is_said)
        # A plain conversion would clip at 255.
        image = Image.fromarray(((255 * pixels + white // 2) // white).clip(max=255).astype(np.uint8))
    elif is_deep:  # colours, which the decoder has brought to their upper 8 bits
        colours = np.asarray(image)[..., : 3 if image.mode.startswith("RGB") else 1]
        _check_white(int(colours.max()), 256, is_said)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(canvas, image)
    return np.array(image.convert("RGB"))


def _white(image: Image.Image) -> int:
    """The value of white among 16 bits, as the file has it."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF file
    bits, largest = tags.get(258, (16,)), tags.get(281, 65535)
    largest = largest[0] if isinstance(largest, tuple) else largest
    is_white = isinstance(largest, int) and 255 < largest < 65535
    return largest if is_white else 2 ** bits[0] - 1 if 8 < bits[0] < 16 else 65535


def _check_white(largest: int, unit: int, is_said: bool) -> None:
    """Refuse an image whose 16 bits are not used: 12-bit values would come out black."""
    if 0 < largest * unit < DIM and not is_said:
        raise ValueError(
            f"16-bit pixels none of which reaches {DIM} of 65535: which value is white is not known; save it "
            "with white at 65535, or as 8 bits"
        )

"""From any image file to uint8 RGB."""

import torch
from torch import Tensor

from retrieval_geometry._image_files import open_image, to_rgb


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

"""Image files of any kind: found in folders, read, and decoded to uint8 RGB.

Without PyTorch, which takes a second to import: a search whose features are at hand does not wait for it.
"""

import os
import threading
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

MAX_BYTES = 2**29
"""A file larger than this, unpacked, is skipped: no photograph is, and a zip bomb would fill the memory."""

JUNK = {"__MACOSX", "Thumbs.db", "desktop.ini"}


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


def is_junk(file: str) -> bool:
    """Whether a path is hidden or left behind by macOS or Windows."""
    parts = PurePosixPath(file).parts
    return any(part in JUNK or (part.startswith(".") and part != "..") for part in parts)


def walk(folder: Path) -> Iterator[str]:
    """List the files below a folder, as paths below it with forward slashes, in one order on every machine.

    Links are followed, but neither out of the folder to one above it, nor to one above the link, nor to where
    we have been. A folder that cannot be listed is given itself, so that whoever reads it meets the fault.
    """
    seen: set[str] = set()
    faults: list[OSError] = []
    for current, folders, files in os.walk(folder, followlinks=True, onerror=faults.append):
        seen.add(os.path.realpath(current))
        folders[:] = [name for name in sorted(folders) if _is_new(folder, Path(current), name, seen)]
        below = Path(current).relative_to(folder)
        yield from ((below / file).as_posix() for file in sorted(files))
    yield from (Path(fault.filename).relative_to(folder).as_posix() for fault in faults)


def _is_new(top: Path, current: Path, name: str, seen: set[str]) -> bool:
    """Whether a folder is to be entered; if so it counts as seen."""
    real = os.path.realpath(current / name)
    above = any(Path(os.path.realpath(place)).is_relative_to(real) for place in (top, current))
    if real in seen or above:
        return False
    seen.add(real)
    return True


def read_file(folder: Path, file: str) -> bytes:
    """Read a regular file of a reasonable size.

    Raises:
        ValueError: anything else.
    """
    path = folder / file
    if path.is_dir():
        raise ValueError("a folder that cannot be listed")
    if not path.is_file():  # a pipe would wait for ever
        raise ValueError("not a regular file")
    refuse_large(path.stat().st_size)
    return path.read_bytes()


def refuse_large(size: int) -> None:
    """Refuse so many bytes.

    Raises:
        ValueError: no photograph has as many.
    """
    if size > MAX_BYTES:
        raise ValueError(f"{size} bytes are too many for an image")

"""Characters that the typefaces of matplotlib tell apart, each with the faces that do."""

import importlib.util
import unicodedata
from collections import Counter
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FACES = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
"""Three families of DejaVu and one of STIX, each regular, bold, italic and bold italic."""

MIN_FACES = 12
"""A character is in at least so many of the faces: three families of four."""

MIN_OUTLINES = 8
"""So many of its outlines differ. Italic faces show arrows and operators upright: a twin counts once."""

SAME_OUTLINE = 0.99
"""Two faces show a character alike where the correlation of the plain renderings is at least this."""

LOOK_ALIKE = 0.95
"""Two characters look alike in a face where the correlation of the plain renderings, slightly blurred, is at
least this: E and F stay below it, dashes of several lengths do not."""

SIDE = 24  # of a plain rendering, in pixels
BLUR = 1.2  # in pixels: look-alikes may differ in the thickness of their strokes
PIXELS = 48  # size of the type it is made from


@cache
def choose_characters() -> dict[str, tuple[str, ...]]:
    """Find the characters that can be told apart, each with the faces that show it differently.

    Letters, digits, punctuation and symbols; none that Unicode composes of others, such as accented letters,
    circled digits or fractions. Of two that look alike in most of the faces they share (Latin, Greek and
    Cyrillic A; c and C, as size is no feature) the one that Unicode has first is kept.
    """
    candidates = _candidates()
    plain = np.stack([_plain_renderings(face, candidates) for face in FACES])
    kept = _different_outlines(plain)
    alike = _alike(plain)
    # In the order of Unicode: of two look-alikes the first one stays.
    chosen: list[int] = []
    for i in np.flatnonzero(kept.sum(axis=0) >= MIN_OUTLINES).tolist():
        if not alike[i, chosen].any():
            chosen.append(i)
    return {
        candidates[i]: tuple(face for face, shown in zip(FACES, kept[:, i], strict=True) if shown)
        for i in chosen
    }


def glyph_mask(face: str, character: str, pixels: int) -> np.ndarray:
    """Render a character in type of so many pixels and cut to its ink: ``(H, W)`` uint8, 255 is ink.

    A character without ink gives an empty array.
    """
    typeface = _typeface(face, pixels)
    left, top, right, bottom = map(int, typeface.getbbox(character))
    image = Image.new("L", (max(right - left, 0), max(bottom - top, 0)))
    ImageDraw.Draw(image).text((-left, -top), character, fill=255, font=typeface)
    x, y, width, height = cv2.boundingRect(np.asarray(image)) if 0 not in image.size else (0, 0, 0, 0)
    return np.asarray(image)[y : y + height, x : x + width]


def font_file(face: str) -> Path:
    """Find the file of a face.

    Raises:
        FileNotFoundError: matplotlib is installed without it.
    """
    # Found without importing the package, which would take a second.
    spec = importlib.util.find_spec("matplotlib")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder) / "mpl-data" / "fonts" / "ttf" / f"{face}.ttf").is_file():
            return path
    raise FileNotFoundError(f"the typeface {face} is missing from the installed matplotlib; install it again")


@lru_cache(maxsize=64)
def _typeface(face: str, pixels: int) -> ImageFont.FreeTypeFont:
    # The basic layout is the same on every machine; the other depends on an optional library.
    return ImageFont.truetype(font_file(face), pixels, layout_engine=ImageFont.Layout.BASIC)


@cache
def _encoded(face: str) -> frozenset[int]:
    """The code points for which a face has a glyph."""
    from matplotlib.ft2font import FT2Font  # slow to import

    return frozenset(FT2Font(str(font_file(face))).get_charmap())


def _candidates() -> list[str]:
    counts = Counter(code for face in FACES for code in _encoded(face))
    frequent = [chr(code) for code in sorted(counts) if counts[code] >= MIN_FACES]
    return [character for character in frequent if _is_simple(character)]


def _is_simple(character: str) -> bool:
    category = unicodedata.category(character)
    modifies_others = category in ("Lm", "Sk")
    return category[0] in "LNPS" and not modifies_others and not unicodedata.decomposition(character)


def _plain_renderings(face: str, characters: list[str]) -> np.ndarray:
    """Centred renderings of one size, ``(n, SIDE * SIDE)`` of norm 1; zero where the face has none."""
    result = np.zeros((len(characters), SIDE * SIDE), dtype=np.float32)
    missing_box = glyph_mask(face, "\U0010ffff", PIXELS)
    for row, character in zip(result, characters, strict=True):
        if ord(character) not in _encoded(face):
            continue
        mask = glyph_mask(face, character, PIXELS)
        if mask.size and not np.array_equal(mask, missing_box):
            row[:] = _fit(mask).ravel()
            row /= np.linalg.norm(row)
    return result


def _fit(mask: np.ndarray) -> np.ndarray:
    """Scale a mask until its longer side is SIDE, and centre it."""
    height, width = (max(1, round(side * SIDE / max(mask.shape))) for side in mask.shape)
    result = np.zeros((SIDE, SIDE), dtype=np.float32)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    result[top : top + height, left : left + width] = cv2.resize(
        mask, (width, height), interpolation=cv2.INTER_AREA
    )
    return result


def _different_outlines(plain: np.ndarray) -> np.ndarray:
    """Whether a face shows a character in an outline that no face before it has, ``(faces, n)``."""
    kept = np.zeros(plain.shape[:2], dtype=bool)
    for face, own in enumerate(plain):
        twin = np.zeros(len(own), dtype=bool)
        for earlier in range(face):
            twin |= kept[earlier] & (np.einsum("nd,nd->n", own, plain[earlier]) >= SAME_OUTLINE)
        kept[face] = own.any(axis=1) & ~twin
    return kept


def _alike(plain: np.ndarray) -> np.ndarray:
    """Whether two characters look alike in more than half of the faces that show both, ``(n, n)``."""
    from scipy.ndimage import gaussian_filter  # takes as long to import as a fifth of PyTorch

    shown = np.asarray(plain.any(axis=2), dtype=np.int64)
    agree = np.zeros((plain.shape[1], plain.shape[1]), dtype=np.int64)
    for own in plain:
        blurred = gaussian_filter(own.reshape(-1, SIDE, SIDE), (0, BLUR, BLUR)).reshape(own.shape)
        blurred /= np.linalg.norm(blurred, axis=1, keepdims=True).clip(min=1e-9)
        agree = agree + (blurred @ blurred.T >= LOOK_ALIKE)
    return np.asarray(agree > (shown.T @ shown) / 2)

"""Any text in a figure, as it stands: no mathematics is read into it, and no glyph is missing."""

from functools import lru_cache
from typing import Any

from retrieval_geometry._text import printable

STAND_IN = "□"


def lettering(text: str) -> tuple[str, dict[str, Any]]:
    """A text, and the keywords with which matplotlib draws it literally.

    Signs that the usual font lacks, such as Chinese ones, come from an installed font that has them; where
    none has, a box stands for the sign. Lines may be parted by newlines.

    Returns:
        The text to draw, and the keywords ``fontfamily`` and ``parse_math``.
    """
    lines = "\n".join(printable(line) for line in text.split("\n"))
    families, lost = _fonts_for("".join(sorted(set(lines) - {"\n"})))
    # A missing glyph would warn, and a warning stops the build.
    drawn = "".join(STAND_IN if sign in lost else sign for sign in lines)
    return drawn, {"fontfamily": list(families), "parse_math": False}


@lru_cache(maxsize=256)
def _fonts_for(signs: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Font families that together have the signs, the usual first, and the signs that none of them has."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    families = list(matplotlib.rcParams["font.family"])
    lost = _without_glyph(families[0], signs)
    for entry in fontManager.ttflist if lost else ():
        if entry.style != "normal" or "resort" in entry.name.lower() or entry.name in families:
            continue  # a font of last resort has a glyph for everything, and shows nothing
        # The first test reads one file; the second asks matplotlib, which may pick another face.
        if len(_absent(entry.fname, lost)) < len(lost) > len(rest := _without_glyph(entry.name, lost)):
            families.append(entry.name)
            lost = rest
    return tuple(families), frozenset(lost)


def _without_glyph(family: str, signs: str) -> str:
    """The signs that the regular font of a family, the one that matplotlib takes, does not have."""
    from matplotlib.font_manager import FontProperties, findfont

    return _absent(findfont(FontProperties(family=[family])), signs)


def _absent(path: str, signs: str) -> str:
    from matplotlib.font_manager import get_font

    font = get_font(path)
    return "".join(sign for sign in signs if not font.get_char_index(ord(sign)))

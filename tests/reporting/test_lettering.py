"""Names in figures are drawn as they stand, in a font that has their signs, without a warning."""

import warnings

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from retrieval_geometry.reporting import lettering as module
from retrieval_geometry.reporting.gallery import Neighbour, neighbour_rows
from retrieval_geometry.reporting.lettering import STAND_IN, lettering

matplotlib.use("Agg")
BLOCK = np.zeros((4, 4, 3), np.uint8)
RARE = "\U00016a40\U00016a41"  # Mro letters, of which the font made here has the first


def draw(path, caption, label="distance"):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = neighbour_rows(Neighbour(BLOCK, caption), {label: [Neighbour(BLOCK, caption)]})
        figure.savefig(path)
    return figure


@pytest.fixture
def font(tmp_path):
    """A font with a square for the sign 16A40."""
    pen = TTGlyphPen(None)
    for step, place in enumerate([(0, 0), (0, 500), (500, 500), (500, 0)]):
        (pen.lineTo if step else pen.moveTo)(place)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({0x16A40: "square"})
    builder.setupGlyf({".notdef": square, "square": square})
    builder.setupHorizontalMetrics({".notdef": (600, 0), "square": (600, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Made For A Test", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWeightClass=400)
    builder.setupPost()
    builder.save(tmp_path / "made.ttf")
    fontManager.addfont(tmp_path / "made.ttf")
    module._fonts_for.cache_clear()
    yield "Made For A Test"
    fontManager.ttflist = [entry for entry in fontManager.ttflist if entry.name != "Made For A Test"]
    fontManager._findfont_cached.cache_clear()
    module._fonts_for.cache_clear()


@pytest.mark.parametrize(
    "name",
    [r"$\frac{a$.png", "a$_{1$.png", "$a$ $b$", "a\x1b[31m\tb", "日本語.png", RARE, "👩‍👧 emoji"],
)
def test_any_name_is_drawn_without_a_warning(tmp_path, name):
    figure = draw(tmp_path / "a.png", name, name)
    assert (tmp_path / "a.png").stat().st_size > 0
    for axes in figure.axes:
        assert not axes.xaxis.label.get_parse_math()
        assert "\x1b" not in axes.get_xlabel()


def test_dollars_are_dollars():
    text, style = lettering("$x$\n$y")
    assert text == "$x$\n$y"
    assert style["parse_math"] is False


def test_a_sign_that_no_font_has_becomes_a_box(monkeypatch):
    module._fonts_for.cache_clear()
    monkeypatch.setattr(fontManager, "ttflist", [])
    assert lettering(f"a{RARE[1]}b")[0] == f"a{STAND_IN}b"
    module._fonts_for.cache_clear()


def test_a_sign_that_a_font_has_is_drawn_with_it(tmp_path, font, monkeypatch):
    monkeypatch.setattr(
        fontManager, "ttflist", [one for one in fontManager.ttflist if one.name in (font, "DejaVu Sans")]
    )
    text, style = lettering(f"a{RARE}")
    assert text == f"a{RARE[0]}{STAND_IN}"
    assert style["fontfamily"][-1] == font
    draw(tmp_path / "a.png", RARE)
    assert lettering("plain")[1]["fontfamily"] == list(matplotlib.rcParams["font.family"])

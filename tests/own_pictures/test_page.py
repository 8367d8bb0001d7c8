"""The page of what was found: whole in one file, legible to everybody, and literal about names."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from retrieval_geometry.own_pictures import Found, Request, SearchResult, rank_pictures
from retrieval_geometry.own_pictures.outputs import thumbnail
from retrieval_geometry.own_pictures.page import SIDE, write_page

from .conftest import save


def page_of(answer: SearchResult, tmp_path) -> BeautifulSoup:
    write_page(answer, tmp_path / "found.html")
    return BeautifulSoup((tmp_path / "found.html").read_text(encoding="utf-8"), "html.parser")


@pytest.fixture
def answer(folder, query, described) -> SearchResult:
    return rank_pictures([query, folder / "1.png"], folder, k=4, say=lambda note: None)


def test_it_shows_each_query_and_its_pictures_in_order(answer, tmp_path):
    page = page_of(answer, tmp_path)
    sections = page.find_all("section")
    assert [section.h2.text for section in sections] == ["Query query.png", "Query 1.png"]
    for section, found in zip(sections, answer.found, strict=True):
        items = section.ol.find_all("li")
        assert [item.img["alt"] for item in items] == [name for name, _ in found.nearest]
        shown = [item.figcaption.span.text for item in items]
        assert shown == [f"{i}. distance {value:.6g}" for i, (_, value) in enumerate(found.nearest, start=1)]
        assert section.figure.img["alt"] == found.query.name


def test_its_pictures_are_small_and_within_it(folder, described, tmp_path):
    query = save(tmp_path / "large.png", 3, (1200, 700))
    page = page_of(rank_pictures([query], folder, say=lambda note: None), tmp_path)
    for image in page.find_all("img"):
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(BytesIO(base64.b64decode(data))) as small:
            assert small.size == (int(image["width"]), int(image["height"]))
            assert max(small.size) <= SIDE
    large = page.find("img", alt="large.png")
    assert (large["width"], large["height"]) == ("320", "187")
    assert not page.find_all(["link", "script", "iframe"])
    assert not [tag for tag in page.find_all(True) if tag.get("href") or "http" in str(tag.get("src"))]
    assert "url(" not in page.style.text


def test_everybody_can_read_it(answer, tmp_path):
    page = page_of(answer, tmp_path)
    assert page.html["lang"] == "en"
    assert page.title.text == page.h1.text == "Pictures of D by likeness"
    assert page.find("meta", charset="utf-8")
    assert page.find("meta", attrs={"name": "viewport"})
    for section in page.find_all("section"):
        assert page.find(id=section["aria-labelledby"]).name == "h2"
    assert all(image["alt"] for image in page.find_all("img"))


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2."""

    def luminance(colour: str) -> float:
        digits = colour.lstrip("#")
        digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        parts = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_light_and_dark_have_contrast(answer, tmp_path):
    style = page_of(answer, tmp_path).style.text
    assert "color-scheme: light dark" in style
    light, dark = (
        dict(part.split(": ") for part in block.split("; ") if part.startswith("--"))
        for block in (
            line.partition("{ ")[2].partition(" }")[0].rstrip(";")
            for line in style.splitlines()
            if line.strip().startswith(":root")
        )
    )
    for colours in (light, {**dark}):
        for text in ("--text", "--quiet"):
            for ground in ("--ground", "--card"):
                assert contrast(colours[text], colours[ground].rstrip("; }")) >= 4.5


NAMES = ['<img src=x onerror="alert(1)">.png', "a\"'&b.png", "\x1b[31mred\n.png", "日本.png"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_are(tmp_path, described, name):
    """Whatever they hold, they command neither the page nor the terminal."""
    from retrieval_geometry._text import printable

    query = save(tmp_path / name)
    save(tmp_path / "D" / name, 1)
    page = page_of(rank_pictures([query], tmp_path / "D", say=lambda note: None), tmp_path)
    assert [image["alt"] for image in page.find_all("img")] == [printable(name)] * 2
    assert page.h2.text == f"Query {printable(name)}"
    assert not page.find_all("img", onerror=True)
    assert "\x1b" not in str(page)


def test_a_picture_that_is_gone_has_a_word_in_its_place(answer, folder, tmp_path):
    (folder / "3.png").unlink()
    (folder / "4.png").write_text("no picture any more")
    names = (("3.png", 0.5), ("4.png", 0.6), ("5.png", 0.7))
    page = page_of(SearchResult(folder, Request(), (Found(folder / "1.png", names),)), tmp_path)
    items = page.ol.find_all("li")
    assert [bool(item.img) for item in items] == [False, False, True]
    assert items[0].text.startswith("not there any more")


def test_thumbnails_are_upright_and_of_any_shape(tmp_path):
    pixels = np.zeros((600, 900, 3), np.uint8)
    pixels[:300] = 255
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif)
    small = thumbnail(tmp_path / "turned.jpg", 90)
    assert small.size == (60, 90)
    assert small.getpixel((55, 45)) > (200, 200, 200)
    Image.new("RGB", (30_000, 1)).save(tmp_path / "long.png")
    assert thumbnail(tmp_path / "long.png", 90).size == (90, 1)

"""The page checks find what they are there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval_geometry.book.pages import check_pages

SOUND = "<article><h1 id='top'>Title</h1><p>Words.</p><a href='other.html#place'>x</a></article>"


def _book(folder: Path, body: str) -> Path:
    (folder / "other.html").write_text("<article><p id='place'>here</p></article>")
    (folder / "index.html").write_text(f"<html><body>{body}</body></html>")
    return folder


def test_a_sound_page_passes(tmp_path: Path) -> None:
    assert check_pages(_book(tmp_path, SOUND)) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<div class='output traceback'>KeyError</div>", "a cell ended in an error"),
        ("<div class='output stderr'>UserWarning</div>", "a cell printed a warning"),
        ("<a href='nowhere.html'>x</a>", "broken link: nowhere.html"),
        ("<a href='other.html#nowhere'>x</a>", "link to a missing place"),
        ("<a href='#nowhere'>x</a>", "link to a missing place"),
        ("<img src='other.html'>", "without alternative text"),
        ("<img alt='a' src='gone.png'>", "broken link: gone.png"),
        ("<script src='https://example.org/x.js'></script>", "asset from the network"),
        ("<p>the value $x^2$ is</p>", "unrendered formula"),
        ("<p>the value \\frac{1}{2} is</p>", "unrendered formula"),
        ("<p>see {numref}fig-x</p>", "unrendered markup"),
        ("<table><tr><td>nan</td></tr></table>", "a table cell says 'nan'"),
    ],
)
def test_each_fault_is_reported(tmp_path: Path, body: str, problem: str) -> None:
    found = check_pages(_book(tmp_path, f"<article>{body}</article>"))
    assert any(problem in line for line in found), found


def test_code_may_hold_dollars_and_rendered_formulas_are_left_alone(tmp_path: Path) -> None:
    body = "<article><code>echo $x and $y</code><span class='math'>\\(x^2\\)</span></article>"
    assert check_pages(_book(tmp_path, body)) == []


def test_no_book_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make book"):
        check_pages(tmp_path)

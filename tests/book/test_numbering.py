"""Chapters, their tables and formulas have the number of the chapter's file."""

from __future__ import annotations

from pathlib import Path

import pytest
from sphinx.application import Sphinx

from retrieval_geometry.book.numbering import chapter_number

CHAPTER = """# {0}

See {{numref}}`tab-{0}`.

$$ a = b $$ (eq-{0})

````{{table}} A table.
:name: tab-{0}

| a |
| --- |
| 1 |
````
"""


@pytest.mark.parametrize(
    ("page", "number"),
    [("notebooks/06_costs", 6), ("11_x", 11), ("index", None), ("notebooks/x_11", None), ("111_x", None)],
)
def test_the_number_of_a_page(page: str, number: int | None) -> None:
    assert chapter_number(page) == number


def test_pages_show_the_number_of_the_file(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "notebooks").mkdir(parents=True)
    for name in ("03_three", "12_twelve"):
        (source / "notebooks" / f"{name}.md").write_text(CHAPTER.format(name[3:]))
    (source / "costs.md").write_text(CHAPTER.format("costs"))
    (source / "index.md").write_text(
        "# Book\n\n```{toctree}\n:numbered: 1\nnotebooks/03_three\nnotebooks/12_twelve\ncosts\n```\n"
    )
    (source / "conf.py").write_text(
        "extensions = ['myst_parser', 'retrieval_geometry.book.numbering']\n"
        "myst_enable_extensions = ['dollarmath', 'amsmath']\n"
        "numfig, math_numfig, numfig_secnum_depth = True, True, 1\n"
    )
    Sphinx(source, source, out, tmp_path / "trees", "html", status=None, warning=None).build()
    page = (out / "notebooks" / "12_twelve.html").read_text()
    contents = (out / "index.html").read_text()
    assert "Table 12.1" in page
    assert "(12.1)" in page
    assert '<span class="section-number">12. </span>' in page
    assert ">12. twelve</a>" in contents
    assert ">3. three</a>" in contents
    assert ">costs</a>" in contents
    costs = (out / "costs.html").read_text()
    assert "Table 1</" in costs or "Table 1 " in costs
    assert "<h1>costs<" in costs

"""A Sphinx extension: chapters have the numbers of their files, so that ``11_x`` holds Table 11.1.

Sphinx counts what stands in the table of contents; the papers' chapters begin at 2, 10, 20 and 30, and the
texts cite them by these numbers.
"""

from __future__ import annotations

import re
from typing import Any

NUMBER = re.compile(r"(?:.*/)?(\d\d)_[^/]+$")
AFTER_SPHINX = 900
"""Sphinx's own collectors have counted by then."""


def setup(app: Any) -> dict[str, bool]:
    """Register the extension."""
    app.connect("env-get-updated", _renumber, priority=AFTER_SPHINX)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def chapter_number(page: str) -> int | None:
    """The number of a chapter by the name of its page; None for other pages.

    >>> chapter_number("notebooks/06_what_a_distance_costs"), chapter_number("index")
    (6, None)
    """
    found = NUMBER.match(page)
    return int(found[1]) if found else None


def _renumber(app: Any, env: Any) -> list[str]:
    """Put the chapter's number first in the numbers of sections, figures, tables and formulas.

    Other pages lose the number that Sphinx has given them, which may be that of a chapter.
    """
    from docutils.nodes import reference

    for page, sections in env.toc_secnumbers.items():
        first = () if (number := chapter_number(page)) is None else (number,)
        # Sphinx numbers by place in the table of contents: its first number is replaced, the others stay.
        for numbers in (sections, *env.toc_fignumbers.get(page, {}).values()):
            numbers.update({key: (*first, *value[1:]) for key, value in numbers.items() if value})
        for node in (env.titles[page], *env.tocs[page].findall(reference)):
            if given := node.attributes.pop("secnumber", None):
                node.attributes |= {"secnumber": [*first, *given[1:]]} if (*first, *given[1:]) else {}
        if not first:
            sections.clear()
    return []

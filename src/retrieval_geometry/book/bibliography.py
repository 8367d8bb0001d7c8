"""A Sphinx extension: references are listed under the labels that the text cites: "Dou et al., 2022"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as PlainStyle
from pybtex.style.labels import BaseLabelStyle

NAME = "author_year"
"""The value of ``bibtex_default_style`` that selects it; the text's own style has the same name."""


class AuthorYearLabels(BaseLabelStyle):
    """One or two names, or the first "et al.", and the year."""

    def format_labels(self, sorted_entries: Iterable[Any]) -> Iterator[str]:
        """Yield the label of each entry."""
        for entry in sorted_entries:
            # Proceedings may name editors alone.
            people = entry.persons.get("author") or entry.persons.get("editor") or []
            names = [" ".join([*person.prelast_names, *person.last_names]) for person in people]
            who = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
            yield f"{who}, {entry.fields['year']}"


class AuthorYearStyle(PlainStyle):
    """The plain style with labels of author and year."""

    default_label_style = AuthorYearLabels


def setup(app: Any) -> dict[str, bool]:
    """Register the style."""
    register_plugin("pybtex.style.formatting", NAME, AuthorYearStyle)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

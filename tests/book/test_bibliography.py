"""The list of references has the labels that the text cites."""

from __future__ import annotations

import pytest
from pybtex.database import Entry, Person

from retrieval_geometry.book.bibliography import AuthorYearStyle


@pytest.mark.parametrize(
    ("authors", "label"),
    [
        (["Wasserstein, Leonid"], "Wasserstein, 2020"),
        (["van der Walt, Stefan", "Dou, Jason"], "van der Walt and Dou, 2020"),
        (["A, B", "C, D", "E, F"], "A et al., 2020"),
    ],
)
def test_labels_are_names_and_year(authors: list[str], label: str) -> None:
    people = {"author": [Person(name) for name in authors]}
    entry = Entry("misc", fields={"title": "T", "year": "2020"}, persons=people)
    assert list(AuthorYearStyle().format_labels([entry])) == [label]

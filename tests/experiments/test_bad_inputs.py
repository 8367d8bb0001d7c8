"""The bad inputs of the page: each is refused, by name, with what is shown."""

from __future__ import annotations

import re

import pytest

from retrieval_geometry.experiments.bad_inputs import PARTS, answer, answers

CASES = [(part, title) for part, cases in PARTS.items() for title in cases]


def test_there_are_at_least_forty_kinds() -> None:
    assert len({title for _, title in CASES}) == len(CASES) >= 40


@pytest.mark.parametrize(("part", "title"), CASES)
def test_the_answer_names_what_was_wrong_and_is_always_the_same(part: str, title: str) -> None:
    found = answer(PARTS[part][title])
    assert re.match(r"(ValueError|TypeError|OSError): \S", found)
    assert len(found) < 500
    assert "/tmp" not in found
    assert answer(PARTS[part][title]) == found


def test_what_is_no_refusal_has_no_place_in_the_table() -> None:
    with pytest.raises(RuntimeError, match="no refusal, but 3"):
        answer(lambda: 3)
    with pytest.raises(ZeroDivisionError):
        answer(lambda: 1 / 0)


def test_the_page_shows_all_of_them() -> None:
    assert {part: set(found) for part, found in answers().items()} == {p: set(c) for p, c in PARTS.items()}

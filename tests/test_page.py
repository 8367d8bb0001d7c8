"""What a chapter shows, under the names that its text cites."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from retrieval_geometry.evaluation import Interval
from retrieval_geometry.page import SOURCES, Page

from .reporting.conftest import make_result


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is glued by name, and the notes on sources by label."""
    found: dict[str, Any] = {}
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: found.update({name: value}))

    def display(data: dict[str, Any], raw: bool) -> None:
        found[f"sources of {data[SOURCES]['label']}"] = data[SOURCES]["results"]

    monkeypatch.setattr("IPython.display.display", display)
    return found


def page(number: Any = "11") -> Page:
    return Page(number, profile="quick", data_root="data", device="cpu", seed=0)


def test_numbers_are_cited_by_chapter_and_name(shown: dict[str, Any]) -> None:
    page().say(a_share=0.5, words="W-triplet", lead=Interval(-0.1, -0.2, 0.05))
    assert shown == {"11-a-share": 0.5, "11-words": "W-triplet", "11-lead": "−0.10 [−0.20,\u00a00.05]"}


@pytest.mark.parametrize("value", [torch.tensor(0.5), np.float64(0.5), np.array([0.5])])
def test_tensors_and_arrays_of_one_entry_are_numbers(shown: dict[str, Any], value: Any) -> None:
    page().say(half=value)
    assert type(shown["11-half"]) is float


def test_a_table_notes_the_results_it_shows(shown: dict[str, Any]) -> None:
    result = make_result()
    page().table("best", ["loss", "of", "R@1"], [["a", "b", "0.1"]], words=2, results=[result, result])
    assert shown["tab-11-best"].data.splitlines()[1] == "| :--- | :--- | ---: |"
    assert shown["sources of tab-11-best"] == [f"results/{result.experiment}-{result.profile}"]


def test_a_table_of_this_page_notes_none(shown: dict[str, Any]) -> None:
    page().table("toy", ["loss"], [["a"]])
    assert list(shown) == ["tab-11-toy"]


def test_a_figure_notes_its_results(shown: dict[str, Any]) -> None:
    page().figure_from("spread", make_result())
    assert list(shown) == ["sources of fig-11-spread"]


@pytest.mark.parametrize("number", [11, "1", "x1", "٣٣", None])
def test_the_number_is_that_of_the_file(number: Any) -> None:
    with pytest.raises(ValueError, match="number must be the two digits"):
        page(number)

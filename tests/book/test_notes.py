"""What the build adds to a chapter: cost, reading time, and the origin of its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retrieval_geometry.book.notes import Shown, shown_results, with_cost, with_origins
from retrieval_geometry.page import SOURCES

from ..reporting.conftest import make_result

PLACE = "recorded/geometric-table1-real"
COST = {
    "seconds": 12.3,
    "peak_memory_mb": 1234,
    "cpus": 2,
    "machine": "x86_64",
    "parameters": {"profile": "quick", "device": "cpu", "seed": 0},
}


def code(label: str | None = None, *places: str, figure: str | None = None) -> dict[str, Any]:
    note = {"output_type": "display_data", "data": {SOURCES: {"label": label, "results": list(places)}}}
    picture = {"output_type": "display_data", "data": {"image/png": "x"}}
    metadata = {"mystnb": {"figure": {"name": figure}}} if figure else {}
    outputs = ([note] if label else []) + [picture]
    return {"cell_type": "code", "source": "1", "metadata": metadata, "outputs": outputs}


def text(source: str, **metadata: Any) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": source, "metadata": metadata}


def notebook(*cells: dict[str, Any]) -> dict[str, Any]:
    return {"cells": list(cells), "metadata": {"cost": COST}}


@pytest.fixture
def shown(tmp_path: Path) -> dict[str, Shown]:
    result = make_result()
    result.write(tmp_path / "geometric-table1-real.json")
    return {PLACE: Shown.find(PLACE, tmp_path, tmp_path / "nowhere")}


TABLES = """Before.

````{table} A caption.
:name: tab-04-a

```{glue:md} tab-04-a
:format: myst
```
````

Between.

````{table} Another.
:name: tab-04-b

| x |
| --- |
````
"""


def test_a_table_is_followed_by_its_origin(shown: dict[str, Shown]) -> None:
    made = with_origins(notebook(code("tab-04-a", PLACE), text(TABLES)), shown)
    before, _, after = made["cells"][1]["source"].partition(":::{div} origin")
    assert before.endswith("````\n\n")
    assert before.count("````{table}") == 1
    assert "Recorded" in after
    assert f"{{download}}`CSV <../{PLACE}.csv>`" in after
    assert after.endswith("| --- |\n````\n")
    assert shown_results(made) == {}  # the page does not show the notes themselves
    assert made["cells"][0]["outputs"] == [{"output_type": "display_data", "data": {"image/png": "x"}}]


def test_a_figure_is_followed_by_its_origin(shown: dict[str, Shown]) -> None:
    cells = with_origins(notebook(code("fig-04-a", PLACE, figure="fig-04-a"), text("After.")), shown)["cells"]
    assert [cell["cell_type"] for cell in cells] == ["code", "markdown", "markdown"]
    assert cells[1]["source"].startswith(":::{div} origin\nRecorded")


def test_the_commit_is_a_link_where_the_project_is_public(shown: dict[str, Shown]) -> None:
    line, linked = (shown[PLACE].line(address) for address in (None, "https://example.org/x"))
    assert "](" not in line
    assert f"](https://example.org/x/commit/{shown[PLACE].result.provenance.commit})" in linked


def test_what_is_linked_is_there(shown: dict[str, Shown]) -> None:
    files = shown[PLACE].files()
    line = shown[PLACE].line(None)
    assert all(f"<../{name}>" in line for name in files)
    header, *rows = files[f"{PLACE}.csv"].decode().splitlines()
    assert header == "method,label,metric,value,low,high,n"
    assert len(rows) == sum(len(entry.metrics) for entry in shown[PLACE].result.methods)


def test_a_place_without_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-run-quick"):
        Shown.find("results/no-such-run-quick", tmp_path, tmp_path)


def test_below_the_title_stand_reading_time_needs_and_costs(shown: dict[str, Shown]) -> None:
    first = text("# A title\n\n" + "word " * 900, needs=["01_retrieval", "03_divergences_and_distances"])
    title, note, opening, _ = with_cost(notebook(first, text("x")), shown)["cells"]
    assert title["source"] == "# A title"
    assert opening["source"].lstrip().startswith("word")
    for words in (
        "Reading time: 5 minutes",
        "chapters [1](01_retrieval) and [3](03_divergences_and_distances)",
        "in 12 s with at most 1.2 GB",
        "The recorded runs behind it took",
    ):
        assert words in note["source"]


def test_without_needs_and_results_none_are_said() -> None:
    note = with_cost(notebook(text("# A title")), {})["cells"][1]["source"]
    assert "To be read before" not in note
    assert "took" not in note

"""Execution of one chapter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrieval_geometry.book import graph
from retrieval_geometry.book.execute import ChapterError, execute_chapter
from retrieval_geometry.book.graph import chapter_source, stale
from retrieval_geometry.book.project import Project

from ..damage import damages, full_disk
from .conftest import write_chapter

PARAMETERS = {"profile": "quick", "data_root": "data", "device": "cpu", "seed": 7}


def test_parameters_reach_the_chapter_and_both_their_cells_are_hidden(
    project: Project, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "01_first.ipynb"
    execute_chapter(project.chapters / "01_first.py", output, PARAMETERS, cwd=project.root)
    notebook = json.loads(output.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code[-1]["outputs"][0]["text"] == ["quick 7\n"] or code[-1]["outputs"][0]["text"] == "quick 7\n"
    hidden = [cell for cell in code if "remove-cell" in cell["metadata"].get("tags", [])]
    assert len(hidden) == 2
    assert notebook["metadata"]["mystnb"]["execution_mode"] == "off"
    assert notebook["metadata"]["cost"]["seconds"] > 0
    assert notebook["metadata"]["cost"]["peak_memory_mb"] > 10
    assert str(tmp_path) not in json.dumps(notebook["metadata"])
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_a_failing_cell_is_named_and_leaves_no_notebook(project: Project, tmp_path: Path) -> None:
    script = write_chapter(project, "01_first", "answer = 6 * 7\nraise KeyError('the culprit')")
    output = tmp_path / "out.ipynb"
    with pytest.raises(ChapterError, match=r"01_first\.py failed in code cell") as caught:
        execute_chapter(script, output, PARAMETERS, cwd=project.root)
    assert "answer = 6 * 7" in str(caught.value)
    assert "the culprit" in str(caught.value)
    assert not output.exists()


def test_a_kernel_that_is_killed_is_named(project: Project, tmp_path: Path) -> None:
    script = write_chapter(project, "01_first", "import os\n\nos.kill(os.getpid(), 9)")
    with pytest.raises(ChapterError, match=r"chapter 01_first\.py: its kernel died"):
        execute_chapter(script, tmp_path / "out.ipynb", PARAMETERS, cwd=project.root)
    assert not (tmp_path / "out.ipynb").exists()


def _edited(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The notebook after edits by hand: of a number, of a text, without its digest."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            before, output["text"] = output["text"], ["quick 8\n"]
            yield notebook
            output["text"] = before
    notebook["cells"][0]["source"] += " Edited."
    yield notebook
    del notebook["metadata"]["digest"]
    yield notebook


def test_a_damaged_or_edited_notebook_is_executed_again(project: Project) -> None:
    output = project.executed / "01_first.ipynb"
    source = chapter_source(project, "01_first", PARAMETERS)
    execute_chapter(project.chapters / "01_first.py", output, PARAMETERS, project.root, source)
    whole, path = output.read_bytes(), "build/executed/01_first.ipynb"
    assert stale(project, PARAMETERS, [path]) == {}
    notebook = json.loads(whole)
    edits = [json.dumps(edited).encode() for edited in _edited(notebook)]
    assert len(edits) == 3
    others = [b"[]", b"{}", b"3", b'{"metadata": []}', b'{"metadata": {"digest": 3}}', b"[" * 100_000]
    for content in [*damages(whole, 70), *edits, *others]:
        output.write_bytes(content)
        assert graph.why_executed_again(output, source) == "it is damaged, or was edited"
    assert stale(project, PARAMETERS, [path]) == {path: "it is damaged, or was edited"}
    output.write_text(json.dumps(json.loads(whole), indent=4, sort_keys=True))  # saved again as it was
    assert stale(project, PARAMETERS, [path]) == {}


@pytest.mark.parametrize("room", [100, 1800])
def test_a_chapter_on_a_full_disk_names_its_notebook(project: Project, tmp_path: Path, room: int) -> None:
    """Whether its source does not fit, or what papermill writes after the cells."""
    output = tmp_path / "out" / "01_first.ipynb"
    with pytest.raises(OSError, match=f"File too large: '{output}'"), full_disk(room):
        execute_chapter(project.chapters / "01_first.py", output, PARAMETERS, cwd=project.root)
    assert not list(output.parent.iterdir())


def test_an_executed_notebook_does_not_tell_where_it_was_made(project: Project, tmp_path: Path) -> None:
    code = "import os, pathlib\nprint(data_root, os.getcwd(), pathlib.Path.home() / 'x', 'and/or 1/2')"
    script = write_chapter(project, "01_first", code)
    folder = tmp_path / "pictures of ann's \u00e9"
    output = tmp_path / "out.ipynb"
    execute_chapter(script, output, {**PARAMETERS, "data_root": str(folder)}, cwd=project.root)
    text = output.read_text()
    assert "pictures of ann" not in text
    assert str(tmp_path) not in text
    printed = json.loads(text)["cells"][-1]["outputs"][0]["text"]
    assert "".join(printed) == "data . ~/x and/or 1/2\n"


@pytest.mark.parametrize("change", [{"sead": 1}, {"seed": None}])
def test_a_misspelt_or_missing_parameter_is_refused(project: Project, change: dict[str, object]) -> None:
    parameters = {**PARAMETERS, **change}
    parameters = {key: value for key, value in parameters.items() if value is not None}
    with pytest.raises(ValueError, match="parameters must be"):
        execute_chapter(
            project.chapters / "01_first.py", project.root / "x.ipynb", parameters, cwd=project.root
        )


def test_a_fence_that_swallows_a_cell_is_refused(project: Project) -> None:
    script = project.chapters / "01_first.py"
    table = "\n# %% [markdown]\n# ````{table} Values of `x`\n# :name: tab-x\n# ````\n\n# %%\nx = 1\n"
    script.write_text(script.read_text() + table)
    with pytest.raises(ValueError, match=r"01_first\.py: a backtick in the head of a backtick fence"):
        execute_chapter(script, project.root / "x.ipynb", PARAMETERS, cwd=project.root)


def test_a_cell_that_is_too_long_is_refused(project: Project) -> None:
    script = write_chapter(project, "01_first", "x = 1\n" * 26)
    with pytest.raises(ValueError, match=r"01_first\.py: code cell 2 has 26 lines, at most 25"):
        execute_chapter(script, project.root / "x.ipynb", PARAMETERS, cwd=project.root)


def test_a_chapter_without_parameters_cell_is_refused(project: Project) -> None:
    script = project.chapters / "01_first.py"
    script.write_text("# %%\nprint(1)\n")
    with pytest.raises(ValueError, match="exactly one cell tagged 'parameters'"):
        execute_chapter(script, project.root / "x.ipynb", PARAMETERS, cwd=project.root)

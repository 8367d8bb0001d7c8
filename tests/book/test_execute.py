"""Execution of one chapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrieval_geometry.book.execute import ChapterError, execute_chapter
from retrieval_geometry.book.project import Project

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


def test_a_chapter_without_parameters_cell_is_refused(project: Project) -> None:
    script = project.chapters / "01_first.py"
    script.write_text("# %%\nprint(1)\n")
    with pytest.raises(ValueError, match="exactly one cell tagged 'parameters'"):
        execute_chapter(script, project.root / "x.ipynb", PARAMETERS, cwd=project.root)

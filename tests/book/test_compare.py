"""What counts as a difference between two builds, and what does not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrieval_geometry.reporting.results import Result

from .compare import differences, recorded_differences
from .conftest import ROOT

RECORDED = ROOT / "book" / "results" / "rankmi-distances-real.json"


def _chapter(folder: Path, source: str, text: str, kind: str = "text/markdown") -> None:
    output: dict[str, Any] = {"output_type": "display_data", "data": {kind: text}}
    progress = {"output_type": "stream", "name": "stderr", "text": folder.name}
    cell = {"cell_type": "code", "source": source, "outputs": [progress, output]}
    notebook = {"cells": [cell], "metadata": {"cost": {"seconds": len(folder.name)}}}
    (folder / "executed").mkdir(parents=True, exist_ok=True)
    (folder / "executed" / "01_a.ipynb").write_text(json.dumps(notebook))


TABLE = "| name | R@1 | D = 32, µs |\n| --- | ---: | ---: |\n| KL | {} | {} |\n| Machine | {} | |"


@pytest.mark.parametrize(
    ("first", "second", "differ"),
    [
        (TABLE.format(0.5, 1, "x"), TABLE.format(0.5, 2, "y"), False),
        (TABLE.format(0.5, 1, "x"), TABLE.format(0.6, 1, "x"), True),
        ("R@1 is 0.5", "R@1 is 0.6", True),
        ("took 5 s and 1.5 GB", "took 7 s and 2.5 GB", False),
        ("W takes 1.5 times as long", "W takes 2 times as long", False),
        ("<object at 0x7fa0123456>", "<object at 0x7fa0999999>", False),
        ("a", "a b", True),
    ],
)
def test_outputs_differ_but_for_times(tmp_path: Path, first: str, second: str, differ: bool) -> None:
    _chapter(tmp_path / "a", "print(1)", first)
    _chapter(tmp_path / "longer", "print(1)", second)
    lines = differences(tmp_path / "a", tmp_path / "longer")
    assert len(lines) == differ
    assert all(line.startswith("01_a.ipynb cell 0 output 0 text/markdown: ") for line in lines)


def test_numbers_of_a_cell_that_takes_times_may_differ_and_pictures_may_not(tmp_path: Path) -> None:
    for source, kind, differ in (
        ("rate = 1 / seconds_of(f)", "text/plain", False),
        ("rate = 1 / f", "text/plain", True),
        ("plot(seconds_of(f))", "image/png", True),
    ):
        _chapter(tmp_path / "a", source, "12.5", kind)
        _chapter(tmp_path / "b", source, "13.5", kind)
        assert bool(differences(tmp_path / "a", tmp_path / "b")) == differ


def test_files_and_sources_count(tmp_path: Path) -> None:
    _chapter(tmp_path / "a", "x = 1", "")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert differences(tmp_path / "a", tmp_path / "b") == []
    (tmp_path / "b" / "html").mkdir()
    (tmp_path / "b" / "html" / "page.html").write_text("")
    assert differences(tmp_path / "a", tmp_path / "b") == ["html/page.html is there once only"]
    _chapter(tmp_path / "b", "x = 2", "")
    assert (
        differences(tmp_path / "a", tmp_path / "b")[0] == "01_a.ipynb cell 0 source: 'x = 1' became 'x = 2'"
    )
    (tmp_path / "b" / "executed" / "01_a.ipynb").unlink()
    assert differences(tmp_path / "a", tmp_path / "b")[0] == "01_a.ipynb is there once only"


def test_results_differ_in_numbers_not_in_provenance(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(RECORDED, tmp_path / name)
    (tmp_path / "a" / "other.json").write_text("{}")
    path = tmp_path / "b" / RECORDED.name
    result = Result.read(path)
    other = replace(result, provenance=replace(result.provenance, seconds=1.0, commit="another"))
    other.write(path)
    assert recorded_differences(tmp_path / "a", tmp_path / "b") == []
    replace(other, seed=other.seed + 1).write(path)
    expected = f"{RECORDED.name} seed: {result.seed} became {result.seed + 1}"
    assert recorded_differences(tmp_path / "a", tmp_path / "b") == [expected]

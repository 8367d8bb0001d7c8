"""What each chapter and each result is made from, and what an edit makes stale."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrieval_geometry._sealed import json_digest
from retrieval_geometry._sources import Sources
from retrieval_geometry.book.digests import digest_of_folder
from retrieval_geometry.book.graph import (
    PAGES,
    chapter_files,
    chapter_source,
    experiments_of,
    named_by_claims,
    pages_source,
    stale,
)
from retrieval_geometry.book.project import Project
from retrieval_geometry.experiments import claims, experiments, find
from retrieval_geometry.experiments.registry import recorded
from retrieval_geometry.reporting.provenance import library_versions
from retrieval_geometry.reporting.results import Result

from .conftest import write_chapter
from .what_runs import EDITS, ROOT, SETTINGS, copied, digests, made_again


def _experiments(text: str, folder: Path) -> list[str]:
    script = folder / "chapter.py"
    script.write_text(text)
    return experiments_of(Sources(), script)


def test_experiments_are_the_literal_arguments_of_load_or_run(tmp_path: Path) -> None:
    text = "a = load_or_run('rankmi-distances', profile=p)\nc = experiments.load_or_run('geometric-table1')\n"
    assert _experiments(text, tmp_path) == ["geometric-table1", "rankmi-distances"]
    with pytest.raises(ValueError, match="literal"):
        _experiments("load_or_run(name)", tmp_path)
    with pytest.raises(ValueError, match="experiment must be one of geometric-table1"):
        _experiments("load_or_run('geometric-tabel1')", tmp_path)


def test_a_list_of_runs_may_come_from_the_claims_that_a_chapter_imports(tmp_path: Path) -> None:
    text = "from retrieval_geometry.experiments import claims\nruns = [load_or_run(name) for name in names]\n"
    assert set(_experiments(text, tmp_path)) == {name for claim in claims() for name in claim.needs}
    text = text.replace("experiments import claims", "papers.geometric.claims import CLAIMS")
    needs = {name for claim in claims("geometric") for name in claim.needs}
    assert set(_experiments(text, tmp_path)) == needs


def test_recorded_results_count_by_their_content_and_alone(tmp_path: Path) -> None:
    script = tmp_path / "chapter.py"
    script.write_text("a = load_recorded('a-one', profile)\nb = load_recorded('b-two', 'real')\n")
    for name in ("a-one-real.json", "a-one-quick.json", "b-two-real.json", "b-two-quick.json", "c-real.json"):
        (tmp_path / name).write_text("{}")
    found = recorded(Sources(), [script], tmp_path)
    assert [line.split()[0] for line in found] == ["a-one-quick.json", "a-one-real.json", "b-two-real.json"]
    os.utime(tmp_path / "b-two-real.json", (0, 0))
    assert recorded(Sources(), [script], tmp_path) == found
    (tmp_path / "b-two-real.json").write_text("{ }")
    assert recorded(Sources(), [script], tmp_path) != found
    script.write_text("load_recorded(name, 'real')")
    with pytest.raises(ValueError, match=r"literal string: load_recorded\(name, 'real'\)"):
        recorded(Sources(), [script], tmp_path)
    lines = recorded(Sources(), [script], tmp_path, ["a-one", "c"])
    assert [line.split()[0] for line in lines] == ["a-one-real.json", "c-real.json"]


def test_every_chapter_and_experiment_can_be_followed() -> None:
    project, sources = Project(ROOT), Sources()
    n_modules = len(list((ROOT / "src").rglob("*.py")))
    for name in project.chapter_names():
        script = project.chapters / f"{name}.py"
        experiments_of(sources, script)
        recorded(sources, chapter_files(sources, script), project.recorded, named_by_claims(sources, script))
        assert len(chapter_files(sources, script)) < 0.6 * n_modules
    for experiment in experiments().values():
        assert len(sources.closure(sources.file(experiment.module))) < n_modules / 2


@pytest.fixture(scope="module")
def tree():
    with copied() as root:
        yield root, digests(root)


def test_chosen_hyper_parameters_are_an_input_of_what_reads_them(tree) -> None:
    again = made_again(tree[0], EDITS["the recorded choice of hyper-parameters"], tree[1])
    assert {"learning-bench", "wasserstein-coresets", "rankmi-distances"} <= set(again)
    assert not [name for name in again if name.startswith("geometric")]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("nothing", []),
        ("a docstring in cli.py", []),
        ("the code of cli.py", []),
        ("a comment in a distance", []),
        ("a predicate of [geometric]", ["04_textures", "90_scorecard"]),
        ("a printed number of [geometric]", ["04_textures", "06_what_a_distance_costs", "90_scorecard"]),
        ("a sentence of chapter 12", ["12_coresets"]),
        ("a style sheet", ["pages"]),
    ],
)
def test_an_edit_makes_again_what_depends_on_it_and_no_more(tree, title: str, expected: list[str]) -> None:
    assert made_again(tree[0], EDITS[title], tree[1]) == expected


def test_a_distance_makes_again_what_measures_with_it(tree) -> None:
    again = set(made_again(tree[0], EDITS["a distance (Stein)"], tree[1]))
    assert {name for name in experiments() if name.startswith("geometric")} <= again
    assert {"03_divergences_and_distances", "05_errata"} <= again
    assert not again & {"learning-bench", "rankmi-distances", "01_retrieval", "10_learning_a_metric", "pages"}


def _executed(project: Project, settings: dict[str, Any]) -> None:
    project.executed.mkdir(parents=True, exist_ok=True)
    for name in project.chapter_names():
        notebook = {"cells": [], "metadata": {"made_from": chapter_source(project, name, settings)}}
        notebook["metadata"]["digest"] = json_digest(json.dumps(notebook), "metadata")
        (project.executed / f"{name}.ipynb").write_text(json.dumps(notebook))
    project.html.mkdir(parents=True, exist_ok=True)
    (project.html / "page.html").write_text("a page")
    (project.root / PAGES).write_text(f"{pages_source(project)} {digest_of_folder(project.html)}")


FIRST, SECOND = "build/executed/01_first.ipynb", "build/executed/02_second.ipynb"


def test_outputs_say_themselves_whether_they_are_stale(project: Project) -> None:
    assert stale(project, SETTINGS) == dict.fromkeys((FIRST, SECOND, PAGES), "there is none")
    _executed(project, SETTINGS)
    assert stale(project, SETTINGS) == {}
    for path in project.root.rglob("*"):
        os.utime(path, (0, 0) if path.suffix == ".ipynb" else None)
    assert stale(project, SETTINGS) == {}  # times do not count
    moved = Project(shutil.copytree(project.root, project.root.parent / "clone"))
    assert stale(moved, SETTINGS) == {}

    second = project.chapters / "02_second.py"
    second.write_text(second.read_text() + "\n# More words.\n")
    assert list(stale(project, SETTINGS)) == [SECOND, PAGES]
    assert stale(project, SETTINGS, [FIRST]) == {}
    second.write_text(second.read_text().removesuffix("\n# More words.\n"))
    assert stale(project, SETTINGS) == {}  # back again: nothing to do
    assert len(stale(project, SETTINGS | {"seed": 1})) == 3
    assert stale(project, SETTINGS | {"data_root": "elsewhere"}) == {}  # quick reads no data
    (project.root / "book" / "index.md").write_text("# Other words\n")
    assert stale(project, SETTINGS) == {PAGES: "what the pages are made from has changed"}


@pytest.mark.parametrize("damage", [None, b"", b"{", b"[1]", b"\xff\xfe", b'{"metadata": [], "cells": 1}'])
def test_what_is_missing_or_damaged_is_made_again(project: Project, damage: bytes | None) -> None:
    _executed(project, SETTINGS)
    for name, again in ((FIRST, [FIRST, PAGES]), ("build/html/page.html", [PAGES]), (PAGES, [PAGES])):
        path, content = project.root / name, (project.root / name).read_bytes()
        path.unlink() if damage is None else path.write_bytes(damage)
        assert list(stale(project, SETTINGS)) == again
        assert list(stale(project, SETTINGS, [SECOND])) == []
        assert list(stale(project, SETTINGS, [PAGES])) == again
        path.write_bytes(content)
    assert stale(project, SETTINGS) == {}


def test_a_result_that_is_missing_or_another_makes_its_chapter_again(project: Project) -> None:
    write_chapter(project, "02_second", "load_or_run('rankmi-distances', profile)")
    result = "build/results/rankmi-distances-quick.json"
    (project.root / result).parent.mkdir(parents=True)
    real = Result.read(ROOT / "book" / "results" / "rankmi-distances-real.json")
    source = find("rankmi-distances").source(Sources(), project.recorded)
    made = replace(
        real.provenance, source=source, folder="", device="cpu", libraries=library_versions(), seconds=1.0
    )
    quick = replace(real, profile="quick", provenance=made)
    quick.write(project.root / result)
    _executed(project, SETTINGS)
    assert stale(project, SETTINGS) == {}
    replace(quick, provenance=replace(made, seconds=2.0)).write(project.root / result)
    assert list(stale(project, SETTINGS)) == [SECOND, PAGES]  # it shows another result
    (project.root / result).unlink()
    found = stale(project, SETTINGS)
    assert found == {
        result: "there is none",
        SECOND: "it shows rankmi-distances-quick.json, which is made again",
        PAGES: "they show 02_second, which is made again",
    }
    assert list(stale(project, SETTINGS, [result])) == [result]


def test_contents_and_scripts_must_agree(project: Project) -> None:
    assert project.chapter_names() == ["01_first", "02_second"]
    (project.chapters / "03_orphan.py").write_text("")
    with pytest.raises(ValueError, match="03_orphan"):
        project.chapter_names()
    (project.chapters / "03_orphan.py").unlink()
    (project.chapters / "02_second.py").unlink()
    with pytest.raises(ValueError, match="02_second"):
        project.chapter_names()


def test_a_folder_that_is_no_checkout_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"_config\.yml"):
        Project.find(tmp_path)

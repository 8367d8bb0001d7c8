"""The table of what a build cost: every job, the dearest first, and their sum."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from retrieval_geometry._cost import Cost, cost_so_far
from retrieval_geometry.book import costs
from retrieval_geometry.book.project import Project
from retrieval_geometry.reporting.results import Result

from ..reporting.conftest import make_result

CHAPTERS = {"01_first": Cost(3.0, 4.0, 500.0), "02_second": Cost(20.0, 19.0, 900.0)}


@pytest.fixture
def results(project: Project) -> list[Result]:
    """Two results, one of them not measured; the chapters of the project are executed."""
    for name, cost in CHAPTERS.items():
        project.executed.mkdir(parents=True, exist_ok=True)
        noted = {"metadata": {"cost": {**vars(cost), "machine": "any"}}}
        (project.executed / f"{name}.ipynb").write_text(json.dumps(noted))
    first, second = make_result(experiment="toy-first"), make_result(experiment="toy-second")
    made = replace(first.provenance, cost=Cost(10.0, 12.0, 700.0))
    return [replace(first, provenance=made), second]


def test_this_process_costs_something() -> None:
    before = cost_so_far()
    sum(number**2 for number in range(3_000_000))
    after = cost_so_far()
    assert before is not None
    assert after is not None
    assert after.processor_seconds > before.processor_seconds > 0
    assert after.seconds > before.seconds
    assert after.peak_memory_mb > 10


def test_jobs_stand_in_the_order_of_their_cost(project: Project, results: list[Result]) -> None:
    project.html.mkdir(parents=True)
    (project.html / costs.OF_PAGES).write_text(json.dumps(vars(Cost(8.0, 9.0, 300.0))))
    head, *lines = costs.report(project, results).splitlines()
    assert head.split()[0] == "Job"
    assert [re.split(r"  +", line.strip()) for line in lines] == [
        ["chapter 02_second", "19", "20", "900"],
        ["experiment toy-first", "12", "10", "700"],
        ["chapter 01_first", "4", "3", "500"],
        ["experiment toy-second", "not measured"],
        ["the pages", "9", "8", "300"],
        ["all jobs", "44", "41", "900"],
    ]


def test_the_page_is_completed_when_the_pages_are_built(project: Project, results: list[Result]) -> None:
    text = costs.page(project, results)
    assert "chapter 02_second | 19 | 20 | 900" in text
    assert "known-later" in text
    jobs = [*costs.made_before(project, results), costs.Job("the pages", Cost(8.0, 9.0, 300.0))]
    done = costs.complete(text, jobs)
    assert "the pages | 9 | 8 | 300" in done
    assert "all jobs | 44 | 41 | 900" in done
    assert "known-later" not in done


def test_costs_are_no_part_of_what_is_compared(tmp_path: Path) -> None:
    from .compare import result_leaves

    result = make_result()
    other = replace(result, provenance=replace(result.provenance, cost=Cost(1.0, 2.0, 3.0)))
    leaves = [dict(result_leaves(each.write(tmp_path / "result.json"))) for each in (result, other)]
    assert leaves[0] == leaves[1]

"""A further paper is one folder: with nothing else touched it is run, judged and shown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

import pytest

from retrieval_geometry.book.project import Project

from .conftest import ROOT, write_chapter

FOLDER = {
    "__init__.py": '"""[made-up]: a paper that there is not."""\n',
    "paper.py": '''"""What [made-up] is called, and which experiments it has."""

from retrieval_geometry.experiments.registry import Experiment, Paper

PAPER = Paper(
    "made-up",
    "On Coins",
    chapter=40,
    package=__package__,
    experiments=(
        Experiment("made-up-first", f"{__package__}.experiments:run_first", "one toss"),
        Experiment(
            "made-up-coins", f"{__package__}.experiments:run_coins", "many tosses", needs=("made-up-first",)
        ),
    ),
)
''',
    "printed.py": '"""What [made-up] printed."""\n\nHEADS = 0.5\n',
    "experiments.py": '''"""Coins are tossed."""

import numpy as np

from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.reporting.measured import Metric
from retrieval_geometry.reporting.provenance import collect_provenance
from retrieval_geometry.reporting.results import DatasetInfo, MethodResult, Result


def run_first(context: RunContext) -> Result:
    return _toss("made-up-first", 1, context)


def run_coins(context: RunContext) -> Result:
    assert context.result_of("made-up-first").is_file()
    return _toss("made-up-coins", 1000, context)


def _toss(experiment: str, n: int, context: RunContext) -> Result:
    share = float(np.random.default_rng(context.seed).integers(0, 2, n).mean())
    coin = MethodResult("coin", "A coin", {"heads": Metric(share, share, share, n)})
    data = DatasetInfo("coins", n, 2, "0" * 64, "CC0")
    return Result(experiment, context.profile, context.seed, data, {}, (coin,), collect_provenance(0.0, 1))
''',
    "claims.py": '''"""The claims of [made-up]."""

from retrieval_geometry.papers.made_up.printed import HEADS
from retrieval_geometry.reporting.claims import Claim
from retrieval_geometry.reporting.findings import RULES, Computed, Verdict, every


def is_fair(results):
    share = results["made-up-coins"]["coin"].metrics["heads"].value
    return every([Computed(abs(share - HEADS) < 0.1, f"{share:.3f} of the tosses")])


CLAIMS = (
    Claim("made-up-fair", "made-up", "Table 1", "The coin is fair.", RULES["computed"], is_fair,
          ("made-up-coins",), {"quick": Verdict.REPRODUCED}),
)
''',
}
SCORECARD_PAGE = ROOT / "book" / "chapters" / "90_scorecard.py"
SCORECARD = """from retrieval_geometry.experiments import claims, load_or_run
from retrieval_geometry.reporting.claims import check_all, require_expected
from retrieval_geometry.reporting.tables import evidence_list, verdicts_table

load_or_run("made-up-first", profile=profile, seed=seed)
own = [claim for claim in claims() if claim.paper == "made-up"]
runs = {"made-up-coins": load_or_run("made-up-coins", profile=profile, seed=seed)}
rows = check_all(own, runs, profile)
require_expected(rows)
print(verdicts_table({"this build": rows}))
print(evidence_list({"this build": rows}))"""

GRAPH = """import json
from pathlib import Path
from retrieval_geometry._sources import Sources
from retrieval_geometry.book.graph import chapter_files, experiments_of
from retrieval_geometry.experiments import papers

sources = Sources()
found = {}
for script in sorted(Path(CHAPTERS).glob("*.py")):
    files = [path.name for path in chapter_files(sources, script) if path.parent.name == "made_up"]
    found[script.stem] = [experiments_of(sources, script), files]
print(json.dumps([list(papers()), found]))"""


@pytest.fixture
def extended(project: Project) -> Project:
    """The small book with a package of its own, whose only change is one folder more."""
    package = project.root / "src" / "retrieval_geometry"
    shutil.copytree(
        ROOT / "src" / "retrieval_geometry", package, ignore=shutil.ignore_patterns("__pycache__")
    )
    (package / "papers" / "made_up").mkdir()
    for name, text in FOLDER.items():
        (package / "papers" / "made_up" / name).write_text(text)
    return project


def python(project: Project, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run Python with the package of that checkout."""
    environment = {**os.environ, "PYTHONPATH": str(project.root / "src")}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=project.root, env=environment, capture_output=True, text=True, check=False
    )


def test_the_scorecard_alone_depends_on_a_new_paper(extended: Project) -> None:
    done = python(extended, ["-c", GRAPH.replace("CHAPTERS", repr(str(ROOT / "book" / "chapters")))])
    papers, found = json.loads(done.stdout)
    assert papers == ["geometric", "wasserstein-dml", "rankmi", "edms", "made-up"]
    runs, files = found.pop("90_scorecard")
    assert "made-up-coins" in runs
    assert {"claims.py", "printed.py"} <= set(files)
    for runs, files in found.values():
        assert not files
        assert not any(run.startswith("made-up") for run in runs)


READ = """from pathlib import Path
from retrieval_geometry.book.execute import _read_chapter

print("\\n".join(cell.source for cell in _read_chapter(Path(CHAPTER)).cells))"""


def test_the_scorecard_has_a_section_for_a_new_paper(extended: Project) -> None:
    page = python(extended, ["-c", READ.replace("CHAPTER", repr(str(SCORECARD_PAGE)))]).stdout
    heads = [line for line in page.splitlines() if line.startswith("## ")]
    assert heads[-2:] == ["## On Coins", "## What changed, and why"]
    assert len(heads) == 6
    assert "from chapter 40 on: {numref}`tab-90-made-up`." in page
    assert "`rankmi`, from [chapter 13](13_mutual_information) on" in page
    assert "```{glue:md} tab-90-made-up-evidence\n" in page
    assert "$" not in page


@pytest.mark.slow
def test_the_scorecard_itself_judges_a_new_paper(extended: Project) -> None:
    papers = extended.root / "src" / "retrieval_geometry" / "papers"
    for name in ("geometric", "wasserstein_dml", "rankmi", "edms"):  # they would run for minutes
        shutil.rmtree(papers / name)
    shutil.copy(SCORECARD_PAGE, extended.chapters / "02_second.py")
    chapter = "build/executed/02_second.ipynb"
    needed = "build/results/made-up-first-quick.json"  # no claim reads it
    done = python(extended, ["-m", "retrieval_geometry", "build", chapter, needed])
    assert done.returncode == 0, done.stdout + done.stderr
    cells = json.loads((extended.root / chapter).read_text())["cells"]
    shown = json.dumps([cell.get("outputs") for cell in cells])
    assert "| The coin is fair. | **reproduced** | **not tested here** |" in shown
    assert "1 reproduced" in shown
    assert any("On Coins" in cell["source"][0] for cell in cells)


@pytest.mark.slow
def test_a_new_paper_is_run_judged_and_shown(extended: Project) -> None:
    write_chapter(extended, "02_second", SCORECARD)
    chapter = "build/executed/02_second.ipynb"
    done = python(extended, ["-m", "retrieval_geometry", "build", "--cores", "2", chapter])
    assert done.returncode == 0, done.stdout + done.stderr
    shown = (extended.root / chapter).read_text()
    assert "The coin is fair." in shown
    assert "reproduced" in shown
    again = python(extended, ["-m", "retrieval_geometry", "build", chapter])
    assert again.returncode == 0
    assert "running experiment" not in again.stdout + again.stderr

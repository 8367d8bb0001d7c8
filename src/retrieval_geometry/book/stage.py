"""Lay out what Jupyter Book reads, and build the pages with every warning an error."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from retrieval_geometry._cost import cost_so_far
from retrieval_geometry.book import costs
from retrieval_geometry.book.digests import digest_of_folder
from retrieval_geometry.book.notes import Shown, shown_results, with_cost, with_origins
from retrieval_geometry.book.project import Project
from retrieval_geometry.book.published import repository_url, with_install
from retrieval_geometry.reporting.results import Result

# Jupyter Book always adds this run-in-the-page script, twice, which browsers report as an error.
THEBE = re.compile(
    r"""<script[^>]*>\s*const THEBE_JS_URL.*?</script>|<script[^>]*sphinx-thebe\.js[^>]*></script>""", re.S
)

# Sphinx calls it a list, although its parts are references, which no list may hold.
REFERENCES = '<div role="list" class="citation-list">'


class BookError(RuntimeError):
    """Jupyter Book reported an error or a warning."""


def build_html(project: Project, made_from: str = "", results: Sequence[Result] = ()) -> Path:
    """Stage the executed chapters, build the HTML, and return the path of its first page.

    Args:
        project: its chapters are executed.
        made_from: digest of what the pages are made from; it is left beside them, with a digest of them.
        results: those that the chapters show; the page of costs tells what they cost.

    Pages are built inside the staging folder and replace ``build/html`` only when Jupyter Book ends without
    an error or a warning.
    """
    stage(project, results)
    made = _run_jupyter_book(project)
    fresh, old = project.build / "html.partial", project.build / "html.old"
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made, fresh)
    for page in fresh.rglob("*.html"):
        text = THEBE.sub("", page.read_text(encoding="utf-8"))
        page.write_text(text.replace(REFERENCES, REFERENCES.replace(' role="list"', "")), encoding="utf-8")
    (fresh / "prf-prf.html").unlink(missing_ok=True)  # a list of labels that no page links to
    _tell_costs(fresh, project, results)
    (fresh / ".complete").write_text(f"{made_from} {digest_of_folder(fresh)}")
    # Two renames: a kill between them leaves no page half old and half new.
    if project.html.exists():
        os.replace(project.html, old)
    os.replace(fresh, project.html)
    shutil.rmtree(old, ignore_errors=True)
    return project.html / "index.html"


def _tell_costs(html: Path, project: Project, results: Sequence[Result]) -> None:
    """Put what the pages cost beside them, and on the page of costs, now that they are built."""
    cost = cost_so_far()
    assert cost is not None  # a system without it has no locks either
    (html / costs.OF_PAGES).write_text(json.dumps(asdict(cost)))
    if (page := html / f"{costs.PAGE}.html").exists():
        jobs = [*costs.made_before(project, results), costs.Job(costs.LAST[0], cost)]
        page.write_text(costs.complete(page.read_text(encoding="utf-8"), jobs), encoding="utf-8")


def _run_jupyter_book(project: Project) -> Path:
    """Run Jupyter Book on the staged files and return the folder of its pages.

    It goes on from its last run only where that ended well and nobody touched what it left: a run that is
    killed leaves pages cut short, which the next would keep.
    """
    work, untouched = project.staging / "_build", project.build / "pages.digest"
    # Sphinx trusts its own pickles: only a run that ended well leaves the digest of them.
    if not untouched.is_file() or untouched.read_bytes() != digest_of_folder(work).encode():
        shutil.rmtree(work, ignore_errors=True)
    untouched.unlink(missing_ok=True)
    # Not the program jupyter-book: its first line names an interpreter, whose path may hold no space.
    program = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    options = ["--warningiserror", "--nitpick", "--keep-going", "--quiet"]
    log = subprocess.run(
        [*program, "build", str(project.staging), *options],
        text=True,
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    (project.build / "sphinx.log").write_text(log.stdout, encoding="utf-8")
    if log.returncode or not (work / "html" / "index.html").exists():
        raise failure(log.stdout, work)
    untouched.write_text(digest_of_folder(work))
    return work / "html"


def failure(log: str, folder: Path) -> Exception:
    """The fault in Jupyter Book's log: an ``OSError`` that names the folder, or a :class:`BookError`.

    Its traceback tells of its own code alone and is left out.
    """
    if found := re.search(r"^\w*Error: \[Errno (\d+)\] ([^:\n]+)", log, re.M):
        return OSError(int(found[1]), found[2], str(folder))
    return BookError(f"Jupyter Book failed:\n{log.partition('Traceback (most recent call last)')[0][-6000:]}")


def stage(project: Project, results: Sequence[Result]) -> None:
    """Copy configuration, texts and executed chapters to the staging folder; only what changed is written."""
    contents = {name: source.read_bytes() for source, name in project.page_files().items()}
    repository = repository_url(project.root)
    contents["_config.yml"] = _config(project, repository).encode()
    for name in project.chapter_names():
        notebook = json.loads((project.executed / f"{name}.ipynb").read_text())
        shown = _shown(project, notebook)
        page = with_cost(with_origins(notebook, shown, repository), shown)
        page["cells"] = with_install(page["cells"], repository)
        contents[f"notebooks/{name}.ipynb"] = (json.dumps(page, indent=1) + "\n").encode()
        for result in shown.values():
            contents |= result.files()
    contents[f"{costs.PAGE}.md"] = costs.page(project, results).encode()
    present = {
        str(path.relative_to(project.staging))
        for path in project.staging.rglob("*")
        if path.is_file() and "_build" not in path.parts
    }
    # A chapter that was renamed would stay in the book under its old name.
    for name in present - contents.keys():
        (project.staging / name).unlink()
    for name, content in contents.items():
        target = project.staging / name
        # Sphinx reads again what has a new time.
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def _shown(project: Project, notebook: dict[str, Any]) -> dict[str, Shown]:
    """The results that a chapter shows, by their place."""
    places = {place for places in shown_results(notebook).values() for place in places}
    results = project.build / "results"
    return {place: Shown.find(place, project.recorded, results) for place in sorted(places)}


def _config(project: Project, url: str | None) -> str:
    """Return ``_config.yml`` with this checkout's own address, or without buttons that would lead nowhere."""
    config = yaml.safe_load((project.root / "_config.yml").read_text())
    if url is None:
        del config["repository"], config["launch_buttons"]
        config["html"] |= {"use_repository_button": False, "use_issues_button": False}
    else:
        config["repository"]["url"] = url
    return yaml.safe_dump(config, sort_keys=False)

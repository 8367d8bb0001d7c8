"""Sources of the book, and its stale parts: executed chapters and results of experiments.

An output carries a digest of what it was made from, and is stale where that of today differs: the code
(:mod:`retrieval_geometry._sources`), the recorded results that are read, the settings, the versions of
libraries. The times of files do not count.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from retrieval_geometry._sealed import FIELD, json_digest, parse_json
from retrieval_geometry._sources import Sources, combined, literal
from retrieval_geometry.book.digests import MISSING, digest_of, digest_of_folder
from retrieval_geometry.book.project import Project
from retrieval_geometry.book.published import repository_url
from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.experiments.registry import experiments, find, recorded, why_stale
from retrieval_geometry.reporting.provenance import library_versions
from retrieval_geometry.reporting.results import Result

PAGES = "build/html/.complete"
"""A file that holds the digests of what the pages were made from, and of the pages."""

SETTINGS = "RETRIEVAL_GEOMETRY_SETTINGS"
"""The environment variable that hands the settings of a build to the Snakefile, as JSON."""


def chapter_files(sources: Sources, script: Path) -> list[Path]:
    """The chapter and the package files that it depends on; what executes it is among them."""
    return sources.closure(script, sources.file("retrieval_geometry.book.execute"))


def experiments_of(sources: Sources, script: Path) -> list[str]:
    """The experiments that a chapter has run: the first arguments of its ``load_or_run`` calls.

    Where one is no literal string, the experiments of the claims that the chapter imports are meant.

    Raises:
        ValueError: such an argument in a chapter that imports no claims, or an unknown experiment.
    """
    names = [literal(call, 0) for call in sources.calls([script.resolve()], "load_or_run")]
    named = {find(name).name for name in names if name is not None}
    if None in names:
        found = named_by_claims(sources, script)
        if not found:
            raise ValueError(f"{script.name}: load_or_run needs the experiment's name as a literal string")
        named |= found
    return sorted(named)


def named_by_claims(sources: Sources, script: Path) -> set[str]:
    """The experiments whose names stand in the modules of claims that a chapter imports."""
    files = [path for path in sources.closure(script) if path.match("papers/*/claims.py")]
    constants = (node for path in files for node in sources.nodes(path, ast.Constant))
    return {str(node.value) for node in constants} & experiments().keys()


def may_record(sources: Sources, script: Path) -> set[str]:
    """The experiments whose recorded runs a chapter may load by the claims that it imports: any, if it does.

    A claim reads its replicas as well, which no build runs.
    """
    return set(experiments()) if named_by_claims(sources, script) else set()


def chapter_source(
    project: Project, name: str, settings: Mapping[str, Any], sources: Sources | None = None
) -> str:
    """The digest of what an execution of a chapter follows from."""
    sources = sources or Sources()
    script = project.chapters / f"{name}.py"
    files = chapter_files(sources, script)
    return combined(
        [
            script.read_text(encoding="utf-8"),  # all of it: the words stand on the page
            sources.digest(files),
            *(find(run).source(sources, project.recorded) for run in experiments_of(sources, script)),
            *recorded(sources, files, project.recorded, may_record(sources, script)),
            *(digest_of(path) for path in _results(project, sources, name, settings["profile"])),
            json.dumps([_settings(settings), library_versions()], sort_keys=True),
        ]
    )


def pages_source(project: Project, sources: Sources | None = None) -> str:
    """The digest of what the pages follow from."""
    sources = sources or Sources()
    executed = [project.executed / f"{name}.ipynb" for name in project.chapter_names()]
    return combined(
        [
            sources.digest(sources.closure(sources.file("retrieval_geometry.book.stage"))),
            repository_url(project.root) or "not published",
            *(digest_of(path) for path in (project.root / "_config.yml", *project.page_files(), *executed)),
        ]
    )


def outputs(project: Project, profile: str) -> list[str]:
    """All that a build can make, relative to the project."""
    chapters = [_executed(name) for name in project.chapter_names()]
    return [PAGES, *chapters, *(result_of(run, profile) for run in experiments())]


def stale(project: Project, settings: Mapping[str, Any], targets: Iterable[str] = ()) -> dict[str, str]:
    """Targets that are missing or stale, with the reason; paths are relative to the project.

    Args:
        project: the checkout.
        settings: ``profile``, ``data_root``, ``device`` and ``seed``.
        targets: outputs that are asked for; all by default.
    """
    sources, found = Sources(), {}
    chapters = {_executed(name): name for name in project.chapter_names()}
    wanted = set(targets) - {PAGES}
    everything = PAGES in targets or not wanted
    asked = {path: name for path, name in chapters.items() if everything or path in wanted}
    shown = {path: _results(project, sources, name, settings["profile"]) for path, name in asked.items()}
    results_asked = {path for results in shown.values() for path in results}
    results_asked |= {project.root / path for path in wanted}
    for run, experiment in experiments().items():
        path = project.root / result_of(run, settings["profile"])
        if path in results_asked:
            source = experiment.source(sources, project.recorded)
            found[path] = why_stale(experiment, path, RunContext(**settings), source)
    for name, results in shown.items():
        path = project.root / name
        again = next((result for result in results if found[result]), None)
        if not path.is_file():
            found[path] = MISSING
        elif again:
            found[path] = f"it shows {again.name}, which is made again"
        else:
            found[path] = why_executed_again(path, chapter_source(project, path.stem, settings, sources))
    if everything:
        again = next((path for path in map(project.root.joinpath, asked) if found.get(path)), None)
        found[project.root / PAGES] = _why_pages(project, again, sources)
    return {str(path.relative_to(project.root)): why for path, why in found.items() if why}


def _why_pages(project: Project, again: Path | None, sources: Sources) -> str | None:
    """Why the pages are made, where a chapter that is made ``again`` is one reason."""
    if not (project.root / PAGES).is_file():
        return MISSING
    if again:
        return f"they show {again.stem}, which is made again"
    source, _, pages = (project.root / PAGES).read_text(encoding="utf-8", errors="replace").partition(" ")
    if source != pages_source(project, sources):
        return "what the pages are made from has changed"
    return None if pages == digest_of_folder(project.html) else "a page is missing or damaged"


def results_of(project: Project, profile: str) -> list[Result]:
    """The results that the chapters of the book show, one of each experiment."""
    sources = Sources()
    paths = {path for name in project.chapter_names() for path in _results(project, sources, name, profile)}
    return [Result.read(path) for path in sorted(paths)]


def result_of(experiment: str, profile: str) -> str:
    """Where the build keeps a result, relative to the project."""
    return f"build/results/{experiment}-{profile}.json"


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings, "data_root": RunContext(**settings).folder}


def _executed(chapter: str) -> str:
    return f"build/executed/{chapter}.ipynb"


def _results(project: Project, sources: Sources, chapter: str, profile: str) -> list[Path]:
    """The results that a chapter shows."""
    runs = experiments_of(sources, project.chapters / f"{chapter}.py")
    return [project.root / result_of(run, profile) for run in runs]


def why_executed_again(path: Path, source: str) -> str | None:
    """Why an executed chapter is not what this source gives; None if it is."""
    try:
        text = path.read_text(encoding="utf-8")
        notebook = parse_json(text)
        whole = notebook["metadata"].get(FIELD) == json_digest(text, "metadata")
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        return "it is damaged, or was edited"
    if notebook["metadata"].get("made_from") != source:
        return "the chapter, or what it is made from, has changed"
    return None

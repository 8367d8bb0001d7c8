"""What the book is made from, and what of it is stale: executed chapters and results of experiments.

An output carries a digest of what it was made from, and is stale where that of today differs: the code
(:mod:`retrieval_geometry._sources`), the recorded results that are read, the settings, the versions of
libraries. The times of files do not count.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from retrieval_geometry._sealed import FIELD, json_checksum, parse_json
from retrieval_geometry._sources import Sources, combined, literal
from retrieval_geometry.book.project import Project
from retrieval_geometry.experiments.registry import EXPERIMENTS, find, folder_digest, recorded, why_stale
from retrieval_geometry.reporting.provenance import library_versions

PAGES = "build/html/.complete"
"""A file that holds the digest of what the pages were made from, beside the chapters."""


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
    files = [path for path in sources.closure(script) if path.stem.endswith("_claims")]
    constants = (node for path in files for node in sources.nodes(path, ast.Constant))
    return {str(node.value) for node in constants} & EXPERIMENTS.keys()


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
            *(EXPERIMENTS[run].source(sources, project.recorded) for run in experiments_of(sources, script)),
            *recorded(sources, files, project.recorded, named_by_claims(sources, script)),
            json.dumps([_settings(settings), library_versions()], sort_keys=True),
        ]
    )


def pages_source(project: Project, sources: Sources | None = None) -> str:
    """The digest of what the pages follow from, beside the executed chapters."""
    sources = sources or Sources()
    return combined(
        [
            sources.digest(sources.closure(sources.file("retrieval_geometry.book.stage"))),
            *(_digest_of(path) for path in (project.root / "_config.yml", *project.page_files())),
        ]
    )


def stale(project: Project, settings: Mapping[str, Any], targets: Iterable[str] = ()) -> dict[str, str]:
    """What there is and has to be made again, with the reason; paths are relative to the project.

    Args:
        project: the checkout.
        settings: ``profile``, ``data_root``, ``device`` and ``seed``.
        targets: outputs that are asked for; all by default.
    """
    sources, found = Sources(), {}
    chapters = {_executed(name): name for name in project.chapter_names()}
    wanted = set(targets)
    asked = {path: name for path, name in chapters.items() if not wanted or path in wanted}
    runs = {
        run for name in asked.values() for run in experiments_of(sources, project.chapters / f"{name}.py")
    }
    for run in EXPERIMENTS:
        path = result_of(run, settings["profile"])
        if run in runs or path in wanted:
            source = EXPERIMENTS[run].source(sources, project.recorded)
            found[path] = why_stale(EXPERIMENTS[run], project.root / path, **settings, source=source)
    for path, name in asked.items():
        found[path] = why_executed_again(
            project.root / path, chapter_source(project, name, settings, sources)
        )
    if not wanted and _text(project.root / PAGES) != pages_source(project, sources):
        found[PAGES] = "what the pages are made from has changed"
    return {path: why for path, why in found.items() if why and (project.root / path).exists()}


def result_of(experiment: str, profile: str) -> str:
    """Where the build keeps a result, relative to the project."""
    return f"build/results/{experiment}-{profile}.json"


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**settings, "data_root": folder_digest(settings["profile"], settings["data_root"])}


def _executed(chapter: str) -> str:
    return f"build/executed/{chapter}.ipynb"


def why_executed_again(path: Path, source: str) -> str | None:
    """Why an executed chapter is not what this source gives; None if it is."""
    try:
        text = _text(path)
        notebook = parse_json(text)
        whole = notebook["metadata"].get(FIELD) == json_checksum(text, "metadata")
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        return "it is damaged, or was edited"
    if notebook["metadata"].get("made_from") != source:
        return "the chapter, or what it is made from, has changed"
    return None


def _digest_of(path: Path) -> str:
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""

"""Add to an executed chapter what the build knows: cost, reading time, and where its numbers come from.

Under the title stands how long it takes to read, what to read before, and what it cost; under each table and
figure that shows results stand links to them, to the code that made them, and the commit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval_geometry._sources import Sources
from retrieval_geometry.experiments.registry import experiments
from retrieval_geometry.page import SOURCES
from retrieval_geometry.reporting.results import Result
from retrieval_geometry.reporting.tables import result_csv

WORDS_A_MINUTE = 200
TABLE = re.compile(r"^(`{3,}|:{3,})\{table\}.*?^\1[ \t]*$", re.M | re.S)
NAME = re.compile(r"^:name:[ \t]*(\S+)", re.M)
Notebook = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """A result that a page shows.

    Args:
        place: such as ``recorded/learning-bench-real``, or ``results/...`` for one of this build.
        path: its file.
        result: its content.
    """

    place: str
    path: Path
    result: Result

    @classmethod
    def find(cls, place: str, recorded: Path, results: Path) -> Shown:
        """The result in this place.

        Raises:
            FileNotFoundError: there is none.
        """
        folder, _, name = place.partition("/")
        path = (recorded if folder == "recorded" else results) / f"{name}.json"
        return cls(place, path, Result.read(path))

    @property
    def recorded(self) -> bool:
        """Whether it comes with the book, and was not made by this build."""
        return self.place.startswith("recorded/")

    @property
    def code(self) -> Path | None:
        """The module whose function made it, if the experiment is one of the registry."""
        experiment = experiments().get(self.result.experiment)
        return Sources().file(experiment.module) if experiment else None

    @property
    def code_place(self) -> str:
        """Where that module is put: ``code`` and its place in the package."""
        assert self.code is not None
        return f"code/{self.code.relative_to(Sources().root)}"

    def files(self) -> dict[str, bytes]:
        """Downloads that a page offers, by their places in the staging folder."""
        files = {
            f"{self.place}.json": self.path.read_bytes(),
            f"{self.place}.csv": result_csv(self.result).encode(),
        }
        return files | ({self.code_place: self.code.read_bytes()} if self.code else {})

    def line(self, repository: str | None) -> str:
        """One sentence with links, for a page in the folder of chapters."""
        made = self.result.provenance
        links = [f"{{download}}`{kind} <../{self.place}.{kind.lower()}>`" for kind in ("JSON", "CSV")]
        if self.code:
            links.append(f"{{download}}`code <../{self.code_place}>`")
        commit = f"`{made.commit[:9]}`"
        if repository:
            commit = f"[{commit}]({repository}/commit/{made.commit})"
        when = f" on {made.finished[:10]}" if made.finished else ""
        what = f"Recorded{when}" if self.recorded else "From this build"
        run = f"{self.result.experiment}, profile {self.result.profile}"
        return f"{what}: {run} ({', '.join(links)}), commit {commit}"


def shown_results(notebook: Notebook) -> dict[str, list[str]]:
    """The places of the results that each table and figure shows, by its label."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    notes = [output["data"][SOURCES] for output in outputs if SOURCES in output.get("data", ())]
    return {note["label"]: note["results"] for note in notes}


def with_origins(notebook: Notebook, shown: Mapping[str, Shown], repository: str | None = None) -> Notebook:
    """The notebook with a line below each table and figure that shows results.

    Args:
        notebook: as executed.
        shown: the results of :func:`shown_results` by name.
        repository: its public address, if there is one, for links to commits.
    """
    labels = shown_results(notebook)
    lines = {
        label: f":::{{div}} origin\n{'. '.join(shown[name].line(repository) for name in names)}.\n:::"
        for label, names in labels.items()
    }
    return {**notebook, "cells": [new for cell in notebook["cells"] for new in _with_lines(cell, lines)]}


def _with_lines(cell: Notebook, lines: Mapping[str, str]) -> Iterator[Notebook]:
    """A cell with the lines of its tables; a cell of its own follows that of a figure."""
    if cell["cell_type"] == "markdown":

        def add(found: re.Match[str]) -> str:
            name = NAME.search(found[0])
            return "\n\n".join([found[0], *([lines[name[1]]] if name and name[1] in lines else [])])

        yield {**cell, "source": TABLE.sub(add, "".join(cell["source"]))}
        return
    # A media type of our own, which no page can show.
    kept = [output for output in cell.get("outputs", ()) if SOURCES not in output.get("data", ())]
    yield {**cell, "outputs": kept} if "outputs" in cell else cell
    label = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name")
    if label in lines:
        yield _markdown(f"origin-{label}", lines[label])


def with_cost(notebook: Notebook, shown: Mapping[str, Shown]) -> Notebook:
    """The notebook with a note below its title: reading time, what to read before, and what it took."""
    # The first cell holds the title and the opening words: the note comes between them.
    first, *rest = notebook["cells"]
    title, _, text = "".join(first["source"]).partition("\n")
    facts = [_reading(notebook), *_needed(first), _execution(notebook["metadata"]["cost"]), *_behind(shown)]
    note = _markdown("cost", f":::{{div}} chapter-cost\n{' '.join(facts)}\n:::")
    opening = [{**first, "source": title}, note, {**first, "id": "opening", "source": text}]
    return {**notebook, "cells": [*opening, *rest]}


def _reading(notebook: Notebook) -> str:
    texts = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    minutes = max(1, round(len(" ".join(texts).split()) / WORDS_A_MINUTE))
    return f"Reading time: {minutes} minute{'s' * (minutes > 1)}, without the exercises' own."


def _needed(first: Notebook) -> Iterator[str]:
    if needs := first["metadata"].get("needs"):
        links = [f"[{int(name[:2])}]({name})" for name in needs]
        listed = ", ".join(links[:-1]) + f" and {links[-1]}" if len(links) > 1 else links[0]
        yield f"To be read before: chapter{'s' * (len(links) > 1)} {listed}."


def _execution(cost: Mapping[str, Any]) -> str:
    parameters = cost["parameters"]
    return (
        f"Executed by this build in {cost['seconds']:.0f} s with at most "
        f"{cost['peak_memory_mb'] / 1000:.1f} GB of memory (profile `{parameters['profile']}`, device "
        f"`{parameters['device']}`, seed {parameters['seed']}, {cost['cpus']} CPUs, {cost['machine']})."
    )


def _behind(shown: Mapping[str, Shown]) -> Iterator[str]:
    for recorded, which in (
        (False, "The experiments behind it took"),
        (True, "The recorded runs behind it took"),
    ):
        seconds = sum(one.result.provenance.seconds for one in shown.values() if one.recorded is recorded)
        if seconds:
            yield f"{which} {_span(seconds)}."


def _span(seconds: float) -> str:
    """Seconds, minutes or hours, in words.

    >>> _span(42.3), _span(260), _span(10_000)
    ('42 s', '4.3 minutes', '2.8 hours')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def _markdown(name: str, text: str) -> Notebook:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}

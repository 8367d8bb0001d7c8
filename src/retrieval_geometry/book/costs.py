"""Costs of each job of a build when it last ran: for the terminal, and for a page of the book."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from retrieval_geometry._cost import Cost, total
from retrieval_geometry.book.project import Project
from retrieval_geometry.reporting.results import Result
from retrieval_geometry.reporting.tables import markdown_table

PAGE = "what_this_build_cost"
OF_PAGES = ".cost"
"""A file beside the pages that holds what they cost."""

HEAD = ("Job", "Processor (s)", "Clock (s)", "Memory (MB)")
LAST = ("the pages", "all jobs")
"""Rows that only the end of a build tells."""

LATER = "known-later-{row}-{column}"
TEXT = """# What this build cost

The book is made by jobs: each experiment is one, each chapter is one, and the pages are the last.
{{numref}}`tab-costs` shows what each took when it last ran. A job is not run again as long as what it follows
from has not changed.

Processor seconds are those of all processes of a job, with the loading of libraries. Jobs run side by side,
so the seconds by the clock add up to more than a build takes. Memory is the most that one process of a job
held; in the last row stands the largest of all. The experiments ran on {processors}.

````{{table}} What the jobs of this book cost, the dearest first
:name: tab-costs

{table}
````
"""


class Job(NamedTuple):
    """A job and what it cost; None where the system did not say."""

    name: str
    cost: Cost | None


def page(project: Project, results: Sequence[Result]) -> str:
    """The page in Markdown; what only the end of a build tells is left to :func:`complete`."""
    # The page is built before its own cost is known: marks keep the places of the last rows.
    later = [
        (row, *(LATER.format(row=place, column=column) for column in range(1, len(HEAD))))
        for place, row in enumerate(LAST)
    ]
    rows = [*map(_cells, made_before(project, results)), *later]
    processors = sorted({result.provenance.cpu for result in results})
    return TEXT.format(
        table=markdown_table(HEAD, rows), processors=" and ".join(processors) or "no processor"
    )


def complete(html: str, jobs: Sequence[Job]) -> str:
    """The built page with its last rows, the pages and the sum, from all jobs."""
    rows = [_cells(jobs[-1]), _cells(_sum(jobs))]
    return re.sub(LATER.format(row=r"(\d)", column=r"(\d)"), lambda at: rows[int(at[1])][int(at[2])], html)


def report(project: Project, results: Sequence[Result]) -> str:
    """The same as lines for a terminal."""
    of_pages = Cost(**json.loads((project.html / OF_PAGES).read_text(encoding="utf-8")))
    jobs = [*made_before(project, results), Job(LAST[0], of_pages)]
    rows = [HEAD, *map(_cells, [*jobs, _sum(jobs)])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]) for first, *others in rows
    )


def made_before(project: Project, results: Sequence[Result]) -> list[Job]:
    """The experiments that gave these results and the chapters that are executed, the dearest first."""
    jobs = [Job(f"experiment {result.experiment}", result.provenance.cost) for result in results]
    for name in project.chapter_names():
        notebook = json.loads((project.executed / f"{name}.ipynb").read_text(encoding="utf-8"))
        cost = {key: notebook["metadata"]["cost"][key] for key in Cost.__annotations__}
        jobs.append(Job(f"chapter {name}", Cost(**cost)))
    return sorted(jobs, key=lambda job: job.cost.processor_seconds if job.cost else 0, reverse=True)


def _sum(jobs: Sequence[Job]) -> Job:
    return Job(LAST[1], total(job.cost for job in jobs if job.cost is not None))


def _cells(job: Job) -> tuple[str, str, str, str]:
    if job.cost is None:
        return job.name, "not measured", "", ""
    cost = job.cost
    return job.name, f"{cost.processor_seconds:.0f}", f"{cost.seconds:.0f}", f"{cost.peak_memory_mb:.0f}"

"""Papers and experiments by name, and the test whether a result still belongs to today's code.

A paper is a folder of :mod:`retrieval_geometry.papers`, and is found there. An experiment names the function
that runs it; its module is imported when it is run. So a chapter that only reads a result does not depend on
all that made it: code is imported, results are named.
"""

import ast
import os
import pkgutil
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from retrieval_geometry._files import file_sha256
from retrieval_geometry._folders import recorded_dir
from retrieval_geometry._sources import Sources, combined, literal, loaded_sources
from retrieval_geometry._threads import cpu_threads
from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.experiments.part_costs import keep_cost, with_parts
from retrieval_geometry.reporting.provenance import library_versions
from retrieval_geometry.reporting.results import Result, ResultError, recorded_run

PAPERS = "retrieval_geometry.papers"
SHARED = "retrieval_geometry.experiments.learning.shared:EXPERIMENTS"
"""The experiments that belong to several papers."""


@dataclass(frozen=True)
class Experiment:
    """An experiment by name. Used in chapter 90.

    Args:
        name: stable, ``<paper>-<subject>``.
        function: ``"module:name"`` of the function that makes its result from a :class:`RunContext`.
        description: on one line.
        needs: experiments that run before it, where both do, as it goes on from the parts that they keep.
        parts: ``"module:name"`` of the function that lists the long work, from a context, as calls each of
            which keeps what it makes in the cache: so cores share it, and ``function`` finds it done. Empty
            where the work is one piece, or takes less than a minute: to start a process takes seconds.
        trains: whether it trains, and so has one thread on the CPU: sums in floating point follow the
            number of threads, and so would the models.
    """

    name: str
    function: str
    description: str
    needs: tuple[str, ...] = ()
    parts: str = ""
    trains: bool = False

    @property
    def module(self) -> str:
        """The dotted name of the module that holds the function."""
        return self.function.partition(":")[0]

    def run(self, context: RunContext | None = None) -> Result:
        """Run it; the function says what each profile means.

        Raises:
            ValueError: a profile that it does not have, or an unknown device.
            FileNotFoundError: data or weights of the profile are missing; the message says where to get them.
        """
        context = context or RunContext()
        source = self.source()  # before the code is loaded: later edits did not run
        run: Callable[[RunContext], Result] = pkgutil.resolve_name(self.function)
        with cpu_threads(1 if self.trains else None):
            result = run(context)
        # Other processes may have done parts of it: their cost is this result's.
        cost = with_parts(result.provenance.cost, self._costs(context))
        made = replace(result.provenance, source=source, folder=context.folder, cost=cost)
        return replace(result, provenance=made)

    def run_part(self, context: RunContext, number: int, of: int) -> None:
        """Do a share of the work and keep it in the cache, where :meth:`run` finds it.

        Raises:
            ValueError: the experiment has no parts, or not this one.
        """
        if not self.parts:
            raise ValueError(f"experiment {self.name} is one piece, it has no parts")
        if not 1 <= number <= of:
            raise ValueError(f"part must be a number of 1 to {of}, got {number}")
        with cpu_threads(1 if self.trains else None):
            pieces: Sequence[Callable[[], object]] = pkgutil.resolve_name(self.parts)(context)
            # Every n-th piece: neighbours in a list take about as long, so the shares are even.
            for piece in pieces[number - 1 :: of]:
                piece()
        keep_cost(self._costs(context), f"{number}-{of}")

    def _costs(self, context: RunContext) -> Path:
        """Where the costs of parts are kept until the result is made."""
        return context.cache / "costs" / f"{self.name}-{context.profile}"

    def source(self, sources: Sources | None = None, folder: Path | None = None) -> str:
        """A digest of the sources of its numbers: code, and the recorded results that the code reads.

        Args:
            sources: the package's files; by default as they were loaded.
            folder: where recorded results lie; by default those of the checkout around the working directory.
        """
        sources = sources or loaded_sources()
        files = sources.closure(sources.file(self.module))
        return combined([sources.digest(files), *recorded(sources, files, folder or recorded_dir())])


@dataclass(frozen=True)
class Paper:
    """A paper of the book: ``PAPER`` in the module ``paper`` of its folder. Its claims are in ``claims``.

    Used in chapter 90.

    Args:
        name: short and stable, such as ``wasserstein-dml``.
        title: of the paper.
        chapter: the first chapter about it; papers come in this order.
        package: of its modules.
        experiments: those of this paper alone.
    """

    name: str
    title: str
    chapter: int
    package: str
    experiments: tuple[Experiment, ...]


@cache
def papers() -> dict[str, Paper]:
    """The papers by name, in the order of their chapters: every folder of the package ``papers`` is one.

    Source: this package's own. Used in chapter 90.
    """
    # By folder, not by a list: to add a paper nothing else is edited.
    names = [each.name for each in pkgutil.iter_modules(pkgutil.resolve_name(PAPERS).__path__)]
    found: list[Paper] = [pkgutil.resolve_name(f"{PAPERS}.{name}.paper:PAPER") for name in names]
    return {paper.name: paper for paper in sorted(found, key=lambda paper: paper.chapter)}


@cache
def experiments() -> dict[str, Experiment]:
    """The experiments by name: those that papers share, and those of each paper.

    Source: this package's own. Used in chapter 90.
    """
    shared: tuple[Experiment, ...] = pkgutil.resolve_name(SHARED)
    own = [experiment for paper in papers().values() for experiment in paper.experiments]
    return {experiment.name: experiment for experiment in (*own, *shared)}


def of_each_paper(module: str, name: str) -> dict[str, Any]:
    """The values of one name in one module of each paper, by paper.

    Wherever this is called, ``module`` is a literal string: so the modules are among the caller's sources.
    """
    found = {paper.name: f"{paper.package}.{module}:{name}" for paper in papers().values()}
    return {paper: pkgutil.resolve_name(place) for paper, place in found.items()}


def find(name: str) -> Experiment:
    """The experiment of that name.

    Source: this package's own. Used in chapter 4.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if not isinstance(name, str) or name not in experiments():
        raise ValueError(f"experiment must be one of {', '.join(experiments())}; got {name!r}")
    return experiments()[name]


def load_or_run(experiment: str, context: RunContext | None = None, **settings: Any) -> Result:
    """The result of an experiment for these settings: of this machine, or recorded, or made now and kept.

    Source: this package's own. Used in chapter 4.

    A result of this machine that is stale (see :func:`why_stale`) is made anew, with a line that says why.
    Where there is none, a recorded run with the same profile and seed is taken; only then is anything run.

    Args:
        experiment: its name.
        context: the settings of a run.
        settings: fields of a :class:`RunContext` instead, such as ``profile="quick"``.

    Raises:
        ValueError: an unknown experiment or profile, a context and settings, or a setting that there is not.
    """
    chosen, context = find(experiment), context_of(context, settings)
    path = context.result_of(experiment)
    reason = why_stale(chosen, path, context)
    if reason is None:
        return Result.read(path)
    if path.is_file():
        print(f"{experiment} ({context.profile}) runs again: {reason}", file=sys.stderr, flush=True)
    else:
        kept = recorded_run(experiment, context.profile)
        # A recorded run of another seed is another result.
        if kept is not None and kept.seed == context.seed:
            return kept
    result = chosen.run(context)
    result.write(path)
    return result


def context_of(context: RunContext | None, settings: dict[str, Any]) -> RunContext:
    """A context, given as one or by its fields."""
    if context is not None and (settings or not isinstance(context, RunContext)):
        raise ValueError(f"context must be a RunContext, and stand alone; got {context!r}, {settings}")
    try:
        return context or RunContext(**settings)
    except TypeError as error:
        raise ValueError(f"settings must be fields of RunContext: {error}") from None


def why_stale(
    experiment: Experiment, path: Path, context: RunContext | None = None, source: str | None = None
) -> str | None:
    """The reason why a file is not the result that these settings give today; None if it is.

    Source: this package's own. Used in no chapter.

    Compared are experiment, profile, seed, the kind of device, the data folder by name (of ``real`` and
    ``paper``; not its contents), versions of libraries, and ``source``, by default :meth:`Experiment.source`.

    Raises:
        ValueError: ``path`` is no path.
    """
    if not isinstance(path, str | os.PathLike) or "\0" in str(path):
        raise ValueError(f"path must be a path, got {path!r}")
    try:
        result = Result.read(path)
    except FileNotFoundError:
        return "there is none"
    except ResultError as error:
        return error.fault
    context, made = context or RunContext(), result.provenance
    compared: dict[str, tuple[object, object]] = {
        "experiment": (result.experiment, experiment.name),
        "profile": (result.profile, context.profile),
        "seed": (result.seed, context.seed),
        "device": ("cpu" if made.device == "cpu" else "other", "cpu" if context.device == "cpu" else "other"),
        "data folder": (made.folder, context.folder),
    }
    # Also those that the record has and this machine lacks: a missing library is a change.
    now = library_versions()
    for name in sorted({*made.libraries, *now}):
        compared[name] = (made.libraries.get(name), now.get(name))
    for name, (was, asked) in compared.items():
        if was != asked:
            return f"{name} was {was}, is {asked}"
    if made.source != (source or experiment.source()):
        return "its code, or a recorded result that it reads, has changed"
    return None


def recorded(
    sources: Sources, files: Iterable[Path], folder: Path, otherwise: Collection[str] = ()
) -> list[str]:
    """Names and digests of the recorded results in ``folder`` that code in these files loads.

    Args:
        sources: the package's files.
        files: those that call ``load_recorded``.
        folder: where recorded results lie.
        otherwise: the experiments that are meant where the name of one is no literal string.

    Raises:
        ValueError: such a name where nothing is meant.
    """
    found: set[Path] = set()
    for call in sources.calls(files, "load_recorded"):
        name = literal(call, 0)
        if name is None and not otherwise:
            raise ValueError(f"load_recorded needs the experiment as a literal string: {ast.unparse(call)}")
        for experiment in otherwise if name is None else (name,):
            found |= set(folder.glob(f"{experiment}-{literal(call, 1) or '*'}.json"))
    return [f"{path.name} {file_sha256(path)}" for path in sorted(found)]

"""Results of experiments as files: their contents, their places, and how they are read back.

A result is one small JSON file. Tables, figures and claims read these files and nothing else, so that a
number on a page can be traced to the run that made it. The module imports no torch.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from retrieval_geometry._cost import Cost
from retrieval_geometry._files import write_whole
from retrieval_geometry._folders import project_root, recorded_dir, results_dir
from retrieval_geometry._sealed import FIELD, json_digest, parse_json
from retrieval_geometry.reporting._decode import decode
from retrieval_geometry.reporting.details import Details, Rows
from retrieval_geometry.reporting.measured import Groups, Metric, Relevance

SCHEMA = 2

PATH = re.compile(
    r"""(?<![:/\w.<])(?:/[\w.~-]+){2,} | "/[\w.~-]+"  # /srv/pictures/..., and "/scratch" alone
    | \b[A-Za-z]:(?:\\\\|/) | \\\\\\\\\w  # C:\Users, C:/Users, \\server; in JSON a backslash is two
    | (?<![\w./])(?:~\w*|\.\.)/\w | \bfile:/  # ~/pictures, ~ann/pictures, ../ann/pictures, file:///srv
    """,
    re.X,
)
"""Paths in the text of a result."""

T = TypeVar("T")


class ResultError(ValueError):
    """A result file that cannot be used.

    Attributes:
        fault: the fault of the file; the message adds the remedy.
    """

    def __init__(self, fault: str, remedy: str = "") -> None:
        self.fault = fault
        super().__init__(f"{fault}: {remedy}" if remedy else fault)


class NoResultError(ResultError):
    """There is no such result."""


@dataclass(frozen=True)
class Models:
    """The metrics of each trained model of a method. Used in chapter 14.

    Args:
        means: for each metric the value of each model.
        by_group: for each metric of single queries, for each model, the mean over each group of queries.
        losses: of the first model, the objective at the first step and then ten times along the run.
        trained: False for a network that was taken as it is: another seed would change nothing.
        curves: for each model pairs of a step and R@1 on the validation classes.
    """

    means: dict[str, tuple[float, ...]]
    by_group: dict[str, Rows]
    losses: tuple[float, ...] = ()
    trained: bool = True
    curves: tuple[Rows, ...] = ()


@dataclass(frozen=True)
class Scope:
    """The reach of a result. Used in chapter 90.

    Args:
        network: the extractor of descriptors or embeddings.
        queries: number of queries.
        possible: number that the protocol allows.
        steps: of the training; None where nothing is trained.
        models: trained of each method; None where nothing is trained.
    """

    network: str
    queries: int
    possible: int
    steps: int | None = None
    models: int | None = None


@dataclass(frozen=True)
class MethodResult:
    """The metrics and times of one method, with notes on its run. Used in chapter 4.

    ``seconds_per_comparison`` is the time of one distance between two images whose models exist;
    ``seconds_model`` the time to turn the descriptors of one image into its model; ``seconds_training`` the
    time to train one network. None where not applicable.
    """

    method: str
    label: str
    metrics: dict[str, Metric]
    seconds_per_comparison: float | None = None
    seconds_model: float | None = None
    relevance: Relevance | None = None
    notes: tuple[str, ...] = ()
    seconds_training: float | None = None
    models: Models | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """The images of a run; ``sha256`` is that of their content. Used in chapter 4."""

    name: str
    images: int
    classes: int
    sha256: str
    licence: str


@dataclass(frozen=True)
class WeightsInfo:
    """A file of network weights, by name and content, never by its path. Used in chapter 4."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """Code, machine, libraries and cost of a run. ``dirty``: the checkout differed from ``commit``.

    Used in chapter 4. ``source`` is a digest of the code that the numbers follow from, ``folder`` one of the
    data folder's name, ``finished`` the date and time at the end, in UTC (empty in older records).
    ``seconds`` are those of all parts of the run, ``cost`` is that of the processes that made it.
    """

    package_version: str
    commit: str
    dirty: bool
    libraries: dict[str, str]
    device: str
    cpu: str
    threads: int
    seconds: float
    peak_memory_mb: float | None
    weights: tuple[WeightsInfo, ...] = ()
    source: str = ""
    folder: str = ""
    finished: str = ""
    cost: Cost | None = None


@dataclass(frozen=True)
class Result:
    """One run of one experiment. ``settings``: small JSON values by name, for tables. Used in chapter 4."""

    experiment: str
    profile: str
    seed: int
    dataset: DatasetInfo
    settings: dict[str, Any]
    methods: tuple[MethodResult, ...]
    provenance: Provenance
    scope: Scope | None = None
    groups: Groups | None = None
    details: Details | None = None
    schema: int = SCHEMA

    def __getitem__(self, method: str) -> MethodResult:
        entry = self.get(method)
        if entry is not None:
            return entry
        known = ", ".join(entry.method for entry in self.methods)
        raise KeyError(f"no method {method!r} in {self.experiment} ({self.profile}); it has: {known}")

    def get(self, method: str) -> MethodResult | None:
        """The entry of a method, or None if it was not run."""
        return next((entry for entry in self.methods if entry.method == method), None)

    def told(self, kind: type[T]) -> T:
        """Details of this experiment beyond its table, of the type that the caller reads.

        Raises:
            ResultError: it says something else; the message names both.
        """
        if isinstance(self.details, kind):
            return self.details
        found = type(self.details).__name__ if self.details is not None else "nothing"
        raise ResultError(
            f"{self.experiment} ({self.profile}) holds no {kind.__name__} beyond its table, but {found}",
            "run it again",
        )

    def write(self, path: str | Path) -> Path:
        """Write the JSON file, with its digest, whole or not at all, and return its path.

        Raises:
            ValueError: it holds a path of this machine, or a number that JSON lacks.
            OSError: the file cannot be written.
        """
        path, data = Path(path), asdict(self)
        data[FIELD] = json_digest(json.dumps(data, allow_nan=False))
        text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
        # Lists of numbers on one line. No string has such a line break: JSON writes it as two characters.
        text = re.sub(r"\[\n[\s\d.,eE+-]*\]", lambda found: re.sub(r"\s", "", found[0]), text)
        _refuse_paths(text)
        write_whole(path, text.encode())
        return path

    @classmethod
    def read(cls, path: str | Path) -> "Result":
        """Read a result; check every field, and that all is as it was written.

        Raises:
            OSError: the file cannot be read.
            ResultError: it is damaged, was edited, or is no result of this version; the message names the
                file, what is wrong with it, and the remedy.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            data = parse_json(text)
            # From the text, before anything is decoded: also a changed digit of a float counts.
            digest = json_digest(text) if isinstance(data, dict) else None
        except ValueError as error:
            raise ResultError(f"{path} is damaged ({error})", _remedy(path)) from None
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != SCHEMA:
            raise ResultError(f"{path} has schema {schema!r}, this version reads {SCHEMA}", _remedy(path))
        stated = data.pop(FIELD, None)
        try:
            result = decode(cls, data)
        except ValueError as error:
            raise ResultError(f"{path} is no valid result: {error}", _remedy(path)) from None
        # Last: a damaged field is named, which says more than that the digest differs.
        if stated != digest:
            raise ResultError(f"{path} is not as it was written: it lacks its digest", _remedy(path))
        return result


def _refuse_paths(text: str) -> None:
    """A recorded result is published: it must not tell where on whose machine it was made."""
    found = PATH.search(text)
    # The home folder of a service may be "/", which is in every text.
    home = str(Path.home())
    if found or (len(home) > 3 and home in text):
        what = found.group(0) if found else home
        raise ValueError(f"a result must hold no path of this machine, but this one contains {what!r}")


def result_path(experiment: str, profile: str, folder: Path | None = None) -> Path:
    """The file of a result: ``<folder>/<experiment>-<profile>.json``.

    Source: this package's own. Used in no chapter. Raises nothing: the file need not exist.
    """
    return (folder or results_dir()) / f"{experiment}-{profile}.json"


def load_recorded(experiment: str, profile: str) -> Result:
    """The recorded run that comes with the book, whatever was run on this machine.

    Source: this package's own. Used in chapter 4.

    Raises:
        NoResultError: there is none; the message says how to make one.
        ResultError: the file is damaged, or holds another result.
    """
    found = recorded_run(experiment, profile)
    if found is not None:
        return found
    output = f"book/results/{result_path(experiment, profile).name}"
    raise NoResultError(
        f"no recorded run of experiment {experiment!r} with profile {profile!r}",
        f"run `retrieval-geometry run {experiment} --profile {profile} --output {output}`",
    )


def recorded_run(experiment: str, profile: str) -> Result | None:
    """The recorded run that comes with the book, or None where there is none.

    Raises:
        ResultError: the file is damaged, or holds another result.
    """
    path = result_path(experiment, profile, recorded_dir())
    return _read_as(experiment, profile, path) if path.is_file() else None


def load_all(experiments: Sequence[str], profile: str) -> dict[str, Result]:
    """The results that exist, by experiment; those that were never run are left out.

    Source: this package's own. Used in chapter 90.

    Raises:
        ValueError: ``experiments`` is not names, or ``profile`` not one.
        ResultError: a file is damaged, or holds another result.
    """
    if isinstance(experiments, str) or not isinstance(experiments, Sequence):
        raise ValueError(f"experiments must be a list of names, got {experiments!r}")
    for name, value in (("profile", profile), *(("each of experiments", each) for each in experiments)):
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a name, got {value!r}")
    paths = {experiment: _existing(experiment, profile) for experiment in experiments}
    return {name: _read_as(name, profile, path) for name, path in paths.items() if path is not None}


def _read_as(experiment: str, profile: str, path: Path) -> Result:
    """The result in a file, if it is that of this experiment and profile."""
    result = Result.read(path)
    if (result.experiment, result.profile) != (experiment, profile):
        held = f"{path} holds the result of {result.experiment} ({result.profile})"
        raise ResultError(f"{held}, not that of {experiment} ({profile})", _remedy(path))
    return result


def _remedy(path: Path) -> str:
    """The remedy for a bad file: a recorded run is in git, and takes data and hours to make."""
    if path.resolve().parent == recorded_dir().resolve():
        if project_root() is None:
            return "install the package again"
        return f"take it back with `git checkout -- book/results/{path.name}`, or run and record it again"
    return "run its experiment again"


def _existing(experiment: str, profile: str) -> Path | None:
    # What was run here is newer than what came with the book.
    candidates = [result_path(experiment, profile, folder) for folder in (results_dir(), recorded_dir())]
    return next((path for path in candidates if path.is_file()), None)

"""The experiments by name, and when a result of one is still that of today's code.

An experiment names the function that runs it; its module is imported when it is run. So a chapter that only
reads a result does not depend on all that made it: code is imported, results are named.
"""

import ast
import hashlib
import os
import pkgutil
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from retrieval_geometry._sources import Sources, combined, literal, loaded_sources
from retrieval_geometry._threads import cpu_threads
from retrieval_geometry.experiments.profiles import check_profile
from retrieval_geometry.reporting.provenance import library_versions
from retrieval_geometry.reporting.results import Result, ResultError, recorded_dir, result_path, results_dir


@dataclass(frozen=True)
class Experiment:
    """An experiment by name: ``function`` runs it, ``"module:name"`` below this package.

    One that trains has one thread on the CPU: sums in floating point follow the number of threads, and so
    would the models.
    """

    name: str
    function: str
    description: str
    trains: bool = False

    @property
    def module(self) -> str:
        """The dotted name of the module that holds the function."""
        return f"retrieval_geometry.experiments.{self.function.partition(':')[0]}"

    def run(
        self, profile: str = "quick", data_root: str = "data", device: str = "cpu", seed: int = 0
    ) -> Result:
        """Run it; see the function for what each profile means.

        Raises:
            ValueError: an unknown profile or device.
            FileNotFoundError: data or weights of the profile are missing; the message says where to get them.
        """
        check_profile(profile)
        source = self.source()  # before the code is loaded: what is edited meanwhile is not what ran
        run: Callable[..., Result] = pkgutil.resolve_name(f"{self.module}:{self.function.partition(':')[2]}")
        with cpu_threads(1 if self.trains else None):
            result = run(profile=profile, data_root=data_root, device=device, seed=seed)
        folder = folder_digest(profile, data_root)
        return replace(result, provenance=replace(result.provenance, source=source, folder=folder))

    def source(self, sources: Sources | None = None, folder: Path | None = None) -> str:
        """A digest of what its numbers follow from: code, and the recorded results that the code reads.

        Args:
            sources: the package's files; by default as they were loaded.
            folder: where recorded results lie; by default those of the checkout around the working directory.
        """
        sources = sources or loaded_sources()
        files = sources.closure(sources.file(self.module))
        return combined([sources.digest(files), *recorded(sources, files, folder or recorded_dir())])


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "geometric-table1",
            "geometric:run_table1",
            "Table 1 and Figures 1 and 2: seven methods and the controls",
        ),
        Experiment(
            "geometric-rectified",
            "geometric:run_rectified",
            "Table 1 behind the last ReLU (real and paper only)",
        ),
        Experiment(
            "geometric-layers",
            "geometric_layers:run_layers",
            "descriptors of several layers, the paper's future work",
        ),
        Experiment(
            "geometric-robustness",
            "geometric_robustness:run_robustness",
            "how much each distance varies for one image",
        ),
        Experiment(
            "learning-tuning",
            "learning:run_tuning",
            "one hyper-parameter of each loss, on validation classes",
            trains=True,
        ),
        Experiment(
            "learning-bench", "learning:run_bench", "losses of metric learning under one budget", trains=True
        ),
        Experiment(
            "learning-products",
            "learning:run_products",
            "the same on photographs of products (real only)",
            trains=True,
        ),
        Experiment(
            "learning-photographs",
            "learning:run_photographs",
            "the same on Tiny ImageNet (real only)",
            trains=True,
        ),
        Experiment(
            "wasserstein-ablations",
            "wasserstein:run_ablations",
            "W-triplet with one choice changed at a time",
            trains=True,
        ),
        Experiment(
            "wasserstein-coresets",
            "wasserstein:run_coresets",
            "W-triplet on subsets, for a share of the steps",
            trains=True,
        ),
        Experiment(
            "rankmi-ablations",
            "rankmi:run_ablations",
            "RankMI with one choice changed at a time",
            trains=True,
        ),
        Experiment(
            "rankmi-distances",
            "rankmi:run_distances",
            "distances of pairs before and after RankMI",
            trains=True,
        ),
    )
}


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if not isinstance(name, str) or name not in EXPERIMENTS:
        raise ValueError(f"experiment must be one of {', '.join(EXPERIMENTS)}; got {name!r}")
    return EXPERIMENTS[name]


def load_or_run(
    experiment: str, profile: str = "quick", data_root: str = "data", device: str = "cpu", seed: int = 0
) -> Result:
    """The result of this machine for these settings; if there is none, run it and keep its result.

    A result that is stale (see :func:`why_stale`) is made anew, with a line that says why.
    """
    chosen = find(experiment)
    path = result_path(experiment, check_profile(profile), results_dir())
    reason = why_stale(chosen, path, profile, data_root, device, seed)
    if reason is None:
        return Result.read(path)
    if path.is_file():
        print(f"{experiment} ({profile}) runs again: {reason}", file=sys.stderr, flush=True)
    result = chosen.run(profile=profile, data_root=data_root, device=device, seed=seed)
    result.write(path)
    return result


def why_stale(
    experiment: Experiment,
    path: Path,
    profile: str = "quick",
    data_root: str = "data",
    device: str = "cpu",
    seed: int = 0,
    source: str | None = None,
) -> str | None:
    """Why the file is not the result that these settings give today; None if it is.

    Compared are experiment, profile, seed, the kind of device, the data folder by name (of ``real`` and
    ``paper``; what lies in it is not looked at), versions of libraries, and ``source``, by default
    :meth:`Experiment.source`.
    """
    if not isinstance(path, str | os.PathLike) or "\0" in str(path):
        raise ValueError(f"path must be a path, got {path!r}")
    try:
        result = Result.read(path)
    except FileNotFoundError:
        return "there is none"
    except ResultError as error:
        return error.fault
    made = result.provenance
    compared: dict[str, tuple[object, object]] = {
        "experiment": (result.experiment, experiment.name),
        "profile": (result.profile, profile),
        "seed": (result.seed, seed),
        "device": ("cpu" if made.device == "cpu" else "other", "cpu" if device == "cpu" else "other"),
        "data folder": (made.folder, folder_digest(profile, data_root)),
    }
    now = library_versions()
    for name in sorted({*made.libraries, *now}):
        compared[name] = (made.libraries.get(name), now.get(name))
    for name, (was, asked) in compared.items():
        if was != asked:
            return f"{name} was {was}, is {asked}"
    if made.source != (source or experiment.source()):
        return "its code, or a recorded result that it reads, has changed"
    return None


def folder_digest(profile: str, data_root: str) -> str:
    """What a result says about the data folder: nothing that tells its path. ``quick`` reads none."""
    return "" if profile == "quick" else combined([os.path.normpath(data_root)])[:12]


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
    return [f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in sorted(found)]

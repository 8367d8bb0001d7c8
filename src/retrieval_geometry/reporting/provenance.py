"""Provenance: code, machine, libraries and cost of a run, by which another person can judge a result."""

import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from retrieval_geometry import __version__
from retrieval_geometry._cost import cost_so_far
from retrieval_geometry._folders import project_root
from retrieval_geometry.reporting.measured import is_number
from retrieval_geometry.reporting.results import Provenance, WeightsInfo

LIBRARIES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "scikit-image",
    "opencv-python-headless",
    "POT",
    "pytorch-metric-learning",
)


def collect_provenance(
    seconds: float, threads: int, device: str = "cpu", weights: Sequence[WeightsInfo] = ()
) -> Provenance:
    """Provenance of this process after a run of ``seconds`` on ``threads`` CPU threads of ``device``.

    Source: this package's own. Used in chapter 4.

    Raises:
        ValueError: ``seconds`` is not a number, or ``weights`` not a list of weights.
    """
    if not isinstance(weights, Sequence) or not all(isinstance(each, WeightsInfo) for each in weights):
        raise ValueError(f"weights must be a list of WeightsInfo, got {weights!r}")
    if not is_number(seconds):
        raise ValueError(f"seconds must be a number, got {seconds!r}")
    commit, dirty = _commit(project_root(Path(__file__).parent))
    cost = cost_so_far()
    return Provenance(
        package_version=__version__,
        commit=commit,
        dirty=dirty,
        libraries=library_versions(),
        device=device,
        cpu=_cpu_name(),
        threads=threads,
        seconds=round(seconds, 3),
        peak_memory_mb=cost.peak_memory_mb if cost else None,
        weights=tuple(weights),
        finished=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        cost=cost,
    )


def library_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that numbers may depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit(root: Path | None) -> tuple[str, bool]:
    """The commit of the checkout that holds the package, and whether its tracked files differ from it."""
    if root is None:
        return "unknown", False
    try:
        commit = _git(root, "rev-parse", "HEAD")
        # Untracked files are no part of what ran: modules are imported from tracked ones.
        return commit, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    # No git, or a copy without its history.
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _cpu_name() -> str:
    try:
        # platform.processor() is empty on many a Linux.
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

"""Settings of a run: profile, data, device, seed, and the folders of its results."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from retrieval_geometry._folders import cache_dir, results_dir
from retrieval_geometry._sources import combined
from retrieval_geometry.experiments.profiles import check_profile


@dataclass(frozen=True)
class RunContext:
    """The settings of a run, and its folders. Used in chapter 4.

    Args:
        profile: ``quick``, ``real`` or ``paper``.
        data_root: folder that holds the data sets of the other profiles; ``quick`` reads none.
        device: torch device.
        seed: of everything random.
        results: folder of results; in a checkout ``build/results``.
        cache: folder of descriptors and of finished parts of runs; in a checkout ``build/cache``.

    Raises:
        ValueError: an unknown profile, or a setting of another kind.
    """

    profile: str = "quick"
    data_root: str = "data"
    device: str = "cpu"
    seed: int = 0
    results: Path = field(default_factory=results_dir)
    cache: Path = field(default_factory=cache_dir)

    def __post_init__(self) -> None:
        check_profile(self.profile)
        if not isinstance(self.data_root, str | os.PathLike) or "\0" in str(self.data_root):
            raise ValueError(f"data_root must be a path, got {self.data_root!r}")
        if not isinstance(self.device, str):
            raise ValueError(f"device must be a name, got {self.device!r}")
        if not isinstance(self.seed, int):
            raise ValueError(f"seed must be a whole number, got {self.seed!r}")

    @property
    def descriptors(self) -> Path:
        """Where descriptors are kept between runs."""
        return self.cache / "descriptors"

    @property
    def folder(self) -> str:
        """A digest of the data folder's name, which tells nothing of its path; empty for ``quick``."""
        # As typed but for "./" and the like; of its content the results hold a digest themselves.
        return "" if self.profile == "quick" else combined([os.path.normpath(self.data_root)])[:12]

    def result_of(self, experiment: str) -> Path:
        """The file of an experiment's result."""
        return self.results / f"{experiment}-{self.profile}.json"

"""An experiment of a second for builds of the small book: it draws numbers, and keeps finished parts.

A build of the small book knows it where :func:`environment` is in force.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from retrieval_geometry.experiments import Experiment, RunContext, experiments
from retrieval_geometry.reporting.measured import Metric
from retrieval_geometry.reporting.results import (
    DatasetInfo,
    MethodResult,
    Result,
)

ROOT = Path(__file__).resolve().parents[2]
NAME = "small"


class SmallExperiment(Experiment):
    """The experiment; its code is that of this file."""

    def run(self, context: RunContext | None = None) -> Result:
        """Draw three parts, keep each, and report their means."""
        from retrieval_geometry.experiments.checkpoints import Checkpoints, Part
        from retrieval_geometry.reporting.provenance import collect_provenance

        context = context or RunContext()
        seed, parts = context.seed, Checkpoints(context.cache, draw, seed=context.seed)
        for number in range(3):
            if parts.get(f"part-{number}") is None:
                parts.put(f"part-{number}", Part(draw(seed, number), ((0,),), 0.1))
        entries = [
            parts.get(f"part-{number}") or Part(draw(seed, number), ((0,),), 0.1) for number in range(3)
        ]
        provenance = replace(collect_provenance(0.5, 1), source=self.source(), folder=context.folder)
        data = DatasetInfo("drawn", 100, 10, "0" * 64, "CC0")
        return Result(
            NAME, context.profile, seed, data, {}, tuple(part.entry for part in entries), provenance
        )

    def source(self, sources: object = None, folder: object = None) -> str:
        """The size of this file stands for its code."""
        return f"small {Path(__file__).stat().st_size}"


def draw(seed: int, number: int) -> MethodResult:
    """A mean of numbers drawn, after a moment."""
    time.sleep(0.3)
    values = np.random.default_rng([seed, number]).normal(size=100)
    mean = Metric(float(values.mean()), float(values.min()), float(values.max()), 100)
    return MethodResult(f"part-{number}", f"Part {number}", {"mean": mean})


def register() -> None:
    """Make the experiment known in this process."""
    experiments()[NAME] = SmallExperiment(NAME, "", "numbers drawn")


def environment(folder: Path) -> dict[str, str]:
    """Variables under which every Python process knows the experiment; ``folder`` is written to."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "from tests.book.small_experiment import register\n\nregister()\n"
    )
    paths = [str(folder), str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}

"""Shared by all tests: one thread a worker, one tolerance table, the devices at hand."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
# Workers run side by side: more threads each would only fight over the cores.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import pytest  # noqa: E402

from retrieval_geometry._folders import CACHE  # noqa: E402


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Outside a checkout, results and caches go to a fresh folder."""
    monkeypatch.setenv(CACHE, str(tmp_path / "kept"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state."""
    import torch

    torch.manual_seed(0)


def pytest_sessionfinish() -> None:
    """Write what was covered: a worker that takes long to end is killed by pytest-xdist."""
    if "coverage" in sys.modules and (measured := sys.modules["coverage"].Coverage.current()):
        measured.save()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))

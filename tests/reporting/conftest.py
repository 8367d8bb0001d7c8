"""A small result to write, read, tabulate and draw."""

import numpy as np
import pytest

from retrieval_geometry.reporting import (
    DatasetInfo,
    Groups,
    MethodResult,
    Metric,
    Provenance,
    Relevance,
    Result,
    Scope,
    WeightsInfo,
)
from retrieval_geometry.reporting.details import Gallery, Ranked


def method(name: str, label: str, hits: np.ndarray, seconds: float = 1e-3) -> MethodResult:
    metrics = {}
    for k in (1, 5, 10):
        value = float(hits[:, :k].mean())
        metrics[f"P@{k}"] = Metric(value, max(value - 0.05, 0.0), min(value + 0.05, 1.0), len(hits))
    return MethodResult(name, label, metrics, seconds, 2e-2, Relevance.pack(hits), ("shrunk by 0.1",))


def make_result(profile: str = "quick", experiment: str = "toy-table", **changes: object) -> Result:
    rng = np.random.default_rng(0)
    made = Provenance(
        "0.1.0",
        "0" * 40,
        False,
        {"numpy": "2.0"},
        "cpu",
        "some CPU",
        2,
        3.5,
        812.0,
        (WeightsInfo("n", "ab"),),
    )
    values = {
        "experiment": experiment,
        "profile": profile,
        "seed": 0,
        "dataset": DatasetInfo("toys", 40, 2, "c" * 64, "CC0"),
        "settings": {"protocol": "every image against all others", "backbone": "scattering"},
        "methods": (
            method("good", "Good", rng.random((20, 10)) < 0.8),
            method("bad", "Bad | worse", rng.random((20, 10)) < 0.3, 5.1),
        ),
        "provenance": made,
        "scope": Scope("scattering", 20, 40),
        "groups": Groups("classes", (12, 8), (0,) * 12 + (1,) * 8),
        "details": Ranked(
            gallery=Gallery(("a/1",), {"good": (("a/2", "b/1"),), "bad": (("b/1", "b/2"),)}),
        ),
    }
    return Result(**{**values, **changes})


@pytest.fixture
def result() -> Result:
    return make_result()

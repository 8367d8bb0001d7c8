"""The references to 60 digits, and the distances against them over condition, scale, rank and dtype."""

from __future__ import annotations

import math
import re

import numpy as np
import ot
import pytest
import torch

from retrieval_geometry.distances import DISTANCES
from retrieval_geometry.experiments.exact import GAUSSIAN, MIXTURE, exact
from retrieval_geometry.experiments.numerics import (
    DTYPES,
    INVERSE,
    LABELS,
    Case,
    Cell,
    answered,
    full_rank_cases,
    images,
    keeps_promise,
    measured,
    promised,
    rank_cases,
    worst_errors,
)
from retrieval_geometry.image_models import Gaussian, GaussianMixture
from tests.distances.common import REFERENCES, gaussians, measures, mixtures


def test_every_distance_has_a_reference() -> None:
    assert {*GAUSSIAN, *MIXTURE, "sinkhorn"} == set(DISTANCES)


@pytest.mark.parametrize("name", GAUSSIAN)
def test_the_reference_of_gaussians_is_that_of_scipy(name: str) -> None:
    p, q = gaussians(1, 4, 1), gaussians(1, 4, 2)
    moments = [part[0].numpy() for g in (p, q) for part in (g.mean, g.cov)]
    assert float(exact(name, p, q)) == pytest.approx(REFERENCES[name](*moments), rel=1e-9)


def test_mixtures_of_one_component_are_gaussians() -> None:
    p, q = mixtures(1, 1, 3, 1), mixtures(1, 1, 3, 2)
    kl = float(exact("kl", p.collapse(), q.collapse()))
    assert float(exact("variational_kl", p, q)) == pytest.approx(kl, rel=1e-12)


def test_the_plan_between_mixtures_is_that_of_the_simplex() -> None:
    p, q = mixtures(1, 2, 3, 3), mixtures(1, 2, 3, 4)
    spread = [torch.cat([m.means[0], m.variances[0].sqrt()], dim=1).numpy() for m in (p, q)]
    cost = ((spread[0][:, None] - spread[1]) ** 2).sum(axis=2)
    plan = ot.emd2(p.weights[0].numpy(), q.weights[0].numpy(), cost)
    assert float(exact("mixture_wasserstein2_squared", p, q)) == pytest.approx(plan, rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_sinkhorn_reference_is_that_of_another_library(scale: float) -> None:
    """At scale 100 the plans are permutations, and the shortcut for them is taken."""
    x, y = (scale * measures(1, 4, 3, seed)[0] for seed in (1, 2))

    def entropic(a: torch.Tensor, b: torch.Tensor) -> float:
        cost = torch.cdist(a, b)[0].numpy()
        if scale > 1:
            return float(ot.emd2(np.full(4, 0.25), np.full(4, 0.25), cost)) + 0.05 * math.log(4)
        return float(ot.solve(cost, reg=0.05, reg_type="KL", max_iter=100_000, tol=1e-14).value)

    expected = entropic(x, y) - (entropic(x, x) + entropic(y, y)) / 2
    assert float(exact("sinkhorn", x, y)) == pytest.approx(expected, rel=1e-6)


def test_a_covariance_without_a_logarithm_has_no_reference() -> None:
    g = Gaussian(torch.zeros(1, 2), torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match="eigenvalue is not positive"):
        exact("kl", g, g)


@pytest.fixture(scope="module")
def cells() -> dict:
    """All that the page shows, of both dtypes."""
    return measured([case for dtype in DTYPES for case in full_rank_cases(dtype) + rank_cases(dtype)])


@pytest.mark.parametrize("name", DISTANCES)
def test_inside_its_range_a_distance_keeps_its_promise(name: str, cells: dict) -> None:
    inside = {case: cell for case, cell in cells[name].items() if answered(name, case)}
    assert len(inside) > 20
    for case, cell in inside.items():
        assert cell.error is not None, f"{case}: {cell.refusal}"
        assert cell.error <= promised(name, case), case


@pytest.mark.parametrize("name", [*INVERSE, *MIXTURE])
def test_outside_it_refuses_by_name(name: str, cells: dict) -> None:
    outside = {case: cell for case, cell in cells[name].items() if not answered(name, case)}
    assert outside
    for case, cell in outside.items():
        assert cell.error is None, case
        assert re.search(r"image 0( of [pq])?\b", cell.refusal), cell.refusal


@pytest.mark.parametrize("name", INVERSE)
def test_beyond_the_largest_condition_nothing_is_computed(name: str) -> None:
    for scale in (1e-8, 1.0, 1e8):
        case = Case(1e15, scale)
        with pytest.raises(ValueError, match=r"image 0 of [pq].*shrink"):
            DISTANCES[name](*(images(name, case, seed) for seed in (1, 2)))


def test_mixtures_of_the_grid_have_unequal_weights() -> None:
    found = images("variational_kl", Case(), 1)
    assert isinstance(found, GaussianMixture)
    assert abs(float(found.weights[0, 0]) - 0.5) > 1e-3


def test_every_distance_has_a_label() -> None:
    assert set(LABELS) == set(DISTANCES)


@pytest.mark.parametrize(
    ("rank", "error", "kept"),
    [(6, 1e-7, True), (6, 1e-2, False), (6, None, False), (2, None, True), (2, 1e-7, False)],
)
def test_a_promise_is_a_small_error_or_a_refusal(rank: int, error: float | None, kept: bool) -> None:
    assert keeps_promise("kl", Case(10.0, rank=rank), Cell(error)) is kept


def test_the_worst_error_of_a_value_is_over_all_other_fields() -> None:
    cells = {
        Case(1.0, 1.0): Cell(1e-9),
        Case(1.0, 2.0): Cell(1e-7),
        Case(100.0, 1.0): Cell(0.0),
        Case(100.0, 2.0): Cell(None),
    }
    found = dict.fromkeys(LABELS, cells)
    assert worst_errors(found, "condition", [1.0, 100.0])[0] == pytest.approx([-7, math.inf])
    assert worst_errors(found, "scale", [1.0, 2.0], below=1.0)[-1] == pytest.approx([-9, -7])
    assert worst_errors({**found, "stein": {Case(): Cell(0.0)}}, "scale", [1.0])[5] == -17

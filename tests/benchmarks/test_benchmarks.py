"""The benchmarks at tiny sizes: every row is there, and right. Never how long anything took."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from benchmarks.__main__ import main
from benchmarks.inputs import SPECTRA, synthetic_descriptors
from benchmarks.measure import exponent, side_by_side, stages

from benchmarks import reference
from retrieval_geometry.distances import symmetric_kl
from retrieval_geometry.image_models import fit_gaussian
from retrieval_geometry.reporting.details import CostRow
from retrieval_geometry.reporting.results import Result

ROWS = {
    "symmetric_kl",
    "symmetric_kl_few",
    "variational_kl",
    "wasserstein_low_rank",
    "wasserstein_full_rank",
    "affine_invariant",
    "stein",
    "mixture_wasserstein",
    "smt",
    "sinkhorn_16",
    "sinkhorn_49",
    "sinkhorn_all_pairs",
    "exact_transport_16",
    "exact_transport_49",
    "mixture_em",
    "bag_of_words",
    "search_wasserstein_fast",
    "search_wasserstein_slow",
    "search_wasserstein_slow_shapes",
    "search_wasserstein2_full_rank",
    "search_affine_invariant_full_rank",
}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    path: Path = tmp_path_factory.mktemp("benchmarks") / "quick.json"
    threads = torch.get_num_threads()
    try:
        assert main(["--quick", "--json", str(path)]) == 0
    finally:
        torch.set_num_threads(threads)
    return Result.read(path)


@pytest.fixture(scope="module")
def rows(result: Result) -> dict[str, CostRow]:
    return {row.key: row for row in result.details.rows}


def test_every_row_is_there_with_times(rows: dict[str, CostRow]) -> None:
    assert rows.keys() == ROWS
    for key, row in rows.items():
        for side in (row.ours, *row.peers):
            time = side.time
            assert 0 < time.low <= time.seconds <= time.high, key
            assert time.repeats >= 1
        assert row.peers or key == "bag_of_words"


def test_some_rows_are_brought_up_to_date(result: Result, tmp_path: Path) -> None:
    path = result.write(tmp_path / "record.json")
    threads = torch.get_num_threads()
    try:
        main(["--quick", "--only", "stein", "--no-growth", "--json", str(path)])
    finally:
        torch.set_num_threads(threads)
    found = Result.read(path)
    before, after = ({row.key: row for row in r.details.rows} for r in (result, found))
    assert before.keys() == after.keys()
    assert after["stein"].ours.time != before["stein"].ours.time
    assert after["smt"].ours == before["smt"].ours
    assert after["smt"].commit == result.provenance.commit
    assert len(found.details.growth) == len(result.details.growth)
    assert found.provenance.seconds > result.provenance.seconds


def test_our_errors_are_those_of_float32(rows: dict[str, CostRow]) -> None:
    errors = {key: row.ours.error for key, row in rows.items() if row.ours.error is not None}
    assert len(errors) >= 9
    assert max(errors.values()) < 1e-5, errors


def test_searches_equal_the_full_sort_and_rotations_the_naive_search(rows: dict[str, CostRow]) -> None:
    exact = {key for key, row in rows.items() if row.identical}
    assert exact == {key for key in ROWS if key.startswith("search")} | {"smt"}
    assert all(0 < row.evaluated <= 1 for key, row in rows.items() if key.startswith("search"))


def test_no_speed_up_is_claimed_for_mixtures(rows: dict[str, CostRow]) -> None:
    assert rows["mixture_em"].mark is None


def test_growth_has_an_exponent_for_every_side(result: Result) -> None:
    curves = {curve.key: curve for curve in result.details.growth}
    grown = {curve.over for curve in curves.values()}
    assert grown == {"dimensions", "descriptors", "components", "images in the database"}
    for curve in curves.values():
        assert curve.exponents.keys() == curve.seconds.keys()
        assert all(math.isfinite(value) for value in curve.exponents.values())
        assert all(len(values) == len(curve.sizes) for values in curve.seconds.values())


def test_the_record_says_where_it_comes_from(result: Result) -> None:
    assert result.experiment == "geometric-cost"
    assert result.provenance.threads == 1
    assert {"pyriemann", "geomloss", "POT", "scikit-learn"} <= result.details.libraries.keys()


def test_exponent_of_a_power() -> None:
    assert exponent([2, 4, 8], [3 * 2**1.5, 3 * 4**1.5, 3 * 8**1.5]) == pytest.approx(1.5)


def test_side_by_side_measures_every_work() -> None:
    calls = {"a": 0, "b": 0}

    def work(name: str) -> None:
        calls[name] += 1

    times = side_by_side({"a": lambda: work("a"), "b": lambda: work("b")}, 0.01)
    assert all(times[name].repeats >= 1 and calls[name] > 1 for name in calls)


def test_stages_see_the_package_s_own_work() -> None:
    g = fit_gaussian(torch.randn(6, 20, 4, generator=torch.Generator().manual_seed(0)))
    wanted = symmetric_kl(g, g)
    with stages("retrieval_geometry.distances.kl") as spent:
        assert torch.equal(symmetric_kl(g, g), wanted)
    assert spent["prepare"] > 0
    assert spent["compare"] > 0
    assert torch.equal(symmetric_kl(g, g), wanted)


def test_references_agree_with_each_other() -> None:
    """In one dimension every formula is known: N(0, 1) and N(1, 4)."""
    p, q = (fit_gaussian(torch.tensor([[[m - s], [m + s]]]).double()) for m, s in ((0.0, 1.0), (1.0, 2.0)))
    assert float(reference.wasserstein2_squared(p, q)) == pytest.approx(2)
    assert float(reference.symmetric_kl(p, q)) == pytest.approx((1 / 4 + 4 - 2 + 1.25) / 4)
    assert float(reference.affine_invariant_distance(p, q)) == pytest.approx(math.log(4))
    assert float(reference.stein_divergence(p, q)) == pytest.approx(math.log(2.5) - math.log(4) / 2)


def test_synthetic_spectra_are_fast_and_slow() -> None:
    shares = {}
    for kind in SPECTRA:
        x = synthetic_descriptors(6, 60, 40, kind, torch.Generator().manual_seed(0))
        spectrum = torch.linalg.eigvalsh(fit_gaussian(x.double()).cov).flip(-1)
        shares[kind] = float((spectrum[:, :4].sum(dim=1) / spectrum.sum(dim=1)).mean())
    assert shares["fast"] > 1.4 * shares["slow"]


def test_options_that_belong_together(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--images", "somewhere"])
    assert "belong together" in capsys.readouterr().err

"""The cost of a result is that of all processes that made it."""

from pathlib import Path

import pytest

from retrieval_geometry._cost import Cost
from retrieval_geometry.experiments.part_costs import keep_cost, with_parts

OWN = Cost(2.0, 3.0, 1.0)


def test_the_costs_of_parts_are_counted_once(tmp_path: Path) -> None:
    assert with_parts(OWN, tmp_path / "none") == OWN
    for name in ("1-2", "2-2"):
        keep_cost(tmp_path, name)
    found = with_parts(OWN, tmp_path)
    assert found is not None
    assert found.processor_seconds > OWN.processor_seconds
    assert found.peak_memory_mb > 10
    assert with_parts(OWN, tmp_path) == OWN


def test_a_damaged_cost_is_not_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keep_cost(tmp_path, "1-2")
    (tmp_path / "1-2").write_bytes((tmp_path / "1-2").read_bytes()[:-3])
    assert with_parts(OWN, tmp_path) == OWN
    assert "it is not counted" in capfd.readouterr().err

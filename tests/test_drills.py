"""The short drill: a build of a small book is stopped, killed and damaged, and the next one mends it."""

from __future__ import annotations

import pytest

from tests import drills


@pytest.mark.slow
def test_a_build_survives(capsys: pytest.CaptureFixture[str]) -> None:
    assert drills.main(["--together", "9"]) == 0
    assert "| all | 6 | 6 | 0 |" in capsys.readouterr().out


def test_the_long_drill_kills_twenty_times_and_tries_every_kind_of_fault() -> None:
    found = drills.faults()
    assert sum(times for name, (_, times, _) in found.items() if name.startswith("kill -9")) >= 20
    for kind in (
        "HOME",
        "TMPDIR",
        "disk",
        "future",
        "two builds",
        "Ctrl-C",
        "damage: result",
        "damage: part",
    ):
        assert any(kind in name for name in found)

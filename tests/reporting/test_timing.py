import pytest

from retrieval_geometry.reporting import timing
from retrieval_geometry.reporting.timing import seconds_of


class Clock:
    """A clock that stands still between pieces of work, each of which takes the next of some times."""

    def __init__(self, monkeypatch, *seconds):
        self.now, self.calls, self.seconds = 0.0, 0, seconds
        monkeypatch.setattr(timing.time, "process_time", lambda: self.now)

    def work(self):
        self.now += self.seconds[min(self.calls, len(self.seconds) - 1)]
        self.calls += 1


def test_the_median_counts_and_the_first_call_does_not(monkeypatch):
    clock = Clock(monkeypatch, 9.0, 3.0, 1.0, 2.0)
    assert seconds_of(clock.work) == 2.0
    assert clock.calls == 4


def test_short_work_is_repeated_within_a_measurement(monkeypatch):
    clock = Clock(monkeypatch, 0.002)
    assert seconds_of(clock.work, repeats=2, least=0.01) == pytest.approx(0.002)
    assert clock.calls == 1 + 2 * 5


def test_no_measurement_is_refused():
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        seconds_of(lambda: None, repeats=0)

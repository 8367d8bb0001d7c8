"""Processor time of short pieces of work, which other programs on the machine do not lengthen."""

import time
from collections.abc import Callable


def seconds_of(work: Callable[[], object], repeats: int = 3, least: float = 0.01) -> float:
    """Median processor time of one call of ``work``, in seconds.

    Args:
        work: is called once to see how long it takes, then in ``repeats`` measurements.
        repeats: measurements, of which the median counts.
        least: seconds of a measurement; shorter work is repeated within it.

    Raises:
        ValueError: ``repeats`` is less than 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    # The clock ticks in milliseconds on some systems: a measurement must last many ticks.
    calls = max(1, int(least / max(_spent(work, 1), 1e-6)))
    return sorted(_spent(work, calls) / calls for _ in range(repeats))[repeats // 2]


def _spent(work: Callable[[], object], calls: int) -> float:
    started = time.process_time()
    for _ in range(calls):
        work()
    return time.process_time() - started

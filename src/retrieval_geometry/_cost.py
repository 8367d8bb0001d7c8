"""Cost of a process: time by the clock, time of processors, memory."""

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

STARTED = time.perf_counter()  # jobs of a build load this module before any library


@dataclass(frozen=True)
class Cost:
    """The cost of a job.

    Args:
        seconds: by the clock, from the start of its process on.
        processor_seconds: of its process and of those that it started.
        peak_memory_mb: the most that one of these processes held.
    """

    seconds: float
    processor_seconds: float
    peak_memory_mb: float


def total(costs: Iterable[Cost]) -> Cost:
    """The sums of their seconds, and the largest memory; of no costs nothing."""
    costs = list(costs)
    return Cost(
        round(sum(cost.seconds for cost in costs), 1),
        round(sum(cost.processor_seconds for cost in costs), 1),
        max((cost.peak_memory_mb for cost in costs), default=0.0),
    )


def cost_so_far() -> Cost | None:
    """The cost of this process and of the ended ones that it started; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    # Of ended children the system tells the sum of times, and the largest memory.
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    # macOS counts bytes, Linux kibibytes.
    units_per_mb = 2**20 if sys.platform == "darwin" else 2**10
    return Cost(
        round(time.perf_counter() - STARTED, 1),
        round(sum(each.ru_utime + each.ru_stime for each in used), 1),
        round(max(each.ru_maxrss for each in used) / units_per_mb, 1),
    )

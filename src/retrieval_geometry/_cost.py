"""What a process has cost: time by the clock, time of processors, memory."""

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from retrieval_geometry._files import write_whole

STARTED = time.perf_counter()  # jobs of a build load this module before any library


@dataclass(frozen=True)
class Cost:
    """What a job took.

    Args:
        seconds: by the clock, from the start of its process on.
        processor_seconds: of its process and of those that it started.
        peak_memory_mb: the most that one of these processes held.
    """

    seconds: float
    processor_seconds: float
    peak_memory_mb: float


def cost_so_far() -> Cost | None:
    """The cost of this process and of the ended ones that it started; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    units_per_mb = 2**20 if sys.platform == "darwin" else 2**10
    return Cost(
        round(time.perf_counter() - STARTED, 1),
        round(sum(each.ru_utime + each.ru_stime for each in used), 1),
        round(max(each.ru_maxrss for each in used) / units_per_mb, 1),
    )


def together(costs: Iterable[Cost]) -> Cost:
    """The cost of several jobs: the sum of their times, and the most memory that one of them held."""
    costs = list(costs)
    return Cost(
        round(sum(cost.seconds for cost in costs), 1),
        round(sum(cost.processor_seconds for cost in costs), 1),
        max(cost.peak_memory_mb for cost in costs),
    )


def write_cost(path: Path) -> None:
    """Write what this process has cost so far."""
    write_whole(path, json.dumps(asdict(cost_so_far() or Cost(0.0, 0.0, 0.0))).encode())


def read_cost(path: Path) -> Cost:
    """What :func:`write_cost` has written.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        return Cost(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        raise ValueError(f"{path} holds no cost of a part: delete it, and make the part again") from None

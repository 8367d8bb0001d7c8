"""CPU time, peak memory, the rate of a matrix product, and how a cost grows."""

import ctypes
import gc
import importlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

SHORTEST = 0.01
"""Seconds: work that is done sooner is repeated until a measurement takes this long."""


@dataclass(frozen=True)
class Timing:
    """CPU seconds of one unit of work: the median, the quartiles, and how many measurements they rest on."""

    seconds: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, measurements: Sequence[float]) -> "Timing":
        """Median and quartiles of some measurements."""
        low, middle, high = np.quantile(measurements, [0.25, 0.5, 0.75])
        return cls(float(middle), float(low), float(high), len(measurements))

    def per(self, units: float) -> "Timing":
        """The same work divided into units: pairs, or images."""
        return Timing(self.seconds / units, self.low / units, self.high / units, self.repeats)


def side_by_side(works: Mapping[str, Callable[[], object]], budget: float) -> dict[str, Timing]:
    """CPU time of each work, measured in turns, so that a slow minute of the machine meets all of them.

    Each is done once to warm up (caches, compilers). One that takes its whole ``budget`` (seconds) for that
    is not done again: this measurement is all there is of it.
    """
    first = {name: _cpu_seconds(work) for name, work in works.items()}
    spent = dict(first)
    measured: dict[str, list[float]] = {name: [] for name in works}
    while going := [name for name in works if spent[name] < budget and len(measured[name]) < 50]:
        for name in going:
            calls = max(1, int(SHORTEST / max(first[name], 1e-7)))
            seconds = _cpu_seconds(works[name], calls)
            measured[name].append(seconds / calls)
            spent[name] += seconds
    return {name: Timing.of(measured[name] or [first[name]]) for name in works}


def _cpu_seconds(work: Callable[[], object], calls: int = 1) -> float:
    started = time.process_time()
    for _ in range(calls):
        work()
    return time.process_time() - started


@contextmanager
def stages(module: str) -> Iterator[dict[str, float]]:
    """Split what a distance of ``module`` does into preparing images and comparing pairs.

    The times are those of the package's own code, taken where it passes from one to the other: ``all_pairs``
    calls the two functions that the distance, or a module beside it that it leaves pairs to, gives it.

    Yields:
        CPU seconds of ``"prepare"`` and ``"compare"``, filled while the block runs.
    """
    original = importlib.import_module(module).all_pairs
    package = module.rpartition(".")[0]
    beside = [found for name, found in sys.modules.items() if name.startswith(f"{package}.")]
    targets: list[Any] = [found for found in beside if getattr(found, "all_pairs", None) is original]
    spent = {"prepare": 0.0, "compare": 0.0}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            started = time.process_time()
            result = function(*arguments)
            spent[name] += time.process_time() - started
            return result

        return call

    def all_pairs(p: Any, q: Any, prepare: Any, compare: Any, *rest: Any, **options: Any) -> Any:
        return original(p, q, timed("prepare", prepare), timed("compare", compare), *rest, **options)

    for target in targets:
        target.all_pairs = all_pairs
    try:
        yield spent
    finally:
        for target in targets:
            target.all_pairs = original


def time_stages(
    module: str, work: Callable[[], object], images: int, pairs: int, budget: float
) -> tuple[Timing, Timing]:
    """CPU time of preparing one image, and of comparing one pair; see :func:`stages`."""
    prepare: list[float] = []
    compare: list[float] = []
    work()
    started = time.process_time()
    while not prepare or (time.process_time() - started < budget and len(prepare) < 50):
        with stages(module) as spent:
            work()
        prepare.append(spent["prepare"])
        compare.append(spent["compare"])
    return Timing.of(prepare).per(images), Timing.of(compare).per(pairs)


def gemm_rate(dtype: torch.dtype, size: int = 2048, repeats: int = 5) -> float:
    """Floating-point operations a second of a square matrix product: what "at the speed of" refers to."""
    a, b = torch.rand(size, size, dtype=dtype), torch.rand(size, size, dtype=dtype)
    seconds = Timing.of([_cpu_seconds(lambda: a @ b) for _ in range(repeats + 1)][1:]).seconds
    return 2 * size**3 / seconds


def peak_memory_mb(work: Callable[[], object]) -> float | None:
    """Memory that the work takes beyond what the process holds already; None where the system cannot say."""
    _give_back()
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")  # sets the mark of the highest resident size back to the present one
        before = _status_kb(status, "VmRSS")
        work()
        return round((_status_kb(status, "VmHWM") - before) / 1024, 1)
    except OSError:
        return None


def _give_back() -> None:
    """Return freed memory to the system, which would otherwise hide what the next work takes."""
    gc.collect()
    with suppress(AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


def _status_kb(status: Path, key: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1])


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of log(seconds) against log(size): the power with which a cost grows."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest deviation from the reference, as a share of the reference's median size."""
    wanted = wanted.double()
    return float((found.double() - wanted).abs().max() / wanted.abs().median())

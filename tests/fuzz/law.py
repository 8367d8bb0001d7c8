"""The law: values without NaN from finite input, or a refusal that names what was wrong; in finite time."""

from __future__ import annotations

import dataclasses
import math
import re
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from torch import Tensor

SECONDS = 20
"""Processor time of one draw; a guard against hanging, not a measure of speed."""

PATIENCE = 300
"""Time by the clock of one that only waits; long, as other programs may have the processor."""


@dataclass(frozen=True)
class Entry:
    """A public name with good arguments.

    Args:
        call: what is called, with the arguments by name.
        arguments: for each argument what makes a good value from a seed.
        words: what a message may name besides the arguments and their fields.
        unbounded: arguments that may rightly be huge, and take as long as they ask for.
        only_spoilt: a good call would take too long.
        refused: good arguments name files that are not there.
    """

    call: Callable[..., Any]
    arguments: Mapping[str, Callable[[int], Any]] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    unbounded: tuple[str, ...] = ()
    only_spoilt: bool = False
    refused: bool = False


class Hang(BaseException):
    """A draw that took too long; no ``except Exception`` swallows it."""


@contextmanager
def time_limit(seconds: int = SECONDS) -> Iterator[None]:
    """Stop what takes more processor time, or far more time by the clock."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang(f"took more than {seconds} s")

    timers = (
        (signal.ITIMER_PROF, signal.SIGPROF, seconds),
        (signal.ITIMER_REAL, signal.SIGALRM, PATIENCE),
    )
    before = [signal.signal(number, stop) for _, number, _ in timers]
    for timer, _, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (timer, number, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


REFUSED = object()


def judge(call: Callable[[], Any], names: Sequence[str], finite: bool) -> Any:
    """Call, fail unless the law holds, and return the value, or ``REFUSED``."""
    try:
        with time_limit(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = call()
    except (ValueError, TypeError, OSError) as error:
        message = str(error)
        if not any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message) for name in names):
            raise AssertionError(
                f"no name of {', '.join(names)} in {type(error).__name__}: {message}"
            ) from error
        return REFUSED
    if finite:
        assert not has_nan(value), f"NaN from finite input: {value}"
    return value


def has_nan(value: Any) -> bool:
    """Whether a result holds a NaN, at any depth."""
    if isinstance(value, Tensor):
        return value.is_floating_point() and not value.is_meta and bool(value.detach().isnan().any())
    if isinstance(value, np.ndarray):
        return value.dtype.kind == "f" and bool(np.isnan(value).any())
    if isinstance(value, float):
        return math.isnan(value)
    return any(has_nan(part) for part in _parts(value))


def is_finite(value: Any) -> bool:
    """Whether an argument holds no NaN and no infinity."""
    if isinstance(value, Tensor):
        return (
            value.is_meta or not value.is_floating_point() or bool(value.detach().to_dense().isfinite().all())
        )
    if isinstance(value, np.ndarray):
        return value.dtype.kind not in "fc" or bool(np.isfinite(value).all())
    if isinstance(value, (float, complex)):
        return bool(np.isfinite(value))
    return all(is_finite(part) for part in _parts(value))


def _parts(value: Any) -> list[Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, f.name) for f in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple, set)) else []


def names_in(entry: Entry, good: Mapping[str, Any]) -> list[str]:
    """What a refusal may name: arguments, the fields of those that are dataclasses, files."""
    names = [*entry.arguments, *entry.words]
    names += [name.removesuffix("s") for name in names if len(name) > 2]  # "embedding of image 3"
    for value in good.values():
        if dataclasses.is_dataclass(value):
            names += [f.name for f in dataclasses.fields(value)]
        if isinstance(value, Path):
            names += [str(value), value.name, value.parent.name]
        if isinstance(value, str) and len(value) > 2:
            names.append(value)  # a path, given as a text
    return names

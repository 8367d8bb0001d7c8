"""Compiled loops: how this package uses numba."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

EXACT_ROUNDING = frozenset({"nnan", "nsz"})
"""Lets a maximum be searched several entries at a time, and leaves the arithmetic exactly rounded."""

FREE_ORDER = frozenset({"nsz", "reassoc", "contract"})
"""Lets sums be taken in any order, several entries at a time; a NaN stays a NaN."""


def compiled(rules: frozenset[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function on first use; keep the machine code on disk where some folder can be written.

    Compiled functions release the interpreter lock, so several run side by side on ordinary threads.

    Args:
        rules: the fast-math rules of the compiler that are switched on.
    """
    import numba  # slow to import

    # numpy's error model: a division by zero gives infinity, and does not raise.
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(rules)}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # neither the package's folder nor the user's cache folder can be written
            return numba.njit(**options)(function)

    return decorate

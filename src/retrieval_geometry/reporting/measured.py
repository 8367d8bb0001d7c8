"""Measured values: metrics with their intervals, and right neighbours of each query."""

import math
import numbers
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np


def is_number(value: object) -> bool:
    """Whether it is an int or a float, of Python or NumPy, and no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """Whether it is an int, of Python or NumPy, and no bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    """Whether it is a whole number above 0."""
    return is_whole(value) and value >= 1


@dataclass(frozen=True)
class Metric:
    """A value with its interval, computed over ``n`` queries; ``low <= high``, all finite.

    Used in chapter 10.

    Raises:
        ValueError: a value that is not finite, ends in the wrong order, or no query.
    """

    value: float
    low: float
    high: float
    n: int

    def __post_init__(self) -> None:
        if not all(is_number(v) and math.isfinite(v) for v in (self.value, self.low, self.high)):
            raise ValueError(f"a metric must be finite, got {self}")
        if self.low > self.high or not is_count(self.n):
            raise ValueError(f"a metric needs low <= high and n >= 1, got {self}")


@dataclass(frozen=True)
class Relevance:
    """The right ones among the ``k`` nearest neighbours of each query, packed into a short string.

    Used in chapter 4. A query takes ``ceil(k / 4)`` hexadecimal digits; the highest of its ``k`` bits is the
    nearest neighbour. P@k for any smaller k and paired differences are computed from it.

    Raises:
        ValueError: a k below 1, or a string that is no whole number of queries.

    Example:
        >>> packed = Relevance.pack(np.array([[True, False], [True, True]]))
        >>> packed.bits, packed.unpack().tolist()
        ('23', [[True, False], [True, True]])
    """

    k: int
    bits: str

    def __post_init__(self) -> None:
        # An empty string is right: a result may have no query.
        digits = isinstance(self.bits, str) and re.fullmatch(r"[0-9a-f]*", self.bits)
        if not is_count(self.k) or not digits or len(self.bits) % -(-self.k // 4):
            raise ValueError(f"bits must hold ceil(k / 4) hexadecimal digits a query, got k = {self.k!r}")

    @classmethod
    def pack(cls, relevant: np.ndarray) -> "Relevance":
        """Pack a boolean array of shape (queries, k)."""
        relevant = np.asarray(relevant)
        if relevant.ndim != 2 or relevant.dtype != bool:
            kind = f"{relevant.dtype} of shape {relevant.shape}"
            raise ValueError(f"relevant must be boolean, of shape (queries, k), got {kind}")
        k = relevant.shape[1]
        width = -(-k // 4)
        numbers = [int("".join("1" if hit else "0" for hit in row), 2) for row in relevant]
        return cls(k, "".join(f"{number:0{width}x}" for number in numbers))

    def unpack(self) -> np.ndarray:
        """The boolean array of shape (queries, k)."""
        # Each query begins at a digit of its own, so that a file can be read by eye.
        width = -(-self.k // 4)
        numbers = [int(self.bits[i : i + width], 16) for i in range(0, len(self.bits), width)]
        rows = [[bool(n >> (self.k - 1 - j) & 1) for j in range(self.k)] for n in numbers]
        return np.array(rows, dtype=bool).reshape(len(numbers), self.k)

    def precision(self, k: int) -> np.ndarray:
        """P@k of every query, shape (queries,), in [0, 1]."""
        if not is_count(k) or k > self.k:
            raise ValueError(f"k must be between 1 and {self.k} (the neighbours recorded), got {k}")
        # The nearest come first: a smaller k is a prefix.
        return self.unpack()[:, :k].mean(axis=1)


@dataclass(frozen=True)
class Groups:
    """Groups of queries that are not independent of each other: the classes, or the alphabets of characters.

    Used in chapter 90.

    Args:
        name: of the groups, in the plural.
        sizes: number of queries in each.
        of_query: the group of every query, where single queries are recorded.

    Raises:
        ValueError: a group without a query, or groups of other sizes than stated.
    """

    name: str
    sizes: tuple[int, ...]
    of_query: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.sizes, tuple) or not self.sizes or not all(map(is_count, self.sizes)):
            raise ValueError(f"every group needs at least one query, got sizes {self.sizes!r}")
        if not isinstance(self.of_query, tuple) or not all(map(is_whole, self.of_query)):
            raise ValueError(f"of_query must be a tuple of the numbers of groups, got {self.of_query!r}")
        # The sizes stand in the file twice, where single queries are recorded: they must agree.
        counts = Counter(self.of_query)
        if counts and dict(counts) != dict(enumerate(self.sizes)):
            raise ValueError(f"groups of queries do not have the sizes {self.sizes}: {dict(counts)}")

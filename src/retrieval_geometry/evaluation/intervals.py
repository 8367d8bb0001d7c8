"""Intervals around a mean over queries."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit
from torch import Tensor

from retrieval_geometry._check import check_count, check_dense, check_number, check_seed

Values = ArrayLike | Tensor
BLOCK = 2**22  # draws held in memory at once


class Interval(NamedTuple):
    """An estimate and the ends of the interval around it. Used in chapter 1."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """The distance between the ends."""
        return self.high - self.low


def bootstrap_interval(
    values: Values,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    groups: Values | None = None,
) -> Interval:
    """Mean of the values with its percentile bootstrap interval.

    Source: Efron and Tibshirani 1993, section 13.3; with ``groups`` Davison and Hinkley 1997, section 3.8.
    Derived in chapter 1.

    The values are drawn again with replacement, as many as there are; the ends are quantiles of the means.
    Equal values give an interval of no width, however few they are. It speaks of other queries of the same
    classes. With ``groups`` it speaks of other classes: whole groups are drawn, which brings their queries
    along (drawing these again inside a group would count them twice).
    With fewer than some 20 groups :func:`mean_interval`, which has Student's quantiles, covers better.

    Args:
        values: ``(n,)``, one per query.
        confidence: share of the resampled means inside the interval, above 0 and at most 1.
        n_resamples: number of draws of all values.
        seed: of the draws.
        groups: ``(n,)``, the group of each query, at least two.

    Raises:
        ValueError: no values, a NaN or infinite one, more than one axis, one group, or a setting out of its
            range.

    Example:
        >>> bootstrap_interval([0, 1, 1, 1, 0, 1, 1, 0])
        Interval(value=0.625, low=0.25, high=0.875)
    """
    numbers = _check_values(values, "values")
    check_count(n_resamples, "n_resamples")
    centre = numbers[0]  # what all values have in common is not rounded
    sums, sizes = numbers - centre, None
    if groups is not None:
        group = label_groups(groups, len(numbers))[1]
        sums, sizes = np.bincount(group, weights=sums), np.bincount(group)
        if len(sizes) < 2:
            raise ValueError("groups must be at least two, got one: name finer groups, such as classes")
    means = centre + _drawn_means(sums, sizes, n_resamples, seed)
    return _interval(float(centre + (numbers - centre).mean()), means, confidence)


def _drawn_means(sums: np.ndarray, sizes: np.ndarray | None, n_resamples: int, seed: int) -> np.ndarray:
    """Means over groups drawn with replacement, as many as there are; without ``sizes`` each is one value."""
    rng = np.random.default_rng(check_seed(seed))
    block = max(1, BLOCK // len(sums))
    means = []
    for start in range(0, n_resamples, block):
        drawn = rng.integers(0, len(sums), (min(block, n_resamples - start), len(sums)))
        means.append(sums[drawn].sum(axis=1) / (len(sums) if sizes is None else sizes[drawn].sum(axis=1)))
    return np.concatenate(means)


def paired_bootstrap_difference(
    a: Values,
    b: Values,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    groups: Values | None = None,
) -> Interval:
    """Mean of ``a - b`` with its interval, where both ``(n,)`` were measured on the same queries.

    Source: Efron and Tibshirani 1993, section 13.3. Derived in chapter 1.

    Common parts of the queries cancel, so the interval is narrower than two separate ones suggest. Zero
    outside it means that the two methods differ beyond the choice of queries, or with ``groups`` of classes.
    The other arguments and the errors are those of :func:`bootstrap_interval`.

    Raises:
        ValueError: also if ``a`` and ``b`` have different lengths.

    Example:
        >>> paired_bootstrap_difference([0.6, 0.9, 0.2], [0.5, 0.8, 0.1]).low > 0
        True
    """
    first, second = _check_values(a, "a"), _check_values(b, "b")
    if len(first) != len(second):
        raise ValueError(f"a and b must hold the same queries, got {len(first)} and {len(second)} values")
    return bootstrap_interval(first - second, confidence, n_resamples, seed, groups)


def seed_interval(values: Values, confidence: float = 0.95) -> Interval:
    r"""Mean of runs that differ in their seed alone, and the interval around that mean.

    .. math:: \bar v \pm t_{n-1} \, s / \sqrt n

    Source: Student 1908. Used in chapter 12.

    This is Student's interval, with s the standard deviation over the seeds: for three seeds it is 2.5 s to
    either side. It says how far training moves the result, not how far the choice of the queries does.

    Args:
        values: ``(n,)``, one per seed, at least two.
        confidence: above 0 and below 1.

    Raises:
        ValueError: fewer than two values, a NaN or infinite one, or a confidence out of its range.

    Example:
        >>> [round(end, 3) for end in seed_interval([0.5, 0.6, 0.7])]
        [0.6, 0.352, 0.848]
    """
    numbers = _check_values(values, "values")
    if len(numbers) < 2:
        raise ValueError("values must come from at least two seeds, got one: run another")
    if check_number(confidence, "confidence", above=0, at_most=1) == 1:
        raise ValueError("confidence must be below 1: Student's interval would have no end")
    mean, deviation = float(numbers.mean()), float(numbers.std(ddof=1))
    reach = float(stdtrit(len(numbers) - 1, (1 + confidence) / 2)) * deviation / math.sqrt(len(numbers))
    return Interval(mean, mean - reach, mean + reach)


def query_draw_interval(
    values: Values,
    classes: Values,
    per_class: int = 2,
    n_draws: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean over classes with its range over draws of a few queries of each class, the database being fixed.

    Source: [geometric] section 3 (the protocol); the interval is this package's own. Derived in chapter 1.

    [geometric] takes two queries of each of 47 classes out of 40 candidates, once. Given the value of every
    candidate this draws such query sets, without replacement inside a class, and takes quantiles of their
    means. The value is the mean over all query sets, that is over classes of the mean over a class's
    candidates.

    Args:
        values: ``(n,)``, one per candidate query.
        classes: ``(n,)``, the class of each candidate.
        per_class: queries drawn of each class.
        n_draws: number of query sets.
        confidence: share of the drawn means inside the interval, above 0 and at most 1.
        seed: of the draws.

    Raises:
        ValueError: no values, a NaN or infinite one, lists of different lengths, a class with fewer than
            ``per_class`` candidates (it is named), or a setting out of its range.

    Example:
        >>> query_draw_interval([0, 1, 0, 1], [0, 0, 1, 1], per_class=2)  # one possible set
        Interval(value=0.5, low=0.5, high=0.5)
    """
    numbers = _check_values(values, "values")
    names, place = label_groups(classes, len(numbers), "classes")
    check_count(per_class, "per_class")
    check_count(n_draws, "n_draws")
    rng = np.random.default_rng(check_seed(seed))
    centre = numbers[0]
    total, value = np.zeros(n_draws), 0.0
    for i, name in enumerate(names):
        members = numbers[place == i] - centre
        if len(members) < per_class:
            raise ValueError(
                f"class {name} has {len(members)} candidate queries, fewer than per_class={per_class}"
            )
        total += _means_without_replacement(members, per_class, n_draws, rng)
        value += float(members.mean())
    return _interval(float(centre + value / len(names)), centre + total / len(names), confidence)


def _means_without_replacement(
    members: np.ndarray, size: int, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Means of ``size`` different members, for each of the draws."""
    block = max(1, BLOCK // len(members))
    means = []
    for start in range(0, n_draws, block):
        # The first of a random order: a draw without replacement, all draws in one sort.
        order = rng.random((min(block, n_draws - start), len(members))).argsort(axis=1)
        means.append(members[order[:, :size]].mean(axis=1))
    return np.concatenate(means)


def _interval(value: float, means: np.ndarray, confidence: float) -> Interval:
    """Quantiles of the means; skew, few draws or rounding do not leave the value outside."""
    check_number(confidence, "confidence", above=0, at_most=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    # A skew distribution of means, or few draws, may leave the estimate itself outside.
    return Interval(value, min(value, float(low)), max(value, float(high)))


def label_groups(labels: Values, n: int, name: str = "groups") -> tuple[np.ndarray, np.ndarray]:
    """Return the labels that occur, sorted, and for each of n values the place of its label among them."""
    try:
        found = to_numpy(check_dense(labels, name) if isinstance(labels, Tensor) else labels)
    except TypeError:  # bfloat16
        raise ValueError(f"{name} must be whole numbers or names, got {type(labels).__name__}") from None
    if found.shape != (n,):
        raise ValueError(f"{name} must hold one label per value, got shape {found.shape} for {n} values")
    names, places = np.unique(found, return_inverse=True)
    return names, places


def to_numpy(values: Values) -> np.ndarray:
    """Return numbers or labels as an array, wherever a tensor of them lives."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)


def real_numbers(values: Values, name: str) -> np.ndarray:
    """Return real numbers as a float64 array.

    Raises:
        ValueError: no numbers, such as names, None or ragged lists, or complex ones.
    """
    try:
        found = to_numpy(values)
        if found.dtype.kind in "biuf":
            return found.astype(np.float64)
        kind = f"{type(values).__name__} of {found.dtype}"
    except (ValueError, TypeError, NotImplementedError, RuntimeError):  # ragged, bfloat16, sparse, no numbers
        kind = str(values.dtype) if isinstance(values, Tensor) else type(values).__name__
    raise ValueError(f"{name} must be real numbers, got {kind}")


def _check_values(values: Values, name: str) -> np.ndarray:
    numbers = real_numbers(values, name)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"{name} must be a list of numbers, one per query, got shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        position = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise ValueError(f"{name}[{position}] must be finite, got {numbers[position]}")
    return numbers

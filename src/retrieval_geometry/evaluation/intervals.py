"""How far to trust a mean over queries."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t
from torch import Tensor

from retrieval_geometry._check import check_count, check_number

Values = ArrayLike | Tensor
BLOCK = 2**22  # draws held in memory at once


class Interval(NamedTuple):
    """An estimate and the ends of the interval around it."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """The distance between the ends."""
        return self.high - self.low


def bootstrap_interval(
    values: Values, confidence: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> Interval:
    """Return the mean of the values with its percentile bootstrap interval.

    The values are drawn again with replacement, as many as there are; the ends are quantiles of the means.
    Equal values give an interval of no width, however few they are.

    Args:
        values: ``(n,)``, one per query.
        confidence: share of the resampled means inside the interval, above 0 and at most 1.
        n_resamples: how often the values are drawn.
        seed: of the draws.

    Raises:
        ValueError: no values, a NaN or infinite one, more than one axis, or a setting out of its range.

    Example:
        >>> bootstrap_interval([0, 1, 1, 1, 0, 1, 1, 0])
        Interval(value=0.625, low=0.25, high=0.875)
    """
    numbers = _check_values(values, "values")
    check_count(n_resamples, "n_resamples")
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK // len(numbers))
    sizes = [min(block, n_resamples - start) for start in range(0, n_resamples, block)]
    means = [numbers[rng.integers(0, len(numbers), (size, len(numbers)))].mean(axis=1) for size in sizes]
    return _interval(float(numbers.mean()), np.concatenate(means), confidence)


def paired_bootstrap_difference(
    a: Values, b: Values, confidence: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> Interval:
    """Return the mean of ``a - b`` with its interval, where both were measured on the same queries.

    What the queries have in common cancels, so the interval is narrower than two separate ones suggest. Zero
    outside it means that the two methods differ beyond the choice of queries. The other arguments and the
    errors are those of :func:`bootstrap_interval`.

    Raises:
        ValueError: also if ``a`` and ``b`` have different lengths.

    Example:
        >>> paired_bootstrap_difference([0.6, 0.9, 0.2], [0.5, 0.8, 0.1]).low > 0
        True
    """
    first, second = _check_values(a, "a"), _check_values(b, "b")
    if len(first) != len(second):
        raise ValueError(f"a and b must hold the same queries, got {len(first)} and {len(second)} values")
    return bootstrap_interval(first - second, confidence, n_resamples, seed)


def seed_interval(values: Values, confidence: float = 0.95) -> Interval:
    r"""Return the mean of runs that differ in their seed alone, and the interval around that mean.

    .. math:: \bar v \pm t_{n-1} \, s / \sqrt n

    Student's interval, with s the standard deviation over the seeds: for three seeds it is 2.5 s to either
    side. It says how far training moves the result, not how far the choice of the queries does.

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
    reach = float(t.ppf((1 + confidence) / 2, len(numbers) - 1)) * deviation / math.sqrt(len(numbers))
    return Interval(mean, mean - reach, mean + reach)


def run_interval(runs: Values, confidence: float = 0.95, n_resamples: int = 2000, seed: int = 0) -> Interval:
    """Return the mean over several trained models and the queries all were asked, with its interval.

    Both are drawn again with replacement, the models as a whole (a pigeonhole bootstrap, Owen 2007): the
    interval speaks of other queries and of other seeds of the training.

    Args:
        runs: ``(S, n)``, a value for each model and query.
        confidence: share of the resampled means inside the interval, above 0 and at most 1.
        n_resamples: how often models and queries are drawn.
        seed: of the draws.

    Raises:
        ValueError: no values, a NaN or infinite one, not two axes, or a setting out of its range.

    Example:
        >>> run_interval([[1, 0, 1, 1], [1, 0, 1, 0]]).value
        0.625
    """
    values = _check_runs(runs, "runs")
    means = _resampled_runs([values], n_resamples, seed)[0]
    return _interval(float(values.mean()), means, confidence)


def run_difference(
    a: Values, b: Values, confidence: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> Interval:
    """Return the mean of a minus that of b with its interval: queries are paired, trained models are not.

    Zero outside it means that two ways of training differ beyond the choice of queries and of seeds. The
    other arguments and the errors are those of :func:`run_interval`.

    Args:
        a: ``(S, n)``, a value for each model and query.
        b: ``(T, n)``, likewise for the same queries.

    Raises:
        ValueError: also if ``a`` and ``b`` have other queries.

    Example:
        >>> run_difference([[1, 1, 0, 1]], [[0, 1, 0, 1]]).value
        0.25
    """
    first, second = _check_runs(a, "a"), _check_runs(b, "b")
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"a and b must hold the same queries, got {first.shape[1]} and {second.shape[1]} values"
        )
    of_first, of_second = _resampled_runs([first, second], n_resamples, seed)
    return _interval(float(first.mean() - second.mean()), of_first - of_second, confidence)


def _resampled_runs(groups: list[np.ndarray], n_resamples: int, seed: int) -> list[np.ndarray]:
    """Means of each group ``(S, n)`` over drawn queries, common to all groups, and drawn runs of its own."""
    check_count(n_resamples, "n_resamples")
    counts = _query_counts(groups[0].shape[1], n_resamples, seed)
    rng = np.random.default_rng([seed, 1])
    means = []
    for values in groups:
        by_run = (counts @ values.T.astype(np.float32) / values.shape[1]).T.astype(np.float64)
        runs = rng.integers(0, len(values), by_run.shape)
        means.append(np.take_along_axis(by_run, runs, axis=0).mean(axis=0))
    return means


@lru_cache(maxsize=2)  # many intervals are asked for of the same queries
def _query_counts(n: int, n_resamples: int, seed: int) -> np.ndarray:
    """How often each of n queries is drawn in each resample, ``(n_resamples, n)`` float32."""
    rng = np.random.default_rng(seed)
    drawn = (np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(n_resamples))
    return np.stack([counts.astype(np.float32) for counts in drawn])


def query_draw_interval(
    values: Values,
    classes: Values,
    per_class: int = 2,
    n_draws: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return how far a mean moves with the choice of a few queries of each class, the database being fixed.

    [geometric] takes two queries of each of 47 classes out of 40 candidates, once. Given the value of every
    candidate this draws such query sets, without replacement inside a class, and takes quantiles of their
    means. The value is the mean over all query sets, that is over classes of the mean over a class's
    candidates.

    Args:
        values: ``(n,)``, one per candidate query.
        classes: ``(n,)``, the class of each candidate.
        per_class: queries drawn of each class.
        n_draws: how many query sets are drawn.
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
    groups = np.asarray(classes.detach().cpu() if isinstance(classes, Tensor) else classes)
    if groups.shape != numbers.shape:
        raise ValueError(f"classes must name one class per value, got {groups.shape} for {len(numbers)}")
    check_count(per_class, "per_class")
    check_count(n_draws, "n_draws")
    rng = np.random.default_rng(seed)
    names = np.unique(groups)
    total, value = np.zeros(n_draws), 0.0
    for name in names:
        members = numbers[groups == name]
        if len(members) < per_class:
            raise ValueError(
                f"class {name} has {len(members)} candidate queries, fewer than per_class={per_class}"
            )
        total += _means_without_replacement(members, per_class, n_draws, rng)
        value += float(members.mean())
    return _interval(value / len(names), total / len(names), confidence)


def _means_without_replacement(
    members: np.ndarray, size: int, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Means of ``size`` different members, for each of the draws."""
    block = max(1, BLOCK // len(members))
    means = []
    for start in range(0, n_draws, block):
        order = rng.random((min(block, n_draws - start), len(members))).argsort(axis=1)
        means.append(members[order[:, :size]].mean(axis=1))
    return np.concatenate(means)


def _interval(value: float, means: np.ndarray, confidence: float) -> Interval:
    check_number(confidence, "confidence", above=0, at_most=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _check_runs(runs: Values, name: str) -> np.ndarray:
    numbers = np.asarray(runs.detach().cpu().numpy() if isinstance(runs, Tensor) else runs)
    if numbers.ndim != 2 or not numbers.size:
        raise ValueError(f"{name} must hold a row of values for each model, got shape {numbers.shape}")
    return np.stack([_check_values(row, f"{name}[{i}]") for i, row in enumerate(numbers)])


def _check_values(values: Values, name: str) -> np.ndarray:
    raw = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    numbers = np.asarray(raw, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers):
        raise ValueError(f"{name} must be a list of numbers, one per query, got shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        position = int(np.flatnonzero(~np.isfinite(numbers))[0])
        raise ValueError(f"{name}[{position}] must be finite, got {numbers[position]}")
    return numbers

"""Intervals that speak of new classes and new training runs, and of several comparisons at once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
from scipy.special import stdtrit

from retrieval_geometry._check import check_count, check_kind, check_number
from retrieval_geometry.evaluation.intervals import Interval, Values, label_groups, real_numbers, to_numpy

ROUNDING = 1e-12  # of the largest value: less is no difference and no spread


@dataclass(frozen=True, eq=False)
class GroupMeans:
    """The mean of each model in each group of queries: all that the intervals need of a table of values.

    Derived in chapter 10.

    Attributes:
        values: ``(S, G)`` float64, the mean of each of S trained models over the queries of each of G groups.
        sizes: ``(G,)``, how many queries each group holds.

    Raises:
        ValueError: not a row for each model and a column for each group, a value that is not finite, or a
            size below 1.
    """

    values: np.ndarray
    sizes: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", real_numbers(self.values, "values"))
        real_numbers(self.sizes, "sizes")
        object.__setattr__(self, "sizes", to_numpy(self.sizes))
        if self.values.ndim != 2 or not self.values.size or self.sizes.shape != self.values.shape[1:]:
            raise ValueError(
                "values must hold a row for each model and a column for each group, "
                f"got shape {self.values.shape} for {self.sizes.shape} sizes"
            )
        if not np.isfinite(self.values).all():
            model, group = np.argwhere(~np.isfinite(self.values))[0]
            raise ValueError(f"values must be finite, got {self.values[model, group]} in [{model}, {group}]")
        if not (self.sizes >= 1).all():
            raise ValueError(f"sizes must be at least 1, got {self.sizes.min()}")

    @classmethod
    def of(cls, values: Values, groups: Values) -> Self:
        """Return the means of the values over the queries of each group, in the order of the labels.

        Args:
            values: ``(n,)`` for one model or ``(S, n)``, a value for each query.
            groups: ``(n,)``, the group of each query: its class, or for characters its alphabet.

        Example:
            >>> GroupMeans.of([1, 0, 1, 1], ["a", "a", "a", "b"]).sizes.tolist()
            [3, 1]
        """
        table = np.atleast_2d(real_numbers(values, "values"))
        if table.ndim != 2 or not table.size:
            raise ValueError(f"values must hold a row of values for each model, got shape {table.shape}")
        group = label_groups(groups, table.shape[1])[1]
        sizes = np.bincount(group)
        return cls(np.stack([np.bincount(group, weights=row) for row in table]) / sizes, sizes)

    @property
    def by_group(self) -> np.ndarray:
        """``(G,)``, the mean of each group over the models."""
        return self.values.mean(axis=0)

    @property
    def by_model(self) -> np.ndarray:
        """``(S,)``, the mean of each model over the queries."""
        return self.values @ (self.sizes / self.n)

    @property
    def mean(self) -> float:
        """The mean over the queries, averaged over the models."""
        return float(self.by_model.mean())

    @property
    def models(self) -> int:
        """S, the number of trained models."""
        return len(self.values)

    @property
    def n(self) -> int:
        """The number of queries."""
        return int(self.sizes.sum())


def mean_interval(means: GroupMeans, confidence: float = 0.95, comparisons: int = 1) -> Interval:
    r"""Mean over queries and models with its interval over new groups and new models.

    .. math:: \bar d \pm t_\nu \sqrt{V_G + V_S}, \qquad
        V_G = \frac{G - 1}{G} \sum_g (\bar d_{-g} - \bar d)^2, \quad V_S = \frac{s^2}{S}

    Source: Efron and Tibshirani 1993, chapter 11 (the jackknife over groups); Satterthwaite 1946 (the degrees
    of freedom); their sum is this package's own. Derived in chapter 10.

    Here :math:`\bar d_{-g}` is the mean without group g and s the standard deviation of the models' means.
    The jackknife leaves out a group at a time and allows any dependence inside a group. The answers of one
    model to one group enter both variances: the interval errs on the wide side. Chapter 10 also measures how
    often it covers.

    With one model V_S is unknown and left out: the interval then speaks of other groups, *not* of another
    training. Means close to 0 or 1 of few groups are skewed, and it covers them less often than it says.
    Equal values give an interval of no width. The values ``(S, G)`` are those of ``means``.

    Args:
        means: of at least two groups. confidence: above 0 and below 1. comparisons: number of intervals that
        shall hold at once; each takes its part of the risk (Bonferroni).

    Raises:
        ValueError: one group, a confidence out of its range, or fewer than one comparison.

    Example:
        >>> mean_interval(GroupMeans.of([[1, 0, 1, 1], [1, 0, 1, 0]], [0, 0, 1, 1])).value
        0.625
    """
    return _student([check_kind(means, "means", GroupMeans)], confidence, comparisons)


def mean_difference(a: GroupMeans, b: GroupMeans, confidence: float = 0.95, comparisons: int = 1) -> Interval:
    """Mean of a minus that of b with its interval: queries are paired, trained models are not.

    Source: as for :func:`mean_interval`, Efron and Tibshirani 1993. Derived in chapter 10.

    Values are ``(S, G)`` on either side, with a number of models S of its own. Common parts of the groups
    cancel; the variances over the models of each side add up. A side with one model adds none: if it was
    trained, the interval does *not* speak of another training of it. Where models are paired too (one model
    ranked in two ways), take :func:`mean_interval` of the differences; models that only share a seed are
    taken as strangers, which is on the safe side. The formula, the other arguments and the errors are those
    of :func:`mean_interval`.

    Args:
        a: values of one method.
        b: values of the other for the same queries, in the same groups.

    Raises:
        ValueError: also if a and b hold groups of other sizes.

    Example:
        >>> one, other = (GroupMeans.of(row, [0, 0, 1, 1]) for row in ([1, 1, 0, 1], [0, 1, 0, 1]))
        >>> mean_difference(one, other).value
        0.25
    """
    if not np.array_equal(check_kind(a, "a", GroupMeans).sizes, check_kind(b, "b", GroupMeans).sizes):
        raise ValueError(f"a and b must hold the same queries, got groups of {a.sizes} and of {b.sizes}")
    return _student([a, b], confidence, comparisons)


def simultaneous_differences(
    first: GroupMeans, rivals: Mapping[str, GroupMeans], confidence: float = 0.95
) -> dict[str, Interval]:
    """First minus each rival, with intervals that hold *all at once* with the given confidence.

    Source: Bonferroni's bound on :func:`mean_difference`, Efron and Tibshirani 1993; Berger 1982 for *every*
    rival. Derived in chapter 10.

    Values are ``(S, G)``, as in :class:`GroupMeans`. One may look at all of them and pick any, the best rival
    too. Each is a :func:`mean_difference` that takes an equal part of the risk: Bonferroni's bound holds for
    any dependence between the comparisons and for methods that scatter differently, where Dunnett's (1955)
    asks for a common variance. That *some* rival is better takes these intervals. That the first beats
    *every* rival does not: a rival that is really better passes with its plain interval in 2.5 % of all cases
    at most, whatever the others do.

    Args:
        first: values of the method that is compared.
        rivals: of the others, for the same queries; at least one.

    Raises:
        ValueError: no rival, and what :func:`mean_difference` refuses.

    Example:
        >>> a, b, c = (GroupMeans.of(row, [0, 0, 1]) for row in ([1, 1, 0], [0, 1, 0], [0, 0, 0]))
        >>> [round(found.value, 3) for found in simultaneous_differences(a, {"b": b, "c": c}).values()]
        [0.333, 0.667]
    """
    if not rivals:
        raise ValueError("rivals must hold at least one method")
    return {
        name: mean_difference(first, rival, confidence, comparisons=len(rivals))
        for name, rival in rivals.items()
    }


class _Part(NamedTuple):
    variance: float
    freedom: float


def _student(sides: Sequence[GroupMeans], confidence: float, comparisons: int) -> Interval:
    """The mean of the first side, minus that of the second if there is one, with Student's interval.

    Values are divided by the largest first: no square overflows, and rounding is 1e-16.
    """
    if check_number(confidence, "confidence", above=0, at_most=1) == 1:
        raise ValueError("confidence must be below 1: Student's interval would have no end")
    check_count(comparisons, "comparisons")
    scale = max(float(np.abs(side.values).max()) for side in sides) or 1.0
    sides = [replace(side, values=side.values / scale) for side in sides]
    by_group = sides[0].by_group - sum(side.by_group for side in sides[1:])
    value, over_groups = _jackknife(by_group, sides[0].sizes)
    parts = [over_groups, *(_over_models(side) for side in sides if side.models > 1)]
    variance = sum(part.variance for part in parts)
    value = 0.0 if abs(value) < ROUNDING else value * scale
    if math.sqrt(variance) < ROUNDING:
        return Interval(value, value, value)
    # Satterthwaite 1946: the degrees of freedom of a sum of independent variances.
    freedom = variance**2 / sum(part.variance**2 / part.freedom for part in parts)
    reach = float(stdtrit(freedom, 1 - (1 - confidence) / (2 * comparisons))) * math.sqrt(variance) * scale
    return Interval(value, value - reach, value + reach)


def _jackknife(by_group: np.ndarray, sizes: np.ndarray) -> tuple[float, _Part]:
    """The mean over queries, and its variance over the choice of the groups.

    Groups of different sizes are worth fewer equal ones: 1 / sum of squared shares (Kish 1965).
    """
    if len(by_group) < 2:
        raise ValueError("groups must be at least two, got one: name finer groups, such as classes")
    share = sizes / sizes.sum()
    value = float(share @ by_group)
    without = share / (1 - share) * (value - by_group)  # the mean without a group, minus the mean
    # Efron and Tibshirani 1993, eq. 11.5, about the mean itself.
    variance = (len(share) - 1) / len(share) * float((without**2).sum())
    return value, _Part(variance, max(1.0, 1 / float((share**2).sum()) - 1))


def _over_models(means: GroupMeans) -> _Part:
    """The variance that the choice of the seeds gives to the mean."""
    return _Part(float(means.by_model.var(ddof=1)) / means.models, means.models - 1)

"""Intervals over classes and models: against Student, Welch, the jackknife, and by how often they cover."""

import numpy as np
import pytest
import torch
from scipy.stats import t, ttest_1samp, ttest_ind

from retrieval_geometry.evaluation import (
    GroupMeans,
    bootstrap_interval,
    mean_difference,
    mean_interval,
    paired_bootstrap_difference,
    query_draw_interval,
    seed_interval,
    simultaneous_differences,
)


def experiment(
    rng: np.random.Generator,
    methods: int = 1,
    models: int = 3,
    groups: int = 20,
    per_group: int = 20,
    of_seed: float | np.ndarray = 0.1,
) -> np.ndarray:
    """Hits ``(methods, models, queries)`` of methods that are all equally good: each hits with 1/2.

    Sizes as in the recorded comparisons: standard errors by class are 1.3 to 1.8 times those by query, and
    models of one method differ by a standard deviation of 0.03 (0.01 to 0.06 in the slow tests).
    """

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape)

    of_class = 0.35 * normal(1, 1, groups, 1) + 0.2 * normal(methods, 1, groups, 1)
    luck = np.reshape(of_seed, (-1, 1, 1, 1)) * normal(methods, models, 1, 1)
    luck = luck + 0.2 * normal(methods, models, groups, 1)
    of_query = 0.7 * normal(1, 1, groups, per_group) + 0.35 * normal(methods, 1, groups, per_group)
    noise = normal(methods, models, groups, per_group)
    return (of_class + luck + of_query + noise > 0).reshape(methods, models, -1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_means_of_groups_are_those_of_a_loop(rng):
    values, groups = rng.random((3, 50)), np.array(list("dabc"))[rng.integers(0, 4, 50)]
    found = GroupMeans.of(values, groups)
    for i, name in enumerate("abcd"):
        assert found.values[:, i] == pytest.approx([row[groups == name].mean() for row in values])
        assert found.sizes[i] == (groups == name).sum()
    assert found.mean == pytest.approx(values.mean())
    assert (found.models, found.n) == (3, 50)
    places = torch.from_numpy(np.searchsorted(list("abcd"), groups))
    assert np.array_equal(GroupMeans.of(torch.from_numpy(values), places).values, found.values)
    assert GroupMeans.of(values[0], groups).values.shape == (1, 4)


def test_groups_left_out_one_at_a_time(rng):
    """The jackknife, Efron and Tibshirani 1993, eq. 11.5, groups of all sizes; Kish's number of groups."""
    values, groups = rng.random(60), rng.integers(0, 5, 60) ** 2
    found = mean_interval(GroupMeans.of(values, groups), confidence=0.9)
    names = np.unique(groups)
    without = np.array([values[groups != name].mean() for name in names])
    error = np.sqrt((len(names) - 1) / len(names) * ((without - values.mean()) ** 2).sum())
    shares = np.array([(groups == name).mean() for name in names])
    reach = t.ppf(0.95, 1 / (shares**2).sum() - 1) * error
    assert found == pytest.approx((values.mean(), values.mean() - reach, values.mean() + reach))


def test_one_model_and_equal_groups_are_students_case(rng):
    values = rng.random((6, 10))
    found = mean_interval(GroupMeans.of(values.ravel(), np.repeat(np.arange(6), 10)))
    assert found == pytest.approx(seed_interval(values.mean(axis=1)))
    theirs = ttest_1samp(values.mean(axis=1), 0).confidence_interval()
    assert found[1:] == pytest.approx(tuple(theirs))


def test_groups_that_agree_leave_welchs_interval(rng):
    """Welch 1947: two samples of models with variances of their own; here all groups say the same."""
    first, second = rng.random(3), 4 * rng.random(5)
    tables = [
        GroupMeans(np.repeat(side[:, None], 4, axis=1), np.array([1, 2, 3, 9])) for side in (first, second)
    ]
    theirs = ttest_ind(first, second, equal_var=False).confidence_interval()
    assert mean_difference(*tables)[1:] == pytest.approx(tuple(theirs))


def test_both_variances_add_up_and_satterthwaite_counts_their_freedom(rng):
    """Satterthwaite 1946, eq. 17, computed by hand from a table."""
    a, b = rng.random((3, 8)), rng.random((2, 8))
    sizes = np.full(8, 5)
    parts = [((a.mean(0) - b.mean(0)).var(ddof=1) / 8, 7)]
    parts += [(side.mean(1).var(ddof=1) / len(side), len(side) - 1) for side in (a, b)]
    variance = sum(v for v, _ in parts)
    freedom = variance**2 / sum(v**2 / f for v, f in parts)
    found = mean_difference(GroupMeans(a, sizes), GroupMeans(b, sizes), confidence=0.9, comparisons=4)
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.high - found.value == pytest.approx(t.ppf(1 - 0.1 / 8, freedom) * np.sqrt(variance))
    other = mean_difference(GroupMeans(b, sizes), GroupMeans(a, sizes), confidence=0.9, comparisons=4)
    assert other == pytest.approx((-found.value, -found.high, -found.low))


def test_many_classes_agree_with_the_bootstrap_of_classes(rng):
    a, b = experiment(rng, methods=2, models=1, groups=150, per_group=6)[:, 0].astype(float)
    groups = np.repeat(np.arange(150), 6)
    tables = [GroupMeans.of(side, groups) for side in (a, b)]
    drawn = paired_bootstrap_difference(a, b, groups=groups, n_resamples=10_000)
    assert mean_difference(*tables) == pytest.approx(drawn, abs=0.05 * drawn.width)
    drawn = bootstrap_interval(a, groups=groups, n_resamples=10_000)
    assert mean_interval(tables[0]) == pytest.approx(drawn, abs=0.05 * drawn.width)


def test_queries_of_one_class_tell_less_than_as_many_strangers(rng):
    """The design effect, Kish 1965: 1 + (m - 1) times the correlation inside a class; here copies, so m."""
    values = np.repeat(rng.random(400), 25)
    by_query = bootstrap_interval(values)
    by_class = bootstrap_interval(values, groups=np.repeat(np.arange(400), 25))
    assert by_class.width == pytest.approx(np.sqrt(25) * by_query.width, rel=0.1)
    assert by_class.width == pytest.approx(bootstrap_interval(values[::25]).width, rel=0.1)


def test_comparisons_share_the_risk(rng):
    tables = {name: GroupMeans.of(rng.random((3, 40)), np.arange(40) // 4) for name in "abcde"}
    first = tables.pop("a")
    together = simultaneous_differences(first, tables, confidence=0.9)
    assert list(together) == list("bcde")
    for name, found in together.items():
        assert found == mean_difference(first, tables[name], confidence=1 - 0.1 / 4)
        alone = mean_difference(first, tables[name], confidence=0.9)
        assert found.low < alone.low < found.value == alone.value < alone.high < found.high
    assert simultaneous_differences(first, {"b": tables["b"]})["b"] == mean_difference(first, tables["b"])


@pytest.mark.parametrize("value", [0.1, 0.7, 1 / 3, 1e200, 1e-200, -2.5])
@pytest.mark.parametrize("models", [1, 2, 3, 7])
def test_equal_values_give_no_width_and_no_difference(value, models):
    """Also where means are rounded: a value lay below its own low end, and 3 x 0.1 / 3 is not 0.1."""
    groups = np.array([0, 0, 0, 1, 1, 2, 2])
    table = GroupMeans.of(np.full((models, 7), value), groups)
    found = mean_interval(table)
    assert found.low == found.value == found.high == pytest.approx(value)
    assert mean_difference(table, GroupMeans.of(np.full(7, value), groups)) == (0, 0, 0)
    for drawn in (
        bootstrap_interval(np.full(7, value)),
        bootstrap_interval(np.full(7, value), groups=groups),
        query_draw_interval(np.full(7, value), groups, n_draws=50),
    ):
        assert drawn == (value, value, value)


def test_the_order_of_models_and_the_unit_do_not_matter(rng):
    values, groups = rng.random((3, 30)), np.arange(30) // 5
    table = GroupMeans.of(values, groups)
    other = GroupMeans.of(values[[2, 0, 1]], groups)
    assert mean_difference(table, other).value == 0
    found = mean_interval(table)
    for unit in (1e200, 1e-200):
        scaled = mean_interval(GroupMeans.of(unit * values, groups))
        assert np.array(scaled) / unit == pytest.approx(np.array(found))


def test_the_value_lies_inside(rng):
    for _ in range(200):
        models, n = rng.integers(1, 4), rng.integers(4, 30)
        values = rng.choice([0.1, 0.2, 0.3, 0.7], (models, n), p=[0.85, 0.05, 0.05, 0.05])
        groups = rng.permutation(np.arange(n) % rng.integers(2, 4))
        table = GroupMeans.of(values, groups)
        found = [mean_interval(table), mean_difference(table, GroupMeans.of(values[:, ::-1], groups))]
        found += [
            bootstrap_interval(values[0], c, 5, groups=g) for g in (None, groups) for c in (0.01, 0.95, 1)
        ]
        assert all(one.low <= one.value <= one.high for one in found)


def coverage(runs: int, models: int, groups: int, of_seed: float | np.ndarray = 0.1) -> tuple[float, float]:
    """How often 95 % intervals hold the truth: 1/2 for a mean, 0 for a difference of two equal methods."""
    rng = np.random.default_rng([models, groups])
    labels = np.repeat(np.arange(groups), 20)
    held = np.zeros(2)
    for _ in range(runs):
        a, b = (GroupMeans.of(hits, labels) for hits in experiment(rng, 2, models, groups, 20, of_seed))
        mean, difference = mean_interval(a), mean_difference(a, b)
        held += [mean.low <= 0.5 <= mean.high, difference.low <= 0 <= difference.high]
    return tuple(held / runs)


@pytest.mark.parametrize("models", [2, 3])
def test_intervals_cover_new_classes_and_new_models(models):
    assert min(coverage(400, models, groups=20)) > 0.92  # 0.93 to 0.98; a standard error is 0.01


@pytest.mark.slow
@pytest.mark.parametrize("groups", [10, 20, 100])
@pytest.mark.parametrize("models", [2, 3, 5])
@pytest.mark.parametrize("of_seed", [0.0, 0.05, 0.1, np.array([0.03, 0.1])], ids=str)
def test_intervals_cover_in_all_cases_of_the_book(models, groups, of_seed):
    runs = 2000 if groups < 100 else 700
    for found in coverage(runs, models, groups, of_seed):
        assert found > 0.93 - 2.5 * np.sqrt(0.95 * 0.05 / runs)
        assert found < 0.995


def test_one_model_covers_other_classes_but_not_another_training():
    """If trainings do not differ, one model is as good as many; if they do, it covers too little."""
    assert min(coverage(400, 1, groups=20, of_seed=0.0)) > 0.92
    assert coverage(400, 1, groups=20, of_seed=0.2)[1] < 0.8


def by_query(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """What drawing queries and models again comes to: queries as strangers, three models as all there are."""
    difference = a.mean(axis=0) - b.mean(axis=0)
    variance = difference.var() / len(difference)
    variance += sum(side.mean(axis=1).var() / len(side) for side in (a, b))
    reach = 1.96 * np.sqrt(variance)
    return difference.mean() - reach, difference.mean() + reach


def wins_and_losses(first: GroupMeans, rivals: list[GroupMeans]) -> tuple[bool, bool]:
    """Whether the first beats every rival, and whether some rival beats it.

    "Every" needs no correction (Berger 1982): the rival that is really better passes with 2.5 % at most.
    """
    found = simultaneous_differences(first, {str(i): rival for i, rival in enumerate(rivals)}).values()
    every = all(mean_difference(first, rival).low > 0 for rival in rivals)
    assert every or not all(one.low > 0 for one in found)
    return every, any(one.high < 0 for one in found)


def false_verdicts(runs: int, groups: int, of_seed: float | np.ndarray) -> tuple[float, float]:
    """How often "the first of ten is the best" is decided of ten equal methods with three models each.

    Against the best rival, chosen after seeing, query by query; and against all rivals at once, by class.
    """
    rng = np.random.default_rng(groups)
    labels = np.repeat(np.arange(groups), 20)
    naive = simultaneous = 0
    for _ in range(runs):
        hits = experiment(rng, 10, 3, groups, 20, of_seed)
        best = 1 + int(hits[1:].mean(axis=(1, 2)).argmax())
        low, high = by_query(hits[0], hits[best])
        naive += low > 0 or high < 0
        first, *rivals = (GroupMeans.of(of_method, labels) for of_method in hits)
        simultaneous += any(wins_and_losses(first, rivals))
    return naive / runs, simultaneous / runs


def test_best_of_ten_equal_methods_is_rarely_decided():
    """At most 5 % of runs; the best rival, chosen after seeing the same data, "wins" in more than 10 %."""
    naive, simultaneous = false_verdicts(300, 20, of_seed=0.1)
    assert naive > 0.15  # 0.25 in the long run
    assert simultaneous <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("groups", [10, 20, 100])
@pytest.mark.parametrize(
    "of_seed", [0.0, 0.05, 0.1, np.linspace(0.02, 0.15, 10)], ids=["0", "0.05", "0.1", "unequal"]
)
def test_false_verdicts_in_all_cases_of_the_book(groups, of_seed):
    naive, simultaneous = false_verdicts(800 if groups < 100 else 300, groups, of_seed)
    assert naive > 0.1
    assert simultaneous <= 0.05


def test_a_clear_lead_is_still_seen(rng):
    """Caution is not blindness: 0.75 against nine times 0.5 is a win, and for each of the nine a loss."""
    labels = np.repeat(np.arange(20), 20)
    seen = np.zeros(2)
    for _ in range(50):
        first, *rivals = experiment(rng, 10)
        better = GroupMeans.of(first | (rng.random(first.shape) < 0.5), labels)
        others = [GroupMeans.of(rival, labels) for rival in rivals]
        seen += wins_and_losses(better, others)[0], wins_and_losses(others[0], [better, *others[1:]])[1]
    assert (seen > 40).all()


TABLE = GroupMeans.of([[0.1, 0.2, 0.3], [0.2, 0.3, 0.4]], [0, 1, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: mean_interval(GroupMeans.of([0.1, 0.2], ["a", "a"])),
            "groups must be at least two, got one",
        ),
        (lambda: bootstrap_interval([0.1, 0.2], groups=["a", "a"]), "groups must be at least two, got one"),
        (lambda: bootstrap_interval([0.1, 0.2], groups=["a"]), "groups must hold one label per value"),
        (lambda: GroupMeans.of([0.1, 0.2], ["a"]), "groups must hold one label per value"),
        (lambda: GroupMeans.of([], []), "values must hold a row"),
        (lambda: GroupMeans.of(np.ones((2, 2, 2)), [0, 1]), "values must hold a row"),
        (lambda: GroupMeans.of([[0.1, float("nan")]], [0, 1]), r"finite, got nan in \[0, 1\]"),
        (lambda: GroupMeans(np.ones((2, 3)), np.ones(2)), "values must hold a row"),
        (lambda: GroupMeans(np.ones((2, 2)), np.array([3, 0])), "sizes must be at least 1, got 0"),
        (lambda: mean_interval(TABLE, confidence=1), "confidence must be below 1"),
        (lambda: mean_interval(TABLE, confidence=0), "confidence must be"),
        (lambda: mean_interval(TABLE, comparisons=0), "comparisons must be"),
        (lambda: mean_difference(TABLE, GroupMeans.of([1, 2, 3], [0, 0, 1])), "same queries"),
        (lambda: simultaneous_differences(TABLE, {}), "rivals must hold at least one"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

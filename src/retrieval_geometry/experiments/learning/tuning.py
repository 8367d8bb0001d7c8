"""The choice of one hyper-parameter of each loss, on validation classes."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.experiments.learning.data import VALIDATION, LearningSetting, learning_setting
from retrieval_geometry.experiments.learning.methods import METHODS, LearningMethod
from retrieval_geometry.experiments.learning.run import (
    LearningRun,
    checkpoints_of,
    learning_result,
    measure,
    run_name,
    run_once,
    summarize,
    total_seconds,
    train_one,
)
from retrieval_geometry.reporting.details import Tuned
from retrieval_geometry.reporting.results import Result

TUNED_BY = "AP@R"


def run_tuning(context: RunContext) -> Result:
    """Choose one hyper-parameter of each loss by AP@R on validation classes, one model for each value.

    The validation classes are those of the setting, or a quarter of the training classes. Where the setting
    tries several learning rates, the best value is tried with each of them.
    """
    setting = learning_setting(context)
    started = time.perf_counter()
    tuning = tune(setting, context.seed)
    validation = setting.for_validation()
    entries = [
        summarize(
            name,
            METHODS[name].label,
            [tuning.best(name)],
            [f"{METHODS[name].tuned} = {value:g}"],
        )
        for name, value in tuning.chosen.items()
    ]
    if setting.validation is None:
        rule = f"best {TUNED_BY} of {1 - VALIDATION:.0%} of the classes"
    else:
        rule = f"best {TUNED_BY} of the validation classes"
    details = Tuned(tuning.scores, tuning.chosen, rule, tuning.rate_scores, tuning.rates)
    return learning_result(
        "learning-tuning", context, validation, entries, details, total_seconds(started, tuning.all_runs)
    )


def tuning_parts(context: RunContext) -> list[Callable[[], object]]:
    """The models of each method of :func:`run_tuning`, as a call that trains and keeps them."""
    setting = learning_setting(context)
    return [partial(tune, setting, context.seed, [method]) for method in METHODS.values()]


class Tuning(NamedTuple):
    """Models of each value of each method's hyper-parameter, and of the best value at each rate."""

    runs: dict[str, dict[float, LearningRun]]
    at_rates: dict[str, dict[float, LearningRun]]

    @property
    def chosen(self) -> dict[str, float]:
        """The best value of each method."""
        return {name: _best(runs) for name, runs in self.runs.items()}

    @property
    def rates(self) -> dict[str, float]:
        """The best learning rate of each method; none where one rate was tried."""
        return {name: _best(runs) for name, runs in self.at_rates.items() if len(runs) > 1}

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Scores of each value."""
        return {name: _scores(runs) for name, runs in self.runs.items()}

    @property
    def rate_scores(self) -> dict[str, dict[str, float]]:
        """Scores of each learning rate, where several were tried."""
        return {name: _scores(runs) for name, runs in self.at_rates.items() if len(runs) > 1}

    @property
    def all_runs(self) -> list[list[LearningRun]]:
        """Every model once."""
        at_others = [list(runs.values())[1:] for runs in self.at_rates.values()]
        return [*(list(runs.values()) for runs in self.runs.values()), *at_others]

    def best(self, name: str) -> LearningRun:
        """The best model of a method."""
        return self.at_rates[name][_best(self.at_rates[name])]


def _best(runs: Mapping[float, LearningRun]) -> float:
    """The value with the best score; the first of those that are equal to nine decimals."""
    # Another processor may differ in the tenth digit, and must not choose another value.
    return max(runs, key=lambda value: round(runs[value].mean(TUNED_BY), 9))


def _beyond(candidates: Sequence[float], runs: Mapping[float, LearningRun]) -> float | None:
    """The candidate beside the best one that was not tried, if the best is at the edge of those that were."""
    place = candidates.index(_best(runs))
    neighbours = candidates[max(place - 1, 0) : place + 2]
    return next((value for value in neighbours if value not in runs), None)


def continued(candidates: Sequence[float], further: int) -> list[float]:
    """Candidates in ascending order with ``further`` values at either end, each in the ratio of the last two.

    To three digits; whole numbers stay whole, and at least 1.

    >>> continued((0.05, 0.1, 0.2), 2)
    [0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8]
    >>> continued((1, 2, 5), 1)
    [1, 2, 5, 12]
    """
    whole = all(isinstance(value, int) for value in candidates)
    found = list(candidates)
    for _ in range(further):
        for place, edge, neighbour in ((0, found[0], found[1]), (len(found), found[-1], found[-2])):
            value = float(f"{edge * edge / neighbour:.3g}")
            found.insert(place + (place > 0), max(1, round(value)) if whole else value)
    return sorted(set(found))


def _scores(runs: Mapping[float, LearningRun]) -> dict[str, float]:
    return {f"{value:g}": round(run.mean(TUNED_BY), 5) for value, run in runs.items()}


def tune(setting: LearningSetting, seed: int, methods: Sequence[LearningMethod] = ()) -> Tuning:
    """Train one model for each candidate of each method (all by default), and ask the validation classes."""
    validation = setting.for_validation()
    found = Tuning({}, {})
    for method in methods or METHODS.values():
        runs = {
            value: _validated(method, value, validation, seed)
            for value in (method.candidates[i] for i in setting.tried)
        }
        candidates = continued(method.candidates, setting.further)
        # A value at the edge of those tried may be no best one: the one beyond it is tried as well.
        while beyond := _beyond(candidates, runs):
            runs[beyond] = _validated(method, beyond, validation, seed)
        best = _best(runs)
        others = {rate: _validated(method, best, validation.at_rate(rate), seed) for rate in setting.rates}
        found.runs[method.name] = runs
        found.at_rates[method.name] = {validation.config.lr: runs[best], **others}
    return found


def _validated(method: LearningMethod, value: float, setting: LearningSetting, seed: int) -> LearningRun:
    return run_once(
        run_name(method, value, seed),
        lambda: measure(train_one(method, value, setting, seed), setting, clustering=False),
        checkpoints_of(setting),
        "tuning",
    )

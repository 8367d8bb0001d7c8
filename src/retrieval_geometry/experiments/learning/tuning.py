"""The choice of one hyper-parameter of each loss, on validation classes."""

import time
from typing import NamedTuple

from retrieval_geometry.experiments.checkpoints import Checkpoints
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
    """Choose one hyper-parameter of each loss: five values, one model each, by AP@R on validation classes.

    The validation classes are a quarter of the training classes; the models see the other three quarters.
    """
    setting = learning_setting(context)
    started = time.perf_counter()
    tuning = tune(setting, context.seed)
    validation = setting.for_validation()
    entries = [
        summarize(
            name,
            METHODS[name].label,
            [tuning.runs[name][value]],
            validation.groups,
            [f"{METHODS[name].tuned} = {value:g}"],
        )
        for name, value in tuning.chosen.items()
    ]
    rule = f"best {TUNED_BY} of {1 - VALIDATION:.0%} of the classes"
    details = Tuned(tuning.scores, tuning.chosen, rule)
    seconds = total_seconds(started, [list(runs.values()) for runs in tuning.runs.values()])
    return learning_result("learning-tuning", context, validation, entries, details, seconds)


class Tuning(NamedTuple):
    """Scores of each value of each method's hyper-parameter."""

    runs: dict[str, dict[float, LearningRun]]

    @property
    def chosen(self) -> dict[str, float]:
        """The best value of each method; the first of those that are equal to nine decimals."""
        return {
            # Another processor may differ in the tenth digit, and must not choose another value.
            name: max(runs, key=lambda value: round(runs[value].mean(TUNED_BY), 9))
            for name, runs in self.runs.items()
        }

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Scores of each value."""
        return {
            name: {f"{value:g}": round(run.mean(TUNED_BY), 5) for value, run in runs.items()}
            for name, runs in self.runs.items()
        }


def tune(setting: LearningSetting, seed: int) -> Tuning:
    """Train one model for each candidate, on three quarters of the training classes; ask the last quarter."""
    validation = setting.for_validation()
    checkpoints = checkpoints_of(validation)
    return Tuning(
        {
            name: {
                value: _validated(method, value, validation, seed, checkpoints) for value in method.candidates
            }
            for name, method in METHODS.items()
        }
    )


def _validated(
    method: LearningMethod, value: float, setting: LearningSetting, seed: int, checkpoints: Checkpoints
) -> LearningRun:
    return run_once(
        run_name(method, value, seed),
        lambda: measure(train_one(method, value, setting, seed), setting, clustering=False),
        checkpoints,
        "tuning",
    )

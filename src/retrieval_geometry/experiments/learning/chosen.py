"""The hyper-parameters that the recorded tunings chose: whoever imports this depends on those results."""

from dataclasses import replace

from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.experiments.learning.data import LearningSetting, learning_setting
from retrieval_geometry.experiments.learning.methods import METHODS
from retrieval_geometry.reporting.details import Tuned
from retrieval_geometry.reporting.results import NoResultError, Result, load_recorded

QUICK_SEEDS = 2


def closer_look(name: str, context: RunContext) -> LearningSetting:
    """The setting of the comparison for a closer look at one method: at the learning rate chosen for it.

    In ``quick`` with two models of each variant.
    """
    setting = learning_setting(context).at_rate(chosen_rates(context.profile).get(name))
    return replace(setting, seeds=QUICK_SEEDS) if context.profile == "quick" else setting


def chosen_values(profile: str = "quick") -> dict[str, float]:
    """The values that the recorded tuning chose; the middle candidates where none is recorded.

    That of ``real`` was chosen on validation classes of Omniglot, that of every other profile on glyphs.
    """
    tuning = _recorded(profile)
    chosen = tuning.told(Tuned).chosen if tuning else {}
    return {name: float(chosen.get(name, method.candidates[2])) for name, method in METHODS.items()}


def chosen_rates(profile: str = "quick") -> dict[str, float]:
    """The learning rates that the recorded tuning chose; empty where it tried one for all."""
    tuning = _recorded(profile)
    return dict(tuning.told(Tuned).rates) if tuning else {}


def _recorded(profile: str) -> Result | None:
    try:
        return load_recorded("learning-tuning", "real" if profile == "real" else "quick")
    except NoResultError:  # before the first tuning is recorded: somewhere to begin
        return None

"""The hyper-parameters that the recorded tuning chose: whoever imports this depends on that result."""

from retrieval_geometry.experiments.learning.methods import METHODS
from retrieval_geometry.reporting.details import Tuned
from retrieval_geometry.reporting.results import NoResultError, load_recorded


def chosen_values() -> dict[str, float]:
    """The values that the recorded tuning on glyphs chose; the middle candidates where none is recorded."""
    try:
        chosen = load_recorded("learning-tuning", "quick").told(Tuned).chosen
    # Before the first tuning is recorded: somewhere to begin.
    except NoResultError:
        chosen = {}
    return {name: float(chosen.get(name, method.candidates[2])) for name, method in METHODS.items()}

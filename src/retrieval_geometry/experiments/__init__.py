"""How experiments are run, whatever the paper: by name, with settings, and no more often than needed."""

from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.experiments.profiles import PROFILES, check_profile
from retrieval_geometry.experiments.registry import (
    Experiment,
    Paper,
    experiments,
    find,
    load_or_run,
    papers,
    why_stale,
)
from retrieval_geometry.experiments.scorecard import claims

__all__ = [
    "PROFILES",
    "Experiment",
    "Paper",
    "RunContext",
    "check_profile",
    "claims",
    "experiments",
    "find",
    "load_or_run",
    "papers",
    "why_stale",
]

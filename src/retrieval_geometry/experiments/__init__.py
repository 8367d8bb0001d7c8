"""What is run for each paper, with which data and settings."""

from retrieval_geometry.experiments.all_claims import PAPERS, claims
from retrieval_geometry.experiments.profiles import PROFILES, check_profile
from retrieval_geometry.experiments.registry import EXPERIMENTS, Experiment, find, load_or_run, why_stale

__all__ = [
    "EXPERIMENTS",
    "PAPERS",
    "PROFILES",
    "Experiment",
    "check_profile",
    "claims",
    "find",
    "load_or_run",
    "why_stale",
]

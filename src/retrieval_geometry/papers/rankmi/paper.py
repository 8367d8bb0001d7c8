"""What [rankmi] is called, and which experiments it has."""

from retrieval_geometry.experiments.registry import Experiment, Paper

PAPER = Paper(
    "rankmi",
    "RankMI: A Mutual Information Maximizing Ranking Loss",
    chapter=13,
    package=__package__,
    experiments=(
        Experiment(
            "rankmi-ablations",
            f"{__package__}.experiments:run_ablations",
            "RankMI with one choice changed at a time",
            needs=("learning-bench",),
            trains=True,
        ),
        Experiment(
            "rankmi-distances",
            f"{__package__}.experiments:run_distances",
            "distances of pairs before and after RankMI",
            needs=("learning-bench",),
            trains=True,
        ),
    ),
)

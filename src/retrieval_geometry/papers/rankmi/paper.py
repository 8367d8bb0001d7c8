"""Title and experiments of [rankmi]."""

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
            parts=f"{__package__}.experiments:ablation_parts",
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

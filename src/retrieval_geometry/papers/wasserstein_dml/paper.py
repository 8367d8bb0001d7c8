"""Title and experiments of [wasserstein-dml]."""

from retrieval_geometry.experiments.registry import Experiment, Paper

PAPER = Paper(
    "wasserstein-dml",
    "An Optimal Transport Approach to Deep Metric Learning",
    chapter=11,
    package=__package__,
    experiments=(
        Experiment(
            "wasserstein-ablations",
            f"{__package__}.experiments:run_ablations",
            "W-triplet with one choice changed at a time",
            needs=("learning-bench",),
            parts=f"{__package__}.experiments:ablation_parts",
            trains=True,
        ),
        Experiment(
            "wasserstein-coresets",
            f"{__package__}.experiments:run_coresets",
            "W-triplet on subsets, for a share of the steps",
            needs=("learning-bench",),
            parts=f"{__package__}.experiments:coreset_parts",
            trains=True,
        ),
    ),
)

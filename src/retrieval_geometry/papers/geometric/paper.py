"""Title and experiments of [geometric]."""

from retrieval_geometry.experiments.registry import Experiment, Paper

PAPER = Paper(
    "geometric",
    "Differential Geometric Retrieval of Deep Features",
    chapter=2,
    package=__package__,
    experiments=(
        Experiment(
            "geometric-table1",
            f"{__package__}.experiments:run_table1",
            "Table 1 and Figures 1 and 2: seven methods and the controls",
            needs=(
                "geometric-robustness",
            ),  # which leaves the descriptors: its parts would each compute them
            parts=f"{__package__}.experiments:table1_parts",
        ),
        Experiment(
            "geometric-rectified",
            f"{__package__}.experiments:run_rectified",
            "Table 1 behind the last ReLU (real and paper only)",
        ),
        *(
            Experiment(
                f"geometric-{network}",
                f"{__package__}.networks:run_{network}",
                "Table 1 on a bottleneck of another network, every image asked (real only)",
            )
            for network in ("squeezenet", "efficientnet", "mobilenet")
        ),
        Experiment(
            "geometric-layers",
            f"{__package__}.layers:run_layers",
            "descriptors of several layers, the paper's future work",
        ),
        # No parts: forty seconds, of which two processes would each spend fifteen on descriptors.
        Experiment(
            "geometric-robustness",
            f"{__package__}.robustness:run_robustness",
            "how much each distance varies for one image",
        ),
    ),
)

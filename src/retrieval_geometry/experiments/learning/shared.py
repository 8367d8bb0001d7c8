"""The experiments of metric learning that belong to several papers."""

from retrieval_geometry.experiments.registry import Experiment

EXPERIMENTS = (
    Experiment(
        "learning-tuning",
        f"{__package__}.tuning:run_tuning",
        "one hyper-parameter of each loss, on validation classes",
        parts=f"{__package__}.tuning:tuning_parts",
        trains=True,
    ),
    Experiment(
        "learning-bench",
        f"{__package__}.bench:run_bench",
        "losses of metric learning under one budget",
        parts=f"{__package__}.bench:bench_parts",
        trains=True,
    ),
    Experiment(
        "learning-products",
        f"{__package__}.bench:run_products",
        "the same on photographs of products (real only)",
        trains=True,
    ),
    Experiment(
        "learning-finetuned",
        f"{__package__}.bench:run_finetuned",
        "the last stages of a network trained on photographs of products (real only)",
        parts=f"{__package__}.bench:finetuned_parts",
        trains=True,
    ),
    Experiment(
        "learning-photographs",
        f"{__package__}.bench:run_photographs",
        "the same on Tiny ImageNet (real only)",
        trains=True,
    ),
)

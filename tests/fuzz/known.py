"""Faults that are known and still to be mended, as patterns of "public name | argument | kind"."""

from fnmatch import fnmatchcase

KNOWN = [
    # No tensors at all, and sparse parts.
    "image_models.Gaussian* | * | *",
    "image_models.fit_gaussian | shrinkage | *",
    "* | * | *: sparse",
    # Labels and lists of another kind.
    "* | *labels | *",
    "* | labels | *",
    "coresets.wcraig | x | *",
    "coresets.training_subset | * | *",
    "evaluation.* | n_relevant | *",
    "evaluation.* | exclude_self | *",
    "training.train | weights | *",
    # Data sets, paths and names.
    "datasets.* | * | *",
    "features.convert_vgg_m | path | *",
    "features.load_* | * | *",
    "features.l2_normalize | * | *",
    "features.*.standardize_head | images | *",
    "features.extract_descriptors | cache | *",
    "training.TrainingConfig | * | *",
    "experiments.* | * | *",
    # Records of results: they say themselves that a file is none, field by field.
    "reporting.* | * | *",
    # Files.
    "result | file | damaged",
    "*list | file | damaged",
]


def is_known(name: str, argument: str, kind: str) -> bool:
    """Whether the fault stands in the list."""
    return any(fnmatchcase(f"{name} | {argument} | {kind}", pattern) for pattern in KNOWN)

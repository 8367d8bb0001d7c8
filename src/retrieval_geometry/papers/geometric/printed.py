"""What [geometric] printed: Table 1. Its "MAP" at k is read as precision at k, as in its Figure 1."""

TABLE1: dict[str, dict[str, float]] = {
    "gmm-normal-kl": {"P@1": 0.53, "P@5": 0.46, "P@10": 0.42, "seconds": 0.375},
    "gmm-variational-kl": {"P@1": 0.45, "P@5": 0.42, "P@10": 0.38, "seconds": 0.016},
    "gmm-wasserstein": {"P@1": 0.62, "P@5": 0.52, "P@10": 0.46, "seconds": 5.147},
    "smt-riemannian": {"P@1": 0.50, "P@5": 0.44, "P@10": 0.39, "seconds": 0.754},
    "smt-normal-kl": {"P@1": 0.53, "P@5": 0.44, "P@10": 0.39, "seconds": 0.125},
    "smt-wasserstein": {"P@1": 0.59, "P@5": 0.51, "P@10": 0.46, "seconds": 9.04},
    "sift-bow-euclidean": {"P@1": 0.43, "P@5": 0.37, "P@10": 0.32, "seconds": 0.0007},
}

QUERIES = 94
"""Two of each of 47 classes."""

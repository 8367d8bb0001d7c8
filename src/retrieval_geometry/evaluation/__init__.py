"""Metrics of retrieval and clustering, and the intervals around them."""

from retrieval_geometry.evaluation.clustering import normalized_mutual_information, pairwise_f1
from retrieval_geometry.evaluation.embeddings import Measure, evaluate_embeddings
from retrieval_geometry.evaluation.ensembles import ensemble_weights
from retrieval_geometry.evaluation.groups import (
    GroupMeans,
    mean_difference,
    mean_interval,
    simultaneous_differences,
)
from retrieval_geometry.evaluation.intervals import (
    Interval,
    bootstrap_interval,
    paired_bootstrap_difference,
    query_draw_interval,
    seed_interval,
)
from retrieval_geometry.evaluation.neighbours import nearest_neighbours
from retrieval_geometry.evaluation.retrieval import (
    CONVENTIONS,
    average_precision,
    mean_average_precision,
    precision_at_k,
    recall_at_k,
)

__all__ = [
    "CONVENTIONS",
    "GroupMeans",
    "Interval",
    "Measure",
    "average_precision",
    "bootstrap_interval",
    "ensemble_weights",
    "evaluate_embeddings",
    "mean_average_precision",
    "mean_difference",
    "mean_interval",
    "nearest_neighbours",
    "normalized_mutual_information",
    "paired_bootstrap_difference",
    "pairwise_f1",
    "precision_at_k",
    "query_draw_interval",
    "recall_at_k",
    "seed_interval",
    "simultaneous_differences",
]

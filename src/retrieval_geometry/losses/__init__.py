"""Losses for embeddings: each is called with ``(embeddings, labels)`` and gives a scalar."""

from retrieval_geometry.losses.baselines import BASELINES, Baseline, BaselineLoss, baseline_loss
from retrieval_geometry.losses.rankmi import RankMILoss
from retrieval_geometry.losses.sampling import RowDistanceWeightedMiner
from retrieval_geometry.losses.statistics_network import (
    DivergenceEstimate,
    StatisticsNetwork,
    estimate_divergence,
)
from retrieval_geometry.losses.wasserstein import (
    SinkhornDistance,
    WassersteinContrastiveLoss,
    WassersteinTripletLoss,
)

__all__ = [
    "BASELINES",
    "Baseline",
    "BaselineLoss",
    "DivergenceEstimate",
    "RankMILoss",
    "RowDistanceWeightedMiner",
    "SinkhornDistance",
    "StatisticsNetwork",
    "WassersteinContrastiveLoss",
    "WassersteinTripletLoss",
    "baseline_loss",
    "estimate_divergence",
]

"""Losses for embeddings: each is called with ``(embeddings, labels)`` and gives a scalar."""

from retrieval_geometry.losses.baselines import BASELINES, Baseline, BaselineLoss, baseline_loss
from retrieval_geometry.losses.manifold import (
    ManifoldProxyLoss,
    authors_manifold_loss,
    manifold_npair_loss,
    manifold_proxy_loss,
    random_walk_similarity,
)
from retrieval_geometry.losses.proxies import (
    ProxyNPairLoss,
    hard_proxies,
    hard_proxy_path,
    npair_margin_loss,
    proxy_npair_loss,
    random_meta_classes,
    random_proxies,
)
from retrieval_geometry.losses.rankmi import RankMILoss
from retrieval_geometry.losses.renewed import RenewedProxies
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
    "ManifoldProxyLoss",
    "ProxyNPairLoss",
    "RankMILoss",
    "RenewedProxies",
    "RowDistanceWeightedMiner",
    "SinkhornDistance",
    "StatisticsNetwork",
    "WassersteinContrastiveLoss",
    "WassersteinTripletLoss",
    "authors_manifold_loss",
    "baseline_loss",
    "estimate_divergence",
    "hard_proxies",
    "hard_proxy_path",
    "manifold_npair_loss",
    "manifold_proxy_loss",
    "npair_margin_loss",
    "proxy_npair_loss",
    "random_meta_classes",
    "random_proxies",
    "random_walk_similarity",
]

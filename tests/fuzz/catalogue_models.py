"""Image models, distances, losses and coresets."""

from __future__ import annotations

from typing import Any

import torch

from retrieval_geometry import coresets, distances, image_models, losses
from retrieval_geometry.distances import DISTANCES, GalleryIndex
from retrieval_geometry.image_models import Gaussian, GaussianMixture, Rotations
from retrieval_geometry.losses import BASELINES

from .law import Entry
from .makers import (
    DIM,
    N_IMAGES,
    N_POINTS,
    always,
    gaussians,
    generator,
    labels,
    masses,
    mixtures,
    normal,
    one_of,
)

POINTS = {"x": normal(N_IMAGES, N_POINTS, DIM), "y": normal(N_IMAGES, N_POINTS + 1, DIM, other=1)}
MEASURES = {
    **POINTS,
    "a": masses(N_POINTS),
    "b": masses(N_POINTS + 1),
    "p": one_of(1, 2),
    "epsilon": always(0.1),
    "debias": one_of(True, False),
}
DESCRIPTORS = normal(N_IMAGES, 12, DIM)
GAUSSIAN_PAIR = {"p": gaussians(), "q": gaussians(1)}
MIXTURE_PAIR = {"p": mixtures(), "q": mixtures(10)}
ON_MIXTURES = {
    "variational_kl",
    "symmetric_variational_kl",
    "mixture_wasserstein2_squared",
}
BATCH = {"embeddings": normal(9, 4), "labels": labels(9)}
LOCAL = {"embeddings": normal(6, 5, 4), "labels": labels(6)}
TRANSPORT = {
    "margin": always(0.5),
    "p": one_of(1, 2),
    "epsilon": always(0.1),
    "measure": one_of("features", "atoms"),
    "atoms": always(2),
    "debias": one_of(True, False),
    "exact": one_of(False, True),
}


def transport_loss(kind: Any) -> Any:
    """A loss made with drawn settings and called on drawn local features."""
    return lambda embeddings, labels, **settings: kind(**settings)(embeddings, labels)


def rank_mi(embeddings: Any, labels: Any, **settings: Any) -> Any:
    """The same for RankMI, with both of its steps."""
    loss = losses.RankMILoss(**settings)
    loss.inner_step(embeddings, labels)
    return loss(embeddings, labels)


def baseline(embeddings: Any, labels: Any, **settings: Any) -> Any:
    """The same for a baseline."""
    return losses.baseline_loss(**settings)(embeddings, labels)


def units(n: int, other: int = 0) -> Any:
    """Vectors of length one."""
    return lambda seed: torch.nn.functional.normalize(normal(n, 4, other=other)(seed), dim=1)


def renewed(embeddings: Any, labels: Any, proxies: Any, **settings: Any) -> Any:
    """Renew proxies from embeddings, then the loss of these."""
    loss = losses.RenewedProxies(losses.ProxyNPairLoss(proxies), **settings)
    loss.renew(embeddings, labels)
    return loss(embeddings, labels)


def index(g: Gaussian, distance: str = "wasserstein2") -> GalleryIndex:
    """An index of good images."""
    return GalleryIndex(g, distance)


def full_rank(other: int = 0) -> Any:
    """Gaussians that every distance takes."""
    return lambda seed: gaussians(other)(3 * seed + seed % 2)


ENTRIES: dict[str, Entry] = {
    "image_models.Gaussian": Entry(
        Gaussian,
        {
            "mean": normal(N_IMAGES, DIM),
            "cov": lambda seed: gaussians()(3 * seed + seed % 2).cov,
        },
    ),
    "image_models.GaussianMixture": Entry(
        GaussianMixture,
        {
            "weights": lambda seed: mixtures()(seed).weights,
            "means": lambda seed: mixtures()(seed).means,
            "variances": lambda seed: mixtures()(seed).variances,
        },
    ),
    "image_models.fit_gaussian": Entry(
        image_models.fit_gaussian, {"x": DESCRIPTORS, "shrinkage": one_of(0.0, 0.1, [0.1, 0.2, 0.3, 0.4])}
    ),
    "image_models.fit_mixture": Entry(
        image_models.fit_mixture,
        {
            "x": DESCRIPTORS,
            "n_components": always(2),
            "max_iterations": always(5),
            "tolerance": always(1e-3),
            "variance_floor": always(1e-3),
            "memory_bytes": always(2**20),
            "generator": lambda seed: generator(seed),
        },
        unbounded=("max_iterations", "memory_bytes"),
    ),
    "image_models.smt_covariance": Entry(
        image_models.smt_covariance,
        {
            "x": DESCRIPTORS,
            "order": one_of(2, "cv"),
            "shrinkage": one_of(0.1, "cv"),
            "zero_mean": one_of(True, False),
            "variance_floor": always(1e-6),
        },
    ),
    "image_models.fit_smt": Entry(
        image_models.fit_smt,
        {
            "x": DESCRIPTORS,
            "order": one_of(2, "cv"),
            "shrinkage": one_of("cv", 0.1),
            "zero_mean": one_of(True, False),
            "variance_floor": always(1e-6),
            "memory_bytes": always(2**20),
            "generator": lambda seed: generator(seed),
        },
        unbounded=("memory_bytes",),
    ),
    "distances.pairwise": Entry(
        distances.pairwise,
        {
            "name": one_of("kl", "wasserstein2", "stein", "euclidean_mean"),
            "p": full_rank(),
            "q": full_rank(1),
        },
        words=("x", "y"),
    ),
    "distances.rank": Entry(
        distances.rank,
        {
            "queries": full_rank(),
            "database": full_rank(1),
            "distance": one_of(*(name for name in DISTANCES if name not in {*ON_MIXTURES, "sinkhorn"})),
            "k": always(2),
        },
        words=("p", "q", "x", "y"),
    ),
    "distances.GalleryIndex": Entry(
        GalleryIndex,
        {"database": full_rank(), "distance": one_of("wasserstein2", "affine_invariant")},
        words=("p", "q", "images"),
    ),
    "distances.monte_carlo_kl": Entry(
        distances.monte_carlo_kl,
        {
            "p": lambda seed: mixtures()(seed)[:1],
            "q": lambda seed: mixtures(10)(seed)[:1],
            "n_samples": always(50),
            "generator": lambda seed: generator(seed),
        },
        words=("log-density",),
        unbounded=("n_samples",),
    ),
    "distances.covariance_only": Entry(distances.covariance_only, {"g": gaussians()}),
    "distances.mean_only": Entry(distances.mean_only, {"g": gaussians()}),
    "distances.sinkhorn_divergence": Entry(distances.sinkhorn_divergence, MEASURES),
    "distances.pairwise_sinkhorn_divergence": Entry(distances.pairwise_sinkhorn_divergence, MEASURES),
    **{
        f"distances.{name}": Entry(
            getattr(distances, name),
            {"x": normal(N_IMAGES, 5, DIM), "y": normal(N_IMAGES, 5, DIM, other=1), "p": one_of(1, 2)},
        )
        for name in ("exact_transport_cost", "pairwise_exact_transport_cost")
    },
    **{
        f"distances.{name}": Entry(
            getattr(distances, name), MIXTURE_PAIR if name in ON_MIXTURES else GAUSSIAN_PAIR
        )
        for name in (
            "kl_divergence",
            "symmetric_kl",
            "wasserstein2",
            "wasserstein2_squared",
            "affine_invariant_distance",
            "stein_divergence",
            "log_euclidean_distance",
            "euclidean_mean_distance",
            "cosine_mean_distance",
            *ON_MIXTURES,
        )
    },
    "losses.WassersteinTripletLoss": Entry(
        transport_loss(losses.WassersteinTripletLoss), {**LOCAL, **TRANSPORT}, words=("x", "y", "features")
    ),
    "losses.WassersteinContrastiveLoss": Entry(
        transport_loss(losses.WassersteinContrastiveLoss),
        {**LOCAL, **TRANSPORT},
        words=("x", "y", "features"),
    ),
    "losses.SinkhornDistance": Entry(
        lambda query_emb, ref_emb, **settings: losses.SinkhornDistance(**settings)(query_emb, ref_emb),
        {
            "query_emb": normal(4, 5, 4),
            "ref_emb": normal(3, 5, 4, other=1),
            **{name: make for name, make in TRANSPORT.items() if name != "margin"},
        },
        words=("x", "y", "embeddings"),
    ),
    "losses.RankMILoss": Entry(
        rank_mi,
        {
            **BATCH,
            "updates": always(1),
            "margin": always(0.2),
            "sampling": one_of("distance", "all"),
            "monotonicity": one_of(0.0, 1.0),
            "hidden": always(4),
            "depth": always(2),
            "learning_rate": always(1e-3),
            "weight_decay": always(1e-4),
            "seed": always(0),
        },
        unbounded=("updates", "hidden", "depth"),
    ),
    "losses.RowDistanceWeightedMiner": Entry(
        lambda embeddings, labels, **settings: losses.RowDistanceWeightedMiner(**settings)(
            embeddings, labels
        ),
        {**BATCH, "nearest": always(0.5), "farthest": always(1.4), "seed": always(0)},
    ),
    "losses.StatisticsNetwork": Entry(
        lambda distances, hidden, depth: losses.StatisticsNetwork(hidden, depth)(distances),
        {
            "distances": lambda seed: uniform_distances(seed),
            "hidden": always(4),
            "depth": always(2),
        },
        unbounded=("hidden", "depth"),
    ),
    "losses.baseline_loss": Entry(
        baseline,
        {**BATCH, "name": one_of(*BASELINES), "n_classes": always(3), "dim": always(4), "seed": always(0)},
        unbounded=("n_classes", "dim"),
    ),
    "losses.estimate_divergence": Entry(
        losses.estimate_divergence,
        {
            "positive": normal(20),
            "negative": normal(20, other=1),
            "steps": always(3),
            "batch_size": always(5),
            "learning_rate": always(1e-3),
            "seed": always(0),
        },
        unbounded=("steps", "batch_size"),
    ),
    "coresets.facility_location": Entry(
        coresets.facility_location,
        {"similarity": lambda seed: (lambda x: (x @ x.mT).abs())(normal(6, 3)(seed)), "size": always(2)},
    ),
    "coresets.craig": Entry(
        coresets.craig,
        {"distances": lambda seed: (lambda x: torch.cdist(x, x))(normal(6, 3)(seed)), "size": always(2)},
    ),
    "coresets.wcraig": Entry(
        coresets.wcraig,
        {"x": normal(6, 4, 3), "size": always(2), "p": one_of(1, 2), "epsilon": always(0.1)},
        words=("distances",),
    ),
    "coresets.training_subset": Entry(
        coresets.training_subset,
        {
            "features": normal(9, 4, 3),
            "labels": labels(9),
            "share": always(0.5),
            "p": one_of(1, 2),
            "epsilon": always(0.1),
        },
        words=("x",),
    ),
    "coresets.wasserstein_coreset": Entry(
        coresets.wasserstein_coreset,
        {
            "x": normal(8, 3),
            "size": always(2),
            "p": one_of(1, 2),
            "epsilon": always(0.1),
            "masses": masses(8),
            "steps": always(3),
            "step_size": always(0.5),
            "batch_size": one_of(None, 4),
            "generator": lambda seed: generator(seed),
        },
        unbounded=("steps", "batch_size"),
    ),
}

ON_PROXIES = {"x": units(9), "meta_class": labels(9), "proxies": units(3, 1)}
PROXY_BATCH = {**BATCH, "proxies": units(3, 1)}
WALK = {"alpha": always(0.8), "affinity": one_of("clamp", "exp")}
MARGIN = {"margin": always(0.1)}
KIND = {"kind": one_of("contextual", "intrinsic")}
DESCENT = {
    "x": units(9),
    "meta_class": labels(9),
    "initial": units(3, 1),
    "steps": always(3),
    "lr": always(0.1),
}
ENTRIES |= {
    "losses.npair_margin_loss": Entry(
        losses.npair_margin_loss, {"x": units(9), "labels": labels(9), **MARGIN}
    ),
    "losses.proxy_npair_loss": Entry(losses.proxy_npair_loss, {**ON_PROXIES, **MARGIN}),
    "losses.manifold_npair_loss": Entry(
        losses.manifold_npair_loss, {"x": units(9), "labels": labels(9), **MARGIN, **WALK}, words=("points",)
    ),
    "losses.manifold_proxy_loss": Entry(
        losses.manifold_proxy_loss, {**ON_PROXIES, **MARGIN, **WALK, **KIND}, words=("points",)
    ),
    "losses.authors_manifold_loss": Entry(
        losses.authors_manifold_loss,
        {
            **ON_PROXIES,
            **MARGIN,
            "alpha": always(0.8),
            "temperature": always(0.1),
            "context_weight": one_of(0.5, 1.0),
        },
        words=("points",),
    ),
    "losses.ProxyNPairLoss": Entry(
        transport_loss(losses.ProxyNPairLoss), {**PROXY_BATCH, **MARGIN}, words=("meta_class",)
    ),
    "losses.ManifoldProxyLoss": Entry(
        transport_loss(losses.ManifoldProxyLoss),
        {**PROXY_BATCH, **MARGIN, **WALK, **KIND},
        words=("meta_class", "points"),
    ),
    "losses.RenewedProxies": Entry(
        renewed,
        {
            "embeddings": normal(9, 4),
            "labels": lambda seed: torch.arange(9) % 3,
            "proxies": units(3, 1),
            "images": one_of(torch.arange(3), torch.tensor([6, 4, 2])),
            "renew_every": always(5),
            "hard": one_of(True, False),
            "steps": always(3),
            "lr": always(0.1),
        },
        words=("meta_class",),
        unbounded=("steps",),
    ),
    "losses.hard_proxies": Entry(losses.hard_proxies, DESCENT, unbounded=("steps",)),
    "losses.hard_proxy_path": Entry(
        lambda **settings: list(losses.hard_proxy_path(**settings)), DESCENT, unbounded=("steps",)
    ),
    "losses.random_meta_classes": Entry(
        losses.random_meta_classes,
        {
            "labels": labels(9),
            "n_meta": always(2),
            "seed": always(3),
            "dealt": one_of("classes", "images"),
        },
    ),
    "losses.random_proxies": Entry(
        losses.random_proxies,
        {"meta_class": lambda seed: torch.arange(9) % 3, "n_meta": one_of(None, 3), "seed": always(3)},
    ),
    "losses.random_walk_similarity": Entry(
        losses.random_walk_similarity,
        {
            "points": units(9),
            "columns": one_of(None, torch.tensor([0, 4])),
            "temperature": always(0.1),
            **WALK,
        },
    ),
}


def uniform_distances(seed: int) -> torch.Tensor:
    """Distances in float32, as networks take them."""
    return torch.rand(6, generator=generator(seed))


METHODS: dict[str, Entry] = {
    "image_models.GaussianMixture.collapse": Entry(
        lambda itself: itself.collapse(), {"itself": mixtures()}, words=("covariance",)
    ),
    "image_models.GaussianMixture.log_prob": Entry(
        lambda itself, x: itself.log_prob(x),
        {"itself": mixtures(), "x": normal(N_IMAGES, 5, DIM)},
        words=("log-density",),
    ),
    "image_models.Rotations.matrix": Entry(
        lambda dim: Rotations(torch.tensor([[0, 1]]), torch.tensor([0.5]).double()).matrix(dim),
        {"dim": always(3)},
        unbounded=("dim",),
    ),
    "distances.GalleryIndex.rank": Entry(
        lambda queries, k, g: index(g).rank(queries, k),
        {"queries": gaussians(), "k": always(2), "g": gaussians(1)},
        words=("p", "q", "database"),
    ),
    "distances.GalleryIndex.add": Entry(
        lambda images, g: index(g).add(images),
        {"images": gaussians(), "g": gaussians(1)},
        words=("p", "q", "database"),
    ),
    "distances.GalleryIndex.remove": Entry(
        lambda indices: index(full_rank()(0)).remove(indices), {"indices": one_of([1, 2], torch.tensor([0]))}
    ),
}
TRIED_ELSEWHERE = "its own tests refuse wrong arguments; not tried here yet"
NO_CALL = {
    "distances.DISTANCES": "a table",
    "distances.Ranking": "what rank returns",
    "distances.Estimate": "what monte_carlo_kl returns",
    "image_models.Rotations": "what fit_smt returns",
    "image_models.SMTFit": "what fit_smt returns",
    "losses.BASELINES": "a table",
    "losses.Baseline": "an entry of a table",
    "losses.BaselineLoss": "what baseline_loss returns",
    "losses.DivergenceEstimate": "what estimate_divergence returns",
    "coresets.Coreset": "what craig returns",
    "features.EmbeddingEnsemble": TRIED_ELSEWHERE,
    "features.load_ensemble": TRIED_ELSEWHERE,
    "features.save_member": TRIED_ELSEWHERE,
    "evaluation.ensemble_weights": TRIED_ELSEWHERE,
}

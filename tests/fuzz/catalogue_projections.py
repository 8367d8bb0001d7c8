"""Projections, their losses, and the theory of the cosine."""

from __future__ import annotations

from typing import Any

from retrieval_geometry import projections
from retrieval_geometry.projections import StreamingMoments

from .catalogue_models import TRIED_ELSEWHERE
from .law import Entry
from .makers import Maker, always, normal, one_of, uniform

REFERENCES = {"X": normal(12, 3)}
TRAINING = {
    "hidden": one_of(None, 4),
    "depth": one_of(1, 2),
    "activation": one_of("relu", "identity"),
    "standardize": one_of(False, True),
    "batch_size": one_of(None, 5),
    "lr": always(1e-3),
    "epochs": always(2),
    "patience": always(2),
    "held_out": always(0.2),
    "random_state": always(0),
}
LONG = ("epochs", "hidden", "depth", "latent")
SPECTRUM = {"variances": uniform(2, 5)}


def projected(name: str) -> Any:
    """A projection that is fitted and used with drawn settings and references."""
    kind = getattr(projections, name)
    return lambda X, y=None, **settings: kind(**settings).fit(X, y).transform(X)


def entry(name: str, unbounded: tuple[str, ...] = (), **arguments: Maker) -> dict[str, Entry]:
    """The entry of a projection."""
    words = ("student", "teacher", "lr")
    return {f"projections.{name}": Entry(projected(name), {**REFERENCES, **arguments}, words, unbounded)}


def moments(block: Any, dim: int, device: str) -> Any:
    """Moments of a drawn block."""
    return StreamingMoments(dim, device).update(block).covariance


ENTRIES: dict[str, Entry] = {
    **entry(
        "PCAWhitening",
        power=one_of(1.0, 0.5),
        shrinkage=one_of(None, 0.5, "ledoit-wolf", "auto"),
        n_components=one_of(None, 2),
        random_state=always(0),
    ),
    **entry("AllButTheTop", n_removed=one_of(None, 1)),
    **entry("RandomRotation", n_components=one_of(None, 2), random_state=always(0)),
    **entry("Truncation", n_components=one_of(None, 2)),
    **entry("ProductQuantization", X=normal(260, 3), n_bytes=always(2), random_state=always(0)),
    **entry(
        "AESVC",
        LONG,
        latent=one_of(None, 2),
        weights=always([25, 1, 15, 1]),
        constraint=one_of("batch", "running", "full"),
        momentum=always(0.5),
        **TRAINING,
    ),
    **entry("VAE", LONG, latent=one_of(None, 2), beta=always(1.0), **TRAINING),
    **{
        name: found
        for kind in ("SS2D", "SSD")
        for name, found in entry(
            kind,
            LONG,
            y=one_of(None, normal(12, 4)(0)),
            sizes=always([1, 2]),
            temperature=always(0.2),
            reverse=one_of(False, True),
            **TRAINING,
        ).items()
    },
    "projections.nested_similarity_loss": Entry(
        projections.nested_similarity_loss,
        {
            "student": normal(6, 4),
            "teacher": normal(6, 3, other=1),
            "sizes": one_of([1, 3], (2, 4)),
            "temperature": always(0.2),
            "reverse": one_of(False, True),
            "tile": one_of(None, 2),
        },
    ),
    "projections.constraint_losses": Entry(projections.constraint_losses, {"z": normal(6, 4)}),
    "projections.covariance_floor": Entry(
        projections.covariance_floor, {"n": always(5), "dim": always(9)}, unbounded=("n", "dim")
    ),
    "projections.streaming_moments": Entry(lambda X: projections.streaming_moments(X).covariance, REFERENCES),
    "projections.StreamingMoments": Entry(
        moments, {"block": normal(6, 4), "dim": always(4), "device": always("cpu")}, unbounded=("dim",)
    ),
    "projections.exceedance_probability": Entry(
        projections.exceedance_probability,
        {"mean": uniform(4), "variance": uniform(4, other=1), "threshold": uniform(4, other=2)},
    ),
    **{
        f"projections.{name}": Entry(getattr(projections, name), SPECTRUM)
        for name in (
            "cosine_variance",
            "cosine_variance_gradient",
            "effective_dimension",
            "exact_cosine_variance",
            "squared_length_dispersion",
        )
    },
}
METHODS: dict[str, Entry] = {}
NO_CALL = {
    "projections.Projection": "what all projections are",
    "projections.load_projection": TRIED_ELSEWHERE,
    "projections.save_projection": TRIED_ELSEWHERE,
}

"""Title and experiments of [edms]."""

from retrieval_geometry.experiments.registry import Paper

PAPER = Paper(
    "edms",
    "Ensemble Deep Manifold Similarity Learning using Hard Proxies",
    chapter=20,
    package=__package__,
    experiments=(),
)

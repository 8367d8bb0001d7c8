"""The claims of all papers together."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval_geometry.reporting.claims import Claim

PAPERS = ("geometric", "wasserstein-dml", "rankmi")


def claims(paper: str | None = None) -> list["Claim"]:
    """The claims of one paper, or of all papers in their order.

    Who needs those of one paper alone had better import them from its module: he then depends on no other.

    Raises:
        ValueError: an unknown paper.
    """
    if paper is not None and paper not in PAPERS:
        raise ValueError(f"paper must be one of {', '.join(PAPERS)}; got {paper!r}")
    # Imported here: they need torch, and the package that passes this function on is to load at once.
    from retrieval_geometry.experiments import geometric_claims, rankmi_claims, wasserstein_claims

    modules = dict(zip(PAPERS, (geometric_claims, wasserstein_claims, rankmi_claims), strict=True))
    chosen = modules.values() if paper is None else (modules[paper],)
    return [claim for module in chosen for claim in module.CLAIMS]

"""The claims of all papers together."""

from retrieval_geometry.experiments.registry import of_each_paper, papers
from retrieval_geometry.reporting.claims import Claim


def claims(paper: str | None = None) -> list[Claim]:
    """The claims of one paper, or of all papers in their order.

    Who needs those of one paper alone had better import them from its module: he then depends on no other.

    Raises:
        ValueError: an unknown paper.
    """
    if paper is not None and (not isinstance(paper, str) or paper not in papers()):
        raise ValueError(f"paper must be one of {', '.join(papers())}; got {paper!r}")
    found = of_each_paper("claims", "CLAIMS")
    return [claim for name, own in found.items() if paper in (None, name) for claim in own]

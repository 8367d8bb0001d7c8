"""A search in anybody's pictures: those of a folder, ranked by their distance from some queries.

``request`` says what is compared and how, ``pictures`` lists a folder, ``index`` keeps its features,
``indexing`` brings them up to date, ``describing`` computes them, ``distributions`` compares models of local
descriptors, ``ranking`` does the whole, ``plot`` and ``page`` show it. Only ``describing`` and
``distributions`` need PyTorch, and are imported where there is work for them: a query whose features are
known is answered without.
"""

from retrieval_geometry.own_pictures.ranking import Found, SearchResult, rank_pictures
from retrieval_geometry.own_pictures.request import Request

__all__ = ["Found", "Request", "SearchResult", "rank_pictures"]

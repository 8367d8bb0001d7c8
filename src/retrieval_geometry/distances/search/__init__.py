"""The k nearest images, exactly and without all distances: once (:func:`rank`), or again and again."""

from retrieval_geometry.distances.search._multi_step import Ranking
from retrieval_geometry.distances.search._rank import PRUNED, rank
from retrieval_geometry.distances.search.index import GalleryIndex

__all__ = ["PRUNED", "GalleryIndex", "Ranking", "rank"]

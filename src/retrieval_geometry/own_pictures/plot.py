"""What was found, as a figure: a row for each query."""

from pathlib import Path

import numpy as np

from retrieval_geometry._files import replacing
from retrieval_geometry._text import printable
from retrieval_geometry.own_pictures.outputs import shortest_endings, thumbnail
from retrieval_geometry.own_pictures.ranking import SearchResult

SIDE = 256
"""Pixels of a small picture, more than are printed."""


def draw(answer: SearchResult, plot: Path) -> None:
    """Draw the queries and the found pictures into a file.

    Raises:
        OSError: the file cannot be written, or a picture is gone.
    """
    from retrieval_geometry.reporting.gallery import Neighbour, neighbour_grid

    label = answer.request.distance
    rows = []
    for found in answer.found:
        names = [_cut(printable(name)) for name in shortest_endings([name for name, _ in found.nearest])]
        row = [
            Neighbour(np.asarray(thumbnail(answer.folder / path, SIDE)), f"{name}\n{value:.3g}")
            for name, (path, value) in zip(names, found.nearest, strict=True)
        ]
        query = Neighbour(np.asarray(thumbnail(found.query, SIDE)), _cut(printable(found.query.name)))
        rows.append((label, query, row))
    figure = neighbour_grid(rows)
    with replacing(plot) as file:
        figure.savefig(file, dpi=150, format=plot.suffix[1:].lower())


def _cut(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:7]}…{name[-8:]}"

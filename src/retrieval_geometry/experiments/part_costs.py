"""What the parts of a run cost that other processes have done, for the result that is made of them."""

import json
from dataclasses import asdict
from pathlib import Path

from retrieval_geometry._cost import Cost, cost_so_far, total
from retrieval_geometry._sealed import Kind, parse_json
from retrieval_geometry.reporting._decode import decode

COST = Kind("cost of a part", 1, "it is not counted")


def keep_cost(folder: Path, name: str) -> None:
    """Keep the cost of this process under the name of its part."""
    if cost := cost_so_far():
        COST.write(folder / name, json.dumps(asdict(cost)).encode())


def with_parts(cost: Cost | None, folder: Path) -> Cost | None:
    """A cost together with those in a folder, which are taken out of it: they belong to one result."""
    # A hidden file is one that another process is still writing.
    files = [file for file in folder.glob("*") if file.name[0] != "."]
    contents = [COST.recover(file) for file in files]
    # Taken out even where they are damaged: a second result would count them again.
    for file in files:
        file.unlink(missing_ok=True)
    parts = [decode(Cost, parse_json(content.decode())) for content in contents if content is not None]
    return total([cost, *parts]) if cost else None

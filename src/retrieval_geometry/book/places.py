"""Nothing that is published tells where on whose machine it was made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GIVEN = re.compile(r"^data_root = .*$", re.M)


def without_places(notebook: dict[str, Any], cwd: Path, data_root: str) -> dict[str, Any]:
    """Return an executed notebook in which the working, data and home folders have neutral names.

    Args:
        notebook: with its outputs; pictures are left as they are.
        cwd: the working folder, ``.`` from now on.
        data_root: the folder with data sets, ``data`` from now on: in the cell with the given parameters, and
            where its whole path shows.
    """
    for cell in notebook["cells"]:
        if "injected-parameters" in cell["metadata"].get("tags", ()):
            lines = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
            cell["source"] = GIVEN.sub('data_root = "data"', lines)
    named = {cwd / data_root: "data", cwd: ".", cwd.resolve(): ".", Path.home(): "~"}
    names = {str(path): name for path, name in named.items() if len(path.parts) > 1}
    cleaned: dict[str, Any] = _renamed(notebook, names)
    return cleaned


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {
            # Base64 may hold anything, and shows nothing.
            key: value if key.startswith("image/") else _renamed(value, names)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_renamed(value, names) for value in node]
    if isinstance(node, str):
        for path in sorted(names, key=len, reverse=True):  # a folder before the one around it
            node = re.sub(rf"(?<![\w/.]){re.escape(path)}(?![\w-])", names[path], node)
    return node

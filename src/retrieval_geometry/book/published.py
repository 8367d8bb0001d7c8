"""Where the project is published, which is where Colab and Binder fetch it from."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

INSTALL = """# Outside the book's environment, on Colab say: fetch the project and install it.
import importlib.util

if importlib.util.find_spec("retrieval_geometry") is None:
    %pip install --quiet git+{url}"""

ORIGIN = r"(?:\w+://)?(?:[^@/\s]*@)?github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?"


def repository_url(root: Path) -> str | None:
    """The checkout's GitHub address: from the workflow's environment, else from its ``origin``.

    None where ``origin`` is missing or lies on no public host that Colab and Binder both read.
    """
    # A fork's workflow: the notebooks should come from the fork.
    if name := os.environ.get("GITHUB_REPOSITORY"):
        return f"https://github.com/{name}"
    if not shutil.which("git"):
        return None
    origin = subprocess.run(
        ["git", "-C", str(root), "remote", "get-url", "origin"], text=True, capture_output=True, check=False
    ).stdout
    match = re.fullmatch(ORIGIN, origin.strip())
    return f"https://github.com/{match[1]}" if match else None


def with_install(cells: list[Any], url: str | None) -> list[Any]:
    """The cells of a notebook and, with an address, one that installs from it before the first code."""
    cells = [cell for cell in cells if cell["id"] != "install"]
    if url is None:
        return cells
    install: dict[str, Any] = {
        "cell_type": "code",
        "id": "install",
        "metadata": {"tags": ["remove-cell"]},
        "source": INSTALL.format(url=url),
        "execution_count": None,
        "outputs": [],
    }
    # Before the parameters as well: Colab runs cells in order.
    first = next((i for i, cell in enumerate(cells) if cell["cell_type"] == "code"), len(cells))
    return [*cells[:first], install, *cells[first:]]


def installed_from(notebook: str) -> str | None:
    """The address that the text of a notebook installs the project from, if it does."""
    found = re.search(r"%pip install --quiet git\+([^\s\"\\]+)", notebook)
    return found[1] if found else None

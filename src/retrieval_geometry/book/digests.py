"""Digests of files and folders by name and content."""

from __future__ import annotations

from pathlib import Path

from retrieval_geometry._files import file_sha256
from retrieval_geometry._sources import combined

MISSING = "there is none"


def digest_of(path: Path) -> str:
    """The name of a file and a digest of its content, or that there is none."""
    return f"{path.name} {file_sha256(path) if path.is_file() else MISSING}"


def digest_of_folder(folder: Path) -> str:
    """A digest of all files in a folder by name and content, hidden ones excepted; empty if there is none."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return combined([f"{path.relative_to(folder)} {digest_of(path)}" for path in files]) if files else ""

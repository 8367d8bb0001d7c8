"""Write DEPENDENCIES.md: each package of the lock, with the licence that its own metadata states.

    python -m tests.dependencies

A package of another system is not installed here: its row keeps what the file says already.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIST = ROOT / "DEPENDENCIES.md"
NOT_STATED = "not stated"
HEAD = """# What is installed, and its licences

Written by `make dependencies` from the metadata of the installed packages; versions are those of
`requirements.lock`, several where they differ by the version of Python. The last column says what asks for a
package; without an entry another package does. Licences of the bundled photographs are in the book.

| package | version | licence | asked for by |
|---|---|---|---|
"""


def locked_versions() -> dict[str, list[str]]:
    """Return the versions of each package in ``requirements.lock``, in the order of the file."""
    versions: dict[str, list[str]] = {}
    for name, version in re.findall(
        r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / "requirements.lock").read_text(), re.M
    ):
        versions.setdefault(name, []).append(version)
    return versions


def licence(installed: Distribution) -> str:
    """Return the licence that a package states: as an expression, a short name, classifiers, or a file."""
    metadata = installed.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    field = (metadata.get("License") or "").strip()
    if field and field != "UNKNOWN" and "\n" not in field:
        return str(field)
    kinds = [kind for kind in metadata.get_all("Classifier") or [] if kind.startswith("License ::")]
    if kinds:
        return ", ".join(kind.rpartition("::")[2].strip() for kind in kinds)
    texts = [file for file in installed.files or [] if file.name.upper().startswith("LICENSE")]
    return texts[0].read_text().strip().splitlines()[0].strip() if texts else NOT_STATED


def listed_licences() -> dict[str, str]:
    """Return the licence of each package as DEPENDENCIES.md has it now."""
    rows = (line.split(" | ") for line in LIST.read_text().splitlines() if line.count(" | ") == 3)
    return {name.removeprefix("| "): stated for name, _, stated, _ in rows}


def askers() -> dict[str, list[str]]:
    """Return who names each direct dependency in ``pyproject.toml``: the package, the book or the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named: dict[str, list[str]] = {}
    for group, lines in {"package": project["dependencies"], **project["optional-dependencies"]}.items():
        for line in lines:
            named.setdefault(re.split(r"[^a-z0-9-]", line)[0], []).append(group)
    return named


def table() -> str:
    """Return the text of DEPENDENCIES.md.

    Raises:
        ValueError: a package is neither installed nor in the present file.
    """
    known, asked, rows = listed_licences() if LIST.exists() else {}, askers(), []
    for name, versions in locked_versions().items():
        try:
            known[name] = licence(distribution(name))
        except PackageNotFoundError:
            if name not in known:
                raise ValueError(
                    f"{name} is not installed here and not in {LIST.name}: add its row and licence by hand"
                ) from None
        row = name, ", ".join(versions), known[name], ", ".join(asked.get(name, []))
        rows.append(f"| {' | '.join(row)} |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    try:
        LIST.write_text(table())
    except ValueError as error:
        sys.exit(str(error))

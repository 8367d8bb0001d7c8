"""What a chapter depends on: the package modules it imports, directly or not, and the experiments it reads.

Only a chapter that uses an edited module is executed again. The answer is read off the syntax tree, so
nothing is imported and the graph costs milliseconds.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

PACKAGE = "retrieval_geometry"
SOURCE = Path(__file__).resolve().parents[1]


def module_files(source: Path) -> list[Path]:
    """Return the package files that ``source`` imports, directly or not, sorted and without ``source``."""
    seen: set[Path] = set()
    queue = list(_imports(source))
    while queue:
        path = queue.pop()
        if path not in seen:
            seen.add(path)
            queue.extend(_imports(path))
    return sorted(seen - {source.resolve()})


def experiments_of(chapter: Path) -> list[str]:
    """Return the experiments that a chapter has run: the first arguments of its ``load_or_run`` calls.

    Raises:
        ValueError: such an argument is not a literal string, so the graph cannot know the experiment.
    """
    names = _first_arguments(chapter, "load_or_run")
    if None in names:
        raise ValueError(f"{chapter.name}: load_or_run needs the experiment's name as a literal string")
    return sorted(name for name in names if name)


def recorded_of(chapter: Path, folder: Path) -> list[Path]:
    """Return the recorded results in ``folder`` of the experiments that a chapter runs or loads."""
    names = _first_arguments(chapter, "load_or_run") | _first_arguments(chapter, "load_recorded")
    return sorted(path for name in names if name for path in folder.glob(f"{name}-*.json"))


def _first_arguments(chapter: Path, function: str) -> set[str | None]:
    """Return the first arguments of the calls of ``function``; None stands for one that is no literal."""
    calls = [node for node in ast.walk(_tree(chapter)) if isinstance(node, ast.Call)]
    named = [
        call for call in calls if function in (getattr(call.func, "id", ""), getattr(call.func, "attr", ""))
    ]
    first = [call.args[0] if call.args else None for call in named]
    return {str(node.value) if isinstance(node, ast.Constant) else None for node in first}


def _tree(path: Path) -> ast.Module:
    """Parse a module, or a chapter with its IPython magics blanked out."""
    lines = path.read_text().splitlines()
    plain = ["pass" if line.startswith(("%", "!")) else line for line in lines]
    return ast.parse("\n".join(plain), filename=str(path))


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    """Return the package files imported by the file at ``path``, with the ``__init__`` files on the way."""
    found: set[Path] = set()
    for node in ast.walk(_tree(path)):
        for dotted in _imported_names(node, path):
            found.update(_resolve(dotted))
    return tuple(sorted(found))


def _imported_names(node: ast.AST, path: Path) -> list[str]:
    """Return dotted names of package modules (or names inside them) that one import statement mentions."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parents = path.resolve().relative_to(SOURCE.parent).parent.parts
        kept = parents[: len(parents) - node.level + 1]
        base = ".".join((*kept, base)).rstrip(".")
    if base.split(".")[0] != PACKAGE:
        return []
    return [f"{base}.{alias.name}" for alias in node.names]


def _resolve(dotted: str) -> list[Path]:
    """Return the files that importing ``dotted`` executes; a trailing name that is no module is ignored."""
    files, folder = [], SOURCE
    for part in dotted.split(".")[1:]:
        if (folder / part / "__init__.py").is_file():
            folder = folder / part
            files.append(folder / "__init__.py")
        elif (folder / f"{part}.py").is_file():
            files.append(folder / f"{part}.py")
            break
        else:
            break
    return [SOURCE / "__init__.py", *files]

"""Keep ``book/notebooks`` in step with ``book/chapters``: same cells, no outputs, stable cell ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from retrieval_geometry.book.project import Project
from retrieval_geometry.book.published import installed_from, repository_url, with_install


def notebook_text(script: Path, repository: str | None = None) -> str:
    """Return the paired notebook of a chapter as the text of an ``.ipynb`` file.

    Args:
        script: of the chapter.
        repository: where the project is published; a cell of the notebook installs it from there.
    """
    import jupytext
    import nbformat

    notebook = jupytext.read(script)
    # Jupytext's own header would make the pair differ by its version.
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(notebook.cells):
        # Random ids would change the file at every writing.
        cell["id"] = f"cell-{number:03d}"
    notebook.cells = nbformat.from_dict(with_install(notebook.cells, repository))
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return nbformat.writes(notebook, version=4) + "\n"


def sync(project: Project) -> list[str]:
    """Write every pair that is out of step; return the names of the notebooks written or removed."""
    project.notebooks.mkdir(exist_ok=True)
    repository = repository_url(project.root)
    changed = _differing(project, lambda pair: repository)
    for name in changed:
        script, pair = project.chapters / f"{name}.py", project.notebooks / f"{name}.ipynb"
        if script.exists():
            pair.write_text(notebook_text(script, repository))
        else:
            pair.unlink()
    return changed


def out_of_step(project: Project) -> list[str]:
    """Return the names of chapters whose notebook is missing, differs, or has lost its script.

    A fork may keep the address that its notebooks install from.
    """
    return _differing(project, installed_from)


def _differing(project: Project, repository: Callable[[str], str | None]) -> list[str]:
    """Names of chapters whose pair is not as it would be written for the repository that it leads to."""
    scripts = {path.stem: path for path in project.chapters.glob("*.py")}
    pairs = {path.stem: path.read_text() for path in project.notebooks.glob("*.ipynb")}
    return sorted(
        name
        for name in scripts.keys() | pairs.keys()
        if name not in scripts
        or name not in pairs
        or pairs[name] != notebook_text(scripts[name], repository(pairs[name]))
    )

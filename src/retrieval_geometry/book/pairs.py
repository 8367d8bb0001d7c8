"""Keep ``book/notebooks`` in step with ``book/chapters``: same cells, no outputs, stable cell ids."""

from __future__ import annotations

from pathlib import Path

from retrieval_geometry.book.project import Project


def notebook_text(script: Path) -> str:
    """Return the paired notebook of a chapter as the text of an ``.ipynb`` file."""
    import jupytext
    import nbformat

    notebook = jupytext.read(script)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:03d}"
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return nbformat.writes(notebook, version=4) + "\n"


def sync(project: Project) -> list[str]:
    """Write every pair that is out of step; return the names of the notebooks written or removed."""
    project.notebooks.mkdir(exist_ok=True)
    changed = out_of_step(project)
    for name in changed:
        script, pair = project.chapters / f"{name}.py", project.notebooks / f"{name}.ipynb"
        if script.exists():
            pair.write_text(notebook_text(script))
        else:
            pair.unlink()
    return changed


def out_of_step(project: Project) -> list[str]:
    """Return the names of chapters whose notebook is missing, differs, or has lost its script."""
    scripts = {path.stem: path for path in project.chapters.glob("*.py")}
    pairs = {path.stem: path for path in project.notebooks.glob("*.ipynb")}
    return sorted(
        name
        for name in scripts.keys() | pairs.keys()
        if name not in scripts or name not in pairs or pairs[name].read_text() != notebook_text(scripts[name])
    )

"""Where things lie in a checkout of the book."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from retrieval_geometry._folders import project_root


@dataclass(frozen=True)
class Project:
    """The folders of one checkout, all below its root."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """Return the project that holds ``start`` (default: the working directory).

        Raises:
            FileNotFoundError: no folder above ``start`` holds ``_config.yml`` and ``book/chapters``.
        """
        root = project_root(start)
        if root is None:
            raise FileNotFoundError(
                f"no checkout of the book at or above {(start or Path.cwd()).resolve()}: "
                "run this inside the folder that holds _config.yml"
            )
        return cls(root)

    @property
    def chapters(self) -> Path:
        """Sources of the chapters: Jupytext py:percent scripts."""
        return self.root / "book" / "chapters"

    @property
    def notebooks(self) -> Path:
        """Their paired notebooks, without outputs."""
        return self.root / "book" / "notebooks"

    @property
    def recorded(self) -> Path:
        """Recorded results that come with the book."""
        return self.root / "book" / "results"

    @property
    def build(self) -> Path:
        """Everything the build makes."""
        return self.root / "build"

    @property
    def executed(self) -> Path:
        """Chapters after execution."""
        return self.build / "executed"

    @property
    def staging(self) -> Path:
        """The folder that Jupyter Book reads."""
        return self.build / "book"

    @property
    def html(self) -> Path:
        """The finished pages."""
        return self.build / "html"

    def page_files(self) -> dict[Path, str]:
        """What Jupyter Book reads beside the configuration and the chapters, and where it lies for it."""
        book = self.root / "book"
        return {
            self.root / "_toc.yml": "_toc.yml",
            **{path: path.name for path in sorted(book.glob("*.md"))},
            book / "references.bib": "references.bib",
            **{path: f"_static/{path.name}" for path in sorted((book / "_static").iterdir())},
        }

    def chapter_names(self) -> list[str]:
        """Names of the chapters in the order of ``_toc.yml``.

        Raises:
            ValueError: a chapter is in the table of contents but has no script, or the other way round.
        """
        files = _toc_files(self.root / "_toc.yml")
        listed = [name.removeprefix("notebooks/") for name in files if name.startswith("notebooks/")]
        present = {path.stem for path in self.chapters.glob("*.py")}
        if missing := [name for name in listed if name not in present]:
            raise ValueError(f"_toc.yml lists {missing}, but book/chapters holds no such script")
        if unlisted := sorted(present - set(listed)):
            raise ValueError(f"book/chapters holds {unlisted}, which _toc.yml does not list: add them there")
        return listed


def _toc_files(path: Path) -> list[str]:
    """Return every ``file`` (and the root) of a Jupyter Book table of contents, in reading order."""

    def walk(node: object) -> list[str]:
        if isinstance(node, list):
            return [name for item in node for name in walk(item)]
        if not isinstance(node, dict):
            return []
        own = [node[key] for key in ("root", "file") if key in node]
        return own + [name for key in ("parts", "chapters", "sections") for name in walk(node.get(key))]

    return walk(yaml.safe_load(path.read_text()))

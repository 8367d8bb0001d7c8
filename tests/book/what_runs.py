"""Which results and chapters are made again after an edit; ``python -m tests.book.what_runs`` prints a table.

The edits are made in a copy of the sources, and the digests of all outputs are compared; nothing is run.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retrieval_geometry._sources import Sources
from retrieval_geometry.book.graph import chapter_source, pages_source
from retrieval_geometry.book.project import Project
from retrieval_geometry.experiments import experiments

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"profile": "quick", "data_root": "data", "device": "cpu", "seed": 0}
PACKAGE = "src/retrieval_geometry/"

# What is edited, in which file, and how: a text and what it becomes.
EDITS = {
    "nothing": (PACKAGE + "cli.py", "", ""),
    "a docstring in cli.py": (PACKAGE + "cli.py", '"""', '"""Some words. '),
    "the code of cli.py": (PACKAGE + "cli.py", "def main(", "def other() -> None: ...\n\n\ndef main("),
    "a comment in a distance": (PACKAGE + "distances/riemannian.py", "\ndef ", "\n# A remark.\ndef "),
    "a distance (Stein)": (PACKAGE + "distances/riemannian.py", "\ndef ", "\nONE = 1\n\n\ndef "),
    "a transport distance (Sinkhorn)": (PACKAGE + "distances/sinkhorn.py", "\ndef ", "\nONE = 1\n\n\ndef "),
    "a loss (RankMI)": (PACKAGE + "losses/rankmi.py", "GRID = 64", "GRID = 65"),
    "a predicate of [geometric]": (
        PACKAGE + "papers/geometric/claims.py",
        "\ndef ",
        "\nONE = 1\n\n\ndef ",
    ),
    "a predicate of [rankmi]": (PACKAGE + "papers/rankmi/claims.py", "\ndef ", "\nONE = 1\n\n\ndef "),
    "a printed number of [geometric]": (PACKAGE + "papers/geometric/printed.py", "0", "1"),
    "a printed number of [rankmi]": (PACKAGE + "papers/rankmi/printed.py", "0", "1"),
    "the recorded choice of hyper-parameters": ("book/results/learning-tuning-quick.json", "{", "{ "),
    "a sentence of chapter 12": (
        "book/chapters/12_coresets.py",
        "# %% [markdown]",
        "# %% [markdown]\n# Words.",
    ),
    "a style sheet": ("book/_static/book.css", "{", "{ "),
}


def digests(root: Path) -> dict[str, str]:
    """What each output would be made from, by name."""
    sources, project = Sources(root / PACKAGE), Project(root)
    results = {name: e.source(sources, project.recorded) for name, e in experiments().items()}
    chapters = {name: chapter_source(project, name, SETTINGS, sources) for name in project.chapter_names()}
    return {**results, **chapters, "pages": pages_source(project, sources)}


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of all that outputs are made from."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("src", "book", "_config.yml", "_toc.yml"):
            ignored = shutil.ignore_patterns("__pycache__", "notebooks")
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, root / name, **({"ignore": ignored} if (ROOT / name).is_dir() else {}))
        yield root


def made_again(root: Path, edit: tuple[str, str, str], before: dict[str, str]) -> list[str]:
    """Edit a file, compare, and undo the edit."""
    name, old, new = edit
    path = root / name
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{name} holds no {old!r}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    try:
        after = digests(root)
    finally:
        path.write_text(text, encoding="utf-8")
    return [output for output in before if before[output] != after[output]]


def main() -> None:
    """Print the table."""
    with copied() as root:
        before = digests(root)
        print("| edit | experiments run again | chapters executed again |\n|---|---|---|")
        for title, edit in EDITS.items():
            again = made_again(root, edit, before)
            runs = ", ".join(name for name in again if name in experiments())
            chapters = ", ".join(name.partition("_")[0] for name in again if name not in experiments())
            print(f"| {title} | {runs or 'none'} | {chapters or 'none'} |")


if __name__ == "__main__":
    main()

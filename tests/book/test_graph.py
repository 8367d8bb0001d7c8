"""Which modules and experiments a chapter depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval_geometry.book.graph import SOURCE, experiments_of, module_files, recorded_of
from retrieval_geometry.book.project import Project


def _modules(text: str, folder: Path) -> set[str]:
    script = folder / "chapter.py"
    script.write_text(text)
    return {str(path.relative_to(SOURCE)) for path in module_files(script)}


@pytest.mark.parametrize(
    "statement",
    [
        "import retrieval_geometry.book.graph",
        "from retrieval_geometry.book.graph import module_files",
        "from retrieval_geometry.book import graph",
    ],
)
def test_every_form_of_import_is_followed(statement: str, tmp_path: Path) -> None:
    assert {"__init__.py", "book/__init__.py", "book/graph.py"} == _modules(statement, tmp_path)


def test_indirect_imports_count_and_unused_modules_do_not(tmp_path: Path) -> None:
    modules = _modules("from retrieval_geometry.book.pairs import sync", tmp_path)
    assert "book/project.py" in modules
    assert "book/pages.py" not in modules


def test_imports_inside_functions_and_magics_are_no_obstacle(tmp_path: Path) -> None:
    text = "%matplotlib inline\ndef f():\n    from retrieval_geometry.book import pages\n"
    assert "book/pages.py" in _modules(text, tmp_path)


def test_other_packages_are_ignored(tmp_path: Path) -> None:
    assert _modules("import torch\nfrom pathlib import Path", tmp_path) == set()


def test_experiments_are_the_literal_arguments_of_load_or_run(tmp_path: Path) -> None:
    script = tmp_path / "chapter.py"
    script.write_text(
        "a = load_or_run('b-two', profile=p)\nc = experiments.load_or_run('a-one', profile=p)\n"
    )
    assert experiments_of(script) == ["a-one", "b-two"]
    script.write_text("load_or_run(name)")
    with pytest.raises(ValueError, match="literal"):
        experiments_of(script)


def test_a_chapter_depends_on_the_recorded_runs_of_its_experiments_alone(tmp_path: Path) -> None:
    script = tmp_path / "chapter.py"
    script.write_text("a = load_or_run('a-one', profile=p)\nb = load_recorded('b-two', 'real')\n")
    for name in ("a-one-real.json", "b-two-real.json", "c-three-real.json"):
        (tmp_path / name).write_text("{}")
    assert [path.name for path in recorded_of(script, tmp_path)] == ["a-one-real.json", "b-two-real.json"]


def test_contents_and_scripts_must_agree(project: Project) -> None:
    assert project.chapter_names() == ["01_first", "02_second"]
    (project.chapters / "03_orphan.py").write_text("")
    with pytest.raises(ValueError, match="03_orphan"):
        project.chapter_names()
    (project.chapters / "03_orphan.py").unlink()
    (project.chapters / "02_second.py").unlink()
    with pytest.raises(ValueError, match="02_second"):
        project.chapter_names()


def test_a_folder_that_is_no_checkout_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"_config\.yml"):
        Project.find(tmp_path)

"""The closure of imports: what it follows, what it refuses, and whether Python imports the same."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval_geometry._sources import Sources
from retrieval_geometry.experiments import experiments, papers

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "retrieval_geometry"
CHAPTERS = sorted((ROOT / "book" / "chapters").glob("*.py"))

TREE = {
    "__init__.py": '"""A package."""\n',
    "tools.py": "def tool(): return 1\n",
    "shapes/__init__.py": '"""Faces."""\nfrom retrieval_geometry.shapes.round import circle, disc as plate\n'
    "from retrieval_geometry.shapes.flat import square\n__all__ = ['circle', 'plate', 'square']\n",
    "shapes/round.py": "from retrieval_geometry.tools import tool\n"
    "def circle(): return tool()\ndisc = circle\n",
    "shapes/flat.py": "def square(): return 4\n",
    "shapes/odd/__init__.py": "from retrieval_geometry.shapes.odd.star import star\n",
    "shapes/odd/star.py": "star = 5\n",
    "busy/__init__.py": "from retrieval_geometry.shapes import square\nSIDES = square()\n",
    "busy/work.py": "import torch\n",
    **dict.fromkeys(("papers/__init__.py", "papers/one/__init__.py", "papers/two/__init__.py"), ""),
    "papers/one/claims.py": "from retrieval_geometry.tools import tool\n",
    "papers/one/paper.py": "PAPER = 1\n",
    "papers/two/claims.py": "CLAIMS = ()\n",
    "passing.py": "from retrieval_geometry import shapes\nfrom retrieval_geometry.shapes import circle\n",
}
ALL_SHAPES = {name for name in TREE if name.startswith("shapes/")} | {"tools.py"}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "retrieval_geometry"
    for name, text in TREE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def _closure(package: Path, text: str) -> set[str]:
    script = package.parent / "script.py"
    script.write_text(text)
    return {str(path.relative_to(package)) for path in Sources(package).closure(script) if path != script}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import torch\nfrom pathlib import Path", set()),
        ("import retrieval_geometry.tools", {"tools.py"}),
        ("import retrieval_geometry.tools as t", {"tools.py"}),
        ("from retrieval_geometry import tools", {"tools.py"}),
        ("from retrieval_geometry.tools import tool", {"tools.py"}),
        ("def f():\n    from retrieval_geometry import tools", {"tools.py"}),
        ("%matplotlib inline\n!ls\nfrom retrieval_geometry import tools", {"tools.py"}),
        # A name that a package passes on is that of the module which defines it.
        ("from retrieval_geometry.shapes import square", {"shapes/flat.py"}),
        ("from retrieval_geometry.shapes import circle", {"shapes/round.py", "tools.py"}),
        ("from retrieval_geometry.shapes import plate", {"shapes/round.py", "tools.py"}),
        ("from retrieval_geometry.shapes import flat", {"shapes/flat.py"}),
        # Attributes of packages.
        ("from retrieval_geometry import shapes\nshapes.square()", {"shapes/flat.py"}),
        ("import retrieval_geometry.shapes as s\ns.square(), s.flat.square()", {"shapes/flat.py"}),
        ("import retrieval_geometry.shapes\nretrieval_geometry.shapes.square()", {"shapes/flat.py"}),
        ("from retrieval_geometry import shapes\nshapes.odd.star.star", {"shapes/odd/star.py"}),
        ("from retrieval_geometry.shapes import odd\nodd.star", {"shapes/odd/star.py"}),
        # Packages that are used as a whole, or handed on.
        ("from retrieval_geometry import shapes\nprint(getattr(shapes, name))", ALL_SHAPES),
        ("from retrieval_geometry import shapes\nshapes.square()\nshapes.__dict__", ALL_SHAPES),
        ("from retrieval_geometry import shapes", ALL_SHAPES),
        ("import retrieval_geometry.shapes", set(TREE) | ALL_SHAPES),
        ("import retrieval_geometry\nretrieval_geometry.__file__", set(TREE)),
        ("from retrieval_geometry.passing import shapes", ALL_SHAPES | {"passing.py"}),
        # A package's own code runs before its modules.
        ("from retrieval_geometry.busy import SIDES", {"busy/__init__.py", "shapes/flat.py"}),
        ("from retrieval_geometry.busy import square", {"busy/__init__.py", "shapes/flat.py"}),
        ("import retrieval_geometry.busy.work", {"busy/__init__.py", "busy/work.py", "shapes/flat.py"}),
        # What is found in the folder of each paper.
        (
            "from registry import of_each_paper\nof_each_paper('claims', 'CLAIMS')",
            {"papers/one/claims.py", "papers/two/claims.py", "tools.py"},
        ),
        # Only type checkers read this.
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from retrieval_geometry import tools",
            set(),
        ),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    from retrieval_geometry import tools", {"tools.py"}),
    ],
)
def test_what_is_followed(package: Path, text: str, expected: set[str]) -> None:
    assert _closure(package, text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from retrieval_geometry.shapes import *", r"script\.py, line 1: import \* cannot be followed"),
        ("\nfrom . import x", r"script\.py, line 2: a relative import cannot be followed"),
        (
            "from retrieval_geometry.shapes import oval",
            "one of this package, got 'retrieval_geometry.shapes.oval'",
        ),
        ("\nof_each_paper(name, 'CLAIMS')", r"script\.py, line 2: of_each_paper needs a literal string"),
        ("import retrieval_geometry.nothing", "one of this package, got 'retrieval_geometry.nothing'"),
    ],
)
def test_what_cannot_be_followed_is_refused(package: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _closure(package, text)


def _digest(package: Path) -> str:
    sources = Sources(package)
    return sources.digest(sources.closure(sources.file("retrieval_geometry.shapes.round")))


@pytest.mark.parametrize(
    "text",
    [
        "# about\nfrom retrieval_geometry.tools import tool\n\n\ndef circle():\n    '''Round.'''\n"
        "    return tool()  # one\n\n\ndisc = circle\n'''The same.'''\n",
        "'''Round things.'''\nif TYPE_CHECKING:\n    import torch\n" + TREE["shapes/round.py"],
    ],
)
def test_words_change_nothing(package: Path, text: str) -> None:
    before = _digest(package)
    (package / "shapes" / "round.py").write_text(text)
    (package / "shapes" / "flat.py").write_text("def square(): return 5\n")
    (package / "shapes" / "__init__.py").write_text("'''Other words.'''\n" + TREE["shapes/__init__.py"])
    assert _digest(package) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("shapes/round.py", TREE["shapes/round.py"].replace("tool()", "2 * tool()")),
        ("tools.py", "def tool(): return 2\n"),
        ("tools.py", "def tool(x=1): return 1\n"),
        ("__init__.py", "import torch\ntorch.set_default_dtype(torch.float64)\n"),
    ],
)
def test_code_changes_it(package: Path, name: str, text: str) -> None:
    before = _digest(package)
    (package / name).write_text(text)
    assert _digest(package) != before


def test_no_import_hides_in_a_text() -> None:
    """A module that is imported by a computed name would be missed; only the registry does that."""
    hidden = {"import_module", "__import__", "resolve_name", "run_module", "run_path"}
    for path in [*SOURCE.rglob("*.py"), *CHAPTERS]:
        nodes = list(ast.walk(Sources().tree(path)))
        names = {getattr(node, key, None) for node in nodes for key in ("id", "attr", "name")} & hidden
        names |= {getattr(node, "id", None) for node in nodes} & {"exec", "eval"}  # a network has .eval()
        assert not names or path == SOURCE / "experiments" / "registry.py", (path, names)


def test_importing_a_module_changes_no_other() -> None:
    """A module that nobody asks for by name may be left out: its body makes names of its own, no more."""
    allowed = (
        ast.Import,
        ast.ImportFrom,
        ast.FunctionDef,
        ast.ClassDef,
        ast.Assign,
        ast.AnnAssign,
        ast.AugAssign,
    )
    for path in SOURCE.rglob("*.py"):
        if path.name == "__main__.py":
            continue
        for node in Sources().tree(path).body:
            assert isinstance(node, allowed), f"{path}, line {node.lineno}: {ast.unparse(node)[:60]}"
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            assert not any(isinstance(target, ast.Attribute | ast.Subscript) for target in targets)


# Run in a process of its own: packages whose names are fetched when they are asked for, so that what is in
# sys.modules at the end was asked for. The package is imported anew for each target, other libraries once.
LOOK = """
import ast, importlib, importlib.abc, importlib.util, json, sys
from pathlib import Path

PACKAGE, root = "retrieval_geometry", Path(sys.argv[1])

class Lazy(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        folder = root.joinpath(*name.split(".")[1:])
        if name.split(".")[0] == PACKAGE and (folder / "__init__.py").is_file():
            return importlib.util.spec_from_file_location(
                name, folder / "__init__.py", loader=self, submodule_search_locations=[str(folder)])

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        tree = ast.parse(Path(module.__file__).read_text())
        passed = [node for node in tree.body if isinstance(node, ast.ImportFrom)
                  and node.module.split(".")[0] == PACKAGE]
        origin = {a.asname or a.name: (node.module, a.name) for node in passed for a in node.names}
        tree.body = [node for node in tree.body if node not in passed]
        exec(compile(tree, module.__file__, "exec"), module.__dict__)
        def fetch(name):
            if name not in origin:
                raise AttributeError(name)
            source, inner = origin[name]
            return getattr(importlib.import_module(source), inner)
        module.__getattr__ = fetch

def ask(target):
    if not target.endswith(".py"):
        importlib.import_module(target)
        return
    lines = Path(target).read_text().split("\\n")
    lines = ["pass" if line.startswith(("%", "!")) else line for line in lines]
    for node in ast.walk(ast.parse("\\n".join(lines))):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and PACKAGE in ast.unparse(node):
            exec(ast.unparse(node), {})

sys.meta_path.insert(0, Lazy())
for target in sys.argv[2:]:
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]
    ask(target)
    files = [m.__file__ for name, m in list(sys.modules.items()) if name.split(".")[0] == PACKAGE]
    print(target, json.dumps(files), sep="\\t", flush=True)
"""


@pytest.mark.slow
def test_the_static_closure_is_what_python_imports() -> None:
    sources = Sources()
    modules = sorted({experiment.module for experiment in experiments().values()})
    modules += [f"{paper.package}.claims" for paper in papers().values()]
    targets = {name: sources.file(name) for name in modules} | {str(path): path for path in CHAPTERS}
    found = subprocess.run(
        [sys.executable, "-c", LOOK, str(SOURCE), *targets], text=True, stdout=subprocess.PIPE, check=True
    )
    lines = [line.split("\t") for line in found.stdout.splitlines()]
    assert [name for name, _ in lines] == list(targets)
    for name, files in lines:
        imported = {Path(file).resolve() for file in json.loads(files)}
        imported = {path for path in imported if path.name != "__init__.py" or not sources.is_face(path)}
        closure = set(sources.closure(targets[name])) - ({targets[name]} if name.endswith(".py") else set())
        assert imported <= closure, (name, imported - closure)
        assert len(imported) > 5
        if not name.endswith(".py"):  # of a chapter the imports alone are executed, not what uses a package
            assert len(closure - imported) <= 3, (name, closure - imported)  # imports inside functions


def test_of_the_tolerances_those_count_that_are_taken(package: Path) -> None:
    table, taker, whole = package / "_tolerances.py", package / "taker.py", package / "whole.py"
    taker.write_text("from retrieval_geometry._tolerances import NEAR\n")
    whole.write_text("from retrieval_geometry import _tolerances\nprint(_tolerances.FAR)\n")

    def digests(text: str) -> list[str]:
        table.write_text(text)
        sources = Sources(package)
        return [sources.digest(sources.closure(path)) for path in (taker, whole)]

    first = digests("ONE = 1.0\nNEAR = 1e-3 * ONE\nFAR = 1e3\n")
    other = digests("ONE = 1.0\nNEAR = 1e-3 * ONE\nFAR = 1e4\n")
    assert other[0] == first[0]
    assert other[1] != first[1]
    assert digests("ONE = 1.0\nNEAR = 1e-4 * ONE\nFAR = 1e3\n")[0] != first[0]
    assert digests("ONE = 2.0\nNEAR = 1e-3 * ONE\nFAR = 1e3\n")[0] != first[0]


def test_an_edit_of_one_tolerance_does_not_reach_all_experiments(tmp_path: Path) -> None:
    copied = shutil.copytree(SOURCE, tmp_path / "retrieval_geometry")
    before = {name: found.source(Sources(copied)) for name, found in experiments().items()}
    table = copied / "_tolerances.py"
    table.write_text(table.read_text().replace("COSINE_EDGE = 1e-6", "COSINE_EDGE = 1e-7"))
    after = {name: found.source(Sources(copied)) for name, found in experiments().items()}
    changed = {name.split("-")[0] for name in before if before[name] != after[name]}
    assert changed == {"learning", "wasserstein", "rankmi"}

"""Sources of a file's results: the package modules that it imports, directly or not.

It is read off the syntax tree, so nothing is imported. One digest of it says what is stale: of results, of
finished parts of a run, and of executed chapters.

- An import inside a function counts; one under ``if TYPE_CHECKING`` does not.
- A name taken from a package is followed to the module that defines it. A package's ``__init__`` that holds
  nothing but such imports adds nothing of its own; any other is a module like the rest.
- A package itself (``from retrieval_geometry import losses``) stands for the attributes that are read from it
  in that file, and for all its modules where it is used in another way.
- ``of_each_paper("claims", ...)`` stands for the module of that name of each paper.
- Comments, blank lines, docstrings and line numbers do not count.
- Of the table of tolerances only the numbers count that the files take by name.
- What cannot be followed (``import *``, a relative import, a name that is nowhere) is an error.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

PACKAGE = "retrieval_geometry"
TABLE = "_tolerances"
"""A module of numbers with a name each. Of it only those count that are asked for."""

Node = TypeVar("Node", bound=ast.AST)


class Sources:
    """The files of the package below ``root``, each read once; so make a new one after an edit.

    Args:
        root: the package's folder; by default this one's.

    Example:
        >>> sources = Sources()
        >>> names = [path.name for path in sources.closure(sources.file("retrieval_geometry._files"))]
        >>> names  # it imports no other module of the package
        ['_files.py']
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or Path(__file__).parent).resolve()
        self._texts: dict[Path, str] = {}
        self._edges: dict[Path, frozenset[Path]] = {}
        self._faces: dict[Path, bool] = {}

    def file(self, module: str) -> Path:
        """The file of a module or of a package, by its dotted name.

        Raises:
            ValueError: there is none.
        """
        path = self.root.joinpath(*module.split(".")[1:])
        for found in (path / "__init__.py", path.with_suffix(".py")):
            if module.split(".")[0] == PACKAGE and found.is_file():
                return found
        raise ValueError(f"module must be one of this package, got {module!r}")

    def closure(self, *files: Path) -> list[Path]:
        """The files themselves and all package files that they depend on, sorted.

        Raises:
            ValueError: an import that cannot be followed; the message names file and line.
        """
        seen: set[Path] = set()
        queue = [path.resolve() for path in files]
        while queue:
            path = queue.pop()
            if path not in seen:
                seen.add(path)
                queue.extend(self._imports(path))
        return sorted(seen)

    def digest(self, files: Iterable[Path]) -> str:
        """A digest of the code of these files, 32 hexadecimal digits."""
        files = list(files)
        tree = {
            path: self._taken_of(path, files) if path.stem == TABLE else self.tree(path) for path in files
        }
        return combined(sorted(f"{self._name(path)} {_code(tree[path])}" for path in files))

    def calls(self, files: Iterable[Path], function: str) -> Iterator[ast.Call]:
        """The calls of a function of this name in these files."""
        for path in files:
            for call in self.nodes(path, ast.Call):
                if function in (getattr(call.func, "id", ""), getattr(call.func, "attr", "")):
                    yield call

    def tree(self, path: Path) -> ast.Module:
        """The syntax tree of a module, or of a chapter with its IPython magics blanked out."""
        return _parsed(self._text(path))

    def nodes(self, path: Path, kind: type[Node]) -> tuple[Node, ...]:
        """All nodes of one kind in that tree."""
        hashable: Any = kind
        return _nodes(self._text(path), hashable)

    def _taken_of(self, table: Path, files: Iterable[Path]) -> ast.Module:
        """The table of numbers without those that none of these files takes by name."""
        imports = [node for path in files for node in self.nodes(path, ast.ImportFrom)]
        taken = {
            alias.name for node in imports if node.module == f"{PACKAGE}.{TABLE}" for alias in node.names
        }
        if not taken or any(alias.name == TABLE for node in imports for alias in node.names):
            return self.tree(table)  # as a module: nobody knows which
        # What numbers are made of, such as dtypes, counts with all of them.
        taken |= {node.id for node in self.nodes(table, ast.Name) if isinstance(node.ctx, ast.Load)}
        body = self.tree(table).body
        return ast.Module([node for node in body if not _defined(ast.Module([node], [])) - taken], [])

    def _text(self, path: Path) -> str:
        if path not in self._texts:
            text = path.read_text(encoding="utf-8")
            if not path.is_relative_to(self.root):
                text = "\n".join("pass" if line[:1] in ("%", "!") else line for line in text.splitlines())
            self._texts[path] = text
        return self._texts[path]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.name

    def _imports(self, path: Path) -> frozenset[Path]:
        if path not in self._edges:
            found = _Imports(self, path).files
            executed = {init for target in found for init in self._packages_of(target)}
            self._edges[path] = frozenset(found | executed)
        return self._edges[path]

    def _packages_of(self, target: Path) -> list[Path]:
        """The ``__init__`` files that importing ``target`` executes, unless they only pass names on."""
        folders = [folder for folder in target.parents if folder.is_relative_to(self.root)]
        return [folder / "__init__.py" for folder in folders if not self.is_face(folder / "__init__.py")]

    def is_face(self, init: Path) -> bool:
        """Whether a file is an ``__init__`` that does nothing but pass on names of this package."""
        if init not in self._faces:
            self._faces[init] = init.name == "__init__.py" and all(
                (isinstance(node, ast.ImportFrom) and _top(node.module or "") == PACKAGE)
                or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
                for node in self.tree(init).body
            )
        return self._faces[init]

    def lookup(self, module: str, name: str) -> tuple[Path | None, str | None]:
        """Where ``from module import name`` leads: the file of that name, or the package that it stands for.

        Raises:
            ValueError: the package has no such name.
        """
        path = self.file(module)
        for node in self.tree(path).body:
            if isinstance(node, ast.ImportFrom) and _top(node.module or "") == PACKAGE:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        target, package = self.lookup(str(node.module), alias.name)
                        # What is no face runs when it is asked for a name, wherever that comes from.
                        return (target if self.is_face(path) else path), package
        if not self._is_package(path) or name in _defined(self.tree(path)):
            return path, None
        below = self.file(f"{module}.{name}")
        return (None, f"{module}.{name}") if self._is_package(below) else (below, None)

    def everything(self, package: str) -> set[Path]:
        """All files of a package."""
        return {path.resolve() for path in self.file(package).parent.rglob("*.py")}

    def _is_package(self, path: Path) -> bool:
        return path.name == "__init__.py"


@cache
def loaded_sources() -> Sources:
    """This package's files as they were when first asked for in this process, before it loads them."""
    return Sources()


class _Imports(ast.NodeVisitor):
    """The package files that one file asks for."""

    def __init__(self, sources: Sources, path: Path) -> None:
        self.sources, self.path = sources, path
        self.files: set[Path] = set()
        self.packages: dict[str, str] = {}  # names in this file that stand for a package
        self.used: set[str] = set()
        whole, by_name = sources.nodes(path, ast.Import), sources.nodes(path, ast.ImportFrom)
        imports: list[ast.Import | ast.ImportFrom] = [*whole, *by_name]
        for node in imports:
            try:
                self._bind(node)
            except ValueError as error:
                raise ValueError(f"{path}, line {node.lineno}: {error}") from None
        for call in sources.calls([path], "of_each_paper"):
            if (name := literal(call, 0)) is None:
                raise ValueError(f"{path}, line {call.lineno}: of_each_paper needs a literal string")
            self.files |= set(sources.root.glob(f"papers/*/{name}.py"))
        if self.packages:
            self.visit(sources.tree(path))
        for name in self.packages.keys() - self.used:  # perhaps another file takes it from here
            self.files |= sources.everything(self.packages[name])

    def _bind(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _top(alias.name) == PACKAGE:
                    self._bind_module(alias)
        elif node.level:
            raise ValueError("a relative import cannot be followed; write the package out")
        elif _top(node.module or "") == PACKAGE:
            for alias in node.names:
                if alias.name == "*":
                    raise ValueError("import * cannot be followed; name what is needed")
                target, package = self.sources.lookup(str(node.module), alias.name)
                self._keep(target, package, alias.asname or alias.name)

    def _bind_module(self, alias: ast.alias) -> None:
        path = self.sources.file(alias.name)
        is_package = path.name == "__init__.py"
        if not is_package:
            self.files.add(path)
        if alias.asname and is_package:
            self.packages[alias.asname] = alias.name
        elif not alias.asname:
            self.packages[PACKAGE] = PACKAGE
            self.used |= {PACKAGE} if not is_package else set()

    def _keep(self, target: Path | None, package: str | None, name: str) -> None:
        if target is not None:
            self.files.add(target)
        if package is not None:
            self.packages[name] = package

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Follow ``package.subpackage.name`` from its first name."""
        names, base = [node.attr], node.value
        while isinstance(base, ast.Attribute):
            names, base = [base.attr, *names], base.value
        if not (isinstance(base, ast.Name) and base.id in self.packages):
            self.generic_visit(node)
            return
        self.used.add(base.id)
        package: str | None = self.packages[base.id]
        for name in names:
            assert package is not None
            try:
                target, below = self.sources.lookup(package, name)
            except ValueError:  # something like __path__, or another variable of the same name
                break
            self.files |= {target} if target else set()
            if below is None:
                return
            package = below
        assert package is not None
        self.files |= self.sources.everything(package)

    def visit_Name(self, node: ast.Name) -> None:
        """A package that is handed on whole."""
        if node.id in self.packages and isinstance(node.ctx, ast.Load):
            self.used.add(node.id)
            self.files |= self.sources.everything(self.packages[node.id])


@cache
def _parsed(text: str) -> ast.Module:
    """The syntax tree without docstrings, other texts that stand alone, and what only type checkers read."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = [part for part in body if not _is_idle(part)]
    return tree


@cache
def _nodes(text: str, kind: Any) -> tuple[Any, ...]:
    return tuple(node for node in ast.walk(_parsed(text)) if isinstance(node, kind))


@cache
def _code(tree: ast.Module) -> str:
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_idle(part: ast.stmt) -> bool:
    if isinstance(part, ast.If) and not part.orelse:
        return "TYPE_CHECKING" in (getattr(part.test, "id", ""), getattr(part.test, "attr", ""))
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)


def literal(call: ast.Call, position: int) -> str | None:
    """A positional argument of a call, if it is a literal string."""
    argument = call.args[position] if len(call.args) > position else None
    return argument.value if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else None


def combined(parts: Iterable[str]) -> str:
    """One digest of several texts, 32 hexadecimal digits."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _top(module: str) -> str:
    return module.split(".")[0]


def _defined(tree: ast.Module) -> set[str]:
    """Names that a module gives a value at its top level, other than by imports."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        found |= {
            part.id
            for part in ast.walk(node)
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
        }
    return found

"""Docstrings keep their word: every example runs, and every exported name says all that a reader needs.

After its formula stands one line, ``Source: [geometric] eq. 7. Derived in chapter 3.``: a paper of this book
and the place in it, a reference with its year, or "this package's own". Names that no chapter derives, as
loaders, are ``Used in chapter 10``, by an experiment if not in the text, or ``in no chapter``. The kind of a
name alone decides which parts its docstring owes.
"""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Iterator
from enum import Enum
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import retrieval_geometry

PACKAGE = Path(retrieval_geometry.__file__).parent
CHAPTERS = {
    int(path.name[:2]): path.read_text(encoding="utf-8")
    for path in (Path(__file__).parents[1] / "book" / "chapters").glob("[0-9][0-9]_*.py")
}
TENSORS = re.compile(r"Tensor|ndarray|Gaussian|Values|Labels|Floats")
"""In an annotation: tensors, arrays, and what is made of them."""

SHAPE = re.compile(r"``\((?:\w+(?: [-+*/] \w+)*,? ?)+(?:, \.\.\.)?\)|``\(\.\.\., \w+\)")
"""``(P, Q)``, ``(n,)``, ``(..., D)``."""

SOURCE = re.compile(r"Source: (?P<source>.+?)\. (?:Derived|Used) in (?:chapters? \d|no chapter)")
PLACE = r"(?:eqs?\. \d|section \d|Algorithm \d|Table \d|Figure \d|erratum \d|errata \d|abstract)"
KNOWN = re.compile(
    rf"^\[(?:geometric|wasserstein-dml|rankmi|edms|ae-svc)\] {PLACE}|\D (?:19|20)\d\d|^this package's own"
)


# --- Examples


def docstrings(path: Path) -> Iterator[tuple[str, str, int]]:
    """Every string of a module that stands alone, as a docstring does: where, the text, and its line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        for statement in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            value = getattr(statement, "value", None)
            if (
                isinstance(statement, ast.Expr)
                and isinstance(value, ast.Constant)
                and isinstance(value.value, str)
            ):
                yield getattr(node, "name", "module"), value.value, statement.lineno


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


EXAMPLES = [
    pytest.param(path, text, line, id=f"{module_name(path).partition('.')[2]}:{name}")
    for path in sorted(PACKAGE.rglob("*.py"))
    for name, text, line in docstrings(path)
    if ">>>" in text or "Example:" in text
]


@pytest.mark.parametrize(("path", "text", "line"), EXAMPLES)
def test_example_runs_and_prints_what_it_says(path: Path, text: str, line: int) -> None:
    """With the names of its module, torch and np; the output is compared letter by letter."""
    module = importlib.import_module(module_name(path))
    names = {**vars(module), "torch": torch, "np": np}
    test = doctest.DocTestParser().get_doctest(text, names, module_name(path), str(path), line - 1)
    assert test.examples, "an Example without a line that runs"
    assert not any(doctest.SKIP in example.options for example in test.examples)
    said: list[str] = []
    doctest.DocTestRunner().run(test, out=said.append)
    assert not said, "".join(said)


# --- Exported names


class Exported(NamedTuple):
    """An exported name: what it is, and what its docstring says, on one line."""

    name: str
    value: Any
    doc: str

    @property
    def kind(self) -> str:
        if not callable(self.value):
            return "table"
        if not inspect.isclass(self.value):
            return "function"
        if issubclass(self.value, Exception):
            return "error"
        is_tuple = issubclass(self.value, tuple)
        is_record = is_tuple or dataclasses.is_dataclass(self.value) or issubclass(self.value, Enum)
        return "record" if is_record else "class"

    @property
    def takes_or_gives_tensors(self) -> bool:
        """By the annotations of a function, of a record's fields, of the making and the call of a class."""
        if self.kind in ("table", "error"):
            return False
        parts: list[Any] = [self.value]
        if self.kind == "record":
            return bool(TENSORS.search(str(getattr(self.value, "__annotations__", {}))))
        if self.kind == "class":
            parts = [
                getattr(self.value, name) for name in ("__init__", "forward") if hasattr(self.value, name)
            ]
        return any(TENSORS.search(str(inspect.signature(part))) for part in parts)

    @property
    def may_refuse(self) -> bool:
        """A function of something, a class, and a record that checks its fields."""
        if self.kind == "function":
            return bool(inspect.signature(self.value).parameters)
        checks = "__post_init__" in vars(self.value) if inspect.isclass(self.value) else False
        return self.kind == "class" or (self.kind == "record" and checks)


def public_packages() -> list[ModuleType]:
    """The sub-packages and modules that export names, and those in them: papers stand two deep."""
    found = []
    for info in pkgutil.walk_packages(retrieval_geometry.__path__, "retrieval_geometry."):
        if any(part.startswith("_") for part in info.name.split(".")) or ".book" in info.name:
            continue
        source = Path(importlib.util.find_spec(info.name).origin)  # type: ignore[union-attr, arg-type]
        if "\n__all__ = " in source.read_text(encoding="utf-8") and info.ispkg:
            found.append(importlib.import_module(info.name))
    return [*found, importlib.import_module("retrieval_geometry.coresets")]


def documentation(module: ModuleType, name: str) -> str:
    """The docstring of a class or function; of a table the string below it, where it is defined."""
    value = getattr(module, name)
    if callable(value):
        return inspect.getdoc(value) or ""
    for path in sorted(Path(str(module.__file__)).parent.glob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for statement, after in pairwise(body):
            targets = getattr(statement, "targets", [getattr(statement, "target", None)])
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                text = after.value if isinstance(after, ast.Expr) else None
                return str(text.value) if isinstance(text, ast.Constant) else ""
    return ""


def exported() -> list[Exported]:
    names = []
    for module in public_packages():
        short = module.__name__.partition(".")[2]
        own = [
            name
            for name, value in vars(module).items()
            if getattr(value, "__module__", "") == module.__name__
        ]
        for name in getattr(module, "__all__", [name for name in own if not name.startswith("_")]):
            text = " ".join(documentation(module, name).split())
            names.append(Exported(f"{short}.{name}", getattr(module, name), text))
    return names


NAMES = exported()
OWES_SOURCE = [name for name in NAMES if name.kind in ("function", "class")]
"""Tables list, records hold and errors say what functions and classes do; the source is theirs."""


def named(names: list[Exported]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("one", names, ids=[one.name for one in names])


@named([one for one in NAMES if one.takes_or_gives_tensors])
def test_shapes_are_given(one: Exported) -> None:
    assert SHAPE.search(one.doc), f"{one.name} takes or gives tensors of no shape"


@named([one for one in NAMES if one.may_refuse])
def test_what_is_raised_is_said(one: Exported) -> None:
    assert re.search(r"Raises: (?:\w+\.)*\w+(?:Error|Interrupt): |Raises nothing", one.doc), one.name


@named(OWES_SOURCE)
def test_the_source_is_named(one: Exported) -> None:
    found = SOURCE.search(one.doc)
    assert found, f"{one.name} has no line 'Source: ... . Derived in chapter N.'"
    assert KNOWN.search(found["source"]), f"{one.name} has no paper, reference or own work: {found['source']}"


@named([one for one in NAMES if one.kind != "error"])
def test_the_chapter_exists_and_derives_it(one: Exported) -> None:
    bare = one.name.rpartition(".")[2]
    if "Used in no chapter." in one.doc:
        assert not [number for number, text in CHAPTERS.items() if re.search(rf"\b{bare}\b", text)]
        return
    found = re.search(r"(?P<how>Derived|Used) in chapters? (?P<chapters>\d[\d, and]*)", one.doc)
    assert found, f"{one.name} names no chapter"
    for number in re.findall(r"\d+", found["chapters"]):
        assert int(number) in CHAPTERS, f"{one.name} names chapter {number}, and there is none"
        if found["how"] == "Derived":
            assert re.search(rf"\b{bare}\b", CHAPTERS[int(number)]), f"chapter {number} does not name {bare}"

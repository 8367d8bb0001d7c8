"""Batched LU is broken on CPU in torch 2.13 with two threads or more: nothing here may use it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import retrieval_geometry

PACKAGE = Path(retrieval_geometry.__file__).parent
FORBIDDEN = {
    "inv",
    "inv_ex",
    "inverse",
    "solve",
    "solve_ex",
    "slogdet",
    "det",
    "logdet",
    "lu",
    "lu_factor",
    "lu_solve",
}
"""Upstream issues 142815 and 141358: wrong values, exceptions or hangs from about 150 rows."""


def torch_calls(source: str) -> set[str]:
    """Names reached through torch, torch.linalg or linalg of torch, and methods of tensors by those names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in FORBIDDEN:
            owner = ast.unparse(node.value)
            if not owner.startswith(("mp", "np", "numpy", "scipy", "sl", "ot")):
                found.add(f"{owner}.{node.attr}")
        if isinstance(node, ast.ImportFrom) and node.module in ("torch", "torch.linalg"):
            found |= {alias.name for alias in node.names if alias.name in FORBIDDEN}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_no_batched_lu(path: Path) -> None:
    assert not torch_calls(path.read_text(encoding="utf-8"))


def test_the_search_would_find_one() -> None:
    assert torch_calls("torch.linalg.inv(x)") == {"torch.linalg.inv"}
    assert torch_calls("x.logdet()") == {"x.logdet"}
    assert torch_calls("from torch.linalg import slogdet") == {"slogdet"}
    assert not torch_calls("np.linalg.solve(a, b)")

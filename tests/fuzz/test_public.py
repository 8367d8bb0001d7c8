"""Every public name, called with drawn arguments, good and spoilt.

``FUZZ_DRAWS=2000 pytest tests/fuzz`` tries longer.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import retrieval_geometry

from .catalogue import ENTRIES, METHODS, NO_CALL
from .kinds import kinds_of
from .known import is_known
from .law import Entry, is_finite, judge, names_in

DRAWS = int(os.environ.get("FUZZ_DRAWS", "15"))
APART = {"book", "cli"}
"""Subpackages that are commands and not for import; the parsers behind them are in ``test_files``."""


def public_modules() -> list[ModuleType]:
    """The subpackages and the modules beside them."""
    names = [info.name for info in pkgutil.iter_modules(retrieval_geometry.__path__)]
    return [
        importlib.import_module(f"retrieval_geometry.{name}")
        for name in names
        if not name.startswith("_") and name not in APART
    ]


def public_names(module: ModuleType) -> set[str]:
    """What a module says it exports, or else what it defines without an underscore."""
    defined = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    return set(getattr(module, "__all__", defined))


def test_every_public_name_is_tried() -> None:
    """A name that is newly exported needs an entry in the catalogue."""
    public = {
        f"{module.__name__.partition('.')[2]}.{name}"
        for module in public_modules()
        for name in public_names(module)
    }
    assert public == set(ENTRIES) | set(NO_CALL)
    assert not set(ENTRIES) & set(NO_CALL)


@st.composite
def calls(draw: st.DrawFn, name: str, entry: Entry) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
    """Good arguments, of which up to two are spoilt; and how."""
    seed = draw(st.integers(0, 20))
    good = {argument: make(seed) for argument, make in entry.arguments.items()}
    most = min(2, len(good))
    fewest = min(1, most) if entry.only_spoilt else 0
    chosen = draw(st.lists(st.sampled_from(sorted(good)), unique=True, min_size=fewest, max_size=most))
    spoilt = []
    for argument in chosen:
        kinds = kinds_of(good[argument], argument not in entry.unbounded, argument == "itself")
        kind = draw(st.sampled_from(sorted(kinds)))
        assume(not is_known(name, argument, kind))
        spoilt.append((name, argument, kind))
        try:
            good[argument] = kinds[kind](good[argument])
        except Exception:
            assume(False)  # no such argument can be made
    return good, spoilt


@pytest.mark.parametrize("name", sorted({**ENTRIES, **METHODS}))
def test_an_answer_or_a_refusal_by_name(name: str) -> None:
    entry = ENTRIES.get(name) or METHODS[name]
    draws = DRAWS if entry.arguments else 1

    @settings(
        max_examples=draws,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(calls(name, entry))
    def law(drawn: tuple[dict[str, Any], list[tuple[str, str, str]]]) -> None:
        arguments, _ = drawn
        judge(lambda: entry.call(**arguments), names_in(entry, arguments), is_finite(arguments))

    law()

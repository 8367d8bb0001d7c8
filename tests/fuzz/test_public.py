"""Every public name, called with drawn arguments, good and spoilt.

``FUZZ_DRAWS=2000 pytest tests/fuzz`` tries longer.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import retrieval_geometry

from .catalogue import ENTRIES, METHODS, NO_CALL
from .kinds import Kind, kinds_of
from .law import REFUSED, Entry, is_finite, judge, names_in

DRAWS = int(os.environ.get("FUZZ_DRAWS", "15"))
APART = {"book", "cli", "own_pictures", "page"}
"""Commands (see ``test_command_line``), and what chapters alone call."""


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


def ways(entry: Entry, good: dict[str, Any]) -> list[tuple[str, str, Kind]]:
    """Each argument with each kind that spoils it."""
    return [
        (argument, label, kind)
        for argument, value in good.items()
        for label, kind in kinds_of(value, argument not in entry.unbounded, argument == "itself").items()
    ]


@st.composite
def calls(draw: st.DrawFn, entry: Entry) -> tuple[dict[str, Any], list[str]]:
    """Good arguments, of which up to two are spoilt; and how."""
    seed = draw(st.integers(0, 20))
    good = {argument: make(seed) for argument, make in entry.arguments.items()}
    possible = ways(entry, good)
    fewest = int(entry.only_spoilt)
    chosen = draw(st.lists(st.sampled_from(possible), max_size=2, min_size=fewest)) if possible else []
    how = []
    for argument, label, kind in chosen:
        how.append(f"{argument}: {label}")
        try:
            good[argument] = kind(good[argument])
        except Exception:
            assume(False)  # no such argument can be made, or not out of what is spoilt already
    return good, how


@pytest.mark.parametrize("name", sorted({**ENTRIES, **METHODS}))
def test_an_answer_or_a_refusal_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a word is a path as well
    entry = ENTRIES.get(name) or METHODS[name]
    if not entry.arguments:
        assert judge(entry.call, [], finite=True) is not REFUSED
        return
    good_calls_answered: list[bool] = []

    @settings(
        max_examples=DRAWS,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(calls(entry))
    def law(drawn: tuple[dict[str, Any], list[str]]) -> None:
        arguments, spoilt = drawn
        names, finite = names_in(entry, arguments), is_finite(arguments)
        found = judge(lambda: entry.call(**arguments), names, finite)
        if not spoilt:
            good_calls_answered.append(found is not REFUSED)

    law()
    assert any(good_calls_answered) != (entry.refused or entry.only_spoilt), good_calls_answered

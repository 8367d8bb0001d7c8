"""Compiled loops where nothing can be written."""

from __future__ import annotations

import pytest

from retrieval_geometry import _compiled


def test_compiles_without_a_folder_for_the_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    # numba raises where neither the package's folder nor the user's cache folder can be written.
    import numba.typed  # compiles as well

    njit = numba.njit

    def without_cache(cache: bool = False, **options: object) -> object:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", without_cache)
    assert _compiled.compiled(_compiled.EXACT_ROUNDING)(lambda number: number + 1)(1) == 2

"""Numbers in tables stay in one piece, and what is no number stays as it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_geometry.reporting.tables import markdown_table
from retrieval_geometry.reporting.typeset import JOIN, MINUS, NO_BREAK, unbroken


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.62 [0.55, 0.69]", "0.62 [0.55,~0.69]"),
        ("-0.07 [-0.17, +0.04]", "_0.07 [_0.17,~+0.04]"),
        ("**-0.98** [-1.00, -0.9]*", "**_0.98** [_1.00,~_0.9]*"),
        ("13.8 %, 18 µs, 1.2 GB, 5 s", "13.8~%, 18~µs, 1.2~GB, 5~s"),
        ("98–100 %", f"98–{JOIN}100~%"),
        ("(-25753.4)", "(_25753.4)"),
        ("5 samples of 2 size", "5 samples of 2 size"),
        ("4e-06, 2017-09-01, cp-311, SMT-2, 10-12", "4e-06, 2017-09-01, cp-311, SMT-2, 10-12"),
        ("$-1$ and `[-1, 2]` and [a](b.html#-1)", "$-1$ and `[-1, 2]` and [a](b.html#-1)"),
        ("[Qian et al., 2017]", "[Qian et al., 2017]"),
    ],
)
def test_numbers_are_kept_in_one_piece(text: str, shown: str) -> None:
    assert unbroken(text) == shown.replace("~", NO_BREAK).replace("_", MINUS)


@given(st.text(alphabet="0123456789[], -–+.%smea$`()*", max_size=40))
def test_nothing_but_spaces_and_signs_changes(text: str) -> None:
    shown = unbroken(text)
    assert shown.replace(NO_BREAK, " ").replace(MINUS, "-").replace(JOIN, "") == text
    assert unbroken(shown) == shown


def test_every_table_is_set_so() -> None:
    table = markdown_table(["a", "b"], [["-1", "0.5 [-0.1, 0.7] in 3 ms"]])
    assert f"| {MINUS}1 | 0.5 [{MINUS}0.1,{NO_BREAK}0.7] in 3{NO_BREAK}ms |" in table

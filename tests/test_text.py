"""Names from outside command nothing: in a terminal, in Markdown, in a figure."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from retrieval_geometry._text import markdown_text, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name.png", "plain name.png"),
        ("日本 säge\u00a0b.png", "日本 säge\u00a0b.png"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("gpj.\u202egnp", r"gpj.\u202egnp"),
        ("\u2028\u200b\ufeff\x7f\x9b", r"\u2028\u200b\ufeff\x7f\x9b"),
        ("\udcff.png", r"\udcff.png"),
    ],
)
def test_what_is_no_glyph_is_escaped(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_what_is_shown_holds_no_command_and_can_be_encoded(text):
    shown = printable(text)
    assert all(unicodedata.category(sign) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for sign in shown)
    shown.encode()


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>.png",
        "*a* _b_ `c` $d$ ~~e~~",
        "[x](http://y) ![z](q) &lt; \\* {role}`r`",
        "a|b|c",
        "# title",
        'say "it"',
        "x^2^ 100% @me",
    ],
)
def test_markdown_reads_as_the_name(name):
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = markdown.parseInline(markdown_text(name))[0].children or []
    assert {token.type for token in tokens} <= {"text", "text_special"}
    assert "".join(token.content for token in tokens) == name
    assert "|" not in markdown_text(name)
    assert "<" not in markdown_text(name)

"""Text from outside, such as the names of files, shown as what it is: it commands no terminal and no page."""

import unicodedata

MARKDOWN = frozenset("\\`*_{}[]<>()#!|$~^&\"'%@")


def printable(text: object) -> str:
    r"""The text with an escape for every character that is no glyph: newlines, ANSI codes, bidi controls.

    What cannot be encoded, as in a file name of no known encoding, is escaped as well.

    Example:
        >>> print(printable("a\x1b[31m\nb"))
        a\x1b[31m\nb
    """
    return "".join(
        sign if sign.isprintable() or unicodedata.category(sign) == "Zs" else _escape(sign)
        for sign in str(text)
    )


def markdown_text(text: object) -> str:
    """The text as Markdown that reads the same, in HTML too: signs with a meaning become entities.

    Example:
        >>> markdown_text("a*b|c")
        'a&#42;b&#124;c'
    """
    return "".join(f"&#{ord(sign)};" if sign in MARKDOWN else sign for sign in printable(text))


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")

"""Markup that was left over in a built page: what should have been rendered and stands there as text.

Permitted contents depend on the element. A code cell and a block of Markdown show any source. A
block in another language shows dollars and stars, but no directive. Code without a language, and text, show
nothing of the kind: that is where the rest of a page lands when a fence closes too early.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator
from typing import Any

ROLES = "numref|eq|ref|doc|term|math|abbr|sub|sup|code|download|index|cite(?::\\w+)?|glue(?::\\w+)?|prf:\\w+"
DIRECTIVES = (
    "table|figure|image|list-table|exercise|solution(?:-\\w+)?|bibliography|note|warning|admonition|div"
)
OPTIONS = "name|label|format|class|alt|caption|width|align|nonumber|filter|style"
MARKUP = (
    ("fence", re.compile(r"`{3,}|~{3,}|:{3,}")),
    ("role", re.compile(rf"\{{(?:{ROLES})\}}|(?<![\\$\w])\{{[a-z][\w:+-]*\}}`|\[@\w")),
    (
        "directive",
        re.compile(rf"^\s*\.\. [\w:-]+::|\{{(?:{DIRECTIVES})\}}|^\s*:(?:{OPTIONS}):(?=\s|$)", re.M),
    ),
    (
        "cell marker",
        re.compile(r"^\s*(?:# ?)?%%(?: |$)|%%\s+(?:\[markdown\]|tags=)|^\s*\+\+\+\s*(?:\{|$)", re.M),
    ),
)
COMMANDS = "[dt]?frac|math[a-z]+|operatorname|lVert|Vert|begin|sqrt|sum|int|Sigma|mu|top|cdot|le|ge|R|N|tr"
FORMULA = re.compile(rf"\$[^$\n]{{1,200}}\$|\$\$|\\\(|\\\[|\\(?:{COMMANDS})(?![a-z])")
# A literal may name shell variables; a formula in it has a command, a power or an index.
LITERAL_FORMULA = re.compile(
    r"\$(?=\S)[^$\n]*(?:\\[A-Za-z]|\^|_\{)[^$\n]*(?<=\S)\$|\\(?:frac|mathbb|operatorname)\{"
)
TAGS = "a|b|br|code|details|div|em|figure|h[1-6]|i|img|li|ol|p|pre|script|span|strong|sub|sup|table|t[dhr]|ul"
HTML = re.compile(rf"</?(?:{TAGS})(?:\s[^<>]*=[^<>]*)?/?>|<!--|&(?:lt|gt|amp|nbsp|quot|#\d+);")
EMPHASIS = re.compile(r"(?<![\w*])\*\*(?=\S)[^*\n]+(?<=\S)\*\*(?![\w*])")
LITERAL = (*MARKUP, ("formula", FORMULA), ("HTML", HTML), ("emphasis", EMPHASIS))
PROSE = (
    *LITERAL,
    ("emphasis", re.compile(r"\*\*")),
    (
        "Markdown",
        re.compile(r"^#{1,6} \S|^\|.*\|\s*$|\[[^\]\n]+\]\((?:https?:|#|[\w./]+\.(?:md|html))", re.M),
    ),
    ("reference", re.compile(r"\?\?|(?<![\w/-])(?:tab|fig|eq|thm|lem|prop|def|alg|sec)-\d\d-[a-z]")),
)
INLINE = (*MARKUP, ("formula", LITERAL_FORMULA))
PYTHON = re.compile(
    r"^\s*\(?['\"]|\b(?:np\.\w+|tensor|array|Decimal|Fraction)\(|<[\w.]+ object|\b(?:(?i:nan|inf)|None)\b"
)


def leftovers(soup: Any, keys: Collection[str] = ()) -> Iterator[str]:
    """Yield the markup that shows in the text, the code and the attributes of one page.

    Args:
        soup: the parsed page; it is left as it is.
        keys: names that were glued: a name itself has no business on a page.
    """
    soup = copy.copy(soup)
    article = soup.select_one("article") or soup
    for node in article.select("span.pasted-text"):
        if PYTHON.search(node.get_text()):
            yield f"a glued value shows Python: {node.get_text()[:80]!r}"
    for node in article.select("script, style, .math, .cell_input, .headerlink"):
        node.extract()
    for rules, text in _texts(soup, article):
        for what, pattern in rules:
            if match := pattern.search(text):
                yield f"unrendered {what}: {_around(text, match)!r}"
                break
        for key in keys:
            if match := re.search(rf"(?<![\w-]){re.escape(key)}(?![\w-])", text):
                yield f"the name of a glued value: {_around(text, match)!r}"


def _texts(soup: Any, article: Any) -> Iterator[tuple[Any, str]]:
    """Yield every text of a page with the rules that hold for it; blocks of Markdown may hold anything."""
    for node in [soup.title, *article.find_all(True)]:
        for attribute in ("alt", "title", "aria-label"):
            if node and isinstance(node.get(attribute), str):
                yield PROSE, node[attribute]
    for node in article.select("pre"):
        language = _language(node)
        if language not in {"md", "markdown", "myst", "rst", "restructuredtext"}:
            yield (MARKUP if language else LITERAL), node.get_text()
        node.extract()
    for node in article.select("code"):
        yield INLINE, node.get_text()
        node.replace_with(" ")
    yield PROSE, soup.title.get_text() if soup.title else ""
    yield PROSE, article.get_text()


def _language(node: Any) -> str | None:
    """Return the language that a block of code was declared to be in, or None."""
    for parent in node.parents:
        for name in parent.get("class") or ():
            if name.startswith("highlight-"):
                language = name.removeprefix("highlight-")
                return None if language in {"none", "default", "text", "myst-ansi"} else str(language)
    return None


def _around(text: str, match: re.Match[str]) -> str:
    return text[max(0, match.start() - 30) : match.end() + 30]

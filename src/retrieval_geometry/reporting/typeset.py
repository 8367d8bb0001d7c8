"""Numbers that stay in one piece on a page: an interval is not broken, nor a number and its unit."""

import re
from typing import Any

NO_BREAK, MINUS, JOIN = "\u00a0", "\u2212", "\u2060"
_LITERAL = re.compile(r"(\$[^$]*\$|`[^`]*`|\]\([^)]*\))")  # formulas, code and addresses stay as they are
_INTERVAL = re.compile(r"\[[-+\u2212\d][^\[\]a-zA-Z]*, ?[-+\u2212\d][^\[\]a-zA-Z]*\]")
_NEGATIVE = re.compile(r"(?<![\w.)\]-])-(?=\d)")
_RANGE = re.compile(r"(?<=\d)–(?=\d)")
_UNIT = re.compile(r"(?<=\d) (?=(?:%|ns|µs|ms|s|h|MB|GB)(?!\w))")


def interval_text(interval: Any, form: str, bold: bool = False) -> str:
    """Value, low and high of anything that has them, each in the same format; the value bold if asked.

    >>> from retrieval_geometry.evaluation import Interval
    >>> interval_text(Interval(0.62, 0.55, 0.69), ".2f")
    '0.62 [0.55, 0.69]'
    """
    mark = "**" if bold else ""
    return f"{mark}{interval.value:{form}}{mark} [{interval.low:{form}}, {interval.high:{form}}]"


def unbroken(text: str) -> str:
    """Return Markdown text with no-break spaces and true minus signs in its numbers.

    A line may still end between a value and its interval.

    >>> unbroken("-0.62 [-0.70, 0.10] in 18 ms").replace(NO_BREAK, "~")
    '−0.62 [−0.70,~0.10] in 18~ms'
    """
    # Odd places hold what the pattern has caught.
    parts = _LITERAL.split(text)
    return "".join(part if i % 2 else _numbers(part) for i, part in enumerate(parts))


def _numbers(text: str) -> str:
    text = _NEGATIVE.sub(MINUS, _UNIT.sub(NO_BREAK, _RANGE.sub(f"–{JOIN}", text)))
    return _INTERVAL.sub(lambda found: found[0].replace(" ", NO_BREAK).replace("-", MINUS), text)

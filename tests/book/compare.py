"""What differs between two builds: numbers of results and outputs of chapters, cell by cell.

Times, and what tells of the run and not what it found, may differ. ``python -m tests.book.compare A B``
compares the folders ``build`` of two checkouts.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from retrieval_geometry.reporting.results import Result

Leaves = Iterator[tuple[str, object]]

OF_THE_RUN = {"provenance", "digest", "schema"}
"""What a result says beside what it found."""

ROWS_OF_THE_RUN = {"Package", "Libraries", "Finished", "Machine", "Cost"}
"""The same in the tables of chapters, by the first column."""

TIMED = re.compile(r"seconds|\btime\b|[µnm]s\b|memory|\bMB\b|\bGB\b")
"""Names of values, and heads of columns, that hold times or memory."""

TIMES = re.compile(
    r"\d[\d.,]*\s*(?:(?:micro|milli|nano)?seconds?|minutes?|[µmn]?s|[MG]B|times as (?:long|fast))\b"
)
MEASURES = re.compile(r"\b(?:seconds_of|processor_time|perf_counter|process_time|format_seconds)\(")
"""The code of a cell that takes times: all numbers that it prints may hang on them."""


def differences(first: Path, second: Path) -> list[str]:
    """One line for each thing in which the builds in two folders differ, the second one's value last."""
    found = [
        *_of_files(first / "results", second / "results", "*.json", result_leaves),
        *_of_files(first / "executed", second / "executed", "[!.]*.ipynb", chapter_leaves),
    ]
    pages = [
        {str(path.relative_to(folder)) for path in folder.glob("html/**/*.html")}
        for folder in (first, second)
    ]
    return [*found, *(f"{name} is there once only" for name in sorted(pages[0] ^ pages[1]))]


def _of_files(
    first: Path, second: Path, pattern: str, read: Callable[[Path], Leaves], common: bool = False
) -> Iterator[str]:
    names = [{path.name for path in folder.glob(pattern)} for folder in (first, second)]
    if not common:
        yield from (f"{name} is there once only" for name in sorted(names[0] ^ names[1]))
    for name in sorted(names[0] & names[1]):
        was, now = dict(read(first / name)), dict(read(second / name))
        for key in dict.fromkeys([*was, *now]):
            if was.get(key) != now.get(key):
                yield f"{name} {key}: {_part(was.get(key), now.get(key))}"


def recorded_differences(recorded: Path, results: Path) -> list[str]:
    """The same for results alone, those of both folders."""
    return list(_of_files(recorded, results, "*.json", result_leaves, common=True))


def result_leaves(path: Path) -> Leaves:
    """Every value of a result with the path to it, without times and provenance."""
    Result.read(path)  # which refuses a damaged one
    yield from _leaves(json.loads(path.read_text(encoding="utf-8")))


def chapter_leaves(path: Path) -> Leaves:
    """Source and outputs of every cell without times, and without progress, which goes to stderr."""
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = _text(cell["source"])
        yield f"cell {number} source", source
        outputs = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
        for place, output in enumerate(outputs):
            data = output.get("data", {"text": output.get("text", "")})
            for kind, value in data.items():
                yield f"cell {number} output {place} {kind}", _output(kind, _text(value), source)


def _output(kind: str, text: str, source: str) -> str:
    if kind.startswith("image/") and "svg" not in kind:
        return hashlib.sha256(text.encode()).hexdigest()[:12]
    text = re.sub(r"\b0x[0-9a-f]{6,}", "0x", text)
    if MEASURES.search(source):
        return re.sub(r"\d[\d.,]*(?:\s[µmn]?s\b)?", "#", text)  # \s: also one that does not break
    return "\n".join(_untimed_lines(text.splitlines()))


def _untimed_lines(lines: list[str]) -> Iterator[str]:
    """Lines, those of tables in Markdown cell by cell, with times left out."""
    timed: set[int] = set()
    before = ""
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            yield TIMES.sub("#", line)
        elif not before.startswith("|"):
            timed = {place for place, cell in enumerate(cells) if TIMED.search(cell)}
            yield line
        elif cells[0] not in ROWS_OF_THE_RUN:
            yield " | ".join(
                "#" if place in timed else TIMES.sub("#", cell) for place, cell in enumerate(cells)
            )
        before = line


def _leaves(value: object, path: str = "") -> Leaves:
    last = path.rsplit(".", 1)[-1]
    if last in OF_THE_RUN or TIMED.search(last.replace("_", " ")):
        return
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _leaves(part, f"{path}.{number}")
    else:
        yield path, TIMES.sub("#", value) if isinstance(value, str) else value


def _text(value: object) -> str:
    if isinstance(value, list):
        return "".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _part(was: object, now: object, width: int = 60) -> str:
    """Two values where they begin to differ."""
    if not (isinstance(was, str) and isinstance(now, str)):
        return (
            f"{was!r} became {now!r}"
            if was is not None and now is not None
            else f"{was!r:.60} became {now!r:.60}"
        )
    start = next(
        (i for i, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), min(len(was), len(now))
    )
    start = max(0, start - width // 3)
    return f"{was[start : start + width]!r} became {now[start : start + width]!r}"


if __name__ == "__main__":
    lines = differences(Path(sys.argv[1]), Path(sys.argv[2]))
    print("\n".join(lines) or "nothing differs but times")
    sys.exit(bool(lines))

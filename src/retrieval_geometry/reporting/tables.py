"""Tables as Markdown text, made from results: pipes and emphasis, which MyST shows in HTML and LaTeX."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_geometry._text import markdown_text
from retrieval_geometry.reporting.claims import ClaimRow
from retrieval_geometry.reporting.measured import Metric
from retrieval_geometry.reporting.results import (
    Result,
)
from retrieval_geometry.reporting.typeset import NO_BREAK, interval_text, unbroken

METRIC_NAMES = {"P@1": "Top-1", "P@5": "Top-5", "P@10": "Top-10"}
SMALLER_IS_BETTER = {"variation", "noise"}

# What a paper printed: method -> metric (or "seconds") -> number.
PaperNumbers = Mapping[str, Mapping[str, float]]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A Markdown table; the first ``words`` columns are left-aligned, the others, of numbers, right.

    Pipes inside cells are escaped, and numbers kept in one piece.

    >>> print(markdown_table(["method", "Top-1"], [["BoW", "0.43"]]))
    | method | Top-1 |
    | :--- | ---: |
    | BoW | 0.43 |
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(
                f"every row needs {len(header)} cells like the header, got {len(row)}: {list(row)}"
            )
    rule = [":---" if column < words else "---:" for column in range(len(header))]
    lines = [_line([_escape(cell) for cell in header]), _line(rule)]
    return "\n".join(lines + [_line([_escape(cell) for cell in row]) for row in rows])


def format_metric(metric: Metric | None, bold: bool = False, digits: int = 2) -> str:
    """``0.62 [0.55, 0.69]``: value and interval, bold if asked; a dash for None.

    A single number has no interval to show: one of no width would look like certainty.
    """
    if metric is None:
        return "–"
    text = interval_text(metric, f".{digits}f", bold)
    return text.split(" ")[0] if metric.n == 1 else text


def format_interval(interval: Any, digits: int = 2, signed: bool = False, bold: bool = False) -> str:
    """``0.62 [0.55, 0.69]``, or ``+0.06 [-0.01, +0.13]``: anything with value, low and high."""
    return unbroken(interval_text(interval, f"{'+' if signed else ''}.{digits}f", bold))


def format_seconds(seconds: float | None) -> str:
    """Seconds with two digits and the fitting unit: ``5.1 s``, ``1.2 ms``, ``18 µs``; a dash for None."""
    if seconds is None:
        return "–"
    # The largest unit of which there is at least one.
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor:
            return f"{_two_digits(seconds / factor)} {unit}"
    return f"{_two_digits(seconds / 1e-9)} ns"


def format_power(value: float) -> str:
    """A number as its first digit and its power of ten: ``6e-8``, ``1e6``."""
    digit, power = f"{float(value):.0e}".split("e")
    return f"{digit}e{int(power)}"


def format_failures(fails: Any) -> list[str]:
    """``3 of 400``, and Wilson's 95 % interval of the share in per cent, ``0–2 %``.

    Args:
        fails: whether each independent draw fails: an array or tensor of any shape, not empty.
    """
    # Slow to import, and few need it.
    from scipy.stats import binomtest

    fails = np.asarray(fails)
    k, n = int(fails.sum()), fails.size
    # Wilson's, not the usual one: it has a width at 0 of n and at n of n.
    low, high = binomtest(k, n).proportion_ci(method="wilson")
    return [text.replace(" ", NO_BREAK) for text in (f"{k} of {n}", f"{100 * low:.0f}–{100 * high:.0f} %")]


def retrieval_table(
    results: Sequence[Result],
    paper: PaperNumbers | None = None,
    metrics: Sequence[str] = ("P@1", "P@5", "P@10"),
    methods: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    digits: int = 2,
) -> str:
    """Results as Table 1 of [geometric]: the paper's number, then ours with its interval, best in bold.

    Args:
        results: one or more results, each giving a column per metric.
        paper: the paper's numbers; methods it lacks get a dash. None: no column for them.
        metrics: which metrics, by their name in the result.
        methods: which methods, in this order; all of the first result by default.
        names: of the results in the header; their profiles by default.
        digits: decimals of our numbers.
    """
    # The first result sets the rows, as in the paper; others may lack some.
    methods = methods or [entry.method for entry in results[0].methods]
    names = names or [result.profile for result in results]
    header = ["Method"]
    for metric in metrics:
        short = METRIC_NAMES.get(metric, metric)
        header += [f"{short}, {name}" for name in (["paper"] if paper else []) + list(names)]
    rows = []
    for method in methods:
        row = [method_label(results, method)]
        for metric in metrics:
            row += [_paper_cell(paper, methods, method, metric)] if paper else []
            row += [_our_cell(result, methods, method, metric, digits) for result in results]
        rows.append(row)
    return markdown_table(header, rows)


def time_table(
    results: Sequence[Result],
    paper: PaperNumbers | None = None,
    methods: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> str:
    """Seconds for one comparison (the paper's and ours) and for modelling one image (ours)."""
    methods = methods or [entry.method for entry in results[0].methods]
    names = names or [result.profile for result in results]
    columns = [f"{kind}, {name}" for name in names for kind in ("comparison", "model of an image")]
    rows = []
    for method in methods:
        row = [method_label(results, method)]
        row += [format_seconds(paper.get(method, {}).get("seconds"))] if paper else []
        for result in results:
            entry = result.get(method)
            row.append(format_seconds(entry.seconds_per_comparison if entry else None))
            row.append(format_seconds(entry.seconds_model if entry else None))
        rows.append(row)
    return markdown_table(["Method", *(["comparison, paper"] if paper else []), *columns], rows)


def search_note(result: Result, method: str) -> str | None:
    """What the exact search of a method needed, from the notes of the result; None if it took all pairs."""
    notes = [note for note in result[method].notes if note.startswith("exact search")]
    return notes[0].split(": ")[1] if notes else None


def claims_table(rows: Sequence[ClaimRow]) -> str:
    """One line for each claim: the paper's sentence, our verdict, its rule, its evidence and its reach."""
    cells = [
        [f"{row.claim.sentence} ({row.claim.where})", row.marked, f"{row.claim.rule} {_because(row)}"]
        for row in rows
    ]
    return markdown_table(["Claim", "Verdict", "Rule, evidence, reach"], cells).replace("---:", ":---")


def verdicts_table(runs: Mapping[str, Sequence[ClaimRow]]) -> str:
    """The same claims judged by several runs: the sentence, and a verdict with its marks for each run."""
    cells = [
        [same[0].claim.sentence, *(row.marked for row in same)] for same in zip(*runs.values(), strict=True)
    ]
    return markdown_table(["Claim", *runs], cells).replace("---:", ":---")


def evidence_list(runs: Mapping[str, Sequence[ClaimRow]]) -> str:
    """Rule of each claim and, by run, the evidence and its reach: a definition list."""
    items = []
    for same in zip(*runs.values(), strict=True):
        claim = same[0].claim
        said = dict(zip(runs, (f"{row.marked}. {_because(row)}" for row in same), strict=True))
        if len(set(said.values())) == 1:  # mathematics does not depend on the run
            said = {"Any run": next(iter(said.values()))}
        lines = [f"{claim.sentence} ({claim.where})", f": *Rule.* {claim.rule}"]
        items.append("\n".join([*lines, *(f": *{run}.* {text}" for run, text in said.items())]))
    return unbroken("\n\n".join(items))


def _because(row: ClaimRow) -> str:
    reach = f" *Holds for*: {markdown_text(row.reach)}." if row.reach else ""
    return f"*Decided by*: {row.evidence}.{reach}"


def result_csv(result: Result) -> str:
    """All metrics of a result as comma-separated text: a row for each method and metric."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["method", "label", "metric", "value", "low", "high", "n"])
    for entry in result.methods:
        for name, metric in entry.metrics.items():
            lines.writerow([entry.method, entry.label, name, metric.value, metric.low, metric.high, metric.n])
    return text.getvalue()


def provenance_table(result: Result) -> str:
    """Provenance of a result: data, commit, machine, versions and cost, one fact a line."""
    made, data = result.provenance, result.dataset
    state = " with local changes" if made.dirty else ""
    facts = [
        ("Experiment", f"{result.experiment}, profile {result.profile}, seed {result.seed}"),
        ("Data", f"{data.name}: {data.images} images, {data.classes} classes, sha256 {data.sha256[:16]}…"),
        ("Licence", data.licence),
        *[("Weights", f"{weights.name}, sha256 {weights.sha256[:16]}…") for weights in made.weights],
        ("Package", f"{made.package_version}, commit {made.commit[:12]}{state}"),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in made.libraries.items())),
        *([("Finished", made.finished)] if made.finished else []),
        ("Machine", f"{made.device}; {made.cpu}, {made.threads} thread{'s' if made.threads > 1 else ''}"),
        ("Cost", f"{format_seconds(made.seconds)}, peak memory {_memory(made.peak_memory_mb)}"),
    ]
    facts = [(what, markdown_text(said)) for what, said in facts]  # names come from outside
    return markdown_table(["What", "This run"], facts).replace("---:", ":---")


def _best(values: Mapping[str, float | None], method: str, metric: str) -> bool:
    known = [value for value in values.values() if value is not None]
    # A lone number is no best one: nothing was compared.
    best = min if metric in SMALLER_IS_BETTER else max
    return len(known) > 1 and values[method] is not None and values[method] == best(known)


def _paper_cell(paper: PaperNumbers, methods: Sequence[str], method: str, metric: str) -> str:
    values = {name: paper.get(name, {}).get(metric) for name in methods}
    if values[method] is None:
        return "–"
    text = f"{values[method]:.2f}"
    return f"**{text}**" if _best(values, method, metric) else text


def _our_cell(result: Result, methods: Sequence[str], method: str, metric: str, digits: int) -> str:
    entries = [(name, result.get(name)) for name in methods]
    found = {name: entry.metrics.get(metric) if entry else None for name, entry in entries}
    values = {name: value.value if value else None for name, value in found.items()}
    return format_metric(found[method], _best(values, method, metric), digits)


def method_label(results: Sequence[Result], method: str) -> str:
    """The label of a method, from the first result that has it."""
    return next((entry.label for result in results if (entry := result.get(method))), method)


def _memory(megabytes: float | None) -> str:
    return "unknown" if megabytes is None else f"{megabytes / 1000:.1f} GB"


def _two_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape(cell: str) -> str:
    return unbroken(cell.replace("|", "\\|").replace("\n", " "))

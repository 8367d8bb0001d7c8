"""Rows of the tables that compare ways to learn a metric; a dash where a way was not run."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from retrieval_geometry.reporting.claims import ClaimRow
from retrieval_geometry.reporting.findings import Comparison
from retrieval_geometry.reporting.results import MethodResult, Result
from retrieval_geometry.reporting.tables import format_interval, markdown_table

NOT_RUN = "–"


def by_method(labels: Mapping[str, str], *columns: Mapping[str, str]) -> list[list[str]]:
    """A row for each method: its label, then its cell of each column.

    Args:
        labels: of the methods, in the order of the rows.
        columns: cells by method.

    >>> by_method({"w-triplet": "W-triplet", "margin": "Margin"}, {"margin": "0.62"})
    [['W-triplet', '–'], ['Margin', '0.62']]
    """
    return [[label, *(column.get(method, NOT_RUN) for column in columns)] for method, label in labels.items()]


def settings_table(runs: Mapping[str, Result], facts: Iterable[str]) -> str:
    """The same settings of several runs beside each other, all as words.

    Raises:
        KeyError: a run has no such setting.
    """
    rows = [[fact, *(str(run.settings[fact]) for run in runs.values())] for fact in facts]
    return markdown_table(["", *runs], rows, words=len(runs) + 1)


def format_lead(lead: Comparison, digits: int = 3) -> str:
    """``**+0.060** [+0.010, +0.130]``: a signed difference and its interval, bold if zero lies outside."""
    return format_interval(lead, digits, signed=True, bold=lead.low > 0 or lead.high < 0)


def lead_cells(found: Mapping[str, Mapping[str, Comparison]], metric: str) -> dict[str, str]:
    """The leads of one metric as a column for :func:`by_method`."""
    return {method: format_lead(leads[metric]) for method, leads in found.items()}


def trained(result: Result) -> list[MethodResult]:
    """The methods of which models were trained; a network taken as it is has none."""
    return [entry for entry in result.methods if entry.models is not None and entry.models.trained]


def seed_ranges(result: Result, metric: str) -> dict[str, float]:
    """For each trained method the range of a metric between its models, at least 0."""
    values = {entry.method: entry.models.means[metric] for entry in trained(result) if entry.models}
    return {method: max(of_models) - min(of_models) for method, of_models in values.items()}


def pairs_in_order(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[int, int]:
    """Of the pairs of methods that both have: those in the same order in both, and all.

    >>> pairs_in_order({"a": 3, "b": 2, "c": 1}, {"a": 0.5, "c": 0.7, "b": 0.4})
    (1, 3)
    """
    # A method that only one paper ran has no order to agree on.
    common = [name for name in second if name in first]
    pairs = list(combinations(common, 2))
    return sum((first[a] - first[b]) * (second[a] - second[b]) > 0 for a, b in pairs), len(pairs)


def places(values: Mapping[str, float]) -> dict[str, int]:
    """The place of each method by its value, the largest first; equal ones share the better place.

    >>> places({"a": 0.5, "b": 0.7, "c": 0.5})
    {'a': 2, 'b': 1, 'c': 2}
    """
    return {name: 1 + sum(other > value for other in values.values()) for name, value in values.items()}


def claims_by_run(judged: Mapping[str, Sequence[ClaimRow]]) -> str:
    """Claims with their rules and, in a line for each run, the verdict and its evidence.

    Args:
        judged: the same claims in the same order, judged by each run.
    """
    rows = []
    for same in zip(*judged.values(), strict=True):
        claim = same[0].claim
        said = f"{claim.sentence} (`{claim.paper}`, {claim.where}) *{claim.rule}*"
        for run, row in zip(judged, same, strict=True):
            rows.append([said, run, row.marked, row.evidence])
            said = ""
    return markdown_table(["Claim and *rule*", "on", "Verdict", "decided by"], rows, words=4)

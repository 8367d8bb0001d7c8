"""Findings about a sentence: comparisons with their intervals, and the rules that make a verdict.

A rule is a function of comparisons, stated in words in :data:`RULES`. Whatever was looked at for a claim
enters it, so its intervals must hold *at once*.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from retrieval_geometry.reporting.measured import is_number
from retrieval_geometry.reporting.typeset import interval_text

TIMING_NOISE = 1.5
"""Times that differ by less than this factor may be equal: other programs share the machine."""


class Verdict(StrEnum):
    """The verdict of results on a claim. Used in chapter 90."""

    REPRODUCED = "reproduced"
    CONTRADICTED = "contradicted"
    INCONCLUSIVE = "inconclusive"
    NOT_TESTED = "not tested here"


@dataclass(frozen=True)
class Comparison:
    """The first method minus the second in one metric; the claim says that this exceeds ``bound``.

    Used in chapter 90.

    Args:
        first: the method that the claim calls better.
        second: its rival.
        metric: the metric of both.
        value: the difference.
        low: lower end of its interval.
        high: upper end.
        queries: number of queries.
        groups: number of their independent groups.
        group_name: the name of the groups, in the plural.
        models: the fewest models that were trained on either side; None where nothing is trained.
        at_once: number of intervals, itself included, that hold at the same time.
        bound: 0 for "better"; below 0 for "better, or worse by no more than this".

    Raises:
        ValueError: the difference, an end of its interval or the bound is no number.
    """

    first: str
    second: str
    metric: str
    value: float
    low: float
    high: float
    queries: int
    groups: int
    group_name: str = "classes"
    models: int | None = None
    at_once: int = 1
    bound: float = 0.0

    def __post_init__(self) -> None:
        for name in ("value", "low", "high", "bound"):
            if not is_number(getattr(self, name)):
                raise ValueError(f"{name} must be a number, got {getattr(self, name)!r}")

    @property
    def verdict(self) -> Verdict:
        """By the side of the bound that the interval lies on; of one trained model nothing follows."""
        # Another training might say otherwise, whatever the interval over queries.
        if self.models == 1:
            return Verdict.INCONCLUSIVE
        if self.low > self.bound:
            return Verdict.REPRODUCED
        return Verdict.CONTRADICTED if self.high < self.bound else Verdict.INCONCLUSIVE

    @property
    def numbers(self) -> str:
        """Value and interval."""
        return interval_text(self, "+.3f")

    def __str__(self) -> str:
        return f"{self.first} minus {self.second}: {self.metric} {self.numbers}"


@dataclass(frozen=True)
class Ratio:
    """The claim says that the first takes more time than the second; ``value`` is the ratio of the times."""

    first: str
    second: str
    value: float

    @property
    def verdict(self) -> Verdict:
        """Decided where the ratio is beyond timing noise, either way."""
        if self.value > TIMING_NOISE:
            return Verdict.REPRODUCED
        return Verdict.CONTRADICTED if self.value < 1 / TIMING_NOISE else Verdict.INCONCLUSIVE

    def __str__(self) -> str:
        return f"{self.first} takes {self.value:.2f} times as long as {self.second}"


@dataclass(frozen=True)
class Computed:
    """A computation that settles the claim. ``models``: how many trained models it rests on, if any."""

    holds: bool
    text: str
    models: int | None = None

    @property
    def verdict(self) -> Verdict:
        """Whether it holds; of one trained model nothing follows."""
        if self.models == 1:
            return Verdict.INCONCLUSIVE
        return Verdict.REPRODUCED if self.holds else Verdict.CONTRADICTED

    def __str__(self) -> str:
        return self.text


Part = Comparison | Ratio | Computed


@dataclass(frozen=True)
class Finding:
    """A verdict, all comparisons behind it, and those that decided. Used in chapter 90."""

    verdict: Verdict
    parts: tuple[Part, ...] = ()
    decided_by: tuple[Part, ...] = ()
    remark: str = ""

    @property
    def evidence(self) -> str:
        """The deciding parts as a sentence, and the number of intervals on each side."""
        said = "; ".join([*map(str, self.decided_by), *([self.remark] if self.remark else [])])
        comparisons = [part for part in self.parts if isinstance(part, Comparison)]
        # A ratio of times needs no second model.
        if any(part.models == 1 for part in self.parts if not isinstance(part, Ratio)):
            return said + " (one trained model: undecided, whatever the numbers)"
        if len(comparisons) > 1:
            found = Counter(part.verdict for part in comparisons)
            sides = (found[v] for v in (Verdict.REPRODUCED, Verdict.INCONCLUSIVE, Verdict.CONTRADICTED))
            counts = "{} for, {} open, {} against".format(*sides)
            said += f" ({len(comparisons)} intervals at once: {counts})"
        return said


def not_tested(why: str) -> Finding:
    """A finding without verdict, and the missing piece."""
    return Finding(Verdict.NOT_TESTED, remark=why)


RULES = {
    "one": "The difference: reproduced if its interval lies above zero, contradicted if below.",
    "all": "Every comparison: reproduced if all intervals, which hold at once, lie above zero; contradicted "
    "if one lies below.",
    "most": "Metric by metric (R@1, R@4, AP@R: those of single queries) better than every other loss; then "
    "metrics are counted: reproduced if most are reproduced, contradicted if too many are contradicted for "
    "that.",
    "as good": "Every comparison, worse by no more than {margin:g}: reproduced if all intervals, which hold "
    "at once, lie above minus that; contradicted if one lies below.",
    "time": f"Times: reproduced if each ratio is above {TIMING_NOISE:g}, contradicted if one is below "
    f"1/{TIMING_NOISE:g}; between lies the noise of timing.",
    "computed": "A computation: reproduced if it comes out as the sentence says, contradicted if not.",
}
"""The rules of verdicts, in words."""


def every(parts: Sequence[Part]) -> Finding:
    """All parts at once: reproduced if each is, contradicted if any is. The least favourable part decides."""
    verdicts = {part.verdict for part in parts}
    # One contradicted part refutes "all of them", even if others are open.
    order = (Verdict.CONTRADICTED, Verdict.INCONCLUSIVE)
    verdict = next((worst for worst in order if worst in verdicts), Verdict.REPRODUCED)
    # All must hold, so the one nearest to failing is the evidence.
    weakest = min((part for part in parts if part.verdict is verdict), key=_favour)
    return Finding(verdict, tuple(parts), (weakest,))


def most(findings: Mapping[str, Finding]) -> Finding:
    """More than half of the metrics: reproduced if they are, contradicted if they no longer can be."""
    verdicts = [finding.verdict for finding in findings.values()]
    # More than half: a tie is no majority.
    needed = len(verdicts) // 2 + 1
    yes, no = (verdicts.count(verdict) for verdict in (Verdict.REPRODUCED, Verdict.CONTRADICTED))
    verdict = Verdict.INCONCLUSIVE
    if yes >= needed:
        verdict = Verdict.REPRODUCED
    elif len(verdicts) - no < needed:  # the open ones could no longer make a majority
        verdict = Verdict.CONTRADICTED
    counted = f"{yes} of {len(verdicts)} metrics reproduced, {no} contradicted"
    parts = tuple(part for finding in findings.values() for part in finding.parts)
    deciding = [f for f in findings.values() if f.verdict is verdict] or list(findings.values())
    return Finding(verdict, parts, tuple(part for f in deciding for part in f.decided_by), counted)


def _favour(part: Part) -> float:
    """The favour of a part for the claim; among equal verdicts the least decides."""
    if isinstance(part, Comparison):
        # The end of the interval that could have changed the verdict; of an open one the value.
        end = {Verdict.REPRODUCED: part.low, Verdict.CONTRADICTED: part.high}.get(part.verdict, part.value)
        return end - part.bound
    return part.value if isinstance(part, Ratio) else 0.0

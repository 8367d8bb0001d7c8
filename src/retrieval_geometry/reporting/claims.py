"""Claims: the checkable sentences of a paper, each with a predicate over results and its known verdict.

A contradicted claim is a finding. A verdict that differs from the registered one means that results and
book no longer agree; that is an error until somebody has looked and updated the entry.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from retrieval_geometry.reporting.results import Result


class Verdict(StrEnum):
    """What the results say about a claim."""

    REPRODUCED = "reproduced"
    CONTRADICTED = "contradicted"
    INCONCLUSIVE = "inconclusive"
    NOT_TESTED = "not tested here"


@dataclass(frozen=True)
class Finding:
    """A verdict and the numbers it rests on, as one short sentence."""

    verdict: Verdict
    evidence: str


Results = Mapping[str, Result]

REGISTERED_SEED = 0
"""The expected verdicts are those of runs with this seed; others are judged, but not held to them."""


@dataclass(frozen=True)
class Claim:
    """One checkable sentence of a paper.

    Args:
        id: stable name, ``<paper>-<subject>``.
        paper: short name of the paper.
        where: section, table or equation of the paper.
        sentence: what it says, in our words.
        predicate: decides from the results of one profile, by experiment; not called if one is missing.
        needs: experiments whose results it reads; empty for mathematics, which the predicate computes itself.
        expected: the verdict known for each profile; a profile without an entry is reported but not enforced.
        images: of each profile that runs on whatever data there are, the sha256 of those images on which the
            expected verdict was found; on others it is not enforced.
    """

    id: str
    paper: str
    where: str
    sentence: str
    predicate: Callable[[Results], Finding]
    needs: tuple[str, ...]
    expected: Mapping[str, Verdict]
    images: Mapping[str, str] = field(default_factory=dict)

    def expected_of(self, results: Results, profile: str) -> Verdict | None:
        """The expected verdict, if it was found on such results."""
        needed = [results[name] for name in self.needs if name in results]
        seeded = all(result.seed == REGISTERED_SEED for result in needed)
        same = all(
            result.dataset.sha256 == self.images.get(profile, result.dataset.sha256) for result in needed
        )
        return self.expected.get(profile) if seeded and same else None


@dataclass(frozen=True)
class ClaimRow:
    """A claim's verdict under one profile. ``expected`` is None where nothing is registered."""

    claim: Claim
    profile: str
    verdict: Verdict
    evidence: str
    expected: Verdict | None

    @property
    def changed(self) -> bool:
        """Whether a tested claim's verdict differs from its entry."""
        tested = self.verdict is not Verdict.NOT_TESTED
        return tested and self.expected is not None and self.verdict is not self.expected


class ClaimError(RuntimeError):
    """Verdicts differ from their entries."""


def check(claim: Claim, results: Results, profile: str) -> ClaimRow:
    """Judge one claim by the results of one profile."""
    missing = [name for name in claim.needs if name not in results]
    if missing:
        finding = Finding(Verdict.NOT_TESTED, f"no result of {', '.join(missing)} with profile {profile}")
    else:
        finding = claim.predicate(results)
    return ClaimRow(claim, profile, finding.verdict, finding.evidence, claim.expected_of(results, profile))


def check_all(claims: Iterable[Claim], results: Results, profile: str) -> list[ClaimRow]:
    """Judge every claim by the results of one profile, in the order given.

    Raises:
        ValueError: a result belongs to another profile, or two claims share an id.
    """
    claims = list(claims)
    ids = [claim.id for claim in claims]
    if repeated := sorted({name for name in ids if ids.count(name) > 1}):
        raise ValueError(f"claims must have different ids, repeated: {', '.join(repeated)}")
    for name, result in results.items():
        if result.profile != profile:
            raise ValueError(f"results[{name!r}] has profile {result.profile!r}, expected {profile!r}")
    return [check(claim, results, profile) for claim in claims]


def require_expected(rows: Sequence[ClaimRow]) -> None:
    """Raise ClaimError, naming every claim whose verdict changed without its entry being updated."""
    changed = [row for row in rows if row.changed]
    if not changed:
        return
    lines = [
        f"  {row.claim.id} ({row.profile}): now {row.verdict}, registered {row.expected}; {row.evidence}"
        for row in changed
    ]
    raise ClaimError(
        "verdicts differ from their entries:\n"
        + "\n".join(lines)
        + "\nIf the change is real, update `expected` of these claims and the text that quotes them; "
        "if not, find what changed the results."
    )


def from_interval(low: float, high: float, evidence: str) -> Finding:
    """The verdict on "the difference is positive" from its interval.

    ``reproduced`` when the interval lies above zero, ``contradicted`` when below, else ``inconclusive``.
    """
    if low > 0:
        return Finding(Verdict.REPRODUCED, evidence)
    return Finding(Verdict.CONTRADICTED if high < 0 else Verdict.INCONCLUSIVE, evidence)


def all_of(findings: Sequence[Finding]) -> Finding:
    """One verdict for several parts: contradicted if any part is, reproduced only if every part is."""
    verdicts = {finding.verdict for finding in findings}
    order = (Verdict.CONTRADICTED, Verdict.INCONCLUSIVE, Verdict.NOT_TESTED)
    worst = next((verdict for verdict in order if verdict in verdicts), Verdict.REPRODUCED)
    return Finding(worst, "; ".join(finding.evidence for finding in findings))

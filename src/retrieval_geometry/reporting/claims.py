"""Claims: the checkable sentences of a paper, each with its rule, a predicate over results, and its verdict.

A contradicted claim is a finding. A verdict that differs from the registered one means that results and
book no longer agree; that is an error until somebody has looked and updated the entry.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from retrieval_geometry.reporting.findings import Comparison, Finding, Verdict, not_tested
from retrieval_geometry.reporting.results import Result

Results = Mapping[str, Result]

REGISTERED_SEED = 0
"""Seed of the runs whose verdicts are expected; runs with others are judged, but not held to them."""

SMALL_STEPS = 3_750
"""A training with fewer steps is small, unless it ended flat: half of the 7,500 that profile ``paper`` takes
on birds, as long as the papers trained. In shorter runs losses still fall, and one that starts slowly is
judged too early."""

FLAT = 0.01
"""Validation R@1 that the last :data:`FLAT_STEPS` may still gain in a training that ended flat."""

FLAT_STEPS = 200


@dataclass(frozen=True)
class Claim:
    """One checkable sentence of a paper. Used in chapter 90.

    Args:
        id: stable name, ``<paper>-<subject>``.
        paper: short name of the paper.
        where: section, table or equation of the paper.
        sentence: the claim, in our words.
        rule: the conditions under which it is reproduced or contradicted, in words.
        predicate: decides from the results of one profile, by experiment; not called if one is missing.
        needs: experiments whose results it reads; empty for mathematics, which the predicate computes itself.
        expected: the verdict known for each profile; a profile without an entry is reported but not enforced.
        images: of each profile that runs on whatever data there are, the sha256 of those images on which the
            expected verdict was found; on others it is not enforced.
        replicas: experiments that ask the same with more queries and other networks. Those that were run
            take the place of the first of ``needs``, all together.
    """

    id: str
    paper: str
    where: str
    sentence: str
    rule: str
    predicate: Callable[[Results], Finding]
    needs: tuple[str, ...]
    expected: Mapping[str, Verdict]
    images: Mapping[str, str] = field(default_factory=dict)
    replicas: tuple[str, ...] = ()

    def decided_on(self, results: Results) -> list[Result]:
        """The runs that its comparisons are made in: all replicas at hand, or the first that it needs."""
        return [results[name] for name in self.replicas if name in results] or [results[self.needs[0]]]

    def expected_of(self, results: Results, profile: str) -> Verdict | None:
        """The expected verdict, if it was found on such results."""
        # Of what is there: a missing run is judged "not tested", and still held to the entry.
        needed = [results[name] for name in self.needs if name in results]
        # Another seed trains other models and draws other queries; it may find otherwise.
        seeded = all(result.seed == REGISTERED_SEED for result in needed)
        same = all(
            result.dataset.sha256 == self.images.get(profile, result.dataset.sha256) for result in needed
        )
        return self.expected.get(profile) if seeded and same else None


@dataclass(frozen=True)
class Reach:
    """The reach of a verdict: it holds for these data, this network and this budget.

    Args:
        data: name of the images.
        network: the extractor of their descriptors or embeddings.
        steps: of the training; None where nothing is trained.
        models: of each method; None where nothing is trained.
        queries: number of queries.
        possible: number that the protocol allows.
        groups: number of independent groups of the queries, in words; empty where none were compared.
        small: whether the budget is small: bundled stand-ins, or fewer steps than :data:`SMALL_STEPS` and
            models that were still learning.
    """

    data: str
    network: str
    steps: int | None
    models: int | None
    queries: int
    possible: int
    groups: str
    small: bool

    @property
    def partial(self) -> bool:
        """Whether fewer queries were asked than the protocol allows."""
        return self.queries < self.possible

    @property
    def mark(self) -> str:
        """A dagger for a small budget, an asterisk for a part of the queries or a single model."""
        return ("†" if self.small else "") + ("\\*" if self.partial or self.models == 1 else "")

    def __str__(self) -> str:
        of = f" of {self.possible:,}" if self.partial else ""
        said = [self.data, self.network]
        if self.steps is not None:
            said.append(f"{self.steps:,} steps, {_count(self.models or 1, 'model')} of each")
        said.append(f"{self.queries:,}{of} queries{self.groups}")
        return "; ".join(said) + ("; a small budget" if self.small else "")


@dataclass(frozen=True)
class ClaimRow:
    """The verdict of a claim under one profile. Used in chapter 90. ``expected`` is None without an entry.

    ``reach`` is None for mathematics, which holds for any data, and where nothing was tested.
    """

    claim: Claim
    profile: str
    finding: Finding
    expected: Verdict | None
    reach: Reach | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict of the finding."""
        return self.finding.verdict

    @property
    def evidence(self) -> str:
        """The numbers that decided, in words."""
        return self.finding.evidence

    @property
    def changed(self) -> bool:
        """Whether the verdict differs from its entry; one that was not tested differs from any."""
        return self.expected is not None and self.verdict is not self.expected

    @property
    def marked(self) -> str:
        """The verdict with the marks of its reach."""
        return f"**{self.verdict}**{self.reach.mark if self.reach else ''}"


class ClaimError(RuntimeError):
    """Verdicts differ from their entries."""


def needed(claims: Iterable[Claim], replicas: bool = False) -> list[str]:
    """The experiments that some claims read, each once, in their order; with their replicas if asked for."""
    claims = list(claims)
    names = [name for claim in claims for name in claim.needs]
    more = [name for claim in claims for name in claim.replicas] if replicas else []
    return list(dict.fromkeys(names + more))


def check(claim: Claim, results: Results, profile: str) -> ClaimRow:
    """Verdict on one claim by the results of one profile.

    Source: this package's own. Used in chapter 90.

    Raises:
        ValueError: ``profile`` is not the name of one.
    """
    if not isinstance(profile, str):
        raise ValueError(f"profile must be a name, got {profile!r}")
    # A predicate may read all that its claim needs, without asking.
    missing = [name for name in claim.needs if name not in results]
    if missing:
        # Still held to its entry: a claim that nobody tested any more is an error.
        finding = not_tested(f"no result of {', '.join(missing)} with profile {profile}")
        return ClaimRow(claim, profile, finding, claim.expected_of(results, profile))
    finding = claim.predicate(results)
    reach = reach_of(finding, claim.decided_on(results)) if claim.needs else None
    if reach is not None and reach.small and reach.steps is not None:
        finding = not_contradicted(finding)
    return ClaimRow(claim, profile, finding, claim.expected_of(results, profile), reach)


def reach_of(finding: Finding, results: Sequence[Result]) -> Reach | None:
    """The reach of a finding made from runs on the same images: that of its comparisons where it has any."""
    result, networks = results[0], dict.fromkeys(run.scope.network for run in results if run.scope)
    scope = result.scope
    if scope is None or finding.verdict is Verdict.NOT_TESTED:
        return None
    compared = [part for part in finding.parts if isinstance(part, Comparison)]
    # Bundled stand-ins are small whatever the steps are.
    short = scope.steps is not None and scope.steps < SMALL_STEPS and not ended_flat(finding, result)
    small = result.profile == "quick" or short
    return Reach(
        data=result.dataset.name,
        network=" and ".join(networks),
        steps=scope.steps,
        # The fewest on any side that was looked at: that is where the verdict is weakest.
        models=min((c.models for c in compared if c.models is not None), default=scope.models),
        queries=min((c.queries for c in compared), default=scope.queries),
        possible=scope.possible,
        groups=f" in {compared[0].groups} {compared[0].group_name}" if compared else "",
        small=small,
    )


def ended_flat(finding: Finding, result: Result) -> bool:
    """Whether the models that a finding rests on were validated, and gained less than FLAT at the end.

    One comparison contradicts a claim, so its two losses count; any other verdict rests on all that were
    looked at.
    """
    parts = finding.decided_by if finding.verdict is Verdict.CONTRADICTED else finding.parts
    names = [name for part in parts if isinstance(part, Comparison) for name in (part.first, part.second)]
    trained = [entry for entry in result.methods if entry.models and entry.models.trained]
    # A way to ask a model follows its label: "W-triplet by transport".
    found = [e for e in trained if not names or any(f"{name} ".startswith(f"{e.label} ") for name in names)]
    curves = [entry.models.curves for entry in found if entry.models]
    if not found or any(not of_method for of_method in curves):
        return False
    return all(late_gain(curve) < FLAT for of_method in curves for curve in of_method)


def late_gain(curve: Sequence[Sequence[float]]) -> float:
    """What the last :data:`FLAT_STEPS` of a curve of (step, value) added to the best value before.

    The best, because the best model is the one that is kept. Infinite where nothing stands before them.
    """
    start = curve[-1][0] - FLAT_STEPS
    before = max((value for step, value in curve if step <= start), default=-math.inf)
    return max(value for _, value in curve) - before


def not_contradicted(finding: Finding) -> Finding:
    """The finding of a small budget of training: it may bear a sentence out, but contradicts none.

    A loss that a short run ranks low may only be a slow one.
    """
    if finding.verdict is not Verdict.CONTRADICTED:
        return finding
    remark = "; ".join(filter(None, [finding.remark, "against it, but a small budget contradicts nothing"]))
    return replace(finding, verdict=Verdict.INCONCLUSIVE, remark=remark)


def check_all(claims: Iterable[Claim], results: Results, profile: str) -> list[ClaimRow]:
    """Verdicts on all claims by the results of one profile, in the order given.

    Source: this package's own. Used in chapter 90.

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
    """Refusal of verdicts that changed without their entries being updated.

    Source: this package's own. Used in chapter 90.

    A claim with an entry that was not tested counts as changed: nobody knows whether its verdict still holds.

    Raises:
        ClaimError: verdicts differ from their entries; every such claim is named.
        ValueError: ``rows`` is not a list of what :func:`check_all` returns.
    """
    if not isinstance(rows, list | tuple) or not all(isinstance(row, ClaimRow) for row in rows):
        raise ValueError("rows must be a list of what check_all returns")
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
        "if not, find what changed the results, or run what was not tested."
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"

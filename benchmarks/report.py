"""The table and the curves as text, and both as a result file with provenance."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

import torch

from benchmarks.rows import Curve, Row, Settings, Side
from retrieval_geometry.reporting._decode import decode
from retrieval_geometry.reporting.details import Cost, CostCurve, CostRow
from retrieval_geometry.reporting.provenance import collect_provenance
from retrieval_geometry.reporting.results import Result
from retrieval_geometry.reporting.tables import format_seconds, markdown_table

EXPERIMENT = "geometric-cost"
PEERS = ("POT", "pyriemann", "geomloss", "scikit-learn")
HEADER = (
    "work", "ours", "best peer", "its time", "ratio", "mark", "error", "its error", "pairs", "memory", "GEMM"
)  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """One line for each row; the conditions and the other peers are in :func:`details`."""
    return markdown_table(HEADER, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    best = row.best
    return [
        f"{row.work} (per {row.unit})",
        format_seconds(row.ours.time.seconds),
        best.name if best else "–",
        format_seconds(best.time.seconds if best else None),
        _times(row.ratio),
        "–" if row.mark is None else f">= {row.mark:,g}x",
        _error(row.ours, row.identical),
        _error(best, None) if best else "–",
        "–" if row.evaluated is None else f"{row.evaluated:.2%}",
        "–" if row.memory_mb is None else f"{row.memory_mb:,.0f} MB",
        "–" if row.gemm_share is None else f"{row.gemm_share:.0%}",
    ]


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.1f}x"


def _error(side: Side, identical: bool | None) -> str:
    if identical is not None:
        return "identical" if identical else "DIFFERENT"
    return "–" if side.error is None else f"{side.error:.0e}"


def details(row: Row) -> str:
    """Conditions, spread and note of a row, as a few lines of text."""
    lines = [f"{row.work}: {row.conditions}"]
    for side in (row.ours, *row.peers):
        time = side.time
        spread = f"{format_seconds(time.low)} to {format_seconds(time.high)}, {time.repeats} repeats"
        prepare = f"; {format_seconds(side.prepare.seconds)} to prepare an image" if side.prepare else ""
        failed = "" if side.usable else "; returned NaN"
        lines.append(f"    {side.name}: {format_seconds(time.seconds)} ({spread}){prepare}{failed}")
    return "\n".join([*lines, *([f"    note: {row.note}"] if row.note else [])])


def growth_table(curves: Sequence[Curve]) -> str:
    """Times at the smallest and the largest size, and the fitted exponent of each side."""
    rows = [
        [
            f"{curve.work}, over {curve.over}",
            name,
            f"{curve.sizes[0]:,} to {curve.sizes[-1]:,}",
            format_seconds(values[0]),
            format_seconds(values[-1]),
            f"{curve.exponents[name]:.2f}",
        ]
        for curve in curves
        for name, values in curve.seconds.items()
    ]
    return markdown_table(["growth", "side", "sizes", "first", "last", "exponent"], rows)


def result(
    rows: Sequence[Row], curves: Sequence[Curve], settings: Settings, profile: str, seconds: float
) -> Result:
    """Everything as a result file, which the book reads."""
    inputs = settings.inputs
    own = {key: value for key, value in asdict(settings).items() if key not in ("inputs", "gemm_rate")}
    return Result(
        experiment=EXPERIMENT,
        profile=profile,
        seed=inputs.seed,
        dataset=inputs.dataset,
        settings={**own, "descriptors": inputs.typical},
        methods=(),
        details=Cost(
            rows=tuple(decode(CostRow, _row_record(row)) for row in rows),
            growth=tuple(decode(CostCurve, _plain(curve)) for curve in curves),
            libraries={name: version(name) for name in PEERS},
            gemm_rate=settings.gemm_rate,
        ),
        provenance=collect_provenance(
            seconds, torch.get_num_threads(), "cpu", [inputs.weights] if inputs.weights else []
        ),
    )


def updated(old: Result, new: Result) -> Result:
    """The old record with those rows and curves that were measured anew; each says at which commit.

    The rate of the matrix product, the versions and the machine are those of the new run.
    """
    rows: dict[str, CostRow] = {}
    growth: dict[str, CostCurve] = {}
    for run in (old, new):
        cost, commit = run.told(Cost), run.provenance.commit
        rows |= {row.key: replace(row, commit=row.commit or commit) for row in cost.rows}
        growth |= {curve.key: replace(curve, commit=curve.commit or commit) for curve in cost.growth}
    details = replace(new.told(Cost), rows=tuple(rows.values()), growth=tuple(growth.values()))
    seconds = round(old.provenance.seconds + new.provenance.seconds, 3)
    return replace(new, details=details, provenance=replace(new.provenance, seconds=seconds))


def _plain(part: Row | Curve) -> dict[str, Any]:
    """As JSON has it: lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(part)))
    return plain


def _row_record(row: Row) -> dict[str, Any]:
    record = _plain(row)
    record["ratio"] = row.ratio
    record["best"] = row.best.name if row.best else None
    return record

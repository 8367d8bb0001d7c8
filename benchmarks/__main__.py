"""Command line of the benchmarks: see ``python -m benchmarks --help``."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numba
import torch
from threadpoolctl import threadpool_limits

from benchmarks import report
from benchmarks.inputs import Inputs, real_inputs, synthetic_inputs
from benchmarks.measure import gemm_rate
from benchmarks.rows import Curve, Row, Settings
from benchmarks.suite import curves_of, rows_of
from retrieval_geometry.reporting.results import Result

QUICK_IMAGES = 80


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the result file if one is asked for."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.images is None) != (options.weights is None):
        parser.error("--images and --weights belong together")
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    started = time.perf_counter()
    with threadpool_limits(1):
        settings = _settings(options)
        print(
            f"one thread; a float32 matrix product runs at {settings.gemm_rate / 1e9:.0f} GFLOP/s; "
            f"descriptors: {settings.inputs.dataset.name}\n"
        )
        rows: list[Row] = _measure(rows_of(settings), options.only)
        curves: list[Curve] = [] if options.no_growth else _measure(curves_of(settings), options.only)
    print(
        "\n".join(["", report.table(rows), "", *map(report.details, rows), "", report.growth_table(curves)])
    )
    if options.json:
        profile = "quick" if options.quick else "full"
        record = report.result(rows, curves, settings, profile, time.perf_counter() - started)
        if options.only and options.json.is_file():
            record = report.updated(Result.read(options.json), record)
        record.write(options.json)
    return 0


def _measure(works: dict[str, Callable[[], list]], only: Sequence[str]) -> list:
    """Do the works whose name holds one of the given words, all by default, and say how each goes."""
    found = []
    for name, work in works.items():
        if not only or any(word in name for word in only):
            started = time.perf_counter()
            print(f"{name} ...", end=" ", flush=True, file=sys.stderr)
            found += work()
            print(f"{time.perf_counter() - started:.1f} s", file=sys.stderr)
    return found


def _settings(options: argparse.Namespace) -> Settings:
    rate = gemm_rate(torch.float32, 256 if options.quick else 2048)
    settings = Settings(_inputs(options), rate, database=options.database, budget=options.budget)
    return settings.quick() if options.quick else settings


def _inputs(options: argparse.Namespace) -> Inputs:
    if options.images is None:
        return synthetic_inputs(options.seed)
    return real_inputs(options.images, options.weights, options.seed, QUICK_IMAGES if options.quick else None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Times this package against other libraries: one process, one thread, CPU time, medians.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="tiny sizes: seconds in all, and no verdict on speed")
    add(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the result file, which the book reads; with --only, bring such a file up to date",
    )
    add("--only", nargs="+", default=[], metavar="WORD", help="only what has such a word in its name")
    add("--no-growth", action="store_true", help="leave out the curves of growth")
    add("--budget", type=float, default=4.0, metavar="S", help="CPU seconds for each side of a row (4)")
    add("--seed", type=int, default=0)
    add("--database", type=int, default=3760, metavar="N", help="images that are searched (3,760)")
    add(
        "--images", type=Path, metavar="PATH", help="folder or zip of images: measure on real descriptors too"
    )
    add("--weights", type=Path, metavar="FILE", help="weights of SqueezeNet 1.1, needed with --images")
    return parser


if __name__ == "__main__":
    sys.exit(main())

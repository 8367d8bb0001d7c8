"""What differs on another processor: tests, quick results and verdicts under other loops and thread counts.

Libraries choose their loops by what the processor can do, and add in other orders then. Environment variables
make them choose as on an older processor, so that one machine stands for several. A test that fails under one
setting only, or a verdict that changes, hangs on last bits.

    python -m tests.on_processors                                   everything (hours)
    python -m tests.on_processors --short                           the tests most at risk, three settings
    python -m tests.on_processors --settings mkl-sse42 --tests tests/test_coresets.py --experiments
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from retrieval_geometry.experiments import claims, experiments
from retrieval_geometry.reporting.claims import Verdict, check_all
from retrieval_geometry.reporting.results import Result

ROOT = Path(__file__).resolve().parents[1]
PLAIN = "plain"
SETTINGS = {
    PLAIN: {},
    "aten-default": {"ATEN_CPU_CAPABILITY": "default"},
    "aten-avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "mkl-avx2": {"MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "mkl-sse42": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "compiled-generic": {"NUMBA_CPU_NAME": "generic", "OPENBLAS_CORETYPE": "Nehalem"},
    "two-threads": {},
}
"""Variables of each setting; all but the last have one thread."""

SHORT = ("aten-default", "mkl-sse42", "two-threads")
AT_RISK = ("test_coresets.py", "distances", "evaluation", "losses", "image_models")
TOLERANCE = 1e-6
NOT_COMPARED = ("provenance", "notes")  # and whatever is a time


def main(arguments: list[str] | None = None) -> int:
    """Run the matrix, list what differs, and return 1 if anything does."""
    options = _options(arguments)
    names = list(dict.fromkeys([PLAIN, *options.settings]))
    failed: dict[str, set[str]] = {}
    results: dict[str, dict[str, Result]] = {}
    for place, name in enumerate(names, start=1):
        where = f"[{place}/{len(names)}] {name}"
        if options.tests:
            failed[name] = run_tests(options.tests, _environment(name), options.workers, where)
        with tempfile.TemporaryDirectory() as folder:
            results[name] = {
                experiment: result
                for experiment in options.experiments
                if (result := run_experiment(experiment, _environment(name), Path(folder), where))
            }
    found = [f"{name}: {line}" for name in names for line in _differences(name, failed, results)]
    print("\n".join(found) or f"nothing differs between {', '.join(names)}")
    return int(bool(found))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--short", action="store_true", help="the tests most at risk, and no experiment")
    parser.add_argument("--settings", nargs="*", choices=list(SETTINGS), help=f"beside {PLAIN}: all")
    parser.add_argument("--tests", nargs="*", help="arguments of pytest; none runs no test")
    parser.add_argument("--experiments", nargs="*", choices=list(experiments()), help="none runs none")
    parser.add_argument("--workers", default="auto", help="processes of pytest (0: no further one)")
    options = parser.parse_args(arguments)
    short = {"settings": SHORT, "tests": [f"tests/{name}" for name in AT_RISK], "experiments": ()}
    long = {"settings": tuple(SETTINGS), "tests": ["tests"], "experiments": tuple(experiments())}
    for name, value in (short if options.short else long).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def _environment(setting: str) -> dict[str, str]:
    threads = "2" if setting == "two-threads" else "1"
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), threads)
    own = {name for variables in SETTINGS.values() for name in variables}
    kept = {name: value for name, value in os.environ.items() if name not in own}
    return {**kept, **counts, **SETTINGS[setting]}


def run_tests(tests: list[str], environment: dict[str, str], workers: str, where: str) -> set[str]:
    """Run pytest and return the names of the tests that fail."""
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rfE", "-n", workers, *tests]
    print(f"{where}: tests ...", flush=True)
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if run.returncode not in (0, 1):
        raise SystemExit(f"pytest broke off under {where}:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    lines = [line.split() for line in run.stdout.splitlines()]
    failed = {line[1] for line in lines if line and line[0] in ("FAILED", "ERROR")}
    print(f"{where}: tests, {len(failed)} failed, {time.monotonic() - started:.0f} s", flush=True)
    return failed


def run_experiment(name: str, environment: dict[str, str], folder: Path, where: str) -> Result | None:
    """The quick result, made anew in a folder that shares nothing with others but the sources of the book."""
    for part in ("_config.yml", "book"):
        if not (folder / part).exists():
            (folder / part).symlink_to(ROOT / part)
    started, output = time.monotonic(), folder / f"{name}.json"
    print(f"{where}: {name} ...", flush=True)
    command = [sys.executable, "-m", "retrieval_geometry", "run", name, "--output", str(output)]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["without a word"])[-1]
        print(f"{where}: {name} has no quick result: {last}", flush=True)
        return None
    print(f"{where}: {name}, {time.monotonic() - started:.0f} s", flush=True)
    return Result.read(output)


def _differences(
    name: str, failed: dict[str, set[str]], results: dict[str, dict[str, Result]]
) -> Iterator[str]:
    for test in sorted(failed.get(name, set())):
        yield f"{test} fails" + (f", also {PLAIN}" if name != PLAIN and test in failed[PLAIN] else "")
    if name == PLAIN:
        return
    for test in sorted(failed.get(PLAIN, set()) - failed.get(name, set())):
        yield f"{test} fails {PLAIN} only"
    for experiment in sorted(results[PLAIN].keys() | results[name].keys()):
        pair = [results[setting].get(experiment) for setting in (PLAIN, name)]
        if None in pair:
            yield f"{experiment} has a result under one setting only"
            continue
        before, after = (dict(_leaves(vars(result))) for result in pair)
        for key in sorted(before.keys() | after.keys()):
            if not same(before.get(key), after.get(key)):
                yield f"{experiment} {key}: {before.get(key)!r} {PLAIN}, {after.get(key)!r} here"
    before, after = _verdicts(results[PLAIN]), _verdicts(results[name])
    yield from (
        f"claim {claim}: {before[claim]} {PLAIN}, {after[claim]} here"
        for claim in before
        if before[claim] != after[claim]
    )


def same(a: object, b: object) -> bool:
    """Whether two values are equal, numbers within the tolerance."""
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) <= TOLERANCE * max(abs(a), abs(b))
    return a == b


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Numbers and words of a result with the path to each, without times and what depends on them."""
    last = path.rsplit(".", 1)[-1]
    if last in NOT_COMPARED or "seconds" in last:
        return
    if hasattr(value, "__dataclass_fields__"):
        value = vars(value)
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _leaves(part, f"{path}.{i}")
    else:
        yield path.removeprefix("."), value


def _verdicts(results: dict[str, Result]) -> dict[str, Verdict]:
    return {row.claim.id: row.verdict for row in check_all(claims(), results, "quick")}


if __name__ == "__main__":
    sys.exit(main())

"""Drills: builds of a small book are killed, starved and damaged; an undisturbed build must mend everything.

    python -m tests.drills                      a few faults
    python -m tests.drills --long               all of them, at least 20 kills among them
    python -m tests.drills --only kill          those with this word in their name
    python -m tests.drills --long --checkout .  on the finished build of a checkout, which is disturbed

After each fault a build must end well, and results, chapters and pages equal those of the build before it.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from retrieval_geometry.book.lock import NAME
from retrieval_geometry.book.project import Project
from tests.book.conftest import small_book, write_chapter
from tests.book.disturbed import PATTERNS, PROGRAM, Drill, Failure, command_of, descendants, is_alive
from tests.book.small_experiment import environment


def kill(drill: Drill, kind: str) -> None:
    """Kill one process, or all but kernels (``group``), at a moment by chance."""
    work = drill.dice.choice(["experiment", "chapter", "HTML step"]) if kind in ("command", "group") else kind
    work = drill.dice.choice(["experiment", "chapter"]) if kind == "snakemake" else work
    drill.unmake(work)
    build = drill.start()
    victim = drill.process(build, work)
    time.sleep(drill.dice.uniform(0, 3))
    family = [build, *descendants(build)]
    if kind == "group":
        victims = [process for process in family if PATTERNS["kernel"] not in command_of(process)]
    else:
        victims = [{"command": build}.get(kind, victim)]
        if kind == "snakemake":
            victims = [drill.process(build, kind)]
    for process in victims:
        if is_alive(process):
            process.kill()
    if kind in ("command", "group"):
        build.wait()
        drill.lock_outlives_all([process for process in family if "python" in command_of(process)])
    else:
        drill.end(build)


def stop(drill: Drill, signum: signal.Signals) -> None:
    """Stop a build as Ctrl-C or a shutdown does: one line, and nobody left when it ends."""
    work = drill.dice.choice(["experiment", "kernel", "Jupyter Book"])
    drill.unmake(work)
    build = drill.start()
    drill.process(build, work)
    time.sleep(drill.dice.uniform(0, 2))
    family = descendants(build)
    build.send_signal(signum)
    status = drill.end(build)
    if left := [command_of(process) for process in family if is_alive(process)]:
        raise Failure(f"left behind: {left}")
    if status not in (0, 128 + signum) or (status and not drill.said().endswith("goes on from here\n")):
        raise Failure(f"ends with {status}: {drill.said()[-200:]}")


def two_at_once(drill: Drill) -> None:
    """The second of two builds is refused and names the first, which is held until then."""
    drill.unmake("HTML step")
    first = drill.start()
    held = drill.process(first, "snakemake")
    held.suspend()
    try:
        second = subprocess.run(
            PROGRAM, cwd=drill.project.root, env=drill.variables, capture_output=True, text=True
        )
    finally:
        held.resume()
    refused = second.returncode == 2 and "another build" in second.stderr and second.stderr.count("\n") == 1
    if not (refused and str(first.pid) in second.stderr):
        raise Failure(f"the second build: {second.stdout[-200:]}{second.stderr[-300:]}")
    if status := drill.end(first):
        raise Failure(f"the first build ends with {status}")


def damage(drill: Drill, pattern: str) -> None:
    """Cut, overwrite, flip a bit of, or delete a file of the build."""
    path = drill.some(pattern)
    content = path.read_bytes()
    way = drill.dice.choice(["cut", "empty", "noise", "flip", "delete"])
    place = drill.dice.randrange(max(1, len(content)))
    if way == "delete":
        path.unlink()
    else:
        flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] if content else b"x"
        ways = {"cut": content[:place], "empty": b"", "noise": drill.dice.randbytes(100), "flip": flipped}
        path.write_bytes(ways[way])


def remove(drill: Drill, pattern: str) -> None:
    """Delete a folder that the build keeps for itself."""
    for path in drill.project.root.glob(pattern):
        shutil.rmtree(path)
    drill.unmake("chapter")


def limited_files(drill: Drill) -> None:
    """No file may grow beyond a few kilobytes, as on a disk that fills up."""
    import resource

    drill.unmake(drill.dice.choice(["experiment", "chapter", "HTML step"]))
    size = drill.dice.choice([200, 2_000, 8_000])
    build = drill.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    if drill.end(build) == 0 and size < 8_000:
        raise Failure(f"files of at most {size} bytes, and yet the book is ready: {drill.said()[-200:]}")


def small_disk(drill: Drill) -> None:
    """The folder of the build lies on a disk that is nearly full, and then has room again."""
    build = drill.project.build
    inside = (
        'mv build build.kept; mkdir build; mount -t tmpfs -o size="$1" tmpfs build; '
        "cp -a build.kept/. build/ 2>/dev/null; rm -rf build/results build/executed; shift; "
        '"$@"; echo "first: $?"; mount -o remount,size=900m build; cp -a build.kept/book build/ 2>/dev/null; '
        '"$@"; status=$?; cp -a build/. build.kept/; umount build; exit $status'
    )
    used = sum(path.stat().st_size for path in build.rglob("*") if path.is_file())
    size = f"{(used + drill.dice.randrange(0, 40_000)) // 1024}k"
    namespace = ("unshare", "--map-root-user", "--mount", "sh", "-c", inside, "sh", size)
    status = drill.end(drill.start(within=namespace))
    kept = build.with_name("build.kept")
    if kept.exists():
        shutil.rmtree(build)
        kept.rename(build)
    if status or "first: 0" in drill.said():
        raise Failure(f"ends with {status}: {drill.said()[-600:]}")


def read_only(drill: Drill, folder: str) -> None:
    """A folder cannot be written: the build fails and names it."""
    (drill.project.root / folder).mkdir(parents=True, exist_ok=True)
    drill.unmake("experiment")
    inside = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && "$@"'
    namespace = ("unshare", "--map-root-user", "--mount", "sh", "-c", inside, "sh", folder)
    status = drill.end(drill.start(within=namespace))
    if status == 0 or folder not in drill.said():
        raise Failure(f"ends with {status}: {drill.said()[-300:]}")


def without(drill: Drill, **variables: str | None) -> None:
    """A build with other variables, or without some, ends well."""
    drill.unmake("experiment")
    drill.unmake("HTML step")
    changed = {**drill.variables, **{name: value for name, value in variables.items() if value is not None}}
    kept = {name: value for name, value in changed.items() if variables.get(name, "") is not None}
    if status := drill.end(drill.start(kept)):
        raise Failure(f"ends with {status}: {drill.said()[-300:]}")


def clock(drill: Drill, seconds: float) -> None:
    """All files are from the future, or very old, by chance: nothing is made again but what is missing."""
    drill.settle()
    for path in drill.project.root.rglob("*"):
        if path.is_file():
            moment = time.time() + drill.dice.choice([0, seconds])
            os.utime(path, (moment, moment))
    drill.settle()
    if "Building DAG" in drill.said():
        raise Failure("the times of files made something again")


Fault = Callable[[Drill], None]


def faults() -> dict[str, tuple[Fault, int, bool]]:
    """What is tried: the fault, how often in the long form, and whether in the short one."""
    year, nowhere = 365 * 86400.0, "/dev/null/nowhere"
    found: dict[str, tuple[Fault, int, bool]] = {
        "Ctrl-C": (lambda d: stop(d, signal.SIGINT), 3, True),
        "SIGTERM": (lambda d: stop(d, signal.SIGTERM), 1, False),
        "two builds at once": (two_at_once, 1, True),
        "files from the future": (lambda d: clock(d, year), 1, False),
        "files from long ago": (lambda d: clock(d, -year), 1, False),
        "full disk (limited files)": (limited_files, 3, False),
        "no HOME, no TMPDIR": (lambda d: without(d, HOME=None, TMPDIR=None), 1, False),
        "HOME and TMPDIR are no folders": (lambda d: without(d, HOME=nowhere, TMPDIR=nowhere), 1, False),
        "no .snakemake": (lambda d: remove(d, ".snakemake"), 1, False),
        "no cache": (lambda d: remove(d, "build/cache"), 1, False),
    }
    for kind, times in {"group": 4, "command": 4, "snakemake": 2, "experiment": 3, "chapter": 2}.items():
        found[f"kill -9 of the {kind}"] = (lambda d, kind=kind: kill(d, kind), times, kind == "command")
    for kind, times in {"kernel": 4, "HTML step": 2, "Jupyter Book": 3}.items():
        found[f"kill -9 of the {kind}"] = (lambda d, kind=kind: kill(d, kind), times, kind == "kernel")
    files = {
        "result": ("results/*.json", 4),
        "chapter": ("executed/[!.]*.ipynb", 4),
        "part of a run": ("cache/parts/*/*.part", 2),
        "stamp": ("html/.complete", 2),
        "page": ("html/**/*.html", 2),
        "work of Sphinx": ("book/_build/**/*.*", 3),
        "staged file": ("book/notebooks/*.ipynb", 1),
        "record of Sphinx": ("pages.digest", 1),
        "lock file": (f"../{NAME}", 1),
    }
    for name, (pattern, times) in files.items():
        short = name in ("result", "stamp")
        found[f"damage: {name}"] = (lambda d, pattern=pattern: damage(d, pattern), times, short)
    if _can_mount():
        found["full disk (a small one)"] = (small_disk, 2, False)
        for folder in ("build/results", "build/executed", "build", ".snakemake"):
            found[f"read-only {folder}"] = (lambda d, folder=folder: read_only(d, folder), 1, False)
    return found


def _can_mount() -> bool:
    """Whether this system lets one mount folders for a single process."""
    command = ["unshare", "--map-root-user", "--mount", "true"]
    return bool(shutil.which("unshare")) and subprocess.run(command, capture_output=True).returncode == 0


def prepare(root: Path, folder: Path, dice: random.Random) -> Drill:
    """The small book, with a chapter that shows an experiment, built once."""
    project = small_book(root)
    code = (
        "import time\n\nfrom retrieval_geometry.experiments import load_or_run\n\ntime.sleep(1)\n"
        "result = load_or_run('small', profile=profile, data_root=data_root, device=device, seed=seed)\n"
        "print([method.metrics for method in result.methods])"
    )
    write_chapter(project, "02_second", code)
    return Drill(project, environment(folder / "site"), dice, folder / "reference")


def run(drill: Drill, tries: Mapping[str, int], together: int) -> list[str]:
    """Try faults in an order by chance, print a table, and return the failures.

    After each ``together`` faults an undisturbed build is made; if it fails, all of them count as failed.
    """
    order = [name for name, times in tries.items() for _ in range(times)]
    drill.dice.shuffle(order)
    known, failed, failures = faults(), dict.fromkeys(tries, 0), []
    for start in range(0, len(order), together):
        batch = order[start : start + together]
        for name in batch:
            failures += _tried(name, lambda name=name: known[name][0](drill), failed, [name])
        failures += _tried(f"after {', '.join(batch)}", drill.settle, failed, batch)
        print(f"{start + len(batch)} of {len(order)} faults tried, {len(failures)} failures", flush=True)
    rows = [(name, times, times - min(times, failed[name])) for name, times in tries.items()]
    print("\n| fault | tried | survived | failed |\n|---|---|---|---|")
    for name, times, well in [*rows, ("all", len(order), sum(row[2] for row in rows))]:
        print(f"| {name} | {times} | {well} | {times - well} |")
    return failures


def _tried(what: str, action: Callable[[], None], failed: dict[str, int], blamed: Sequence[str]) -> list[str]:
    started = time.monotonic()
    try:
        action()
    except Failure as failure:
        for name in blamed:
            failed[name] += 1
        print(f"{what}: FAILED: {failure}", flush=True)
        return [f"{what}: {failure}"]
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """Drill, and return 1 if anything was not survived."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--long", action="store_true", help="all faults")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and bytes that are hit")
    parser.add_argument("--only", default="", help="faults with this word in their name")
    parser.add_argument(
        "--checkout", type=Path, help="disturb the build of this checkout, not of the small book"
    )
    parser.add_argument(
        "--together", type=int, default=1, help="faults before each undisturbed build (default: 1)"
    )
    options = parser.parse_args(arguments)
    long = options.long or bool(options.only)
    chosen = {name: row for name, row in faults().items() if options.only in name and (long or row[2])}
    tries = {name: row[1] if long else 1 for name, row in chosen.items()}
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        if options.checkout:
            drill = Drill(Project.find(options.checkout), os.environ, dice, folder / "reference")
        else:
            drill = prepare(folder / "p q's é {x} $(touch X)", folder, dice)
        return int(bool(run(drill, tries, options.together)))


if __name__ == "__main__":
    sys.exit(main())

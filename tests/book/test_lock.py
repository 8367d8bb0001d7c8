"""The lock of a build: held while anybody works, free as soon as nobody does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from retrieval_geometry.book import lock
from retrieval_geometry.book.lock import NAME, inherited, only_build
from retrieval_geometry.book.processes import Stopped, run_whole

CHILD = "import sys, time; print('up', flush=True); time.sleep(600)"
# A build that starts a worker, as `build` starts Snakemake, and tells its number.
PARENT = f"""
import subprocess, sys, time
from collections.abc import Iterator
from pathlib import Path
from retrieval_geometry.book.lock import only_build
with only_build(Path(sys.argv[1])) as held:
    worker = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdin=held, stdout=subprocess.PIPE)
    worker.stdout.readline()
    print(worker.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.0)


def test_the_lock_is_held_by_whoever_still_works(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    for victim in (parent, worker):
        refused = pytest.raises(BlockingIOError, match=f"another build.*kill.*{worker.pid}")
        with refused as caught, only_build(tmp_path):
            pass
        assert "\n" not in str(caught.value)
        victim.kill()
        (parent.wait if victim is parent else worker.wait)()
    with only_build(tmp_path):
        pass


def test_a_process_knows_the_lock_that_it_was_started_with(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from retrieval_geometry.book.lock import inherited\n"
        "print(len(inherited(Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with only_build(tmp_path) as held:
        assert subprocess.run(command, stdin=held, capture_output=True, text=True).stdout == "1\n"
    assert (tmp_path / NAME).exists()
    no_input = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert no_input.stdout == "0\n"
    assert inherited(tmp_path / "nowhere") == ()


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def signum(request: pytest.FixtureRequest) -> Iterator[signal.Signals]:
    """A signal that this process heeds, however it was started: nohup and "&" have some ignored."""
    heeded = signal.default_int_handler if request.param is signal.SIGINT else signal.SIG_DFL
    before = signal.signal(request.param, heeded)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_ends_all_that_was_started(tmp_path: Path, signum: signal.Signals) -> None:
    """Also a process in a session of its own, such as a kernel, and one that ignores signals."""
    code = f"""
import os, signal, subprocess, sys
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-c", {CHILD!r}], start_new_session=True, stdout=subprocess.PIPE)
worker.stdout.readline()
open("worker", "w").write(str(worker.pid))
os.kill(int(sys.argv[1]), int(sys.argv[2]))
worker.wait()
"""
    environment = {**os.environ}
    command = [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})\n{code}"]
    before = signal.getsignal(signum)
    with only_build(tmp_path) as held, pytest.raises(Stopped) as caught:
        run_whole([*command, str(os.getpid()), str(int(signum))], environment, held)
    assert caught.value.status == 128 + signum
    assert signal.getsignal(signum) is before
    assert _ended(int((tmp_path / "worker").read_text()))


def test_what_a_killed_program_started_is_ended(tmp_path: Path) -> None:
    code = f"""
import os, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
worker.stdout.readline()
open(os.path.join(sys.argv[1], "worker"), "w").write(str(worker.pid))
os.kill(os.getpid(), 9)
"""
    with only_build(tmp_path) as held:
        assert run_whole([sys.executable, "-c", code, str(tmp_path)], os.environ, held) == -9
    assert _ended(int((tmp_path / "worker").read_text()))


def _ended(number: int) -> bool:
    """Whether a process that was killed has gone, or is gone as soon as the system has buried it."""
    for _ in range(100):
        try:
            if psutil.Process(number).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False

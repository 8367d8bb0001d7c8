"""Start a program with all that it starts, and end all of it when this process is told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence

import psutil


class Stopped(Exception):
    """A signal asked to stop; ``status`` is the exit status that says so."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.status = 128 + signum


def run_whole(command: Sequence[str], environment: Mapping[str, str], lock: int) -> int:
    """Run a program and return its exit status; nothing that it started outlives this call.

    Args:
        command: program and arguments; no shell sees them.
        environment: its environment.
        lock: a descriptor that becomes its standard input, and so that of what it starts.

    Raises:
        Stopped: Ctrl-C, SIGTERM or SIGHUP came; all was ended.
    """
    with _asked_to_stop() as signals:
        # A session of its own: Ctrl-C reaches this process alone, which ends the others without tracebacks.
        started = subprocess.Popen(command, env=environment, stdin=lock, start_new_session=True)
        # In short steps: a wait goes on after a handler of signals has run.
        while started.poll() is None and not signals:
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(0.1)
        if signals:
            _end(started)
            raise Stopped(signals[0])
    if started.returncode < 0:  # killed: what it had started is left in its group
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
    return started.returncode


def _end(started: subprocess.Popen[bytes]) -> None:
    """Kill a process and its descendants: first all are halted, so that none starts another meanwhile."""
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(started.pid)
        halted: set[psutil.Process] = set()
        # A process may have started another before it was halted: look again until there is no new one.
        while fresh := {top, *top.children(recursive=True)} - halted:
            for process in fresh:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
            halted |= fresh
        for process in halted:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(halted, timeout=5)
    started.wait()


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """The signals that came meanwhile and ask to stop; other threads than the main one cannot listen."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    asking = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {each: signal.getsignal(each) for each in asking}
    try:
        for each, handler in before.items():
            # Under nohup a hang-up is ignored, and stays so.
            if handler != signal.SIG_IGN:
                signal.signal(each, lambda signum, frame: came.append(signum))
        yield came
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)

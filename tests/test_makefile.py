"""The Makefile in a folder with an unkind name: words reach the programs as they are, and none is run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STUB = '#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done >> words\n'

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile and an environment whose programs write down their arguments."""
    folder = tmp_path / "p q's é $(touch X)"
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", *(path.name for path in ROOT.glob("requirements*.lock"))):
        shutil.copy(ROOT / name, folder / name)
    for name in ("python", "uv", "ruff"):
        (programs / name).write_text(STUB)
        (programs / name).chmod(0o755)
    return folder


def _make(folder: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", *words], cwd=folder, env=kept, capture_output=True, text=True)
    written = folder / "words"
    return done, written.read_text().splitlines() if written.exists() else []


def test_settings_reach_the_build_as_they_are(checkout: Path) -> None:
    (checkout / ".venv" / ".ready-auto").touch()
    values = {"PROFILE": "a;touch X", "DATA_ROOT": "a \"b\" 'c' `touch X` {x} #é", "DEVICE": "cpu&&touch X"}
    done, words = _make(checkout, "book", *(f"{name}={value}" for name, value in values.items()))
    assert done.returncode == 0, done.stderr
    assert words[:3] == ["-m", "retrieval_geometry", "build"]
    assert words[3:] == [
        f"--profile={values['PROFILE']}",
        f"--data-root={values['DATA_ROOT']}",
        f"--device={values['DEVICE']}",
        "--seed=0",
        "--threads=1",
    ]
    assert not list(checkout.rglob("X"))


def test_compiled_modules_are_kept_whatever_the_container_says(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / ".venv" / ".ready-auto").touch()
    program = checkout / ".venv" / "bin" / "python"
    program.write_text('#!/bin/sh\necho "${PYTHONDONTWRITEBYTECODE-unset}" > words\n')
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert _make(checkout, "book")[1] == ["unset"]


def test_everything_else_runs_there(checkout: Path) -> None:
    done, words = _make(checkout, "setup", "PYTHON=.venv/bin/python")
    assert done.returncode == 0, done.stderr
    assert "--require-hashes" in words
    assert (checkout / ".venv" / ".ready-auto").exists()
    for target in ("lint", "sync", "serve", "drills", "reproduce", "check-pages", "clean"):
        done, _ = _make(checkout, target)
        assert done.returncode == 0, done.stderr
    assert not list(checkout.rglob("X"))


def test_an_environment_that_make_cannot_name_is_refused(checkout: Path) -> None:
    done, words = _make(checkout, "book", "VENV=a b")
    assert done.returncode != 0
    assert 'VENV must be one path without spaces, not "a b"' in done.stderr
    assert words == []

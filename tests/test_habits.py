"""What contributors are helped with names files and programs that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def test_hooks_before_a_commit_run_programs_of_the_locked_environment() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    programs = [shlex.split(hook["entry"])[:2] for hook in local["hooks"]]
    assert programs == [[".venv/bin/ruff", "check"], [".venv/bin/ruff", "format"], [".venv/bin/python", "-m"]]


def test_every_promised_python_is_tested_and_macos_once() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/python.yml").read_text())
    jobs = workflow["jobs"]["test"]["strategy"]["matrix"]["include"]
    assert {job["python"] for job in jobs if "ubuntu" in job["system"]} == {"3.11", "3.12", "3.13"}
    assert sum("macos" in job["system"] for job in jobs) == 1


def test_the_editor_is_told_the_line_length_of_the_style_check() -> None:
    told = re.search(r"max_line_length = (\d+)", (ROOT / ".editorconfig").read_text())
    checked = re.search(r"^line-length = (\d+)", (ROOT / "pyproject.toml").read_text(), re.M)
    assert told
    assert checked
    assert told[1] == checked[1]

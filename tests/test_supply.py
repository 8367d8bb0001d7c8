"""What is installed and run is what was looked at: digests in the locks, the workflows and the set-up."""

from __future__ import annotations

import os
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from tests import dependencies

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LOCKS = [ROOT / "requirements.lock", ROOT / "requirements-cpu.lock", ROOT / ".github" / "audit.lock"]
CPU_PYTHONS, CPU_PROCESSORS = 3, 2  # 3.11 to 3.13, x86-64 and ARM


def _steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
class TestWorkflows:
    def test_actions_are_named_by_the_digest_of_a_release(self, workflow: Path) -> None:
        lines = [line for line in workflow.read_text().splitlines() if re.search(r"\buses:", line)]
        assert len(lines) == sum("uses" in step for step in _steps(workflow)) > 0
        for line in lines:
            assert re.search(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line

    def test_the_checkout_leaves_no_credentials(self, workflow: Path) -> None:
        checkouts = [step for step in _steps(workflow) if "actions/checkout@" in step.get("uses", "")]
        assert checkouts
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)

    def test_only_the_job_that_publishes_may_write(self, workflow: Path) -> None:
        parsed = yaml.safe_load(workflow.read_text())
        assert parsed["permissions"] == {"contents": "read"}
        given = {name: job["permissions"] for name, job in parsed["jobs"].items() if "permissions" in job}
        assert given in ({}, {"publish": {"pages": "write", "id-token": "write"}})
        if given:  # nothing of the repository is executed where writing is allowed
            assert not any("run" in step for step in parsed["jobs"]["publish"]["steps"])

    def test_what_it_installs_is_hashed(self, workflow: Path) -> None:
        commands = [step["run"] for step in _steps(workflow) if "install" in step.get("run", "")]
        assert all("--require-hashes" in command for command in commands)


def test_weaknesses_are_looked_for_in_every_lock_of_packages() -> None:
    commands = " ".join(step.get("run", "") for path in WORKFLOWS for step in _steps(path))
    for lock in ("requirements.lock", ".github/audit.lock"):
        assert f"pip-audit --disable-pip --require-hashes -r {lock}" in commands


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_has_exact_versions_digests_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    for block in re.split(r"\n(?=\S)", text.strip()):
        head, *hashes = block.split(" \\\n    ")
        assert [spec.operator for spec in Requirement(head).specifier] == ["=="], head
        assert hashes, f"{head} has no digest"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in hashes), head
    assert "://" not in text


def test_the_cpu_build_is_the_locked_release() -> None:
    locked, blocks = dependencies.locked_versions(), re.split(r"\n(?=\S)", LOCKS[1].read_text().strip())
    assert [block.split(" ")[0] for block in blocks] == [
        f"{name}=={locked[name][0]}+cpu" for name in ("torch", "torchvision")
    ]
    for block in blocks:
        assert len(set(re.findall(r"[0-9a-f]{64}", block))) >= CPU_PYTHONS * CPU_PROCESSORS


def _recipe(backend: str, system: str, tmp_path: Path) -> str:
    """Return the commands of the set-up on a system, without running them."""
    (tmp_path / "uname").write_text(f"#!/bin/sh\necho {system}\n")
    (tmp_path / "uname").chmod(0o755)
    command = [
        "make",
        "--dry-run",
        "--always-make",
        f"TORCH_BACKEND={backend}",
        f"VENV={tmp_path}/env",
        "setup",
    ]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return run.stdout.replace("\\\n", "")


@pytest.mark.parametrize(("backend", "system"), [("auto", "Linux"), ("cpu", "Linux"), ("cpu", "Darwin")])
class TestSetUp:
    def test_everything_is_checked_by_digest(self, backend: str, system: str, tmp_path: Path) -> None:
        installs = re.findall(
            r"^.*(?:pip install|pip sync).*$", _recipe(backend, system, tmp_path), flags=re.M
        )
        assert len(installs) == 3
        for line in installs:
            assert "--require-hashes" in line or "--no-deps --no-build-isolation --editable ." in line, line

    def test_the_lock_that_is_installed(self, backend: str, system: str, tmp_path: Path) -> None:
        """The installer alone, then each package once, of the CPU build where that is another one."""
        (tmp_path / "env").mkdir()
        for line in re.findall(r"^awk .*$", _recipe(backend, system, tmp_path), flags=re.M):
            subprocess.run(line, shell=True, cwd=ROOT, check=True)
        assert re.findall(r"^\S+", (tmp_path / "env/installer.lock").read_text(), flags=re.M) == [
            f"uv=={dependencies.locked_versions()['uv'][0]}"
        ]
        lock = (tmp_path / "env/all.lock").read_text()
        if (backend, system) != ("cpu", "Linux"):
            assert lock == LOCKS[0].read_text()
            return
        assert lock.startswith(LOCKS[1].read_text())
        left_out = r"(?:torch|torchvision|triton|nvidia-\S+|cuda-\S+)==.*\n(?: .*\n)+"
        assert lock.removeprefix(LOCKS[1].read_text()) == re.sub(
            rf"^{left_out}", "", LOCKS[0].read_text(), flags=re.M
        )


def test_a_build_without_digests_is_refused() -> None:
    command, path = ["make", "help", "TORCH_BACKEND=cu126"], {"PATH": os.environ["PATH"]}
    run = subprocess.run(command, cwd=ROOT, env=path, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert 'auto or cpu, not "cu126"' in run.stderr


def test_conda_installs_the_whole_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["dependencies"][-1] == {"pip": ["-r requirements.lock"]}
    assert {name.split("=")[0] for name in environment["dependencies"][:-1]} == {"python", "pip"}


class TestListOfDependencies:
    def test_it_names_every_locked_version_and_who_asks(self) -> None:
        rows = re.findall(r"^\| (\S+) \| (\S.*) \| (\S.*) \| (.*) \|$", dependencies.LIST.read_text(), re.M)
        rows = [row for row in rows if row[0] != "package"]
        locked, asked = dependencies.locked_versions(), dependencies.askers()
        assert {name: versions for name, versions, _, _ in rows} == {
            name: ", ".join(versions) for name, versions in locked.items()
        }
        assert {name: who for name, _, _, who in rows if who} == {
            name: ", ".join(who) for name, who in asked.items()
        }

    def test_licences_are_those_that_the_packages_state(self) -> None:
        listed, checked = dependencies.listed_licences(), 0
        for name, versions in dependencies.locked_versions().items():
            try:
                installed = version(name)
            except PackageNotFoundError:
                continue
            if [installed.split("+")[0]] == versions:
                assert listed[name] == dependencies.licence(dependencies.distribution(name)), name
                checked += 1
        assert checked > 100

    def test_an_unknown_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dependencies, "locked_versions", lambda: {"no-such-package": ["1.0"]})
        with pytest.raises(ValueError, match=r"no-such-package is not installed here .* by hand"):
            dependencies.table()

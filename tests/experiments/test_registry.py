"""Experiments by name: when a result is made anew, and why."""

import pkgutil
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from threadpoolctl import threadpool_info

from retrieval_geometry._sources import Sources
from retrieval_geometry.experiments import (
    Experiment,
    RunContext,
    checkpoints,
    claims,
    experiments,
    find,
    load_or_run,
    papers,
    registry,
    why_stale,
)
from retrieval_geometry.experiments.checkpoints import Checkpoints
from retrieval_geometry.reporting import Result, load_recorded, result_path
from retrieval_geometry.reporting.provenance import library_versions

from ..damage import damages
from ..reporting.conftest import make_result

SOURCE = Path(registry.__file__).parents[1]
TABLE = find("geometric-table1")


@pytest.fixture
def runs(monkeypatch, tmp_path) -> list[RunContext]:
    """Experiments that only count their runs."""
    monkeypatch.chdir(tmp_path)
    calls: list[RunContext] = []

    def run(context: RunContext) -> Result:
        calls.append(context)
        made = make_result(seed=context.seed, profile=context.profile, experiment=TABLE.name)
        device = "cpu" if context.device == "cpu" else "some GPU"
        now = replace(made.provenance, device=device, libraries=library_versions())
        return replace(made, provenance=now)

    monkeypatch.setattr(pkgutil, "resolve_name", lambda name: run)
    return calls


@pytest.fixture
def copied(monkeypatch, tmp_path) -> Path:
    """A copy of the package that takes the place of the loaded one where sources are compared."""
    root = shutil.copytree(SOURCE, tmp_path / "copy" / "retrieval_geometry")
    monkeypatch.setattr(registry, "loaded_sources", lambda: Sources(root))
    monkeypatch.setattr(checkpoints, "loaded_sources", lambda: Sources(root))
    return root


def edit(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new, 1))


def test_a_matching_result_is_not_made_again(runs, capsys):
    first = load_or_run("geometric-table1")
    assert load_or_run("geometric-table1") == first
    assert load_or_run("geometric-table1", data_root="elsewhere") == first  # quick reads no data
    assert len(runs) == 1
    assert result_path("geometric-table1", "quick").is_file()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ({}, {"seed": 5}, "seed was 0, is 5"),
        ({}, {"device": "cuda"}, "device was cpu, is other"),
        ({"profile": "paper"}, {"profile": "paper", "data_root": "b"}, "data folder was "),
    ],
)
def test_other_settings_make_it_again_and_say_why(runs, capsys, first, second, reason):
    load_or_run("geometric-table1", **first)
    load_or_run("geometric-table1", **second)
    profile = first.get("profile", "quick")
    assert f"geometric-table1 ({profile}) runs again: {reason}" in capsys.readouterr().err
    assert len(runs) == 2
    load_or_run("geometric-table1", **second)
    assert len(runs) == 2


def test_what_was_recorded_is_not_run_and_another_seed_is(runs):
    recorded = load_recorded("geometric-table1", "real")
    assert load_or_run("geometric-table1", profile="real") == recorded
    assert load_or_run("geometric-table1", RunContext("real")) == recorded
    assert not runs
    assert load_or_run("geometric-table1", profile="real", seed=1).seed == 1
    assert len(runs) == 1


def test_a_context_stands_alone(runs):
    for given in ({"context": RunContext(), "seed": 1}, {"context": "quick"}, {"sed": 1}):
        with pytest.raises(ValueError, match="RunContext"):
            load_or_run("geometric-table1", **given)
    assert not runs


def test_other_libraries_damage_and_another_result_make_it_again(runs, monkeypatch, capsys):
    load_or_run("geometric-table1")
    path = result_path("geometric-table1", "quick")
    with monkeypatch.context() as patch:
        patch.setattr(registry, "library_versions", lambda: library_versions() | {"torch": "99"})
        assert why_stale(TABLE, path).startswith("torch was ")
    path.write_text("{")
    assert "is damaged" in why_stale(TABLE, path)
    assert why_stale(TABLE, path.with_name("none.json")) == "there is none"
    make_result(experiment="geometric-layers").write(path)
    assert why_stale(TABLE, path) == "experiment was geometric-layers, is geometric-table1"


def test_a_damaged_result_is_made_again_with_one_line(runs, capsys):
    first = load_or_run("geometric-table1")
    path = result_path("geometric-table1", "quick")
    whole = path.read_bytes()
    for number, damaged in enumerate(damages(whole, 70), start=2):
        path.write_bytes(damaged)
        assert load_or_run("geometric-table1") == first
        assert len(runs) == number
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith(f"geometric-table1 (quick) runs again: {path} ")
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "old", "new", "again"),
    [
        ("cli.py", '"""', '"""Words. ', False),
        ("papers/geometric/claims.py", "TABLE, ", "MORE = 1\nTABLE, ", False),
        ("distances/riemannian.py", "\ndef ", "\n# words\ndef ", False),
        ("distances/riemannian.py", "\ndef ", "\nMORE = 1\n\n\ndef ", True),
        ("papers/geometric/experiments.py", "SIFT_WORDS = 500", "SIFT_WORDS = 501", True),
    ],
)
def test_an_edit_makes_it_again_if_it_is_code_that_it_imports(runs, copied, capsys, name, old, new, again):
    load_or_run("geometric-table1")
    edit(copied, name, old, new)
    load_or_run("geometric-table1")
    assert len(runs) == 1 + again
    said = "runs again: its code, or a recorded result that it reads, has changed" in capsys.readouterr().err
    assert said == again


def test_a_recorded_result_that_the_code_reads_counts(runs, tmp_path):
    bench = find("learning-bench")
    before = bench.source(), TABLE.source()
    folder = tmp_path / "book" / "results"
    folder.mkdir(parents=True)
    (folder / "learning-tuning-quick.json").write_text("{}")
    assert bench.source(folder=folder) != before[0]
    assert TABLE.source(folder=folder) == before[1]


def test_a_result_carries_what_it_was_made_with_and_no_path(runs, tmp_path):
    result = TABLE.run(RunContext("real", str(tmp_path)))
    assert result.provenance.source == TABLE.source()
    assert len(result.provenance.folder) == 12
    assert str(tmp_path) not in result.write(tmp_path / "r.json").read_text()
    assert Result.read(tmp_path / "r.json") == result


def test_unknown_names_list_the_known(runs):
    with pytest.raises(ValueError, match=r"one of geometric-table1, .*; got 'geometric-tabel1'"):
        find("geometric-tabel1")
    with pytest.raises(ValueError, match="profile must be one of quick, real, paper; got 'fast'"):
        load_or_run("geometric-table1", profile="fast")


def test_every_experiment_has_its_function():
    for experiment in experiments().values():
        module = pkgutil.resolve_name(experiment.module)
        assert callable(getattr(module, experiment.function.partition(":")[2]))


def test_claims_are_those_of_all_papers():
    assert claims() == [claim for paper in papers() for claim in claims(paper)]


def test_parts_of_a_run_outlive_edits_that_do_not_concern_them(copied, tmp_path):
    from retrieval_geometry.experiments.learning.methods import METHODS
    from retrieval_geometry.experiments.learning.run import train_one
    from retrieval_geometry.papers.wasserstein_dml.experiments import variants

    def folders() -> tuple[Path, Path, Path]:
        checkpoints._source.cache_clear()
        shared = Checkpoints(tmp_path, train_one, setting=1)
        pooled = variants()["points-4"][0].make
        return shared.folder, shared.made_by(METHODS["triplet"].make).folder, shared.made_by(pooled).folder

    try:
        first = folders()
        assert first[0] == first[1]  # all experiments share the models of the comparison
        assert first[2] != first[0]
        assert Checkpoints(tmp_path, train_one, setting=2).folder != first[0]
        edit(copied, "cli.py", '"""', '"""Words. ')
        edit(copied, "book/build.py", "def build(", "def other():\n    pass\n\n\ndef build(")
        assert folders() == first
        edit(copied, "papers/wasserstein_dml/experiments.py", "WARM_UP = 30", "WARM_UP = 31")
        second = folders()
        assert second[:2] == first[:2]
        assert second[2] != first[2]
        edit(copied, "losses/wasserstein.py", "\ndef ", "\nMORE = 1\n\n\ndef ")
        assert not set(folders()) & set(second)
    finally:
        checkpoints._source.cache_clear()


def test_what_trains_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums follow the number of threads, and so would the models; other experiments keep theirs."""
    seen = {}

    def run(experiment: Experiment) -> int:
        function = experiment.function.replace(":", ".")
        monkeypatch.setattr(function, lambda context: seen.update({experiment.name: threads()}) or stop())
        with pytest.raises(InterruptedError):
            experiment.run()
        return seen[experiment.name]

    def threads() -> int:
        return max(torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info()))

    def stop() -> None:
        raise InterruptedError

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = {experiment.name: run(experiment) for experiment in experiments().values()}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    trained = {name for name in found if not name.startswith("geometric-")}
    assert {name for name, count in found.items() if count == 1} == trained

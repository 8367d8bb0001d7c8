import pytest

from retrieval_geometry import experiments
from retrieval_geometry.experiments import EXPERIMENTS, Experiment, find, load_or_run
from retrieval_geometry.reporting import Result, result_path

from ..reporting.conftest import make_result


@pytest.fixture
def runs(monkeypatch, tmp_path) -> list[dict]:
    """An experiment that only counts its runs."""
    monkeypatch.chdir(tmp_path)
    calls: list[dict] = []

    def run(self: Experiment, **settings: object) -> Result:
        calls.append(settings)
        made = make_result(seed=settings["seed"], profile=settings["profile"], experiment=self.name)
        return Result(**{**vars(made), "provenance": made.provenance.__class__(
            **{**vars(made.provenance), "package_version": experiments.__version__})})  # fmt: skip

    monkeypatch.setattr(Experiment, "run", run)
    return calls


def test_a_matching_result_is_not_made_again(runs):
    first = load_or_run("geometric-table1")
    assert load_or_run("geometric-table1") == first
    assert len(runs) == 1
    assert result_path("geometric-table1", "quick").is_file()


def test_another_seed_or_version_or_damage_makes_it_again(runs, monkeypatch):
    load_or_run("geometric-table1")
    assert load_or_run("geometric-table1", seed=5).seed == 5
    assert len(runs) == 2
    result_path("geometric-table1", "quick").write_text("{")
    load_or_run("geometric-table1", seed=5)
    assert len(runs) == 3
    monkeypatch.setattr(experiments, "__version__", "99")
    load_or_run("geometric-table1", seed=5)
    assert len(runs) == 4


def test_unknown_names_list_the_known(runs):
    with pytest.raises(ValueError, match=r"one of geometric-table1, .*; got 'geometric-tabel1'"):
        find("geometric-tabel1")
    with pytest.raises(ValueError, match="profile must be one of quick, real, paper; got 'fast'"):
        load_or_run("geometric-table1", profile="fast")


def test_every_experiment_has_its_function():
    import importlib

    for experiment in EXPERIMENTS.values():
        module = importlib.import_module(f"retrieval_geometry.experiments.{experiment.paper}")
        assert callable(getattr(module, experiment.function))

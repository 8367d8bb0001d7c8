import json
import math
import os
import platform
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_geometry._folders import CACHE, cache_dir
from retrieval_geometry.reporting import (
    MethodResult,
    Metric,
    Models,
    Relevance,
    Result,
    ResultError,
    collect_provenance,
    load_all,
    load_recorded,
    project_root,
    provenance,
    recorded_dir,
    result_path,
    results,
    results_dir,
)
from retrieval_geometry.reporting.details import (
    Ablated,
    CloseRange,
    Compared,
    Cost,
    CostCurve,
    Dealt,
    Heaps,
    Ranked,
    Separated,
    Subsets,
    Transport,
    Tuned,
)

from .conftest import make_result


def test_what_is_written_is_read_back(tmp_path, result):
    path = result.write(tmp_path / "deep" / "toy.json")
    assert Result.read(path) == result
    assert os.listdir(path.parent) == ["toy.json"]  # no temporary file stays behind


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, result, monkeypatch):
    path = result.write(tmp_path / "toy.json")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        make_result(seed=7).write(path)
    assert Result.read(path) == result
    assert os.listdir(tmp_path) == ["toy.json"]


def _changed(path: Path, change) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("seed"), "seed is missing"),
        (lambda d: d.update(colour="red"), "colour is not a known field"),
        (lambda d: d.update(seed="0"), "seed should be int, got str '0'"),
        (lambda d: d.update(seed=True), "seed should be int"),
        (lambda d: d["methods"][1]["metrics"]["P@5"].pop("low"), r"methods\[1\].metrics.P@5.low is missing"),
        (lambda d: d["methods"][0]["metrics"]["P@1"].update(low=2.0), "needs low <= high"),
        (lambda d: d["methods"][0].update(notes="x"), r"methods\[0\].notes should be a list"),
        (lambda d: d.update(dataset=[]), "dataset should be an object"),
        (lambda d: d.update(schema=1), "has schema 1, this version reads 2: run its experiment again"),
        (
            lambda d: d["details"].update(kind="other"),
            r"details.kind should be one of ranked, .* got str",
        ),
        (lambda d: d["details"].pop("kind"), r"details.kind should be one of ranked, dealt"),
        (lambda d: d.update(details=[]), r"details.kind should be one of ranked, dealt"),
        (lambda d: d["details"].update(colour=1), "details.colour is not a known field"),
        (lambda d: d["details"]["gallery"].update(queries="a/1"), "details.gallery.queries should be a list"),
        (lambda d: d["groups"].update(sizes=[12, 0]), "every group needs at least one query"),
        (lambda d: d["groups"].update(sizes=[11, 9]), "do not have the sizes"),
        (lambda d: d["scope"].update(queries=1.5), "scope.queries should be int, got float"),
        (lambda d: d["provenance"].update(seconds=math.inf), "it holds Infinity, which is no number"),
    ],
)
def test_a_file_of_another_shape_is_refused_by_name(tmp_path, result, change, message):
    path = result.write(tmp_path / "toy.json")
    _changed(path, change)
    with pytest.raises(ResultError, match=message) as caught:
        Result.read(path)
    assert "toy.json" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b'"text"', b"[]"])
def test_a_damaged_file_is_refused_by_name(tmp_path, content):
    (tmp_path / "toy.json").write_bytes(content)
    with pytest.raises(ResultError, match=r"toy\.json"):
        Result.read(tmp_path / "toy.json")


@pytest.mark.parametrize(
    "path",
    [
        "/srv/pictures/dtd",
        "/scratch",
        "C:\\Pictures\\x",
        "C:/Users/ann",
        "\\\\server\\ann",
        "~/pictures",
        "from ~ann/pictures",
        "../ann/pictures",
        "file:///srv/ann",
        str(Path.home()) + "/x",
    ],
)
def test_a_path_of_the_machine_is_never_published(tmp_path, path):
    with pytest.raises(ValueError, match="no path of this machine"):
        make_result(settings={"from": path}).write(tmp_path / "toy.json")
    assert not list(tmp_path.iterdir())


def test_addresses_classes_and_fractions_are_no_paths(tmp_path):
    settings = {
        "licence": "see https://example.org/licences/by/4.0",
        "ids": ["brick/007"],
        "share": "1/2, and/or",
    }
    assert Result.read(make_result(settings=settings).write(tmp_path / "toy.json")).settings == settings


def test_numbers_that_json_lacks_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        make_result(settings={"x": float("nan")}).write(tmp_path / "toy.json")


@pytest.mark.parametrize("values", [(float("nan"), 0, 1, 5), (0.5, 0.7, 0.6, 5), (0.5, 0, 1, 0)])
def test_a_metric_is_a_finite_value_with_an_interval(values):
    with pytest.raises(ValueError, match="a metric"):
        Metric(*values)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(1, 13), st.integers(1, 9), st.integers(0, 10**6))
def test_packing_relevance_loses_nothing(k, queries, seed):
    hits = np.random.default_rng(seed).random((queries, k)) < 0.5
    packed = Relevance.pack(hits)
    assert (packed.unpack() == hits).all()
    assert np.allclose(packed.precision(k), hits.mean(axis=1))


def test_precision_beyond_what_was_recorded_is_refused():
    with pytest.raises(ValueError, match="between 1 and 2"):
        Relevance.pack(np.ones((3, 2), bool)).precision(3)


ALL_DETAILS = {
    "tuned": Tuned({"a": {"0.5": 0.1}}, {"a": 0.5}, "best"),
    "compared": Compared({"a": 0.5}, Transport(3, (2, 1), {"a": {"R@1": ((0.5, 1.0),)}}, {}, {})),
    "ablated": Ablated("margin", 0.4),
    "subsets": Subsets(0.4, 30, (0.1, 0.3)),
    "separated": Separated(
        1, (0.0, 2.0), Heaps((1.0,), (1.0,)), Heaps((1.0,), (1.0,)), (0.1,), (0.1,), (0.1,), 0.5, 0.1, (1.0,)
    ),
    "dealt": Dealt({"a": CloseRange((0.1, 0.2), (0.1, 0.2), (1.0, 0.5))}),
    "cost": Cost(
        (), (CostCurve("k", "w", "o", (1, 2), {"a": (0.1, 0.2)}, {"a": 1.0}, "pair", None),), {}, 1e9
    ),
}


@pytest.mark.parametrize("kind", ALL_DETAILS)
def test_what_an_experiment_says_beyond_its_table_is_read_back(tmp_path, kind):
    made = make_result(details=ALL_DETAILS[kind])
    found = Result.read(made.write(tmp_path / "toy.json"))
    assert found == made
    assert found.told(type(ALL_DETAILS[kind])) == ALL_DETAILS[kind]


def test_details_of_another_kind_are_refused(result):
    with pytest.raises(ResultError, match=r"toy-table \(quick\) holds no Tuned beyond its table, but Ranked"):
        result.told(Tuned)
    with pytest.raises(ResultError, match="holds no Ranked beyond its table, but nothing"):
        make_result(details=None).told(Ranked)


def test_models_and_times_of_training_are_read_back(tmp_path):
    models = Models({"R@1": (0.5, 0.6)}, {"R@1": ((0.5, 0.5), (0.7, 0.4))}, (1.0, 0.5), trained=False)
    entry = MethodResult("m", "M", {}, seconds_training=2.5, models=models)
    made = make_result(methods=(entry,))
    found = Result.read(made.write(tmp_path / "toy.json"))
    assert found["m"] == entry
    assert found["m"].seconds_model is None


def test_numbers_of_a_list_stand_on_one_line_and_words_stay_as_they_are(tmp_path):
    made = make_result(settings={"steps": [1, 2.5, -3e-7], "note": "from [0.1,  0.2] and [\n 3 ]"})
    path = made.write(tmp_path / "toy.json")
    assert "[1,2.5,-3e-07]" in path.read_text()
    assert Result.read(path) == made


RECORDED = sorted((Path(__file__).parents[2] / "book" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_recorded_result_is_readable_and_small(path):
    result = Result.read(path)
    assert path.name == f"{result.experiment}-{result.profile}.json"
    assert path.stat().st_size < 200_000
    for entry in result.methods:
        if entry.relevance is not None:
            assert len(entry.relevance.unpack()) == len(result.groups.of_query) == result.scope.queries
        for rows in entry.models.by_group.values() if entry.models else ():
            assert {len(row) for row in rows} == {len(result.groups.sizes)}
            assert len(rows) == len(entry.models.means["R@1"])


def test_methods_are_found_by_name(result):
    assert result["good"].label == "Good"
    assert result.get("none") is None
    with pytest.raises(KeyError, match="it has: good, bad"):
        result["none"]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    (tmp_path / "_config.yml").touch()
    (tmp_path / "book" / "chapters").mkdir(parents=True)
    (tmp_path / "sub" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "sub" / "deeper")
    return tmp_path


def test_the_project_is_found_from_below(checkout):
    assert project_root() == checkout
    assert results_dir() == checkout / "build" / "results"
    assert recorded_dir() == checkout / "book" / "results"
    assert result_path("a-b", "quick") == checkout / "build" / "results" / "a-b-quick.json"


def test_outside_a_checkout_nothing_lies_in_the_folder_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert project_root() is None
    assert results_dir() == tmp_path / "kept" / "results"  # as the environment says
    assert cache_dir() == tmp_path / "kept"
    monkeypatch.delenv(CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert results_dir() == tmp_path / "user" / "retrieval-geometry" / "results"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "retrieval-geometry"


def test_recorded_results_come_with_the_package(tmp_path, monkeypatch):
    ours = {path.name for path in recorded_dir().glob("*.json")}
    monkeypatch.chdir(tmp_path)
    assert {path.name for path in recorded_dir().glob("*.json")} == ours
    assert load_recorded("learning-bench", "real").scope.steps == 1_400
    patterns = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"][
        "setuptools"
    ]["package-data"]
    assert f"{recorded_dir().name}/*.json" in patterns["retrieval_geometry"]


def test_claims_are_judged_by_runs_of_this_machine_and_pages_show_recorded_ones(checkout):
    make_result(seed=1).write(result_path("toy-table", "quick", recorded_dir()))
    assert load_all(["toy-table", "toy-other"], "quick")["toy-table"].seed == 1
    make_result(seed=2).write(result_path("toy-table", "quick"))
    assert load_all(["toy-table", "toy-other"], "quick")["toy-table"].seed == 2
    assert load_recorded("toy-table", "quick").seed == 1


def test_a_missing_result_says_how_to_make_it(checkout):
    with pytest.raises(ResultError, match="retrieval-geometry run toy-table --profile real"):
        load_recorded("toy-table", "real")


def test_a_bad_file_has_a_remedy_by_where_it_lies(checkout, monkeypatch):
    for folder in (None, recorded_dir()):
        make_result().write(result_path("toy-other", "quick", folder))
    with pytest.raises(ResultError, match=r"holds the result of toy-table \(quick\).*: run its experiment"):
        load_all(["toy-other"], "quick")
    with pytest.raises(ResultError, match=r"git checkout -- book/results/toy-other-quick\.json"):
        load_recorded("toy-other", "quick")
    monkeypatch.chdir("/")  # outside a checkout the recorded runs are those of the installed package
    monkeypatch.setattr(results, "recorded_dir", lambda: checkout / "book" / "results")
    with pytest.raises(ResultError, match="install the package again"):
        load_recorded("toy-other", "quick")


def test_provenance_outside_a_checkout_and_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no git there
    made = collect_provenance(1.0, threads=1)
    assert (made.commit, made.dirty) == ("unknown", False)
    monkeypatch.setattr(provenance, "project_root", lambda start: None)
    assert collect_provenance(1.0, threads=1).commit == "unknown"


def test_provenance_of_a_system_without_a_library_or_a_list_of_processors(monkeypatch):
    monkeypatch.setattr(provenance, "LIBRARIES", ("numpy", "no-such-library"))
    assert provenance.library_versions().keys() == {"python", "numpy"}
    monkeypatch.setattr(provenance, "Path", lambda name: Path("/no/such/place"))
    assert provenance._cpu_name() == (platform.processor() or platform.machine())


def test_provenance_names_no_place():
    made = collect_provenance(1.23456, threads=2)
    assert made.seconds == 1.235
    assert made.peak_memory_mb is None or made.peak_memory_mb > 10
    assert "numpy" in made.libraries
    assert len(made.commit) == 40 or made.commit == "unknown"

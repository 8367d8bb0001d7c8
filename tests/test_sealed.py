"""Files that are read back: none that is not as it was written is used, and no failed write is silent."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytorch_metric_learning.losses import TripletMarginLoss

from retrieval_geometry._files import replacing
from retrieval_geometry._sealed import Kind, json_digest, parse_json
from retrieval_geometry.distances import GalleryIndex
from retrieval_geometry.experiments.checkpoints import Checkpoints, Part
from retrieval_geometry.features import extract_descriptors, load_backbone
from retrieval_geometry.reporting import MethodResult, Result, ResultError, load_all, load_recorded
from retrieval_geometry.training import TrainingConfig, train
from retrieval_geometry.training._state import CHECKPOINT, read_checkpoint, write_checkpoint

from .damage import damages, full_disk
from .distances.common import gaussians
from .reporting.conftest import make_result
from .training.toy import SETTINGS, LearntScale, new_network, toy_images

RECORDED = Path(__file__).resolve().parents[1] / "book" / "results"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout around the working folder."""
    (tmp_path / "_config.yml").touch()
    for name in ("chapters", "results"):
        (tmp_path / "book" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint after two steps."""
    path = tmp_path_factory.mktemp("run") / "run.pt"
    config = TrainingConfig(steps=2, **SETTINGS)
    train(new_network(), LearntScale(), toy_images(), config, checkpoint=path)
    return path


def test_no_damaged_checkpoint_is_resumed_from(trained: Path, tmp_path: Path) -> None:
    settings = torch.load(trained, weights_only=True)["settings"]  # torch reads it as well
    assert read_checkpoint(trained, settings) is not None
    path = tmp_path / "run.pt"
    for damaged in damages(trained.read_bytes(), 140):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"checkpoint {path} is damaged; remove it to train anew"):
            read_checkpoint(path, settings)
    with pytest.raises(ValueError, match="is damaged; remove it"):
        train(
            new_network(), LearntScale(), toy_images(), TrainingConfig(steps=2, **SETTINGS), checkpoint=path
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("settings"),
        lambda state: state.update(settings=["lr"]),
        lambda state: state.pop("run"),
        lambda state: state.pop("history"),
        lambda state: state.pop("best"),
    ],
)
def test_a_checkpoint_that_lacks_a_part_is_refused(
    trained: Path, tmp_path: Path, change: Callable[[dict], object]
) -> None:
    """Without a seal it is none of ours; with one it is looked through all the same."""
    state, path = torch.load(trained, weights_only=True), tmp_path / "run.pt"
    settings = state["settings"]
    change(state)
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"run\.pt is damaged; .* no checkpoint of this version"):
        read_checkpoint(path, settings)
    CHECKPOINT.write(path, path.read_bytes())
    with pytest.raises(ValueError, match=r"run\.pt is no checkpoint of `train`; remove it"):
        read_checkpoint(path, settings)
    CHECKPOINT.write(path, b"whole, but nothing that torch reads")
    with pytest.raises(ValueError, match=r"run\.pt cannot be read; remove it"):
        read_checkpoint(path, settings)


@pytest.mark.parametrize("distance", ["wasserstein2", "affine_invariant"])
def test_no_damaged_index_is_used(distance: str, tmp_path: Path) -> None:
    path = tmp_path / "gallery"
    GalleryIndex(gaussians(6, 3, 1), distance).save(path)
    for damaged in damages(path.read_bytes(), 100):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{path} .*build the index again"):
            GalleryIndex.load(path)


def test_damaged_descriptors_are_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever the damage is: the first image, which was looked at before, or any other."""
    monkeypatch.setattr("retrieval_geometry.features.local.PART", 2)
    images, backbone = toy_images(1, 4), load_backbone()

    def described() -> torch.Tensor:
        return extract_descriptors(images, backbone, progress=False, cache=tmp_path)

    expected = described()
    first, second = sorted(tmp_path.rglob("*.safetensors"))
    whole = second.read_bytes()
    for damaged in [*damages(whole, 60), first.read_bytes()]:
        second.write_bytes(damaged)
        assert torch.equal(described(), expected)
        assert second.read_bytes() == whole
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert said[0].startswith(f"file of descriptors {second} is damaged; it is made again")
    assert torch.equal(described(), expected)
    assert capsys.readouterr().err == ""


def test_damaged_parts_of_a_run_are_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = Checkpoints(tmp_path, train, run=1)
    part = Part(MethodResult("m", "M", {}, 0.1), ((1, 2), (0, 2)), 0.5)
    kept.put("one", part)
    kept.put("other", part)
    (one,), (other,) = (tmp_path.rglob(f"{name}.part") for name in ("one", "other"))
    assert kept.get("one") == part
    assert kept.get("none") is None
    assert capsys.readouterr().err == ""
    for damaged in [*damages(one.read_bytes(), 100), other.read_bytes()]:
        one.write_bytes(damaged)
        assert kept.get("one") is None
        assert re.fullmatch(
            rf"part of a run {one} is damaged; it is made again .*\n", capsys.readouterr().err
        )
    assert kept.get("other", MethodResult) is None  # a part of another kind


@pytest.mark.parametrize("name", ["rankmi-distances-real", "learning-tuning-quick"])
def test_no_damaged_recorded_result_is_shown(name: str, checkout: Path) -> None:
    content, path = (RECORDED / f"{name}.json").read_bytes(), checkout / "book" / "results" / f"{name}.json"
    experiment, _, profile = name.rpartition("-")
    remedy = rf"{path} .*: take it back with `git checkout -- book/results/{name}\.json`"
    for damaged in damages(content, 140, seed=1):
        path.write_bytes(damaged)
        with pytest.raises(ResultError, match=remedy):
            load_recorded(experiment, profile)
        with pytest.raises(ResultError, match=remedy):
            load_all([experiment], profile)
    path.write_bytes(content.replace(b"\n", b"\r\n"))  # as git on Windows may write it
    assert load_recorded(experiment, profile) == Result.read(RECORDED / f"{name}.json")


def test_a_damaged_choice_of_hyper_parameters_is_no_missing_one(checkout: Path) -> None:
    from retrieval_geometry.experiments.learning.chosen import chosen_values

    middle = chosen_values()
    path = checkout / "book" / "results" / "learning-tuning-quick.json"
    content = (RECORDED / path.name).read_bytes()
    path.write_bytes(content)
    assert chosen_values() != middle
    path.write_bytes(content[:-9])
    with pytest.raises(ResultError, match="take it back with `git checkout"):
        chosen_values()


def test_a_result_in_the_place_of_another_is_refused(checkout: Path) -> None:
    path = make_result(experiment="other", profile="real").write("book/results/toy-table-real.json")
    fault = r"toy-table-real\.json holds the result of other \(real\), not that of toy-table \(real\)"
    with pytest.raises(ResultError, match=fault):
        load_recorded("toy-table", "real")
    with pytest.raises(ResultError, match=fault):
        load_all(["toy-table"], "real")
    assert Result.read(path).experiment == "other"


EDITS: dict[str, Callable[[str], str]] = {
    "a number": lambda text: text.replace('"seconds": 3.5', '"seconds": 3.6'),
    "a digit that no float64 has": lambda text: text.replace(
        '"peak_memory_mb": 812.0', '"peak_memory_mb": 812.00'
    ),
    "a word": lambda text: text.replace('"label": "Good"', '"label": "Best"'),
    "a setting": lambda text: text.replace('"scattering"', '"SqueezeNet"', 1),
    "the digest": lambda text: re.sub(r'"digest": "\w+"\n}', f'"digest": "{"0" * 64}"\n}}', text),
    "no digest": lambda text: re.sub(r',\n "digest": "\w+"\n}', "\n}", text),
    "a list for a digest": lambda text: re.sub(r'"digest": "\w+"\n}', '"digest": []\n}', text),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_result_is_refused(edit: str, tmp_path: Path) -> None:
    path = make_result().write(tmp_path / "toy.json")
    text = path.read_text()
    changed = EDITS[edit](text)
    assert changed != text
    path.write_text(changed)
    with pytest.raises(ResultError, match=r"toy\.json is not as it was written"):
        Result.read(path)
    path.write_text(
        json.dumps(dict(reversed(json.loads(text).items())), indent=4)
    )  # the same, said otherwise
    assert Result.read(path) == make_result()


BAD_JSON = {
    "deep lists": ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
    "deep objects": ('{"a":' * 5000 + "1" + "}" * 5000, "nested too deeply"),
    "deep settings": ('{"schema": 2, "settings": ' + "[" * 700 + "]" * 700 + "}", ""),
    "5,000 digits": ('{"schema": ' + "7" * 5000 + "}", "a whole number of 5000 digits, 7777"),
    "beyond 64 bits": ('{"schema": -9223372036854775809}', "a whole number of 19 digits"),
    "NaN": ('{"schema": 2, "seed": NaN}', "holds NaN, which is no number"),
    "infinity": ('{"schema": 2, "seed": -Infinity}', "holds -Infinity, which is no number"),
    "an infinite power": ('{"schema": 2, "seed": 1e999}', "holds 1e999, which is beyond all numbers"),
    "another type": ("3", "has schema None"),
    "nothing but the schema": ('{"schema": 2}', "experiment is missing"),
    "a mark of Windows": ("\ufeff{}", "BOM"),
    "half a character": ('{"schema": 2, "experiment": "\\ud800"}', "profile is missing"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_json_that_is_no_result_is_refused_by_name(case: str, tmp_path: Path) -> None:
    text, message = BAD_JSON[case]
    path = tmp_path / "toy.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=rf"{path} .*{message}"):
        Result.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["details"].update(kind=["ranked"]), "details.kind should be one of ranked"),
        (lambda d: d["details"].update(kind={}), "details.kind should be one of ranked"),
        (lambda d: d["groups"].update(of_query=[10**15]), "groups of queries do not have the sizes"),
        (lambda d: d["groups"].update(of_query=[-1] * 20), "groups of queries do not have the sizes"),
        (lambda d: d["methods"][0]["relevance"].update(k=0), "bits must hold"),
        (lambda d: d["methods"][0]["relevance"].update(bits="xyz"), "bits must hold"),
        (lambda d: d["methods"][0]["relevance"].update(bits="f"), "bits must hold"),
        (lambda d: d["provenance"].update(libraries=[]), "provenance.libraries should be an object"),
        (lambda d: d.update(methods={}), "methods should be a list"),
        (lambda d: d.update(dataset=None), "dataset should be an object"),
    ],
)
def test_wrong_types_are_refused_by_name(
    change: Callable[[dict], object], message: str, tmp_path: Path
) -> None:
    """Though the digest is right."""
    path = make_result().write(tmp_path / "toy.json")
    data = json.loads(path.read_text())
    change(data)
    data["digest"] = json_digest(json.dumps(data))
    path.write_text(json.dumps(data))
    with pytest.raises(ResultError, match=rf"toy\.json is no valid result: .*{message}"):
        Result.read(path)


def test_numbers_count_as_they_are_written() -> None:
    assert json_digest('{"a": 1.0, "b": [1, 2]}') == json_digest(' {"b":[1,2],\n"a":1.0, "digest": "x"}')
    texts = [
        f'{{"a": {value}}}'
        for value in ("1", "1.0", '"1"', "1e0", "1E0", "[1]", "0.1", "0.10000000000000001")
    ]
    assert len({json_digest(text) for text in texts}) == len(texts)
    assert parse_json("[1, -9223372036854775808, 1e-400]") == [1, -(2**63), 0.0]


def test_a_seal_says_what_a_file_is_about(tmp_path: Path) -> None:
    kind, path = Kind("note", 1, "write it again"), tmp_path / "note"
    for content in (b"", b"words", b"lines\n\n", bytes(range(256))):
        kind.write(path, content, about="birds")
        assert kind.read(path, about="birds") == content
        for other, about in (
            (kind, "bees"),
            (Kind("note", 2, "write it again"), "birds"),
            (Kind("song", 1, "write it again"), "birds"),
        ):
            with pytest.raises(ValueError, match=f"{other.name} {path} is damaged; write it again"):
                other.read(path, about)
    with pytest.raises(FileNotFoundError):
        kind.read(tmp_path / "none")


def _write_descriptors(path: Path) -> None:
    extract_descriptors(toy_images(1, 3), load_backbone(), progress=False, cache=path)


WRITERS: dict[str, Callable[[Path], object]] = {
    "result": lambda path: make_result().write(path),
    "checkpoint": lambda path: write_checkpoint(path, {}, {"run": torch.zeros(10_000)}),
    "index": lambda path: GalleryIndex(gaussians(9, 3, 1)).save(path),
    "seal": lambda path: Kind("note", 1, "").write(path, b"x" * 5000),
}


@pytest.mark.parametrize("room", [0, 100, 1500])
@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk_is_an_error_with_the_path(what: str, room: int, tmp_path: Path) -> None:
    """The file that was there stays, nothing else does, and the next write succeeds."""
    path = tmp_path / "file"
    WRITERS[what](path)
    before = path.read_bytes()
    with pytest.raises(OSError, match=f"File too large: '{path}'") as caught, full_disk(room):
        WRITERS[what](path)
    assert caught.value.errno == errno.EFBIG
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    WRITERS[what](path)


def test_training_on_a_full_disk_names_the_checkpoint(tmp_path: Path) -> None:
    path, config = tmp_path / "run.pt", TrainingConfig(steps=1, **SETTINGS)
    with pytest.raises(OSError, match=f"'{path}'"), full_disk():
        train(new_network(), TripletMarginLoss(), toy_images(), config, checkpoint=path)
    assert not list(tmp_path.iterdir())


def test_a_cache_on_a_full_disk_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"part-00000\.safetensors'"), full_disk():
        _write_descriptors(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("where", ["fsync", "write"])
def test_whatever_the_system_says_comes_with_the_path(
    where: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "toy.json"
    if where == "fsync":
        monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match=f"'{path}'") as caught, replacing(path):  # noqa: PT012
        if where == "write":
            failing()
    assert caught.value.errno == number
    assert not list(tmp_path.iterdir())

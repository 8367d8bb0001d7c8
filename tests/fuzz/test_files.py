"""Every file that is parsed, damaged: it is read, made again, or refused by name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from scipy.io import savemat

from retrieval_geometry.datasets import load_dtd, load_image_folder, load_metric_learning
from retrieval_geometry.distances import GalleryIndex
from retrieval_geometry.experiments.checkpoints import Checkpoints
from retrieval_geometry.features import convert_vgg_m, extract_descriptors
from retrieval_geometry.features.weights import read_state_dict
from retrieval_geometry.projections import PCAWhitening, load_projection, save_projection
from retrieval_geometry.reporting import Result
from retrieval_geometry.training._state import read_checkpoint, write_checkpoint
from tests.datasets.conftest import save_noise
from tests.datasets.test_metric_learning import COPIES

from .law import REFUSED, judge
from .makers import gaussians, images, network

DRAWS = int(os.environ.get("FUZZ_DRAWS", "20"))
RECORDED = Path(__file__).parents[2] / "book" / "results"
SETTINGS = {"steps": 3, "objective.margin": 0.2}


def recorded_result(folder: Path) -> Path:
    """A result as it comes with the book."""
    return Path(shutil.copy(RECORDED / "geometric-layers-real.json", folder / "result.json"))


def index_file(folder: Path) -> Path:
    """An index of four images."""
    GalleryIndex(gaussians()(0)).save(folder / "gallery.index")
    return folder / "gallery.index"


def projection_file(folder: Path) -> Path:
    """A fitted whitening."""
    save_projection(folder / "whitening", PCAWhitening().fit(torch.eye(4)[:, :2] * torch.arange(1, 3)))
    return folder / "whitening"


def read_projection(file: Path) -> Any:
    """What it makes of two embeddings."""
    return load_projection(file).transform(torch.eye(2))


def checkpoint(folder: Path) -> Path:
    """A checkpoint of a training run."""
    write_checkpoint(folder / "run.pt", SETTINGS, {"run": torch.zeros(3), "history": [], "best": None})
    return folder / "run.pt"


def weight_file(folder: Path) -> Path:
    """Weights as torch saves them."""
    torch.save({"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}, folder / "weights.pth")
    return folder / "weights.pth"


def safe_weight_file(folder: Path) -> Path:
    """Weights as safetensors."""
    save_file({"a.weight": torch.ones(2, 3)}, folder / "weights.safetensors")
    return folder / "weights.safetensors"


def matlab_file(folder: Path) -> Path:
    """Something of Matlab's."""
    savemat(folder / "vgg.mat", {"layers": [1, 2, 3]})
    return folder / "vgg.mat"


def picture(suffix: str) -> Callable[[Path], Path]:
    """A picture in a folder of two classes."""

    def make(folder: Path) -> Path:
        for name in ("a/1", "a/2", "b/1", "b/2"):
            save_noise(folder / "set" / f"{name}.png")
        file = folder / "set" / "a" / f"3{suffix}"
        Image.new("RGB", (9, 7), (10, 200, 30)).save(file)
        return file

    return make


def read_pictures(file: Path) -> Any:
    """All pictures of the folder, decoded."""
    found = load_image_folder(file.parents[1])
    return [found.load(i) for i in range(len(found))]


def archive(folder: Path) -> Path:
    """The same as an archive."""
    picture(".png")(folder)
    return Path(shutil.make_archive(str(folder / "photos"), "zip", folder / "set"))


def read_archive(file: Path) -> Any:
    """All pictures of the archive."""
    found = load_image_folder(file)
    return [found.load(i) for i in range(len(found))]


def benchmark_list(name: str, file: str) -> Callable[[Path], Path]:
    """A small copy of a benchmark, and the list in it."""

    def make(folder: Path) -> Path:
        return Path(COPIES[name][0](folder)) / file

    return make


def dtd_list(folder: Path) -> Path:
    """DTD in the layout of its archive."""
    (folder / "dtd" / "labels").mkdir(parents=True)
    for split in ("train1", "val1", "test1"):
        names = [f"{attribute}/{attribute}_{split}.jpg" for attribute in ("banded", "woven")]
        (folder / "dtd" / "labels" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            save_noise(folder / "dtd" / "images" / name)
    return folder / "dtd" / "labels" / "train1.txt"


def descriptor_cache(folder: Path) -> Path:
    """A cached part of descriptors."""
    read_cache(folder / "x")
    return next(folder.rglob("part-*"))


def read_cache(file: Path) -> Any:
    """The descriptors with a cache below the first folder of the test."""
    top = next((p for p in file.parents if (p / "here").exists()), file.parent)
    return extract_descriptors(images(0), network().trunk, progress=False, cache=top)


@dataclass(frozen=True)
class Parser:
    """How a file is made and read, what a refusal may name besides the file, and whether it is good."""

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    words: tuple[str, ...] = ()
    taken: bool = True


PARSERS = {
    "result": Parser(recorded_result, Result.read),
    "index": Parser(index_file, GalleryIndex.load),
    "projection": Parser(projection_file, read_projection),
    "checkpoint": Parser(checkpoint, lambda path: read_checkpoint(path, SETTINGS)),
    "weights": Parser(weight_file, read_state_dict),
    "safe weights": Parser(safe_weight_file, read_state_dict),
    "Matlab weights": Parser(matlab_file, convert_vgg_m, taken=False),  # a whole network has 26 MB
    "PNG": Parser(picture(".png"), read_pictures, ("set", "a/3.png")),
    "JPEG": Parser(picture(".jpg"), read_pictures, ("set", "a/3.jpg")),
    "TIFF": Parser(picture(".tif"), read_pictures, ("set", "a/3.tif")),
    "GIF": Parser(picture(".gif"), read_pictures, ("set", "a/3.gif")),
    "archive": Parser(archive, read_archive),
    "DTD list": Parser(
        dtd_list, lambda path: load_dtd(path.parents[1], "train1").labels, ("DTD", "split", "images")
    ),
    "cache": Parser(descriptor_cache, read_cache),
    **{
        f"{name} list": Parser(
            benchmark_list(name, file),
            lambda path, name=name: load_metric_learning(name, path.parent),
            (name,),
        )
        for name, file in {
            "cub": "image_class_labels.txt",
            "cars": "cars_annos.mat",
            "sop": "Ebay_train.txt",
            "grocery": "classes.csv",
        }.items()
    },
    "inshop list": Parser(
        benchmark_list("inshop", "Eval/list_eval_partition.txt"),
        lambda path: load_metric_learning("inshop", path.parents[1]),
        ("inshop",),
    ),
}

BLOCKS = [b"\0" * 64, b"\xff" * 9, b"\n\n", b"1e999", b"NaN", b"[" * 5000, b"9" * 5000, b"-1 ", b"../../x"]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Something else, or the content with up to three damages."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.one_of(st.binary(max_size=200), st.sampled_from(BLOCKS)))
    for _ in range(draw(st.integers(1, 3))):
        # Headers come first, and are worth more tries.
        place = draw(st.one_of(st.integers(0, min(300, len(content))), st.integers(0, len(content))))
        end = place + draw(st.integers(0, 64))
        kind = draw(st.sampled_from(["flip", "cut", "drop", "double", "insert", "replace"]))
        if kind == "flip" and place < len(content):
            bit = 1 << draw(st.integers(0, 7))
            content = content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
        elif kind == "cut":
            content = content[:place]
        elif kind == "drop":
            content = content[:place] + content[end:]
        elif kind == "double":
            content = content[:end] + content[place:]
        elif kind == "insert":
            content = content[:place] + draw(st.sampled_from(BLOCKS)) + content[place:]
        elif kind == "replace":
            content = content[:place] + draw(st.sampled_from(BLOCKS)) + content[end:]
    return content


SEALED: dict[str, Callable[[Any, Any], bool]] = {
    "result": lambda found, whole: found == whole,  # other white space is no damage
    "index": lambda found, whole: False,
    "checkpoint": lambda found, whole: False,
    "projection": lambda found, whole: False,
    "cache": lambda found, whole: all(map(torch.equal, found, whole)),  # made again
}
"""Files that carry a digest, and what may be read of one that is not as it was written."""


@pytest.mark.parametrize("name", PARSERS)
def test_a_damaged_file_is_read_or_refused_by_name(name: str, tmp_path: Path) -> None:
    parser = PARSERS[name]
    (tmp_path / "here").touch()
    file = parser.make(tmp_path)
    good = file.read_bytes()
    names = [str(file), file.name, file.parent.name, *parser.words]
    whole = judge(lambda: parser.read(file), names, finite=True)
    assert (whole is not REFUSED) == parser.taken

    @settings(
        max_examples=DRAWS,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged(good))
    def law(content: bytes) -> None:
        file.write_bytes(content)
        found = judge(lambda: parser.read(file), names, finite=False)
        if name in SEALED and content != good:
            assert found is REFUSED or SEALED[name](found, whole)

    law()


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of a parsed JSON value, four deep."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, part in inside:
        found += paths_in(part, (*path, key)) if len(path) < 4 else []
    return found


JUNK = [None, True, -1, 1e308, 10**400, "", "é\x1b", [], {}, [[]], {"kind": "x"}, [None], float("inf")]


def test_a_result_of_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    """Valid JSON with one value replaced, whatever checksum it carries."""
    file = recorded_result(tmp_path)
    good = json.loads(file.read_text())
    places = paths_in(good)

    @settings(max_examples=2 * DRAWS, derandomize=True, database=None, deadline=None)
    @given(st.sampled_from(places), st.sampled_from(JUNK))
    def law(place: tuple[Any, ...], junk: Any) -> None:
        data = json.loads(json.dumps(good))
        inside = data
        for key in place[:-1]:
            inside = inside[key]
        inside[place[-1]] = junk
        file.write_text(json.dumps(data))
        found = judge(lambda: Result.read(file), [str(file)], finite=False)
        assert found is REFUSED or data == good

    law()


def test_a_damaged_part_of_a_run_is_made_again(tmp_path: Path) -> None:
    parts = Checkpoints(tmp_path, recorded_result, seed=0)
    metric = Result.read(recorded_result(tmp_path)).methods[0].metrics["P@1"]
    parts.put("part", metric)
    file = next(tmp_path.rglob("*.part"))
    good = file.read_bytes()

    @settings(max_examples=DRAWS, derandomize=True, database=None, deadline=None)
    @given(damaged(good))
    def law(content: bytes) -> None:
        file.write_bytes(content)
        found = judge(lambda: parts.get("part", type(metric)), [str(file)], finite=False)
        assert found is None or (found == metric and content == good)

    law()

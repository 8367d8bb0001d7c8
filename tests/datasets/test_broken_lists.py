"""The lists of the benchmarks, damaged: file and line are named."""

import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from retrieval_geometry.datasets import load_dtd, load_metric_learning
from tests.datasets.test_benchmarks import official  # noqa: F401
from tests.datasets.test_metric_learning import (
    make_cars,
    make_cub,
    make_grocery,
    make_inshop,
    make_sop,
)

MAKE = {"cub": make_cub, "sop": make_sop, "inshop": make_inshop, "grocery": make_grocery, "cars": make_cars}
INSHOP = "Eval/list_eval_partition.txt"
FIRST = "1 001.Bird_1/Bird_1.jpg"

ID, LABELS = "images.txt", "image_class_labels.txt"
PARTS = "train, query, gallery"

CASES = [
    ("cub", ID, "1 001", "77 001", f"images.txt, line 1: image_id 77 is not in {LABELS}"),
    ("cub", ID, FIRST, "", f"{LABELS}, line 1: image_id 1 is not in images.txt"),
    ("cub", ID, FIRST, "1", "images.txt, line 1: 1 words in '1', which should be 'image_id image_n"),
    ("cub", ID, "2 001", "1 001", "images.txt, line 2: 1 stands there twice"),
    ("cub", ID, "Bird_2.jpg\n3", "Bird_1.jpg\n3", "the image images/001.Bird_1/Bird_1.jpg twice"),
    ("cub", LABELS, "3 100", "3 x", f"{LABELS}, line 3: class_id is no whole number in"),
    ("cub", LABELS, "3 100", f"3 {'9' * 5000}", "line 3: class_id is no whole number"),
    ("cub", LABELS, "3 100", "3 -1", "line 3: class_id is no whole number"),
    ("cub", LABELS, "3 100", "3", f"{LABELS}, line 3: 1 words"),
    ("sop", "Ebay_test.txt", "2 11319 1", "2 1", "Ebay_test.txt, line 3: 3 words"),
    (
        "sop",
        "Ebay_test.txt",
        "2 11319 1",
        "2 \x1b[31m 1",
        r"class_id is no whole number in '2 \\x1b[31m 1 ch",
    ),
    ("sop", "Ebay_train.txt", "image_id class_id", "1 1", "Ebay_train.txt, line 1: other titles"),
    ("inshop", INSHOP, "WOMEN", "WO MEN", f"{INSHOP}, line 3: 4 words"),
    ("inshop", INSHOP, "train\n", "val\n", f"{INSHOP}, line 3: evaluation_status is none of {PARTS}"),
    ("inshop", INSHOP, "6\n", "8\n", f"{INSHOP}, line 1: 6 images follow in '8'"),
    ("inshop", INSHOP, "6\n", "many\n", f"{INSHOP}, line 1: number_of_images is no whole number"),
    ("inshop", INSHOP, "item_id", "id", f"{INSHOP}, line 2: other titles"),
    ("grocery", "val.txt", "P39_1.jpg, 39, 0", "P39_1.jpg, 39", "val.txt, line 3: 2 words"),
    ("grocery", "val.txt", "P39_1.jpg, 39", "P39_1.jpg, x", "val.txt, line 3: fine_id, is no whole number"),
    ("grocery", "val.txt", "val/Fruit/P39/P39_1.jpg", "a.jpg", "1 of the 24 images of Grocery Store are"),
]


@pytest.mark.parametrize(("name", "file", "old", "new", "message"), CASES)
def test_a_broken_line_is_named(tmp_path, name, file, old, new, message):
    path = MAKE[name](tmp_path) / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        load_metric_learning(name, tmp_path)


LISTS = [("cub", "images.txt"), ("sop", "Ebay_train.txt"), ("inshop", INSHOP), ("grocery", "val.txt")]


@pytest.mark.parametrize(("name", "file"), LISTS)
def test_an_empty_list_and_one_that_is_no_text(tmp_path, name, file):
    path = MAKE[name](tmp_path) / file
    lines = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"{file} holds no row of '"):
        load_metric_learning(name, tmp_path)
    path.write_bytes(lines + b"\xff\xfe")
    with pytest.raises(ValueError, match=rf"{file}, line {lines.count(10) + 1}: no text in UTF-8"):
        load_metric_learning(name, tmp_path)


@pytest.mark.parametrize(("name", "file"), LISTS)
def test_marks_and_line_ends_of_windows_do_no_harm(tmp_path, name, file):
    path = MAKE[name](tmp_path) / file
    before = load_metric_learning(name, tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n"))
    assert load_metric_learning(name, tmp_path).train.ids == before.train.ids


def mat(**content: object) -> bytes:
    stream = BytesIO()
    savemat(stream, content)
    return stream.getvalue()


ROWS = np.array([("b.jpg", 1), ("a.jpg", 7)], dtype=[("relative_im_path", "O"), ("class", "O")])
NAMES = np.array(["one", "two"], dtype=object)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no annotations of Cars196"),
        (b"\x1b[31mjunk" * 99, "holds no annotations of Cars196"),
        (mat(other=1), "(KeyError: 'annotations')"),
        (mat(annotations=ROWS), "(KeyError: 'class_names')"),
        (mat(annotations=np.zeros(3), class_names=NAMES), "holds no annotations of Cars196"),
        (mat(annotations=ROWS, class_names=NAMES), "class 7 of a.jpg is none of its 2 class_names"),
    ],
)
def test_a_matlab_file_of_something_else(tmp_path, content, message):
    (make_cars(tmp_path) / "cars_annos.mat").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_metric_learning("cars", tmp_path)
    assert "cars_annos.mat" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_list_of_dtd_that_is_no_text(official: Path):  # noqa: F811
    (official / "labels" / "test1.txt").write_bytes(b"banded/\xff.jpg")
    with pytest.raises(ValueError, match=r"test1\.txt is no text in UTF-8 \(byte 7\)"):
        load_dtd(official, "test1")

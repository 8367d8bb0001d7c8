"""The benchmarks of metric learning, in small generated copies of their published layouts."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from retrieval_geometry.datasets import (
    ImageSet,
    available_datasets,
    load_metric_learning,
    split_class_folders,
)
from retrieval_geometry.datasets._layouts import FIRST_CAR
from retrieval_geometry.datasets.metric_learning import BENCHMARKS
from tests.datasets.conftest import save_noise


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def make_cub(root: Path) -> Path:
    place = root / "CUB_200_2011"
    files = [
        (label, f"{label:03d}.Bird_{label}/Bird_{i}.jpg") for label in (1, 100, 101, 200) for i in (1, 2)
    ]
    write(place / "images.txt", [f"{i} {file}" for i, (_, file) in enumerate(files, 1)])
    write(place / "image_class_labels.txt", [f"{i} {label}" for i, (label, _) in enumerate(files, 1)])
    for _, file in files:
        save_noise(place / "images" / file)
    return place


def make_cars(root: Path) -> Path:
    place, kind = root / "cars196", [("relative_im_path", "O"), ("class", "O"), ("test", "O")]
    rows = [(f"car_ims/{i:06d}.jpg", label, i % 2) for i, label in enumerate([1, 1, 98, 99, 196, 196], 1)]
    names = np.array([f"Car {label}" for label in range(1, 197)], dtype=object)
    for file, _, _ in rows:
        save_noise(place / file)
    savemat(place / "cars_annos.mat", {"annotations": np.array(rows, dtype=kind), "class_names": names})
    return place


def make_cars_folders(root: Path) -> Path:
    place = root / "cars"
    for label in range(196):
        name = FIRST_CAR if label == 0 else f"Car {label:03d}"
        save_noise(place / ("train" if label % 2 else "test") / name / "1.jpg", (2, 2))
        save_noise(place / "train" / name / "2.jpg", (2, 2))
    return place


def make_sop(root: Path) -> Path:
    place, title = root / "Stanford_Online_Products", "image_id class_id super_class_id path"
    for side, labels in (("train", (1, 2)), ("test", (11319, 11320))):
        rows = [(label, f"chair_final/{label}_{i}.JPG") for label in labels for i in (0, 1)]
        lines = [f"{n} {label} 1 {file}" for n, (label, file) in enumerate(rows, 1)]
        write(place / f"Ebay_{side}.txt", [title, *lines])
        for _, file in rows:
            save_noise(place / file)
    return place


def make_inshop(root: Path) -> Path:
    place, rows = root / "inshop", []
    for side, items in (("train", "12"), ("query", "34"), ("gallery", "34")):
        rows += [
            (f"img/WOMEN/Dresses/id_0000000{item}/{side}.jpg", f"id_0000000{item}", side) for item in items
        ]
    lines = [str(len(rows)), "image_name item_id evaluation_status", *("    ".join(row) for row in rows)]
    write(place / "Eval" / "list_eval_partition.txt", lines)
    for file, _, _ in rows:
        save_noise(place / "Img" / file)
    return place


def make_omniglot(root: Path) -> Path:
    place = root / "omniglot"
    for side, alphabets in (("images_background", "AB"), ("images_evaluation", "CD")):
        for alphabet in alphabets:
            for i in (1, 2):
                save_noise(place / side / f"Alphabet_{alphabet}" / "character01" / f"0001_0{i}.png")
    return place


def make_grocery(root: Path) -> Path:
    place = root / "grocery"
    write(place / "classes.csv", ["Class Name (str),Class ID (int)", *(f"P{i},{i}" for i in range(81))])
    for side in ("train", "val", "test"):
        rows = [
            (f"{side}/Fruit/P{label}/P{label}_{i}.jpg", label) for label in (0, 39, 40, 80) for i in (1, 2)
        ]
        write(place / f"{side}.txt", [f"{file}, {label}, 0" for file, label in rows])
        for file, _ in rows:
            save_noise(place / file)
    return place


def make_tiny_imagenet(root: Path) -> Path:
    place = root / "tiny-imagenet-200"
    for label in range(200):
        save_noise(place / "train" / f"n{label:08d}" / "images" / f"n{label:08d}_0.JPEG", (2, 2))
    save_noise(place / "val" / "images" / "val_0.JPEG", (2, 2))
    write(place / "words.txt", ["n00000000\tfish"])
    return place


COPIES = {
    "cub": (make_cub, [2, 2, None], [4, 4, None]),
    "cars": (make_cars, [2, 2, None], [3, 3, None]),
    "sop": (make_sop, [2, 2, None], [4, 4, None]),
    "inshop": (make_inshop, [2, 2, 2], [2, 2, 2]),
    "omniglot": (make_omniglot, [2, 2, None], [4, 4, None]),
    "grocery": (make_grocery, [2, 2, 2], [12, 4, 8]),
    "tiny_imagenet": (make_tiny_imagenet, [100, 100, None], [100, 100, None]),
}


def sides(split) -> list[ImageSet | None]:
    return [split.train, split.query, split.gallery]


@pytest.mark.parametrize("name", COPIES)
def test_published_layouts_and_splits(name, tmp_path):
    make, n_classes, n_images = COPIES[name]
    place = make(tmp_path)
    split = load_metric_learning(name, tmp_path)
    assert [None if side is None else len(side.labels.unique()) for side in sides(split)] == n_classes
    assert [None if side is None else len(side) for side in sides(split)] == n_images
    assert set(split.train.labels.tolist()).isdisjoint(split.query.labels.tolist())
    for side in (split.train, split.query):
        assert side.load(0).dtype == torch.uint8
        assert all(side.ids[i] in side.ids for i in range(len(side)))
    at_the_set = load_metric_learning(name, place)
    assert at_the_set.query.ids == split.query.ids
    assert at_the_set.query.sha256 == split.query.sha256


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_zip_archive_gives_what_the_folder_gives(name, wrapped, tmp_path):
    place = COPIES[name][0](tmp_path / "made")
    folder = load_metric_learning(name, place)
    (tmp_path / "root").mkdir()
    base = BENCHMARKS[name].archives[0].replace("*.zip", "_1").replace("*", "_")
    top = {"root_dir": place.parent, "base_dir": place.name} if wrapped else {"root_dir": place}
    shutil.make_archive(str(tmp_path / "root" / base), "zip", **top)
    zipped = load_metric_learning(name, tmp_path / "root")
    for one, two in zip(sides(folder), sides(zipped), strict=True):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            assert one.ids == two.ids
            assert one.classes == two.classes
            assert torch.equal(one.labels, two.labels)
            assert torch.equal(one.load(0), two.load(0))
    statuses = {row.name: row for row in available_datasets(tmp_path / "root")}
    assert statuses[BENCHMARKS[name].title].found
    assert sum(row.found and row.place != "bundled" for row in statuses.values()) == 1


def test_cars_as_class_folders(tmp_path):
    split = load_metric_learning("cars", make_cars_folders(tmp_path))
    assert len(split.train.labels.unique()) == len(split.query.labels.unique()) == 98
    assert split.train.classes[int(split.train.labels.min())] == FIRST_CAR
    assert len(split.train) + len(split.query) == 2 * 196
    shutil.rmtree(tmp_path / "cars" / "train" / "Car 009")
    shutil.rmtree(tmp_path / "cars" / "test" / "Car 010")
    with pytest.raises(ValueError, match="holds 195 class folders, but Cars196 has 196"):
        load_metric_learning("cars", tmp_path)


@pytest.mark.parametrize("name", COPIES)
def test_a_missing_set_says_where_to_get_it_and_where_to_put_it(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"is not under .*https?://.*{BENCHMARKS[name].folders[0]}"):
        load_metric_learning(name, tmp_path)
    assert not any(row.found for row in available_datasets(tmp_path) if row.place != "bundled")


def test_a_missing_image_and_a_missing_list_are_named(tmp_path):
    place = make_sop(tmp_path)
    (place / "chair_final" / "2_1.JPG").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 8 images of Stanford.*chair_final/2_1\.JPG"):
        load_metric_learning("sop", tmp_path)
    (place / "Ebay_test.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"Ebay_test\.txt is missing"):
        load_metric_learning("sop", tmp_path)


def test_half_a_set_is_refused(tmp_path):
    place = make_omniglot(tmp_path)
    shutil.rmtree(place / "images_evaluation")
    with pytest.raises(ValueError, match="no complete Omniglot: its query set is empty"):
        load_metric_learning("omniglot", tmp_path)


def test_a_damaged_image_is_met_when_it_is_asked_for(tmp_path):
    place = make_cub(tmp_path)
    damaged = place / "images" / "001.Bird_1" / "Bird_2.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    split = load_metric_learning("cub", tmp_path)
    assert split.train.load(0).shape == (3, 7, 9)
    with pytest.raises(ValueError, match=r"'images/001\.Bird_1/Bird_2\.jpg' of CUB-200-2011 cannot be used"):
        split.train.load(1)


def test_paths_do_not_lead_out_of_the_set(tmp_path):
    place = make_cub(tmp_path / "data")
    save_noise(tmp_path / "secret.jpg")
    text = (place / "images.txt").read_text()
    (place / "images.txt").write_text(text.replace("001.Bird_1/Bird_1.jpg", "../../../secret.jpg"))
    with pytest.raises(FileNotFoundError, match=r"missing.*secret\.jpg"):
        load_metric_learning("cub", tmp_path / "data")
    with zipfile.ZipFile(tmp_path / "omniglot.zip", "w") as archive:
        for side in ("images_background", "images_evaluation"):
            archive.writestr(f"{side}/../../x/y.png", (tmp_path / "secret.jpg").read_bytes())
    split = load_metric_learning("omniglot", tmp_path)
    with pytest.raises(ValueError, match="leads out of the archive"):
        split.train.load(0)


def test_any_class_folders(class_folders):
    split = split_class_folders(class_folders, ["moss"])
    assert split.train.ids == ("moss/1.png", "moss/2.png", "moss/deep/3.png")
    assert split.query.ids == ("brick/a.png", "brick/b.png")
    assert split.gallery is None


def test_unknown_name(tmp_path):
    with pytest.raises(ValueError, match="name must be one of cub, cars, sop"):
        load_metric_learning("birds", tmp_path)

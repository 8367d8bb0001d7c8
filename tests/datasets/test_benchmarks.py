"""DTD in every layout a user may have, and the list of what is there."""

import shutil
from pathlib import Path

import pytest

from retrieval_geometry.datasets import available_datasets, load_dtd
from retrieval_geometry.datasets.benchmarks import DTD_ATTRIBUTES
from tests.datasets.conftest import save_noise

LISTS = {
    "train1": ["banded/banded_1.jpg", "woven/woven_1.jpg"],
    "val1": ["banded/banded_2.jpg", "woven/woven_2.jpg"],
    "test1": ["banded/banded_3.jpg", "woven/woven_3.jpg"],
}


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """The layout of the official archive, with two of the attributes."""
    place = tmp_path / "official" / "dtd"
    (place / "labels").mkdir(parents=True)
    for split, lines in LISTS.items():
        (place / "labels" / f"{split}.txt").write_text("\n".join(lines) + "\n")
        for seed, line in enumerate(lines):
            save_noise(place / "images" / line, seed=sum(line.encode()) + seed)
    return place


def test_there_are_47_attributes():
    assert len(DTD_ATTRIBUTES) == 47


def test_all_layouts_give_the_same_images(official, tmp_path):
    torchvision_root = tmp_path / "torchvision"
    shutil.copytree(official, torchvision_root / "dtd" / "dtd")
    plain = tmp_path / "plain"
    shutil.copytree(official / "images", plain)
    shutil.copytree(official / "images", tmp_path / "plain_below" / "dtd")
    (tmp_path / "zipped").mkdir()
    shutil.make_archive(str(tmp_path / "zipped" / "dtd2"), "zip", official / "images")
    roots = [official, official.parent, torchvision_root, torchvision_root / "dtd", plain]
    roots += [tmp_path / "plain_below", tmp_path / "zipped", tmp_path / "zipped" / "dtd2.zip"]
    for root in roots:
        images = load_dtd(root)
        assert images.classes == ("banded", "woven")
        assert len(images) == 6
        assert images.ids[0] == "banded/banded_1.jpg"
        assert images.name == "DTD, 2 attributes"


@pytest.mark.parametrize("split", ["train1+val1", ("train1", "val1"), ["val1", "train1"]])
def test_official_splits_and_their_sum(official, split):
    database = load_dtd(official, split)
    assert sorted(database.ids) == sorted(LISTS["train1"] + LISTS["val1"])
    assert database.classes == ("banded", "woven")
    assert load_dtd(official, "test1").ids == tuple(LISTS["test1"])
    assert load_dtd(official, "test1").sha256 != database.sha256
    assert load_dtd(official, "test1").name == "DTD test1"


@pytest.mark.parametrize("split", ["test", "test11", "train1+dev1", "", []])
def test_unknown_splits(official, split):
    with pytest.raises(ValueError, match="split"):
        load_dtd(official, split)


def test_split_without_the_official_lists(official):
    with pytest.raises(ValueError, match=r"'test1' is an official split.*labels/test1\.txt"):
        load_dtd(official / "images", "test1")


def test_a_missing_list_and_a_missing_image_are_named(official):
    with pytest.raises(FileNotFoundError, match="list of the split val2"):
        load_dtd(official, "val2")
    (official / "images" / LISTS["val1"][1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 4 images of DTD train1\+val1.*woven_2\.jpg"):
        load_dtd(official, "train1+val1")


@pytest.mark.parametrize("exists", [True, False])
def test_a_missing_set_says_where_to_get_it_and_where_to_put_it(tmp_path, exists):
    root = tmp_path if exists else tmp_path / "no" / "such" / "root"
    with pytest.raises(FileNotFoundError, match=r"DTD is not under .*robots\.ox\.ac\.uk.*dtd.images.banded"):
        load_dtd(root)


def test_other_folders_and_archives_are_not_taken_for_dtd(tmp_path):
    save_noise(tmp_path / "cats" / "1.png")
    shutil.make_archive(str(tmp_path / "dtd-cats"), "zip", tmp_path, "cats")
    (tmp_path / "dtd.zip").write_bytes(b"half a download")
    damaged = bytearray((tmp_path / "dtd-cats.zip").read_bytes())
    damaged[damaged.rindex(b"PK\1\2")] = 0  # its list of members
    (tmp_path / "dtd-damaged.zip").write_bytes(damaged)
    with pytest.raises(FileNotFoundError, match="DTD is not under"):
        load_dtd(tmp_path)


def test_status_rows(official, tmp_path):
    rows = {row.name: row for row in available_datasets(official.parent)}
    assert rows["photo textures"].found
    assert rows["DTD"].found
    assert rows["DTD"].place == str(official)
    missing = {row.name: row for row in available_datasets(tmp_path / "none")}["DTD"]
    assert not missing.found
    assert missing.place == str(tmp_path / "none" / "dtd")
    assert all(row.description and row.licence for row in rows.values())

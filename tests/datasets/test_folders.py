"""Image folders and archives of any kind, good and bad."""

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval_geometry.datasets import load_image_folder
from tests.datasets.conftest import save_noise


def _archive(folder: Path, target: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, inside + path.relative_to(folder).as_posix())
    return target


def _load_one(folder: Path) -> np.ndarray:
    images = load_image_folder(folder)
    assert len(images) == 1
    pixels = images.load(0)
    assert pixels.dtype == torch.uint8
    assert pixels.shape[0] == 3
    return pixels.permute(1, 2, 0).numpy()


def test_folders_are_classes_and_paths_are_ids(class_folders):
    images = load_image_folder(class_folders)
    assert images.name == "set"
    assert images.classes == ("brick", "moss")
    assert images.ids == ("brick/a.png", "brick/b.png", "moss/1.png", "moss/2.png", "moss/deep/3.png")
    assert images.labels.tolist() == [0, 0, 1, 1, 1]
    assert images.skipped == ()
    expected = np.asarray(Image.open(class_folders / "brick" / "a.png"))
    np.testing.assert_array_equal(images.load(0).permute(1, 2, 0), expected)


@pytest.mark.parametrize("inside", ["", "wrapper/", "two/wrappers/"])
def test_a_zip_gives_what_the_folder_gives(class_folders, tmp_path, inside):
    folder = load_image_folder(class_folders)
    archive = load_image_folder(_archive(class_folders, tmp_path / "photos.zip", inside))
    assert archive.name == "photos"
    assert (archive.ids, archive.classes) == (folder.ids, folder.classes)
    assert torch.equal(archive.labels, folder.labels)
    assert all(torch.equal(archive.load(i), folder.load(i)) for i in range(5))
    assert not (tmp_path / "wrapper").exists()


def test_flat_folder_and_flat_zip_have_one_class_without_a_name(tmp_path):
    for name in "ab":
        save_noise(tmp_path / "flat" / f"{name}.jpg")
    for path in (tmp_path / "flat", _archive(tmp_path / "flat", tmp_path / "flat.zip")):
        images = load_image_folder(path)
        assert images.classes == ("",)
        assert images.ids == ("a.jpg", "b.jpg")


def test_folders_around_all_classes_are_left_out_of_ids(tmp_path):
    for name in ("set/images/a/deep/1.png", "set/images/b/deep/1.png"):
        save_noise(tmp_path / name)
    images = load_image_folder(tmp_path)
    assert images.classes == ("a", "b")


def test_a_single_class_folder_keeps_its_name(tmp_path):
    save_noise(tmp_path / "only" / "a.png")
    assert load_image_folder(tmp_path).classes == ("only",)


def test_images_beside_class_folders_are_skipped(class_folders):
    save_noise(class_folders / "cover.png")
    images = load_image_folder(class_folders)
    assert images.classes == ("brick", "moss")
    assert [(file.path, "class folder" in file.reason) for file in images.skipped] == [("cover.png", True)]


@pytest.mark.parametrize("archived", [False, True])
def test_damaged_files_are_skipped_by_name(class_folders, tmp_path, archived):
    jpeg = tmp_path / "whole.jpg"
    save_noise(jpeg, size=(64, 64))
    bad = {
        "brick/truncated.jpg": jpeg.read_bytes()[:-500],
        "brick/truncated.png": (class_folders / "moss" / "1.png").read_bytes()[:-40],
        "moss/text.png": b"this is no picture",
        "moss/empty.jpg": b"",
        "moss/notes.txt": b"notes",
    }
    for name, content in bad.items():
        (class_folders / name).write_bytes(content)
    place = _archive(class_folders, tmp_path / "set.zip") if archived else class_folders
    images = load_image_folder(place)
    assert len(images) == 5
    assert {file.path for file in images.skipped} == bad.keys()
    assert all(file.reason and "0x" not in file.reason for file in images.skipped)


def test_junk_and_hidden_files_are_ignored(class_folders, tmp_path):
    for name in [".DS_Store", "brick/._a.png", "__MACOSX/brick/._a.png", ".git/x.png", "brick/Thumbs.db"]:
        (class_folders / name).parent.mkdir(parents=True, exist_ok=True)
        (class_folders / name).write_bytes(b"junk")
    for place in (class_folders, _archive(class_folders, tmp_path / "set.zip")):
        images = load_image_folder(place)
        assert len(images) == 5
        assert images.skipped == ()


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder or zip archive at .*missing"):
        load_image_folder(tmp_path / "missing")


def test_empty_folder_and_empty_archive(tmp_path):
    (tmp_path / "void" / "class").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"void holds no image: it is empty"):
        load_image_folder(tmp_path / "void")
    with pytest.raises(ValueError, match=r"void\.zip holds no image"):
        load_image_folder(_archive(tmp_path / "void", tmp_path / "void.zip"))


def test_folder_without_a_good_image_names_a_bad_one(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"holds no image; 1 files were skipped, the first: a\.png \(cannot"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("name", ["photo.png", "broken.zip"])
def test_a_file_that_is_no_archive(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(ValueError, match=f"{name} is neither a folder nor a zip archive"):
        load_image_folder(tmp_path / name)


def test_archive_paths_that_lead_out_are_refused(tmp_path):
    save_noise(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for name in ["good/a.png", "../../evil.png", "good/../../evil.png", "/etc/evil.png"]:
            archive.writestr(name, content)
    images = load_image_folder(tmp_path / "evil.zip")
    assert images.ids == ("good/a.png",)
    assert len(images.skipped) == 3
    assert all("out of the archive" in file.reason for file in images.skipped)


def test_archive_bombs_are_not_unpacked(tmp_path, monkeypatch):
    save_noise(tmp_path / "a.png")
    monkeypatch.setattr("retrieval_geometry._image_files.MAX_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "a.png", "good/a.png")
        archive.writestr("good/bomb.png", bytes(10_001))
    images = load_image_folder(tmp_path / "bomb.zip")
    assert images.ids == ("good/a.png",)
    assert "too many for an image" in images.skipped[0].reason


def test_pixel_bombs_are_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    save_noise(tmp_path / "large.png", (60, 60))
    save_noise(tmp_path / "small.png", (20, 20))
    images = load_image_folder(tmp_path)
    assert images.ids == ("small.png",)
    assert "decompression bomb" in images.skipped[0].reason


def test_damaged_archive_member_is_skipped(class_folders, tmp_path):
    path = _archive(class_folders, tmp_path / "set.zip")
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF  # inside the first image: its checksum fails
    path.write_bytes(bytes(content))
    images = load_image_folder(path)
    assert len(images) == 4
    assert images.skipped[0].path == "brick/a.png"


def test_links_are_followed_but_not_in_circles(class_folders, tmp_path):
    (tmp_path / "linked").mkdir()
    os.symlink(class_folders / "brick", tmp_path / "linked" / "brick")
    os.symlink(tmp_path / "linked", tmp_path / "linked" / "again")
    os.symlink(tmp_path / "nowhere", tmp_path / "linked" / "dangling.png")
    images = load_image_folder(tmp_path / "linked")
    assert images.ids == ("brick/a.png", "brick/b.png")
    assert [file.path for file in images.skipped] == ["dangling.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_block(class_folders):
    os.mkfifo(class_folders / "brick" / "pipe.png")
    assert load_image_folder(class_folders).skipped[0].reason == "not a regular file"


def test_sha256_follows_names_and_bytes_alone(class_folders, tmp_path):
    first = load_image_folder(class_folders).sha256
    shutil.copytree(class_folders, tmp_path / "copy")
    assert load_image_folder(tmp_path / "copy").sha256 == first
    (tmp_path / "copy" / "readme.txt").write_text("not an image")
    assert load_image_folder(tmp_path / "copy").sha256 == first
    (tmp_path / "copy" / "brick" / "a.png").rename(tmp_path / "copy" / "brick" / "c.png")
    renamed = load_image_folder(tmp_path / "copy").sha256
    save_noise(tmp_path / "copy" / "brick" / "c.png", seed=99)
    assert len({first, renamed, load_image_folder(tmp_path / "copy").sha256}) == 3


def test_grey_is_repeated(tmp_path):
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(_load_one(tmp_path), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize("extension", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, extension):
    grey = np.array([[0, 128, 257, 32768], [40000, 65278, 65407, 65535]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / f"deep.{extension}")
    expected = np.round(grey / 257).astype(np.uint8)
    np.testing.assert_array_equal(_load_one(tmp_path), np.stack([expected] * 3, axis=-1))


@pytest.mark.parametrize(("dtype", "value"), [(np.float32, 0.5), (np.int32, 70000), (np.int32, -1)])
def test_pixels_of_unknown_range_are_skipped(tmp_path, dtype, value):
    save_noise(tmp_path / "good.png")
    Image.fromarray(np.full((2, 2), value, dtype=dtype)).save(tmp_path / "odd.tif")
    images = load_image_folder(tmp_path)
    assert images.ids == ("good.png",)
    assert "which value is white is not known" in images.skipped[0].reason


def test_transparency_lies_over_white(tmp_path):
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    loaded = _load_one(tmp_path)[0]
    assert loaded[0].tolist() == [255, 0, 0]
    assert loaded[1].tolist() == [255, 255, 255]
    assert abs(int(loaded[2][0]) - 127) <= 1


def test_grey_with_alpha_lies_over_white(tmp_path):
    Image.fromarray(np.array([[[0, 0], [10, 255]]], dtype=np.uint8)).save(tmp_path / "la.png")
    assert _load_one(tmp_path)[0, :, 0].tolist() == [255, 10]


def test_palette_with_a_transparent_entry(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    image.putpalette([9, 9, 9, 0, 200, 0, 0, 0, 200])
    image.save(tmp_path / "palette.png", transparency=0)
    assert _load_one(tmp_path)[0].tolist() == [[255, 255, 255], [0, 200, 0], [0, 0, 200]]


def test_black_and_white(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    assert _load_one(tmp_path)[0, :, 0].tolist() == [255, 0]


def test_cmyk(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "ink.jpg", quality=100)
    red, green, blue = _load_one(tmp_path)[4, 4].tolist()
    assert red > 245
    assert max(green, blue) < 10


def test_exif_rotation_is_undone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise to see it upright
    pixels = np.zeros((2, 3, 3), dtype=np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    loaded = _load_one(tmp_path)
    assert loaded.shape == (3, 2, 3)
    assert loaded[0, 1].tolist() == [255, 255, 255]


def test_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "dot.png")
    assert _load_one(tmp_path).tolist() == [[[1, 2, 3]]]


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert _load_one(tmp_path)[0, 0].tolist() == [255, 0, 0]


def test_awkward_names(tmp_path):
    for name in ["säge/ü b.png", "säge/日本.png", "säge/100%.png"]:
        save_noise(tmp_path / "set" / name)
    for place in (tmp_path / "set", _archive(tmp_path / "set", tmp_path / "set.zip")):
        images = load_image_folder(place)
        assert len(images) == 3
        assert images.load(2).shape == (3, 7, 9)

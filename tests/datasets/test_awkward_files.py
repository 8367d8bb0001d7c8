"""Folders and files as they come from cameras, other systems and years of use."""

import os
import struct
import unicodedata
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval_geometry._image_files import walk
from retrieval_geometry.datasets import class_split, load_dtd, load_image_folder, load_metric_learning
from tests.datasets.conftest import save_noise

COMPOSED, APART = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def load_one(folder: Path) -> np.ndarray:
    images = load_image_folder(folder)
    assert len(images) == 1, images.skipped
    return images.load(0)[0].numpy()


def reason(folder: Path) -> str:
    save_noise(folder / "good.png")
    images = load_image_folder(folder)
    assert images.ids == ("good.png",)
    return images.skipped[0].reason


def test_a_class_is_one_in_both_spellings_of_unicode(tmp_path):
    for name in (COMPOSED, APART):
        save_noise(tmp_path / name / f"{len(name)}.png")
    save_noise(tmp_path / "bar" / "a.png")
    images = load_image_folder(tmp_path)
    assert images.classes == ("bar", COMPOSED)
    assert sorted(images.labels.tolist()) == [0, 1, 1]
    assert all(images.load(i).shape == (3, 7, 9) for i in range(3))
    for name in (COMPOSED, APART):
        assert len(class_split(images, [name])[0]) == 2


def test_the_spelling_of_a_name_does_not_change_the_content(tmp_path):
    sums = set()
    for name in (COMPOSED, APART):
        save_noise(tmp_path / name / "set" / name / "a.png")
        sums.add(load_image_folder(tmp_path / name / "set").sha256)
    assert len(sums) == 1


def test_a_link_to_a_folder_above_is_not_followed(tmp_path):
    save_noise(tmp_path / "private" / "a.png")
    save_noise(tmp_path / "set" / "brick" / "a.png")
    save_noise(tmp_path / "else" / "deep" / "b.png")
    os.symlink(tmp_path, tmp_path / "set" / "up")
    os.symlink(tmp_path / "else" / "deep", tmp_path / "set" / "moss")
    os.symlink(tmp_path / "else", tmp_path / "else" / "deep" / "up")  # out of what is linked
    os.symlink(tmp_path / "set", tmp_path / "else" / "deep" / "back")
    assert list(walk(tmp_path / "set")) == ["brick/a.png", "moss/b.png"]
    assert load_image_folder(tmp_path / "set").classes == ("brick", "moss")


def test_folders_are_walked_in_one_order(tmp_path, monkeypatch):
    for name in ("b", "a", "c/d"):
        save_noise(tmp_path / "set" / name / "1.png")
    os.symlink(tmp_path / "set" / "a", tmp_path / "set" / "z")
    found = list(walk(tmp_path / "set"))
    plain = os.scandir

    class Reversed:
        def __init__(self, place: str) -> None:
            with plain(place) as entries:
                self.entries = reversed(sorted(entries, key=lambda entry: entry.name))

        def __enter__(self):
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

        def __iter__(self):
            return self.entries

        def __next__(self):
            return next(self.entries)

        def close(self) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert list(walk(tmp_path / "set")) == found == ["a/1.png", "b/1.png", "c/d/1.png"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    save_noise(tmp_path / "brick" / "a.png")
    save_noise(tmp_path / "locked" / "a.png")
    plain = os.scandir

    def refuse(place):
        if str(place).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(place))
        return plain(place)

    monkeypatch.setattr(os, "scandir", refuse)
    images = load_image_folder(tmp_path)
    assert [(file.path, file.reason) for file in images.skipped] == [
        ("locked", "a folder that cannot be listed")
    ]


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_16_bits_that_are_used_in_part_are_refused(tmp_path, bits):
    Image.fromarray(np.array([[0, 2**bits - 1]], np.uint16)).save(tmp_path / "deep.png")
    assert reason(tmp_path) == (
        "16-bit pixels none of which reaches 16384 of 65535: which value is white is not known; save it with "
        "white at 65535, or as 8 bits"
    )


@pytest.mark.parametrize("tag", [{281: 4095}, {281: 1023}])
def test_a_tiff_that_says_its_white(tmp_path, tag):
    white = next(iter(tag.values()))
    Image.fromarray(np.array([[0, white // 2, white]], np.uint16)).save(tmp_path / "deep.tif", tiffinfo=tag)
    assert load_one(tmp_path).tolist() == [[0, 127, 255]]


def test_a_tiff_of_12_bits(tmp_path):
    values = [0, 2048, 4095, 1]
    packed = int("".join(f"{value:012b}" for value in values), 2).to_bytes(6, "big")
    entries = [(256, 3, 4), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
               (278, 3, 1), (279, 4, 6)]  # fmt: skip
    head = b"II*\0" + (16).to_bytes(4, "little") + packed + b"\0\0" + len(entries).to_bytes(2, "little")
    for number, kind, value in entries:
        size, rest = (2, b"\0\0") if kind == 3 else (4, b"")
        head += struct.pack("<HHI", number, kind, 1)
        head += value.to_bytes(size, "little") + rest
    (tmp_path / "twelve.tif").write_bytes(head + bytes(4))
    assert load_one(tmp_path).tolist() == [[0, 128, 255, 0]]


@pytest.mark.parametrize("white", [1023, 4095, 65535])
def test_a_pgm_says_its_white_and_may_be_dark(tmp_path, white):
    values = np.array([[0, white // 2, white], [0, 0, 0]], ">u2")
    (tmp_path / "deep.pgm").write_bytes(f"P5 3 2 {white}\n".encode() + values.tobytes())
    assert load_one(tmp_path).tolist() == [[0, 127, 255], [0, 0, 0]]
    values[0] //= 8
    (tmp_path / "deep.pgm").write_bytes(f"P5 3 2 {white}\n".encode() + values.tobytes())
    assert load_one(tmp_path)[0].tolist()[2] in (31, 32)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_colours(tmp_path, channels):
    """Written by hand: Pillow reads such files and does not write them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    for name, white in (("bright", 65535), ("twelve", 4095)):
        row = b"".join(struct.pack(">H", white) for _ in range(channels))
        head = struct.pack(">IIBBBBB", 1, 1, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
        parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
        (tmp_path / f"{name}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    images = load_image_folder(tmp_path)
    assert images.ids == ("bright.png",)
    assert images.load(0).unique().tolist() == [255]
    assert images.skipped[0].reason.startswith("16-bit pixels none of which reaches")


def test_black_is_black(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "black.png")
    assert load_one(tmp_path).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("side", [60, 40])
def test_more_pixels_than_the_limit_are_refused_without_a_warning(tmp_path, monkeypatch, side):
    """Pillow warns above its limit and refuses above twice of it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    save_noise(tmp_path / "large.png", (side, side))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason(tmp_path) == "more than 1,000 pixels, a decompression bomb or too large; scale it down"


def test_an_image_of_a_set_that_is_too_large_is_named(tmp_path, monkeypatch):
    from tests.datasets.test_metric_learning import make_cub

    make_cub(tmp_path)
    images = load_metric_learning("cub", tmp_path).train
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(
        ValueError, match=r"'images/001.*' of CUB-200-2011 cannot be used \(more than 50 pixels"
    ):
        images.load(0)


def encrypted(path: Path, inside: str, content: bytes) -> None:
    """An archive whose first file claims to be encrypted."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(inside, content)
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.rindex(b"PK\1\2") + 8] |= 1
    path.write_bytes(bytes(data))


def test_archives_that_cannot_be_read(tmp_path):
    save_noise(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    encrypted(tmp_path / "cub.zip", "CUB/image_class_labels.txt", b"1 1")
    with pytest.raises(ValueError, match=r"cub\.zip is damaged at image_class_labels\.txt: .*encrypted"):
        load_metric_learning("cub", tmp_path)
    encrypted(tmp_path / "locked.zip", "a/b.png", content)
    with pytest.raises(ValueError, match=r"holds no image; 1 files were .*: a/b.png \(.*encrypted"):
        load_image_folder(tmp_path / "locked.zip")
    data = bytearray((tmp_path / "locked.zip").read_bytes())
    data[data.rindex(b"PK\1\2")] = 0
    (tmp_path / "list.zip").write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"list\.zip is a damaged zip archive"):
        load_image_folder(tmp_path / "list.zip")


@pytest.mark.parametrize("path", [None, 5, ["a"]])
def test_what_is_no_path(path):
    for load in (load_image_folder, load_dtd, lambda root: load_metric_learning("cub", root)):
        with pytest.raises(ValueError, match=r"(path|root) must be a path, got (NoneType|int|list)"):
            load(path)


def test_labels_of_a_folder_are_whole_numbers(class_folders):
    assert load_image_folder(class_folders).labels.dtype == torch.int64

"""Ranking anybody's pictures: which file is which, names of every kind, and files that are hard to bear."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_geometry import cli, own_pictures
from retrieval_geometry.own_pictures import load_pictures, rank_pictures, shortest_endings


def save(path: Path, seed: int = 0, size: tuple[int, int] = (48, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def run(*arguments: object) -> int:
    return cli.main(["rank", *(str(argument) for argument in arguments)])


def test_a_picture_with_the_querys_path_elsewhere_is_no_query(tmp_path):
    query = save(tmp_path / "D/c/a/b.png")
    save(tmp_path / "D/a/b.png", 1)
    save(tmp_path / "D/b.png", 2)
    images, notes = load_pictures(tmp_path / "D", query)
    assert images.ids == ("a/b.png", "b.png")
    assert notes == ["skipped c/a/b.png: it is the query"]


def test_one_name_in_two_years_is_two_pictures(tmp_path):
    query = save(tmp_path / "q.png")
    for seed, year in enumerate(("2019", "2020")):
        save(tmp_path / "D" / year / "sea" / "a.png", seed)
    found = rank_pictures(query, tmp_path / "D")
    assert sorted(name for name, _ in found.nearest) == ["2019/sea/a.png", "2020/sea/a.png"]


@pytest.mark.parametrize("wrapper", ["", "wrapper/"])
def test_pictures_beside_folders_keep_their_paths(tmp_path, wrapper):
    query = save(tmp_path / "q.png")
    for seed, name in enumerate(["a.png", "x/a.png", "x/y/a.png"]):
        save(tmp_path / "D" / wrapper / name, seed)
    images, notes = load_pictures(tmp_path / "D", query)
    assert images.ids == tuple(wrapper + name for name in ("a.png", "x/a.png", "x/y/a.png"))
    assert notes == []
    assert all(images.load(i).shape == (3, 40, 48) for i in range(3))


def test_links_are_names_of_one_file(tmp_path):
    query, other = save(tmp_path / "D/q.png"), save(tmp_path / "D/a.png", 1)
    os.symlink(query, tmp_path / "D" / "link to q.png")
    os.symlink(other, tmp_path / "D" / "b.png")
    os.symlink(tmp_path / "D" / "loop.png", tmp_path / "D" / "loop.png")
    os.symlink(query, tmp_path / "outside.png")
    for asked in (query, tmp_path / "outside.png", tmp_path / "D" / ".." / "D" / "q.png"):
        images, notes = load_pictures(tmp_path / "D", asked)
        assert images.ids == ("a.png",)
        assert "skipped b.png: it is the same file as a.png" in notes
        assert "skipped link to q.png: it is the query" in notes
        assert "skipped loop.png: not a regular file" in notes


def test_endings_tell_apart():
    assert shortest_endings(["2019/a.png", "2020/a.png", "x/b.png"]) == ["2019/a.png", "2020/a.png", "b.png"]
    assert shortest_endings(["a.png", "x/a.png"]) == ["a.png", "x/a.png"]


NAMES = [
    r"$\frac{a$.png",
    "a$_{1$.png",
    "new\nline.png",
    "\x1b[31mred.png",
    "gpj.\u202egnp.png",
    "日本語の写真.png",
]


@pytest.mark.skipif(sys.platform == "win32", reason="names that Windows does not allow")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("error::UserWarning")
def test_any_name_costs_nothing(tmp_path, capsys, name):
    query = save(tmp_path / f"q{name}")
    save(tmp_path / "D" / name, 1)
    (tmp_path / "D" / f"{name}.txt").write_text("no image")
    assert run(query, tmp_path / "D", "--plot", tmp_path / "found.png") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert not set(out + err) & {"\x1b", "\u202e"}
    assert name.encode("unicode_escape").decode() in out or name in out
    assert "Glyph" not in err
    assert "no image" not in err
    assert (tmp_path / "found.png").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are no text")
def test_a_name_of_no_encoding(tmp_path, capfd):
    query = save(tmp_path / "q.png")
    save(tmp_path / "D" / "a.png", 1).rename(tmp_path / "D" / os.fsdecode(b"\xff.png"))
    assert run(query, tmp_path / "D", "--plot", tmp_path / "found.png") == 0
    assert capfd.readouterr().out.splitlines()[1].endswith(r"\udcff.png")
    assert (tmp_path / "found.png").is_file()


def test_a_terminal_of_another_encoding(tmp_path):
    import subprocess

    query = save(tmp_path / "q.png")
    save(tmp_path / "D" / "日本.png", 1)
    command = [
        sys.executable,
        "-m",
        "retrieval_geometry",
        "rank",
        str(query),
        str(tmp_path / "D"),
        "--no-plot",
    ]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].endswith(r"\u65e5\u672c.png")


def test_a_plot_that_cannot_be_written_costs_the_plot_alone(tmp_path, capsys, monkeypatch):
    query = save(tmp_path / "q.png")
    save(tmp_path / "D/a.png", 1)
    (tmp_path / "found.png").mkdir()  # the file cannot replace a folder
    assert run(query, tmp_path / "D", "--plot", tmp_path / "found.png") == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split()[2] == "a.png"
    assert f"the picture was not written to {tmp_path / 'found.png'}: " in err.splitlines()[-1]

    def broken(*_: object) -> None:
        print("drawn after the table")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(own_pictures, "draw", broken)
    assert run(query, tmp_path / "D", "--plot", tmp_path / "other.png") == 1
    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()] == ["image", "a.png", "table"]
    assert err.splitlines()[-1].endswith("other.png: No space left on device")
    assert not (tmp_path / "other.png").exists()


def test_the_plot_is_no_picture_and_never_the_query(tmp_path, capsys):
    query = save(tmp_path / "D/q.png")
    before = query.read_bytes()
    save(tmp_path / "D/a.png", 1)
    for _ in range(2):
        assert run(query, tmp_path / "D", "--plot", tmp_path / "D" / "nearest.png") == 0
    out, err = capsys.readouterr()
    assert "skipped nearest.png: it is the picture to be written" in err
    assert len(out.splitlines()) == 6
    assert run(query, tmp_path / "D", "--plot", tmp_path / "D" / ".." / "D" / "q.png") == 2
    assert "is the query, which it would overwrite" in capsys.readouterr().err
    assert query.read_bytes() == before


def test_a_very_long_picture_is_seen_by_its_middle(tmp_path, capsys):
    query = save(tmp_path / "q.png")
    save(tmp_path / "D/long.png", 1, (300_000, 1))
    save(tmp_path / "D/high.png", 2, (1, 300_000))
    save(tmp_path / "D/a.png", 3)
    assert run(query, tmp_path / "D", "--plot", tmp_path / "found.png") == 0
    out = capsys.readouterr().out
    assert {line.split()[2] for line in out.splitlines()[1:4]} == {"long.png", "high.png", "a.png"}
    assert (tmp_path / "found.png").is_file()


def test_hard_files_are_named_and_cost_no_other(tmp_path, capsys, monkeypatch):
    query = save(tmp_path / "q.png")
    good = save(tmp_path / "D/good.png", 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    save(tmp_path / "D/large.png", 2, (70, 60))
    save(tmp_path / "D/bomb.png", 2, (100, 100))
    (tmp_path / "D/cut.png").write_bytes(good.read_bytes()[:-900])
    Image.fromarray(np.full((9, 9), 4095, np.uint16)).save(tmp_path / "D/deep.png")
    os.symlink(tmp_path, tmp_path / "D" / "up")
    assert run(query, tmp_path / "D", "--no-plot") == 0
    out, err = capsys.readouterr()
    assert [line.split()[2] for line in out.splitlines()[1:]] == ["good.png"]
    for name in ("large.png: more than 3,000 pixels", "bomb.png: more than 3,000 pixels",
                 "cut.png: image file is trunc",
                 "deep.png: 16-bit pixels none of which reaches 16384"):  # fmt: skip
        assert f"skipped {name}" in err
    assert "q.png" not in err
    assert "Warning" not in err


def test_a_device_without_numbers(tmp_path, capsys):
    query = save(tmp_path / "q.png")
    assert run(query, tmp_path, "--device", "meta") == 2
    assert "device 'meta' is not usable here; there is: cpu" in capsys.readouterr().err


def test_messages_of_the_parser_show_what_was_typed(capsys):
    with pytest.raises(SystemExit):
        run("q", "D", "\x1b[31mmore")
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert r"unrecognized arguments: \x1b[31mmore" in err

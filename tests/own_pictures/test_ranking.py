"""Ranking anybody's pictures: which file is which, names of every kind, and files that are hard to bear."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_geometry import cli
from retrieval_geometry.own_pictures import Request, rank_pictures
from retrieval_geometry.own_pictures.outputs import shortest_endings
from retrieval_geometry.own_pictures.ranking import cosine_distances

from .conftest import save


def run(*arguments: object) -> int:
    return cli.main(["rank", *(str(argument) for argument in arguments)])


def names_and_notes(query: Path, folder: Path) -> tuple[list[str], list[str]]:
    """The names of all pictures that are ranked, in order, and what was said of the others."""
    notes: list[str] = []
    (found,) = rank_pictures([query], folder, k=100, say=notes.append).found
    return sorted(name for name, _ in found.nearest), [note for note in notes if note.startswith("skipped")]


def test_a_picture_with_the_querys_path_elsewhere_is_no_query(tmp_path, described):
    query = save(tmp_path / "D/c/a/b.png")
    save(tmp_path / "D/a/b.png", 1)
    save(tmp_path / "D/b.png", 2)
    names, notes = names_and_notes(query, tmp_path / "D")
    assert names == ["a/b.png", "b.png"]
    assert notes == ["skipped c/a/b.png: it is the query"]


def test_one_name_in_two_years_is_two_pictures(tmp_path, described):
    query = save(tmp_path / "q.png")
    for seed, year in enumerate(("2019", "2020")):
        save(tmp_path / "D" / year / "sea" / "a.png", seed)
    assert names_and_notes(query, tmp_path / "D")[0] == ["2019/sea/a.png", "2020/sea/a.png"]


@pytest.mark.parametrize("wrapper", ["", "wrapper/"])
def test_pictures_beside_folders_keep_their_paths(tmp_path, wrapper, described):
    query = save(tmp_path / "q.png")
    for seed, name in enumerate(["a.png", "x/a.png", "x/y/a.png"]):
        save(tmp_path / "D" / wrapper / name, seed)
    names, notes = names_and_notes(query, tmp_path / "D")
    assert names == [wrapper + name for name in ("a.png", "x/a.png", "x/y/a.png")]
    assert notes == []


def test_links_are_names_of_one_file(tmp_path, described):
    query, other = save(tmp_path / "D/q.png"), save(tmp_path / "D/a.png", 1)
    os.symlink(query, tmp_path / "D" / "link to q.png")
    os.symlink(other, tmp_path / "D" / "b.png")
    os.link(other, tmp_path / "D" / "c.png")
    os.symlink(tmp_path / "D" / "loop.png", tmp_path / "D" / "loop.png")
    os.symlink(query, tmp_path / "outside.png")
    for asked in (query, tmp_path / "outside.png", tmp_path / "D" / ".." / "D" / "q.png"):
        names, notes = names_and_notes(asked, tmp_path / "D")
        assert names == ["a.png"]
        assert sorted(notes) == [
            "skipped b.png: it is the same file as a.png",
            "skipped c.png: it is the same file as a.png",
            "skipped link to q.png: it is the query",
            "skipped loop.png: not a regular file",
            "skipped q.png: it is the query",
        ]


def test_each_query_is_left_out_of_its_own_list_alone(tmp_path, described):
    for seed in range(4):
        save(tmp_path / "D" / f"{seed}.png", seed)
    queries = [tmp_path / "D/0.png", tmp_path / "D/2.png", save(tmp_path / "q.png", 9)]
    answer = rank_pictures(queries, tmp_path / "D")
    found = [sorted(name for name, _ in found.nearest) for found in answer.found]
    assert found == [["1.png", "2.png", "3.png"], ["0.png", "1.png", "3.png"], [f"{i}.png" for i in range(4)]]
    for query, one in zip(queries, answer.found, strict=True):  # as if it were asked alone
        assert rank_pictures([query], tmp_path / "D").found == (one,)


def test_the_cosine_distance_is_that_of_the_definition_and_zero_for_a_copy():
    rows = np.random.default_rng(0).normal(size=(5000, 7)).astype(np.float32)
    wide = rows.astype(np.float64)
    cosine = wide @ wide[3] / np.linalg.norm(wide, axis=1) / np.linalg.norm(wide[3])
    found = cosine_distances(rows[3], [*rows[:-1], 5 * rows[3]])
    np.testing.assert_allclose(found[:-1], 1 - cosine[:-1], rtol=0, atol=6e-7)
    assert found[3] == found[-1] == 0


def test_equal_distances_stand_in_the_order_of_names(tmp_path, described):
    """Files of one look and different content, whose features differ by a rounding at most."""
    query = save(tmp_path / "q.png", 1)
    for name in ("b.png", "a.bmp", "c.png"):
        save(tmp_path / "D" / name, 5)
    (found,) = rank_pictures([query], tmp_path / "D").found
    assert [name for name, _ in found.nearest] == ["a.bmp", "b.png", "c.png"]


def test_features_that_point_nowhere_are_refused_or_left_out(tmp_path, capsys, described):
    black = tmp_path / "D" / "black.png"
    query = save(tmp_path / "D" / "q.png", 1)
    save(tmp_path / "D" / "a.png", 2)
    Image.new("RGB", (30, 30)).save(black)
    names, notes = names_and_notes(query, tmp_path / "D")
    assert names == ["a.png"]
    assert "skipped black.png: its features are zeros" in notes
    with pytest.raises(ValueError, match=r"QUERY black.png has features of zeros"):
        rank_pictures([black], tmp_path / "D")


def test_models_of_distributions_are_kept_as_descriptors(tmp_path, capsys):
    """Both networks and models give what a search without an index gives, from the index as well."""
    query = save(tmp_path / "q.png", 1)
    for seed in range(3):
        save(tmp_path / "D" / f"{seed}.png", seed)
    for request in (Request("gaussian"), Request("mixture", backbone="scattering"), Request("smt")):
        first, again = (rank_pictures([query], tmp_path / "D", request) for _ in range(2))
        assert again == first
        assert first.found[0].nearest[0] == ("1.png", pytest.approx(0, abs=1e-6))
    assert Request(distance="kl").model == Request(distance="wasserstein2").model == "gaussian"


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

    monkeypatch.setattr("retrieval_geometry.own_pictures.plot.draw", broken)
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
        run("q", "D", "--\x1b[31mmore")
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert r"unrecognized arguments: --\x1b[31mmore" in err

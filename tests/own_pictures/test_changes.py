"""A folder that changes while it is read, and files that cannot be read."""

from __future__ import annotations

import pytest

from retrieval_geometry.own_pictures import pictures, rank_pictures
from retrieval_geometry.own_pictures.describing import Describer

from .conftest import save


@pytest.fixture
def meanwhile(monkeypatch, described):
    """Let something happen when the first picture of the folder is described."""

    def happens(what):
        quick, done = Describer.__call__, []

        def changing(self, pixels, name):
            if name == "0.png" and not done:
                done.append(name)
                what()
            return quick(self, pixels, name)

        monkeypatch.setattr(Describer, "__call__", changing)

    return happens


def test_a_folder_that_changes_gets_a_clear_answer(ask, folder, meanwhile, monkeypatch):
    monkeypatch.setattr("retrieval_geometry.own_pictures.indexing.WINDOW", 1)

    def change():
        save(folder / "new.png", 9)
        (folder / "0.png").unlink()  # it has been read
        (folder / "3.png").unlink()  # it has not

    meanwhile(change)
    answer, _, notes = ask()
    assert sorted(name for name, _ in answer.found[0].nearest) == ["1.png", "2.png", "4.png", "5.png"]
    assert notes[-1] == (
        "note: the folder changed while it was read: 1 came (new.png), 2 went (0.png, ...); "
        "rank again to see it as it is"
    )
    answer, seen, notes = ask()
    assert seen == ["new.png"]
    assert not any(note.startswith("note") for note in notes)
    assert len(answer.found[0].nearest) == 5


def test_a_picture_that_changes_after_it_was_read_is_named(ask, folder, meanwhile, monkeypatch):
    monkeypatch.setattr("retrieval_geometry.own_pictures.indexing.WINDOW", 1)
    meanwhile(lambda: save(folder / "0.png", 50))
    answer, _, notes = ask()
    assert len(answer.found[0].nearest) == 6
    assert "1 changed (0.png); rank again" in notes[-1]
    assert ask()[1] == ["0.png"]


def test_a_folder_that_is_emptied_or_removed_while_it_is_read(folder, query, meanwhile):
    import shutil

    meanwhile(lambda: shutil.rmtree(folder))
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        rank_pictures([query], folder)


def test_a_file_that_never_rests_is_left_out(ask, folder, monkeypatch):
    read = pictures.read_file

    def growing(place, name):
        content = read(place, name)
        if name == "2.png":
            with (folder / name).open("ab") as file:
                file.write(b"more")
        return content

    monkeypatch.setattr(pictures, "read_file", growing)
    answer, _, notes = ask()
    assert len(answer.found[0].nearest) == 5
    assert "skipped 2.png: it changes while it is read" in notes
    monkeypatch.setattr(pictures, "read_file", read)
    assert ask()[1] == ["2.png"]


def test_what_is_no_picture_is_read_once_and_named_each_time(ask, folder, monkeypatch):
    (folder / "notes.txt").write_text("no picture")
    monkeypatch.setattr("retrieval_geometry.own_pictures.index.UNSURE", 0)
    for expected in (7, 0):
        notes = ask()[2]
        assert any(note.startswith("skipped notes.txt: cannot identify image file") for note in notes)
        assert any(note.startswith(f"reading {expected} of") for note in notes) == bool(expected)


def test_pictures_smaller_than_a_stride_are_ranked(query, tmp_path):
    """By the real networks: a picture is brought to their size before it is described."""
    for side in (1, 2, 5):
        save(tmp_path / "D" / f"{side}.png", side, (side, side))
    from retrieval_geometry.own_pictures import Request

    for request in (Request(), Request("gaussian"), Request("gaussian", backbone="scattering")):
        assert len(rank_pictures([query], tmp_path / "D", request).found[0].nearest) == 3

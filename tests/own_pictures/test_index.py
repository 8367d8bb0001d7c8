"""The index of a folder: it grows and shrinks with it, survives damage, and is never wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from retrieval_geometry.own_pictures import Request, index, indexing, pictures, rank_pictures, request
from retrieval_geometry.own_pictures.describing import Describer
from retrieval_geometry.own_pictures.index import INDEX, Index

from ..damage import full_disk
from .conftest import index_files, save

ALL = [f"{i}.png" for i in range(6)]


def names(answer) -> list[str]:
    return sorted(name for name, _ in answer.found[0].nearest)


def kept_rows(tmp_path: Path) -> int:
    """Pictures of which the parts hold features."""
    return sum(
        len(json.loads(part.read_bytes().partition(b"\n")[0])[0]) for part in index_files(tmp_path, True)
    )


def test_a_second_query_describes_nothing(ask, folder, tmp_path):
    before = sorted(folder.rglob("*"))
    first, seen, _ = ask()
    assert seen == ALL
    again, seen, _ = ask()
    assert seen == []
    assert again == first
    assert sorted(folder.rglob("*")) == before
    assert kept_rows(tmp_path) == 6


def test_a_known_query_needs_neither_the_network_nor_pytorch(folder, query, tmp_path):
    """The network is the real one: what it gives is right after it was kept, too."""
    found = rank_pictures([query, folder / "3.png"], folder)
    code = "import sys; from retrieval_geometry.cli import main; "
    code += "status = main(sys.argv[1:]); sys.exit(status or 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, "rank", str(folder / "3.png"), str(folder), "--no-plot"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "skipped 3.png: it is the query"
    printed = [line.split()[1:] for line in done.stdout.splitlines()[1:]]
    assert printed == [[f"{value:.6g}", name] for name, value in found.found[1].nearest]


def test_it_grows(ask, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "UNSURE", 0)
    ask()
    save(folder / "deeper" / "new.png", 10)
    answer, seen, notes = ask()
    assert seen == ["deeper/new.png"]
    assert names(answer) == [*ALL, "deeper/new.png"]
    assert notes[1] == "reading 1 of 7 files, new or changed"
    assert ask()[1] == []
    assert kept_rows(tmp_path) == 7


def test_it_shrinks(ask, folder, tmp_path):
    ask()
    (folder / "2.png").unlink()
    answer, seen, _ = ask()
    assert seen == []
    assert names(answer) == [name for name in ALL if name != "2.png"]
    assert kept_rows(tmp_path) == 5
    assert b"2.png" not in index_files(tmp_path, False)[0].read_bytes()
    save(folder / "2.png", 2)
    assert ask()[1] == ["2.png"]


@pytest.mark.parametrize("settled", [True, False])
def test_what_changes_is_described_anew(ask, folder, monkeypatch, settled):
    """Under the same size and time too: the time of the change of anything tells, or the content does."""
    if settled:
        monkeypatch.setattr(index, "UNSURE", 0)
    picture = save(folder / "one.bmp", 7)
    before = picture.stat()
    first = ask()[0]
    save(picture, 77)
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (picture.stat().st_size, picture.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    answer, seen, _ = ask()
    assert seen == ["one.bmp"]
    assert dict(answer.found[0].nearest)["one.bmp"] != dict(first.found[0].nearest)["one.bmp"]
    assert ask()[1] == []


def test_a_file_that_changed_just_now_is_looked_at_again(ask, folder, monkeypatch):
    """A second change in one tick of the clock leaves size and times as they are."""
    first = ask()[0]
    old = (folder / "1.png").stat()
    save(folder / "1.png", 77)
    stamps = {"1.png": (old.st_size, old.st_mtime_ns, old.st_ctime_ns)}
    identify = pictures.identify

    def unchanged(path):
        file, stamp = identify(path)
        return file, stamps.get(Path(path).name, stamp)

    monkeypatch.setattr(pictures, "identify", unchanged)
    answer, seen, _ = ask()
    assert seen == ["1.png"]
    assert answer != first


@pytest.mark.parametrize("what", ["rename", "move", "touch", "copy"])
def test_the_same_content_is_not_described_again(ask, folder, what):
    ask()
    if what == "touch":
        (folder / "1.png").touch()
    elif what == "copy":
        (folder / "copy.png").write_bytes((folder / "1.png").read_bytes())
    else:
        (folder / "deeper").mkdir()
        (folder / "1.png").rename(folder / ("renamed.png" if what == "rename" else "deeper/1.png"))
    answer, seen, _ = ask()
    assert seen == []
    assert len(answer.found[0].nearest) == 6 + (what == "copy")
    values = dict(answer.found[0].nearest)
    if what == "copy":
        assert values["copy.png"] == values["1.png"]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
@pytest.mark.parametrize("part", [True, False, None])
def test_a_damaged_index_is_made_again_with_one_line(ask, tmp_path, part, damage):
    first = ask()[0]
    for file in index_files(tmp_path, part):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        new = {"flip": content, "cut": content[:-10], "empty": b"", "other": b"something else\n" * 9}
        file.write_bytes(new[damage])
    answer, seen, notes = ask()
    assert answer == first
    assert seen == ([] if part is False else ALL)
    told = [note for note in notes if "is damaged" in note]
    assert len(told) == 1
    assert "index of pictures" in told[0]
    assert "it is made again" in told[0]
    assert ("so are 1 other files" in told[0]) == (part is None)
    assert [note for note in ask()[2] if "is damaged" in note] == []


def test_an_interrupted_indexing_goes_on_where_it_was(ask, folder, query, described, monkeypatch):
    quick = Describer.__call__

    def stopped(self, pixels, name):
        if name == "4.png":
            raise KeyboardInterrupt
        return quick(self, pixels, name)

    monkeypatch.setattr(Describer, "__call__", stopped)
    monkeypatch.setattr(indexing, "READERS", 1)
    with pytest.raises(KeyboardInterrupt):
        rank_pictures([query], folder)
    monkeypatch.setattr(Describer, "__call__", quick)
    answer, seen, _ = ask()
    assert seen == ["4.png", "5.png"]
    assert names(answer) == ALL


KILLED = """
import os, sys
import numpy as np
from pathlib import Path
from retrieval_geometry.own_pictures import index, indexing, rank_pictures
from retrieval_geometry.own_pictures.describing import Describer
index.PART = 2
indexing.READERS = indexing.WINDOW = 1
def quick(self, pixels, name):
    if name == "5.png":
        os._exit(9)
    return pixels.reshape(-1, 3).mean(axis=0, dtype=np.float64).astype(np.float32)
Describer.__call__ = quick
rank_pictures([Path(sys.argv[1])], Path(sys.argv[2]))
"""


def test_a_killed_indexing_has_kept_its_parts(ask, folder, query):
    done = subprocess.run([sys.executable, "-c", KILLED, str(query), str(folder)], check=False)
    assert done.returncode == 9
    answer, seen, _ = ask()
    assert seen == ["4.png", "5.png"] or seen == ["5.png"]
    assert names(answer) == ALL


@pytest.mark.parametrize("cause", ["no folder", "full"])
def test_a_cache_that_cannot_be_written_is_a_note(ask, tmp_path, monkeypatch, cause):
    (tmp_path / "file").touch()
    if cause == "no folder":
        monkeypatch.setenv("RETRIEVAL_GEOMETRY_CACHE", str(tmp_path / "file" / "kept"))
    for _ in range(2):
        with full_disk() if cause == "full" else nullcontext():
            answer, seen, notes = ask()
        assert names(answer) == seen == ALL
        (note,) = [note for note in notes if "not kept" in note]
        assert note.startswith("note: features are not kept for the next time: ")
        assert note.endswith("Not a directory" if cause == "no folder" else "File too large")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_is_a_note(ask, folder, tmp_path):
    ask()
    save(folder / "new.png", 9)
    places = [path for path in (tmp_path / "kept").rglob("*") if path.is_dir()]
    for place in places:
        place.chmod(0o500)
    try:
        answer, seen, notes = ask()
    finally:
        for place in places:
            place.chmod(0o700)
    assert seen == ["new.png"]
    assert len(answer.found[0].nearest) == 7
    assert sum("not kept" in note for note in notes) == 1


def test_a_home_that_nobody_has_is_a_note(ask, monkeypatch):
    monkeypatch.delenv("RETRIEVAL_GEOMETRY_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    assert names(ask()[0]) == ALL
    assert "note: features are not kept for the next time: Could not determine home directory." in ask()[2]


def test_an_index_that_cannot_be_read_is_a_note(ask, tmp_path):
    ask()
    catalogue = index_files(tmp_path, False)[0]
    catalogue.unlink()
    catalogue.mkdir()
    answer, seen, notes = ask()
    assert names(answer) == ALL
    assert seen == []
    assert any("cannot be read: Is a directory" in note for note in notes)


def open_index(tmp_path: Path, folder: Path, identity: str = "a" * 32) -> Index:
    return Index(tmp_path / "kept", folder, "place", identity, "code", print)


def fill(own: Index, numbers: range) -> None:
    for i in numbers:
        own.add(f"sha{i}", np.full(3, i, np.float32))
        own.catalogue[f"{i}.png"] = index.Entry((1, 1, 1), 10**18, f"sha{i}", "")
    own.flush()


def test_two_indexings_at_once_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "PART", 4)
    one, other = open_index(tmp_path, tmp_path), open_index(tmp_path, tmp_path)
    fill(one, range(10))
    fill(other, range(5, 15))
    one.shrink(f"{i}.png" for i in range(2, 10))  # forgets two, while the other knows nothing of them
    other.shrink(f"{i}.png" for i in range(5, 15))
    after = open_index(tmp_path, tmp_path)
    assert [i for i in range(15) if f"sha{i}" in after] == list(range(2, 15))
    assert all((after[f"sha{i}"] == i).all() for i in range(2, 15))


def test_small_parts_are_put_together_and_readers_find_all(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "PART", 10)
    for i in range(10):
        own = open_index(tmp_path, tmp_path)
        fill(own, range(i, i + 1))
    assert len(index_files(tmp_path, True)) == 10
    writer, read = open_index(tmp_path, tmp_path), Index._read

    def meanwhile(self, path, about):
        if path.name != "catalogue" and writer._parts:
            monkeypatch.setattr(Index, "_read", read)
            writer.shrink(f"{i}.png" for i in range(10))
        return read(self, path, about)

    monkeypatch.setattr(Index, "_read", meanwhile)
    reader = open_index(tmp_path, tmp_path)
    assert len(index_files(tmp_path, True)) == 1
    assert all((reader[f"sha{i}"] == i).all() for i in range(10))


def test_two_commands_at_once_give_one_answer(folder, query):
    command = [sys.executable, "-m", "retrieval_geometry", "rank", str(query), str(folder), "--no-plot"]
    command += ["--backbone", "scattering"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    (one, _), (other, _) = (run.communicate() for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert one == other
    assert len(one.splitlines()) == 7


def test_what_another_network_or_code_made_is_forgotten(tmp_path):
    fill(open_index(tmp_path, tmp_path), range(3))
    new = open_index(tmp_path, tmp_path, "b" * 32)
    assert "sha0" not in new
    fill(new, range(3))
    new.shrink(f"{i}.png" for i in range(3))
    assert [file.name[0] for file in index_files(tmp_path, True)] == ["b"]


def test_networks_are_told_apart_by_weights_layer_and_code(tmp_path, monkeypatch):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"1")
    asked = [
        Request(),
        Request(model="gaussian"),
        Request(layer="stage5"),
        Request(weights="random"),
        Request(weights=str(weights)),
        Request(device="cuda"),
        Request(backbone="scattering"),
    ]
    seen = {one.place for one in asked}
    assert len(seen) == len(asked)
    assert Request(model="smt").place == Request(model="mixture").place == Request(model="gaussian").place
    known = {one.identity for one in asked}
    weights.write_bytes(b"2")
    known.add(asked[4].identity)
    monkeypatch.setattr(request, "code_digest", lambda: "other code")
    known.update(one.identity for one in asked)
    assert len(known) == 2 * len(asked) + 1


def test_files_of_the_index_are_about_themselves(tmp_path):
    fill(open_index(tmp_path, tmp_path), range(3))
    (part,) = index_files(tmp_path, True)
    with pytest.raises(ValueError, match="damaged"):
        INDEX.read(part, "b" * 32)


def test_a_cache_inside_the_folder_holds_no_pictures(query, tmp_path, described):
    notes: list[str] = []
    for _ in range(2):
        answer = rank_pictures([query], save(tmp_path / "a.png", 1).parent, say=notes.append)
    assert names(answer) == ["a.png"]
    assert not any("kept" in note for note in notes)

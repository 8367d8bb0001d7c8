import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from retrieval_geometry._files import replacing, write_whole
from retrieval_geometry.cli import main


def test_a_file_appears_whole_with_its_folders(tmp_path):
    path = tmp_path / "a" / "b.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failed_writer_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "b.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


HOLDING = """
import sys, time
from pathlib import Path
from retrieval_geometry._files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(600)
"""


def test_what_killed_writers_left_is_deleted_and_what_is_being_written_is_not(tmp_path):
    path = tmp_path / "b.txt"
    other = tmp_path / ".c.txt.abc.tmp"
    other.write_text("of another file")
    writers = [
        subprocess.Popen([sys.executable, "-c", HOLDING, str(path)], stdout=subprocess.PIPE) for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout.readline() == b"writing\n"
        assert len(list(tmp_path.glob(".b.txt.*.tmp"))) == 2
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait()
        write_whole(path, b"new")
        assert len(list(tmp_path.glob(".b.txt.*.tmp"))) == 1  # the other writer's
        assert path.read_text() == "new"
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()
    write_whole(path, b"newer")
    assert sorted(tmp_path.iterdir()) == [other, path]


def test_many_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "b.txt"

    def write(number):
        content = bytes([65 + number]) * 10_000
        for _ in range(40):
            write_whole(path, content)
            assert len(set(path.read_bytes())) == 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_or_a_folder_is_no_file_to_replace(tmp_path, capsys):
    """Nor is a device: renaming over /dev/null would leave a file there."""
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (pipe, folder):
        with pytest.raises(OSError, match=f"Is no regular file: '{path}'"):
            write_whole(path, b"new")
    assert main(["run", "geometric-table1", "--output", str(pipe)]) == 2  # before the run, not behind it
    assert f"--output must be a file, {pipe} is a device or a pipe" in capsys.readouterr().err
    assert pipe.is_fifo()
    assert sorted(tmp_path.iterdir()) == [folder, pipe]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "link").symlink_to("file")
    for content in (b"first", b"second"):
        write_whole(tmp_path / "link", content)
        assert (tmp_path / "file").read_bytes() == content
    assert (tmp_path / "link").is_symlink()


def test_a_folder_that_cannot_be_made_is_an_error_with_the_path(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "deep" / "b.txt"
    with pytest.raises(OSError, match=f"'{path}'"):
        write_whole(path, b"new")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r"'file/b\.txt'"):
        write_whole("file/b.txt", b"new")
    with pytest.raises(OSError, match=r"File name too long: .*xxx"):
        write_whole("x" * 300, b"new")


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"), replacing(tmp_path / "b.txt"):
        (tmp_path / "elsewhere").read_text()

"""What the README shows is run as it stands there, and prints what it says."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_geometry import cli

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
NUMBER = r"\d+(?:\.\d+)?"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.M | re.S)


def assert_printed(printed: str, promised: str) -> None:
    """The same words; numbers may differ by a fiftieth or a tenth of themselves, as between processors."""
    assert re.split(NUMBER, printed) == re.split(NUMBER, promised)
    found, expected = ([float(number) for number in re.findall(NUMBER, text)] for text in (printed, promised))
    assert found == pytest.approx(expected, rel=0.1, abs=0.02)


@pytest.mark.slow
def test_python_runs_in_order_and_prints_what_is_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown, promised = blocks("python"), blocks("text")
    assert len(shown) == len(promised) == 2
    names = {"__name__": "__main__"}
    for code, output in zip(shown, promised, strict=True):
        exec(compile(code, "README.md", "exec"), names)
        assert_printed(capsys.readouterr().out, output)
    assert {path.name for path in tmp_path.iterdir()} >= {"gallery.safetensors", "run.pt"}


def test_rank_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = [line for block in blocks("sh") for line in block.splitlines() if " rank " in line]
    program, *words = shlex.split(command)
    assert Path(program).name == "retrieval-geometry"
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    (tmp_path / words[2]).mkdir(parents=True)
    for pixels, path in zip(noise, (words[1], f"{words[2]}/a.png", f"{words[2]}/b.png"), strict=True):
        Image.fromarray(pixels).save(path)
    assert cli.main(words) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["picture: nearest.png", "page: nearest.html"]
    assert (tmp_path / "nearest.png").stat().st_size > 0
    assert (tmp_path / "nearest.html").stat().st_size > 0


def test_commands_and_options_that_the_text_names_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in sorted(set(re.findall(r"retrieval-geometry (\w+)", README))):
        monkeypatch.setattr(sys, "argv", ["retrieval-geometry", command, "--help"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0, command
    shown = capsys.readouterr().out
    assert "--layer" in shown
    assert all(option in shown for option in ("--model", "--distance", "--backbone", "--weights", "--html"))


def test_targets_of_make_exist() -> None:
    makefile = (Path(__file__).resolve().parents[1] / "Makefile").read_text()
    shown = "\n".join([*blocks("sh"), *re.findall(r"`(.*?)`", README)])
    named = set(re.findall(r"\bmake ([a-z-]+)", shown))
    assert named >= {"book", "test", "reproduce"}
    assert all(re.search(rf"^{target}:", makefile, flags=re.M) for target in named)

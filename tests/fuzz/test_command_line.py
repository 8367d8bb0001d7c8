"""The command line with drawn arguments: an answer, or one line that says what was wrong; never a traceback.

``FUZZ_DRAWS=2000 pytest tests/fuzz`` tries longer. ``build`` and the experiments stand in the place of what
takes minutes: their own arguments are drawn in ``test_public``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from retrieval_geometry.cli import main
from retrieval_geometry.experiments.registry import Experiment

from .law import time_limit

DRAWS = int(os.environ.get("FUZZ_DRAWS", "15")) * 4
CONTROL = {chr(code) for code in (*range(9), *range(11, 32), 127, *range(0x80, 0xA0))}

OPTIONS = {
    "build": ("--profile", "--data-root", "--device", "--seed", "--cores", "--threads"),
    "run": ("--profile", "--data-root", "--device", "--seed", "--output", "--part"),
    "datasets": ("--data-root",),
    "claims": ("--profile",),
    "rank": (
        "--model", "--distance", "--backbone", "--layer", "--weights", "--k", "--plot", "--no-plot",
        "--html", "--device",
    ),
}  # fmt: skip
WORDS = (
    "", " ", "-", "--", "0", "1", "2", "-1", "1e3", "010", "٣", "nan", "x", "quick", "real", "paper", "cpu",
    "cuda", "cuda:99", "meta", "cpu$(touch X)", "pooled", "gaussian", "mixture", "smt", "kl", "wasserstein2",
    "cosine", "scattering", "efficientnet_lite0", "stage5", "found.html",
    "a.png", "pictures", "pictures/b.png", "missing.png", "no/such/folder/out.png", "text.png",
    "/dev/null", "geometric-table1", "a\nb", "\x1b[31m", "\x00", "{x}", "%s", "$HOME", "é", "画像", "\ud800",
    "9" * 400, "build/results/x.json", "build/html", "." * 300, "../../x", "*",
)  # fmt: skip


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with some options and places, of which any may be nonsense."""
    command = draw(st.sampled_from(sorted(OPTIONS)))
    word = st.sampled_from(WORDS) | st.text(max_size=6)
    line = [command]
    for option in draw(st.lists(st.sampled_from(OPTIONS[command]), max_size=3)):
        line += [option] if option == "--no-plot" else [option, draw(word)]
    ask = draw(st.sampled_from((["a.png"], ["a.png", "pictures/b.png"], ["text.png", "a.png"])))
    good = {"run": ["geometric-table1"], "rank": [*ask, "pictures"]}.get(command, [])
    line += draw(st.just(good) | st.lists(word, max_size=3))
    return draw(st.just(line) | st.permutations(line))


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a query, three pictures, and a text that is called one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    noise = np.random.default_rng(0)
    for name in ("a.png", "pictures/b.png", "pictures/c.png", "pictures/d.png"):
        Image.fromarray(noise.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


def test_any_command_line_has_an_answer(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ran(self: Experiment, *arguments: Any) -> Any:
        raise ValueError(f"profile {arguments[0]!r} is not run here")

    monkeypatch.setattr(Experiment, "run", ran)
    monkeypatch.setattr("retrieval_geometry.book.build._make", lambda *arguments: 0)

    @settings(
        max_examples=DRAWS,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(command_lines())
    def law(line: list[str]) -> None:
        with time_limit():
            try:
                status = main(line)
            except SystemExit as exited:  # argparse: help, or a misuse
                status = exited.code
        out, errors = capsys.readouterr()
        assert status in (0, 1, 2), (line, errors)
        assert status == 0 or errors, f"{line} ends with {status} and says nothing"
        assert "Traceback" not in errors
        assert not CONTROL & set(out + errors), f"{line} lets a control character out"

    law()

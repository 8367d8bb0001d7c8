import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_geometry import __version__, cli, experiments
from retrieval_geometry.experiments import Experiment
from retrieval_geometry.reporting import Claim, Finding, Result, Verdict, result_path

from .reporting.conftest import make_result


def run(*arguments: str) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def pictures(tmp_path, monkeypatch) -> Path:
    """Stripes of several widths, smooth blobs, and everything that is no picture."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    x = np.arange(96)
    for width in (4, 5, 16):
        stripes = np.broadcast_to(127 + 120 * np.sin(2 * np.pi * x / width), (96, 96))
        save(folder / f"stripes{width}.png", stripes[..., None] + rng.normal(0, 5, (96, 96, 3)))
    save(folder / "deeper" / "noise.png", rng.uniform(0, 255, (120, 100, 3)))
    Image.fromarray(rng.integers(0, 65535, (40, 60), dtype=np.uint16)).save(folder / "sixteen.png")
    Image.new("RGBA", (30, 30), (9, 8, 7, 100)).save(folder / "flat.png")
    Image.new("L", (1, 1), 7).save(folder / "one.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no jpeg")
    (folder / "notes.txt").write_text("no image")
    return folder


def save(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def test_the_command_line_starts_without_the_heavy_libraries():
    code = "import sys, retrieval_geometry.cli as c; c._parser(); sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_and_version(capsys):
    for option in ("--help", "--version"):
        with pytest.raises(SystemExit) as caught:
            run(option)
        assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "examples:" in printed
    assert __version__ in printed


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "retrieval_geometry", "run", "nothing"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("retrieval-geometry: error: experiment must be one of geometric-table1")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["fly"], ["rank", "a"], ["rank", "a", "b", "--k", "0"], ["run"], ["rank", "a", "--", "--"]],
)
def test_a_malformed_command_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_rank_prints_and_draws_the_nearest(pictures, capsys):
    assert run("rank", pictures / "stripes4.png", pictures, "--k", "3", "--plot", "found.png") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[1].split()[::2] == ["1", "stripes5.png"]
    assert len(lines) == 5
    values = [float(line.split()[1]) for line in lines[1:4]]
    assert values == sorted(values)
    assert lines[-1] == "picture: found.png"
    assert Path("found.png").read_bytes().startswith(b"\x89PNG")
    for skipped in ("broken.jpg", "notes.txt", "stripes4.png: it is the query"):
        assert f"skipped {skipped}" in err


def test_rank_answers_several_queries_one_after_the_other(pictures, capsys):
    queries = (pictures / "stripes4.png", pictures / "deeper" / "noise.png")
    assert run("rank", *queries, pictures, "--k", "2", "--plot", "a.png", "--html", "b.html") == 0
    out, err = capsys.readouterr()
    one, other = out.split("\n\n")
    assert [part.splitlines()[0] for part in (one, other)] == [f"query {query}" for query in queries]
    assert one.splitlines()[2].split()[::2] == ["1", "stripes5.png"]
    assert other.splitlines()[1:4][0].split() == ["rank", "cosine", "image"]
    assert other.splitlines()[4:] == ["picture: a.png", "page: b.html"]
    assert "it is the query" not in err
    for query, part in zip(queries, (one, other), strict=True):  # as each alone
        assert run("rank", query, pictures, "--k", "2", "--no-plot") == 0
        assert capsys.readouterr().out.splitlines() == part.splitlines()[1:4]
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("line", ["q r D --k 3", "--k 3 q r D", "q --k 3 r D", "q r --k 3 D"])
def test_options_may_stand_anywhere_among_queries_and_folder(line):
    options = cli._parsed(["rank", *line.split()])
    assert (options.queries, options.folder, options.k) == (["q", "r"], "D", 3)


def test_rank_says_at_once_what_it_does(pictures):
    """Before it imports PyTorch, which takes a second, or anything as heavy."""
    code = "import sys; from retrieval_geometry import cli; sys.modules.update(torch=None, matplotlib=None); "
    code += "cli.main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "rank", "pictures/stripes4.png", "pictures"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = "ranking pictures by the cosine between pooled features of efficientnet_lite0 (head)"
    assert done.stderr.splitlines()[0] == said
    assert "No module named 'torch'" in done.stderr or "import of torch halted" in done.stderr


@pytest.mark.parametrize(
    ("model", "distance"),
    [("gaussian", "symmetric_kl"), ("gaussian", "affine_invariant"), ("mixture", "wasserstein2"),
     ("mixture", "symmetric_variational_kl"), ("smt", "stein"), ("gaussian", "cosine_mean")],
)  # fmt: skip
def test_rank_under_other_models_and_distances(pictures, capsys, model, distance):
    options = ("--model", model, "--distance", distance, "--backbone", "scattering", "--no-plot")
    assert run("rank", pictures / "stripes4.png", pictures, *options) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1].split()[2] == "stripes5.png"
    assert not list(Path().glob("*.png"))
    if distance != "cosine_mean" or model != "gaussian":
        assert "skipped flat.png: it is constant" in err
        assert "skipped one.png: it is constant" in err
        assert "flat.png" not in out


def test_rank_compares_images_that_single_precision_calls_singular(tmp_path, capsys):
    x = np.arange(96)
    for width in (4, 5, 6):
        save(tmp_path / f"{width}.png", np.broadcast_to(255 * (x // width % 2)[:, None], (96, 96, 3)))
    options = ("--model", "smt", "--distance", "affine_invariant", "--backbone", "scattering", "--no-plot")
    assert run("rank", tmp_path / "4.png", tmp_path, *options) == 0
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()[1:]] == ["5.png", "6.png"]


def bad_inputs() -> list[tuple[list[str], str]]:
    good = ["rank", "pictures/stripes4.png", "pictures"]
    return [
        (["rank", "none.png", "pictures"], "QUERY must be an image file, but there is no file none.png"),
        (["rank", "pictures/notes.txt", "pictures"], "QUERY must be an image:"),
        (["rank", "pictures", "pictures"], "QUERY must be an image file"),
        (["rank", "pictures/stripes4.png", "nowhere"], "there is no folder nowhere"),
        (["rank", "pictures/stripes4.png", "empty"], "empty holds no image"),
        (["rank", "pictures/stripes4.png", "only"], "holds no image besides the query"),
        ([*good, "--model", "cube"], "model must be one of pooled, gaussian, mixture, smt; got 'cube'"),
        ([*good, "--model", "pooled", "--distance", "kl"], "--model pooled goes with --distance cosine"),
        ([*good, "--model", "smt", "--distance", "cosine"], "--model pooled goes with --distance cosine"),
        ([*good, "--distance", "far"], "distance must be one of kl, symmetric_kl"),
        ([*good, "--distance", "variational_kl"], "use it with --model mixture"),
        ([*good, "--backbone", "resnet19"], "no backbone 'resnet19'; did you mean"),
        ([*good, "--backbone", "squeezenet1_1"], "weights of squeezenet1_1 must be chosen"),
        ([*good, "--backbone", "squeezenet1_1", "--weights", "none.pth"], "no file 'none.pth'"),
        ([*good, "--backbone", "squeezenet1_1", "--weights", "other.pth"], "other.pth"),
        ([*good, "--backbone", "squeezenet1_1", "--weights", "random", "--layer", "feat"], "no layer 'feat'"),
        ([*good, "--device", "gpu"], "device 'gpu' is not usable here"),
        ([*good, "--plot", "found.xyz"], "--plot must end in one of .png"),
        ([*good, "--plot", "no/found.png"], "there is no folder no"),
        ([*good, "--html", "found.png"], "--html must end in one of .html, .htm; got 'found.png'"),
        ([*good, "--html", "no/found.html"], "there is no folder no"),
        ([*good, "--layer", "stage9"], "efficientnet_lite0 has no layer 'stage9'"),
        (["rank", "pictures/stripes5.png", *good[1:], "--device", "gpu"], "device 'gpu' is not usable here"),
        (["rank", "pictures/stripes5.png", "none.png", "pictures"], "there is no file none.png"),
        (
            ["rank", "pictures/flat.png", "pictures", "--model", "smt", "--backbone", "scattering"],
            "QUERY flat.png is constant",
        ),
        (["run", "geometric-tabel1"], "experiment must be one of"),
        (["run", "geometric-table1", "--profile", "fast"], "profile must be one of quick, real, paper"),
        (
            ["run", "geometric-table1", "--profile", "real", "--data-root", "no"],
            "--data-root no: there is no such",
        ),
        (["run", "geometric-table1", "--profile", "real", "--data-root", "empty"], "DTD is not under empty"),
        (["run", "geometric-table1", "--output", "empty"], "--output must be a file, empty is a folder"),
        (["run", "geometric-table1", "--device", "gpu"], "device 'gpu' is not usable here"),
        (["datasets", "--data-root", "no"], "--data-root no: there is no such folder"),
        (["claims", "--profile", "fast"], "profile must be one of"),
        (["build", "--profile", "fast"], "profile must be one of"),
    ]


@pytest.mark.parametrize(("arguments", "message"), bad_inputs(), ids=lambda value: str(value)[:60])
def test_bad_input_is_one_clear_line(pictures, capsys, arguments, message):
    import torch

    Path("empty").mkdir()
    Path("only").mkdir()
    save(Path("only/a.png"), np.random.default_rng(1).uniform(0, 255, (50, 50, 3)))
    if "only" in arguments:
        arguments = ["rank", "only/a.png", "only"]
    torch.save({"layer.weight": torch.zeros(2, 2)}, "other.pth")
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    last = err.strip().splitlines()[-1]
    assert last.startswith("retrieval-geometry: error: ")
    assert message in last
    assert "Traceback" not in out + err


@pytest.mark.parametrize("model", ["gaussian", "mixture", "smt"])
@pytest.mark.parametrize(("of_query", "name"), [(True, "stripes4.png"), (False, "flat.png")])
def test_what_is_wrong_with_a_picture_names_its_file(pictures, monkeypatch, capsys, model, of_query, name):
    """By side and index, not by a look at the message."""
    from retrieval_geometry.own_pictures.describing import Describer

    def broken(self, pixels, of):
        x = np.random.default_rng(0).uniform(size=(9, 4)).astype(np.float32)
        return np.where(of == name, np.inf, x).astype(np.float32)

    monkeypatch.setattr(Describer, "__call__", broken)
    query = pictures / "stripes4.png"
    if not of_query:
        query = query.rename("elsewhere.png")
    assert run("rank", query, pictures, "--model", model, "--no-plot") == 2
    assert f"x of {name} has a NaN or infinite value; remove that image" in capsys.readouterr().err


@pytest.mark.parametrize(("of_query", "name"), [(True, "stripes4.png"), (False, "deeper/noise.png")])
def test_what_a_distance_refuses_names_the_file(pictures, monkeypatch, capsys, of_query, name):
    import torch

    from retrieval_geometry.image_models import Gaussian
    from retrieval_geometry.own_pictures import distributions
    from retrieval_geometry.own_pictures.describing import Describer

    def indefinite(x, *_):
        sign = -1.0 if (len(x) == 1) == of_query else 1.0
        return Gaussian(x[:, 0], torch.diag(x.new_tensor([sign, 1, 1, 1])).expand(len(x), -1, -1))

    monkeypatch.setattr(Describer, "__call__", lambda self, *_: np.random.default_rng(0).uniform(size=(9, 4)))
    monkeypatch.setattr(distributions, "_models", indefinite)
    assert run("rank", pictures / "stripes4.png", pictures, "--model", "gaussian", "--no-plot") == 2
    assert f"the covariance of {name} has the negative eigenvalue -1" in capsys.readouterr().err


def test_an_interrupt_ends_quietly(monkeypatch, capsys):
    def interrupted(self: Experiment, *_: object) -> Result:
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "run", interrupted)
    assert run("run", "geometric-table1") == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA out of memory"), RuntimeError("can't allocate memory")]
)
def test_too_little_memory_is_said(monkeypatch, capsys, error):
    def exhausted(self: Experiment, *_: object) -> Result:
        raise error

    monkeypatch.setattr(Experiment, "run", exhausted)
    assert run("run", "geometric-table1") == 1
    assert capsys.readouterr().err == "retrieval-geometry: error: out of memory; take fewer images\n"


def test_an_error_of_our_own_is_not_hidden(monkeypatch):
    def broken(*arguments: object) -> None:
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(Experiment, "run", broken)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        run("run", "geometric-table1")


@pytest.mark.parametrize("share", ["3/2", "0/1", "1", "a/b"])
def test_a_part_is_a_share(capsys, share):
    with pytest.raises(SystemExit) as refused:
        run("run", "geometric-table1", "--part", share)
    assert refused.value.code == 2
    assert f"must be a share such as 1/2, got {share!r}" in capsys.readouterr().err


def test_building_without_the_libraries_of_the_book_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("builtins.__import__", without("retrieval_geometry.book.build", "psutil"))
    assert run("build") == 2
    assert "building the book needs psutil: pip install 'retrieval-geometry[book]'" in capsys.readouterr().err


def without(module: str, needed: str):
    """An import that fails at one module, as if the library it needs were not installed."""
    usual = __import__

    def imported(name: str, *arguments: object, **options: object) -> object:
        if name == module:
            raise ModuleNotFoundError(f"No module named {needed!r}", name=needed)
        return usual(name, *arguments, **options)

    return imported


def test_a_picture_that_cannot_be_written_leaves_the_table(pictures, monkeypatch, capsys):
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("retrieval_geometry.own_pictures.plot.draw", full)
    assert run("rank", pictures / "stripes4.png", pictures, "--plot", "found.png") == 1
    out, err = capsys.readouterr()
    assert "stripes5.png" in out
    assert "error: the picture was not written to found.png: No space left on device" in err


def test_a_closed_pipe_is_no_error():
    code = "from retrieval_geometry.cli import main; import sys; sys.exit(main(['datasets']))"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = f'{sys.executable} -c "{code}" | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_run_writes_where_it_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Experiment, "run", lambda self, *_: make_result(experiment=self.name))
    assert run("run", "geometric-table1") == 0
    assert run("run", "geometric-table1", "--output", "deep/mine.json") == 0
    assert Result.read("deep/mine.json") == Result.read(result_path("geometric-table1", "quick"))
    assert "written to deep/mine.json" in capsys.readouterr().out


def test_build_hands_its_settings_on(monkeypatch):
    from retrieval_geometry.book import build as module

    given = {}
    monkeypatch.setattr(module, "build", lambda **settings: given.update(settings) or 7)
    assert run("build", "--profile", "real", "--data-root", "d", "--cores", "3", "one.ipynb") == 7
    assert given == {
        "profile": "real",
        "data_root": "d",
        "device": "cpu",
        "seed": 0,
        "cores": 3,
        "threads": 1,
        "targets": ["one.ipynb"],
    }


def test_datasets_are_listed(capsys):
    assert run("datasets") == 0
    assert "photo textures" in capsys.readouterr().out


def test_claims_without_any_result_say_how_to_get_one(monkeypatch, capsys):
    monkeypatch.setattr("retrieval_geometry.reporting.results.load_all", lambda names, profile: {})
    assert run("claims") == 2
    assert "no results yet: run" in capsys.readouterr().err


@pytest.mark.parametrize("expected", [Verdict.REPRODUCED, Verdict.CONTRADICTED])
def test_claims_fail_where_a_verdict_changed(tmp_path, monkeypatch, capsys, expected):
    monkeypatch.chdir(tmp_path)
    make_result(experiment="geometric-table1").write(result_path("geometric-table1", "quick"))

    def predicate(results: object) -> Finding:
        return Finding(Verdict.REPRODUCED, remark="0.8")

    needs = ("geometric-table1",)
    claim = Claim("toy-1", "toy", "Table 1", "Good is good.", "Rule.", predicate, needs, {"quick": expected})
    monkeypatch.setattr(experiments, "claims", lambda: [claim])
    changed = expected is not Verdict.REPRODUCED
    assert run("claims", "--profile", "quick") == int(changed)
    out, err = capsys.readouterr()
    mark = " (registered: contradicted)" if changed else ""
    assert out == (
        f"reproduced{mark}  toy-1 (quick; Table 1)\n    Good is good.\n    Rule.\n    0.8\n"
        "    holds for: toys; scattering; 20 of 40 queries; a small budget\n"
    )
    assert ("verdicts differ" in err) == changed


def test_a_registered_claim_whose_run_is_missing_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_result(experiment="geometric-table1").write(result_path("geometric-table1", "quick"))
    known = {"quick": Verdict.REPRODUCED}
    claims = [
        Claim(
            name,
            "toy",
            "Table 1",
            "Good is good.",
            "Rule.",
            lambda _: Finding(Verdict.REPRODUCED),
            (name,),
            known,
        )
        for name in ("geometric-table1", "geometric-layers")
    ]
    monkeypatch.setattr(experiments, "claims", lambda: claims)
    assert run("claims") == 1
    out, err = capsys.readouterr()
    assert "not tested here (registered: reproduced)  geometric-layers (quick; Table 1)" in out
    assert "no result of geometric-layers with profile quick" in err

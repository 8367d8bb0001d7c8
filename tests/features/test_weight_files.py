"""Weight files as people save them, and files that hold something else."""

import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from retrieval_geometry.features import load_backbone
from retrieval_geometry.features.weights import read_state_dict


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.rand(2, 3), "a.bias": torch.rand(2), "n.num_batches_tracked": torch.tensor(7)}


def same(found, state) -> bool:
    return found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net", "whatever"])
def test_a_checkpoint_around_the_weights(tmp_path, state, key):
    optimizer = torch.optim.Adam(nn.Linear(2, 2).parameters()).state_dict()
    torch.save({key: state, "epoch": 3, "optimizer": optimizer, "best": 0.5}, tmp_path / "a.pth")
    assert same(read_state_dict(tmp_path / "a.pth"), state)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.model.", "_orig_mod.module."])
def test_names_with_something_in_front(tmp_path, state, prefix):
    long = {prefix + name: value for name, value in state.items()}
    torch.save({"state_dict": long}, tmp_path / "a.pth")
    save_file(long, tmp_path / "a.safetensors")
    for file in ("a.pth", "a.safetensors"):
        assert same(read_state_dict(tmp_path / file), state)


def test_a_prefix_of_some_names_is_theirs(tmp_path, state):
    mixed = state | {"model.a.weight": torch.rand(1)}
    torch.save(mixed, tmp_path / "a.pth")
    assert same(read_state_dict(tmp_path / "a.pth"), mixed)


def test_the_usual_key_wins_over_others(tmp_path, state):
    torch.save({"ema": {"x": torch.ones(1)}, "state_dict": state}, tmp_path / "a.pth")
    assert same(read_state_dict(tmp_path / "a.pth"), state)


def test_a_network_takes_a_wrapped_file(tmp_path):
    network = load_backbone("squeezenet1_1", weights="random")
    state = {f"module.{name}": value for name, value in network.trunk.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "a.pth")
    x = torch.rand(1, 3, 224, 224)
    loaded = load_backbone("squeezenet1_1", weights=tmp_path / "a.pth", layer="features")
    assert torch.equal(loaded(x), load_backbone("squeezenet1_1", weights="random", layer="features")(x))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"g": {"x": torch.ones(1)}, "d": {"x": torch.ones(1)}}, r"but it holds g \(dict\), d \(dict\)$"),
        ({"epoch": 3, "\x1b[31m": 2}, r"but it holds epoch \(int\), \\x1b\[31m \(int\)$"),
        ({"state_dict": {}}, r"but it holds state_dict \(dict\)$"),
        ({"state_dict": {3: torch.ones(1)}}, r"but it holds state_dict \(dict\)$"),
        ({3: torch.ones(1)}, r"but it holds 3 \(Tensor\)$"),
        ([torch.ones(1)], "must hold a state dict .* holds <class 'list'>"),
        (torch.ones(1), "must hold a state dict .* holds <class 'torch.Tensor'>"),
    ],
)
def test_what_holds_no_state_dict_says_what_it_holds(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        read_state_dict(tmp_path / "a.pth")


NO_WEIGHTS = {
    "torch.float8_e4m3fn": torch.zeros(2).to(torch.float8_e4m3fn),
    r"sparse \(torch.sparse_coo\)": torch.eye(2).to_sparse(),
    r"sparse \(torch.sparse_csr\)": torch.eye(2).to_sparse_csr(),
    r"a tensor without values \(meta\)": torch.zeros(2, device="meta"),
    "torch.complex64": torch.zeros(2, dtype=torch.complex64),
    "torch.int64": torch.zeros(2, dtype=torch.int64),
    "torch.bool": torch.zeros(2, dtype=torch.bool),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
@pytest.mark.filterwarnings("error::UserWarning")
def test_tensors_that_are_no_weights_are_refused_by_name(tmp_path, state, kind):
    torch.save({"state_dict": state | {"b.weight": NO_WEIGHTS[kind]}}, tmp_path / "a.pth")
    message = rf"a\.pth: the entry b\.weight is {kind}; weights must be dense tensors of float32, float64"
    with pytest.raises(ValueError, match=message):
        read_state_dict(tmp_path / "a.pth")


def test_quantised_weights_are_refused_by_name(tmp_path, state):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8)
        torch.save(state | {"b": quantised}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"the entry b is torch\.qint8"):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_weights(tmp_path, dtype):
    torch.save({"a": torch.ones(2, dtype=dtype)}, tmp_path / "a.pth")
    assert read_state_dict(tmp_path / "a.pth")["a"].dtype == dtype


class Intruder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_model_is_refused_as_what_it_is(tmp_path, zipped):
    torch.save(nn.Linear(2, 2), tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="pickled") as caught:
        read_state_dict(tmp_path / "a.pth")
    assert str(caught.value) == (
        f"{tmp_path / 'a.pth'} holds pickled Python objects (torch.nn.modules.linear.Linear), and no "
        "state dict alone: to load it would run its code; save the weights with "
        "torch.save(model.state_dict(), path)"
    )


def test_nothing_in_a_file_is_run(tmp_path):
    torch.save(Intruder(tmp_path / "made"), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"holds pickled Python objects \(posix\.mkdir\)|\(nt\.mkdir\)"):
        read_state_dict(tmp_path / "a.pth")
    assert not (tmp_path / "made").exists()


@pytest.mark.filterwarnings("error::UserWarning")
def test_other_files_are_refused_without_advice_to_run_them(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "page.pth").write_bytes(b"<html>\x1b[31m")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{\x1b[31m}")
    for file in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=file.name) as caught:
            read_state_dict(file)
        said = str(caught.value)
        assert "weights_only" not in said
        assert said.isprintable()
        assert ("TorchScript" in said) == (file.name == "script.pth")

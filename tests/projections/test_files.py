"""Files of projections: the same projection again, or a refusal by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from sklearn.exceptions import NotFittedError

from retrieval_geometry._sealed import Kind
from retrieval_geometry.projections import (
    AESVC,
    SS2D,
    SSD,
    VAE,
    AllButTheTop,
    PCAWhitening,
    ProductQuantization,
    Projection,
    RandomRotation,
    Truncation,
    load_projection,
    save_projection,
)
from retrieval_geometry.projections.files import CLASSES, PROJECTION

from .common import references

QUICK = {"epochs": 2, "depth": 2}
MODELS = [
    AESVC(latent=3, weights=(1, 2, 3, 4), standardize=True, **QUICK),
    SS2D([2, 4], **QUICK),
    SSD([2, 4], **QUICK),
    VAE(latent=3, **QUICK),
    AllButTheTop(),
    PCAWhitening(power=0.5, shrinkage="auto", n_components=4),
    ProductQuantization(n_bytes=2),
    RandomRotation(3),
    Truncation(2),
]


def test_every_projection_is_tried() -> None:
    assert {type(model).__name__ for model in MODELS} == set(CLASSES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_what_is_read_is_what_was_written(model: Projection, dtype: torch.dtype, tmp_path: Path) -> None:
    x = references(300, 6, dtype=dtype)
    expected = model.fit(x).transform(x)
    save_projection(tmp_path / "file", model)
    found = load_projection(str(tmp_path / "file"))
    assert type(found) is type(model)
    assert torch.equal(found.transform(x), expected)
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in found.get_params().items()} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in model.get_params().items()
    }
    save_projection(tmp_path / "again", found)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()


def test_what_else_was_found_is_there_again(tmp_path: Path) -> None:
    x = references(60, 6)
    model = AESVC(latent=3, **QUICK).fit(x)
    save_projection(tmp_path / "file", model)
    found = load_projection(tmp_path / "file")
    assert isinstance(found, AESVC)
    assert (found.residuals_, found.history_, found.latent_) == (model.residuals_, model.history_, 3)
    assert torch.equal(found.reconstruct(x), model.reconstruct(x))
    assert found.fit(x).residuals_ == model.residuals_


def file_of(folder: Path) -> Path:
    save_projection(folder / "file", PCAWhitening().fit(references()))
    return folder / "file"


@pytest.mark.parametrize("at", [0, 100, -1])
def test_a_changed_byte_is_found_out(at: int, tmp_path: Path) -> None:
    path = file_of(tmp_path)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"file of a projection {re.escape(str(path))} is damaged; fit"):
        load_projection(path)


@pytest.mark.parametrize("kept", [0, 10, -1])
def test_a_cut_file_is_found_out(kept: int, tmp_path: Path) -> None:
    path = file_of(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="is damaged; fit the projection again"):
        load_projection(path)


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    Kind(PROJECTION.name, PROJECTION.version + 1, PROJECTION.remedy).write(path, PROJECTION.read(path))
    with pytest.raises(ValueError, match="no file of a projection of this version"):
        load_projection(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json\n",
        b"[]\n",
        b'{"class": "os.system", "settings": {}, "values": {}}\n',
        b'{"class": "Truncation", "settings": {"no_such": 1}, "values": {}}\n',
        b'{"class": "Truncation", "settings": {}, "values": {"__class__": 1}}\n',
        b'{"class": "Truncation", "settings": {}, "values": {}}\nno tensors',
        b'{"class": "SSD", "settings": {"sizes": [1]}, "values": {"models_": [5]}}\n',
    ],
)
def test_a_whole_file_of_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    PROJECTION.write(tmp_path / "file", content)
    with pytest.raises(ValueError, match="cannot be read; fit the projection again"):
        load_projection(tmp_path / "file")


def test_what_is_no_fitted_projection_is_not_written(tmp_path: Path) -> None:
    class Own(Truncation):
        pass

    with pytest.raises(NotFittedError):
        save_projection(tmp_path / "file", PCAWhitening())
    with pytest.raises(ValueError, match=r"projection must be one of AESVC, .*, got Own"):
        save_projection(tmp_path / "file", Own().fit(references()))
    with pytest.raises(ValueError, match="projection must be of the class Projection"):
        save_projection(tmp_path / "file", torch.nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="path must be a path"):
        save_projection(None, Truncation().fit(references()))  # type: ignore[arg-type]
    model = Truncation().fit(references()).set_params(n_components=object())
    with pytest.raises(ValueError, match="settings that are no plain values"):
        save_projection(tmp_path / "file", model)
    assert not (tmp_path / "file").exists()


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_projection(tmp_path / "nothing")

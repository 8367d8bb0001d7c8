import numpy as np
import pytest
import torch
from PIL import Image

from retrieval_geometry.experiments import RunContext
from retrieval_geometry.experiments.data import overview
from retrieval_geometry.features import load_backbone
from retrieval_geometry.papers.geometric.data import load_setting


def write_dtd(root, per_class: int = 12, official: bool = False) -> None:
    """Two attributes of noise images, in plain class folders or the official layout."""
    rng = np.random.default_rng(0)
    images = root / "dtd" / "images" if official else root / "dtd"
    names = []
    for attribute in ("banded", "woven"):
        (images / attribute).mkdir(parents=True)
        for i in range(per_class):
            name = f"{attribute}/{attribute}_{i:04d}.jpg"
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(images / name)
            names.append(name)
    if official:
        (root / "dtd" / "labels").mkdir()
        for k, split in enumerate(("train1", "val1", "test1")):
            (root / "dtd" / "labels" / f"{split}.txt").write_text("\n".join(names[k::3]) + "\n")


def test_quick_needs_nothing():
    setting = load_setting(RunContext("quick", "no/such/folder"))
    assert len(setting.queries) == 10 * len(setting.images.classes)
    assert int(setting.n_relevant.min()) >= 11  # so that P@10 can reach 1
    assert "10 random patches" in setting.protocol
    assert torch.equal(setting.queries, load_setting(RunContext("quick", "elsewhere")).queries)
    assert not torch.equal(setting.queries, load_setting(RunContext("quick", "elsewhere", seed=1)).queries)


def test_a_missing_data_root_is_named():
    with pytest.raises(FileNotFoundError, match="--data-root no/such: there is no such folder"):
        load_setting(RunContext("real", "no/such"))


def test_a_missing_set_says_where_it_comes_from_and_goes(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"robots\.ox.ac\.uk.* so that"):
        load_setting(RunContext("real", str(tmp_path)))


def test_missing_weights_are_named(tmp_path):
    write_dtd(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"squeezenet1_1-b8a52dc0\.pth there"):
        load_setting(RunContext("real", str(tmp_path)))


def test_real_takes_what_lies_under_the_data_root(tmp_path):
    write_dtd(tmp_path)
    network = load_backbone("squeezenet1_1", weights="random")
    (tmp_path / "squeezenet1_1-mine.pth").write_bytes(b"")
    setting = load_setting(RunContext("real", str(tmp_path)))
    assert network.name == setting.backbone["name"]
    # The last convolutions, before the ReLU that makes the last feature map of them.
    image = torch.rand(1, 3, 224, 224)
    before = load_backbone("squeezenet1_1", setting.backbone["layer"], weights="random")(image)
    assert before.min() < 0
    torch.testing.assert_close(before.relu(), network(image))
    assert setting.backbone["weights"].endswith("squeezenet1_1-mine.pth")
    assert len(setting.queries) == 20
    assert len(setting.images) == 24


def test_paper_asks_with_test1_and_searches_train1_and_val1(tmp_path):
    write_dtd(tmp_path, official=True)
    (tmp_path / "vgg_m.pth").write_bytes(b"")
    setting = load_setting(RunContext("paper", str(tmp_path)))
    assert len(setting.queries) == 8
    assert len(setting.database) == 16
    assert not set(setting.queries.tolist()) & set(setting.database.tolist())
    listed = (tmp_path / "dtd" / "labels" / "test1.txt").read_text().split()
    assert {setting.images.ids[i] for i in setting.queries.tolist()} == set(listed)


def test_the_overview_names_found_and_missing(tmp_path):
    lines = "\n".join(overview(str(tmp_path)))
    assert "found    photo textures" in lines
    assert "missing  DTD" in lines
    assert "put it at" in lines
    with pytest.raises(FileNotFoundError, match="no/such"):
        overview("no/such")

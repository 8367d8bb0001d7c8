"""From a set of images to a tensor of descriptors, and the cache between."""

import dataclasses

import pytest
import torch

from retrieval_geometry.features import Backbone, Scattering, extract_descriptors, l2_normalize, local


@pytest.fixture
def small():
    return Scattering(scales=2, orientations=2, input_size=16)


class Counting(Backbone):
    """Two descriptors an image; counts the images it has seen."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__("counting", "none", 16, 16)
        self.scale = torch.nn.Parameter(torch.tensor(factor))
        self.dim, self.seen, self.modes = 3, 0, set()

    def feature_map(self, images):
        self.seen += len(images)
        self.modes.add(self.training)
        return self.scale * images[:, :, :1, :2]


def test_rows_are_the_images_in_order(toy_images, small):
    descriptors = extract_descriptors(toy_images, small, batch_size=4, progress=False)
    assert descriptors.shape == (6, 16, small.dim)
    assert descriptors.dtype == torch.float32
    for i in range(6):
        alone = small(small.prepare(toy_images.load(i)).unsqueeze(0))[0]
        torch.testing.assert_close(descriptors[i], alone)


def test_batch_size_does_not_matter(toy_images, small):
    one, many = (extract_descriptors(toy_images, small, size, progress=False) for size in (1, 100))
    torch.testing.assert_close(one, many)


def test_a_set_of_one(toy_images, small):
    assert extract_descriptors(toy_images.subset([3]), small, progress=False).shape == (1, 16, small.dim)


def test_an_empty_set_is_refused(toy_images, small):
    with pytest.raises(ValueError, match="images is empty: toy"):
        extract_descriptors(toy_images.subset([]), small)


def test_batch_size_must_be_a_count(toy_images, small):
    with pytest.raises(ValueError, match="batch_size"):
        extract_descriptors(toy_images, small, batch_size=0)


def test_evaluation_mode_for_the_run_and_the_mode_restored(toy_images):
    backbone = Counting().train()
    extract_descriptors(toy_images, backbone, progress=False)
    assert backbone.modes == {False}
    assert backbone.training


def test_result_has_no_autograd_history(toy_images):
    assert not extract_descriptors(toy_images, Counting(), progress=False).requires_grad


def test_float64_networks_work(toy_images, small):
    single = extract_descriptors(toy_images, small, progress=False)
    double = extract_descriptors(toy_images, small.double(), progress=False)
    assert double.dtype == torch.float32
    torch.testing.assert_close(single, double, atol=1e-4, rtol=1e-4)


def test_nan_weights_name_the_image(toy_images):
    backbone = Counting(float("nan"))
    with pytest.raises(ValueError, match="counting gives image 'a/0' of toy a NaN"):
        extract_descriptors(toy_images, backbone, progress=False)


def test_second_call_reads_the_cache(toy_images, tmp_path):
    backbone = Counting()
    fresh = extract_descriptors(toy_images, backbone, progress=False, cache=tmp_path)
    seen = backbone.seen
    again = extract_descriptors(toy_images, backbone, progress=False, cache=tmp_path)
    assert backbone.seen == seen + 1  # the first image, described at every call
    assert torch.equal(fresh, again)


def test_an_interrupted_run_is_taken_up(toy_images, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "PART", 2)
    whole = extract_descriptors(toy_images, Counting(), progress=False)

    def broken(image_id):
        if image_id == toy_images.ids[4]:
            raise OSError("disk gone")
        return toy_images.read(image_id)

    with pytest.raises(OSError, match="disk gone"):
        extract_descriptors(
            dataclasses.replace(toy_images, read=broken), Counting(), progress=False, cache=tmp_path
        )
    backbone = Counting()
    resumed = extract_descriptors(toy_images, backbone, progress=False, cache=tmp_path)
    assert backbone.seen == 3  # the first image again, and the last part
    assert torch.equal(resumed, whole)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("change", ["weights", "images", "order", "settings"])
def test_the_cache_knows_what_the_descriptors_depend_on(toy_images, tmp_path, change):
    backbone = Counting()
    extract_descriptors(toy_images, backbone, progress=False, cache=tmp_path)
    if change == "weights":
        backbone.scale.data.fill_(2.0)
    elif change == "images":
        toy_images = dataclasses.replace(toy_images, sha256="1")
    elif change == "order":
        toy_images = toy_images.subset([1, 0, 2, 3, 4, 5])
    else:
        backbone.layer = "other"
    seen = backbone.seen
    changed = extract_descriptors(toy_images, backbone, progress=False, cache=tmp_path)
    assert backbone.seen == seen + 7
    assert torch.equal(changed, extract_descriptors(toy_images, backbone, progress=False))


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "code"])
def test_a_cache_that_is_broken_or_out_of_date_is_made_again(toy_images, tmp_path, damage):
    backbone = Counting()
    expected = extract_descriptors(toy_images, backbone, progress=False, cache=tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    content = file.read_bytes()
    if damage == "code":  # as if the network's code had changed since
        part = {"descriptors": expected + 1, "first": expected[0] + 1}
        about = f"{file.parent.name}/{file.name}"
        local.DESCRIPTORS.write(file, local.save(part), about)
    else:
        file.write_bytes({"truncated": content[:-8], "garbage": b"x" * 100, "empty": b""}[damage])
    assert torch.equal(extract_descriptors(toy_images, backbone, progress=False, cache=tmp_path), expected)
    assert file.read_bytes() == content


def test_l2_normalize_gives_unit_lengths_and_leaves_zeros():
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    x[0, 0] = 0
    y = l2_normalize(x)
    assert torch.equal(y[0, 0], x[0, 0])
    torch.testing.assert_close(y.norm(dim=-1)[1], torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(l2_normalize(1e-30 * x.float())[1].norm(dim=-1), torch.ones(5))
    with pytest.raises(ValueError, match="descriptors must be float32 or float64"):
        l2_normalize(torch.tensor([1, 2]))


def test_prepare_resizes_the_shorter_side_and_cuts_out_the_middle():
    backbone = Counting()
    ramp = torch.arange(64).expand(3, 16, 64).to(torch.uint8)
    prepared = backbone.prepare(ramp)
    assert prepared.shape == (3, 16, 16)
    torch.testing.assert_close(prepared[0, 0], torch.arange(24, 40) / 255)
    same = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(backbone.prepare(same), same / 255)
    assert backbone.prepare(torch.full((3, 1, 1), 255, dtype=torch.uint8)).eq(1).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 16, 16), "image must be uint8"),
        (torch.zeros(16, 16, 3, dtype=torch.uint8), "image must have shape"),
        (torch.zeros(3, 0, 5, dtype=torch.uint8), "image must have shape"),
    ],
)
def test_prepare_refuses(image, message):
    with pytest.raises(ValueError, match=message):
        Counting().prepare(image)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 3, 8, 8), "images must have shape"),
        (torch.rand(3, 16, 16), "images must have shape"),
        (torch.rand(0, 3, 16, 16), "images must have shape"),
        (torch.full((1, 3, 16, 16), torch.nan), "images of image 0 has a NaN"),
        (255 * torch.rand(1, 3, 16, 16), r"images must lie in \[0, 1\]"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "images must be float32 or float64"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.float64), "counting is torch.float32"),
    ],
)
def test_forward_refuses(images, message):
    with pytest.raises(ValueError, match=message):
        Counting()(images)

"""The ImageSet: what belongs together, and subsets."""

import pytest
import torch

from retrieval_geometry.datasets import ImageSet


def _read(image_id: str) -> torch.Tensor:
    return torch.full((3, 2, 2), int(image_id[-1]), dtype=torch.uint8)


def _set(**changed: object) -> ImageSet:
    parts: dict[str, object] = {
        "name": "toy",
        "labels": torch.tensor([0, 0, 1]),
        "classes": ("a", "b"),
        "ids": ("a/0", "a/1", "b/2"),
        "sha256": "0",
        "read": _read,
    }
    return ImageSet(**(parts | changed))


def test_subset_keeps_order_labels_ids_and_classes():
    part = _set().subset(torch.tensor([2, 0]))
    assert part.ids == ("b/2", "a/0")
    assert part.labels.tolist() == [1, 0]
    assert part.classes == ("a", "b")
    assert int(part.load(0)[0, 0, 0]) == 2
    assert len(part.subset([])) == 0
    assert _set().subset([-1]).ids == ("b/2",)


@pytest.mark.parametrize("indices", [[0.0], [[0]], [True, False, True], 1, [1j]])
def test_subset_wants_integers(indices):
    with pytest.raises(ValueError, match="indices must be a list of integers"):
        _set().subset(indices)


def test_subset_refuses_the_same_image_twice():
    with pytest.raises(ValueError, match="'a/1' stands there twice"):
        _set().subset([1, 0, 1])


@pytest.mark.parametrize("position", [3, -4])
def test_an_image_that_is_not_there(position):
    with pytest.raises(IndexError, match="toy holds 3"):
        _set().load(position)
    with pytest.raises(IndexError, match="toy holds 3"):
        _set().subset([position])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": torch.tensor([0, 1])}, "labels must be 3 int64 numbers"),
        ({"labels": torch.tensor([0.0, 0.0, 1.0])}, "labels must be 3 int64 numbers"),
        ({"labels": torch.tensor([0, 0, 2])}, "labels must lie in 0..1"),
        ({"labels": torch.tensor([0, 0, -1])}, "labels must lie in 0..1"),
        ({"ids": ("a/0", "a/0", "b/2")}, "'a/0' stands there twice"),
    ],
)
def test_parts_that_do_not_belong_together(changed, message):
    with pytest.raises(ValueError, match=message):
        _set(**changed)

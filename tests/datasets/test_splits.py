"""Queries and database: disjoint, complete, balanced, repeatable."""

import pytest
import torch

from retrieval_geometry.datasets import (
    ImageSet,
    class_split,
    first_per_class,
    query_database_split,
    with_turned_classes,
)

LABELS = torch.tensor([3, 1, 1, 3, 3, 7, 7, 7, 1, 7, 3, 1])


@pytest.mark.parametrize("split", [query_database_split, first_per_class])
@pytest.mark.parametrize("per_class", [1, 2, 3])
def test_queries_and_database_part_the_images(split, per_class):
    query, database = split(LABELS, per_class)
    assert torch.cat([query, database]).sort().values.tolist() == list(range(len(LABELS)))
    assert LABELS[query].unique(return_counts=True)[1].tolist() == [per_class] * 3
    assert set(LABELS[database].tolist()) == {1, 3, 7}
    assert query.tolist() == sorted(query.tolist())


def test_the_seed_decides():
    splits = [query_database_split(LABELS, 2, seed)[0].tolist() for seed in range(20)]
    assert splits[0] == query_database_split(LABELS, 2, 0)[0].tolist()
    assert len({tuple(split) for split in splits}) > 10


def test_every_image_is_drawn_sooner_or_later():
    drawn = torch.cat([query_database_split(LABELS, 1, seed)[0] for seed in range(100)])
    assert set(drawn.tolist()) == set(range(len(LABELS)))


def test_first_per_class_takes_the_first():
    assert first_per_class(LABELS, 2)[0].tolist() == [0, 1, 2, 3, 5, 6]


def test_global_random_state_is_left_alone():
    state = torch.get_rng_state()
    query_database_split(LABELS)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("split", [query_database_split, first_per_class])
def test_one_image_per_class_is_refused(split):
    with pytest.raises(
        ValueError, match="at least 2 images of every class, but the class with label 0 has 1"
    ):
        split(torch.arange(5), 1)
    with pytest.raises(ValueError, match="class with label 3 has 4"):
        split(torch.tensor([3, 1, 1, 3, 3, 3, 1, 1, 1]), 4)


@pytest.mark.parametrize("split", [query_database_split, first_per_class])
@pytest.mark.parametrize("labels", [torch.zeros(4), torch.zeros(2, 2).long(), ["a", "b"], torch.ones(4) * 1j])
def test_labels_of_another_kind(split, labels):
    with pytest.raises(ValueError, match="labels must be a list of whole numbers"):
        split(labels)


def test_no_labels_and_no_queries():
    with pytest.raises(ValueError, match="labels is empty"):
        query_database_split(torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="per_class"):
        query_database_split(LABELS, 0)


def _classes(n: int) -> ImageSet:
    """Three images of each of n classes, and a class without an image."""
    labels = torch.arange(n).repeat(3)
    ids = tuple(f"{i}" for i in range(3 * n))
    return ImageSet(
        "toy", labels, tuple(f"c{i}" for i in range(n + 1)), ids, "0", lambda _: torch.zeros(3, 1, 1)
    )


@pytest.mark.parametrize(("asked", "learnt"), [(2, [0, 1]), (0.5, [0, 1, 2]), (["c4", "c0"], [0, 4])])
def test_class_split_takes_the_first_classes_a_share_or_those_named(asked, learnt):
    train, test = class_split(_classes(6), asked)
    assert train.labels.unique().tolist() == learnt
    assert test.labels.unique().tolist() == sorted(set(range(6)) - set(learnt))
    assert len(train) + len(test) == 18
    assert set(train.ids).isdisjoint(test.ids)
    assert train.classes == test.classes


def test_class_split_by_a_seed():
    draws = {tuple(class_split(_classes(9), 4, seed)[0].labels.unique().tolist()) for seed in range(8)}
    assert len(draws) > 4
    assert all(len(draw) == 4 for draw in draws)
    assert torch.equal(class_split(_classes(9), 4, 1)[0].labels, class_split(_classes(9), 4, 1)[0].labels)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (6, "from 1 to 5, got 6"),
        (0, "train_classes must be"),
        (1.0, "no class to test with"),
        (0.01, "no class to learn"),
        ([], "no class to learn"),
        (["c6"], "no class to learn"),
        (["c0", "d"], "names 'd', which is no class of toy"),
    ],
)
def test_class_split_refuses_an_empty_side_and_unknown_names(asked, message):
    with pytest.raises(ValueError, match=message):
        class_split(_classes(6), asked)


def _squares() -> ImageSet:
    """Four random images of two classes, one of them not square, and a class without an image."""
    generator = torch.Generator().manual_seed(0)
    sides = {"a": (3, 5, 5), "b": (3, 4, 6), "c": (3, 5, 5), "d": (3, 5, 5)}
    pixels = {name: torch.randint(0, 256, side, generator=generator).byte() for name, side in sides.items()}
    labels = torch.tensor([2, 0, 0, 2])
    return ImageSet("toy", labels, ("p", "q", "r"), tuple(pixels), "0", pixels.__getitem__)


def test_turned_copies_are_classes_of_their_own_and_four_turns_are_none():
    images = _squares()
    turned = with_turned_classes(images)
    assert len(turned) == 16
    assert len(turned.classes) == 12
    assert turned.ids[:4] == images.ids
    assert turned.classes[:3] == images.classes
    assert turned.labels.view(4, 4).tolist() == [[2, 0, 0, 2], [5, 3, 3, 5], [8, 6, 6, 8], [11, 9, 9, 11]]
    assert turned.classes[5] == "r, turned by 90 degrees"
    for i in range(4):
        original = images.load(i)
        for turn in range(4):
            copy = turned.load(4 * turn + i)
            assert copy.dtype == torch.uint8
            assert copy.is_contiguous()
            assert torch.equal(copy.rot90(4 - turn, (1, 2)), original)


def test_a_subset_of_turned_images_reads_the_same_and_none_are_turned_twice():
    turned = with_turned_classes(_squares())
    few = turned.subset([13, 2])
    assert torch.equal(few.load(0), turned.load(13))
    with pytest.raises(ValueError, match="ids must differ"):
        with_turned_classes(turned)

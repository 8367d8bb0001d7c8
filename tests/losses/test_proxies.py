"""Meta-classes, the proxy N-pair loss and hard proxies: against loops, autograd and their definitions."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from retrieval_geometry.losses import (
    ProxyNPairLoss,
    hard_proxies,
    hard_proxy_path,
    npair_margin_loss,
    proxy_npair_loss,
    random_meta_classes,
    random_proxies,
)

from .test_manifold import META, unit


def test_the_npair_loss_is_the_printed_sum_over_all_pairs():
    x, terms = unit(8, 5), []
    for a in range(8):
        for p in range(8):
            if a != p and META[a] == META[p]:
                gaps = [float(x[a] @ x[n] - x[a] @ x[p]) + 0.1 for n in range(8) if META[n] != META[a]]
                terms.append(math.log(1 + sum(map(math.exp, gaps))))  # eq. 3
    assert float(npair_margin_loss(x, META, 0.1)) == pytest.approx(sum(terms) / len(terms), abs=1e-12)


def test_the_proxy_loss_is_the_printed_sum():
    x, proxies, total = unit(8, 5), unit(3, 5, seed=1), 0.0
    for n in range(8):
        k = int(META[n])
        gaps = [float(x[n] @ proxies[j] - x[n] @ proxies[k]) + 0.1 for j in range(3) if j != k]
        total += math.log(1 + sum(map(math.exp, gaps))) / 8  # eq. 4
    assert float(proxy_npair_loss(x, META, proxies, 0.1)) == pytest.approx(total, abs=1e-12)
    assert float(ProxyNPairLoss(proxies, 0.1)(7 * x, META)) == pytest.approx(total, abs=1e-12)


def test_gradients_are_those_of_differences():
    x, proxies = unit(8, 4).requires_grad_(True), unit(3, 4, seed=1).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda a: npair_margin_loss(a, META), x)
    assert torch.autograd.gradcheck(lambda a, b: proxy_npair_loss(a, META, b), (x, proxies))


@pytest.mark.parametrize(
    "labels", [torch.arange(4), torch.zeros(4).long()], ids=["no positive", "no negative"]
)
def test_a_batch_without_pairs_of_a_kind_teaches_nothing(labels):
    x = unit(4, 3).requires_grad_(True)
    loss = npair_margin_loss(x, labels)
    (gradient,) = torch.autograd.grad(loss, x)
    assert float(loss.detach()) == 0
    assert (gradient == 0).all()


def test_a_large_margin_loses_no_digits():
    x, labels = torch.tensor([[1.0], [1.0], [-1.0]]).double(), torch.tensor([0, 0, 1])
    # One pair each way, and one negative at similarity -1.
    assert float(npair_margin_loss(x, labels, 23.0)) == pytest.approx(math.log1p(math.exp(21)), abs=1e-13)


def eq7(p: Tensor, members: Tensor, anchor: Tensor) -> Tensor:
    return torch.log1p(torch.exp(members @ p - anchor @ p).sum())


def descended(x: Tensor, meta: Tensor, initial: Tensor, steps: int, lr: float) -> Tensor:
    """Meta-class by meta-class, the gradient by autograd."""
    found = []
    for k, anchor in enumerate(initial):
        members = x[(meta == k) & (x != anchor).any(1)]
        p = anchor.clone()
        for _ in range(steps):
            leaf = p.clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(eq7(leaf, members, anchor), leaf)
            p = functional.normalize(p - lr * gradient, dim=0)
        found.append(p)
    return torch.stack(found)


def some_images(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Ninety images in seven meta-classes of unequal size, and an image of each."""
    x = unit(90, 6, dtype=dtype)
    meta = torch.cat([torch.arange(7), torch.arange(83) ** 2 % 7])
    return x, meta, x[random_proxies(meta)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_hard_proxies_are_those_of_a_loop_over_meta_classes(dtype, tolerance):
    x, meta, initial = some_images(dtype)
    found = hard_proxies(x, meta, initial, steps=100, lr=1e-2)
    torch.testing.assert_close(found, descended(x, meta, initial, 100, 1e-2), rtol=0, atol=tolerance)


def test_hard_proxies_lower_the_loss_and_stay_on_the_sphere():
    x, meta, initial = some_images()
    path = list(hard_proxy_path(x, meta, initial, steps=50, lr=1e-2))
    assert len(path) == 51
    torch.testing.assert_close(path[0], initial)
    torch.testing.assert_close(path[-1], hard_proxies(x, meta, initial, 50, 1e-2), rtol=0, atol=0)
    for k in range(7):
        members = x[(meta == k) & (x != initial[k]).any(1)]
        values = [float(eq7(proxies[k], members, initial[k])) for proxies in path]
        assert not len(members) or all(later < earlier for earlier, later in pairwise(values))
    for proxies in path:
        torch.testing.assert_close(proxies.norm(dim=1), torch.ones(7, dtype=torch.float64))


def test_hard_proxies_take_any_order_and_any_start():
    x, meta, initial = some_images()
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    found = hard_proxies(x, meta, initial)
    torch.testing.assert_close(hard_proxies(x[order], meta[order], initial), found)
    torch.testing.assert_close(hard_proxies(x, meta, initial, steps=0), initial)
    elsewhere = unit(7, 6, seed=9)  # no image: all members count
    torch.testing.assert_close(
        hard_proxies(x, meta, elsewhere, 20), descended(x, meta, elsewhere, 20, 1e-3), rtol=0, atol=1e-12
    )
    alone = hard_proxies(x[:7], meta[:7], x[:7], steps=5)
    torch.testing.assert_close(alone, x[:7])  # a set without other images has nothing to flee from
    assert not found.requires_grad
    assert hard_proxies(x.half(), meta, initial.half()).dtype == torch.float16


@pytest.mark.parametrize("dealt", ["classes", "images"])
def test_meta_classes_are_balanced_and_follow_the_seed(dealt):
    labels = torch.arange(23).repeat_interleave(4) * 10
    meta = random_meta_classes(labels, 5, seed=3, dealt=dealt)
    assert meta.unique().tolist() == [0, 1, 2, 3, 4]
    dealt_out = meta.view(23, 4)[:, 0] if dealt == "classes" else meta
    sizes = dealt_out.bincount()
    assert int(sizes.max() - sizes.min()) <= 1
    assert (meta.view(23, 4) == meta.view(23, 4)[:, :1]).all() == (dealt == "classes")
    assert torch.equal(meta, random_meta_classes(labels, 5, seed=3, dealt=dealt))
    assert not torch.equal(meta, random_meta_classes(labels, 5, seed=4, dealt=dealt))


def test_every_partition_is_as_likely():
    """Four classes into two meta-classes: each of the three pairings a third of the time."""
    labels, counts = torch.arange(4), [0, 0, 0]
    for seed in range(600):
        meta = random_meta_classes(labels, 2, seed=seed)
        counts[int((meta[1:] == meta[0]).nonzero()[0, 0])] += 1
    assert min(counts) > 150


def test_proxies_begin_at_an_image_of_theirs():
    meta = torch.tensor([2, 0, 0, 1, 2, 2])
    chosen = [random_proxies(meta, seed=seed) for seed in range(40)]
    for found in chosen:
        assert meta[found].tolist() == [0, 1, 2]
    assert {int(found[2]) for found in chosen} == {0, 4, 5}
    assert {int(found[0]) for found in chosen} == {1, 2}


def test_what_cannot_be_partitioned_is_refused():
    labels = torch.tensor([0, 0, 1])
    for n_meta, dealt, message in (
        (1, "classes", "n_meta must be a whole number at least 2"),
        (3, "classes", "n_meta must be at most the number of classes, 2, got 3"),
        (4, "images", "n_meta must be at most the number of images, 3, got 4"),
        (2, "rows", "dealt must be one of classes, images"),
    ):
        with pytest.raises(ValueError, match=message):
            random_meta_classes(labels, n_meta, dealt=dealt)
    with pytest.raises(ValueError, match=r"an image of each of 0 to 2, got none of \[1\]"):
        random_proxies(torch.tensor([0, 2, 2]))
    with pytest.raises(ValueError, match="meta_class must have at least one image"):
        random_proxies(torch.zeros(0).long())
    with pytest.raises(ValueError, match="meta_class must be numbers from 0 to 1, got 0 to 2"):
        random_proxies(torch.tensor([0, 2, 2]), n_meta=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"meta_class": torch.full((90,), 7)}, "meta_class must be numbers from 0 to 6, got 7 to 7"),
        ({"initial": torch.zeros(7, 6).double()}, "embedding of image 0 is zero"),
        ({"initial": unit(7, 5)}, "initial must have as many dimensions as x"),
        ({"initial": torch.full((7, 6), math.nan).double()}, "initial of image 0 has a NaN"),
        ({"initial": unit(7, 6).float()}, "x and initial must share one dtype"),
        ({"x": torch.full((90, 6), math.nan).double()}, "x of image 0 has a NaN"),
        ({"steps": -1}, "steps must be a whole number at least 0"),
        ({"lr": 0.0}, "lr must be"),
    ],
)
def test_wrong_arguments_of_hard_proxies_are_refused(change, message):
    x, meta, initial = some_images()
    with pytest.raises(ValueError, match=message):
        hard_proxies(**{"x": x, "meta_class": meta, "initial": initial, **change})


def test_the_proxies_of_a_loss_are_part_of_its_state():
    loss = ProxyNPairLoss(3 * unit(3, 5))
    assert set(loss.state_dict()) == {"proxies"}
    torch.testing.assert_close(loss.proxies, unit(3, 5))
    assert not list(loss.parameters())
    with pytest.raises(ValueError, match="meta_class must be numbers from 0 to 2"):
        loss(unit(4, 5), torch.tensor([0, 1, 2, 3]))
    with pytest.raises(ValueError, match="embedding of image 1 is zero"):
        loss(torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]), torch.tensor([0, 1]))


def test_proxies_that_come_with_a_gradient_are_taken_by_value():
    loss = ProxyNPairLoss(unit(3, 5, seed=1).requires_grad_(True))
    x = unit(8, 5).requires_grad_(True)
    for _ in range(2):  # the graph of the proxies would be gone the second time
        loss(x, META).backward()
    assert not copy.deepcopy(loss).proxies.requires_grad

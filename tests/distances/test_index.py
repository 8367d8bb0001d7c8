"""An index ranks as the full sort does, whatever came and went, and is read back as it was written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from retrieval_geometry._files import replacing
from retrieval_geometry.distances import GalleryIndex, Ranking, _blocks, pairwise, rank
from retrieval_geometry.distances.search import PRUNED, index
from retrieval_geometry.image_models import Gaussian, fit_gaussian
from tests.distances.common import DTYPES, gaussians, normal, source
from tests.distances.searching import SPECTRA
from tests.distances.searching import gaussians as hostile


def assert_same(found: Ranking, expected: Ranking) -> None:
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.distances, expected.distances)


def assert_ranks(gallery: GalleryIndex, queries: Gaussian, k: int) -> None:
    """As the full sort of its images, and as ``rank``."""
    found = gallery.rank(queries, k)
    full = pairwise(gallery.distance, queries, gallery.images).sort(dim=1, stable=True)
    assert torch.equal(found.indices, full.indices[:, :k])
    assert torch.equal(found.distances, full.values[:, :k])
    assert_same(found, rank(queries, gallery.images, gallery.distance, k))


def cases(distance: str) -> tuple[str, ...]:
    return tuple(
        kind for kind in SPECTRA if distance != "affine_invariant" or kind not in {"rank one", "steep"}
    )


@pytest.mark.parametrize(
    ("distance", "kind"), [(distance, kind) for distance in PRUNED for kind in cases(distance)]
)
@settings(max_examples=10, derandomize=True, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    dim=st.integers(1, 9),
    size=st.integers(1, 50),
    dtype=st.sampled_from(DTYPES),
    data=st.data(),
)
def test_it_ranks_as_the_full_sort(
    distance: str, kind: str, seed: int, dim: int, size: int, dtype: torch.dtype, data: st.DataObject
) -> None:
    if distance == "affine_invariant":
        dtype = torch.float64
    images = hostile(kind, size, dim, seed, dtype)
    k = data.draw(st.one_of(st.just(size), st.integers(1, size)))
    assert_ranks(GalleryIndex(images, distance), images[[0, -1, size // 2]], k)


@pytest.mark.parametrize("distance", PRUNED)
def test_images_come_and_go(distance: str) -> None:
    """The frame stays that of the first images; the ranking is that of an index built anew."""
    images, others, queries = gaussians(30, 5, 1), gaussians(25, 5, 2), gaussians(4, 5, 3)
    gallery = GalleryIndex(images, distance)
    gallery.add(others[:10])
    gallery.remove([0, 7, 7, 39])
    gallery.add(others[10:])
    gallery.remove(torch.tensor([50, 3]))
    gallery.remove(5)
    positions = [i for i in range(40) if i not in (0, 7, 39)] + list(range(40, 55))
    positions = [p for i, p in enumerate(positions) if i not in (50, 3)]
    del positions[5]
    means = torch.cat([images.mean, others.mean])[positions]
    assert torch.equal(gallery.images.mean, means)
    assert len(gallery) == len(positions)
    assert_ranks(gallery, queries, 6)
    assert_same(gallery.rank(queries, 6), GalleryIndex(gallery.images, distance).rank(queries, 6))


def test_images_with_factors_come_and_go() -> None:
    g = fit_gaussian(normal(source(1), 40, 6, 9))
    gallery = GalleryIndex(g[:20])
    gallery.add(g[20:])
    gallery.remove(range(5))
    assert gallery.images.factor is not None
    assert torch.equal(gallery.images.factor, g.factor[5:])  # type: ignore[index]
    assert_ranks(gallery, g[:7], 5)


def test_other_images_altogether(tmp_path: Path) -> None:
    """An empty index can be filled, even with images of quite another scale."""
    images = gaussians(8, 3, 1)
    gallery = GalleryIndex(images)
    gallery.remove(range(8))
    assert len(gallery) == 0
    gallery.save(tmp_path / "empty")
    gallery = GalleryIndex.load(tmp_path / "empty")
    with pytest.raises(ValueError, match="k must be"):
        gallery.rank(images)
    gallery.add(Gaussian(1e3 * images.mean, 1e6 * images.cov))
    gallery.add(images[:0])
    assert_ranks(gallery, images, 8)


@pytest.mark.parametrize("distance", PRUNED)
def test_a_small_memory_budget_changes_nothing(distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = gaussians(40, 4, 5)
    whole = GalleryIndex(images, distance).rank(images[:6], 3)
    monkeypatch.setattr(_blocks, "BUDGET_BYTES", 1500)
    assert_same(GalleryIndex(images, distance).rank(images[:6], 3), whole)


def test_bounds_spare_as_many_pairs_as_in_passing() -> None:
    generator = source(0)
    x = (normal(generator, 20, 1, 40, 6) + 0.05 * normal(generator, 20, 10, 40, 6)).flatten(0, 1)
    images = fit_gaussian(x)
    for distance in PRUNED:
        evaluated = GalleryIndex(images, distance).rank(images[::10], 5).evaluated
        assert torch.equal(evaluated, rank(images[::10], images, distance, 5).evaluated)
        assert evaluated.double().mean() < 40


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("distance", PRUNED)
def test_it_is_read_back_as_it_was_written(distance: str, dtype: torch.dtype, tmp_path: Path) -> None:
    images = gaussians(20, 4, 1).to(dtype)
    if distance == "wasserstein2":
        images = fit_gaussian(normal(source(2), 20, 3, 4).to(dtype))
    gallery = GalleryIndex(images, distance)
    path = tmp_path / "new folder" / "gallery.index"
    gallery.save(path)
    read = GalleryIndex.load(str(path))
    assert read.distance == distance
    assert (read.images.factor is None) == (images.factor is None)
    written, found = gallery._tensors(), read._tensors()
    assert written.keys() == found.keys()
    for name, tensor in written.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert_same(read.rank(images[:5], 4), gallery.rank(images[:5], 4))
    read.remove(0)
    read.add(images[:1])
    read.save(path)
    assert_ranks(GalleryIndex.load(path), images[:3], 20)
    assert [file.name for file in path.parent.iterdir()] == ["gallery.index"]


def test_names_in_the_file_are_those_of_version_2(tmp_path: Path) -> None:
    """Files that are saved already stay readable, whatever the fields are called here."""
    stored = {
        "wasserstein2": "kept.deviations kept.lift kept.mean kept.mixedness kept.total kept.trace kept.unit",
        "affine_invariant": "kept.condition kept.error kept.packed kept.span",
    }
    frames = {"wasserstein2": "frame.basis frame.values", "affine_invariant": "frame.whitener"}
    for distance, names in stored.items():
        GalleryIndex(gaussians(3, 2, 1), distance).save(tmp_path / distance)
        with safe_open(tmp_path / distance, framework="pt") as file:
            wanted = f"{frames[distance]} images.cov images.mean {names}".split()
            assert sorted(file.keys()) == wanted


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = GalleryIndex(gaussians(3, 2, 1))
    path = tmp_path / "gallery"
    gallery.save(path)
    before = path.read_bytes()

    def broken(path: Path, *parts: bytes) -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(index, "write_whole", broken)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        gallery.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


def rewritten(change: dict[str, str]) -> Callable[[Path], None]:
    def rewrite(path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            header = {**file.metadata(), **change}
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        save_file(content, path, header)

    return rewrite


def other_tensors(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def text(path: Path) -> None:
    path.write_text("a note about galleries, long enough to be read as a header\n" * 3)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncated, "is no index, or a damaged one"),
        (emptied, "is no index, or a damaged one"),
        (text, "is no index, or a damaged one"),
        (flipped, "is damaged"),
        (rewritten({"distance": "wasserstein2_squared"}), "is damaged"),
        (rewritten({"version": "0"}), "has version 0 of the format, this package reads 2"),
        (rewritten({"format": "something else"}), "is no index but another safetensors file"),
        (rewritten({"distance": "euclidean"}), "must be one of wasserstein2,"),
        (other_tensors, "is no index but another safetensors file"),
    ],
)
def test_what_is_no_index_is_refused(spoil: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    path = tmp_path / "gallery.index"
    GalleryIndex(gaussians(5, 3, 1)).save(path)
    spoil(path)
    with pytest.raises(ValueError, match=message) as error:
        GalleryIndex.load(path)
    assert str(path) in str(error.value)


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    """Wherever it is: in the length of the header, the header, or the tensors."""
    path = tmp_path / "gallery.index"
    GalleryIndex(gaussians(2, 2, 1), "affine_invariant").save(path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(ValueError, match=str(path)):
            GalleryIndex.load(path)


def test_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no index .*gallery; build the index again"):
        GalleryIndex.load(tmp_path / "gallery")
    with pytest.raises(FileNotFoundError, match="there is no index"):
        GalleryIndex.load(tmp_path)


@pytest.mark.parametrize("distance", ["stein", "symmetric_kl", "wasserstain"])
def test_a_distance_without_bounds_is_refused(distance: str) -> None:
    known = "distance must be one of wasserstein2, wasserstein2_squared, affine_invariant"
    with pytest.raises(ValueError, match=known):
        GalleryIndex(gaussians(5, 3, 1), distance)


def test_bad_images_are_named() -> None:
    g = gaussians(5, 3, 1)
    singular = Gaussian(g.mean, g.cov.clone())
    singular.cov[3] = 0
    with pytest.raises(ValueError, match="image 3 of q is not positive definite"):
        GalleryIndex(singular, "affine_invariant")
    with pytest.raises(ValueError, match="at least one image"):
        GalleryIndex(g[:0])
    with pytest.raises(ValueError, match="must be a Gaussian"):
        GalleryIndex(g.mean)  # type: ignore[arg-type]
    gallery = GalleryIndex(g, "affine_invariant")
    with pytest.raises(ValueError, match="same dimension"):
        gallery.add(gaussians(5, 4, 1))
    with pytest.raises(ValueError, match="share one dtype"):
        gallery.rank(g.to(torch.float32), 2)
    with pytest.raises(ValueError, match="image 3 of q is not positive definite"):
        gallery.add(singular)
    with pytest.raises(ValueError, match=r"no factor as the database does, got a factor with 8 columns"):
        gallery.add(fit_gaussian(normal(source(1), 2, 8, 3)))
    with pytest.raises(ValueError, match="image 3 of p is not positive definite"):
        gallery.rank(singular, 2)
    assert_ranks(gallery, g, 5)


@pytest.mark.parametrize("indices", [[5], [-1], [0.5], [True], torch.tensor([True] * 5)])
def test_bad_positions_are_named(indices: object) -> None:
    gallery = GalleryIndex(gaussians(5, 3, 1))
    with pytest.raises(ValueError, match="indices must"):
        gallery.remove(indices)  # type: ignore[arg-type]
    gallery.remove([])
    assert len(gallery) == 5
    with pytest.raises(ValueError, match="k must be a whole number from 1 to 5"):
        gallery.rank(gallery.images, 6)


@pytest.mark.gpu
@pytest.mark.parametrize("distance", PRUNED)
def test_an_index_on_the_gpu(distance: str, tmp_path: Path) -> None:
    images = gaussians(50, 6, 4)
    here, there = GalleryIndex(images, distance), GalleryIndex(images.to("cuda"), distance)
    there.save(tmp_path / "gallery")
    moved = GalleryIndex.load(tmp_path / "gallery", device="cuda")
    for gallery in (there, moved):
        gallery.remove([49])
        gallery.add(images[49:].to("cuda"))
        found = gallery.rank(images[:5].to("cuda"), 5)
        assert found.indices.device.type == "cuda"
        assert torch.equal(found.indices.cpu(), here.rank(images[:5], 5).indices)
    assert torch.equal(
        GalleryIndex.load(tmp_path / "gallery").rank(images[:5], 5).indices, here.rank(images[:5], 5).indices
    )

"""Labels of every whole kind, and arguments of the wrong kind: a result, or what to pass instead."""

import numpy as np
import pytest
import torch

from retrieval_geometry._check import as_whole, check_device, check_labels
from retrieval_geometry.coresets import (
    craig,
    facility_location,
    training_subset,
    wasserstein_coreset,
    wcraig,
)
from retrieval_geometry.datasets import (
    ImageSet,
    MPerClassBatches,
    class_split,
    first_per_class,
    handwritten_digits,
    query_database_split,
)
from retrieval_geometry.distances import DISTANCES
from retrieval_geometry.evaluation import (
    average_precision,
    evaluate_embeddings,
    nearest_neighbours,
    normalized_mutual_information,
    pairwise_f1,
    precision_at_k,
    recall_at_k,
)
from retrieval_geometry.features import (
    EmbeddingNetwork,
    GlyphCNN,
    l2_normalize,
    load_backbone,
    load_embedding_network,
)
from retrieval_geometry.image_models import (
    Gaussian,
    GaussianMixture,
    fit_gaussian,
    fit_mixture,
    smt_covariance,
)
from retrieval_geometry.losses import baseline_loss
from retrieval_geometry.papers.rankmi.as_printed import distances_as_printed
from retrieval_geometry.training import TrainingConfig
from retrieval_geometry.training import _run as run_module

PLAIN = [0, 0, 0, 1, 1, 1]
POINTS = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
KINDS = {
    "bool": torch.tensor(PLAIN, dtype=torch.bool),
    **{
        str(kind): torch.tensor(PLAIN).to(kind)
        for kind in (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32,
                     torch.uint64)
    },
    "list": PLAIN,
    "tuple": tuple(PLAIN),
    "list of truths": [bool(label) for label in PLAIN],
    **{f"array {kind}": np.array(PLAIN, kind) for kind in ("bool", "uint8", "uint16", "int32", "uint64")},
    "backwards": np.array(PLAIN[::-1])[::-1],
    "big-endian": np.array(PLAIN, ">i4"),
}  # fmt: skip
REFUSED = {
    "float": torch.tensor(PLAIN).float(),
    "complex": torch.tensor(PLAIN) + 0j,
    "names": list("aaabbb"),
    "array of names": np.array(list("aaabbb")),
    "none": None,
    "ragged": [0, [0, 1], 0, 1, 1, 1],
    "halves": [0, 0.5, 0, 1, 1, 1],
    "too large": [0, 0, 0, 1, 1, 2**63],
    "far too large": [0, 0, 0, 1, 1, 10**30],
    "a tensor too large": torch.tensor([0, 0, 0, 1, 1, 2**63], dtype=torch.uint64),
    "set": {0, 1},
    "word": "000111",
}
USERS = {
    "query_database_split": lambda labels: query_database_split(labels, 1)[0],
    "first_per_class": lambda labels: first_per_class(labels, 1)[1],
    "MPerClassBatches": lambda labels: MPerClassBatches(labels, 4, 2).batch(3),
    "evaluate_embeddings": lambda labels: evaluate_embeddings(POINTS, labels, ks=(1,))["AP@R"].values,
    "evaluate_embeddings, gallery": lambda labels: (
        evaluate_embeddings(POINTS, labels, POINTS, labels, ks=(1,), clustering=False)["P@R"].values
    ),
    "training_subset": lambda labels: training_subset(POINTS, labels, 0.5).indices,
    "ImageSet": lambda labels: ImageSet("x", labels, ("a", "b"), tuple("uvwxyz"), "", str).labels,
    "check_labels": check_labels,
    **{
        name: lambda labels, name=name: baseline_loss(name, n_classes=2, dim=4)(POINTS, labels)
        for name in ("triplet", "margin", "histogram", "proxynca")
    },
}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_every_whole_kind_give_one_result(user, kind):
    expected = USERS[user](torch.tensor(PLAIN))
    torch.testing.assert_close(USERS[user](KINDS[kind]), expected, rtol=0, atol=0)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("kind", REFUSED)
def test_other_labels_are_refused_with_what_to_pass(user, kind):
    with pytest.raises(ValueError, match=r"labels must be .*(whole numbers|int64 numbers)") as caught:
        USERS[user](REFUSED[kind])
    assert ("np.unique(names, return_inverse=True)" in str(caught.value)) == (
        "name" in kind or kind == "word"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_rankings_of_every_whole_kind(kind):
    labels = KINDS[kind]
    table = [labels, labels] if isinstance(labels, (list, tuple)) else (
        torch.stack([labels, labels]) if isinstance(labels, torch.Tensor) else np.stack([labels, labels])
    )  # fmt: skip
    asked = labels[2:4]
    plain = torch.tensor([PLAIN, PLAIN]), torch.tensor([0, 1])
    for measure in (precision_at_k, recall_at_k):
        assert measure(table, asked, 4).tolist() == measure(*plain, 4).tolist()
    assert average_precision(table, asked).tolist() == average_precision(*plain).tolist()
    for agreement in (normalized_mutual_information, pairwise_f1):
        assert agreement(labels, labels) == 1


def test_positions_of_every_whole_kind():
    images = handwritten_digits()
    for kind in (torch.uint8, torch.int16, torch.uint16, torch.int32):
        assert images.subset(torch.tensor([3, 200]).to(kind)).ids == images.subset([3, 200]).ids
    assert images.subset(np.array([3, 200], np.uint16)).ids == images.subset([3, 200]).ids
    found = nearest_neighbours(POINTS, POINTS, 1, exclude_self=list(range(6)))
    assert torch.equal(found[1], nearest_neighbours(POINTS, k=1)[1])


@pytest.mark.parametrize("indices", [None, "012", [[0], [1, 2]], [True, False], {1}])
def test_positions_that_are_none(indices):
    with pytest.raises(ValueError, match="indices must be a list of integers"):
        handwritten_digits().subset(indices)


def test_whole_numbers_are_copied_not_shared():
    array = np.array([1, 2])
    as_whole(array, "x", "numbers")[0] = 9
    assert array[0] == 1
    assert as_whole([], "x", "numbers").dtype == torch.int64


ONE, EYE = torch.zeros(1, 2), torch.eye(2)[None]
X = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(0))
WRONG = [
    (lambda: Gaussian([[0.0]], [[[1.0]]]), "mean must be a torch tensor, got list"),
    (lambda: Gaussian(None, None), "mean must be a torch tensor, got NoneType"),
    (lambda: Gaussian(np.zeros((1, 2)), EYE), "mean must be a torch tensor, got ndarray"),
    (lambda: Gaussian(ONE, EYE.tolist()), "cov must be a torch tensor, got list"),
    (lambda: Gaussian(ONE, EYE, [1]), "factor must be a torch tensor, got list"),
    (lambda: Gaussian(ONE.half(), EYE.half()), "mean must be float32 or float64, got torch.float16"),
    (lambda: Gaussian(ONE + 0j, EYE + 0j), "mean must be float32 or float64, got torch.complex64"),
    (lambda: Gaussian(torch.zeros(1, 0), torch.zeros(1, 0, 0)), "mean must have shape (images, dimensions)"),
    (lambda: GaussianMixture([[1.0]], [[[0.0]]], [[[1.0]]]), "weights must be a torch tensor, got list"),
    (lambda: GaussianMixture(torch.ones(1, 1), None, EYE), "means must be a torch tensor, got NoneType"),
    (
        lambda: GaussianMixture(torch.ones(1, 1), torch.ones(1, 1, 0), torch.ones(1, 1, 0)),
        "means must have shape (images, components, dimensions) with a component and a dimension",
    ),
    (
        lambda: GaussianMixture(torch.ones(1, 0), torch.ones(1, 0, 2), torch.ones(1, 0, 2)),
        "means must have shape (images, components, dimensions) with a component and a dimension",
    ),
    (lambda: fit_gaussian([[1.0]]), "x must be a torch tensor, got list"),
    (lambda: fit_gaussian(torch.zeros(1, 3, 0)), "x must have shape (images, descriptors, dimensions)"),
    (lambda: fit_gaussian(X, shrinkage="much"), "shrinkage must be a number or one for each image"),
    (lambda: fit_gaussian(X, shrinkage=None), "shrinkage must be a number or one for each image"),
    (lambda: fit_gaussian(X, shrinkage=[[0.1], 0.2]), "shrinkage must be a number or one for each image"),
    (lambda: fit_mixture(None, 2), "x must be a torch tensor, got NoneType"),
    (lambda: smt_covariance([[1.0]]), "x must be a torch tensor, got list"),
    (lambda: DISTANCES["kl"](X, X), "p must be a Gaussian, got Tensor"),
    (lambda: DISTANCES["variational_kl"](X, X), "p must be a GaussianMixture, got Tensor"),
    (lambda: wcraig(None, 1), "x must be a torch tensor, got NoneType"),
    (lambda: wcraig([[[1.0]]], 1), "x must be a torch tensor, got list"),
    (lambda: wcraig(torch.zeros(3), 1), "x must have shape (3, points, dimensions)"),
    (lambda: wcraig(torch.zeros(3, 2, 0), 1), "x must have shape (3, points, dimensions)"),
    (lambda: craig(None, 1), "distances must be a torch tensor, got NoneType"),
    (lambda: facility_location([[1.0]], 1), "similarity must be a torch tensor, got list"),
    (lambda: training_subset(None, PLAIN, 0.5), "features must be a torch tensor, got NoneType"),
    (lambda: training_subset(torch.zeros(6), PLAIN, 0.5), "features must have shape (images, dimensions)"),
    (lambda: wasserstein_coreset(None, 1), "x must be a torch tensor, got NoneType"),
    (
        lambda: wasserstein_coreset(X[0], 1, generator=3),
        "generator must be a torch.Generator or None, got int",
    ),
    (lambda: wasserstein_coreset(X[0], 1, masses=[0.2] * 5), "masses must be a torch tensor, got list"),
    (lambda: TrainingConfig(steps=1, augment="x"), "augment must be an Augmentation, got str"),
    (lambda: TrainingConfig(steps=1, augment=None), "augment must be an Augmentation, got NoneType"),
    (lambda: TrainingConfig(steps=1, lr_drops=3), "lr_drops must be a tuple of steps such as (3000,), got 3"),
    (lambda: TrainingConfig(steps=1, lr_drops=None), "lr_drops must be a tuple of steps"),
    (lambda: TrainingConfig(steps=1, lr_drops="33"), "lr_drops must be a tuple of steps"),
    (lambda: TrainingConfig(steps=1, accelerator="tpu"), "accelerator must be one of auto, cpu, cuda, mps"),
    (lambda: l2_normalize(torch.zeros(3, 0)), "descriptors must have a dimension, got shape (3, 0)"),
    (lambda: l2_normalize(torch.tensor(1.0)), "descriptors must have a dimension, got shape ()"),
    (lambda: load_backbone(None), "name must be of the class str, got NoneType"),
    (lambda: load_backbone(device="meta"), "device 'meta' is not usable here; there is: cpu"),
    (lambda: load_backbone(device="gpu"), "device 'gpu' is not usable here; there is: cpu"),
    (lambda: check_device(torch.device("meta")), "device 'meta' is not usable here; there is: cpu"),
    (lambda: check_device("hpu"), "device 'hpu' is not usable here; there is: cpu"),
    (lambda: check_device(None), "device 'None' is not usable here"),
    (lambda: load_embedding_network(dim=0), "dim must be a whole number at least 1, got 0"),
    (lambda: class_split(handwritten_digits(), None), "train_classes must be a number, a share or names"),
    (lambda: class_split(handwritten_digits(), [0, 1]), "train_classes must be a number, a share or names"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[f"{i}: {m[:40]}" for i, (_, m) in enumerate(WRONG)])
def test_arguments_of_another_kind_are_refused_at_the_door(call, message):
    with pytest.raises(ValueError, match=r"must|no backbone|not usable") as caught:
        call()
    assert str(caught.value).startswith(message)


def test_class_counts_of_numpy_are_counts():
    images = handwritten_digits()
    for count in (np.int64(3), 3, np.float64(0.3), 0.3):
        assert len(class_split(images, count)[0].labels.unique()) == 3


@pytest.mark.parametrize("output", ["vector", "map"])
@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_head_is_not_scaled_by_images_without_variance(output, value):
    network = EmbeddingNetwork(GlyphCNN(), 8, output=output, normalize=False, freeze_batch_norm=False)
    before = network.head.weight.clone()
    same = torch.full((64, 3, 32, 32), value, dtype=torch.uint8)
    same[:, :, 8:20, 5:9] = 255 - value
    if output == "vector":
        network.standardize_head(same)
        torch.testing.assert_close(network.head.weight, before, rtol=0, atol=0)
        assert float(network(same).detach().abs().max()) < 1e-5
    else:  # places of one image differ, so numbers vary
        network.standardize_head(same)
        assert float(network.head.weight.detach().abs().max()) < 1e4


def test_a_direction_without_variance_is_left_and_the_others_are_scaled():
    network = EmbeddingNetwork(GlyphCNN(), 8, normalize=False, freeze_batch_norm=False)
    with torch.no_grad():
        network.head.weight[3] = 0
    network.standardize_head(torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    deviation = network(torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))).std(dim=0)
    assert float(deviation[3]) == 0
    assert network.head.weight[3].eq(0).all()
    assert deviation[[0, 1, 2, 4, 5, 6, 7]].sub(1).abs().max() < 1e-2


@pytest.mark.parametrize("cuda", [True, False])
@pytest.mark.parametrize("asked", ["auto", "cpu", "mps"])
def test_an_apple_gpu_is_not_taken_unasked(monkeypatch, cuda, asked):
    """It has no float64, which losses need."""
    given = {}

    class Recorder:
        def __init__(self, **settings: object) -> None:
            given.update(settings)

        def launch(self) -> None:
            pass

    monkeypatch.setattr("lightning_fabric.Fabric", Recorder)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    run_module.start_fabric(TrainingConfig(steps=1, accelerator=asked))
    assert given["accelerator"] == (("cuda" if cuda else "cpu") if asked == "auto" else asked)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1, 1e12, 1e18, 1e25, 1e36])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clusters_do_not_hang_on_the_scale(scale, metric, dtype):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(5).repeat_interleave(10)
    points = torch.randn(5, 8, generator=generator)[labels] + 0.05 * torch.randn(50, 8, generator=generator)
    found = evaluate_embeddings(points.to(dtype) * scale, labels, ks=(1,), metric=metric)
    assert {name: found[name].interval.value for name in ("R@1", "NMI", "F1")} == {
        "R@1": 1,
        "NMI": 1,
        "F1": 1,
    }


def test_distances_as_printed_take_the_same_labels():
    plain = distances_as_printed(POINTS, torch.tensor(PLAIN))
    for kind in KINDS.values():
        torch.testing.assert_close(distances_as_printed(POINTS, kind), plain, rtol=0, atol=0)
    with pytest.raises(ValueError, match="labels must be 6 whole numbers"):
        distances_as_printed(POINTS, None)

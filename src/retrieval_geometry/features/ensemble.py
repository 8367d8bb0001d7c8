"""Several embedding networks as one: their similarities are added, as [edms] eq. 1 says."""

import io
import math
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrieval_geometry._check import check_kind
from retrieval_geometry._sealed import Kind
from retrieval_geometry.features.base import Backbone
from retrieval_geometry.features.embedding import EmbeddingNetwork, load_embedding_network

MEMBER = Kind("ensemble member", 1, "train this member again, or leave it out")


class EmbeddingEnsemble(nn.Module):
    r"""Ensemble of embedding networks, whose similarity is the weighted sum of theirs.

    .. math:: s(x_q, x_n) = \sum_e \alpha^{(e)} \, x_q^{(e)} \cdot x_n^{(e)}

    Source: [edms] eqs. 1 and 2. Used in no chapter.

    The embeddings, each of length one, are joined end to end, each times the root of its weight; so the dot
    product of two joined ones is the sum above. They are scaled to length one, which changes no ranking.
    Members with one frozen trunk in common share its pass over an image.

    Args:
        members: E networks with vectors of equal length.
        weights: ``(E,)`` not negative, not all zero; all equal by default.

    Raises:
        ValueError: no members, of several lengths or input sizes, that give maps, or weights that do not fit.

    Example:
        >>> members = [load_embedding_network(dim=4, seed=seed) for seed in range(3)]
        >>> EmbeddingEnsemble(members)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 12])
    """

    weights: Tensor

    def __init__(self, members: Sequence[EmbeddingNetwork], weights: Tensor | None = None) -> None:
        super().__init__()
        _check_members(members)
        self.members = nn.ModuleList(members)
        given = torch.ones(len(members)) if weights is None else check_weights(weights, len(members))
        self.register_buffer("weights", given.to(members[0].device, torch.float64) / given.sum())
        self.freeze_trunk = _share_a_trunk(members)
        self.register_load_state_dict_post_hook(_look_at_trunks)

    @property
    def input_size(self) -> int:
        """The side of the square images that the members take."""
        return self._first.input_size

    @property
    def trunk(self) -> Backbone:
        """The trunk of the first member: that of all, if it is frozen."""
        return self._first.trunk

    @property
    def device(self) -> torch.device:
        """The device of the members."""
        return self._first.device

    @property
    def dim(self) -> int:
        """The length of a joined embedding."""
        return len(self.members) * self._first.dim

    def prepare(self, image: Tensor, margin: int = 0) -> Tensor:
        """Bring an image to the size that the members take, as :meth:`EmbeddingNetwork.prepare` does."""
        return self._first.prepare(image, margin)

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch of images: ``(B, E d)`` of length one.

        Raises:
            ValueError: as :meth:`EmbeddingNetwork.forward`.
        """
        if self.freeze_trunk:
            return self.project(self._first.features(images))
        return self.join([member(images) for member in self._networks])

    def project(self, features: Tensor) -> Tensor:
        """The same from the features of the trunk that all members share."""
        if not self.freeze_trunk:
            raise ValueError("features are those of one trunk, but the members have several; give images")
        return self.join([member.project(features) for member in self._networks])

    def join(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Join embeddings ``(n, d)`` of each member to one of length one ``(n, E d)``.

        Raises:
            ValueError: another number of them than of members.
        """
        if len(embeddings) != len(self.members):
            wanted = f"one tensor for each of {len(self.members)} members"
            raise ValueError(f"embeddings must be {wanted}, got {len(embeddings)}")
        roots = self.weights.sqrt().tolist()
        units = (functional.normalize(one, dim=1) for one in embeddings)
        return torch.cat([root * unit for root, unit in zip(roots, units, strict=True)], dim=1)

    @property
    def _networks(self) -> list[EmbeddingNetwork]:
        return cast(list[EmbeddingNetwork], list(self.members))

    @property
    def _first(self) -> EmbeddingNetwork:
        return self._networks[0]


def save_member(
    path: str | os.PathLike[str],
    network: EmbeddingNetwork,
    settings: Mapping[str, Any],
    trained_on: str,
) -> None:
    """Write a member of an ensemble to a file, whole or not at all; a frozen trunk is left out.

    Source: this package's own. Used in no chapter.

    Args:
        path: of the file.
        network: as it was trained.
        settings: what :func:`load_embedding_network` made it from, as plain values.
        trained_on: a digest of the training images; members of one ensemble must agree in it.

    Raises:
        ValueError: the settings make another network, or another frozen trunk, or are no plain values.
        OSError: the file cannot be written.
    """
    check_kind(trained_on, "trained_on", str)
    made = load_embedding_network(**settings)
    if made.identity != network.identity:
        raise ValueError(f"settings make another network than the given one: {dict(settings)}")
    state = {name: value.cpu() for name, value in network.state_dict().items()}
    for name, value in made.state_dict().items():
        if not _belongs(network, name) and not torch.equal(value.cpu(), state[name]):
            raise ValueError(f"settings make another frozen trunk than that of the network, in {name}")
    # A copy: a view would be written with all that lies behind it.
    own = {name: value.clone() for name, value in state.items() if _belongs(network, name)}
    content = io.BytesIO()
    torch.save({"settings": dict(settings), "trained_on": trained_on, "state": own}, content)
    content.seek(0)
    try:
        torch.load(content, weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"settings must be plain values to be read back, got {dict(settings)}") from None
    MEMBER.write(path, content.getvalue())


def load_ensemble(
    paths: Sequence[str | os.PathLike[str]], weights: Tensor | None = None
) -> EmbeddingEnsemble:
    """Read the members that :func:`save_member` wrote, as one ensemble in evaluation mode.

    Source: this package's own. Used in no chapter.

    Args:
        paths: files of the members.
        weights: ``(E,)``, as for :class:`EmbeddingEnsemble`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no files, one that is damaged or was trained on other images (it is named), or members
            that do not go together.
    """
    if not paths:
        raise ValueError("paths must name at least one member")
    read = [_read_member(Path(path)) for path in paths]
    for path, (_, trained_on) in zip(paths, read, strict=True):
        if trained_on != read[0][1]:
            raise ValueError(f"{path} was trained on other images than {paths[0]}: they make no ensemble")
    return EmbeddingEnsemble([network for network, _ in read], weights).eval()


def check_weights(weights: Tensor, n_members: int) -> Tensor:
    """Refuse weights that are not one number for each member, finite, none below zero, and not all zero."""
    found = torch.as_tensor(weights).detach()
    good = found.shape == (n_members,) and not found.is_complex()
    found = found.double() if good else found
    if not (good and bool((found >= 0).all()) and 0 < float(found.sum()) < math.inf):
        raise ValueError(
            f"weights must be {n_members} numbers, one for each member, none below 0 and one above, got "
            f"{found.tolist()}"
        )
    return found


def _check_members(members: Sequence[EmbeddingNetwork]) -> None:
    if not members:
        raise ValueError("members must be at least one network")
    for member in members:
        check_kind(member, "members", EmbeddingNetwork)
        if member.output != "vector":
            raise ValueError(f"members must give vectors, got one whose output is {member.output!r}")
    for name in ("dim", "input_size"):
        values = [getattr(member, name) for member in members]
        if len(set(values)) > 1:
            raise ValueError(f"members must agree in {name}, got {values}")


def _share_a_trunk(members: Sequence[EmbeddingNetwork]) -> bool:
    """Whether all have one frozen trunk: the same network with the same weights."""
    first = members[0].trunk
    return all(
        member.freeze_trunk
        and member.trunk.identity == first.identity
        and all(
            torch.equal(a, b)
            for a, b in zip(member.trunk.state_dict().values(), first.state_dict().values(), strict=True)
        )
        for member in members
    )


def _look_at_trunks(ensemble: nn.Module, _: Any) -> None:
    """After other weights have been loaded, find out anew whether the members share a trunk."""
    assert isinstance(ensemble, EmbeddingEnsemble)
    ensemble.freeze_trunk = _share_a_trunk(ensemble._networks)


def _belongs(network: EmbeddingNetwork, name: str) -> bool:
    """Whether a weight is the member's own."""
    return not (network.freeze_trunk and name.startswith("trunk."))


def _read_member(path: Path) -> tuple[EmbeddingNetwork, str]:
    state = torch.load(io.BytesIO(MEMBER.read(path)), map_location="cpu", weights_only=True)
    network = load_embedding_network(**state["settings"])
    own = {name for name in network.state_dict() if _belongs(network, name)}
    if state["state"].keys() != own:
        raise ValueError(f"{path} holds the weights of another network; {MEMBER.remedy}")
    network.load_state_dict(state["state"], strict=False)
    return network, state["trained_on"]


Embedder = EmbeddingNetwork | EmbeddingEnsemble
"""What images are embedded with."""

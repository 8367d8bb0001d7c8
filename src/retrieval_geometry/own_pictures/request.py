"""What is compared, and how: the options of a search, completed, and checked without any library."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from retrieval_geometry._files import file_sha256
from retrieval_geometry._packaged import packaged_file

MODELS = ("pooled", "gaussian", "mixture", "smt")
FOR_MIXTURES = ("variational_kl", "symmetric_variational_kl", "mixture_wasserstein2_squared")
COSINE = "cosine"
NETWORK = "efficientnet_lite0"
LAYERS = {True: "head", False: "stage5"}
"""Of that network: 1,280 numbers of meaning to be pooled, or 14 x 14 local descriptors of 112 numbers."""

LIBRARIES = ("torch", "torchvision", "timm", "pillow")
CODE = ("_image_files.py", "datasets/_pixels.py", "features/*.py", "own_pictures/describing.py")
"""What decides on the features of a picture, below the package."""


@dataclass(frozen=True)
class Request:
    """Options of a search; those that are left out follow from the others. Used in no chapter.

    Attributes:
        model: ``"pooled"`` (one vector a picture), or ``"gaussian"``, ``"mixture"`` or ``"smt"``, fitted to
            the local descriptors of each picture. The default follows from the distance.
        distance: ``"cosine"`` of pooled vectors, or between distributions one of ``distances.DISTANCES``.
        backbone: a network, as in ``load_backbone``.
        layer: of the network.
        weights: of the network.
        device: where it runs.

    Raises:
        ValueError: an unknown model, or one that the distance is not meant for.
    """

    model: str = ""
    distance: str = ""
    backbone: str = NETWORK
    layer: str | None = None
    weights: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        model = self.model or ("pooled" if self.distance in ("", COSINE) else "gaussian")
        distance = self.distance or (COSINE if model == "pooled" else "wasserstein2")
        if model not in MODELS:
            raise ValueError(f"model must be one of {', '.join(MODELS)}; got {model!r}")
        if (model == "pooled") != (distance == COSINE):
            raise ValueError(
                f"--model pooled goes with --distance {COSINE} and with no other, got --model {model} "
                f"--distance {distance}; leave one of them out"
            )
        if distance in FOR_MIXTURES and model != "mixture":
            raise ValueError(f"distance {distance!r} compares mixtures: use it with --model mixture")
        layer = self.layer or (LAYERS[model == "pooled"] if self.backbone == NETWORK else None)
        for name, value in (("model", model), ("distance", distance), ("layer", layer)):
            object.__setattr__(self, name, value)

    @property
    def is_pooled(self) -> bool:
        """Whether a picture is one vector."""
        return self.model == "pooled"

    def __str__(self) -> str:
        network = self.backbone + (f" ({self.layer})" if self.layer else "")
        if self.is_pooled:
            return f"the {self.distance} between pooled features of {network}"
        return f"{self.distance} between {self.model} models of local descriptors of {network}"

    @property
    def place(self) -> str:
        """A name for the features that this search needs, whatever makes them today."""
        asked = replace(self, model="pooled" if self.is_pooled else "gaussian", distance="")
        return _digest([asdict(asked)])

    @property
    def identity(self) -> str:
        """A digest of what makes the features: network, weights by their content, code, libraries."""
        weights = self.weights
        if self.backbone == NETWORK and weights in (None, "package"):
            weights = file_sha256(packaged_file())
        elif weights is not None and Path(weights).is_file():
            weights = file_sha256(weights)
        return _digest([self.place, weights, code_digest()])


@cache
def code_digest() -> str:
    """A digest of the code and the libraries between a picture and its features."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for pattern in CODE:
        for file in sorted(package.glob(pattern)):
            digest.update(file.read_bytes())
    return _digest([digest.hexdigest(), *map(_version, LIBRARIES)])


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _digest(parts: list[object]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

"""All methods on the descriptors of several networks: what holds for each of them?

Every image is a query. The descriptors come from a bottleneck, the narrow linear layer that closes (or, in a
SqueezeNet, opens) a block: the last one whose grid still has at least 13 x 13 places. So an image has more
descriptors than they have dimensions, and its sample covariance has an inverse.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from retrieval_geometry.experiments.context import RunContext
from retrieval_geometry.experiments.data import find_weights
from retrieval_geometry.papers.geometric.data import Setting, load_setting
from retrieval_geometry.papers.geometric.experiments import run_table
from retrieval_geometry.reporting.results import Result


@dataclass(frozen=True)
class Network:
    """A trained network and the layer that is read.

    Args:
        label: its name in tables and figures.
        backbone: its name for ``load_backbone``.
        layer: its bottleneck.
        weights: pattern of its weight file below the data root; empty where the weights are a package.
        what: file of that pattern, in words.
    """

    label: str
    backbone: str
    layer: str
    weights: str = ""
    what: str = ""

    def of(self, setting: Setting, root: Path) -> Setting:
        """The same images, described by this network."""
        weights = str(find_weights(root, self.weights, self.what)) if self.weights else None
        return replace(setting, backbone={"name": self.backbone, "layer": self.layer, "weights": weights})


NETWORKS = {
    "squeezenet": Network(
        "SqueezeNet 1.1",
        "squeezenet1_1",
        "features.12.squeeze",
        "squeezenet1_1*.pth",
        "any SqueezeNet 1.1 state dict of torchvision's layout",
    ),
    "efficientnet": Network("EfficientNet-lite0", "efficientnet_lite0", "stage5"),
    "mobilenet": Network(
        "MobileNetV2",
        "mobilenet_v2",
        "features.13",
        "mobilenet_v2*.pth",
        "any MobileNetV2 state dict of torchvision's layout",
    ),
}


def run_network(name: str, context: RunContext) -> Result:
    """The paper's methods and the controls on one of :data:`NETWORKS`, every image asked; ``real`` only.

    Raises:
        ValueError: another profile.
        FileNotFoundError: data or weights are missing; the message says where to put them.
    """
    experiment = f"geometric-{name}"
    if context.profile != "real":
        raise ValueError(
            f"profile must be real for {experiment}, got {context.profile!r}: its data is not bundled"
        )
    setting = NETWORKS[name].of(every_query(load_setting(context)), Path(context.data_root))
    return run_table(experiment, setting, context)


run_squeezenet, run_efficientnet, run_mobilenet = (partial(run_network, name) for name in NETWORKS)


def every_query(setting: Setting) -> Setting:
    """The same with every image as a query, against all others."""
    everyone = torch.arange(len(setting.images))
    return replace(
        setting, queries=everyone, database=everyone, protocol="every image against all other images"
    )

"""The part of a network that some of its layers need, cut out of its graph."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from retrieval_geometry.features.network import check_layers


def feature_extractor(
    network: nn.Module, layers: Sequence[str], name: str, tracer: dict[str, Any] | None = None
) -> nn.Module:
    """Cut a network down to the parts that some layers need; it then returns a dict of their outputs.

    Args:
        network: the whole.
        layers: nodes of its graph, or modules.
        name: of the network, for messages.
        tracer: what torchvision's tracer must be told of it.

    Raises:
        ValueError: a layer that the network has not; near matches are given.
    """
    network.eval()
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    nodes = get_graph_node_names(network, tracer_kwargs=tracer, suppress_diff_warning=True)[1]
    known = {node.rsplit(".", cut)[0] for node in nodes for cut in range(node.count(".") + 1)}
    check_layers(layers, sorted(known), name)
    outputs = {layer: layer for layer in layers}
    return _without_in_place(
        create_feature_extractor(network, outputs, tracer_kwargs=tracer, suppress_diff_warning=True)
    )


def _without_in_place(trunk: Any) -> nn.Module:
    """A traced network without in-place layers: a later layer must not overwrite a wanted output."""
    for module in trunk.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    for graph in (trunk.train_graph, trunk.eval_graph):
        for node in graph.nodes:
            if "inplace" in node.kwargs:
                node.kwargs = node.kwargs | {"inplace": False}
    trunk.graph = trunk.eval_graph  # compiles it anew
    return trunk

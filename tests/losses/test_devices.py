"""Every loss on every device: the value and the gradient of the CPU in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from retrieval_geometry.coresets import training_subset, wasserstein_coreset
from retrieval_geometry.losses import (
    BASELINES,
    RankMILoss,
    WassersteinContrastiveLoss,
    WassersteinTripletLoss,
    baseline_loss,
)
from tests.distances.common import DEVICES
from tests.losses.common import LABELS, batch, value_and_gradient

Make = Callable[[], nn.Module]
LOSSES: dict[str, tuple[Make, tuple[int, ...]]] = {
    **{name: (lambda name=name: baseline_loss(name, n_classes=5, dim=6), (8, 6)) for name in BASELINES},
    "rankmi": (RankMILoss, (8, 6)),
    "wcontrastive": (WassersteinContrastiveLoss, (8, 4, 3)),
    "wtriplet": (WassersteinTripletLoss, (8, 4, 3)),
    "wtriplet exact": (lambda: WassersteinTripletLoss(exact=True), (8, 4, 3)),
    "wtriplet histogram": (lambda: WassersteinTripletLoss(measure="histogram"), (8, 6)),
    "wtriplet biased": (lambda: WassersteinTripletLoss(p=2, debias=False), (8, 4, 3)),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_agree_with_the_cpu_in_float64(name: str, device: str) -> None:
    make, shape = LOSSES[name]
    results = []
    for place, dtype in (("cpu", torch.float64), (device, torch.float32)):
        loss, x, labels = make().to(place), batch(*shape).to(place, dtype), LABELS.to(place)
        if isinstance(loss, RankMILoss):
            for _ in range(3):
                loss.inner_step(x, labels)
            state = loss.state_dict()
            loss = make().to(place)
            loss.load_state_dict(state)
        results.append([t.cpu().double() for t in value_and_gradient(loss, x, labels)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_coresets_agree_with_the_cpu(device: str) -> None:
    x = batch(8, 4, 3)
    expected, found = (training_subset(x.to(place), LABELS, 0.5) for place in ("cpu", device))
    assert found.indices.device.type == device
    assert expected.indices.tolist() == found.indices.tolist()
    assert expected.weights.tolist() == found.weights.tolist()
    points = [
        wasserstein_coreset(x[0].to(place), 2, steps=5, generator=torch.Generator().manual_seed(0)).cpu()
        for place in ("cpu", device)
    ]
    torch.testing.assert_close(points[0], points[1], rtol=1e-4, atol=1e-4)

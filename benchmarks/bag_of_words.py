"""The baseline of [geometric] Table 1: Euclidean distances of bags of words."""

import torch

from benchmarks.measure import relative_error, side_by_side
from benchmarks.rows import Row, Settings, Side

WORDS = 1000


def bag_of_words_row(settings: Settings) -> Row:
    """Plain ``torch.cdist``: the package has nothing to add to it."""
    generator = torch.Generator().manual_seed(settings.inputs.seed)
    counts = torch.rand(settings.images, WORDS, generator=generator).square()
    histograms = counts / counts.sum(dim=1, keepdim=True)
    half = len(histograms) // 2
    p, q = histograms[:half], histograms[half:]
    time = side_by_side({"cdist": lambda: torch.cdist(p, q)}, settings.budget / 4)["cdist"]
    wanted = (p.double().unsqueeze(1) - q.double()).square().sum(dim=2).sqrt()
    return Row(
        "bag_of_words",
        "Euclidean distance of bags of words",
        "pair",
        f"{WORDS} words, {half} x {len(q)} images, float32",
        Side("torch.cdist", time.per(half * len(q)), relative_error(torch.cdist(p, q), wanted)),
        note="the baseline of the paper's table; no claim",
    )

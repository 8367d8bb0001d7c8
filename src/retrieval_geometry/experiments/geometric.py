"""Experiments of [geometric]: images as distributions of local descriptors, and distances between them."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from retrieval_geometry.experiments.common import dataset_info, describe, provenance, settings_of
from retrieval_geometry.experiments.data import Setting, load_setting
from retrieval_geometry.experiments.geometric_layers import run_layers
from retrieval_geometry.experiments.geometric_methods import CONTROLS, MODELS, PAPER_METHODS, Method
from retrieval_geometry.experiments.geometric_robustness import run_robustness
from retrieval_geometry.experiments.retrieval import Ranking, draws, rank_setting, score, timed
from retrieval_geometry.features import SiftBagOfWords
from retrieval_geometry.reporting.results import MethodResult, Result

__all__ = ["run_layers", "run_robustness", "run_table1"]

GALLERY_QUERIES = 4
SIFT_WORDS = 500


def run_table1(profile: str, data_root: str, device: str, seed: int) -> Result:
    """Table 1, Figure 1 and Figure 2: the paper's seven methods and the controls.

    ``quick``: photo textures and a wavelet scattering; ``real``: DTD images and a SqueezeNet found under
    ``data_root``; ``paper``: DTD test1 against train1 + val1 with VGG-M.
    """
    started = time.perf_counter()
    setting = load_setting(profile, data_root, seed)
    backbone, descriptors = describe(setting, device)
    methods, rankings = compare((*PAPER_METHODS, *CONTROLS), descriptors, setting, seed)
    return Result(
        experiment="geometric-table1",
        profile=profile,
        seed=seed,
        dataset=dataset_info(setting),
        settings=settings_of(setting, descriptors, backbone),
        methods=tuple(methods),
        extra={
            "draws": {entry.method: draws(entry, setting) for entry in methods},
            "gallery": gallery_ids(rankings, setting),
        },
        provenance=provenance(time.perf_counter() - started, descriptors, backbone),
    )


def compare(
    methods: Sequence[Method], descriptors: Tensor, setting: Setting, seed: int
) -> tuple[list[MethodResult], dict[str, Ranking]]:
    """Run methods, each model built once, with a line of progress each; results come in their order."""
    entries, rankings = {}, {}
    for model in dict.fromkeys(method.model for method in methods):
        seconds, (models, notes) = timed(build, model, descriptors, setting, seed)
        for method in methods:
            if method.model == model:
                ranking = rank_setting(method, models, setting)
                entry = score(method, ranking, setting, seconds / len(descriptors), notes, seed)
                rankings[method.name], entries[method.name] = ranking, entry
                report(len(entries), len(methods), entry)
        del models  # the next ones may need the memory
    return [entries[method.name] for method in methods], rankings


def report(done: int, total: int, entry: MethodResult) -> None:
    """One line on what a method reached."""
    precision = entry.metrics["P@1"].value
    print(f"[{done}/{total}] {entry.label}: P@1 {precision:.3f}", file=sys.stderr, flush=True)


def build(model: str, descriptors: Tensor, setting: Setting, seed: int) -> tuple[Any, tuple[str, ...]]:
    """Models of all images, and notes about them."""
    if model != "sift-bow":
        return MODELS[model](descriptors, seed)
    words = SiftBagOfWords(SIFT_WORDS, seed=seed).fit(setting.images.subset(setting.database))
    note = f"{words.n_words} words, found in the database images; histograms of unit Euclidean length"
    return words.transform(setting.images), (note,)


def gallery_ids(rankings: dict[str, Ranking], setting: Setting) -> dict[str, Any]:
    """A few queries of different classes and the ids of their neighbours under each method."""
    labels = setting.query_labels
    firsts = [int((labels == label).nonzero()[0]) for label in labels.unique().tolist()]
    chosen = firsts[:: max(1, len(firsts) // GALLERY_QUERIES)][:GALLERY_QUERIES]
    ids = setting.images.ids
    neighbours = {
        name: [[ids[i] for i in ranking.nearest[query].tolist()] for query in chosen]
        for name, ranking in rankings.items()
    }
    return {"queries": [ids[int(setting.queries[query])] for query in chosen], "neighbours": neighbours}

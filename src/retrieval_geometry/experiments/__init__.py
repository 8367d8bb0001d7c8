"""What is run for each paper, with which data and settings.

An experiment called ``paper-part`` is a function of the module ``experiments/paper.py``. It is imported when
it is run, so that a chapter which only reads a result does not depend on all that made it.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval_geometry import __version__
from retrieval_geometry.reporting.results import Result, ResultError, result_path, results_dir

if TYPE_CHECKING:
    from retrieval_geometry.reporting.claims import Claim

PROFILES = ("quick", "real", "paper")


@dataclass(frozen=True)
class Experiment:
    """An experiment by name: ``function`` of the module named after the paper runs it."""

    name: str
    function: str
    description: str

    @property
    def paper(self) -> str:
        """Short name of the paper: what stands before the first dash."""
        return self.name.split("-")[0]

    def run(
        self, profile: str = "quick", data_root: str = "data", device: str = "cpu", seed: int = 0
    ) -> Result:
        """Run it; see the function for what each profile means.

        Raises:
            ValueError: an unknown profile or device.
            FileNotFoundError: data or weights of the profile are missing; the message says where to get them.
        """
        check_profile(profile)
        module = importlib.import_module(f"{__name__}.{self.paper}")
        run: Callable[..., Result] = getattr(module, self.function)
        return run(profile=profile, data_root=data_root, device=device, seed=seed)


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "geometric-table1", "run_table1", "Table 1 and Figures 1 and 2: seven methods and the controls"
        ),
        Experiment(
            "geometric-rectified", "run_rectified", "Table 1 behind the last ReLU (real and paper only)"
        ),
        Experiment(
            "geometric-layers", "run_layers", "descriptors of several layers, the paper's future work"
        ),
        Experiment("geometric-robustness", "run_robustness", "how much each distance varies for one image"),
        Experiment(
            "learning-tuning", "run_tuning", "one hyper-parameter of each loss, on validation classes"
        ),
        Experiment("learning-bench", "run_bench", "losses of metric learning under one budget"),
        Experiment("learning-products", "run_products", "the same on photographs of products (real only)"),
        Experiment("learning-photographs", "run_photographs", "the same on Tiny ImageNet (real only)"),
        Experiment("wasserstein-ablations", "run_ablations", "W-triplet with one choice changed at a time"),
        Experiment("wasserstein-coresets", "run_coresets", "W-triplet on subsets, for a share of the steps"),
        Experiment("rankmi-ablations", "run_ablations", "RankMI with one choice changed at a time"),
        Experiment("rankmi-distances", "run_distances", "distances of pairs before and after RankMI"),
    )
}

PAPERS = ("geometric", "wasserstein-dml", "rankmi")


def check_profile(profile: str) -> str:
    """Refuse an unknown profile, listing those that exist."""
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}; got {profile!r}")
    return profile


def find(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment must be one of {', '.join(EXPERIMENTS)}; got {name!r}")
    return EXPERIMENTS[name]


def load_or_run(
    experiment: str, profile: str = "quick", data_root: str = "data", device: str = "cpu", seed: int = 0
) -> Result:
    """The result of this machine for these settings; if there is none, run it and keep its result.

    A file made with another seed or package version, and a damaged one, is made anew.
    """
    chosen = find(experiment)
    path = result_path(experiment, check_profile(profile), results_dir())
    if path.is_file():
        try:
            result = Result.read(path)
        except ResultError:
            pass
        else:
            if result.seed == seed and result.provenance.package_version == __version__:
                return result
    result = chosen.run(profile=profile, data_root=data_root, device=device, seed=seed)
    result.write(path)
    return result


def claims(paper: str | None = None) -> list["Claim"]:
    """The claims of one paper, or of all papers in their order."""
    papers = PAPERS if paper is None else (paper,)
    modules = [importlib.import_module(f"{__name__}.{name.split('-')[0]}_claims") for name in papers]
    return [claim for module in modules for claim in module.CLAIMS]

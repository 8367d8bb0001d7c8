"""Who imports what: a command answers at once, and pays only for the libraries that it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("faiss", "lightning_fabric", "matplotlib", "numba", "ot", "pytorch_metric_learning", "sklearn")
HEAVY += ("scipy.optimize", "scipy.stats", "timm", "torchvision")


def _imported(code: str) -> set[str]:
    """The names in ``sys.modules`` of a new process after it has run some code."""
    report = f"import sys\ntry:\n {code}\nexcept SystemExit: pass\nprint('modules', *sys.modules)"
    run = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    ["import retrieval_geometry", "from retrieval_geometry import cli; cli.main(['--help'])"],
    ids=["package", "help"],
)
def test_the_package_and_its_help_need_the_standard_library_alone(code: str) -> None:
    others = {name.split(".")[0] for name in _imported(code)} - sys.stdlib_module_names
    bare = {name.split(".")[0] for name in _imported("pass")}  # what the environment imports at start-up
    assert others - bare == {"retrieval_geometry"}


@pytest.mark.parametrize(
    ("module", "needs"),
    [
        ("distances", set()),
        ("image_models", set()),
        ("features", set()),
        ("datasets", set()),
        ("coresets", set()),
        ("evaluation", {"faiss"}),
        ("projections", {"sklearn", "scipy.stats", "scipy.optimize"}),
        ("losses", {"pytorch_metric_learning", "scipy.stats", "scipy.optimize"}),
    ],
)
def test_a_module_loads_no_library_before_it_is_used(module: str, needs: set[str]) -> None:
    imported = _imported(f"import retrieval_geometry.{module}")
    assert "torch" in imported
    assert imported.intersection(HEAVY) <= needs


def test_the_default_network_needs_neither_torchvision_nor_timm() -> None:
    """A query is answered in a second or two."""
    imported = _imported(
        "from retrieval_geometry.features import load_backbone as b; b('efficientnet_lite0')"
    )
    assert not imported.intersection(HEAVY)


def test_a_search_for_pictures_begins_without_pytorch() -> None:
    imported = _imported("import retrieval_geometry.own_pictures")
    assert not imported.intersection({*HEAVY, "torch", "cv2", "scipy", "timm"})


def test_the_network_of_a_search_needs_pytorch_alone() -> None:
    code = "from retrieval_geometry.features import load_backbone; load_backbone('efficientnet_lite0')"
    assert not _imported(code).intersection({*HEAVY, "scipy.ndimage", "timm"})

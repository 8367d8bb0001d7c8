"""MATLAB files, read in a process of their own: on a damaged file SciPy's reader may crash, not only fail."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

READER = """
import pickle, sys, warnings
from io import BytesIO
from scipy.io import loadmat
warnings.simplefilter("ignore")
source = sys.argv[2] if len(sys.argv) > 2 else BytesIO(sys.stdin.buffer.read())
try:
    found = loadmat(source, squeeze_me=True, struct_as_record=sys.argv[1] == "records")
except Exception as error:
    found = f"{type(error).__name__}: {error}"
pickle.dump(found, sys.stdout.buffer)
"""


def load_matlab(source: bytes | Path, as_records: bool = True) -> dict[str, Any]:
    """The variables of a MATLAB file by name, axes of length one left out.

    Args:
        source: the content, or where it lies.
        as_records: structures as records of numpy, otherwise as objects with attributes.

    Raises:
        ValueError: damaged, or no MATLAB file.
    """
    command = [sys.executable, "-c", READER, "records" if as_records else "objects"]
    if isinstance(source, Path):
        run = subprocess.run([*command, str(source)], stdin=subprocess.DEVNULL, capture_output=True)
    else:
        run = subprocess.run(command, input=source, capture_output=True)
    # A crash of the reader, which no exception tells of.
    if run.returncode:
        raise ValueError(f"the reader of MATLAB files crashed (status {run.returncode})")
    # From our own child: nobody else can write into that pipe.
    found = pickle.loads(run.stdout)
    if isinstance(found, str):
        raise ValueError(found)
    return found

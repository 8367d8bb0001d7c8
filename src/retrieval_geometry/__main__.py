"""``python -m retrieval_geometry``: the command line."""

import sys

from retrieval_geometry.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""Images as distributions, ranked by the geometry between them.

Import what you need from the subpackages (``retrieval_geometry.distances``, ``.image_models``, ...): this
module imports none of them, so that the command line starts at once and the book knows which chapter uses
which module.
"""

from importlib.metadata import version

__version__ = version("retrieval-geometry")

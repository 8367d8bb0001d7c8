"""All public names with good arguments: put together from one table for each part of the package."""

from __future__ import annotations

from .catalogue_images import ENTRIES as IMAGES
from .catalogue_images import METHODS as IMAGE_METHODS
from .catalogue_images import NO_CALL as IMAGE_RECORDS
from .catalogue_models import ENTRIES as MODELS
from .catalogue_models import METHODS as MODEL_METHODS
from .catalogue_models import NO_CALL as MODEL_RECORDS
from .catalogue_projections import ENTRIES as PROJECTIONS
from .catalogue_projections import METHODS as PROJECTION_METHODS
from .catalogue_projections import NO_CALL as PROJECTION_RECORDS
from .catalogue_results import ENTRIES as RESULTS
from .catalogue_results import METHODS as RESULT_METHODS
from .catalogue_results import NO_CALL as RESULT_RECORDS

ENTRIES = {**MODELS, **IMAGES, **RESULTS, **PROJECTIONS}
METHODS = {**MODEL_METHODS, **IMAGE_METHODS, **RESULT_METHODS, **PROJECTION_METHODS}
NO_CALL = {**MODEL_RECORDS, **IMAGE_RECORDS, **RESULT_RECORDS, **PROJECTION_RECORDS}

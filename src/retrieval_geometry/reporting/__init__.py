"""Results as files, and tables, figures and claims made from them."""

from retrieval_geometry._folders import project_root, recorded_dir, results_dir
from retrieval_geometry.reporting.claims import (
    Claim,
    ClaimError,
    ClaimRow,
    check,
    check_all,
    require_expected,
)
from retrieval_geometry.reporting.findings import Comparison, Finding, Verdict
from retrieval_geometry.reporting.measured import Groups, Metric, Relevance
from retrieval_geometry.reporting.provenance import collect_provenance
from retrieval_geometry.reporting.results import (
    DatasetInfo,
    MethodResult,
    Models,
    Provenance,
    Result,
    ResultError,
    Scope,
    WeightsInfo,
    load_all,
    load_recorded,
    result_path,
)

__all__ = [
    "Claim",
    "ClaimError",
    "ClaimRow",
    "Comparison",
    "DatasetInfo",
    "Finding",
    "Groups",
    "MethodResult",
    "Metric",
    "Models",
    "Provenance",
    "Relevance",
    "Result",
    "ResultError",
    "Scope",
    "Verdict",
    "WeightsInfo",
    "check",
    "check_all",
    "collect_provenance",
    "load_all",
    "load_recorded",
    "project_root",
    "recorded_dir",
    "require_expected",
    "result_path",
    "results_dir",
]

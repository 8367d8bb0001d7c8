"""What the book says about a paper is what the paper says: faults that were found, by their wording."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval_geometry.experiments import claims

ROOT = Path(__file__).parents[2]
LOSSES = "src/retrieval_geometry/losses"
RANKMI = "src/retrieval_geometry/papers/rankmi"
CHAPTER_13 = "book/chapters/13_mutual_information.py"


@pytest.mark.parametrize(
    ("file", "unfair"),
    [
        # Erratum 3.2: eq. 2 of [rankmi] takes its supremum over a parametric family, where ">=" is right.
        (f"{LOSSES}/statistics_network.py", 'means "=" where it prints'),
        (f"{RANKMI}/as_printed.py", "as an estimate of JSD it is below"),
        (CHAPTER_13, "the supremum over all $T$ *equals*"),
        # Erratum 3.5: section 3.2 excludes i = j, and embedding first does no harm.
        (f"{RANKMI}/as_printed.py", "def updates_as_printed"),
        (f"{LOSSES}/rankmi.py", "corrected by erratum 3.5"),
        (CHAPTER_13, "the first step is one of the embedding, against statistics that have seen nothing"),
        # The paper says of its coresets that they save time, and compares them with nothing.
        ("book/chapters/12_coresets.py", "better than as many steps on random subsets"),
        ("book/chapters/11_transport_in_a_loss.py", '"W-triplet is the best of ten"'),
        ("book/chapters/05_errata.py", "in a low-dimensional embedding it would"),  # not measured
        ("book/chapters/02_images_as_distributions.py", "The paper calls $S$ unbiased"),
    ],
)
def test_a_fault_that_was_mended_stays_mended(file: str, unfair: str) -> None:
    assert unfair not in " ".join((ROOT / file).read_text().replace("\n# ", " ").split())


def test_the_claim_about_coresets_holds_no_controls_of_ours() -> None:
    (claim,) = (claim for claim in claims("wasserstein-dml") if claim.id == "wasserstein-dml-coresets")
    assert "cost" in claim.sentence
    assert not any(word in claim.sentence for word in ("random", "all images", "as many steps"))

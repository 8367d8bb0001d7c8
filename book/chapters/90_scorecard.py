# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # The scorecard
#
# One page for all claims of all papers that the book has judged so far. It holds no judgement of its own: every
# verdict below was computed, by this build or from a recorded run, by the predicate of its claim.
#
# - **reproduced**: the interval of the decisive difference lies wholly on the claim's side, or the theorem holds;
# - **contradicted**: the interval lies wholly on the other side, or a counterexample was computed;
# - **inconclusive**: the interval straddles zero: these data cannot tell;
# - **not tested here**: what the claim needs has not been run.
#
# A contradicted claim is a finding about these data and these features, not an accusation. The paper's own images,
# its network and its implementation are not ours ([chapter 4](04_textures) says what differs).
#
# Each claim also carries the verdict that it is known to have, but for claims about time, which depend on the machine,
# and about models that a build trains itself, whose digits do. If
# a build computes another verdict on the same images, this page fails and with it the book, until somebody has looked
# and said why. So the page cannot go stale.

# %% tags=["remove-cell"]
# Outside the book's environment, on Colab say: fetch the project and install it.
import importlib.util

if importlib.util.find_spec("retrieval_geometry") is None:
    get_ipython().run_line_magic(  # noqa: F821
        "pip", "install --quiet git+https://github.com/retrieval-geometry/geometry-of-image-retrieval"
    )

# %% tags=["parameters"]
profile = "quick"
data_root = "data"
device = "cpu"
seed = 0

# %%
from collections import Counter

from IPython.display import Markdown
from myst_nb import glue
from retrieval_geometry.experiments import claims, load_or_run
from retrieval_geometry.reporting.claims import check_all, require_expected
from retrieval_geometry.reporting.results import load_recorded
from retrieval_geometry.reporting.tables import markdown_table

settings = {"profile": profile, "data_root": data_root, "device": device, "seed": seed}
runs = [
    load_or_run("geometric-table1", **settings),
    load_or_run("geometric-layers", **settings),
    load_or_run("geometric-robustness", **settings),
    load_or_run("learning-bench", **settings),
    load_or_run("wasserstein-coresets", **settings),
    load_or_run("rankmi-distances", **settings),
]
recorded = [
    load_recorded("geometric-table1", "real"),
    load_recorded("geometric-layers", "real"),
    load_recorded("geometric-robustness", "real"),
    load_recorded("learning-bench", "real"),
    load_recorded("wasserstein-coresets", "real"),
]

# %% [markdown]
# The package judges; the page asks it to, for this build and for the recorded run, and refuses to continue if a
# verdict is not the registered one.

# %%
here = check_all(claims(), {run.experiment: run for run in runs}, profile)
real = check_all(claims(), {run.experiment: run for run in recorded}, "real")
if seed == 0:  # the registered verdicts are those of seed 0
    require_expected([*here, *real])

# %% tags=["hide-input", "remove-output"]
rows = [
    [a.claim.sentence, f"`{a.claim.paper}`, {a.claim.where}", f"**{a.verdict}**", f"**{b.verdict}**"]
    for a, b in zip(here, real, strict=True)
]
table = markdown_table(["Claim", "Paper", "this build", "recorded"], rows).replace("---:", ":---")
glue("tab-90-scorecard", Markdown(table), display=False)
for name, verdicts in (("here", here), ("real", real)):
    counts = Counter(str(row.verdict) for row in verdicts)
    glue(f"90-{name}", ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common()), display=False)

# %% [markdown]
# :::{table} Every claim, judged on the images of this build and by recorded runs: on DTD images for `geometric`, on Omniglot for the papers on learning.
# :name: tab-90-scorecard
#
# ```{glue:md} tab-90-scorecard
# :format: myst
# ```
# :::
#
# Of the claims in {numref}`tab-90-scorecard`, this build finds {glue:text}`90-here`; the recorded runs
# find {glue:text}`90-real`. The numbers behind each verdict are in {numref}`tab-90-evidence`.

# %% tags=["hide-input", "remove-output"]
evidence = [[a.claim.sentence, a.evidence, b.evidence] for a, b in zip(here, real, strict=True)]
table = markdown_table(["Claim", "this build", "recorded"], evidence).replace("---:", ":---")
glue("tab-90-evidence", Markdown(table), display=False)

# %% [markdown]
# ````{table} What each verdict rests on.
# :name: tab-90-evidence
#
# ```{glue:md} tab-90-evidence
# :format: myst
# ```
# ````

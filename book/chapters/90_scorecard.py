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
# verdict below was computed by this build, by the predicate of its claim.
#
# - **reproduced**: the interval of the decisive difference lies wholly on the claim's side, or the theorem holds;
# - **contradicted**: the interval lies wholly on the other side, or a counterexample was computed;
# - **inconclusive**: the interval straddles zero: these data cannot tell;
# - **not tested here**: what the claim needs has not been run.
#
# A contradicted claim is a finding about these data and these features, not an accusation. The paper's own images,
# its network and its implementation are not ours ([chapter 4](04_textures) says what differs).
#
# Each claim also carries the verdict that it is known to have. If a build computes another, this page fails and with
# it the book, until somebody has looked and said why. So the page cannot go stale.

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
from retrieval_geometry.reporting.tables import markdown_table

settings = {"profile": profile, "data_root": data_root, "device": device, "seed": seed}
runs = [
    load_or_run("geometric-table1", **settings),
    load_or_run("geometric-layers", **settings),
    load_or_run("geometric-robustness", **settings),
]

# %% [markdown]
# The package judges; the page asks it to, and refuses to continue if a verdict is not the registered one.

# %%
here = check_all(claims(), {run.experiment: run for run in runs}, profile)
if seed == 0:  # the registered verdicts are those of seed 0
    require_expected(here)

# %% tags=["hide-input", "remove-output"]
rows = [[row.claim.sentence, f"`{row.claim.paper}`, {row.claim.where}", f"**{row.verdict}**"] for row in here]
table = markdown_table(["Claim", "Paper", "Verdict"], rows).replace("---:", ":---")
glue("tab-90-scorecard", Markdown(table), display=False)
counts = Counter(str(row.verdict) for row in here)
glue("90-here", ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common()), display=False)

# %% [markdown]
# ````{table} Every claim, judged on the images of this build.
# :name: tab-90-scorecard
#
# ```{glue:md} tab-90-scorecard
# :format: myst
# ```
# ````
#
# Of the claims in {numref}`tab-90-scorecard`, this build finds {glue:text}`90-here`. The numbers behind each verdict are in {numref}`tab-90-evidence`.

# %% tags=["hide-input", "remove-output"]
evidence = [[row.claim.sentence, row.evidence] for row in here]
table = markdown_table(["Claim", "Evidence"], evidence).replace("---:", ":---")
glue("tab-90-evidence", Markdown(table), display=False)

# %% [markdown]
# ````{table} What each verdict rests on.
# :name: tab-90-evidence
#
# ```{glue:md} tab-90-evidence
# :format: myst
# ```
# ````

# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # How far to trust the numbers
#
# Every number of this book went through floating-point arithmetic, and most of them through an inverse, a logarithm or
# a root of a matrix. This chapter asks how many of their digits are true, and what happens where none would be.
#
# You will learn
#
# - why the *condition* of a covariance, and not its size, decides how exact a distance is;
# - how each distance of the package compares with its exact value, over conditions from 1 to $10^{12}$, scales from
#   $10^{-8}$ to $10^8$, all ranks, in single and in double precision ({numref}`fig-91-condition`,
#   {numref}`fig-91-scale`, {numref}`fig-91-rank`);
# - what the package answers to {glue:text}`91-inputs` bad inputs.
#
# The page takes about {glue:text}`91-seconds:.0f` seconds on one core. It needs no data.
#
# **The question.** A distance comes back as $0.0713$. How wrong may it be before a ranking is?

# %% tags=["remove-cell"]
# Outside the book's environment, on Colab say: fetch the project and install it.
import importlib.util

if importlib.util.find_spec("retrieval_geometry") is None:
    get_ipython().run_line_magic(  # noqa: F821
        "pip",
        "install --quiet git+https://github.com/retrieval-geometry/geometry-of-image-retrieval",
    )

# %% tags=["parameters"]
profile = "quick"
data_root = "data"
device = "cpu"
seed = 0

# %%
import time

import numpy as np
import torch
from IPython.display import Markdown
from myst_nb import glue
from torch.testing import assert_close

from retrieval_geometry import distances
from retrieval_geometry.experiments.bad_inputs import answers
from retrieval_geometry.experiments.exact import exact
from retrieval_geometry.experiments.numerics import (
    CONDITIONS,
    DTYPES,
    RANKS,
    SCALES,
    Case,
    answered,
    full_rank_cases,
    images,
    measured,
    promised,
    rank_cases,
)
from retrieval_geometry.reporting.figures import new_figure
from retrieval_geometry.reporting.tables import markdown_table

started = time.process_time()
torch.set_num_threads(1)

# %% [markdown]
# ## Why the condition decides
#
# A computer rounds. Each operation is right up to a relative error of $u$: $6 \times 10^{-8}$ in single precision
# (float32), $10^{-16}$ in double precision (float64). One rounding is harmless. But a covariance may magnify it. Let
# $\Sigma$ have eigenvalues from $\lambda_{\min}$ to $\lambda_{\max}$. Its entries are of the size of $\lambda_{\max}$,
# so rounding them is a change $E$ with $\norm{E} \approx u\,\lambda_{\max}$. Each eigenvalue moves by up to that much.
# For the largest this is nothing. For the smallest it is
#
# ```{math}
# :label: eq-91-condition
# \frac{|\delta\lambda_{\min}|}{\lambda_{\min}} \lesssim u\,\frac{\lambda_{\max}}{\lambda_{\min}} = u\,\kappa ,
# ```
#
# where $\kappa$ is the *condition* of $\Sigma$. An inverse is ruled by the smallest eigenvalues. So is a logarithm.
# Whatever contains $\Sigma^{-1}$ or $\log \Sigma$ therefore has an error of about $u \kappa$, however cleverly it is
# computed {cite:p}`c91-higham2002accuracy`. A root is kinder: $\sqrt{\lambda_{\min}}$ is small *and* enters a sum with
# large roots. The Wasserstein distance does not care about $\kappa$.
#
# If all descriptors are multiplied by $s$, then $\Sigma$ becomes $s^2 \Sigma$, and $\kappa$ stays. A power of two does
# not even round. So the *scale* should not matter, as long as no square leaves the numbers that a float can hold.
#
# ## An exact value to compare with
#
# Against what do we measure? Against the definition, computed to 60 digits by mpmath {cite:p}`c91-mpmath`. A float is a
# rational number, so mpmath can start from *the very same numbers* as the package: whatever rounding went into them
# before is not counted. Here is a pair of images in six dimensions, and the textbook's divergence.


# %%
def textbook_kl(p, q):
    """Kullback-Leibler divergence of one pair, as it is printed."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(q.cov))
    roots = [torch.linalg.cholesky(g.cov).diagonal(dim1=1, dim2=2) for g in (p, q)]
    volume = 2 * (roots[1].log().sum() - roots[0].log().sum())
    gap = (q.mean - p.mean).unsqueeze(2)
    trace = (inverse @ p.cov).diagonal(dim1=1, dim2=2).sum()
    return (volume - p.dim + trace + (gap.mT @ inverse @ gap).sum()) / 2


p, q = (images("kl", Case(condition=100.0), seed) for seed in (1, 2))
assert_close(textbook_kl(p, q), distances.kl_divergence(p, q)[0, 0])
assert_close(float(exact("kl", p, q)), float(textbook_kl(p, q)))

# %% [markdown]
# All three agree. Now the condition grows, in single precision.


# %%
def power(value):
    """A number as its first digit and its power of ten."""
    return (
        f"{float(value):.0e}".replace("e-0", "e-")
        .replace("e+0", "e")
        .replace("e+", "e")
    )


rows = []
for condition in (1.0, 1e2, 1e4, 1e6):
    case = Case(condition, dtype=torch.float32)
    p, q = (images("kl", case, seed) for seed in (1, 2))
    right = exact("kl", p, q)
    found = textbook_kl(p, q), distances.kl_divergence(p, q)
    errors = [abs(float(value) - right) / right for value in found]
    rows.append([power(value) for value in (condition, 6e-8 * condition, *errors)])
assert float(rows[-1][2]) > 1e3 * float(rows[-1][3])
header = ["condition", r"$u \kappa$", "textbook", "package"]
glue("tab-91-textbook", Markdown(markdown_table(header, rows)), display=False)

# %% [markdown]
# ````{table} Relative error of one divergence in single precision, as in the textbook and in the package.
# :name: tab-91-textbook
#
# ```{glue:md} tab-91-textbook
# :format: myst
# ```
# ````
#
# The textbook's formula loses digits as eq. {eq}`eq-91-condition` says ({numref}`tab-91-textbook`). The package does
# not. It takes the covariances as they are, and then factorises in double precision: with $u = 10^{-16}$, a condition
# of $10^6$ leaves an error of $10^{-10}$, which single precision cannot even show.
#
# What it cannot undo is the rounding of the covariance *itself*. From a condition of about $10^7$ on, a float32
# covariance may no longer be positive definite: its smallest eigenvalue is made of rounding. The package refuses it by
# name, and says what helps.
#
# ## Every distance, over conditions
#
# The same comparison for all distances of the registry: seven conditions, five scales, two precisions. The images are
# drawn once; the second is twice as large as the first, so that no distance is zero.

# %%
cells = {dtype: measured(full_rank_cases(dtype)) for dtype in DTYPES}
single, double = DTYPES
for dtype in DTYPES:
    for name, found in cells[dtype].items():
        for case, cell in found.items():
            assert (cell.error is not None) == answered(name, case), (name, case)
            assert cell.error is None or cell.error <= promised(name, case), (
                name,
                case,
            )

# %% tags=["remove-cell"]
LABELS = {
    "kl": "KL",
    "symmetric_kl": "KL, symmetric",
    "wasserstein2": "Wasserstein",
    "wasserstein2_squared": "Wasserstein²",
    "affine_invariant": "affine-invariant",
    "stein": "Stein",
    "log_euclidean": "log-Euclidean",
    "euclidean_mean": "means",
    "cosine_mean": "means, cosine",
    "variational_kl": "variational KL",
    "symmetric_variational_kl": "var. KL, symm.",
    "mixture_wasserstein2_squared": "mixture Wasserst.²",
    "sinkhorn": "Sinkhorn",
}


def worst(found, **wanted):
    """The largest error of the cases with these values; infinity where any is refused."""
    chosen = [
        cell for case, cell in found.items() if wanted.items() <= case._asdict().items()
    ]
    return max(
        np.inf if cell.error is None else max(cell.error, 1e-17) for cell in chosen
    )


# %% tags=["remove-cell"]
def heat(axes, found, axis, values, label, texts):
    """Powers of ten of the worst errors: a row for each distance, a column for each value."""
    table = np.array(
        [[np.log10(worst(found[name], **{axis: v})) for v in values] for name in LABELS]
    )
    refused = ~np.isfinite(table)
    axes.imshow(
        np.where(refused, np.nan, table),
        cmap="cividis",
        vmin=-17,
        vmax=-3,
        aspect="auto",
    )
    for (i, j), value in np.ndenumerate(table):
        text = "×" if refused[i, j] else f"{value:.0f}"
        colour = "black" if refused[i, j] or value > -9 else "white"
        axes.text(j, i, text, ha="center", va="center", fontsize=9, color=colour)
    axes.set_yticks(range(len(LABELS)), list(LABELS.values()), fontsize=9)
    axes.set_xticks(range(len(values)), texts, fontsize=9)
    axes.set_xlabel(label, fontsize=10)


def powers(values):
    """Values as powers of ten."""
    return [f"$10^{{{np.log10(value):.0f}}}$" for value in values]


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Relative error of each distance by the condition of the covariances, as a power of ten: the worst over five scales. Above in single, below in double precision. A cross means: refused by name.", "name": "fig-91-condition"}, "image": {"alt": "Two heat maps of thirteen distances by seven conditions. In single precision nearly all errors are near ten to the minus seven, and the five distances with an inverse are refused from a condition of ten to the eight on. In double precision the errors of these five grow from ten to the minus sixteen to about ten to the minus five; the affine-invariant distance is refused at ten to the twelve. All others stay where they are."}}
figure = new_figure(5.2, 8.4)
for axes, dtype in zip(figure.subplots(2, 1), DTYPES, strict=True):
    heat(
        axes,
        cells[dtype],
        "condition",
        CONDITIONS,
        f"condition, {str(dtype)[6:]}",
        powers(CONDITIONS),
    )
figure

# %% [markdown]
# {numref}`fig-91-condition` has two kinds of rows. The five distances with an inverse or a logarithm of a covariance
# lose digits in proportion to the condition, as eq. {eq}`eq-91-condition` says: in double precision about two digits
# from column to column. The others stay where they began. (The Wasserstein distance loses a digit or two in single
# precision, where rounding has made the smallest eigenvalues negative: no rank is left to be right about.) A diagonal
# covariance is of the second kind, too: each channel is divided by its own variance, and no rounding of one channel
# reaches another. So the divergences of mixtures do not see the condition at all.
#
# The crosses are promises as well. Where a covariance is within rounding of a singular one, no algorithm could know its
# inverse. The affine-invariant distance stops a step earlier than the divergences: it needs *each* eigenvalue of the
# one covariance in units of the other, and these may span the product of both conditions.
#
# ## Scale

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Relative error in double precision by the scale of the descriptors, as a power of ten: the worst over conditions up to ten to the ten.", "name": "fig-91-scale"}, "image": {"alt": "A heat map of thirteen distances by five scales. Along each row the numbers are nearly the same; only Sinkhorn's divergence has an error of ten to the minus ten at the smallest scale and of ten to the minus sixteen from scale one on."}}
moderate = {
    name: {case: cell for case, cell in found.items() if case.condition <= 1e10}
    for name, found in cells[double].items()
}
figure = new_figure(5.2, 4.4)
heat(figure.subplots(), moderate, "scale", SCALES, "scale, float64", powers(SCALES))
figure

# %% [markdown]
# Sixteen powers of ten of scale change nothing ({numref}`fig-91-scale`), but for one row. Sinkhorn's divergence has a
# scale of its own, the regularisation $\varepsilon = 0.05$. Its potentials are $\varepsilon$ times a logarithm, so they
# are rounded by $u\,\varepsilon$. Descriptors of the size of $10^{-8}$ have costs of that size, and $u\,\varepsilon$ is
# $10^{-10}$ of them. Whoever scales the descriptors should scale $\varepsilon$. Limits there are, but far out: in
# double precision descriptors from $10^{-130}$ to $10^{130}$ are taken, because fourth powers of them must be numbers.
# Beyond, the image is named and refused.
#
# ## Rank
#
# With fewer descriptors than dimensions a covariance is singular, and its condition infinite. No condition number helps
# here, only the formula.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Relative error in double precision by the rank of covariances in six dimensions, as a power of ten. A cross means: refused by name.", "name": "fig-91-rank"}, "image": {"alt": "A heat map of thirteen distances by ranks one to six. Wasserstein distances, distances of means and Sinkhorn's divergence are exact at every rank; all others are refused below rank six."}}
ranks = measured(rank_cases(double))
for name, found in ranks.items():
    for case, cell in found.items():
        assert (cell.error is not None) == answered(name, case)
        assert cell.error is None or cell.error <= promised(name, case)
figure = new_figure(5.2, 4.4)
heat(
    figure.subplots(),
    ranks,
    "rank",
    RANKS,
    "rank, float64",
    [str(rank) for rank in RANKS],
)
figure

# %% [markdown]
# Transport needs no inverse, so it is exact at every rank ({numref}`fig-91-rank`). What needs one is refused, not
# regularised in silence: how much to shrink is a decision about the data ({doc}`02_images_as_distributions`), and the
# message says so. A mixture has no component of width zero; its fit has a floor for that.
#
# ## What is promised
#
# The docstrings state a range and an error inside it. The build checks both, on every cell of the figures: inside the
# range an answer within the error, outside a refusal that names the image.

# %%
rows = []
for name, label in LABELS.items():
    row = [label]
    for dtype in DTYPES:
        inside = [
            pair for pair in cells[dtype][name].items() if answered(name, pair[0])
        ]
        limit = max(case.condition for case, _ in inside)
        error = power(max(cell.error for _, cell in inside))
        row.append(error + (f" to {power(limit)}" if limit < max(CONDITIONS) else ""))
    rows.append(row)
table = markdown_table(["Distance", "float32", "float64"], rows)
glue("tab-91-range", Markdown(table), display=False)

# %% [markdown]
# ````{table} Largest relative error found inside the range and, where the range ends within the grid, up to which condition it goes. Promised are 1e-3 in float32; in float64 1e-6 or, where there is an inverse, 1e-16 times the condition if that is more.
# :name: tab-91-range
#
# ```{glue:md} tab-91-range
# :format: myst
# ```
# ````
#
# So, to the question. Rankings of this book differ by per cents of a distance from place to place. An error of
# $10^{-3}$, the worst that is promised, moves two images past each other only if their distances agree to three digits.
# What was found is smaller ({numref}`tab-91-range`).
#
# One case is harder than all these: two images that are almost the same one. A difference of nearly equal numbers keeps
# their rounding and loses their size. The package computes such pairs again, from their own factors, until the bound of
# the rounding is small beside the value ({numref}`ex-91-2`).
#
# ## What it answers to bad inputs
#
# A wrong number is worse than none. So wrong input is met at the door, by an error that says which argument it was,
# what it was, and what it should be. The tables below are not typed: the page calls each function, and prints what it
# said. FOLDER stands for some folder.

# %%
found = answers()
for part, told in found.items():
    rows = [[title, message.replace("$", r"\$")] for title, message in told.items()]
    table = markdown_table(["Input", "Answer"], rows).replace("---:", ":---")
    glue(f"tab-91-{part.split()[0].lower()}", Markdown(table), display=False)
glue("91-inputs", sum(map(len, found.values())), display=False)
glue("91-seconds", time.process_time() - started, display=False)

# %% [markdown]
# ````{table} Images as distributions: bad inputs and their answers.
# :name: tab-91-images
# :class: wraps
#
# ```{glue:md} tab-91-images
# :format: myst
# ```
# ````
#
# ````{table} Distances: bad inputs and their answers.
# :name: tab-91-distances
# :class: wraps
#
# ```{glue:md} tab-91-distances
# :format: myst
# ```
# ````
#
# ````{table} Ranking and measures: bad inputs and their answers.
# :name: tab-91-ranking
# :class: wraps
#
# ```{glue:md} tab-91-ranking
# :format: myst
# ```
# ````
#
# ````{table} Learning and settings: bad inputs and their answers.
# :name: tab-91-learning
# :class: wraps
#
# ```{glue:md} tab-91-learning
# :format: myst
# ```
# ````
#
# ````{table} Files: bad inputs and their answers.
# :name: tab-91-files
# :class: wraps
#
# ```{glue:md} tab-91-files
# :format: myst
# ```
# ````
#
# These are the kinds that somebody thought of ({numref}`tab-91-images`, {numref}`tab-91-distances`,
# {numref}`tab-91-ranking`, {numref}`tab-91-learning`, {numref}`tab-91-files`). A test of the project thinks of others:
# it draws arguments for every public function, good ones and spoilt ones, and fails if one gets neither a value nor an
# error with a name in it.
#
# ## What we found
#
# - The condition costs digits where there is an inverse or a logarithm, two for each factor of a hundred, and nowhere
#   else.
# - The scale costs none, within 260 powers of ten.
# - Below full rank only transport gives a distance. Everything else needs a decision first.
# - Single precision is enough for *data*. For an inverse it is not, and the package does not rely on it there.
#
# ## Exercises
#
# ````{exercise}
# :label: ex-91-1
#
# Multiply one channel of all images by $10^6$. The condition of every covariance grows by up to $10^{12}$. How much
# does the error of the divergence grow? Try it, and explain.
# ````
#
# ````{solution} ex-91-1
# :class: dropdown
#
# Not at all. A Cholesky factorisation rounds each channel in proportion to that channel, so what counts is the
# condition of the *correlation* matrix, which no change of units alters. That is also what the package looks at before
# it refuses.
#
# ```python
# units = torch.tensor([1e6, 1, 1, 1, 1, 1], dtype=torch.float64)
# p, q = (images("kl", Case(100.0), seed) for seed in (1, 2))
# p, q = (Gaussian(g.mean * units, g.cov * units * units[:, None]) for g in (p, q))
# abs(float(distances.kl_divergence(p, q)) - exact("kl", p, q)) / exact("kl", p, q)
# ```
# ````
#
# ````{exercise}
# :label: ex-91-2
#
# Let $q$ be $p$ with its mean moved by $10^{-9}$ standard deviations in one direction. What is the exact divergence?
# What does the textbook's formula give, and why?
# ````
#
# ````{solution} ex-91-2
# :class: dropdown
#
# Half the squared Mahalanobis distance: about $5 \times 10^{-19}$. In the textbook's formula the trace is $D$ only up
# to $10^{-15}$, and $-D$ takes the digits away: what is left is rounding, of either sign. The package knows a bound of
# that rounding. Where the bound is not small beside the value it computes the terms from the factors of the pair, in a
# form in which $D$ never appears.
# ````
#
# ````{exercise}
# :label: ex-91-3
#
# A float16 has 11 binary digits. For which conditions could a covariance in half precision be positive definite at all?
# ````
#
# ````{solution} ex-91-3
# :class: dropdown
#
# Rounding moves the smallest eigenvalue by about $2^{-11} \lambda_{\max}$. Above a condition of some 2,000 it may
# become negative. Patches of photographs have conditions far beyond that, and the package refuses half precision at the
# door.
# ````
#
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :keyprefix: c91-
# ```

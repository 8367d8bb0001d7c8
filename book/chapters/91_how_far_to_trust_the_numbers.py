# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown] needs=["03_divergences_and_distances"]
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

# %% tags=["parameters"]
profile = "quick"
data_root = "data"
device = "cpu"
seed = 0

# %%
import time

import torch
from torch.testing import assert_close

from retrieval_geometry import distances
from retrieval_geometry.experiments import numerics
from retrieval_geometry.experiments.bad_inputs import answers
from retrieval_geometry.experiments.exact import exact
from retrieval_geometry.experiments.numerics import Case, images
from retrieval_geometry.page import Page
from retrieval_geometry.reporting.drawing import draw_digits
from retrieval_geometry.reporting.figures import new_figure
from retrieval_geometry.reporting.tables import format_power

page = Page("91", profile=profile, data_root=data_root, device=device, seed=seed)
started = time.process_time()

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
# Every quantity with $\Sigma^{-1}$ or $\log \Sigma$ in it therefore has an error of about $u \kappa$, however cleverly
# it is computed {cite:p}`c91-higham2002accuracy`. A root is kinder: $\sqrt{\lambda_{\min}}$ is small *and* enters a sum
# with large roots. The Wasserstein distance does not care about $\kappa$.
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
rows = []
for condition in (1.0, 1e2, 1e4, 1e6):
    case = Case(condition, dtype=torch.float32)
    p, q = (images("kl", case, seed) for seed in (1, 2))
    right = exact("kl", p, q)
    found = textbook_kl(p, q), distances.kl_divergence(p, q)
    errors = [abs(float(value) - right) / right for value in found]
    rows.append([condition, 6e-8 * condition, *errors])
assert rows[-1][2] > 1e3 * rows[-1][3]
header = ["condition", r"$u \kappa$", "textbook", "package"]
page.table("textbook", header, [[format_power(value) for value in row] for row in rows])

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
# It cannot undo the rounding of the covariance *itself*. From a condition of about $10^7$ on, a float32 covariance may
# no longer be positive definite: its smallest eigenvalue is made of rounding. The package refuses it by name, and says
# what helps.
#
# ## Every distance, over conditions
#
# The same comparison for all distances of the registry: seven conditions, five scales, two precisions. The images are
# drawn once; the second is twice as large as the first, so that no distance is zero.

# %%
single, double = numerics.DTYPES
cells = {
    dtype: numerics.measured(numerics.full_rank_cases(dtype))
    for dtype in numerics.DTYPES
}


def check_promises(found):
    """A value within the promised error, or a refusal where none is promised."""
    for name, by_case in found.items():
        for case, cell in by_case.items():
            assert numerics.keeps_promise(name, case, cell), (name, case)


check_promises(cells[single])
check_promises(cells[double])


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Relative error of each distance by the condition of the covariances, as a power of ten: the worst over five scales. Above in single, below in double precision. A cross means: refused by name.", "name": "fig-91-condition"}, "image": {"alt": "Two heat maps of thirteen distances by seven conditions. In single precision nearly all errors are near ten to the minus seven, and the five distances with an inverse are refused from a condition of ten to the eight on. In double precision the errors of these five grow from ten to the minus sixteen to about ten to the minus five; the affine-invariant distance is refused at ten to the twelve. All others stay where they are."}}
LABELS = list(numerics.LABELS.values())
CONDITIONS, SCALES, RANKS = numerics.CONDITIONS, numerics.SCALES, numerics.RANKS


def heat(axes, errors, label, columns):
    """Powers of ten of errors: a row for each distance."""
    draw_digits(axes, errors, LABELS, columns, low=-17, high=-3)
    axes.set_xlabel(label, fontsize=10)


figure = new_figure(5.2, 8.4)
powers = [f"$10^{{{k}}}$" for k in range(0, 13, 2)]
for axes, dtype in zip(figure.subplots(2, 1), numerics.DTYPES, strict=True):
    errors = numerics.worst_errors(cells[dtype], "condition", CONDITIONS)
    heat(axes, errors, f"condition, {str(dtype)[6:]}", powers)
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
errors = numerics.worst_errors(cells[double], "scale", SCALES, below=1e10)
figure = new_figure(5.2, 4.4)
powers = [f"$10^{{{k}}}$" for k in range(-8, 9, 4)]
heat(figure.subplots(), errors, "scale, float64", powers)
figure

# %% [markdown]
# Sixteen powers of ten of scale change nothing ({numref}`fig-91-scale`), but for one row. Sinkhorn's divergence has a
# scale of its own, the regularisation $\varepsilon = 0.05$. Its potentials are $\varepsilon$ times a logarithm, so they
# are rounded by $u\,\varepsilon$. Descriptors of the size of $10^{-8}$ have costs of that size, and $u\,\varepsilon$ is
# $10^{-10}$ of them. Descriptors and $\varepsilon$ should be scaled together. Limits there are, but far out: in double
# precision descriptors from $10^{-130}$ to $10^{130}$ are taken, because fourth powers of them must be numbers. Beyond,
# the image is named and refused.
#
# ## Rank
#
# With fewer descriptors than dimensions a covariance is singular, and its condition infinite. No condition number helps
# here, only the formula.

# %%
by_rank = numerics.measured(numerics.rank_cases(double))
check_promises(by_rank)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Relative error in double precision by the rank of covariances in six dimensions, as a power of ten. A cross means: refused by name.", "name": "fig-91-rank"}, "image": {"alt": "A heat map of thirteen distances by ranks one to six. Wasserstein distances, distances of means and Sinkhorn's divergence are exact at every rank; all others are refused below rank six."}}
errors = numerics.worst_errors(by_rank, "rank", RANKS)
figure = new_figure(5.2, 4.4)
heat(figure.subplots(), errors, "rank, float64", list(map(str, RANKS)))
figure

# %% [markdown]
# Transport needs no inverse, so it is exact at every rank ({numref}`fig-91-rank`). A distance that needs one is
# refused, not regularised in silence: how much to shrink is a decision about the data
# ({doc}`02_images_as_distributions`), and the message says so. A mixture has no component of width zero; its fit has a
# floor for that.
#
# ## What is promised
#
# The docstrings state a range and an error inside it. The build checks both, on every cell of the figures: inside the
# range an answer within the error, outside a refusal that names the image.

# %%
rows = []
for name, label in numerics.LABELS.items():
    row = [label]
    for dtype in numerics.DTYPES:
        inside = {
            case: cell.error
            for case, cell in cells[dtype][name].items()
            if numerics.answered(name, case)
        }
        limit = max(case.condition for case in inside)
        reach = f" to {format_power(limit)}" if limit < max(CONDITIONS) else ""
        row.append(format_power(max(inside.values())) + reach)
    rows.append(row)
page.table("range", ["Distance", "float32", "float64"], rows)

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
# The errors found are smaller ({numref}`tab-91-range`).
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
    page.table(part.split()[0].lower(), ["Input", "Answer"], rows, words=2)

# %% tags=["remove-cell"]
page.say(inputs=sum(map(len, found.values())), seconds=time.process_time() - started)

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

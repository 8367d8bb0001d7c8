# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown] needs=["03_divergences_and_distances", "04_textures"]
# # What the paper got wrong, executed
#
# Every paper has slips. Most are harmless to a reader who knows the field, and none of those below decides the fate of
# the paper's conclusions {cite:p}`c05-qian2017differential`. But a reader who types in a formula as it is printed gets
# a wrong number, and a reader who believes a sentence as it is printed may build on something untrue.
#
# So this chapter treats an erratum like a bug in a program. Each gets: where it stands, the formula as printed, why it
# fails, and a *test case*. The cell runs the printed form and the corrected form on random draws, or on real images,
# and counts how often each one fails.
#
# You will learn
#
# - seven places where the paper's formulas or sentences need a correction, and how we know;
# - how to turn a doubt about a formula into an experiment that decides it;
# - what exactly the affine-invariant distance is invariant under, tried on photographs;
# - which of the paper's mathematical claims hold (the one about infinite divergences does).
#
# **The question.** For each formula: is there a draw on which it breaks what it promises? A bound promises to stay on
# one side, a divergence to be non-negative, a distance to obey the triangle inequality, an invariance that nothing
# changes.

# %% tags=["parameters"]
profile = "quick"
data_root = "data"
device = "cpu"
seed = 0

# %%
import math

import torch
from torch.testing import assert_close

from retrieval_geometry.distances import (
    affine_invariant_distance,
    kl_divergence,
    symmetric_kl,
    variational_kl,
    wasserstein2,
)
from retrieval_geometry.image_models import Gaussian, GaussianMixture
from retrieval_geometry.image_models import fit_gaussian, fit_smt
from retrieval_geometry.page import Page
from retrieval_geometry.reporting.drawing import draw_lines, draw_picture, shared_legend
from retrieval_geometry.reporting.figures import OKABE_ITO, new_figure
from retrieval_geometry.reporting.toys import random_gaussians, random_mixtures

page = Page("05", profile=profile, data_root=data_root, device=device, seed=seed)
torch.set_default_dtype(torch.float64)
torch.manual_seed(seed)
generator = torch.Generator().manual_seed(seed)
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = OKABE_ITO

# %% [markdown]
# ## The bookkeeping
#
# Each test ends in two lists of yes and no: on which draws the printed form fails, and on which the corrected one.
# `record` keeps the counts for the table at the end ({numref}`tab-05-summary`). A share of $k$ failures in $n$
# independent draws is itself an estimate, so it gets an interval: Wilson's {cite:p}`c05-wilson1927probable`, which
# stays sensible at $k = 0$ and $k = n$.

# %%
from retrieval_geometry.reporting.tables import format_failures

tests = []


def record(erratum, failure, printed, corrected):
    """Keep on which draws the printed and the corrected form fail."""
    tests.append((erratum, failure, printed.flatten(), corrected.flatten()))


# %% [markdown]
# The first three errata are about mixtures. On the line every integral can be done by summing over a fine grid, so the
# truth is known to many digits. We draw mixtures of three components with random weights, means and variances. Each
# test uses 400 independent pairs.


# %%
def each_pair(function, p, q):
    """The function of each p and the q at the same place."""
    return torch.cat([function(p[i], q[i]).flatten() for i in range(len(p))])


grid = torch.linspace(-40, 40, 4001)
step = grid[1] - grid[0]


def log_density(mixtures):
    return mixtures.log_prob(grid.expand(len(mixtures), -1).unsqueeze(2))


# %% [markdown]
# ## 0.1 The logarithm that is missing (eq. 8)
#
# **As printed.** The derivation of the variational approximation starts with
#
# ```{math}
# :label: eq-05-printed-8
# \KL(V_a \,\|\, V_b) = \E_{V_a} [V_a] - \E_{V_a} [V_b], \qquad \E_{V_a} [V_b] = V_a \log V_b .
# ```
#
# **Why it fails.** The divergence is a difference of expected *log*-densities. Without the logarithm the first formula
# is $\int V_a^2 - \int V_a V_b$: a number with the units of a density, which changes if the descriptors are measured in
# other units and may be negative where $V_b$ is concentrated where $V_a$ is high. In the second formula a number stands
# on the left and a function of $x$ on the right; the integral is missing. The lines that follow in the paper have both:
# it is a slip of the pen, and costs only who copies the first line.
#
# **Corrected.**
#
# ```{math}
# :label: eq-05-corrected-8
# \begin{aligned}
# \KL(V_a \,\|\, V_b) &= \E_{V_a} [\log V_a] - \E_{V_a} [\log V_b], \\
# \E_{V_a} [\log V_b] &= \int V_a(x) \log V_b(x)\, dx .
# \end{aligned}
# ```
#
# The test draws 400 pairs of mixtures and evaluates both.

# %%
p, q = (random_mixtures(400, 1, generator) for _ in range(2))
log_p, log_q = log_density(p), log_density(q)
without_log = (log_p.exp() * (log_p.exp() - log_q.exp())).sum(1) * step
with_log = (log_p.exp() * (log_p - log_q)).sum(1) * step
page.say(printed_1=int((without_log < 0).sum()))
record("0.1", "the divergence is negative", without_log < 0, with_log < 0)

# %% [markdown]
# The printed form is negative on {glue:text}`05-printed-1` of the 400 pairs, the corrected one never
# ({numref}`fig-05-missing-log`).
#
# And the units. If every descriptor is divided by ten, nothing about the two images has changed. The corrected form
# agrees; the printed one becomes ten times as large.


# %%
def scaled(mixture, factor):
    means, variances = factor * mixture.means, factor**2 * mixture.variances
    return GaussianMixture(mixture.weights, means, variances)


def integrals(p, q):
    """Eq. 8 as printed and corrected."""
    log_p, log_q = log_density(p), log_density(q)
    terms = (log_p.exp() - log_q.exp(), log_p - log_q)
    return [(log_p.exp() * term).sum(1) * step for term in terms]


# %%
printed, corrected = integrals(scaled(p, 0.1), scaled(q, 0.1))
printed_changes = (printed / without_log - 1).abs() > 0.01
corrected_changes = (corrected / with_log - 1).abs() > 0.01
failure = "changes with the units of the descriptors"
record("0.1", failure, printed_changes, corrected_changes)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: the right-hand side of the second printed formula is a curve; only the area under it (shaded) is the expectation. Right: the printed difference without logarithms against the divergence, for 400 pairs. Points below the dotted line are negative.", "name": "fig-05-missing-log"}, "image": {"alt": "Left, a curve that dips below zero with the area shaded. Right, a scatter plot without any tight relation, with many points below zero."}}
figure = new_figure(7.4, 3.0)
curve, scatter = figure.subplots(1, 2)
integrand = (log_p[0].exp() * log_q[0]).numpy()
curve.plot(grid, integrand, color=BLUE, lw=2)
curve.fill_between(grid, integrand, color=BLUE, alpha=0.25, lw=0)
curve.axhline(0, color="gray", lw=0.8)
curve.set(xlim=(-6, 6), xlabel="x", ylabel="$V_a(x)\\,\\log V_b(x)$")
scatter.axhline(0, color="gray", lw=1, ls=":")
for kind, look in (
    (without_log >= 0, {"s": 10, "color": BLUE, "alpha": 0.6}),
    (without_log < 0, {"s": 16, "color": VERMILION, "marker": "v"}),
):
    scatter.scatter(with_log[kind], without_log[kind], lw=0, **look)
scatter.set(xlim=(-0.05, 2.5), ylim=(-0.3, 0.4))
scatter.set(xlabel="divergence, corrected (nats)", ylabel="as printed (1 / unit of x)")
figure

# %% [markdown]
# ## 0.2 The wrong weight in the bound (eq. 9)
#
# **As printed.** After the best choice of the variational parameters the paper has
#
# ```{math}
# :label: eq-05-printed-9
# \E_{V_a} [V_b] > \sum_a \omega_a \log \sum_b \omega_a e^{-\KL(V_a \| V_b)} - \sum_a \omega_a H(V_a) .
# ```
#
# **Why it fails.** Inside the logarithm stands the weight $\omega_a$ of the component of the *first* mixture. It does
# not depend on $b$, so the inner weights sum to $\omega_a$ times the number of components of the second mixture, and
# not to one. The bound was obtained from Jensen's inequality for the mixture $\sum_b \omega_b V_b$; the weight that
# survives is $\omega_b$:
#
# ```{math}
# :label: eq-05-corrected-9
# \E_{V_a} [\log V_b] \ge \sum_a \omega_a \log \sum_b \omega_b\, e^{-\KL(V_a \| V_b)} - \sum_a \omega_a H(V_a) .
# ```
#
# (The inequality is not strict either: for single Gaussians both sides agree. {doc}`03_divergences_and_distances`
# derives all this step by step.) A thought experiment shows the failure without any randomness. Let the first mixture
# be one Gaussian and the second the same Gaussian, written as a mixture of $L$ equal copies with weights $1/L$. Nothing
# has changed, so the expected log-density is what it was. The corrected bound is exact for each $L$. The printed one
# exceeds the truth by $\log L$.

# %%
from retrieval_geometry.papers.geometric.as_printed import (
    cross_entropy_bound,
    cross_entropy_bound_as_printed,
)


def copies(n):
    """The standard normal, written as a mixture of n equal components."""
    zeros = torch.zeros(1, n, 1)
    return GaussianMixture(torch.full((1, n), 1 / n), zeros, zeros + 1)


# %%
truth = -(math.log(2 * math.pi) + 1) / 2  # minus the entropy
excess = []
for n in range(1, 9):
    correct = cross_entropy_bound(copies(1), copies(n)).item()
    wrong = cross_entropy_bound_as_printed(copies(1), copies(n)).item()
    assert_close((correct, wrong), (truth, truth + math.log(n)))
    excess.append(wrong - truth)

# %% [markdown]
# Now the random pairs: on how many is the "lower bound" above the integral?

# %%
expected = (log_p.exp() * log_q).sum(1) * step
printed = each_pair(cross_entropy_bound_as_printed, p, q)
corrected = each_pair(cross_entropy_bound, p, q)
ceiling = expected + 1e-9
page.say(printed_2=int((printed > ceiling).sum()))
failure = "the lower bound exceeds the value"
record("0.2", failure, printed > ceiling, corrected > ceiling)

# %% mystnb={"figure": {"caption": "Left: a Gaussian split into equal copies; the printed bound drifts away from the truth like the logarithm of their number. Right: bound minus true value for 400 random pairs, sorted. A lower bound must not rise above zero.", "name": "fig-05-bound"}, "image": {"alt": "Left, a rising curve for the printed bound and a flat one for the corrected. Right, two sorted curves; the corrected stays below zero, the printed crosses it."}}
figure = new_figure(7.4, 2.9)
left, right = figure.subplots(1, 2)
draw_lines(
    left,
    range(1, 9),
    {"printed": excess, "corrected": [0] * 8},
    (VERMILION, BLUE),
    marked=True,
)
left.set(xlabel="copies", ylabel="bound minus truth (nats)")
margins = {"printed": printed - expected, "corrected": corrected - expected}
margins = {name: margin.sort().values for name, margin in margins.items()}
right.axhline(0, color="gray", lw=1)
draw_lines(right, None, margins, (VERMILION, BLUE), lw=2)
right.set(xlabel="pair, sorted", ylabel="bound minus truth (nats)")
shared_legend(figure)
figure

# %% [markdown]
# The printed bound is violated on {glue:text}`05-printed-2` of the 400 pairs ({numref}`fig-05-bound`), the corrected
# one on none.
#
# ## 0.3 A difference of bounds is no bound (eq. 10)
#
# **As printed.** "Subsequently, the variational bound becomes" eq. 10,
#
# ```{math}
# :label: eq-05-10
# D_{\mathrm{var}}(V_a \,\|\, V_b) = \sum_a \omega_a \log
#   \frac{\sum_{a'} \omega_{a'} e^{-\KL(V_a \| V_{a'})}}{\sum_b \omega_b\, e^{-\KL(V_a \| V_b)}} .
# ```
#
# **What is wrong.** The formula is right, and a few lines later the paper says itself that it is "not a bound in
# itself". Only the name in the quoted sentence is wrong, and what follows for a ranking is left open. Numerator and
# denominator come from two lower bounds; their difference is bounded on neither side. It can be negative, and then an
# image is *nearer to the query than the query itself*, whose own value is 0.
#
# Again one can do without chance. Let $V_a = \tfrac12 \N(-m, 1) + \tfrac12 \N(m, 1)$ and let $V_b = \N(0, 1 + m^2)$ be
# its collapse. All terms are explicit:
#
# ```{math}
# :label: eq-05-collapse
# D_{\mathrm{var}} = \log \tfrac12 \big( 1 + e^{-2 m^2} \big) + \tfrac12 \log (1 + m^2) = -\tfrac12 m^2 + O(m^4).
# ```
#
# For a mixture of two components that overlap, the approximation is negative for *every* small $m$. We check eq.
# {eq}`eq-05-collapse` against the package and lay the true divergence beside it.

# %%
m = torch.linspace(0, 2.5, 51)
one, two = torch.ones(51, 1, 1), torch.ones(51, 2, 1)
pair_means = torch.stack([-m, m], dim=1).unsqueeze(2)
pairs = GaussianMixture(two[..., 0] / 2, pair_means, two)
collapses = GaussianMixture(one[..., 0], 0 * one, (1 + m**2).view(51, 1, 1))

by_hand = ((1 + (-2 * m**2).exp()) / 2).log() + (1 + m**2).log() / 2
variational = each_pair(variational_kl, pairs, collapses)
assert_close(variational, by_hand, atol=1e-9, rtol=0)
true_divergence = integrals(pairs, collapses)[1]

# %% [markdown]
# How often does it happen at random, and does it go away in higher dimensions? On the line we know the truth and can
# also count on which side of it the approximation falls.

# %%
approximation = each_pair(variational_kl, p, q)
record("0.3", "the divergence is negative", approximation < 0, with_log < 0)

# %% tags=["remove-cell"]
page.say(
    printed_3=int((approximation < 0).sum()),
    vkl_above=int((approximation > with_log + 1e-9).sum()),
    vkl_below=int((approximation < with_log - 1e-9).sum()),
)

# %%
from scipy.stats import binomtest

dims = (1, 2, 3, 5, 8)
shares = []
for dim in dims:
    drawn = (random_mixtures(400, dim, generator) for _ in range(2))
    k = int((each_pair(variational_kl, *drawn) < 0).sum())
    shares.append((k / 400, *binomtest(k, 400).proportion_ci(method="wilson")))

# %% mystnb={"figure": {"caption": "Left: the variational approximation between a symmetric pair of Gaussians and its collapse, against the true divergence; it is negative until the two components separate. Right: share of random pairs with a negative value, by dimension, with 95 % intervals.", "name": "fig-05-negative"}, "image": {"alt": "Left, a curve that dips below zero and rises, beside a curve that stays positive. Right, points with error bars that fall from about ten percent in one dimension towards zero."}}
figure = new_figure(7.4, 2.9)
left, right = figure.subplots(1, 2)
left.axhline(0, color="gray", lw=1)
draw_lines(
    left,
    m,
    {"variational": variational, "true": true_divergence},
    (VERMILION, BLUE),
    lw=2,
)
left.set(xlabel="m, half the distance of the components", ylabel="nats")
left.legend(frameon=False)
share, low, high = 100 * torch.tensor(shares).mT
reach = torch.stack([share - low, high - share]).clamp_min(0).numpy()
right.errorbar(dims, share, yerr=reach, fmt="o-", color=VERMILION, capsize=3)
right.set(xlabel="dimension", ylabel="negative (%)", ylim=(0, None))
figure

# %% [markdown]
# On the 400 pairs on the line the approximation lies above the truth {glue:text}`05-vkl-above` times, below it
# {glue:text}`05-vkl-below` times, and below zero {glue:text}`05-printed-3` times. In many dimensions components drift
# apart, the sums in eq. {eq}`eq-05-10` are ruled by their largest terms, and negative values become rare
# ({numref}`fig-05-negative`). So in the paper's 512 dimensions the slip is unlikely to have moved a rank; in a
# low-dimensional embedding it could.
#
# ## 0.4 The distance is squared (eq. 13)
#
# **As printed.**
# $D_W = \norm{\mu_a - \mu_b}_2^2 + \tr \big( \Sigma_a + \Sigma_b - 2 (\Sigma_a^{1/2} \Sigma_b \Sigma_a^{1/2})^{1/2} \big)$,
# called "the L2-Wasserstein distance" and described as a metric.
#
# **Why it fails.** The right-hand side is $W_2^2$. A squared metric is rarely a metric: already for three points on a
# line, $(1 + 1)^2 > 1^2 + 1^2$. Its root is one.


# %%
def longer_than_detour(sides):
    longest = sides.amax(dim=0)
    return longest > (sides.sum(dim=0) - longest) * (1 + 1e-9)


a, b, c = (random_gaussians(400, 3, generator) for _ in range(3))
ends = (a, b), (b, c), (a, c)
sides = torch.stack([each_pair(wasserstein2, *pair) for pair in ends])
squares_fail, roots_fail = longer_than_detour(sides**2), longer_than_detour(sides)
page.say(printed_4=int(squares_fail.sum()))
record("0.4", "the triangle inequality fails", squares_fail, roots_fail)

# %% [markdown]
# The squares fail on {glue:text}`05-printed-4` of 400 triples, the roots on none. For a ranking the root changes
# nothing, since it preserves the order. It matters as soon as distances are added, averaged or pruned with: a triangle
# inequality that does not hold must not be used to skip candidates. And it matters for units: doubling all descriptors
# doubles a distance, and quadruples a square.
#
# ## 0.5 The sparse matrix transform (eqs. 2 to 5)
#
# Here the formulas are not so much wrong as unfinished. A reader who wants to write the code meets three gaps, and a
# choice that wants a reason.
#
# **The bars.** Eq. 2 minimises $|\diag (E^\top S E)|$ over rotations $E$. If the bars meant the sum of the diagonal,
# there would be nothing to minimise: a rotation does not change the trace. They mean the *determinant of the diagonal
# matrix*, the product of the variances, as in the work the paper builds on
# {cite:p}`c05-cao2008covariance,c05-cao2011sparse`. By Hadamard's inequality the product is smallest where $E^\top S E$
# is diagonal.

# %%
mixing = torch.randn(200, 6, 6, generator=generator)
points = torch.randn(200, 12, 6, generator=generator) @ mixing
covariances = fit_gaussian(points).cov
turn = torch.linalg.qr(torch.randn(200, 6, 6, generator=generator)).Q
before = covariances.diagonal(dim1=1, dim2=2)
after = (turn.mT @ covariances @ turn).diagonal(dim1=1, dim2=2)
same_sum = (after.sum(1) / before.sum(1) - 1).abs() < 1e-9
same_product = (after.prod(1) / before.prod(1) - 1).abs() < 1e-9
record("0.5", "eq. 2 cannot tell two rotations apart", same_sum, same_product)

# %% [markdown]
# **The indices.** Eq. 3 prints the product as $E_1 E_1 \dots E_k$, with the pair $(i_k, i_j)$; it should be
# $E = E_1 E_2 \cdots E_K$ with the pairs $(i_k, j_k)$. In eq. 5 the one-step matrix $E_k$ and the number $K$ of steps
# share a letter, so that $\hat\Lambda = \diag (S_{k+1})$ has no meaning after the product is complete: it is
# $\diag (S_{K+1})$.
#
# **The angle.** Eq. 4 shows where sine and cosine go, but no angle is given. With the paper's signs it is
#
# ```{math}
# :label: eq-05-angle
# \theta = \tfrac12 \operatorname{atan2} (-2 S_{ij},\; S_{ii} - S_{jj}),
# ```
#
# because the new off-diagonal entry is $\tfrac12 \sin 2\theta\, (S_{ii} - S_{jj}) + \cos 2\theta\, S_{ij}$, which this
# angle makes zero. With the other sign, the one that textbooks give for the transposed rotation, it does not vanish
# (but for $S_{ii} = S_{jj}$).
#
# **The pair.** Which two coordinates should a step rotate? The greedy answer is exact.
#
# ````{prf:theorem} The greedy step
# :label: thm-05-greedy
#
# Among all rotations in one coordinate plane, the product of the diagonal falls most if the plane is the one with the
# largest $\rho^2 = S_{ij}^2 / (S_{ii} S_{jj})$ and the rotation makes $S_{ij}$ zero. It then falls by exactly the
# factor $1 - \rho^2$.
# ````
#
# ````{prf:proof}
# A rotation in the plane $(i, j)$ changes only two diagonal entries, and keeps the determinant of the $2 \times 2$
# block, $\Delta = S_{ii} S_{jj} - S_{ij}^2 = S_{ii} S_{jj} (1 - \rho^2)$. The new entries satisfy
# $S'_{ii} S'_{jj} = \Delta + S'^2_{ij} \ge \Delta$, with equality if and only if $S'_{ij} = 0$.
# ````


# %%
def rotate(cov, i, j, sign=-1):
    """One step: the rotated covariance and the Givens rotation of eq. 4."""
    theta = torch.atan2(sign * 2 * cov[i, j], cov[i, i] - cov[j, j]) / 2
    givens = torch.eye(len(cov))
    givens[i, i] = givens[j, j] = theta.cos()
    givens[i, j], givens[j, i] = theta.sin(), -theta.sin()
    return givens.mT @ cov @ givens, givens


def strongest_pair(cov):
    deviation = cov.diagonal().sqrt()
    correlation = (cov / torch.outer(deviation, deviation)).triu(1)
    return divmod(int(correlation.abs().argmax()), len(cov))


# %% [markdown]
# With these two functions the whole transform is six lines, our naive version. The page asserts that the package, whose
# compiled search keeps row maxima instead of looking at all pairs again, finds the same covariances.


# %%
def naive_transform(cov, order):
    steps = []
    for _ in range(order):
        cov, givens = rotate(cov, *strongest_pair(cov))
        steps.append(givens)
    return steps, cov.diagonal()


# %%
order = 5
transforms = [naive_transform(cov, order) for cov in covariances]
products = torch.stack([torch.linalg.multi_dot(steps) for steps, _ in transforms])
variances = torch.stack([variance for _, variance in transforms])
naive = (products * variances.unsqueeze(1)) @ products.mT
assert_close(naive, fit_smt(points, order=order, shrinkage=1.0).gaussian.cov)

# %% [markdown]
# Three tests on the 200 covariances: does the product, as printed, have $\hat\Lambda$ on its diagonal? Does the angle
# zero the entry? And does the determinant fall by $1 - \rho^2$, as the theorem says?


# %%
def misses(products):
    found = (products.mT @ covariances @ products).diagonal(dim1=1, dim2=2)
    return ((found / variances - 1).abs() > 0.01).any(dim=1)


first_twice = [(steps[0], steps[0], *steps[2:]) for steps, _ in transforms]
as_printed = torch.stack([torch.linalg.multi_dot(steps) for steps in first_twice])
failure = "the product of rotations does not lead to the variances"
record("0.5", failure, misses(as_printed), misses(products))

# %%
survives = {-1: [], 1: []}  # by the sign inside atan2
for cov in covariances:
    i, j = strongest_pair(cov)
    for sign, found in survives.items():
        turned = rotate(cov, i, j, sign)[0]
        found.append(turned[i, j].square() > 1e-18 * cov[i, i] * cov[j, j])
    turned = rotate(cov, i, j)[0]
    fall = 1 - cov[i, j] ** 2 / (cov[i, i] * cov[j, j])
    assert_close(turned.diagonal().prod(), cov.diagonal().prod() * fall)
other_sign, our_sign = torch.stack(survives[1]), torch.stack(survives[-1])
failure = "the entry survives the step (no angle printed; textbook sign)"
record("0.5", failure, other_sign, our_sign)

# %% [markdown]
# How much does the choice of the pair matter? {numref}`fig-05-greedy` runs three rules on the covariance of a real
# patch: the largest correlation, the largest covariance (the rule of Jacobi's eigenvalue algorithm), and random pairs.

# %%
from retrieval_geometry.datasets import photo_textures
from retrieval_geometry.features import Scattering, load_backbone

textures = photo_textures()
backbone = load_backbone("scattering")


def load(names):
    images = [textures.load(textures.ids.index(name)) for name in names]
    return torch.stack(images) / 255


@torch.inference_mode()
def describe(images, network=backbone):
    parts = images.float().split(8)
    return torch.cat([network(part).double() for part in parts]).clone()


# %%
def largest_covariance(cov):
    return divmod(int(cov.triu(1).abs().argmax()), len(cov))


def random_pair(cov):
    i, j = torch.randperm(len(cov), generator=generator)[:2].sort().values.tolist()
    return i, j


def descent(cov, choose, steps=600):
    """Sum of the log-variances after each step, above its limit log |cov|."""
    floor = torch.linalg.eigvalsh(cov).log().sum()
    gap = []
    for _ in range(steps):
        gap.append(cov.diagonal().log().sum() - floor)
        cov = rotate(cov, *choose(cov))[0]
    return torch.stack(gap)


# %%
coffee = fit_gaussian(describe(load(["coffee/05"]))).cov[0]
descents = {
    "largest correlation": descent(coffee, strongest_pair),
    "largest covariance": descent(coffee, largest_covariance),
    "random pair": descent(coffee, random_pair),
}
assert descents["largest correlation"][200] < descents["largest covariance"][200]

# %% mystnb={"figure": {"caption": "How fast three rules diagonalise the 87-dimensional covariance of a patch: log of the product of the variances above its limit, the log-determinant, against the number of rotations.", "name": "fig-05-greedy"}, "image": {"alt": "Three falling curves; the rule of the largest correlation falls fastest, random pairs slowest."}}
figure = new_figure(6.2, 3.1)
axes = figure.subplots()
draw_lines(axes, None, descents, (BLUE, ORANGE, PURPLE), ("-", "--", ":"), lw=2)
axes.set(xlabel="rotations", ylabel="nats above the limit", ylim=(0, None))
axes.legend(frameon=False)
figure

# %% [markdown]
# ## 0.6 Invariant under what? (section 2.2.3)
#
# **As printed.** "A useful property of such a distance is that regardless of how the images are manipulated – be it
# re-scaling, normalisation, whitening, filtering, etc. – the distance between the two sources as captured by Eqn. 14
# remains invariant."
#
# **Why it fails.** The distance is a function of the eigenvalues of $\Sigma_a^{-1} \Sigma_b$. These do not change if *both*
# covariances undergo *one* congruence, $\Sigma \mapsto G \Sigma G^\top$ with the same invertible $G$. The sentence
# needs more than that in two ways.
#
# First, "normalisation" and "whitening" usually adapt to each image. Then the two images meet two different matrices
# $G_a \ne G_b$, and nothing is left of the argument. Whitening each image by its own covariance makes *all* covariances
# the identity and *all* distances zero: the perfect invariant that knows nothing. Second, what happens to an *image*
# before a network is not a linear map of its descriptors. A blur removes fine detail; no invertible matrix can put in
# its place what the blur has taken from the fine channels, since it depends on the image.
#
# **The test.** Forty colour patches of ten photographs (grey ones have singular covariances), no shrinkage, double
# precision. We compare twenty pairs of patches from different photographs before and after nine manipulations: some of
# the descriptors, some of the images.

# %%
from torch.nn import functional
from torchvision.transforms.v2.functional import gaussian_blur

photographs = ["astronaut", "chelsea", "china", "coffee", "flower"]
photographs += ["hubble", "ihc", "motorcycle", "retina", "rocket"]
names = [f"{photo}/{k:02d}" for k in (1, 4, 7, 10) for photo in photographs]
images = load(names)
descriptors = describe(images)
linear = Scattering(log_scale=None)  # wavelet moduli without a logarithm


def blurred(images, sigma=1.5):
    return gaussian_blur(images, kernel_size=9, sigma=sigma)


def resized(images):
    half = functional.avg_pool2d(images, 2)
    return functional.interpolate(half, scale_factor=2, mode="bilinear")


# %% [markdown]
# Normalisation gives each image its own mean and contrast, as many pipelines do. The whitening maps are matrices acting
# on descriptors: one made of the pooled covariance of all images, one of each image's own.


# %%
def normalised(images):
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    deviation = images.std(dim=(1, 2, 3), keepdim=True)
    return (0.5 + 0.12 * (images - mean) / deviation).clamp(0, 1)


def whitened(x, cov):
    lower = torch.linalg.cholesky(cov)
    return torch.linalg.solve_triangular(lower, x.mT, upper=False).mT


# %%
own = fit_gaussian(descriptors).cov
common_matrix = torch.randn(87, 87, generator=generator)
manipulations = {
    "descriptors: one matrix for all": descriptors @ common_matrix,
    "descriptors: whitened together": whitened(descriptors, own.mean(0)),
    "images: half the contrast, linear features": describe(images / 2, linear),
    "descriptors: one matrix for all, then shrinkage": descriptors @ common_matrix,
    "images: half the contrast": describe(images / 2),
    "images: blurred": describe(blurred(images)),
    "images: re-scaled to half and back": describe(resized(images)),
    "images: normalised, each by itself": describe(normalised(images)),
    "descriptors: whitened, each by itself": whitened(descriptors, own),
}

# %% mystnb={"figure": {"caption": "A patch and what three of the manipulations make of it: blurred, re-scaled to half the size and back, normalised by its own mean and contrast.", "name": "fig-05-manipulated"}, "image": {"alt": "Four versions of a photograph patch: the original, a blurred one, a coarser one, and one with another contrast."}}
example = images[[3]]
versions = {
    "as it is": example,
    "blurred": blurred(example),
    "re-scaled": resized(example),
    "normalised": normalised(example),
}
figure = new_figure(6.6, 1.9)
for axes, (name, image) in zip(figure.subplots(1, 4), versions.items(), strict=True):
    draw_picture(axes, image[0].clamp(0, 1), name, side="bottom")
figure

# %% [markdown]
# {numref}`fig-05-manipulated` shows three. For each manipulation: the distances of the twenty pairs after, relative to
# before; and how many of the forty patches have another nearest neighbour than they had.


# %%
def nearest(table):
    return table.clone().fill_diagonal_(math.inf).argmin(dim=1)


def distance_table(x, shrinkage=0.0):
    gaussians = fit_gaussian(x, shrinkage)
    return affine_invariant_distance(gaussians, gaussians)


# %%
untouched = {
    "": distance_table(descriptors),
    "linear": distance_table(describe(images, linear)),
    "shrinkage": distance_table(descriptors, 0.1),
}
first = torch.arange(20)
second = 20 + (first + 3) % 20  # another photograph
effects = {}
for name, x in manipulations.items():
    variant = next((word for word in ("linear", "shrinkage") if word in name), "")
    before, after = (
        untouched[variant],
        distance_table(x, 0.1 * (variant == "shrinkage")),
    )
    change = (after[first, second] / before[first, second] - 1).abs()
    effects[name] = change, int((nearest(after) != nearest(before)).sum())

# %%
rows = []
for name, (change, neighbours) in effects.items():
    median, over = float(change.median()), int((change > 0.01).sum())
    shown = (
        f"{100 * median:.1f} %" if median > 1e-4 else f"{median:.0e}" if median else "0"
    )
    rows.append([name, shown, f"{over} of 20", f"{neighbours} of 40"])
header = ["", "median change", "pairs changed by over 1 %", "other nearest neighbour"]
page.table("invariance", header, rows)

# %%
common = effects["descriptors: one matrix for all"][0] > 0.01
for word, name in {
    "re-scaling": "images: re-scaled to half and back",
    "filtering": "images: blurred",
    "normalisation": "images: normalised, each by itself",
    "whitening": "descriptors: whitened, each by itself",
}.items():
    failure = f"eq. 14 changes under {word} (corrected: a common congruence)"
    record("0.6", failure, effects[name][0] > 0.01, common)

# %% mystnb={"figure": {"caption": "Relative change of the affine-invariant distance of twenty pairs of patches under nine manipulations (each dot a pair, logarithmic scale). Blue: the distance is invariant up to rounding. Orange: it is not.", "name": "fig-05-invariance"}, "image": {"alt": "Nine rows of dots. The first three rows lie below one in a million, the others between one percent and one."}}
figure = new_figure(7.4, 3.2)
axes = figure.subplots()
for row, (change, _) in enumerate(effects.values()):
    marker, colour = ("o", BLUE) if change.max() < 1e-4 else ("^", VERMILION)
    places = change.clamp_min(1e-16), torch.full((20,), row)
    axes.plot(*places, marker, color=colour, ms=5, alpha=0.6)
axes.axvline(0.01, color="gray", lw=1, ls=":")
axes.set(xscale="log", xlabel="relative change of the distance")
axes.set_yticks(range(9), list(effects))
axes.invert_yaxis()
figure

# %% [markdown]
# ````{table} What manipulating forty patches does to their affine-invariant distances: median relative change of twenty pairs, pairs that change by more than one percent, patches whose nearest neighbour is another one afterwards.
# :name: tab-05-invariance
#
# ```{glue:md} tab-05-invariance
# :format: myst
# ```
# ````
#
# The first three rows of {numref}`tab-05-invariance` and {numref}`fig-05-invariance` are what is true. A matrix that
# acts on the descriptors of all images alike changes nothing, and this includes a common whitening. Halving the
# contrast of all images is of that kind too, *if* the features are linear in the contrast: then $G = \tfrac12 I$. With
# the logarithm that our features carry, and with the biases of a trained network, it is not. The fourth row is a
# warning for practice: shrinkage, which singular covariances make necessary, is towards a multiple of the identity, and
# that is another matrix in other coordinates. Everything below is what the sentence promised and the distance does not
# keep.
#
# ## 0.7 "Univariate" (section 3)
#
# **As printed.** "Surprisingly, variational KL is the least precise distance metric even in contrast to the case where
# we approximate the feature matrix with a univariate Normal distribution."
#
# **What is wrong.** The model in question, the collapse of eq. 1, is a normal distribution in 512 dimensions: *multivariate*,
# or *unimodal*. It is a slip of the pen, but it can be read in two other ways, and the three readings are different
# models. One normal distribution for all numbers of an image has two parameters. One normal for each channel, a
# diagonal covariance, has $2D$. We let them compete: six patches of each of the eighteen photographs, symmetric KL,
# nearest neighbour among the other patches.

# %%
numbers = (1, 3, 5, 7, 9, 11)
everything = [f"{name}/{k:02d}" for name in textures.classes for k in numbers]
labels = torch.arange(len(textures.classes)).repeat_interleave(6)
all_descriptors = describe(load(everything))
multivariate = fit_gaussian(all_descriptors, shrinkage=0.1)
diagonal = multivariate.cov.diagonal(dim1=1, dim2=2)
per_channel = Gaussian(multivariate.mean, torch.diag_embed(diagonal))
one_number = fit_gaussian(all_descriptors.flatten(1).unsqueeze(2))
readings = {
    "one normal for all numbers (2 parameters)": one_number,
    "one normal for each channel": per_channel,
    "one multivariate normal": multivariate,
}
by_reading = {name: symmetric_kl(g, g) for name, g in readings.items()}
hits = {name: labels[nearest(table)] == labels for name, table in by_reading.items()}

# %%
from retrieval_geometry.evaluation import bootstrap_interval
from retrieval_geometry.reporting.tables import format_interval

pairs = torch.arange(0, 54), torch.arange(54, 108)  # disjoint, of different photographs
rows = []
for name, hit in hits.items():
    divergence = float(by_reading[name][pairs].median())
    interval = bootstrap_interval(hit.double(), seed=seed)
    rows.append([name, f"{divergence:.1f}", format_interval(interval)])
header = ["", "median divergence (nats)", "nearest is of the same photograph"]
page.table("univariate", header, rows)

missed = [~hits[name] for name in readings]
record("0.7", "the nearest patch is of another photograph", missed[0], missed[2])

# %% [markdown]
# ````{table} Three readings of "a Normal distribution" for the descriptors of an image: symmetric KL between patches of different photographs, and how often the nearest of 107 other patches comes from the same photograph (95 % bootstrap interval over the 108 patches).
# :name: tab-05-univariate
#
# ```{glue:md} tab-05-univariate
# :format: myst
# ```
# ````
#
# A word matters: a reader who builds the univariate model gets another experiment ({numref}`tab-05-univariate`).
#
# ## Infinity: a claim that holds
#
# The conclusion argues that "the KL-divergence between two distributions could easily reach infinity if the covariance
# of the second distribution becomes singular", while the Wasserstein distance does not. That is right, and a little
# more is true. Let one variance of $p$, of $q$, or the same one of both, shrink to $\varepsilon$. By eq. 7, with equal
# means, that direction contributes to $\KL(p \| q)$
#
# ```{math}
# :label: eq-05-infinity
# \tfrac12 \left[ \log \tfrac{1}{\varepsilon} - 1 + \varepsilon \right], \qquad
# \tfrac12 \left[ \log \varepsilon - 1 + \tfrac{1}{\varepsilon} \right], \qquad 0 .
# ```
#
# The divergence is infinite whenever the *supports* differ, in either argument, though a flat first argument gets there
# much more slowly than a flat second one. Where both are flat in the same direction it stays finite. The paper's
# symmetric version inherits the fast one.

# %%
thin = torch.logspace(0, -10, 61)


def with_variance(values):
    cov = torch.eye(2).repeat(61, 1, 1)
    cov[:, 1, 1] = values
    return Gaussian(torch.zeros(61, 2), cov)


full, flat = with_variance(torch.ones(61)), with_variance(thin)
limits = {
    "KL, second flat": each_pair(kl_divergence, full, flat),
    "KL, first flat": each_pair(kl_divergence, flat, full),
    "KL, both flat": each_pair(kl_divergence, flat, flat),
    "Wasserstein, one flat": each_pair(wasserstein2, full, flat),
}
by_formula = (thin.log() - 1 + 1 / thin) / 2
assert_close(limits["KL, second flat"], by_formula, rtol=1e-6, atol=1e-9)

# %% [markdown]
# Does it happen on images? The covariance of a patch is singular as soon as one descriptor channel never varies or
# there are too few descriptors. A grey photograph is such a case: its colour channels are zero, up to the rounding of
# the processor. We count the grey ones among the 108 patches, and then let the shrinkage $s$ go to zero.

# %%
pixels = load(everything)
grey = (pixels == pixels[:, :1]).flatten(1).all(dim=1)

# %% tags=["remove-cell"]
page.say(grey=int(grey.sum()), grey_photographs=len(labels[grey].unique()))

# %%
amounts = torch.logspace(-0.5, -9, 12)
query, other = all_descriptors[0::12], all_descriptors[6::12]  # nine photographs each
kl_curve, w2_curve = [], []
for amount in amounts.tolist():
    a, b = (fit_gaussian(x, shrinkage=amount) for x in (query, other))
    kl_curve.append(symmetric_kl(a, b).diagonal())
    w2_curve.append(wasserstein2(a, b).diagonal())
explodes = kl_curve[-1] > 50 * kl_curve[-4]
assert (explodes == (grey[0::12] ^ grey[6::12])).all()

# %% mystnb={"figure": {"caption": "Left: one direction of a plane goes flat (variance falling to the right). Right: nine pairs of patches from different photographs while the shrinkage of their covariances goes to zero (falling to the right): symmetric KL (orange) explodes for pairs with a singular covariance, the Wasserstein distance (blue, below) does not notice.", "name": "fig-05-infinity"}, "image": {"alt": "Left, two diverging curves, one flat at zero and one that levels off. Right, rising solid curves that split into two groups and horizontal ones below."}}
figure = new_figure(7.6, 3.3)
left, right = figure.subplots(1, 2)
draw_lines(
    left, thin, limits, (VERMILION, ORANGE, PURPLE, BLUE), ("-", "--", ":", "-."), lw=2
)
left.set(xscale="log", ylim=(-0.5, 12), xlabel="variance left")
shared_legend(figure)
right.loglog(amounts, torch.stack(kl_curve), color=VERMILION, lw=1.5)
right.loglog(amounts, torch.stack(w2_curve), color=BLUE, lw=1)
right.set(xlabel="shrinkage", ylabel="nats, or units of the descriptors")
for axes in (left, right):
    axes.invert_xaxis()
figure

# %% [markdown]
# {glue:text}`05-grey` of the 108 patches, all patches of {glue:text}`05-grey-photographs` photographs, are grey, so
# their covariance is singular. In {numref}`fig-05-infinity` the
# divergence between a grey and a colour photograph grows without bound as the shrinkage vanishes, so its value is
# decided by the shrinkage and not by the images. The curves that level off are pairs of one kind, two grey photographs
# or two colour ones, just as eq. {eq}`eq-05-infinity` says; the page asserts that it is so. The Wasserstein distance
# always has a limit.
#
# ## An assumption worth a look: zero mean
#
# Section 2.1 assumes "zero mean Normal random vectors", with $\tfrac1n A A^\top$ as covariance. That is no error: under
# the assumption the estimate is unbiased. But descriptors are moduli or rectified responses, and these are *positive*.
# Then $\tfrac1n A A^\top = \Sigma + \mu \mu^\top$ is a covariance plus a mean, and the question is which of the two it
# mostly is.

# %%
squared_mean = multivariate.mean.square().sum(1)
share = squared_mean / (squared_mean + diagonal.sum(1))

# %% tags=["remove-cell"]
page.say(mean_part=100 * share.median())

# %% [markdown]
# The mean makes up {glue:text}`05-mean-part:.0f` % of the trace of $\tfrac1n A A^\top$ in the median over the patches.
# A "covariance" of this kind is mostly its mean. The package centres descriptors by default, and offers the printed
# form as `zero_mean=True`.
#
# ## The table of errata

# %%
rows = []
for number, failure, printed, corrected in tests:
    rows.append(
        [number, failure, *format_failures(printed), *format_failures(corrected)]
    )
    assert printed.any()
    assert number == "0.7" or not corrected.any()
header = ["", "What fails", "as printed", "interval", "corrected", "interval"]
page.table("summary", header, rows, words=2)

# %% [markdown]
# ````{table} Every erratum as a test: on how many independent draws the printed and the corrected form fail, with the 95 % interval of the share. For 0.3 "corrected" is the true divergence, by integration: the formula of eq. 10 itself stands. For 0.7 a failure is a missed nearest neighbour, which the corrected reading does not avoid altogether.
# :name: tab-05-summary
#
# ```{glue:md} tab-05-summary
# :format: myst
# ```
# ````
#
# ## What we found
#
# - Two formulas compute something else when typed in: eq. 8 lacks its logarithms, and the weight in eq. 9 makes a
#   lower bound that is none. Eq. 10, which the experiments use, has the right weights: the misprint need not have
#   touched them.
# - Eq. 13 is the square of the distance. No ranking depends on it.
# - The sparse matrix transform can be rebuilt from eqs. 2 to 5 only with the missing angle, indices and the meaning
#   of the bars; then the printed greedy step is the best one.
# - The invariance of eq. 14 is real and narrower than the sentence about it. Neither filtering, nor re-scaling, nor
#   normalising, nor whitening each image leaves the distance alone.
# - The argument for Wasserstein, that it survives singular covariances where KL does not, is true, and bites on real
#   images.
#
# ## Exercises
#
# ````{exercise}
# :label: ex-05-1
#
# Show that the printed eq. 9 is still a valid lower bound whenever every component of the first mixture has a weight
# $\omega_a \le \min_b \omega_b$. Why does that not help?
# ````
#
# ````{solution} ex-05-1
# :class: dropdown
#
# If $\omega_a \le \omega_b$ for all $b$, each inner sum with $\omega_a$ is at most the one with $\omega_b$, so the
# printed value is at most the corrected bound, and that is at most the truth. It does not help because the weights of
# each mixture sum to one: the condition for $(V_a, V_b)$ and for $(V_b, V_a)$ at once forces all weights to be equal,
# and a symmetrised divergence needs both.
# ````
#
# ````{exercise}
# :label: ex-05-2
#
# Each image is multiplied by its own factor, $\Sigma_a \mapsto c_a^2 \Sigma_a$. Compute the new affine-invariant
# distance. For which $c_b / c_a$ is it smallest, and what does the minimum compare?
# ````
#
# ````{solution} ex-05-2
# :class: dropdown
#
# All log-ratios $t_c = \log \lambda_c$ move by the same amount, $u = 2 \log (c_b / c_a)$. So
# $d^2 = \sum_c (t_c + u)^2$, which is smallest at $u = -\bar t$, minus the mean of the log-ratios. The minimum,
# $\sum_c (t_c - \bar t)^2$, compares covariances scaled to equal determinants: shape without volume. It is a distance
# that *is* invariant under a factor for each image, and it had to be built for it.
# ````
#
# ````{exercise}
# :label: ex-05-3
#
# The discussion says that the cost of optimal transport between "two distributions of dimension $d$" is at least
# $O(d^3 \log d)$. What is $d$? What would the cost of eq. 13 be in the same terms?
# ````
#
# ````{solution} ex-05-3
# :class: dropdown
#
# In the work on Sinkhorn distances that the paper cites, $d$ is the number of *bins* of two histograms, that is the
# number of points that carry mass. The dimension of the space enters only the cost matrix, linearly. The paper applies
# the formula to "high dimensional" feature vectors, which is another dimension. Eq. 13 does depend on the dimension $D$
# of the descriptors, as $O(D^3)$ for its matrix roots, or on the number $N$ of descriptors as $O(N^2 D + N^3)$ if the
# factors are used.
# ````
#
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :keyprefix: c05-
# ```

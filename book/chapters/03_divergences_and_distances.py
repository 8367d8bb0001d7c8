# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown] needs=["02_images_as_distributions"]
# # Divergences and distances
#
# An image has become a probability distribution: a Gaussian, a mixture of Gaussians, or simply a cloud of
# descriptors. To rank a database we need one more thing, a number that says how far two of them are apart.
# The paper {cite:p}`c03-qian2017differential` tries four such numbers and points to two more. This chapter derives
# them, and two that belong beside them.
#
# You will learn
#
# - where each formula comes from, with a proof wherever one fits on the page;
# - why some of them need a covariance of full rank, and why the Wasserstein distance does not;
# - which of them are metrics and what each of them cannot see, *checked* here and not only asserted
#   ({numref}`tab-03-axioms` and {numref}`tab-03-invariance`);
# - how much they disagree on real images.
#
# **The question.** Put two images into words of geometry: two clouds of points, with a centre and a shape each.
# One cloud has moved, or grown, or turned, or gone flat. How much should each of these count? Every formula
# below is an answer to that, and no two answers are the same.

# %% tags=["parameters"]
profile = "quick"
data_root = "data"
device = "cpu"
seed = 0

# %% [markdown]
# Everything is imported from the package, and all the small examples are computed in double precision. All
# distances of the package take a batch of `P` models and a batch of `Q` models and return the `(P, Q)` table of
# all pairs.

# %%
import math
import textwrap
import time

import torch
from torch.testing import assert_close

from retrieval_geometry import distances
from retrieval_geometry.distances import (
    affine_invariant_distance,
    covariance_only,
    kl_divergence,
    log_euclidean_distance,
    mixture_wasserstein2_squared,
    sinkhorn_divergence,
    stein_divergence,
    symmetric_kl,
    variational_kl,
    wasserstein2,
    wasserstein2_squared,
)

# %%
from retrieval_geometry.image_models import Gaussian, GaussianMixture
from retrieval_geometry.image_models import fit_gaussian, fit_mixture
from retrieval_geometry.page import Page
from retrieval_geometry.reporting.drawing import close_frame, draw_lines, draw_picture
from retrieval_geometry.reporting.drawing import draw_values, ellipse, shared_legend
from retrieval_geometry.reporting.figures import OKABE_ITO, new_figure
from retrieval_geometry.reporting.toys import random_gaussians, random_mixtures
from retrieval_geometry.reporting.toys import turned_covariance

page = Page("03", profile=profile, data_root=data_root, device=device, seed=seed)
torch.set_default_dtype(torch.float64)
torch.manual_seed(seed)
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = OKABE_ITO

# %% [markdown]
# ## Two images, two ellipses
#
# Here are two patches of photographs ({numref}`fig-03-two-images`). A fixed wavelet network describes every small
# neighbourhood of a patch by 87 numbers. Two of the 87 are easy to read: how strongly the grey levels vary from left to
# right, and how strongly from top to bottom, at the finest scale. In these two coordinates each patch is a cloud, and
# the Gaussian fitted to the cloud is a point, the mean $\mu$, with an ellipse around it, the covariance $\Sigma$.

# %%
from retrieval_geometry.datasets import photo_textures
from retrieval_geometry.features import extract_descriptors, load_backbone

textures = photo_textures()
backbone = load_backbone("scattering")
pair = textures.subset([textures.ids.index(name) for name in ("brick/05", "grass/05")])
pair_descriptors = extract_descriptors(pair, backbone, progress=False).double()
pair_gaussians = fit_gaussian(pair_descriptors)

# %% [markdown]
# An ellipse is the unit circle sent through any matrix $A$ with $A A^\top = \Sigma$. We call such an $A$ a *factor* of
# $\Sigma$; it will return as the hero of the Wasserstein section.

# %%
values, vectors = torch.linalg.eigh(pair_gaussians.cov[0])
square_root = vectors * values.clamp_min(0).sqrt()
assert_close(square_root @ square_root.mT, pair_gaussians.cov[0])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "A patch of brick, a patch of grass, and their descriptors in two of 87 coordinates. Each cloud is summarised by a mean and an ellipse (one and two standard deviations). What is the distance between the two?", "name": "fig-03-two-images"}, "image": {"alt": "Two photographs, brick and grass, beside a scatter plot in which their descriptors form two overlapping clouds of different shape, each with its ellipses."}}
coordinates = [3, 5]  # finest scale: first and third of four orientations
figure = new_figure(7.4, 3.3)
grid = figure.add_gridspec(2, 2, width_ratios=[1, 2.4])
axes = figure.add_subplot(grid[:, 1])
looks = (("brick", BLUE, "o"), ("grass", VERMILION, "^"))
for i, (name, colour, marker) in enumerate(looks):
    draw_picture(figure.add_subplot(grid[i, 0]), pair.load(i), name)
    cloud = pair_descriptors[i][:, coordinates]
    look = {"color": colour, "marker": marker, "label": name}
    axes.scatter(*cloud.mT, s=12, alpha=0.5, lw=0, **look)
    mean = pair_gaussians.mean[i, coordinates]
    cov = pair_gaussians.cov[i][coordinates][:, coordinates]
    for radius in (1, 2):
        axes.plot(*ellipse(cov, mean, radius), color=colour, lw=1.8)
    axes.plot(*mean, "x", color="black", ms=7, mew=2)
axes.set(xlabel="variation along the first orientation", ylabel="variation across it")
axes.legend(frameon=False)
figure

# %% [markdown]
# For the derivations a toy is better than data. From here on `p` and `q` are two Gaussians in the plane, a long
# one and a tilted one, four units apart. `random_gaussians` draws many more of them, in any dimension, for the
# checks.

# %%
p = Gaussian(torch.tensor([[0.0, 0.0]]), turned_covariance(0.3, 1.8, 0.45)[None])
q = Gaussian(torch.tensor([[4.0, 1.0]]), turned_covariance(-1.0, 1.3, 0.6)[None])

# %% [markdown]
# ## Symmetric Kullback–Leibler divergence
#
# ### The idea
#
# Take a descriptor $x$ drawn from $p$ and ask which of $p$ and $q$ explains it better. The log-ratio
# $\log p(x) - \log q(x)$ is the evidence that this one descriptor gives. Its average over $p$ is the Kullback–Leibler
# divergence {cite:p}`c03-kullback1951information`: the evidence per descriptor, in nats. It also counts the nats wasted
# per descriptor by a code made for $q$ when the data come from $p$.
#
# ### The formula
#
# For two Gaussians the log-ratio is a quadratic function of $x$,
#
# ```{math}
# :label: eq-03-log-ratio
# \log \frac{p(x)}{q(x)} = \frac12 \left[ \log \frac{|\Sigma_q|}{|\Sigma_p|}
#   - (x - \mu_p)^\top \Sigma_p^{-1} (x - \mu_p) + (x - \mu_q)^\top \Sigma_q^{-1} (x - \mu_q) \right],
# ```
#
# and the average of a quadratic form needs only the mean and the covariance of $x$:
#
# ```{math}
# :label: eq-03-quadratic-form
# \E_p \left[ (x - c)^\top A (x - c) \right] = \tr (A \Sigma_p) + (\mu_p - c)^\top A (\mu_p - c).
# ```
#
# (Write $x - c = (x - \mu_p) + (\mu_p - c)$; the cross term averages to zero, and
# $\E[(x-\mu_p)^\top A (x-\mu_p)] = \tr (A\, \E[(x-\mu_p)(x-\mu_p)^\top])$.) Put $A = \Sigma_p^{-1}$, $c = \mu_p$ for
# the first form, which gives $\tr I = D$, and $A = \Sigma_q^{-1}$, $c = \mu_q$ for the second. The result is the
# paper's eq. 7:
#
# ```{math}
# :label: eq-03-kl
# \KL(p \,\|\, q) = \frac12 \left[ \log \frac{|\Sigma_q|}{|\Sigma_p|} - D + \tr (\Sigma_q^{-1} \Sigma_p)
#   + (\mu_p - \mu_q)^\top \Sigma_q^{-1} (\mu_p - \mu_q) \right].
# ```
#
# The two directions differ. If $q$ is narrow and $p$ wide, most draws of $p$ look impossible to $q$; the other way
# round they look only unlikely. The paper takes the mean of both directions. The determinants cancel, and with
# $\delta = \mu_p - \mu_q$
#
# ```{math}
# :label: eq-03-symmetric-kl
# D_{\mathrm{sym}}(p, q) = \frac14 \left[ \tr (\Sigma_q^{-1} \Sigma_p) + \tr (\Sigma_p^{-1} \Sigma_q) - 2D
#   + \delta^\top (\Sigma_p^{-1} + \Sigma_q^{-1})\, \delta \right].
# ```
#
# Equation {eq}`eq-03-kl`, typed in as it stands, is our naive version. The page asserts that it agrees with the
# package, which computes all pairs by one matrix product.


# %%
def log_det(matrix):
    return 2 * torch.linalg.cholesky(matrix).diagonal().log().sum()


def naive_kl(p, q):
    shift, cov_p, cov_q = p.mean[0] - q.mean[0], p.cov[0], q.cov[0]
    precision = torch.cholesky_inverse(torch.linalg.cholesky(cov_q))
    volumes = log_det(cov_q) - log_det(cov_p)
    trace, square = (precision @ cov_p).trace(), shift @ precision @ shift
    return (volumes - p.dim + trace + square) / 2


both_ways = (naive_kl(p, q) + naive_kl(q, p)) / 2
assert_close(kl_divergence(p, q)[0, 0], naive_kl(p, q))
assert_close(symmetric_kl(p, q)[0, 0], both_ways)

# %% [markdown]
# And because it is an average, a simulation must agree with it. We draw a hundred thousand descriptors from $p$ and
# average the evidence.

# %%
normal = torch.distributions.MultivariateNormal
normal_p, normal_q = (normal(g.mean[0], g.cov[0]) for g in (p, q))
draws = normal_p.sample((100_000,))
evidence = normal_p.log_prob(draws) - normal_q.log_prob(draws)
error = evidence.std() / len(draws) ** 0.5
assert (evidence.mean() - naive_kl(p, q)).abs() < 5 * error

# %% tags=["remove-cell"]
page.say(kl_pq=naive_kl(p, q), kl_qp=naive_kl(q, p))
page.say(kl_simulated=evidence.mean(), kl_simulated_error=error)

# %% [markdown]
# For our toy $\KL(p \| q)$ is {glue:text}`03-kl-pq:.2f` nats (simulated: {glue:text}`03-kl-simulated:.2f` ±
# {glue:text}`03-kl-simulated-error:.2f`), and $\KL(q \| p)$ is {glue:text}`03-kl-qp:.2f`: the long thin $p$ is the
# better at finding $q$ impossible.
#
# ### What it is, and what it is not
#
# ````{prf:theorem} Non-negativity
# :label: thm-03-kl-positive
#
# $\KL(p \| q) \ge 0$, with equality only where $p = q$.
# ````
#
# ````{prf:proof}
# The logarithm is strictly concave, so by Jensen's inequality
# $-\KL(p\|q) = \E_p [\log (q/p)] \le \log \E_p [q/p] = \log 1 = 0$. Equality needs $q/p$ to be constant, hence $1$.
# ````
#
# It does not change when both images pass through the same invertible map, whatever the map: the density ratio $p/q$ at
# a point does not care about the coordinates. But it is no metric, and its root is none either. One dimension shows it.
#
# ````{prf:theorem} No triangle inequality
# :label: thm-03-kl-triangle
#
# Neither $D_{\mathrm{sym}}$ nor $\sqrt{D_{\mathrm{sym}}}$ satisfies the triangle inequality, even between
# Gaussians on the line.
# ````
#
# ````{prf:proof}
# With equal variances 1 and means $0, 1, 2$, eq. {eq}`eq-03-symmetric-kl` is half the squared distance of the means:
# $2$ for the long way, $\tfrac12 + \tfrac12$ for the two steps. For the root take equal means and variances
# $1, e^{s}, e^{s+t}$. Then $D_{\mathrm{sym}} = (e^{s} + e^{-s} - 2)/4 = \sinh^2 (s/2)$, so the roots are $\sinh(s/2)$,
# $\sinh(t/2)$ and $\sinh((s+t)/2)$; and $\sinh(a + b) > \sinh a + \sinh b$ for $a, b > 0$.
# ````

# %%
variances = torch.tensor([1.0, 20.0, 400.0])
line = Gaussian(torch.zeros(3, 1), variances.view(3, 1, 1))
steps = symmetric_kl(line, line).sqrt()
print(f"two steps {steps[0, 1]:.2f} + {steps[1, 2]:.2f}, at once {steps[0, 2]:.2f}")
assert steps[0, 2] > steps[0, 1] + steps[1, 2]

# %% [markdown]
# Where it hurts in practice is the inverse in eq. {eq}`eq-03-kl`. If $q$ has no variance in some direction, one draw of
# $p$ that varies there is infinite evidence, and $\KL(p \| q) = \infty$. Rather than return a number made of rounding
# errors, the package refuses such a covariance and names the image. The cure is shrinkage, which the chapter on image
# models explains.

# %%
few = torch.randn(2, 5, 8)  # two images of 5 descriptors in 8 dimensions
try:
    symmetric_kl(fit_gaussian(few), fit_gaussian(few))
except ValueError as refusal:
    print(textwrap.fill(str(refusal), 72))

# %% [markdown]
# ## Variational Kullback–Leibler divergence between mixtures
#
# ### The idea
#
# For two mixtures $p = \sum_a \omega_a p_a$ and $q = \sum_b \omega'_b q_b$ the divergence
# $\E_p [\log p] - \E_p [\log q]$ has no closed form, because the logarithm stands before a sum. Hershey and Olsen
# {cite:p}`c03-hershey2007approximating` bound each of the two terms from below by the same trick, and subtract the
# bounds.
#
# ### The formula
#
# Look at one component $p_a$. Share it out among the components of $q$ with numbers $\varphi_{b|a} \ge 0$,
# $\sum_b \varphi_{b|a} = 1$, multiply and divide by them, and use Jensen's inequality to pull the sum out of the
# logarithm:
#
# ```{math}
# :label: eq-03-jensen
# \E_{p_a} [\log q] = \E_{p_a} \Big[ \log \sum_b \varphi_{b|a} \frac{\omega'_b q_b}{\varphi_{b|a}} \Big]
#   \;\ge\; \sum_b \varphi_{b|a} \Big( \log \frac{\omega'_b}{\varphi_{b|a}} + \E_{p_a} [\log q_b] \Big).
# ```
#
# The last average is known: $\E_{p_a}[\log q_b] = -\KL(p_a \| q_b) - H(p_a)$, with $H$ the entropy. So the bound reads
# $\sum_b \varphi_{b|a} \log (c_b / \varphi_{b|a}) - H(p_a)$ with $c_b = \omega'_b\, e^{-\KL(p_a \| q_b)}$. It holds for
# every choice of $\varphi$; which one is best?
#
# ````{prf:lemma} The best shares
# :label: thm-03-shares
#
# For positive $c_b$ the maximum of $\sum_b \varphi_b \log (c_b / \varphi_b)$ over probabilities $\varphi$ is
# $\log \sum_b c_b$, reached at $\varphi_b = c_b / \sum_{b'} c_{b'}$.
# ````
#
# ````{prf:proof}
# Let $C = \sum_b c_b$. Then $\sum_b \varphi_b \log (c_b / \varphi_b) = \log C - \KL(\varphi \,\|\, c / C)$, and the
# divergence is at least 0, and 0 only at $\varphi = c / C$ ({prf:ref}`thm-03-kl-positive`).
# ````
#
# Each component $p_a$ chooses its own best shares: it goes to the components of $q$ that are heavy and near. Summed
# over $a$,
#
# ```{math}
# :label: eq-03-cross-bound
# \E_p [\log q] \;\ge\; \sum_a \omega_a \log \sum_b \omega'_b\, e^{-\KL(p_a \| q_b)} - \sum_a \omega_a H(p_a).
# ```
#
# This is the paper's eq. 9 with its inner weight corrected: the weight that stands beside $e^{-\KL(p_a\|q_b)}$ belongs
# to $q_b$, not to $p_a$. ({doc}`05_errata` shows that the printed one is no bound.) The same bound with $q = p$ holds
# for $\E_p [\log p]$. The entropies cancel in the difference, and eq. 10 of the paper is left:
#
# ```{math}
# :label: eq-03-variational-kl
# D_{\mathrm{var}}(p \,\|\, q) = \sum_a \omega_a \log
#   \frac{\sum_{a'} \omega_{a'} e^{-\KL(p_a \| p_{a'})}}{\sum_b \omega'_b e^{-\KL(p_a \| q_b)}}.
# ```


# %%
def similarity(a, b):
    """Weights of b times exp(-KL) of all components of a from all of b, (K, L)."""
    ratio = a.variances[0][:, None] / b.variances[0]
    square = (a.means[0][:, None] - b.means[0]) ** 2 / b.variances[0]
    divergence = (ratio - 1 - ratio.log() + square).sum(-1) / 2
    return b.weights[0] * (-divergence).exp()


def naive_variational_kl(p, q):
    log_ratio = similarity(p, p).sum(1).log() - similarity(p, q).sum(1).log()
    return (p.weights[0] * log_ratio).sum()


# %%
generator = torch.Generator().manual_seed(seed)
one = random_mixtures(1, 4, generator)
two = random_mixtures(1, 4, generator, components=5)
assert_close(variational_kl(one, two)[0, 0], naive_variational_kl(one, two))

# %% [markdown]
# ### What it is, and what it is not
#
# Both terms are bounded *from below*, and then one bound is taken from the other. So the difference is bounded from
# neither side. It is exact when each mixture has one component, where the shares are all 1; it is 0 when $p = q$; and
# it is good when each component of $p$ is near one of $q$ and far from all others, where $\log$ of a sum is the log of
# its largest term. Elsewhere it can be too large, too small, and even negative. In one dimension the true divergence is
# an integral that a fine grid computes to many digits, so we can look.


# %%
def true_kl(p, q, grid):
    """Divergences of mixtures on the line, pair by pair, on a fine grid."""
    points = grid.expand(len(p), -1).unsqueeze(2)
    log_p, log_q = p.log_prob(points), q.log_prob(points)
    return (log_p.exp() * (log_p - log_q)).sum(1) * (grid[1] - grid[0])


grid = torch.linspace(-40, 40, 8001)
left, right = (random_mixtures(400, 1, generator) for _ in range(2))
exact = true_kl(left, right, grid)
pairs = [variational_kl(left[i], right[i]) for i in range(400)]
variational = torch.cat(pairs).flatten()

# %% tags=["remove-cell"]
page.say(
    vkl_negative=int((variational < 0).sum()),
    vkl_above=int((variational > exact + 1e-9).sum()),
    vkl_below=int((variational < exact - 1e-9).sum()),
)

# %%
p3 = GaussianMixture(
    torch.tensor([[0.3, 0.4, 0.3]]),
    torch.tensor([[[-3.0], [0.2], [3.4]]]),
    torch.tensor([[[0.5], [1.2], [0.5]]]),
)
ends = torch.tensor([[[-1.5], [2.6]]]), torch.tensor([[[2.2], [1.6]]])
q2 = GaussianMixture(torch.tensor([[0.6, 0.4]]), *ends)
shares = similarity(p3, q2) / similarity(p3, q2).sum(1, keepdim=True)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: two mixtures on the line and the shares by which each component of p (top) chooses components of q (bottom): the wider the line, the larger the share. Right: the variational approximation against the true divergence for 400 random pairs. It falls on both sides of the diagonal, and some values are negative.", "name": "fig-03-variational"}, "image": {"alt": "Left, two mixture densities with lines of varying width between their components. Right, a scatter plot around the diagonal, with some points below zero marked as triangles."}}
figure = new_figure(7.4, 3.2)
axes, scatter = figure.subplots(1, 2)
x = torch.linspace(-6, 6, 400)
for mixture, sign, colour in ((p3, 1, BLUE), (q2, -1, VERMILION)):
    density = mixture.log_prob(x.view(1, -1, 1))[0].exp()
    base, top = sign * 0.35, sign * (0.35 + density)
    axes.fill_between(x, top, base, color=colour, alpha=0.45, lw=0)
    axes.text(-5.6, sign * 0.6, "p" if sign > 0 else "q", color=colour, fontsize=12)
for a, start in enumerate(p3.means[0, :, 0]):
    for b, end in enumerate(q2.means[0, :, 0]):
        axes.plot([start, end], [0.35, -0.35], color="black", lw=6 * shares[a, b])
axes.set(yticks=[], ylim=(-0.95, 0.95), xlabel="descriptor")
axes.spines["left"].set_visible(False)
bad = variational < 0
scatter.plot([0, 2], [0, 2], color="gray", lw=1)
scatter.axhline(0, color="gray", lw=1, ls=":")
scatter.scatter(exact[~bad], variational[~bad], s=10, color=BLUE, alpha=0.6, lw=0)
negative = {"color": VERMILION, "marker": "v", "label": "negative"}
scatter.scatter(exact[bad], variational[bad], s=22, **negative)
scatter.set(xlim=(-0.05, 2), ylim=(-0.15, 2))
scatter.set(xlabel="true divergence (nats)", ylabel="variational (nats)")
scatter.legend(frameon=False, loc="upper left")
figure

# %% [markdown]
# Of the 400 pairs in {numref}`fig-03-variational`, {glue:text}`03-vkl-above` lie above the truth,
# {glue:text}`03-vkl-below` below it, and {glue:text}`03-vkl-negative` are negative, which no divergence may be. The
# paper says as much in one sentence ("not a bound in itself"). For ranking that need not be fatal. It is a warning
# against reading the number as a distance.
#
# ## 2-Wasserstein distance
#
# ### The idea
#
# Think of $p$ as a heap of sand and of $q$ as the shape it should take. Each grain moves from $x$ to $y$, and pays
# $\norm{x - y}^2$. A *coupling* is a joint distribution of $(x, y)$ with marginals $p$ and $q$: a plan that says which
# grain goes where. The cheapest plan defines the squared 2-Wasserstein distance
# {cite:p}`c03-villani2009optimal,c03-peyre2019computational`,
#
# ```{math}
# :label: eq-03-w2-definition
# W_2^2(p, q) = \min_{x \sim p,\; y \sim q} \E \norm{x - y}^2 .
# ```
#
# It asks how far the mass has to go, in the units of the descriptors, and not how surprising it is. A direction in
# which $q$ is flat is then nothing special: the grains are pressed together, over a finite way.
#
# ### The formula
#
# Open the square. With $C = \operatorname{Cov}(x, y)$,
#
# ```{math}
# :label: eq-03-w2-open
# \E \norm{x - y}^2 = \norm{\mu_p - \mu_q}^2 + \tr \Sigma_p + \tr \Sigma_q - 2 \tr C .
# ```
#
# Only the cross-covariance $C$ is ours to choose. So the question is which $C$ can occur.
#
# ````{prf:lemma} Which cross-covariances can occur
# :label: thm-03-couplings
#
# Let $\Sigma_p = A A^\top$ and $\Sigma_q = B B^\top$, with any factors, square or not, of full rank or not. Random
# vectors with these covariances and the cross-covariance $C$ exist if and only if $C = A K B^\top$ for some $K$ with
# largest singular value at most 1.
# ````
#
# ````{prf:proof}
# *If.* Draw independent standard normal $z, w$ and put $x = A z$,
# $y = B \big( K^\top z + (I - K^\top K)^{1/2} w \big)$. The covariance of the bracket is $K^\top K + I - K^\top K = I$,
# so $y$ has covariance $B B^\top$, and $\E [x y^\top] = A K B^\top$.
#
# *Only if.* Let $x, y$ be centred and put $z = A^{+} x$, $w = B^{+} y$ with pseudo-inverses. Then $x = A z$ and
# $y = B w$ with probability one, because $x$ lies in the range of $A$; and the covariances of $z$ and $w$ are
# projections. Put $K = \E [z w^\top]$. Then $C = A K B^\top$, and by the Cauchy–Schwarz inequality
# $u^\top K v = \E [(u^\top z)(v^\top w)] \le \norm{u} \norm{v}$ for all $u, v$.
# ````
#
# ````{prf:theorem} 2-Wasserstein distance between Gaussians
# :label: thm-03-w2
#
# For Gaussians $p, q$ with covariances $\Sigma_p = A A^\top$, $\Sigma_q = B B^\top$ of any rank
#
# $$ W_2^2(p, q) = \norm{\mu_p - \mu_q}^2 + \tr \Sigma_p + \tr \Sigma_q - 2 F, \qquad F = \norm{A^\top B}_* $$
#
# where the nuclear norm $\norm{\cdot}_*$ is the sum of the singular values. For any other distributions with these
# means and covariances the right-hand side is a lower bound of $W_2^2$.
# ````
#
# ````{prf:proof}
# By {prf:ref}`thm-03-couplings` we maximise $\tr (A K B^\top) = \tr (K B^\top A)$. Let $A^\top B = U S V^\top$ be a
# singular value decomposition, so that $B^\top A = V S U^\top$. Then
# $\tr (K V S U^\top) = \sum_i s_i\, (U^\top K V)_{ii} \le \sum_i s_i$, because no entry of $U^\top K V$ exceeds 1; and
# $K = U V^\top$ reaches it. The proof has used means and covariances only, hence the bound for all distributions. The
# vectors built in the lemma are Gaussian, hence equality for Gaussians.
# ````
#
# This result is a classic {cite:p}`c03-dowson1982frechet,c03-olkin1982distance`; the bound is Gelbrich's
# {cite:p}`c03-gelbrich1990formula`. The number $F$ is called the *fidelity*. With the symmetric square roots as
# factors, $A^\top B = \Sigma_p^{1/2} \Sigma_q^{1/2}$, whose singular values are the roots of the eigenvalues of
# $\Sigma_p^{1/2} \Sigma_q \Sigma_p^{1/2}$. That is the paper's eq. 13,
#
# ```{math}
# :label: eq-03-w2
# W_2^2(p, q) = \norm{\mu_p - \mu_q}^2
#   + \tr \Big( \Sigma_p + \Sigma_q - 2 \big( \Sigma_p^{1/2} \Sigma_q \Sigma_p^{1/2} \big)^{1/2} \Big),
# ```
#
# where the paper writes $D_W$ for what is its square. Note what is absent: an inverse, a logarithm, a determinant. If a
# covariance loses rank, some singular values become zero, and that is all. The naive version below is eq.
# {eq}`eq-03-w2` with its three matrix square roots; the short one is the theorem.


# %%
def root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.mT


def naive_w2(p, q):
    half = root(p.cov[0])
    spread = p.cov[0] + q.cov[0] - 2 * root(half @ q.cov[0] @ half)
    return (p.mean[0] - q.mean[0]).square().sum() + spread.trace()


def short_w2(p, q):
    fidelity = torch.linalg.svdvals(p.factor[0].mT @ q.factor[0]).sum()
    spread = p.cov[0].trace() + q.cov[0].trace() - 2 * fidelity
    return (p.mean[0] - q.mean[0]).square().sum() + spread


assert_close(wasserstein2_squared(p, q)[0, 0], naive_w2(p, q))

# %% [markdown]
# Why care about factors? Because the descriptors themselves are one. The sample covariance of $N$ descriptors is
# $A A^\top$ with the centred descriptors, divided by $\sqrt N$, as the columns of $A$. With the paper's 169 descriptors
# in 512 dimensions $A^\top B$ is a 169 × 169 matrix and nothing of size 512 × 512 is ever factorised. Here are 20
# descriptors in 50 dimensions, a covariance of rank 19:

# %%
flat = fit_gaussian(torch.randn(2, 20, 50, generator=generator))
print("rank", int(torch.linalg.matrix_rank(flat.cov[0])), "of", flat.dim)
short = short_w2(flat[0], flat[1])
assert_close(wasserstein2_squared(flat[0], flat[1])[0, 0], short)
assert_close(naive_w2(flat[0], flat[1]), short)

# %% [markdown]
# Two more consequences. $W_2$ is a metric: put three random vectors $x, y, z$ on one probability space, with $x, y$ and
# $y, z$ coupled optimally, and the triangle inequality of the norm $\sqrt{\E \norm{\cdot}^2}$ is that of $W_2$. And the
# lower bound says what the formula means for images, whose descriptors are *not* normal: it is the part of the
# transport cost that means and covariances already enforce. We test that on the two patches. With equally many points
# the exact cost of moving one cloud onto the other is an assignment problem.

# %%
from scipy.optimize import linear_sum_assignment

cost = torch.cdist(pair_descriptors[0], pair_descriptors[1]).square()
exact_cost = cost[linear_sum_assignment(cost.numpy())].mean()
gaussian_cost = wasserstein2_squared(pair_gaussians, pair_gaussians)[0, 1]
assert gaussian_cost <= exact_cost

# %% tags=["remove-cell"]
page.say(exact_w2=exact_cost.sqrt(), gaussian_w2=gaussian_cost.sqrt())

# %% [markdown]
# Between brick and grass the exact distance of the clouds is {glue:text}`03-exact-w2:.2f`; the Gaussian formula gives
# {glue:text}`03-gaussian-w2:.2f`, as it must, below it.
#
# ## Affine-invariant Riemannian distance
#
# ### The idea
#
# A descriptor has no natural units. One channel of a network may be a thousand times larger than another for no deep
# reason. So let us ask for a distance between covariances that does not change when *both* images are seen in other
# coordinates $x \mapsto G x$, which turns $\Sigma$ into $G \Sigma G^\top$: a *congruence*. How many such distances are
# there? The next theorem says that they all look at the same few numbers.
#
# ````{prf:theorem} A pair of covariances is its spectrum
# :label: thm-03-pencil
#
# For positive definite $\Sigma_p, \Sigma_q$ there is an invertible $G$ with $G \Sigma_p G^\top = I$ and
# $G \Sigma_q G^\top = \diag(\lambda_1, \dots, \lambda_D)$, where the $\lambda_c > 0$ are the eigenvalues of
# $\Sigma_p^{-1} \Sigma_q$. So a function of the pair is invariant under all common congruences if and only if it is a
# symmetric function of $\lambda_1, \dots, \lambda_D$.
# ````
#
# ````{prf:proof}
# Let $\Sigma_p = L L^\top$ and let $L^{-1} \Sigma_q L^{-\top} = U \diag(\lambda)\, U^\top$ be an eigendecomposition.
# $G = U^\top L^{-1}$ does it, and $L^{-1} \Sigma_q L^{-\top}$ is similar to $\Sigma_p^{-1} \Sigma_q$. An invariant
# function takes the same value at $(I, \diag \lambda)$, and permuting the axes is a congruence too. Conversely the
# eigenvalues are invariant:
# $(G \Sigma_p G^\top)^{-1} G \Sigma_q G^\top = G^{-\top} (\Sigma_p^{-1} \Sigma_q)\, G^{\top}$ is similar to
# $\Sigma_p^{-1} \Sigma_q$.
# ````
#
# ### The formula
#
# The $\lambda_c$ are ratios of variances, and ratios are compared by logarithms: growing by a factor of two is as far
# as shrinking by a factor of two. The simplest length of the vector of log-ratios is the Euclidean one, and that is the
# paper's eq. 14 {cite:p}`c03-forstner2003metric,c03-pennec2006riemannian`:
#
# ```{math}
# :label: eq-03-affine-invariant
# d(p, q) = \norm{ \log \big( \Sigma_p^{-1/2} \Sigma_q \Sigma_p^{-1/2} \big) }_F
#   = \Big[ \sum_{c=1}^{D} \log^2 \lambda_c(\Sigma_p^{-1} \Sigma_q) \Big]^{1/2} .
# ```
#
# It is the length of the shortest path in the space of positive definite matrices, if the length of a small step
# $d\Sigma$ at $\Sigma$ is $\norm{\Sigma^{-1/2}\, d\Sigma\, \Sigma^{-1/2}}_F$, hence a metric
# {cite:p}`c03-bhatia2007positive`. Up to a factor $\sqrt 2$ it is the Fisher–Rao distance of the zero-mean Gaussians
# {cite:p}`c03-skovgaard1984riemannian`. The means do not enter.


# %%
def naive_affine_invariant(p, q):
    values, vectors = torch.linalg.eigh(p.cov[0])
    whitener = (vectors * values.rsqrt()) @ vectors.mT
    ratios = torch.linalg.eigvalsh(whitener @ q.cov[0] @ whitener)
    return ratios.log().square().sum().sqrt()


def congruent(g, matrix):
    """The same images, all seen through one common linear map."""
    return Gaussian(g.mean @ matrix.mT, matrix @ g.cov @ matrix.mT)


matrix = torch.randn(2, 2, generator=generator)
distance = affine_invariant_distance(p, q)
assert_close(distance[0, 0], naive_affine_invariant(p, q))
seen_otherwise = affine_invariant_distance(congruent(p, matrix), congruent(q, matrix))
assert_close(seen_otherwise, distance)

# %% [markdown]
# The paper draws a wide conclusion from this invariance: the distance would stay the same however the images are
# rescaled, whitened or filtered. It does not. The theorem is about *one* $G$ for *both* images, applied to descriptors.
# {doc}`05_errata` executes the difference on photographs.
#
# ## Stein divergence
#
# ### The idea
#
# The affine-invariant distance costs the eigenvalues of a D × D matrix for each pair. The paper's outlook proposes a
# cheaper relative. The function $-\log |\Sigma|$ is convex, and for a convex function the mean of two values exceeds
# the value at the mean. The gap is a divergence {cite:p}`c03-sra2012new`:
#
# ```{math}
# :label: eq-03-stein
# S(p, q) = \log \left| \tfrac12 (\Sigma_p + \Sigma_q) \right| - \tfrac12 \log |\Sigma_p| - \tfrac12 \log |\Sigma_q| .
# ```
#
# A congruence adds $2 \log |\det G|$ to each of the three terms with weights $1, -\tfrac12, -\tfrac12$, so nothing: it
# is affine-invariant. A Cholesky factor for each pair suffices. It is also twice the Bhattacharyya distance
# $-\log \int \sqrt{p\,q}$ of the two zero-mean Gaussians, one of the distances named in the paper's introduction.


# %%
def naive_stein(p, q):
    middle = (p.cov[0] + q.cov[0]) / 2
    return log_det(middle) - (log_det(p.cov[0]) + log_det(q.cov[0])) / 2


assert_close(stein_divergence(p, q)[0, 0], naive_stein(p, q))

# %% [markdown]
# Is its root a metric? Sra proved that it is. The full proof needs eigenvalue inequalities, but its heart is the
# case of numbers, and that is short.
#
# ````{prf:theorem} Sra
# :label: thm-03-stein
#
# $\sqrt{S}$ is a metric on positive definite matrices.
# ````
#
# ````{prf:proof}
# (Sketch: the case of positive numbers.) There $S(x, y) = \log (x + y) - \tfrac12 \log (2x) - \tfrac12 \log (2y)$, so
# $S(x, y) = k(x, y) - \tfrac12 k(x, x) - \tfrac12 k(y, y)$ with $k(x, y) = \log (x + y)$. Write
# $k(x, y) = \int_0^\infty \big( e^{-s} - e^{-s x} e^{-s y} \big)\, s^{-1} ds$. For numbers $c_i$ with $\sum_i c_i = 0$
# this gives $\sum_{ij} c_i c_j k(x_i, x_j) = - \int_0^\infty \big( \sum_i c_i e^{-s x_i} \big)^2 s^{-1} ds \le 0$: the
# kernel is conditionally negative. By Schoenberg's theorem {cite:p}`c03-schoenberg1938metric` $\sqrt{S}$ is then the
# distance between points of a Hilbert space. For matrices that is no longer true, but the triangle inequality survives
# {cite:p}`c03-sra2012new`.
# ````
#
# ## One picture of three distances
#
# {prf:ref}`thm-03-pencil` lets us put three of our distances side by side. In the coordinates where $\Sigma_p = I$ and
# $\Sigma_q = \diag(\lambda)$ write $t_c = \log \lambda_c$, the log-ratio of variances along axis $c$. A line of algebra
# for each, with equal means:
#
# ```{math}
# :label: eq-03-spectrum
# D_{\mathrm{sym}} = \sum_c \sinh^2 \frac{t_c}{2}, \qquad
# d^2 = \sum_c t_c^2, \qquad
# S = \sum_c \log \cosh \frac{t_c}{2} .
# ```
#
# All three add up one function of the log-ratios. The functions agree for small $t$, up to the factors 4, 1 and 8; and
# since $\log \cosh u \le u^2/2$ and $u^2 \le \sinh^2 u$,
#
# ```{math}
# :label: eq-03-chain
# 8\, S(p, q) \;\le\; d^2(p, q) \;\le\; 4\, D_{\mathrm{sym}}(p, q).
# ```
#
# For large $t$ they part company ({numref}`fig-03-spectrum`). A direction in which one image has a thousandth of the
# variance of the other has $|t| \approx 7$. The symmetric KL counts it exponentially, $e^{|t|}/4$; the Riemannian
# distance quadratically; Stein linearly, $|t|/2$. So this one number tells how much an image model's *smallest*
# variances, the ones estimated worst, rule the distance.

# %%
pencil = torch.cholesky_solve(q.cov[0], torch.linalg.cholesky(p.cov[0]))
t = torch.linalg.eigvals(pencil).real.log()
shape_p, shape_q = covariance_only(p), covariance_only(q)
assert_close(symmetric_kl(shape_p, shape_q)[0, 0], (t / 2).sinh().square().sum())
assert_close(affine_invariant_distance(p, q)[0, 0], t.square().sum().sqrt())
assert_close(stein_divergence(p, q)[0, 0], (t / 2).cosh().log().sum())

# %% mystnb={"figure": {"caption": "What one direction contributes to three affine-invariant distances, as a function of the log-ratio of its variances, scaled to agree at zero. The symmetric KL grows exponentially, the Riemannian distance quadratically, Stein's divergence linearly.", "name": "fig-03-spectrum"}, "image": {"alt": "Three curves that touch at zero: a steep exponential one, a parabola, and one that becomes straight."}}
t = torch.linspace(-7, 7, 300)
curves = {
    "symmetric KL, $4\\,\\sinh^2(t/2)$": 4 * (t / 2).sinh() ** 2,
    "affine-invariant, $t^2$": t**2,
    "Stein, $8\\,\\log\\cosh(t/2)$": 8 * (t / 2).cosh().log(),
}
figure = new_figure(6.4, 3.4)
axes = figure.subplots()
draw_lines(axes, t, curves, (VERMILION, GREEN, PURPLE), lw=2)
places = ((3.7, 60, "right"), (6.95, 37, "left"), (6.95, 8, "left"))
for (x, y, side), line in zip(places, axes.lines, strict=True):
    axes.text(x, y, line.get_label(), color=line.get_color(), ha=side)
axes.set(xlim=(-7, 7), ylim=(0, 70), ylabel="contribution")
axes.set_xlabel("t, log of the ratio of variances in one direction")
figure

# %% [markdown]
# ## Log-Euclidean distance
#
# ### The idea and the formula
#
# The matrix logarithm maps positive definite matrices onto *all* symmetric matrices, a flat vector space. So take
# logarithms once for each image and measure straight lines there {cite:p}`c03-arsigny2006log`:
#
# ```{math}
# :label: eq-03-log-euclidean
# d_{\mathrm{LE}}(p, q) = \norm{ \log \Sigma_p - \log \Sigma_q }_F .
# ```
#
# That is a metric at once, because it is a Euclidean distance of $\log \Sigma$; and the image becomes an ordinary
# vector, ready for any nearest-neighbour library. The price is invariance: rotations, scalings and inversion remain,
# general congruences do not. If the two covariances commute it equals the affine-invariant distance; otherwise it is at
# most that, because the exponential map of this curved space only stretches {cite:p}`c03-bhatia2007positive`.


# %%
def naive_log_euclidean(p, q):
    def log(matrix):
        values, vectors = torch.linalg.eigh(matrix)
        return (vectors * values.log()) @ vectors.mT

    return torch.linalg.matrix_norm(log(p.cov[0]) - log(q.cov[0]))


assert_close(log_euclidean_distance(p, q)[0, 0], naive_log_euclidean(p, q))
assert log_euclidean_distance(p, q) <= affine_invariant_distance(p, q)

# %% [markdown]
# ## What lies between two images
#
# A distance with a geometry has shortest paths, and a path shows a geometry better than a number. How does one ellipse
# turn into another?
#
# - **Wasserstein**: each grain travels in a straight line to its goal, and we look at the heap at time $t$
#   {cite:p}`c03-mccann1997convexity,c03-takatsu2011wasserstein`. With $A^\top B = U S V^\top$ as in
#   {prf:ref}`thm-03-w2`, $x = A z$ and $y = B V U^\top z$, the factor at time $t$ is $(1 - t) A + t B V U^\top$. Again
#   no inverse.
# - **Affine-invariant**: $L (L^{-1} \Sigma_q L^{-\top})^t L^\top$ with $\Sigma_p = L L^\top$. The log-ratios $t_c$ go
#   to zero at a constant pace.
# - **Log-Euclidean**: $\exp ((1 - t) \log \Sigma_p + t \log \Sigma_q)$.
# - **Kullback–Leibler** has no shortest paths, since it is no metric, but it has weighted means: the Gaussian $m$
#   that makes $(1 - t) \KL(p \| m) + t \KL(q \| m)$ smallest has the mean and the covariance of the mixture
#   $(1 - t)\, p + t\, q$. That is the paper's eq. 1 with two components.


# %%
def spectral(matrix, function):
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * function(values)) @ vectors.mT


def wasserstein_path(a, b, t):
    left, right = torch.linalg.cholesky(a), torch.linalg.cholesky(b)
    u, _, vt = torch.linalg.svd(left.mT @ right)
    factor = (1 - t) * left + t * right @ (u @ vt).mT
    return factor @ factor.mT


def riemannian_path(a, b, t):
    lower = torch.linalg.cholesky(a)
    inner = torch.linalg.solve_triangular(lower, b, upper=False)
    inner = torch.linalg.solve_triangular(lower, inner.mT, upper=False)
    return lower @ spectral(inner, lambda values: values**t) @ lower.mT


# %%
def log_euclidean_path(a, b, t):
    between = (1 - t) * spectral(a, torch.log) + t * spectral(b, torch.log)
    return spectral(between, torch.exp)


def moment_path(a, b, t, shift):
    return (1 - t) * a + t * b + t * (1 - t) * torch.outer(shift, shift)


# %% [markdown]
# On a shortest path the distance from the start must grow in proportion to $t$. That is a sharp test of both the path
# and the distance, so we let the page run it.

# %%
paths = {
    "wasserstein": (wasserstein_path, wasserstein2),
    "affine-invariant": (riemannian_path, affine_invariant_distance),
    "log-Euclidean": (log_euclidean_path, log_euclidean_distance),
}
for path, distance in paths.values():
    whole = distance(shape_p, shape_q)
    for t in (0.25, 0.5, 0.75):
        between = Gaussian(torch.zeros(1, 2), path(p.cov[0], q.cov[0], t)[None])
        assert_close(distance(shape_p, between), t * whole)

# %%
start, end = turned_covariance(0.15, 1.7, 0.3), turned_covariance(-1.25, 1.2, 0.35)
shift = torch.tensor([3.0, 0.0])
rows = {
    "moments (KL)": lambda t: moment_path(start, end, t, shift),
    "Wasserstein": lambda t: wasserstein_path(start, end, t),
    "affine-inv.": lambda t: riemannian_path(start, end, t),
    "log-Euclid.": lambda t: log_euclidean_path(start, end, t),
}
times = torch.linspace(0, 1, 41)
areas = {}
for name, path in rows.items():
    variances = torch.stack([torch.linalg.eigvalsh(path(t)) for t in times])
    area = variances.prod(dim=1).sqrt()
    areas[name] = area / (area[0] * area[-1]).sqrt()

# %% tags=["hide-input"] mystnb={"figure": {"caption": "From one ellipse to another in seven frames. Rows: moments (the mean in the sense of KL), Wasserstein, affine-invariant, log-Euclidean. The last two know nothing of means; there the centre is moved along a straight line. Right: the area on the way, relative to the geometric mean of the two ends.", "name": "fig-03-paths"}, "image": {"alt": "Four rows of ellipses between the same two ends. The moment ellipses swell in the middle, the Wasserstein ones turn with a moderate area, the others keep the area between the two ends."}}
colours = (VERMILION, BLUE, GREEN, ORANGE)
figure = new_figure(7.6, 3.6)
axes, area = figure.subplots(1, 2, width_ratios=[3.2, 1])
for row, ((name, path), colour) in enumerate(zip(rows.items(), colours, strict=True)):
    for frame, t in enumerate(torch.linspace(0, 1, 7)):
        outline = ellipse(path(t), (3.4 * frame, -3.6 * row))
        axes.fill(*outline, color=colour, alpha=0.55, lw=0)
    axes.text(-2.2, -3.6 * row, name, color=colour, ha="right", va="center")
axes.set_aspect("equal")
axes.axis("off")
draw_lines(area, times, areas, colours, lw=2)
area.set(xlabel="t", ylabel="area", xticks=[0, 0.5, 1])
figure

# %% [markdown]
# {numref}`fig-03-paths` shows four ideas of "between". The moments swell: the KL mean must cover both ends at once.
# Wasserstein moves mass, so a thin ellipse turns, and fattens somewhat on the way. The affine-invariant path has its
# area rise in a straight line on a log scale, and so has the log-Euclidean one:
# $\log|\Sigma_t| = (1-t) \log|\Sigma_p| + t \log|\Sigma_q|$ for both.
#
# ## Balls
#
# Which Gaussians are *near* a given one? On the line a Gaussian is a point $(\mu, \sigma)$ of the upper half-plane, so
# balls can be drawn. For Wasserstein eq. {eq}`eq-03-w2` reads $(\mu - \mu')^2 + (\sigma - \sigma')^2$: balls are round
# and equally large everywhere. For KL the half-plane is curved: near $\sigma = 0$ a small shift is a large surprise.
# The affine-invariant distance, which ignores means, has strips for balls ({numref}`fig-03-balls`).


# %%
def root_of(divergence):
    return lambda p, q: divergence(p, q).sqrt()


across, up = torch.linspace(-1.7, 1.7, 161), torch.linspace(0.02, 2.5, 161)
mu, sigma = torch.meshgrid(across, up, indexing="xy")
plane = Gaussian(mu.reshape(-1, 1), sigma.reshape(-1, 1, 1) ** 2)
centres = torch.tensor([[-1.1, 0.3], [1.1, 0.3], [-0.5, 1.0], [0.6, 1.8]])
panels = (
    ("Wasserstein", wasserstein2, BLUE, (0, 1, 2, 3)),
    ("root of symmetric KL", root_of(symmetric_kl), VERMILION, (0, 1, 2, 3)),
    ("affine-invariant", affine_invariant_distance, GREEN, (0, 3)),
)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Balls of radius one half around four Gaussians on the line (dots), as level lines in the plane of means and standard deviations. The Wasserstein balls are equal discs, cut off at the bottom; KL balls shrink towards zero deviation; affine-invariant balls are strips (two of the four are drawn).", "name": "fig-03-balls"}, "image": {"alt": "Three panels of the half-plane: equal circles, circles that grow with height, and horizontal strips."}}
figure = new_figure(7.6, 2.9)
grid = figure.subplots(1, 3, sharey=True)
for axes, (name, distance, colour, shown) in zip(grid, panels, strict=True):
    for i in shown:
        centre = Gaussian(centres[i, :1][None], centres[i, 1].square().view(1, 1, 1))
        values = distance(centre, plane).view_as(mu)
        axes.contourf(mu, sigma, values, levels=[0, 0.5], colors=[colour], alpha=0.3)
        axes.contour(mu, sigma, values, levels=[0.5], colors=[colour])
        axes.plot(*centres[i], "o", color="black", ms=4)
    axes.set(xlabel=f"mean\n{name}", ylim=(0, 2.5), aspect="equal")
grid[0].set_ylabel("standard deviation")
figure

# %% [markdown]
# ## Shift, growth, and going flat
#
# Now three experiments that a texture can undergo. A round Gaussian in the plane is *shifted*; it is *scaled*; and its
# second axis is *flattened* until it vanishes. For divergences we draw the root, which behaves like a distance.


# %%
variants = {
    "root of symmetric KL": root_of(symmetric_kl),
    "Wasserstein": wasserstein2,
    "affine-invariant": affine_invariant_distance,
    "root of Stein": root_of(stein_divergence),
}

# %%
amount = torch.linspace(0, 4, 81)
factor = torch.logspace(-1.2, 1.2, 81)  # 1 in the middle
thinness = torch.logspace(0, -8, 81)
still, circle = torch.zeros(81, 2), torch.eye(2).repeat(81, 1, 1)
shifted = Gaussian(torch.stack([amount, 0 * amount], dim=1), circle)
scaled = Gaussian(still, factor.square()[:, None, None] * circle)
flattened = Gaussian(still, circle.clone())
flattened.cov[:, 1, 1] = thinness

# %% mystnb={"figure": {"caption": "How four distances from the standard normal grow when it is shifted (left), scaled (middle), or flattened in one direction (right, the variance in that direction falls to the right). Going flat sends KL to infinity like a power, the Riemannian distance like a logarithm, the root of Stein like the root of a logarithm; Wasserstein stops at one.", "name": "fig-03-growth"}, "image": {"alt": "Three panels of curves. Left, KL and Wasserstein rise in straight lines and the others stay at zero. Middle, valleys around scale one. Right, KL explodes, the affine-invariant distance rises steadily, Wasserstein stays below one."}}
figure = new_figure(7.6, 3.4)
grid = figure.subplots(1, 3)
experiments = ((amount, shifted), (factor, scaled), (thinness, flattened))
for axes, (x, family) in zip(grid, experiments, strict=True):
    curves = {
        name: distance(scaled[40], family)[0] for name, distance in variants.items()
    }
    draw_lines(axes, x, curves, (VERMILION, BLUE, GREEN, PURPLE), lw=2)
grid[0].set(xlabel="shift of the mean", ylabel="distance", ylim=(0, 4.5))
grid[1].set(xlabel="scale", xscale="log", ylim=(0, 8))
grid[2].set(xlabel="variance left", xscale="log", ylim=(0, 8), xticks=[1, 1e-4, 1e-8])
grid[2].invert_xaxis()
shared_legend(figure)
figure

# %% [markdown]
# {numref}`fig-03-growth` is the chapter in one figure. Flatten one direction to a variance $\varepsilon$: the log-ratio
# is $t = \log \varepsilon$, so by eq. {eq}`eq-03-spectrum` $D_{\mathrm{sym}}$ grows like $1/(4\varepsilon)$, $d$ like
# $|\log \varepsilon|$, $S$ like $\tfrac12 |\log \varepsilon|$. The Wasserstein distance tends to 1: the standard
# deviation that had to be pressed flat. All but the last are infinite at the end, and deep descriptors live near that
# end: 169 points in 512 dimensions *are* flat.
#
# ## Mixture Wasserstein distance
#
# ### The idea
#
# One Gaussian is a coarse portrait. For mixtures the exact $W_2$ has no formula, and the cheapest plan between two
# mixtures need not be a mixture. Delon and Desolneux {cite:p}`c03-delon2020wasserstein` restrict the plans to mixtures,
# and then everything becomes finite: ship whole components, and pay for each shipment the $W_2^2$ of the two Gaussians.
#
# ```{math}
# :label: eq-03-mixture-w2
# MW_2^2(p, q) = \min_{\pi \ge 0} \sum_{ab} \pi_{ab}\, W_2^2(p_a, q_b), \qquad
#   \sum_b \pi_{ab} = \omega_a, \quad \sum_a \pi_{ab} = \omega'_b .
# ```
#
# That is a linear program in $K \times L$ numbers. Its root is a metric on mixtures. Fewer plans cost more, so
# $MW_2 \ge W_2$; and a mixture has the mean and covariance of its collapse $\tilde p$ (the paper's eq. 1), so
# {prf:ref}`thm-03-w2` bounds it from the other side:
#
# ```{math}
# :label: eq-03-sandwich
# W_2^2(\tilde p, \tilde q) \;\le\; W_2^2(p, q) \;\le\; MW_2^2(p, q).
# ```

# %%
import ot


def naive_mixture_w2(p, q):
    parts = [Gaussian(m.means[0], torch.diag_embed(m.variances[0])) for m in (p, q)]
    cost = wasserstein2_squared(*parts)
    masses = p.weights[0].numpy(), q.weights[0].numpy()
    return torch.tensor(ot.emd2(*masses, cost.numpy()))


mixture_cost = naive_mixture_w2(one, two)
assert_close(mixture_wasserstein2_squared(one, two)[0, 0], mixture_cost)
assert wasserstein2_squared(one.collapse(), two.collapse()) <= mixture_cost

# %% [markdown]
# Does the difference between a mixture and its collapse matter? Here is an extreme case. Three blobs on a triangle and
# three blobs on the same triangle upside down have the same mean and the same covariance. Every distance between single
# Gaussians calls them equal.

# %%
angles = 2 * torch.pi * torch.arange(3) / 3 + torch.pi / 2
corners = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)
third, width = torch.full((1, 3), 1 / 3), torch.full((1, 3, 2), 0.12)
up = GaussianMixture(third, corners[None], width)
down = GaussianMixture(third, -corners[None], width)
collapsed = wasserstein2_squared(up.collapse(), down.collapse())
assert_close(collapsed, torch.zeros(1, 1), atol=1e-12, rtol=0)
whole = mixture_wasserstein2_squared(up, down)

# %% tags=["remove-cell"]
page.say(triangle_mw=whole.sqrt())

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Three blobs (blue) and three blobs (orange) with the same mean and covariance: the dashed ellipse is the collapse of both. Grey lines: the optimal shipments between components.", "name": "fig-03-triangles"}, "image": {"alt": "Two interleaved triangles of blobs, one pointing up and one down, inside one dashed circle, with a line from each blob to a neighbour of the other colour."}}
cost = torch.cdist(corners, -corners).square()
plan = torch.tensor(ot.emd(third[0].numpy(), third[0].numpy(), cost.numpy()))
figure = new_figure(3.4, 3.0)
axes = figure.subplots()
for a, b in (plan > 1e-9).nonzero().tolist():
    ends = torch.stack([corners[a], -corners[b]])
    axes.plot(*ends.mT, color="gray", lw=9 * plan[a, b].item(), zorder=0)
for mixture, colour in ((up, BLUE), (down, VERMILION)):
    for mean, variance in zip(mixture.means[0], mixture.variances[0], strict=True):
        for radius in (1, 2):
            outline = ellipse(torch.diag(variance), mean, radius)
            axes.fill(*outline, color=colour, alpha=0.35, lw=0)
axes.plot(*ellipse(up.collapse().cov[0]), "k--", lw=1.5)
axes.set_aspect("equal")
axes.axis("off")
figure

# %% [markdown]
# The collapse of both mixtures in {numref}`fig-03-triangles` is the same Gaussian, at distance 0; the mixture
# distance is {glue:text}`03-triangle-mw:.2f`.
#
# ## Sinkhorn divergence
#
# ### The idea
#
# Why model the descriptors at all? Two clouds of $n$ points can be transported onto each other as they are. The exact
# optimal plan is slow and jumps when a point moves. Cuturi {cite:p}`c03-cuturi2013sinkhorn` adds a charge for plans
# that are far from sharing everything evenly:
#
# ```{math}
# :label: eq-03-entropic
# \mathrm{OT}_\varepsilon(\alpha, \beta) = \min_{\pi \in \Pi(\alpha, \beta)} \sum_{ij} \pi_{ij} \norm{x_i - y_j}^p
#   + \varepsilon\, \KL(\pi \,\|\, \alpha \otimes \beta).
# ```
#
# The best plan then has the form $\pi_{ij} = \alpha_i \beta_j\, e^{(f_i + g_j - C_{ij}) / \varepsilon}$, where
# $C_{ij} = \norm{x_i - y_j}^p$ and two vectors $f, g$ are to be found. Ask that the rows of $\pi$ sum to $\alpha_i$:
# that gives $f$ from $g$. Ask it of the columns: that gives $g$ from $f$. Repeat. These are Sinkhorn's iterations,
#
# ```{math}
# :label: eq-03-sinkhorn
# f_i \leftarrow -\varepsilon \log \sum_j \beta_j\, e^{(g_j - C_{ij}) / \varepsilon}, \qquad
# g_j \leftarrow -\varepsilon \log \sum_i \alpha_i\, e^{(f_i - C_{ij}) / \varepsilon},
# ```
#
# and in the end $\mathrm{OT}_\varepsilon = \sum_i \alpha_i f_i + \sum_j \beta_j g_j$. One flaw remains:
# $\mathrm{OT}_\varepsilon(\alpha, \alpha)$ is not 0, because the charge forbids the plan that leaves all in place.
# Taking the self terms away repairs it, for $p = 1$ and $p = 2$ {cite:p}`c03-feydy2019interpolating`:
#
# ```{math}
# :label: eq-03-sinkhorn-divergence
# S_\varepsilon(\alpha, \beta) = \mathrm{OT}_\varepsilon(\alpha, \beta)
#   - \tfrac12 \mathrm{OT}_\varepsilon(\alpha, \alpha) - \tfrac12 \mathrm{OT}_\varepsilon(\beta, \beta) \;\ge\; 0 .
# ```


# %%
def entropic_cost(x, y, epsilon, p=1, steps=500):
    cost = torch.cdist(x, y) ** p
    log_a, log_b = -math.log(len(x)), -math.log(len(y))
    f, g = torch.zeros(len(x), 1), torch.zeros(1, len(y))
    for _ in range(steps):
        f = -epsilon * ((g - cost) / epsilon + log_b).logsumexp(1, keepdim=True)
        g = -epsilon * ((f - cost) / epsilon + log_a).logsumexp(0, keepdim=True)
    return f.mean() + g.mean()


# %%
turn = torch.rand(60, generator=generator) * torch.pi
noise = 0.12 * torch.randn(2, 60, 2, generator=generator)
moon = 1.5 * torch.stack([turn.cos(), turn.sin()], 1) + noise[0]
blob = torch.tensor([2.2, -0.6]) + 3 * noise[1]
own = entropic_cost(moon, moon, 0.3) + entropic_cost(blob, blob, 0.3)
naive_sinkhorn = entropic_cost(moon, blob, 0.3) - own / 2
from_package = sinkhorn_divergence(moon[None], blob[None], epsilon=0.3)
assert_close(from_package[0], naive_sinkhorn)

# %% [markdown]
# The parameter $\varepsilon$ leads from one known distance to another. As $\varepsilon \to 0$ the charge vanishes and
# $S_\varepsilon$ becomes the exact transport cost. As $\varepsilon \to \infty$ the plan becomes $\alpha \otimes \beta$,
# and for $p = 1$ what remains is $\E \norm{x - y} - \tfrac12 \E \norm{x - x'} - \tfrac12 \E \norm{y - y'}$, half the
# energy distance of statistics {cite:p}`c03-szekely2013energy`. We compute both ends and the way between
# ({numref}`fig-03-sinkhorn`).

# %%
cost = torch.cdist(moon, blob)
exact_end = cost[linear_sum_assignment(cost.numpy())].mean()
own = torch.cdist(moon, moon).mean() + torch.cdist(blob, blob).mean()
energy_end = cost.mean() - own / 2

strengths = torch.logspace(-2.3, 2, 22).tolist()
clouds = moon[None], blob[None]
debiased = torch.cat([sinkhorn_divergence(*clouds, epsilon=e) for e in strengths])
biased = [entropic_cost(moon, blob, e, steps=100) for e in strengths]
assert_close(debiased[-1], energy_end, rtol=0.02, atol=0)
assert_close(debiased[0], exact_end, rtol=0.02, atol=0)


# %%
def entropic_plan(x, y, epsilon, steps=2000):
    kernel = (-torch.cdist(x, y).square() / epsilon).exp()
    v = torch.ones(len(y))
    for _ in range(steps):
        u = 1 / (kernel @ v)
        v = 1 / (kernel.mT @ u)
    return u[:, None] * kernel * v


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left and middle: entropic plans between two clouds for the squared cost and a small and a large regularisation, drawn for five of the points; the wider the line, the more mass travels along it. Right: the debiased divergence leads from the exact transport cost to half the energy distance as the regularisation grows; the biased cost does not.", "name": "fig-03-sinkhorn"}, "image": {"alt": "Two panels with lines between a crescent of points and a blob, sharp in the first and diffuse in the second, and a curve falling between two horizontal lines."}}
figure = new_figure(7.6, 3.1)
small, large, curve = figure.subplots(1, 3, width_ratios=[1, 1, 1.25])
for axes, strength in ((small, 0.1), (large, 3.0)):
    plan = entropic_plan(moon, blob, strength)
    for i in moon[:, 0].argsort()[::12].tolist():
        for j, mass in enumerate(plan[i].tolist()):
            axes.plot(*torch.stack([moon[i], blob[j]]).mT, color="dimgray", lw=8 * mass)
    axes.scatter(*moon.mT, s=9, color=BLUE, zorder=3)
    axes.scatter(*blob.mT, s=9, color=VERMILION, marker="^", zorder=3)
    axes.set(xticks=[], yticks=[], aspect="equal")
    close_frame(axes)
    axes.set_xlabel(f"$\\varepsilon$ = {strength}")
draw_lines(curve, strengths, {"debiased": debiased, "biased": biased}, lw=2)
for level, name in ((exact_end, "exact cost"), (energy_end, "half energy distance")):
    curve.axhline(level, color="gray", lw=1, ls=":")
    look = {"va": "top", "ha": "right", "fontsize": 9, "color": "dimgray"}
    curve.text(100, level - 0.08, name, **look)
curve.set(xlabel="$\\varepsilon$", xscale="log", ylim=(0, 3.2))
curve.legend(frameon=False, loc="lower left")
figure

# %% [markdown]
# What does the bias do? Let a cloud follow the gradient of each cost towards a target. A cost whose minimum is at the
# target leads there ({numref}`fig-03-bias`). The biased one prefers a cloud that has *shrunk*: if all mass must be
# shared out anyway, it is cheaper to stand in the middle. For retrieval this means that the biased cost may find a
# concentrated image nearer to everything.


# %%
def follow(loss, x, rate, steps=60):
    for _ in range(steps):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(x), x)
        x = x - rate * len(x) * gradient
    return x.detach()


def with_bias(x):
    return entropic_cost(x, moon, epsilon=2.0, p=2, steps=30)


def without_bias(x):
    return sinkhorn_divergence(x[None], moon[None], p=2, epsilon=2.0)[0]


start_cloud = torch.tensor([1.8, 1.2]) + 2 * noise[1]
by_biased = follow(with_bias, start_cloud, rate=0.2)
by_debiased = follow(without_bias, start_cloud, rate=0.2)

# %% mystnb={"figure": {"caption": "A cloud (orange) after sixty steps of gradient descent on the entropic cost to a crescent (blue dots), biased (left) and debiased (right), with the same regularisation.", "name": "fig-03-bias"}, "image": {"alt": "Left, the moving points have gathered inside the crescent. Right, they cover it."}}
figure = new_figure(6.4, 2.5)
followers = {"biased": by_biased, "debiased": by_debiased}
for axes, (name, cloud) in zip(figure.subplots(1, 2), followers.items(), strict=True):
    axes.scatter(*moon.mT, s=12, color=BLUE, alpha=0.6)
    axes.scatter(*cloud.mT, s=16, color=VERMILION, marker="^", lw=0)
    axes.set(xticks=[], yticks=[], xlabel=name)
    close_frame(axes)
    axes.set(aspect="equal", xlim=(-2.1, 2.1), ylim=(-0.5, 2.0))
figure

# %% [markdown]
# ## The properties, tested
#
# Now we stop quoting and test. The suite below draws forty random models and asks every distance the same questions. A
# violation that is found is a proof; a violation that is not found among tens of thousands of chances is evidence only,
# and the theorems above are the proof.
#
# Ten candidates, three kinds of model: Gaussians, mixtures of three diagonal components, and clouds of twelve points.

# %%
candidates = {
    "KL, one way": ("kl", "gaussian"),
    "symmetric KL": ("symmetric_kl", "gaussian"),
    "variational KL, one way": ("variational_kl", "mixture"),
    "variational KL, symmetric": ("symmetric_variational_kl", "mixture"),
    "2-Wasserstein, squared": ("wasserstein2_squared", "gaussian"),
    "affine-invariant": ("affine_invariant", "gaussian"),
    "Stein": ("stein", "gaussian"),
    "log-Euclidean": ("log_euclidean", "gaussian"),
    "mixture Wasserstein, squared": ("mixture_wasserstein2_squared", "mixture"),
    "Sinkhorn": ("sinkhorn", "cloud"),
}


# %%
def draw(kind, n, dim, generator):
    if kind == "mixture":
        return random_mixtures(n, dim, generator)
    gaussians = random_gaussians(n, dim, generator)
    if kind == "gaussian":
        return gaussians
    points = torch.randn(n, 12, dim, generator=generator)
    points = points @ torch.linalg.cholesky(gaussians.cov).mT
    return points + gaussians.mean[:, None]


# %% [markdown]
# The first questions are the axioms of a metric. For the triangle inequality we count all triples $i, j, k$ in which
# the way over $j$ is shorter than the direct one.


# %%
def triangle_failures(table):
    """Share of all triples of different models with d(i, k) > d(i, j) + d(j, k)."""
    n = len(table)
    detour = table[:, :, None] + table[None]  # (i, j, k)
    fails = table[:, None, :] > detour * (1 + 1e-9)
    return fails.sum().item() / (n * (n - 1) * (n - 2))


# %%
def axioms(name, kind, dim, generator):
    models = draw(kind, 40, dim, generator)
    table = distances.pairwise(name, models, models)
    rounding = 1e-6 * table.abs().max()
    others = table[~torch.eye(40, dtype=torch.bool)]
    return {
        "asymmetric": bool((table - table.mT).abs().max() > rounding),
        "own distance": bool(table.diagonal().abs().max() > rounding),
        "negative": (others < 0).double().mean().item(),
        "triangle": triangle_failures(table),
        "root": math.inf if others.min() < 0 else triangle_failures(table.sqrt()),
    }


# %%
def yes(value):
    return "yes" if value else "**no**"


def share(value):
    if value == 0 or math.isinf(value):
        return "never" if value == 0 else "–"
    return f"**{100 * value:.1f} %**" if value >= 0.001 else "**< 0.1 %**"


# %%
generator = torch.Generator().manual_seed(seed)
checked, rows = {}, []
for label, entry in candidates.items():
    found = [axioms(*entry, dim, generator) for dim in (1, 3)]
    worst = checked[label] = {
        name: max(one[name] for one in found) for name in found[0]
    }
    flags = [yes(not worst["asymmetric"]), yes(not worst["own distance"])]
    shares = [share(worst[name]) for name in ("negative", "triangle", "root")]
    rows.append([label, *flags, *shares])
header = ["", "symmetric", "d(p, p) = 0", "negative", "triangle fails"]
page.table("axioms", [*header, "triangle fails for the root"], rows)

# %%
metrics = ["wasserstein2_squared", "affine_invariant", "stein", "log_euclidean"]
metrics += ["mixture_wasserstein2_squared"]
for label, (name, _) in candidates.items():
    assert name not in metrics or checked[label]["root"] == 0
kl_fails = checked["symmetric KL"]

# %% tags=["remove-cell"]
page.say(kl_triangle=100 * kl_fails["triangle"])
page.say(kl_triangle_root=100 * kl_fails["root"])

# %% [markdown]
# ````{table} The axioms of a metric, tested on forty random models in one dimension and forty in three: all pairs, and all ordered triples. The worse of the two shares is shown. A dash: the root of a negative number.
# :name: tab-03-axioms
#
# ```{glue:md} tab-03-axioms
# :format: myst
# ```
# ````
#
# Where a theorem says that the distance or its root is a metric, it passes: five times. The root of the Sinkhorn
# divergence passes too, but there we know of no theorem, and the word "never" is an observation. The symmetric KL fails
# for {glue:text}`03-kl-triangle:.0f` % of the triples, and its root still for {glue:text}`03-kl-triangle-root:.0f` %.
#
# The second questions are about invariance. We draw one common map for all images, a shift, a rotation, a scaling, or
# any invertible matrix, apply it to all of them and see whether the table of distances has changed. The mixtures of the
# package are diagonal, and a diagonal matrix stays diagonal only under maps that permute, flip and stretch the axes; so
# those are what they are tested with.


# %%
def moved(model, kind, matrix, shift):
    if kind == "cloud":
        return model @ matrix.mT + shift
    if kind == "gaussian":
        cov = matrix @ model.cov @ matrix.mT
        return Gaussian(model.mean @ matrix.mT + shift, cov)
    variances = model.variances @ matrix.square().mT  # one entry in each row
    return GaussianMixture(model.weights, model.means @ matrix.mT + shift, variances)


# %%
def common_maps(kind, dim, generator):
    noise = torch.randn(dim, dim, generator=generator)
    rotation, stretch = torch.linalg.qr(noise).Q, noise
    if kind == "mixture":
        rotation = torch.eye(dim).roll(1, 0) * noise[0].sign()
        stretch = rotation * noise[1].exp()
    eye, none = torch.eye(dim), torch.zeros(dim)
    shift = torch.randn(dim, generator=generator)
    return [(eye, shift), (rotation, none), (3 * eye, none), (stretch, none)]


# %% [markdown]
# A third group of questions is about what a distance sees and what it needs: does it notice when one image alone moves
# its mean? And what does it do with covariances of rank two in three dimensions?


# %%
def unchanged(name, kind, generator):
    model = draw(kind, 8, 3, generator)
    table = distances.pairwise(name, model, model)
    answers = []
    for matrix, shift in common_maps(kind, 3, generator):
        image = moved(model, kind, matrix, shift)
        change = (distances.pairwise(name, image, image) - table).abs().max()
        answers.append(bool(change < 1e-6 * table.abs().max()))
    return answers


# %%
def sees_means(name, kind, generator):
    model = draw(kind, 1, 3, generator)
    other = moved(model, kind, torch.eye(3), torch.ones(3))
    return bool(distances.pairwise(name, model, other).abs() > 1e-6)


def singular(name, kind, generator):
    model = draw(kind, 2, 3, generator)
    flatten = torch.diag(torch.tensor([1.0, 1.0, 0.0]))
    try:
        flat = moved(model, kind, flatten, torch.zeros(3))
        value = distances.pairwise(name, flat[:1], flat[1:]).item()
    except ValueError:
        return "refused"
    return f"finite ({value:.2f})"


# %%
rows = []
for label, (name, kind) in candidates.items():
    invariant = unchanged(name, kind, generator)
    sees = sees_means(name, kind, generator)
    flat_answer = singular(name, kind, generator)
    rows.append([label, *map(yes, invariant), yes(sees), flat_answer])
header = [
    "",
    "shift",
    "rotation",
    "scaling",
    "congruence",
    "sees means",
    "flat covariance",
]
page.table("invariance", header, rows)

# %% [markdown]
# ````{table} What leaves the distance unchanged when it is done to all images alike; whether the distance sees a difference of means; what it answers for covariances (or clouds) that are flat in one of three directions.
# :name: tab-03-invariance
#
# ```{glue:md} tab-03-invariance
# :format: myst
# ```
# ````
#
# Two families stand out in {numref}`tab-03-invariance`. The affine-invariant family of eq. {eq}`eq-03-spectrum` does
# not care about coordinates, and pays with the need for full rank. (The log-Euclidean distance is halfway there.) The
# transport family keeps the units of the descriptors, so a channel with large numbers counts more; and it needs no rank
# at all. A common scaling by three multiplies $W_2$ by three, which no ranking notices. The mixture distance is marked
# "refused" only because the package wants mixtures to be densities; its formula would do. The variational KL owes its
# last "yes" to the kind of maps it was tested with.
#
# Could a cleverer distance have both, affine invariance and sense at rank deficiency? No.
#
# ````{prf:theorem} Not both
# :label: thm-03-not-both
#
# Let $d$ be a function of two covariances that is symmetric, at least 0, satisfies the triangle inequality and
# $d(\Sigma, \Sigma) = 0$. If it is invariant under common congruences, and continuous on all covariances, the singular
# ones included, then $d = 0$ everywhere.
# ````
#
# ````{prf:proof}
# Compare two covariances that differ in one axis only, $\diag(a, s_2, \dots, s_D)$ and $\diag(b, s_2, \dots, s_D)$. The
# congruence with $\diag(\delta, 1, \dots, 1)$ does not change their distance, and turns $a, b$ into
# $\delta^2 a, \delta^2 b$. As $\delta \to 0$ both tend to the same singular matrix, so by continuity the distance is 0.
# From $I$ to $\diag(\lambda)$ one comes in $D$ such steps, so $d(I, \diag(\lambda)) = 0$ by the triangle inequality. By
# {prf:ref}`thm-03-pencil` this covers all pairs of full rank, and by continuity all pairs.
# ````
#
# Shrinkage is the way out that practice has found: it gives every image a full rank, and gives up the invariance,
# because "a multiple of the identity" means something else in other coordinates.
#
# ### What a pair costs
#
# For a database of $n$ images the cost of *one pair* decides, because there are $n$ of them for each query, while what
# depends on one image can be prepared once. In {numref}`tab-03-cost` the first columns follow from the formulas. The
# last are measured on this page: processor time of all pairs of 10 images, divided by 100.

# %%
orders = {
    "symmetric KL": ("D³", "D²"),
    "variational KL, symmetric": ("K² D", "K² D"),
    "2-Wasserstein, squared": ("D³", "D³"),
    "affine-invariant": ("D³", "D³"),
    "Stein": ("D³", "D³ / 3"),
    "log-Euclidean": ("D³", "D²"),
    "mixture Wasserstein, squared": ("K D", "K² D + a linear program"),
    "Sinkhorn": ("n² D + iterations", "n² D + iterations"),
}


# %%
def processor_time(name, kind, dim):
    model = draw(kind, 10, dim, torch.Generator().manual_seed(seed))
    times = []
    for _ in range(3):
        begin = time.process_time()
        distances.pairwise(name, model, model)
        times.append(time.process_time() - begin)
    return 1e6 * min(times) / 100


# %%
rows = []
for label, (image_cost, pair_cost) in orders.items():
    measured = [processor_time(*candidates[label], dim) for dim in (32, 128)]
    shown = [f"{value:,.0f}" for value in measured]
    rows.append([label, image_cost, pair_cost, *shown])
page.table("cost", ["", "an image", "a pair", "D = 32, µs", "D = 128, µs"], rows)

# %% [markdown]
# ````{table} The cost of distances: operations for preparing an image and for comparing a pair, and processor time of a pair (K = 3 components, n = 12 points).
# :name: tab-03-cost
#
# ```{glue:md} tab-03-cost
# :format: myst
# ```
# ````
#
# With $R$ descriptors in place of a full-rank covariance the Wasserstein pair costs $R^2 D$ for the product and $R^3$
# for its singular values.
#
# ## Real patches
#
# Enough toys. Six photographs, four patches of each, their descriptors in 87 dimensions. Grey photographs have no
# colour, so their colour channels never vary and their covariances are singular: we shrink all of them by a tenth
# towards a multiple of the identity.

# %%
photographs = ["brick", "grass", "coffee", "china", "flower", "ihc"]
names = [f"{photo}/{k:02d}" for photo in photographs for k in (2, 6, 10, 14)]
patches = textures.subset([textures.ids.index(name) for name in names])
descriptors = extract_descriptors(patches, backbone, progress=False).double()
gaussians = fit_gaussian(descriptors, shrinkage=0.1)
generator = torch.Generator().manual_seed(seed)
mixtures = fit_mixture(descriptors, n_components=8, generator=generator)

# %% mystnb={"figure": {"caption": "The 24 patches, a row for each photograph.", "name": "fig-03-patches"}, "image": {"alt": "Six rows of four square patches: brick, grass, a cup of coffee, a pavilion, a flower, stained tissue."}}
figure = new_figure(4.0, 5.6)
for i, axes in enumerate(figure.subplots(6, 4).ravel()):
    draw_picture(axes, patches.load(i), photographs[i // 4] if i % 4 == 0 else "")
figure


# %%
def of_gaussians(distance):
    return distance(gaussians, gaussians)


clouds = descriptors, descriptors
variational = distances.symmetric_variational_kl(mixtures, mixtures)
shown = {
    "root of symmetric KL": of_gaussians(symmetric_kl).sqrt(),
    "affine-invariant": of_gaussians(affine_invariant_distance),
    "root of Stein": of_gaussians(stein_divergence).sqrt(),
    "log-Euclidean": of_gaussians(log_euclidean_distance),
    "root of variational KL": variational.clamp_min(0).sqrt(),
    "Wasserstein": of_gaussians(wasserstein2),
    "mixture Wasserstein": mixture_wasserstein2_squared(mixtures, mixtures).sqrt(),
    "Sinkhorn": distances.pairwise_sinkhorn_divergence(*clouds, epsilon=0.5),
    "means only": of_gaussians(distances.euclidean_mean_distance),
}

# %% mystnb={"figure": {"caption": "Distances between the 24 patches under nine distances, each in its own units (dark: near; the farthest twentieth is all yellow). White lines separate the photographs. Dark squares on the diagonal mean that the patches of one photograph are near each other.", "name": "fig-03-heatmaps"}, "image": {"alt": "Nine heat maps of a 24 by 24 distance matrix. All have dark blocks of four by four on the diagonal, sharpest for brick and grass."}}
figure = new_figure(7.6, 8.2)
ticks = [4 * k + 1.5 for k in range(6)]
grid = figure.subplots(3, 3, sharex=True, sharey=True)
for axes, (name, table) in zip(grid.ravel(), shown.items(), strict=True):
    axes.imshow(table, cmap="cividis", vmin=0, vmax=table.quantile(0.95))
    for cut in range(4, 24, 4):
        axes.axhline(cut - 0.5, color="white", lw=0.8)
        axes.axvline(cut - 0.5, color="white", lw=0.8)
    axes.set_xlabel(name, fontsize=10)
    axes.set_yticks(ticks, photographs)
    axes.set_xticks(ticks, photographs, rotation=90)
    axes.tick_params(length=0)
    close_frame(axes)
figure

# %% [markdown]
# Look at the two bright crosses in the upper heat maps. They are the patch of plain sky and the patch of plain green
# background in {numref}`fig-03-patches`: next to nothing varies there, the clouds are tiny, and a distance made of
# log-ratios calls them far from everything, even from their neighbours in the same photograph. The transport distances
# have the crosses too, but for another reason: no wavelet responds to an even patch, so its *mean* lies apart.
#
# The nine pictures in {numref}`fig-03-heatmaps` are similar, not equal. How similar? For a ranking only the order of
# the distances counts. So we take the 276 pairs of patches, rank them under each distance, and correlate the ranks.

# %%
above = torch.triu_indices(24, 24, offset=1)
values = torch.stack([table[above[0], above[1]] for table in shown.values()])
ranks = values.argsort(dim=1).argsort(dim=1).double()
agreement = torch.corrcoef(ranks)

# %% tags=["remove-cell"]
page.say(
    spearman_kl_riemann=agreement[0, 1],
    spearman_riemann_stein=agreement[1, 2],
    spearman_w2_means=agreement[5, 8],
    spearman_riemann_w2=agreement[1, 5],
)

# %% mystnb={"figure": {"caption": "Rank correlation of nine distances over the 276 pairs of patches.", "name": "fig-03-agreement"}, "image": {"alt": "A nine by nine matrix of correlations with two blocks: affine-invariant distances, and transport distances together with the means."}}
figure = new_figure(6.4, 5.0)
draw_values(figure.subplots(), agreement, list(shown))
figure

# %% [markdown]
# Two families again ({numref}`fig-03-agreement`). The distances of covariances rank pairs nearly alike (Riemannian
# against Stein: {glue:text}`03-spearman-riemann-stein:.2f`; against KL, which sees the means too:
# {glue:text}`03-spearman-kl-riemann:.2f`). Across the families the agreement is loose (Riemannian against Wasserstein:
# {glue:text}`03-spearman-riemann-w2:.2f`). The transport distances go with the plain distance of the means (Wasserstein
# against means: {glue:text}`03-spearman-w2-means:.2f`): on these descriptors the means are far apart compared with the
# widths of the clouds, and $\norm{\mu_p - \mu_q}^2$ carries most of $W_2^2$. How much of it? And do the inequalities of
# this chapter hold on all real pairs? The page counts.

# %%
shapes = covariance_only(gaussians)
stein, kl = stein_divergence(shapes, shapes), symmetric_kl(shapes, shapes)
riemann = affine_invariant_distance(shapes, shapes)
rounding = 1e-9 * riemann.max() ** 2
assert (8 * stein <= riemann.square() + rounding).all()
assert (riemann.square() <= 4 * kl + rounding).all()
assert (shown["log-Euclidean"] <= riemann + rounding).all()
collapsed = wasserstein2(mixtures.collapse(), mixtures.collapse())
assert (collapsed <= shown["mixture Wasserstein"] + 1e-6).all()
mean_share = (shown["means only"] / shown["Wasserstein"])[above[0], above[1]] ** 2

# %% tags=["remove-cell"]
page.say(mean_share=100 * mean_share.median())

# %% [markdown]
# All four chains hold on all pairs. And of the squared Wasserstein distance between two patches, the means make up
# {glue:text}`03-mean-share:.0f` % in the median. So an experiment that compares "Wasserstein" with "Riemannian"
# compares two things at once: two geometries of covariances, and a distance that sees means with one that does not. The
# experiments therefore carry controls: means only, and covariances only.
#
# ## What we found
#
# - Symmetric KL, the Riemannian distance and Stein's divergence are three functions of the same log-ratios of
#   variances, ordered as $8 S \le d^2 \le 4 D_{\mathrm{sym}}$. They differ in how loudly small variances speak.
# - The Wasserstein distance asks how far mass must move. It needs no inverse and no full rank, and the paper's
#   argument that this makes it fit for deep descriptors is sound. It keeps the units of the descriptors, and on our
#   patches it mostly compares means.
# - Neither KL nor its root is a metric. The variational KL is no bound, and can be negative.
# - Being a metric, or being invariant, is a property of a formula. Whether it retrieves the right images is a
#   question for experiments; the rank correlations say that the two families will often disagree.
#
# ## Exercises
#
# ````{exercise}
# :label: ex-03-1
#
# Two covariances commute. Show that $W_2^2$ is the squared Euclidean distance of the means plus that of the standard
# deviations along the common axes. Check it for two random diagonal Gaussians.
# ````
#
# ````{solution} ex-03-1
# :class: dropdown
#
# In the common eigenbasis both covariances are diagonal, and
# $\big(\Sigma_p^{1/2} \Sigma_q \Sigma_p^{1/2}\big)^{1/2} = \diag (\sigma_c \sigma'_c)$. So the trace term is
# $\sum_c (\sigma_c^2 + \sigma_c'^2 - 2 \sigma_c \sigma'_c) = \sum_c (\sigma_c - \sigma'_c)^2$. This is why the mixture
# distance of the package, whose components are diagonal, needs only `cdist` on means and standard deviations.
#
# ```python
# v, w = torch.rand(2, 5)
# a, b = (Gaussian(torch.zeros(1, 5), torch.diag(x)[None]) for x in (v, w))
# assert_close(wasserstein2_squared(a, b)[0, 0], (v.sqrt() - w.sqrt()).square().sum())
# ```
# ````
#
# ````{exercise}
# :label: ex-03-2
#
# Among all Gaussians $q$, which makes $\KL(p \| q)$ smallest for a given $p$ that need not be Gaussian? Use the answer
# to explain why the paper's eq. 1 is the natural way to turn a mixture into one Gaussian.
# ````
#
# ````{solution} ex-03-2
# :class: dropdown
#
# $\KL(p \| q) = -H(p) - \E_p [\log q]$, and $\E_p [\log q]$ depends on $p$ only through its mean and covariance,
# because $\log q$ is quadratic. So $p$ may be replaced by the Gaussian with the same mean and covariance, and then the
# minimum 0 is reached at that Gaussian. Eq. 1 is exactly the mean and covariance of the mixture: the collapse is the
# Gaussian at which the least evidence per descriptor is lost.
# ````
#
# ````{exercise}
# :label: ex-03-3
#
# Prove the two inequalities $8 S \le d^2 \le 4 D_{\mathrm{sym}}$ of eq. {eq}`eq-03-chain`. When are they equalities?
# What changes in the second when the means differ?
# ````
#
# ````{solution} ex-03-3
# :class: dropdown
#
# Put $u = t/2$. Both $u^2/2 - \log \cosh u$ and $\sinh u - u$ vanish at 0. Their derivatives for $u > 0$ are
# $u - \tanh u \ge 0$ and $\cosh u - 1 \ge 0$. So $\log \cosh u \le u^2 / 2$, hence $8 \log \cosh (t/2) \le t^2$, and
# $\sinh^2 u \ge u^2$, hence $4 \sinh^2 (t/2) \ge t^2$; both functions are even. Equality holds only at $t = 0$, that is
# for equal covariances. Different means add the non-negative term
# $\tfrac14 \delta^\top (\Sigma_p^{-1} + \Sigma_q^{-1}) \delta$ to $D_{\mathrm{sym}}$, and the inequality stays true.
# ````
#
# ````{exercise}
# :label: ex-03-4
#
# Two mixtures have the same components, far apart from each other, and differ only in their weights $\omega$ and
# $\omega'$. What does $D_{\mathrm{var}}$ become? And what $MW_2$? Which of the two keeps growing when the components
# move further apart?
# ````
#
# ````{solution} ex-03-4
# :class: dropdown
#
# Every component is at divergence 0 from its twin and far from the others, so
# $D_{\mathrm{var}} \to \sum_a \omega_a \log (\omega_a / \omega'_a)$, the divergence of the weights, which is also the
# true limit. $MW_2^2$ must carry the surplus weight from component to component and pays the squared distance between
# them: it grows without bound. KL sees *that* the weights differ; transport sees also *how far apart* the differing
# parts are.
# ````
#
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :keyprefix: c03-
# ```

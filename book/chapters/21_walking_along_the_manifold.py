# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown] needs=["20_proxies_and_meta_classes", "04_textures"]
# # Walking along the manifold
#
# Two photographs of a bird in flight may look nothing alike, and yet be connected by a chain of photographs each of
# which looks like the next. A dot product sees the ends of the chain. A *random walk* sees the chain. The paper of this
# part {cite:p}`c21-aziere2019ensemble` lets a walk run over the images of a batch and the proxies of
# [chapter 20](20_proxies_and_meta_classes), and builds its loss from where the walk spends its time. As there, nothing
# is trained here: this chapter asks what the walk sees.
#
# You will learn
#
# - where the formula of the walk comes from, and that the closed form, the walk after many steps and the fixed point are
#   one thing ({numref}`fig-21-converges`);
# - two slips of the printed formula, executed, one of which makes the matrix undefined ({numref}`tab-21-errata`);
# - when a walk follows a manifold, and why the paper's own affinities let it jump ({numref}`fig-21-moons`);
# - the intrinsic and the contextual loss, by hand, with their gradients, and why the second hardly moves
#   ({numref}`tab-21-range`);
# - what the authors' own code does differently, and that it matters;
# - what a walk at test time adds to features that are not trained for it ({numref}`fig-21-textures`).
#
# **The question.** Is there a manifold in a batch of images, and does this walk find it?

# %% tags=["parameters"]
profile = "quick"
data_root = "data"
device = "cpu"
seed = 0

# %%
import functools
import math

import torch
from torch.nn import functional
from torch.testing import assert_close

from retrieval_geometry.losses import authors_manifold_loss, manifold_npair_loss
from retrieval_geometry.losses import manifold_proxy_loss, npair_margin_loss
from retrieval_geometry.losses import random_meta_classes, random_proxies
from retrieval_geometry.losses import random_walk_similarity
from retrieval_geometry.page import Page
from retrieval_geometry.papers.edms import as_printed
from retrieval_geometry.papers.edms.claims import CLAIMS
from retrieval_geometry.papers.edms.printed import SETTINGS
from retrieval_geometry.papers.edms.toys import clustered_directions
from retrieval_geometry.papers.edms.toys import share_of_own, two_moons
from retrieval_geometry.reporting.drawing import BLACK, draw_intervals, draw_lines
from retrieval_geometry.reporting.figures import new_figure

page = Page("21", profile=profile, data_root=data_root, device=device, seed=seed)
generator = torch.Generator().manual_seed(seed)
alpha, margin = SETTINGS["alpha"], SETTINGS["margin"]

# %% [markdown]
# ## A walk with restarts
#
# ### The idea
#
# Points are joined to each other, strongly if they are alike. A walker stands on one of them, $n$. At each step he goes
# on with probability $\alpha$, to a neighbour, more likely to a strongly joined one. With probability $1 - \alpha$ he
# returns to $n$. In the long run he is often at points that many short, strong paths lead to. How often he is at a
# point says how similar it is to $n$, *along the paths*. It is the idea behind PageRank; {cite:t}`c21-zhou2003ranking`
# brought it to ranking, {cite:t}`c21-donoser2013diffusion` and {cite:t}`c21-iscen2017efficient` to image retrieval,
# where it is called diffusion.
#
# ### The formula
#
# Let $S$ hold the *affinities*, non-negative and symmetric, zero on the diagonal: no step leads to where one stands.
# Let $D$ hold the *degrees*, the sums of its rows, and
#
# ```{math}
# :label: eq-21-walk
# \bar S = D^{-1/2} S D^{-1/2}, \qquad F^{(t + 1)} = \alpha \bar S F^{(t)} + (1 - \alpha) I .
# ```
#
# A walker proper would move by $D^{-1} S$, whose rows sum to one. The symmetric $\bar S$ is similar to it,
# $\bar S = D^{1/2} (D^{-1} S) D^{-1/2}$, has the same eigenvalues, and gives a symmetric $F$: a similarity.
#
# ````{prf:theorem} Where the walk converges
# :label: thm-21-converges
#
# For $0 < \alpha < 1$ the iteration converges from any start to its only fixed point
#
# ```{math}
# :label: eq-21-closed
# F = (1 - \alpha) (I - \alpha \bar S)^{-1} = (1 - \alpha) \sum_{t \ge 0} \alpha^t \bar S^t ,
# ```
#
# and the error shrinks at least by $\alpha$ at each step.
# ````
#
# ````{prf:proof}
# The eigenvalues of $D^{-1} S$ lie in $[-1, 1]$, as its rows are probabilities. So those of $\alpha \bar S$ are at most
# $\alpha$ in size, $I - \alpha \bar S$ is positive definite, and has an inverse, which the geometric series sums. A
# fixed point satisfies $(I - \alpha \bar S) F = (1 - \alpha) I$, so there is one. Take the difference of the iteration
# and of the fixed point: the error is multiplied by $\alpha \bar S$.
# ````
#
# This is eq. 9 of the paper. Its entries are all non-negative, and $\bar S^t$ counts the paths of $t$ steps: the sum is
# over paths of all lengths, the long ones discounted.

# %%
points, _ = clustered_directions(6, 5, 16, seed=seed)
affinity = (points @ points.T).clamp_min(0)
affinity.fill_diagonal_(0)
roots = affinity.sum(dim=1).rsqrt()
walk = roots[:, None] * affinity * roots
closed = random_walk_similarity(points, alpha)
restart = (1 - alpha) * torch.eye(30, dtype=torch.float64)
assert_close(alpha * walk @ closed + restart, closed)  # a fixed point
assert_close(closed, closed.T)

errors, series, F, power = [], restart.clone(), restart, restart
for _ in range(120):
    F, power = alpha * walk @ F + restart, alpha * walk @ power
    series = series + power
    errors.append(float((F - closed).abs().max()))
assert_close(F, closed, atol=1e-10, rtol=0)
assert_close(series, closed, atol=1e-10, rtol=0)


# %% tags=["hide-input"] mystnb={"figure": {"caption": "The largest error of an entry of the walked F against the number of steps, for the 30 points of this section (solid), and the rate that the theorem promises (dashed).", "name": "fig-21-converges"}, "image": {"alt": "A line that falls steadily on a logarithmic axis, a little below a dashed line of the same slope."}}
figure = new_figure(5.0, 2.5)
axes = figure.subplots()
steps = torch.arange(1, 121)
curves = {"error": errors, r"$\alpha^t$": alpha ** steps.double()}
draw_lines(axes, steps, curves)
axes.set(yscale="log", xlabel="steps", ylabel="largest error")
axes.legend(frameon=False)
figure

# %% [markdown]
# The walk converges as promised ({numref}`fig-21-converges`), but for ten digits it takes a hundred steps. The closed
# form is one factorisation: the matrix is positive definite, so Cholesky's will do, and the columns that one wants are
# solved for. For a batch of 128 images and 50 proxies that is less than the walk's multiplications by far
# ({numref}`tab-21-claims`). In this the paper is right.
#
# ## Two slips, executed
#
# ### 1.1 Who restarts?
#
# **As printed.** "$\alpha \in (0, 1)$ is a probability of restarting Random Walk from $n$th query point." **Corrected.**
# By eq. {eq}`eq-21-walk` it is the probability to go *on*, and $1 - \alpha$ that of a restart. The formula itself is
# right; {cite:t}`c21-zhou2003ranking`, whom the paper follows, have both as here. But whoever believes the sentence and
# wants few restarts sets $\alpha = 0.2$ and gets many.
#
# The test draws 400 graphs with rows that are probabilities, lets a walk restart with either probability, and compares
# where it is in the long run with eq. 9.

# %%
tests = []


def record(erratum, failure, printed, corrected):
    """Keep on which draws the printed and the corrected form fail."""
    forms = torch.as_tensor(printed), torch.as_tensor(corrected)
    tests.append((erratum, failure, *forms))


def random_steps():
    """Symmetric probabilities of steps between five places: a mean of permutations."""
    swaps = torch.stack([torch.randperm(5, generator=generator) for _ in range(4)])
    steps = functional.one_hot(swaps, 5).double().mean(dim=0)
    return (steps + steps.T) / 2


# %%
away = []
for _ in range(400):
    steps = random_steps()
    by_formula = as_printed.visits(steps, 1 - alpha)[0]
    walked = (as_printed.restarted_walk(steps, r) for r in (alpha, 1 - alpha))
    away.append([float((by_formula - found).abs().max()) > 1e-3 for found in walked])
away = torch.tensor(away)
record("1.1", "eq. 9 is not that walk", *away.T)

# %% [markdown]
# ### 1.2 Negative degrees
#
# **As printed.** "Elements of $S$ are dot-products", and $D$ holds the sums of its rows. **Why it fails.** Dot products
# of embeddings may be negative. Then so may be a sum of them, and $D^{-1/2}$ is not a number. With embeddings that look
# in all directions the sums are about zero, so half of them are negative. (The paper sets the diagonal of $\bar S$ to
# zero *after* the normalisation. With the ones of the diagonal in the degrees fewer rows fail, and a walker would lose
# part of himself at each step. The test counts them in, in the paper's favour.)
#
# **Corrected.** Affinities that are not negative: `affinity="clamp"` sets negative ones to zero, `affinity="exp"` takes
# $\exp (\max (s, 0) / 0.05)$, as the authors' own code does (below). So the authors did not compute what is printed.

# %%
undefined = []
for _ in range(400):
    x = functional.normalize(
        torch.randn(40, 8, generator=generator, dtype=torch.float64), dim=1
    )
    degrees = as_printed.degrees_as_printed(x) + 1  # with the diagonal
    sound = random_walk_similarity(x, alpha).isfinite().all()
    undefined.append([bool(degrees.rsqrt().isnan().any()), not sound])
undefined = torch.tensor(undefined)
record("1.2", "the similarities are not numbers", *undefined.T)

# %%
from retrieval_geometry.reporting.tables import format_failures

rows = []
for number, failure, printed, right in tests:
    rows.append([number, failure, *format_failures(printed), *format_failures(right)])
    assert printed.any()
    assert not right.any()
header = ["erratum", "failure", "as printed", "95 %", "corrected", "95 %"]
page.table("errata", header, rows)

# %%
large = [
    torch.randn(178, 128, generator=generator, dtype=torch.float64) for _ in range(20)
]
degrees = [as_printed.degrees_as_printed(functional.normalize(x, dim=1)) for x in large]
page.say(without=100 * (torch.cat(degrees) <= 0).double().mean())
page.say(with_diagonal=100 * (torch.cat(degrees) + 1 <= 0).double().mean())

# %% [markdown]
# ````{table} The errata: on how many random draws the printed and the corrected form fail, with Wilson's intervals of the share.
# :name: tab-21-errata
#
# ```{glue:md} tab-21-errata
# :format: myst
# ```
# ````
#
# {numref}`tab-21-errata` has small batches. For the paper's, 178 random directions of 128 dimensions,
# {glue:text}`21-without:.0f` % of the degrees are not positive without the diagonal, {glue:text}`21-with-diagonal:.0f` %
# with it. One is enough to spoil every entry of $F$.
#
# ## Does the walk follow a manifold?
#
# ### Two moons
#
# A playground: two interlocking half circles, wrapped around a sphere so that all vectors have length one, and a
# query at the tip of one. Which points are similar to it? The dot product finds the nearest, also those of the other
# moon. A walk should first find all of its own.

# %%
plane, sphere, moon = two_moons(seed=seed)
query = int(plane[:100, 0].argmin())
views = {
    "dot product": sphere @ sphere.T,
    "walk, clamped": random_walk_similarity(sphere, alpha),
    "walk, exponential": random_walk_similarity(sphere, 0.99, affinity="exp"),
}
sharp = random_walk_similarity(sphere, 0.99, affinity="exp", temperature=0.01)
views["walk, sharper"] = sharp

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Two moons, one drawn as circles, one as triangles, and the 99 points most similar to the query (black star) in blue, as many as its moon has; the others are orange. From left: dot product; walk with the paper's affinities and alpha = 0.8; walk with the authors' exponential affinities (temperature 0.05) and alpha = 0.99; the same with temperature 0.01.", "name": "fig-21-moons"}, "image": {"alt": "Four panels of two interlocking arcs. In the first two, blue covers a part of either arc; in the last two it covers nearly the whole arc of the query and nothing of the other."}}
from retrieval_geometry.reporting.figures import RIGHT, WRONG

figure = new_figure(7.8, 2.2)
for axes, (name, table) in zip(figure.subplots(1, 4), views.items(), strict=True):
    row = table[query].clone()
    row[query] = math.inf
    found = torch.zeros(200, dtype=torch.bool)
    found[row.topk(100).indices] = True
    for side, marker in ((0, "o"), (1, "^")):
        for kind, colour in ((found, RIGHT), (~found, WRONG)):
            shown = plane[kind & (moon == side)]
            axes.scatter(*shown.T, s=9, color=colour, marker=marker, lw=0)
    axes.scatter(*plane[query], s=90, color=BLACK, marker="*", zorder=3)
    axes.set(aspect="equal", xticks=[], yticks=[], xlabel=name)
    axes.spines[:].set_visible(False)
figure

# %% [markdown]
# {numref}`fig-21-moons` is sobering. With the paper's affinities the walk sees little more than the dot product. The
# reason is in the matrix: *every* point with a positive cosine is a neighbour, and a cosine of 0.9 is hardly more than
# one of 0.7. A walker who may jump anywhere in one step follows nothing. The paper speaks of "a nearest neighbor graph",
# but prints the full one. What makes a walk follow a manifold is that its steps are *short*: a small temperature makes
# them so, and then it takes many, that is a large $\alpha$.
#
# ### Alpha, affinity, temperature
#
# Each point asks for the others in turn; {numref}`fig-21-alpha` has the share of the own moon among the 99 first.

# %%
alphas = (0.2, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
kinds = {"clamped": {"affinity": "clamp"}}
for T in (0.2, 0.05, 0.01):
    kinds[f"exponential, {T:g}"] = {"affinity": "exp", "temperature": T}
shares = {
    name: [
        float(share_of_own(random_walk_similarity(sphere, a, **kind), moon).mean())
        for a in alphas
    ]
    for name, kind in kinds.items()
}
by_dot = float(share_of_own(sphere @ sphere.T, moon).mean())
place = {a: i for i, a in enumerate(alphas)}

# %%
page.say(dot=by_dot, clamped=shares["clamped"][place[0.8]])
page.say(clamped_far=shares["clamped"][place[0.999]])
page.say(authors=shares["exponential, 0.05"][place[0.8]])
page.say(authors_best=max(shares["exponential, 0.05"]))
page.say(sharp=shares["exponential, 0.01"][place[0.99]])
assert shares["exponential, 0.01"][place[0.99]] > 0.95 > max(shares["clamped"])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of the own moon among the 99 most similar points, mean over all queries, against the mean number of steps between two restarts, alpha / (1 - alpha). The dotted line is the dot product; 0.5 would be chance.", "name": "fig-21-alpha"}, "image": {"alt": "Four curves. The clamped one stays near the dotted line and falls to one half on the right. Exponential ones rise the higher the smaller the temperature, to one for 0.01."}}
figure = new_figure(6.0, 3.0)
axes = figure.subplots()
draw_lines(axes, [a / (1 - a) for a in alphas], shares, marked=True)
axes.axhline(by_dot, color="gray", ls=":", lw=1)
axes.set(xscale="log", xlabel="steps between restarts", ylabel="share of the own moon")
axes.set(ylim=(0.45, 1.02))
axes.legend(frameon=False, fontsize=9)
figure

# %% [markdown]
# The dot product has {glue:text}`21-dot:.2f`. The walk with the paper's affinity and $\alpha = 0.8$ has
# {glue:text}`21-clamped:.2f`, and a very long one {glue:text}`21-clamped-far:.2f` ($\alpha = 0.999$): a walk over a full
# graph forgets where it began. With the authors' temperature of 0.05 it is {glue:text}`21-authors:.2f` at
# $\alpha = 0.8$ and {glue:text}`21-authors-best:.2f` at the best, with 0.01 and $\alpha = 0.99$ it is
# {glue:text}`21-sharp:.2f`. (What temperature is small depends on how far neighbours are from each other, and so on
# how many points there are. The moons prove that the walk *can*; they do not choose a temperature for birds.)
#
# ### A few proxies
#
# In the paper the walk is read at the proxies only. How many does a moon need? We choose $K$ points at random, half on
# each moon, and give every other point to the moon of its most similar proxy.


# %%
def right_side(table, n_proxies, draws=20):
    """Share of points whose most similar proxy is on their moon, mean over draws."""
    kept = []
    for _ in range(draws):
        half = torch.randperm(100, generator=generator)[: n_proxies // 2]
        at = torch.cat([half, 100 + half])
        rest = torch.ones(200, dtype=torch.bool)
        rest[at] = False
        nearest = at[table[:, at].argmax(dim=1)]
        kept.append((moon[nearest] == moon)[rest].double().mean())
    return float(torch.stack(kept).mean())


numbers = (2, 4, 8, 16, 32)
rows = [
    [name, *(f"{right_side(t, k):.2f}" for k in numbers)] for name, t in views.items()
]
page.table("proxies", ["most similar by", *(f"K = {k}" for k in numbers)], rows)

# %% [markdown]
# ````{table} Share of points whose most similar proxy lies on their own moon, for K proxies, half of them on each moon; means over 20 draws of proxies. The walks are those of the figure above.
# :name: tab-21-proxies
#
# ```{glue:md} tab-21-proxies
# :format: myst
# ```
# ````
#
# A walk that follows the moons needs hardly more than one proxy on each; the dot product needs many
# ({numref}`tab-21-proxies`). That is the best reason for the paper's design: few proxies suffice *if* similarity runs
# along the manifold. But with many proxies the dot product is as good, and half of the classes is many.
#
# ## Two losses
#
# ### The idea
#
# Put the images of a batch and the $K$ proxies into one graph, and let $f_n$ be the row of image $n$ at the proxies,
# $f_{p_k}$ that of proxy $k$. The *intrinsic* loss asks that an image be more similar to its own proxy than to others,
# as in eq. 4, but along the graph (eq. 11). The *contextual* loss asks that it *see the proxies as its own proxy sees
# them* (eq. 12):
#
# ```{math}
# :label: eq-21-losses
# \begin{aligned}
# L_\mathrm{int} &= \frac1N \sum_n \log \Big( 1 + \sum_{j \ne k} e^{f_{n p_j} - f_{n p_k} + m} \Big), \\
# L_\mathrm{cxt} &= \frac1N \sum_n \log \Big( 1 + \sum_{j \ne k} e^{f_n \cdot f_{p_j} - f_n \cdot f_{p_k} + m} \Big) .
# \end{aligned}
# ```
#
# ### By hand
#
# Two images, two proxies, and a graph so small that one can solve it with a pencil: each image is its proxy, and the
# pairs are orthogonal. Then $\bar S$ swaps an image with its proxy, $\bar S^2 = I$, and the series sums to
# $F = \frac{1}{1 + \alpha} (I + \alpha \bar S)$ since $(1 - \alpha) / (1 - \alpha^2) = 1 / (1 + \alpha)$. So
# $f_{n p_k} = \frac{\alpha}{1 + \alpha}$ for the own proxy and 0 for the other, $f_{p_k p_k} = \frac{1}{1 + \alpha}$, and
#
# ```{math}
# :label: eq-21-hand
# L_\mathrm{int} = \log \big( 1 + e^{m - \alpha / (1 + \alpha)} \big), \qquad
# L_\mathrm{cxt} = \log \big( 1 + e^{m - \alpha / (1 + \alpha)^2} \big) .
# ```

# %%
axis = torch.eye(2, dtype=torch.float64)
both = torch.arange(2)
for kind, power in (("intrinsic", 1), ("contextual", 2)):
    by_hand = math.log1p(math.exp(margin - alpha / (1 + alpha) ** power))
    loss = manifold_proxy_loss(axis, both, axis, margin, alpha, kind)
    assert_close(float(loss), by_hand)
page.say(hand=alpha / (1 + alpha) ** 2)

# %% [markdown]
# This is as good as it gets: no image can be nearer to its proxy. Yet the exponent of the contextual loss is no lower
# than $-${glue:text}`21-hand:.2f`. We come back to that. First, both losses against a loop over the formulas, on
# clusters, and their gradients against differences.

# %%
x, labels = clustered_directions(6, 5, 8, seed=seed)
meta = random_meta_classes(labels, 3, seed)
proxies = x[random_proxies(meta, seed=seed)]
rows_of_f = random_walk_similarity(torch.cat([x, proxies]), alpha)[:, len(x) :]
by_loop = {"intrinsic": 0.0, "contextual": 0.0}
for n, k in enumerate(meta.tolist()):
    f, f_p = rows_of_f[n], rows_of_f[len(x) :]
    seen = {"intrinsic": f, "contextual": f_p @ f}
    for kind, s in seen.items():
        others = sum(math.exp(s[j] - s[k] + margin) for j in range(3) if j != k)
        by_loop[kind] += math.log1p(others) / len(x)

for kind, value in by_loop.items():
    found = manifold_proxy_loss(x, meta, proxies, margin, alpha, kind)
    assert_close(float(found), value)

# %% [markdown]
# The gradient goes through the inverse. From $A F = (1 - \alpha) I$ with $A = I - \alpha \bar S$ follows
# $dF = \alpha A^{-1} (d \bar S) F$; so if $G$ is the gradient with respect to $F$, that with respect to $\bar S$ is
# $\alpha A^{-1} G F^\top$. It takes one more solve with the same factor, and no step of the walk is stored.

# %%
small, own = x[::5].clone().requires_grad_(True), torch.tensor([0, 1, 2, 0, 1, 2])
for each in ("clamp", "exp"):
    settings = {"meta_class": own, "proxies": proxies, "affinity": each}
    loss = functools.partial(manifold_proxy_loss, **settings)
    assert torch.autograd.gradcheck(loss, small)

# %% [markdown]
# The third use of the walk is EDMS (RW) of the paper's Table 2, without proxies: eq. 3 with the similarities of a
# batch, `manifold_npair_loss`. The paper finds it the worst of six (56.1 against 58.7 without a walk), and supposes
# that a batch is too small to hold a manifold. After {numref}`fig-21-moons` there is another suspect.

# %%
in_batch = random_walk_similarity(x, alpha)
assert manifold_npair_loss(x, meta) < math.log(30)
page.say(npair_dot=npair_margin_loss(x, meta), npair_walk=manifold_npair_loss(x, meta))
page.say(widest_walk=in_batch.fill_diagonal_(0).max())

# %% [markdown]
# On these clusters the N-pair loss is {glue:text}`21-npair-dot:.2f` with dot products, {glue:text}`21-npair-walk:.2f`
# with the walk. Off the diagonal no similarity of the walk exceeds {glue:text}`21-widest-walk:.3f`, so the exponents
# are nearly zero, and nearly nothing is to be learnt from them.
#
# ## How far can the losses fall?
#
# Similarities of a walk are shares of time. The more points there are, the smaller they become. A softmax of small
# numbers is flat, and a loss that is flat has a small gradient. Every other softmax loss has a *temperature* against
# this; eqs. 11 and 12 have none.
#
# ````{prf:theorem} A floor
# :label: thm-21-floor
#
# For every batch $L_\mathrm{cxt} \ge \log (1 + (K - 1) e^{m - c})$, where $c$ is the largest product $f_n \cdot f_{p_k}$,
# and $L_\mathrm{int}$ likewise with the largest $f_{n p_k}$. If $g$ images and their proxy are all equal, and orthogonal
# to everything else, then $f_{n p_k} \le \frac{1}{g + 1}$ for each of them.
# ````
#
# ````{prf:proof}
# Similarities are not negative, so no exponent is below $m - c$. In the second case the $g + 1$ points have a block of
# $\bar S$ that is $\frac{1}{g}$ times the matrix of ones without its diagonal. The vector of ones has eigenvalue 1 there,
# so each row of $F$ sums to $(1 - \alpha) / (1 - \alpha) = 1$ within the block. The $g$ entries off the diagonal are
# equal, and smaller than the diagonal one (the first exercise has both).
# ````
#
# We put numbers on it, for the paper's batch of 128 images and 50 proxies: embeddings at random, clusters, and a *perfect*
# embedding, in which every image is its proxy and the proxies are orthogonal. {numref}`tab-21-range` has the losses, in
# the last column divided by $\log K$, the value of knowing nothing.

# %%
K, N, dim = (int(SETTINGS[name]) for name in ("proxies", "batch", "dim"))
axes_of = torch.eye(K, dim, dtype=torch.float64)
own = torch.arange(N) % K
noise = torch.randn(N, dim, generator=generator, dtype=torch.float64)
batches = {
    "random": functional.normalize(noise, dim=1),
    "clusters": functional.normalize(axes_of[own] + 0.06 * noise, dim=1),
    "perfect": axes_of[own],
}
losses = {
    "contextual": lambda x: manifold_proxy_loss(x, own, axes_of, margin, alpha),
    "intrinsic": lambda x: manifold_proxy_loss(
        x, own, axes_of, margin, alpha, "intrinsic"
    ),
    "authors' code": lambda x: authors_manifold_loss(x, own, axes_of),
}

# %%
cells = {}
for name, loss in losses.items():
    cells[name] = [f"{float(loss(batch)):.3f}" for batch in batches.values()]
    at = batches["random"].clone().requires_grad_(True)
    loss(at).backward()
    cells[name].append(f"{float(at.grad.norm(dim=1).mean() * N):.1e}")
    ratio = float(loss(batches["perfect"]) / loss(batches["random"]))
    page.say(**{f"left-{name.split()[-1]}": 100 * ratio})
header = ["loss", *batches, "gradient at random"]
page.table("range", header, [[name, *row] for name, row in cells.items()])
page.say(log_k=math.log(K))

# %% [markdown]
# ````{table} Losses of a batch of the paper's size for three embeddings, and the mean length of the gradient of an image's own term at a random embedding.
# :name: tab-21-range
#
# ```{glue:md} tab-21-range
# :format: myst
# ```
# ````
#
# $\log K$ is {glue:text}`21-log-k:.3f`. From knowing nothing to knowing everything the contextual loss falls to
# {glue:text}`21-left-contextual:.0f` % of its value, the intrinsic one to {glue:text}`21-left-intrinsic:.0f` %, that of
# the authors' code to {glue:text}`21-left-code:.0f` % ({numref}`tab-21-range`). The contextual loss multiplies two small
# vectors and is the flattest. Does it matter? Adam divides a gradient by its own size, so a small one moves as well as
# a large one, until it meets weight decay or the rounding of single precision. What no optimiser can mend is the
# *shape*: with all exponents near zero the softmax weighs all wrong proxies alike. It is then a sum of differences, and
# pushes far proxies as hard as near ones.
#
# ## What the authors' code does
#
# The paper has no code. But the authors' loss survives in the tests of pytorch-metric-learning
# {cite:p}`c21-musgrave2020pytorch`, whose `ManifoldLoss` was checked against it. `authors_manifold_loss` is that loss.
# Four things differ from the text, and they are just what this chapter has missed:
#
# - affinities are $\exp (\max (s, 0) / 0.05)$: positive, so no degree fails, and local, so that the walk takes short steps;
# - contexts are compared by their *cosine*, over whole rows: products no longer shrink with the size of the batch;
# - only *violated* comparisons enter the sum, those with a difference above zero, and there is no margin: what is in
#   order is left alone, and a perfect embedding costs nothing;
# - the intrinsic and the contextual loss are *added*.
#
# The proxies are learnt, one for each class, as in Proxy-NCA; hard proxies and meta-classes do not occur in it, nor does
# the ensemble. (They may have stood elsewhere.) A loop over this description agrees with the package.

# %%
everything = torch.cat([x, proxies])
s = ((everything @ everything.T).clamp_min(0) / 0.05).exp()
s.fill_diagonal_(0)
d = s.sum(dim=1).rsqrt()
F = 0.2 * torch.cholesky_inverse(
    torch.linalg.cholesky(torch.eye(33).double() - 0.8 * d[:, None] * s * d)
)
cosines = functional.normalize(F, dim=1) @ functional.normalize(F, dim=1).T
by_hand = 0.0
for table in (F, cosines):
    t = table[:30, 30:]
    gaps = t - t.gather(1, meta[:, None])
    by_hand += torch.log1p((gaps.exp() * (gaps > 0)).sum(dim=1)).mean()
assert_close(authors_manifold_loss(x, meta, proxies), by_hand)

# %% [markdown]
# Which of the two made the paper's tables? We cannot know. Both are in the package, and whoever reports a number should
# say which.
#
# ## Diffusion at test time
#
# The works that the paper builds on walk *after* training, over the test images, and only re-rank. The paper argues
# that training with the walk is better. But then the plain re-ranking should stand beside it, and it does not. Here it
# is, for features that were trained for something else: the photo textures of [chapter 4](04_textures), described by
# the pooled last map of EfficientNet-lite0 {cite:p}`c21-tan2019efficientnet`, trained on ImageNet and bundled with the
# package. The mean is subtracted. Every patch is asked among all others.

# %%
from retrieval_geometry.datasets import photo_textures
from retrieval_geometry.evaluation import GroupMeans, average_precision, mean_interval
from retrieval_geometry.features import extract_descriptors, load_backbone
from retrieval_geometry.features import pool_descriptors
from retrieval_geometry.papers.geometric.data import TEXTURE_SIDE, TEXTURES

textures = photo_textures(TEXTURE_SIDE, TEXTURES)
backbone = load_backbone("efficientnet_lite0")
maps = extract_descriptors(
    textures, backbone, progress=False, cache=page.context.descriptors
)
vectors = pool_descriptors(maps).double()
vectors = functional.normalize(vectors - vectors.mean(dim=0), dim=1)
photograph = textures.labels


# %%
def precision_of(similarity):
    """AP@R of each query among the others."""
    table = similarity.clone().fill_diagonal_(-torch.inf)
    ranked = table.argsort(dim=1, descending=True, stable=True)[:, :-1]
    return average_precision(photograph[ranked], photograph)


plain = precision_of(vectors @ vectors.T)
ways = [("clamped", {"affinity": "clamp"})]
ways += [
    (f"exponential, {T:g}", {"affinity": "exp", "temperature": T})
    for T in (0.2, 0.1, 0.05, 0.02)
]
gains = {}
for name, kind in ways:
    for a in (0.5, 0.8, 0.95):
        gain = precision_of(random_walk_similarity(vectors, a, **kind)) - plain
        means = GroupMeans.of(gain, photograph)
        gains[name, a] = mean_interval(means, comparisons=15)

# %%
from retrieval_geometry.reporting.tables import format_interval

page.say(plain=mean_interval(GroupMeans.of(plain, photograph)))
for name, key in (("printed", ("clamped", 0.8)), ("code", ("exponential, 0.05", 0.8))):
    page.say(**{name: format_interval(gains[key], signed=True)})
best = max(gains, key=lambda key: gains[key].value)
page.say(best_way=f"{best[0]}, alpha {best[1]:g}")
page.say(best=format_interval(gains[best], signed=True))
page.say(clear=sum(gain.low > 0 for gain in gains.values()), tried=len(gains))
page.say(harm=sum(gain.high < 0 for gain in gains.values()))
page.say(patches=len(textures), photographs=len(textures.classes))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What a walk at test time adds to the AP@R of the cosine, by affinity (temperature) and alpha: 0.5 (circles), 0.8 (squares), 0.95 (triangles). Intervals over photographs, all fifteen at once with 95 %.", "name": "fig-21-textures"}, "image": {"alt": "Five rows of three horizontal intervals around zero. Clamped affinities lie at or below zero and far below it for the longest walk; exponential ones with small temperatures lie above zero."}}
figure = new_figure(6.4, 3.2)
axes = figure.subplots()
axes.axvline(0, color="gray", lw=0.8)
names = [name for name, _ in ways]
looks = zip(
    (0.5, 0.8, 0.95), ("#0072B2", "#D55E00", "#009E73"), ("o", "s", "^"), strict=True
)
for shift, (a, colour, marker) in enumerate(looks):
    rows = [i + 0.22 * (shift - 1) for i in range(len(names))]
    row_gains = [gains[name, a] for name in names]
    draw_intervals(axes, row_gains, rows, names, colour, marker, label=f"alpha {a:g}")
axes.set(xlabel="AP@R, walk minus cosine")
axes.legend(frameon=False, fontsize=9)
figure

# %% [markdown]
# There are {glue:text}`21-patches` patches of {glue:text}`21-photographs` photographs. The cosine has an AP@R of
# {glue:text}`21-plain`. With the paper's affinities and $\alpha = 0.8$ the walk changes it by {glue:text}`21-printed`,
# with those of the authors' code by {glue:text}`21-code`. Of {glue:text}`21-tried` settings {glue:text}`21-clear` gain
# and {glue:text}`21-harm` lose beyond what other photographs might have given ({numref}`fig-21-textures`). The largest
# gain, {glue:text}`21-best`, is that of "{glue:text}`21-best-way`". It was picked on these very images, so it says that
# a walk *can* help, not by how much it will.
#
# The picture agrees with the moons. Short steps help or do no harm; a long walk over a full graph forgets. The gains are a
# few hundredths, near the edge of what so few photographs can tell, but they cost no training. That is the bar for
# training with the walk: it has to beat the same embedding, re-ranked.
#
# ## What we found

# %%
from retrieval_geometry.reporting import tables
from retrieval_geometry.reporting.claims import check_all

about = ("closed-form", "restart", "degrees")
mine = [c for c in CLAIMS if c.id.removeprefix("edms-").startswith(about)]
page.markdown("claims", tables.claims_table(check_all(mine, {}, profile)))

# %% [markdown]
# ````{table} The paper's claims about the walk, and what this build computes.
# :name: tab-21-claims
#
# ```{glue:md} tab-21-claims
# :format: myst
# ```
# ````
#
# {numref}`tab-21-claims` has the verdicts on the sentences that can be settled without training.
#
# - The closed form is right, cheap, and has a gradient at the price of one more solve. The name of $\alpha$ is the wrong
#   way round, and dot products have to be made non-negative before anything can be normalised.
# - A walk follows a manifold if its steps are short. With the affinities that the paper prints they are not, and the
#   walk is little better than a dot product; with the exponential ones of the authors' code, and a longer walk, it is.
# - The printed losses lack a temperature. The contextual one can hardly fall below the value of knowing nothing.
# - At test time, on features that were not trained for it, a walk of short steps may add a few hundredths of AP@R, and a
#   long one over a full graph takes away more. This is the control for what training with the walk adds.
#
# ## Exercises
#
# ````{exercise}
# :label: ex-21-1
#
# (Pencil.) Solve eq. {eq}`eq-21-closed` for $n$ points that all have the same affinity to each other. What happens to
# the off-diagonal entries as $n$ grows, and to the loss of an image with $K = n / 2$ proxies among them?
# ````
#
# ````{solution} ex-21-1
# :class: dropdown
#
# $\bar S = (J - I) / (n - 1)$ with $J$ all ones: eigenvalue 1 on the ones, $-1 / (n - 1)$ elsewhere. So
# $F = \frac1n J + \frac{1 - \alpha}{1 + \alpha / (n - 1)} (I - \frac1n J)$. The off-diagonal entries fall like
# $\alpha / n$. They are all equal, so the loss is $\log (1 + (K - 1) e^m)$: nothing is known.
#
# ```python
# n = 8
# same = functional.normalize(torch.ones(n, 3, dtype=torch.float64), dim=1)
# J, I = torch.ones(n, n).double() / n, torch.eye(n).double()
# expected = J + (1 - alpha) / (1 + alpha / (n - 1)) * (I - J)
# assert_close(random_walk_similarity(same, alpha), expected)
# ```
# ````
#
# ````{exercise}
# :label: ex-21-2
#
# (Pencil.) A point has no neighbour with a positive affinity. What is its row of $F$? What would a formula with
# $0 / 0$ give, and what should a loss do with such a point?
# ````
#
# ````{solution} ex-21-2
# :class: dropdown
#
# Its row and column of $\bar S$ are zero (set so, as $0 / \sqrt{0}$ is not a number), and $F$ has $1 - \alpha$ on the
# diagonal and zeros beside it. The walker stays at home, all proxies are alike, and the loss is $\log K$ with no
# gradient: the point teaches nothing until something comes near. With exponential affinities nobody is alone.
#
# ```python
# alone = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.8, 0.6]]).double()
# assert_close(random_walk_similarity(alone, alpha)[1], torch.tensor([0, 1 - alpha, 0]).double())
# ```
# ````
#
# ````{exercise}
# :label: ex-21-3
#
# (Code.) Keep for each point of the moons the $k$ largest affinities only, make the graph symmetric, and walk with
# $\alpha = 0.99$. Is a nearest-neighbour graph, of which the paper speaks, as good as a temperature of 0.01?
# ````
#
# ````{solution} ex-21-3
# :class: dropdown
#
# It is better than the full graph for the right $k$, about 4 here, but not as good as the temperature, and with a few
# neighbours more the gain is gone. All steps are short, but all of them weigh nearly the same, so one bridge between
# the moons is as good a way as any. An exponential affinity makes the longest steps, which the bridges are, unlikely.
#
# ```python
# def sparse_walk(k, a=0.99):
#     s = (sphere @ sphere.T).clamp_min(0).fill_diagonal_(0)
#     least = s.topk(k, dim=1).values[:, -1:]
#     s = s * ((s >= least) | (s >= least.T))
#     d = s.sum(dim=1).rsqrt()
#     return as_printed.visits(d[:, None] * s * d, 1 - a)
#
#
# found = {k: float(share_of_own(sparse_walk(k), moon).mean()) for k in (4, 12, 100)}
# assert shares["exponential, 0.01"][place[0.99]] > found[4] > max(found[12], found[100])
# ```
# ````
#
# ````{exercise}
# :label: ex-21-4
#
# (Code.) Give eq. 12 a temperature: divide $f_n$ and $f_{p_k}$ by their lengths, and the exponents by 0.1. How far does
# the loss of the perfect batch of {numref}`tab-21-range` fall now?
# ````
#
# ````{solution} ex-21-4
# :class: dropdown
#
# The cosine of an image's row with that of its own proxy is 1 and with the others 0 in the perfect batch, so the loss is
# $\log (1 + (K - 1) e^{-10})$, close to zero.
#
# ```python
# rows_now = random_walk_similarity(torch.cat([batches["perfect"], axes_of]), alpha)[:, N:]
# unit = functional.normalize(rows_now, dim=1)
# loss = functional.cross_entropy(unit[:N] @ unit[N:].T / 0.1, own)
# assert_close(float(loss), math.log1p((K - 1) * math.exp(-10)))
# ```
# ````
#
# ````{exercise}
# :label: ex-21-5
#
# (Open.) Train the network of [chapter 10](10_learning_a_metric) with `ManifoldProxyLoss` and with `ProxyNPairLoss` on
# glyphs, three seeds each. Then re-rank the test embeddings of the *second* by a walk. Is the first still ahead?
# ````
#
# ````{solution} ex-21-5
# :class: dropdown
#
# Choose $\alpha$ and the temperature of the re-ranking on validation characters, never on the test. Compare three rows:
# plain, re-ranked, trained with the walk. Also re-rank the third. A difference of the last two that is smaller than the
# spread over seeds is no reason to train with a walk.
# ````
#
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :keyprefix: c21-
# ```

# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Retrieval, and how it is judged
#
# Show a machine one photograph and ask for more of the same: that is image retrieval. This chapter says what
# the task is, builds the small data set on which the book runs without any download, does a first retrieval,
# and then spends most of its pages on a question that papers like to keep short: *how good is a ranking, and
# how sure can we be?*
#
# You will learn
#
# - why a retrieval system is a distance, and which changes of the distance change nothing;
# - precision and recall at k, and six different numbers that are all called average precision;
# - two ways in which one item too many, the query itself, spoils a score;
# - how to put an interval around a score, and how wide it is for 94 queries, the number behind Table 1 of the
#   paper {cite:p}`c01-qian2017differential`.
#
# **The question.** Two methods reach 0.62 and 0.53 on the same benchmark. Is the first one better?

# %% tags=["parameters"]
profile = "quick"
data_root = "data"
device = "cpu"
seed = 0

# %% [markdown]
# ## The task
#
# We have a *database* of $n$ images $x_1, \dots, x_n$ and one more image, the *query* $q$. A retrieval
# system returns the database in an order, the most similar image first. Almost every system does this with a
# single number per pair.
#
# ````{prf:definition} Ranking
# :label: def-01-ranking
#
# Let $d(q, x)$ be a real number for every pair of images, small where they are alike. The *ranking* of the
# database for the query $q$ is the permutation $\pi$ that sorts it,
#
# ```{math}
# :label: eq-01-ranking
# d(q, x_{\pi(1)}) \le d(q, x_{\pi(2)}) \le \dots \le d(q, x_{\pi(n)}).
# ```
# ````
#
# Nothing here asks $d$ to be a metric. It need not be symmetric, it may break the triangle inequality, it
# may even be negative; later chapters meet examples of each. Only the order counts, and this has a
# consequence that is worth stating once.
#
# ````{prf:lemma} Only the order counts
# :label: lem-01-monotone
#
# Let $f$ be strictly increasing on the values of $d$. Then $f(d)$ and $d$ give the same rankings.
# ````
#
# ````{prf:proof}
# $f(a) \le f(b)$ holds exactly where $a \le b$ holds. So {eq}`eq-01-ranking` is true of $f(d)$ where it is
# true of $d$, with the same $\pi$.
# ````
#
# A squared distance therefore retrieves what the distance retrieves. The paper prints a squared Wasserstein
# distance without the square in its name; the lemma is why that slip leaves its table untouched.
#
# For judging, each image has a label, its *class*. An image is *relevant* to a query if both have the same
# label. This is a crude model of similarity: in truth, two images can be alike in part or to a degree. It is
# the model of the paper, of its benchmark, the Describable Textures Dataset (DTD)
# {cite:p}`c01-cimpoi2014describing`, and of nearly all others, because it needs no judge but the labels.

# %% [markdown]
# ## A data set that is already here
#
# DTD is a download of more than half a gigabyte, and nobody should need one to read a book. Two of the
# libraries that this book is built on, scikit-image {cite:p}`c01-vanderwalt2014scikit` and scikit-learn
# {cite:p}`c01-pedregosa2011scikit`, carry some photographs inside their packages. We cut each of them into
# square patches that do not overlap, and call all the patches of one photograph a class. That is how the
# Brodatz album {cite:p}`c01-brodatz1966textures` has served texture research for decades: one photograph, one
# texture.

# %%
import numpy as np
import torch
from torch.testing import assert_close
from torchvision.utils import make_grid

from retrieval_geometry.datasets import PHOTOGRAPHS, photo_textures
from retrieval_geometry.page import Page
from retrieval_geometry.papers.geometric.data import TEXTURE_SIDE, TEXTURES
from retrieval_geometry.reporting.drawing import draw_framed, draw_intervals
from retrieval_geometry.reporting.figures import OKABE_ITO, new_figure
from retrieval_geometry.reporting.tables import format_interval

page = Page("01", profile=profile, data_root=data_root, device=device, seed=seed)
images = photo_textures(TEXTURE_SIDE, TEXTURES)
class_sizes = torch.bincount(images.labels)
len(images), images.load(0).shape, images.ids[:3]

# %% tags=["remove-cell"]
page.say(images=len(images), classes=len(images.classes))
page.say(side=TEXTURE_SIDE, most=TEXTURES)
usual = photo_textures()
page.say(usual_side=usual.load(0).shape[-1], usual_most=usual.labels.bincount().max())
assert set(class_sizes.tolist()) == {TEXTURES}

# %% [markdown]
# An `ImageSet` is a list of names and labels; pixels are read when they are asked for. There are
# {glue:text}`01-images` patches in {glue:text}`01-classes` classes of {glue:text}`01-most`.
# {numref}`fig-01-patches` shows four of each class.
#
# A patch is {glue:text}`01-side` pixels wide, and {glue:text}`01-most` of each photograph are kept, evenly spread, so
# that two of them lie far apart. By default `photo_textures` cuts larger patches ({glue:text}`01-usual-side` pixels), and
# up to {glue:text}`01-usual-most` of a photograph. We cut them smaller to make the task harder. On the larger ones a
# trained network hardly errs, and queries that every method answers tell no two methods apart. This has a price: a
# method that looks for corners and blobs, such as SIFT, finds few of them in so small a patch
# ([chapter 4](04_textures)).

# %% mystnb={"figure": {"caption": "Photo textures: four patches of each of the photographs. Some photographs are one texture (brick, grass, gravel). Others show several things at once (astronaut, camera, coffee), and these will be hard.", "name": "fig-01-patches"}, "image": {"alt": "Eighteen rows of four small square patches, each row labelled with the name of its photograph: brick, grass and gravel look alike within a row, astronaut and coffee do not."}}
figure = new_figure(7.5, 5.2)
for label, axes in enumerate(figure.subplots(6, 3).ravel()):
    members = (images.labels == label).nonzero()[:, 0]
    shown = members[np.linspace(1, len(members) - 2, 4).round()].tolist()
    grid = make_grid([images.load(i) for i in shown], nrow=4, padding=3, pad_value=255)
    axes.imshow(grid.permute(1, 2, 0).numpy())
    axes.set_title(images.classes[label], fontsize=10, loc="left", pad=2)
    axes.axis("off")
figure

# %% [markdown]
# {numref}`tab-01-photographs` says what the photographs show, who made them and on what terms, as far as the
# libraries that ship them say so.
#
# ````{table} The photographs of the set
# :name: tab-01-photographs
#
# ```{glue:md} tab-01-photographs
# :format: myst
# ```
# ````

# %%
rows = []
for photo, count in zip(PHOTOGRAPHS, class_sizes, strict=True):
    facts = [photo.name, photo.subject, photo.author, photo.licence]
    rows.append([*facts, str(int(count))])
header = ["Class", "Shows", "Author or source", "Licence", "Patches"]
page.table("photographs", header, rows, words=4)

# %% [markdown]
# What this set can tell us is limited, and it is fair to say so before the first number. Two patches of one photograph
# share its light, its focus and its camera, and a method may live on these alone. There are few classes. And the label
# of a patch of coffee table is "coffee" even where only wood can be seen; some patches show next to nothing. So the
# *level* of a score on photo textures says nothing about DTD. What does carry over is how methods compare, and every
# argument of this chapter about noise.
#
# ## A first retrieval
#
# To compare images we turn each into numbers. The next chapter explains how; here it is enough that a
# *backbone* looks at an image at $N$ places and returns at each of them a vector of $D$ numbers, a *local
# descriptor*. As a first attempt we do the simplest thing there is: average the descriptors of each image and
# compare the averages by Euclidean distance.

# %%
from retrieval_geometry.features import extract_descriptors, load_backbone
from retrieval_geometry.papers.geometric.data import load_setting

setting = load_setting(page.context)
backbone = load_backbone(**setting.backbone, device=device)
cache = page.context.descriptors
x = extract_descriptors(images, backbone, progress=False, cache=cache)
means = x.mean(dim=1)
distance = torch.cdist(means, means)
x.shape, distance.shape

# %% tags=["remove-cell"]
page.say(descriptors=x.shape[1], dim=x.shape[2])

# %% [markdown]
# Each image has become {glue:text}`01-descriptors` descriptors of {glue:text}`01-dim` dimensions, and the
# database a table of all distances. The protocol is *leave one out*: every patch asks once, and the database
# is all the other patches. So the query must not find itself. We put its own distance to infinity, sort, and
# drop the last column.


# %%
def rank_labels(distance):
    """For each image, the labels of all others, nearest first."""
    others = distance.clone()
    others.fill_diagonal_(torch.inf)
    return images.labels[others.argsort(dim=1)[:, :-1]]


ranked = rank_labels(distance)
ranked.shape

# %% [markdown]
# {numref}`fig-01-ranking` shows the head of six of these rankings. Averages of descriptors already find a
# good deal, and fail where one would expect.

# %% mystnb={"figure": {"caption": "Six queries (left column) and their ten nearest patches by the mean descriptor. Errors have a thick dashed frame.", "name": "fig-01-ranking"}, "image": {"alt": "Six rows of patches, a query followed by its ten nearest neighbours; the row of brick has no errors, those of retina and flower two, those of coffee, astronaut and camera more."}}
shown = ["brick/05", "retina/10", "flower/07", "coffee/11", "astronaut/07", "camera/05"]
dashed = {"lw": 3, "color": OKABE_ITO[1], "ls": "--", "capstyle": "butt"}
figure = new_figure(7.5, 4.3)
for name, row in zip(shown, figure.subplots(6, 11), strict=True):
    query = images.ids.index(name)
    nearest = distance[query].argsort()[:11]
    wrong = images.labels[nearest] != images.labels[query]
    pictures = [images.load(i) for i in nearest.tolist()]
    draw_framed(row, pictures, [dashed if error else None for error in wrong])
    row[0].set_ylabel(name.split("/")[0], fontsize=9)
figure

# %% [markdown]
# ## Precision and recall
#
# Write $r_i = 1$ if the image at rank $i$ is relevant to the query, and $r_i = 0$ if not. All that follows
# is a function of this string of zeros and ones. The first one simply counts. *Precision at k* is the share
# of relevant images among the $k$ nearest,
#
# ```{math}
# :label: eq-01-precision
# P_k = \frac1k \sum_{i=1}^{k} r_i .
# ```
#
# *Recall at k*, in the literature on metric learning, is something else than its name says: it is 1 if *any*
# of the $k$ nearest is relevant,
#
# ```{math}
# :label: eq-01-recall
# R@k = \max_{i \le k} r_i .
# ```
#
# In information retrieval {cite:p}`c01-manning2008introduction` recall is the share of all relevant items
# that were found. The two agree only where there is one relevant item. In this book R@k is
# {eq}`eq-01-recall`.
#
# The naive version is a loop that counts. The package computes the same on whole batches, one value per
# query; and this page asserts that both agree.

# %%
from retrieval_geometry.evaluation import precision_at_k, recall_at_k


def naive_precision(labels, query, k):
    return sum(int(label == query) for label in labels[:k]) / k


p10 = precision_at_k(ranked, images.labels, k=10)
top1 = precision_at_k(ranked, images.labels, k=1)
for i in range(len(images)):
    assert abs(naive_precision(ranked[i], images.labels[i], 10) - p10[i]) < 1e-12
assert_close(recall_at_k(ranked, images.labels, k=1), top1)

# %% [markdown]
# What would a ranking without any sense score? If the order is random, each rank is relevant with probability
# $R / (n - 1)$, where $R$ is the number of relevant images among the $n - 1$ others. That is the expected
# P@k for every $k$. {numref}`fig-01-classes` shows that the first retrieval is above that line for every class, and
# how much the classes differ: for brick and gravel nearly every neighbour is right, for photographs that show several
# things few are.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Precision at 10 of the mean descriptor, class by class: each small dot is a query, the large one their mean. The dashed line is what a random order would give.", "name": "fig-01-classes"}, "image": {"alt": "Dot plot of eighteen classes sorted by mean precision at ten; clock, gravel and brick near one, astronaut and camera lowest, all above the line of random order."}}
by_class = [p10[images.labels == label].numpy() for label in range(len(images.classes))]
order = np.argsort([values.mean() for values in by_class])
random_order = (class_sizes[images.labels].double().mean() - 1) / (len(images) - 1)
rng = np.random.default_rng(seed)
figure = new_figure(7.0, 4.6)
axes = figure.subplots()
for row, label in enumerate(order):
    jitter = rng.uniform(-0.28, 0.28, len(by_class[label]))
    axes.plot(by_class[label], row + jitter, ".", color=OKABE_ITO[5], ms=4)
    axes.plot(by_class[label].mean(), row, "o", color=OKABE_ITO[0], ms=7)
axes.axvline(random_order, color="black", ls="--")
axes.set_yticks(range(len(order)), [images.classes[label] for label in order])
axes.set(xlabel="precision at 10", xlim=(-0.02, 1.02))
figure

# %% [markdown]
# ## Six numbers called average precision
#
# P@k does not care where among the first $k$ the relevant images stand. Average precision does. It walks
# down the ranking, notes the precision $P_i$ whenever it meets a relevant image, and averages. The averages
# differ in where the walk ends and in what the sum is divided by. Papers rarely say which they mean. With
# $R$ relevant images in the database, these are in use:
#
# ```{math}
# :label: eq-01-ap
# \begin{aligned}
# \text{full} &= \frac1R \sum_{i=1}^{n} P_i r_i, &
# \text{hits} &= \sum_{i=1}^{k} P_i r_i \Big/ \sum_{i=1}^{k} r_i, \\
# \text{R} &= \frac1R \sum_{i=1}^{R} P_i r_i, &
# \text{ranks} &= \frac1k \sum_{i=1}^{k} P_i, \\
# \text{k} &= \frac{1}{\min(k, R)} \sum_{i=1}^{k} P_i r_i, &
# \text{precision} &= P_k .
# \end{aligned}
# ```
#
# "full" is the textbook's. "R", also called MAP@R, is the one that a careful comparison of metric-learning
# losses asked for {cite:p}`c01-musgrave2020metric`: it rewards a ranking that puts its $R$ relevant images
# into the first $R$ places, and nothing else. Landmark search reports "k". The three on the right need only
# the head of the ranking, and no $R$; so they are easy to compute and easy to call "MAP on the top 10".
#
# A small example shows how far they can be apart. Take a ranking of which the head is
# $1, 0, 1, 1, 0, 0, 1, 0, 0, 0$, where two more relevant images come much later. {numref}`tab-01-conventions`
# puts this toy beside our first retrieval, averaged over all queries.

# %%
from retrieval_geometry.evaluation import CONVENTIONS, mean_average_precision

toy = torch.tensor([[1, 0, 1, 1, 0, 0, 1, 0, 0, 0] + [0] * 20 + [1, 1]])
toy_ap, our_ap = {}, {}
for name in CONVENTIONS:
    toy_ap[name] = mean_average_precision(toy, torch.tensor([1]), name, k=10)
    our_ap[name] = []
    for k in (1, 5, 10):
        ours = mean_average_precision(ranked, images.labels, name, k=k)
        our_ap[name].append(ours)

# %%
rows = []
for name, (first, fifth, tenth) in our_ap.items():
    cells = [f"{value:.3f}" for value in (toy_ap[name], first, fifth, tenth)]
    if name in ("full", "R"):
        cells[1:3] = "–", "–"
    rows.append([name, *cells])
header = ["Convention", "toy ranking, k = 10"]
header += ["ours, k = 1", "ours, k = 5", "ours, k = 10"]
page.table("conventions", header, rows)

# %% tags=["remove-cell"]
page.say(toy_low=min(toy_ap.values()), toy_high=max(toy_ap.values()))
page.say(hits_1=our_ap["hits"][0], hits_10=our_ap["hits"][2])

# %% [markdown]
# ````{table} One toy ranking, and one retrieval, under six conventions; "full" and "R" do not depend on k
# :name: tab-01-conventions
#
# ```{glue:md} tab-01-conventions
# :format: myst
# ```
# ````
#
# The toy ranking scores between {glue:text}`01-toy-low:.2f` and {glue:text}`01-toy-high:.2f`, and nothing
# about it has changed but the formula. Note one row in particular: "hits" is blind to everything it does not
# find. A ranking with a single relevant image, at rank 1, scores a perfect 1.
#
# In place of a naive version for each, here is the textbook's, against the package.

# %%
from retrieval_geometry.evaluation import average_precision

relevant = (ranked == images.labels[:, None]).double()


def naive_average_precision(r):
    found, total = 0, 0.0
    for i, hit in enumerate(r.tolist(), start=1):
        found += hit
        total += hit * found / i
    return total / found


full = average_precision(ranked, images.labels, "full")
assert_close(full.tolist(), [naive_average_precision(r) for r in relevant])

# %% [markdown]
# **What did the paper compute?** Its Table 1 is headed "MAP" with columns Top-1, Top-5 and Top-10, and its
# text speaks of the "Mean Average Precision (MAP) on top 10 rankings" without a formula. "k", "hits", "ranks"
# and "precision" all fit these words. At $k = 1$ they are one and the same: the share of queries whose
# nearest image is relevant. So Top-1 can be compared without any guess, and we lean on it. For the other two
# columns we have hints only. The curves of its Figure 1 are called precision. And its numbers fall steeply
# from Top-1 to Top-10, as precision does, and "k", and more slowly "ranks"; on our data "hits" goes from
# {glue:text}`01-hits-1:.2f` at 1 to {glue:text}`01-hits-10:.2f` at 10. This book reports plain precision,
# says so, and shows the others where they matter.
#
# ## One item too many
#
# Where every image asks and every image is searched, the query itself is in the database. Two well-hidden
# mistakes come from that.
#
# *The query finds itself.* Its distance to itself is zero, so it stands at rank 1, is relevant, and every
# method has a perfect Top-1.
#
# *The query is counted.* A class of $m$ images holds $R = m - 1$ images relevant to one of them. An average
# precision that divides by $m$ cannot reach 1: for a perfect ranking it is
#
# ```{math}
# :label: eq-01-trap
# \frac1m \sum_{i=1}^{m-1} P_i r_i = \frac{m-1}{m} ,
# ```
#
# which is one half for classes of two. Below, both mistakes on purpose.

# %%
for m in (2, 5, 24):
    perfect, one = torch.ones(1, m - 1).long(), torch.tensor([1])
    n_relevant = torch.tensor([m])
    wrong = average_precision(perfect, one, "full", n_relevant=n_relevant)
    assert_close(float(wrong), (m - 1) / m)
    print(f"class of {m:2}: a perfect ranking scores {float(wrong):.3f}")

with_itself = images.labels[distance.clone().fill_diagonal_(-1).argsort(dim=1)]
inflated = precision_at_k(with_itself, images.labels, 1).mean()
print(f"Top-1 with the query in its own ranking: {inflated:.3f}")

# %% [markdown]
# The second mistake is not invented: one well-known code base divides by $m$ in this way. The package
# refuses to guess: it takes $R$ from the ranking it is given, or from `n_relevant`, and complains if the two
# contradict each other.
#
# ## How sure are we? The bootstrap
#
# Our first retrieval has a Top-1 that is a mean over queries. Other queries would have given another mean.
# How different?
#
# If the $n$ queries are drawn independently and each succeeds with probability $p$, the number of successes
# is binomial, and the standard error of their share is
#
# ```{math}
# :label: eq-01-se
# \operatorname{SE} = \sqrt{\frac{p (1 - p)}{n}} .
# ```
#
# For P@10 or average precision the values are no longer zeros and ones. The bootstrap
# {cite:p}`c01-efron1993introduction` needs no formula. It treats the queries at hand as if they were the
# population, and asks again and again.
#
# ````{prf:algorithm} Percentile bootstrap
# :label: alg-01-bootstrap
#
# **Input** values $v_1, \dots, v_n$, one per query.
#
# 1. Repeat 2,000 times: draw $n$ of the values with replacement, and keep the mean of the draw.
# 2. Return the mean of $v$, and the 2.5 % and 97.5 % quantiles of the kept means.
# ````
#
# `bootstrap_interval` does this. Its interval for Top-1 should be about two standard errors {eq}`eq-01-se` to
# each side.

# %%
from retrieval_geometry.evaluation import bootstrap_interval

interval = bootstrap_interval(top1)
standard_error = float((top1.mean() * (1 - top1.mean()) / len(top1)).sqrt())
print("Top-1", format_interval(interval, digits=3))
print(f"half its width is {interval.width / 2:.3f};", end=" ")
print(f"1.96 standard errors are {1.96 * standard_error:.3f}")

of_classes = bootstrap_interval(top1, groups=images.labels)  # whole classes are drawn

# %% tags=["remove-cell"]
page.say(class_ratio=of_classes.width / interval.width)

# %% [markdown]
# Two things this interval does *not* cover. It takes the database as fixed; another database would move the
# scores as well. And it treats the queries as independent, whereas patches of one photograph resemble each
# other. If we care about *these* classes only, the difference between easy and hard classes is no source of
# noise, because each class gets its share of the queries, and the truth lies nearer to the score than the
# interval says ({numref}`ex-01-5`). If we care about photographs in general, the classes are what was drawn, and the
# interval is too narrow: drawing whole classes again makes it {glue:text}`01-class-ratio:.1f` times as wide.
# [Chapter 10](10_learning_a_metric) measures how often either kind of interval holds the truth.
#
# ## Ninety-four queries
#
# The paper takes two test images of each of the 47 attributes of DTD, asks with these 94, and searches 3,760
# images. So each Top-1 in its Table 1 is a multiple of $1/94$. Let us turn the printed numbers back into
# counts, and give them the intervals that the paper lacks ({numref}`fig-01-paper`).

# %%
TOP1 = {  # [geometric] Table 1, column Top-1, in percent
    "GMM-Wasserstein": 62,
    "SMT-Wasserstein": 59,
    "GMM-Normal KL": 53,
    "SMT-Normal KL": 53,
    "SMT-Riemannian": 50,
    "GMM-Variational KL": 45,
    "SIFT-BoW-Euclidean": 43,
}
N_QUERIES, hits, paper = 94, {}, {}
for name, percent in TOP1.items():
    hits[name] = round(percent / 100 * N_QUERIES)
    assert round(100 * hits[name] / N_QUERIES) == percent
    answers = [1] * hits[name] + [0] * (N_QUERIES - hits[name])
    paper[name] = bootstrap_interval(answers)

# %% mystnb={"figure": {"caption": "Top-1 of the paper's Table 1 with the 95 % bootstrap interval that 94 queries allow.", "name": "fig-01-paper"}, "image": {"alt": "Seven methods with horizontal intervals about 0.2 wide; the intervals of neighbouring methods overlap heavily, and that of GMM-Wasserstein reaches all others, the two lowest only just."}}
figure = new_figure(7.0, 2.9)
axes = figure.subplots()
draw_intervals(axes, list(paper.values()), names=list(paper), ms=6)
axes.set_xlabel("Top-1 of 94 queries")
axes.grid(axis="x", color="#dddddd", lw=0.6)
figure

# %%
possible = {round(100 * count / N_QUERIES) for count in range(N_QUERIES + 1)}
widths = [one.width for one in paper.values()]

# %% tags=["remove-cell"]
page.say(missed=101 - len(possible), se_94=np.sqrt(0.53 * 0.47 / N_QUERIES))
page.say(best=paper["GMM-Wasserstein"], second=paper["GMM-Normal KL"])
page.say(paper_width=np.mean(widths))

# %% [markdown]
# The counts exist: every printed number is a multiple of 1/94, rounded. (The check has little power. The grid of 1/94
# misses only {glue:text}`01-missed` of the 101 numbers from 0.00 to 1.00.) The standard error is about
# {glue:text}`01-se-94:.2f`. The paper's best method has {glue:text}`01-best`, its fellow with the KL divergence
# {glue:text}`01-second`.
#
# To see what that means, suppose the printed values were the exact truth, and let each method answer 94 fresh
# queries. {numref}`fig-01-overlap` shows what could come out.

# %%
from scipy.stats import binom

counts = np.arange(N_QUERIES + 1)
better, worse = (binom.pmf(counts, N_QUERIES, p) for p in (0.62, 0.53))
upset = sum(worse[k] * better[: k + 1].sum() for k in counts)

# %% tags=["remove-cell"]
page.say(upset=100 * upset)

# %% mystnb={"figure": {"caption": "If the true Top-1 were 0.62 (blue, solid) and 0.53 (orange, dashed): the probability of each result that 94 independent queries can give.", "name": "fig-01-overlap"}, "image": {"alt": "Two bell-shaped step curves centred on 0.53 and 0.62, each about 0.2 wide, overlapping over half of their width."}}
figure = new_figure(7.0, 2.8)
axes = figure.subplots()
shares = counts / N_QUERIES
for chances, colour, style in zip(
    (better, worse), OKABE_ITO, ("-", "--"), strict=False
):
    axes.fill_between(shares, chances, step="mid", color=colour, alpha=0.25)
    axes.step(shares, chances, where="mid", color=colour, ls=style)
axes.set(xlabel="Top-1 in an experiment with 94 queries", ylabel="probability")
axes.set_xlim(0.3, 0.85)
figure

# %% [markdown]
# With independent queries the better method would fail to come out ahead in {glue:text}`01-upset:.0f` % of
# the experiments. That is for a gap of 0.09, three times as wide as the gap between the two Wasserstein rows.
#
# ## The same queries for both: paired differences
#
# There is one thing to be said in the paper's defence. All its methods answer the *same* 94 queries, and an
# easy query is easy for all. What they share cancels in the difference. For two methods with per-query values
# $a_i$ and $b_i$,
#
# ```{math}
# :label: eq-01-paired
# \operatorname{Var}(\bar a - \bar b) = \frac{\sigma_a^2 + \sigma_b^2 - 2 \rho\, \sigma_a \sigma_b}{n} ,
# ```
#
# where $\rho$ is the correlation of $a_i$ and $b_i$ over the queries. (For zeros and ones this is the
# variance behind McNemar's test {cite:p}`c01-mcnemar1947note`.) The larger $\rho$, the smaller the gap that
# can be seen. The paper does not give per-query results, so its $\rho$ is unknown. We can measure what is
# usual on our own data, with a second method: describe an image not by the mean of its descriptors but by
# their standard deviation in each dimension.

# %%
from retrieval_geometry.evaluation import paired_bootstrap_difference

spreads = x.std(dim=1)
ranked_by_spread = rank_labels(torch.cdist(spreads, spreads))
other_top1 = precision_at_k(ranked_by_spread, images.labels, k=1)
correlation = float(torch.corrcoef(torch.stack([top1, other_top1]))[0, 1])
paired = paired_bootstrap_difference(top1, other_top1)
widths = [bootstrap_interval(values).width for values in (top1, other_top1)]
unpaired_width = float(np.hypot(*widths))

# %% tags=["remove-cell"]
page.say(other=other_top1.mean(), correlation=correlation)
page.say(gap=format_interval(paired, 3))
page.say(paired_width=paired.width, unpaired_width=unpaired_width)

# %% [markdown]
# The spread alone reaches {glue:text}`01-other:.2f`. Its answers correlate with those of the mean with
# $\rho =$ {glue:text}`01-correlation:.2f`. The difference of the two is {glue:text}`01-gap`: the paired interval is
# {glue:text}`01-paired-width:.3f` wide, where two separate ones would have suggested
# {glue:text}`01-unpaired-width:.3f`.
#
# Now back to the paper. For all pairs of its seven methods we divide the gap by the standard error
# {eq}`eq-01-paired`, once with $\rho = 0$ and once with $\rho = 0.5$, as for two methods that have much in
# common. A ratio above 1.96 lies outside the 95 % interval.


# %%
def gap_over_error(a, b, rho):
    p, q = hits[a] / N_QUERIES, hits[b] / N_QUERIES
    va, vb = p * (1 - p), q * (1 - q)
    variance = (va + vb - 2 * rho * np.sqrt(va * vb)) / N_QUERIES
    return abs(p - q) / np.sqrt(variance)


# %%
names = list(hits)
pairs = np.triu_indices(len(names), 1)
ratios, beyond = {}, {}
for rho in (0.0, 0.5):
    rows = [[gap_over_error(a, b, rho) for b in names] for a in names]
    ratios[rho] = np.array(rows)
    beyond[rho] = int((ratios[rho][pairs] > 1.96).sum())

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Gaps in Top-1 between the methods of Table 1, in standard errors. Below the diagonal: independent answers. Above: answers that correlate with 0.5. Bold on blue: outside the noise of 94 queries.", "name": "fig-01-gaps"}, "image": {"alt": "Seven by seven matrix of ratios; only gaps between methods at the top and those at the bottom of the table exceed 1.96."}}
both = np.where(np.tri(len(names), dtype=bool), ratios[0.0], ratios[0.5])
short = [name.replace("-", "-\n").replace(" ", "\n") for name in names]
figure = new_figure(7.4, 3.6)
axes = figure.subplots()
axes.imshow(both > 1.96, cmap="Blues", vmin=0, vmax=4, aspect="auto")
for i, j in np.argwhere(~np.eye(len(names), dtype=bool)):
    weight = "bold" if both[i, j] > 1.96 else "normal"
    axes.text(j, i, f"{both[i, j]:.1f}", ha="center", va="center", weight=weight)
axes.set_yticks(range(len(names)), names)
axes.set_xticks(range(len(names)), short, fontsize=8)
axes.spines[:].set_visible(False)
figure

# %%
z = gap_over_error("GMM-Wasserstein", "GMM-Normal KL", 0.0)
page.say(pairs=len(pairs[0]), beyond_0=beyond[0.0], beyond_5=beyond[0.5])
page.say(rho_needed=1 - (z / 1.96) ** 2, p10_noise=p10.std() / top1.std())

# %% [markdown]
# {numref}`fig-01-gaps` has all gaps.
# Of the {glue:text}`01-pairs` gaps, {glue:text}`01-beyond-0` are outside the noise if the answers are
# independent, and {glue:text}`01-beyond-5` if they correlate with 0.5. Among so many comparisons of equal
# methods one would be found "significant" at this level by chance alone. What survives is coarse: the
# Wasserstein rows are above the bottom of the table. Wasserstein against normal KL, the comparison on which
# the paper's conclusion rests, would need answers that correlate with more than
# {glue:text}`01-rho-needed:.2f`; whether GMM or SMT is the better model, no plausible correlation can tell.
# The other two columns average over several neighbours of each query. That helps little, because the
# neighbours of a query succeed and fail together (on our data the standard deviation of P@10 over queries is
# {glue:text}`01-p10-noise:.2f` of that of P@1), and the gaps are narrower there as well. None of this is a
# reproach to the methods. It is what 94 queries can carry.
#
# ## The luck of the draw
#
# There is a more direct way to see it. DTD's test split offers 40 images per class, of which the paper asks
# with two. Our set is smaller, but the experiment can be copied: let every patch answer once, then draw two
# per class, many times, and look at the mean each draw would have reported. `query_draw_interval` does that.
# {numref}`fig-01-draws` shows the draws for our two methods.

# %%
from retrieval_geometry.evaluation import query_draw_interval

two_a_class = {
    name: query_draw_interval(values, images.labels, per_class=2)
    for name, values in (("mean", top1), ("spread", other_top1))
}
intervals = {f"two of each class, {name}": one for name, one in two_a_class.items()}
intervals["all queries, mean"] = bootstrap_interval(top1)
for name, one in intervals.items():
    print(f"{name:27}{format_interval(one, digits=3)}")

# %%
rng = np.random.default_rng(seed)
classes = range(len(images.classes))
members = [(images.labels == label).nonzero()[:, 0].numpy() for label in classes]


def draw_two():
    return np.concatenate([rng.choice(group, 2, replace=False) for group in members])


draws = np.array([draw_two() for _ in range(2000)])
by_mean = top1.numpy()[draws].mean(axis=1)
by_spread = other_top1.numpy()[draws].mean(axis=1)
page.say(n_drawn=len(draws[0]), not_ahead=100 * (by_mean <= by_spread).mean())

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Top-1 that an experiment with two queries per class would have reported, over 2,000 draws of the queries. Blue, solid: mean of the descriptors. Orange, dashed: their spread.", "name": "fig-01-draws"}, "image": {"alt": "Two overlapping histograms of Top-1, the one of the spread lying lower; both about 0.3 wide."}}
figure = new_figure(7.0, 2.8)
axes = figure.subplots()
edges = np.arange(0.5, 37) / 36
both_ways = zip((by_mean, by_spread), OKABE_ITO, ("-", "--"), strict=False)
for reported, colour, style in both_ways:
    axes.hist(reported, edges, histtype="stepfilled", color=colour, alpha=0.25)
    axes.hist(reported, edges, histtype="step", color=colour, ls=style, lw=1.5)
axes.set(xlabel="Top-1 of a draw with two queries per class", ylabel="draws")
axes.set_xlim(0.4, 1.02)
figure

# %%
variance = 0.62 * 0.38 + 0.59 * 0.41  # of the difference of two answers
page.say(needed=int(np.ceil((1.96 / 0.03) ** 2 * variance / 100) * 100))

# %% [markdown]
# With {glue:text}`01-n-drawn` queries the method that is worse over all queries comes out level or ahead in
# {glue:text}`01-not-ahead:.0f` % of the draws. An author who happens on one of these would publish the
# opposite ranking in good faith.
#
# The remedy costs nothing but computing time: ask with every image there is. To tell 0.62 from 0.59 by
# independent answers takes about {glue:text}`01-needed` queries ({numref}`ex-01-4`); the test split of DTD holds
# 1,880. So the experiments of this book ask with all queries that the protocol allows, put an interval around
# every score, and call a claim about two methods *inconclusive* where the paired interval straddles zero. For
# a verdict the interval is over classes, and all comparisons that a claim looks at share the risk
# ([chapter 10](10_learning_a_metric)).
#
# ## The first result
#
# {numref}`tab-01-first` is the first retrieval in the form that every result of this book has. Later chapters
# must beat its first row.

# %%
cosine = torch.nn.functional.normalize(means, dim=1)
entries = {
    "mean, Euclidean": ranked,
    "mean, cosine": rank_labels(1 - cosine @ cosine.T),
    "spread, Euclidean": ranked_by_spread,
}
columns = {
    "P@1": lambda r: precision_at_k(r, images.labels, 1),
    "P@5": lambda r: precision_at_k(r, images.labels, 5),
    "P@10": lambda r: precision_at_k(r, images.labels, 10),
    "R@10": lambda r: recall_at_k(r, images.labels, 10),
    "MAP@R": lambda r: average_precision(r, images.labels, "R"),
}

# %%
rows = []
for name, one in entries.items():
    found = [bootstrap_interval(metric(one), seed=seed) for metric in columns.values()]
    rows.append([name, *map(format_interval, found)])
page.table("first", ["Method", *columns], rows)
by_cosine = columns["P@1"](entries["mean, cosine"])
cosine_gain = paired_bootstrap_difference(by_cosine, top1, seed=seed)
page.say(cosine=format_interval(cosine_gain, 3))

# %% [markdown]
# ````{table} Photo textures, every patch against all others: value and 95 % bootstrap interval over queries
# :name: tab-01-first
#
# ```{glue:md} tab-01-first
# :format: myst
# ```
# ````
#
# ## What we found
#
# - The mean of the local descriptors, the simplest description there is, is far from useless. On this
#   set it is a serious control, which the paper lacks: a geometry that does not beat it has not earned its
#   cost.
# - Dividing out the length of the mean, that is taking the cosine, changes Top-1 by
#   {glue:text}`01-cosine`. This is a
#   step that papers may not even mention.
# - "MAP on the top 10" has at least four readings. They agree at $k = 1$ and nowhere else.
# - 94 queries leave a standard error of about {glue:text}`01-se-94:.2f`, and intervals
#   {glue:text}`01-paper-width:.2f` wide. Most gaps in the paper's Table 1 are smaller than what they allow
#   one to see.
# - Whether the right answers come from texture, or from shared light and focus, this data set cannot say
#   itself.

# %% [markdown]
# ## Exercises
#
# ````{exercise} Where the order is not enough
# :label: ex-01-1
#
# By {prf:ref}`lem-01-monotone` the square of a distance gives the same rankings. Someone adds two distances,
# $d_1 + d_2$, to use colour and texture together. Does it matter now whether they are squared first? And for
# the *mean* distance of a query to several images of one class?
# ````
#
# ````{solution} ex-01-1
# :class: dropdown
#
# It does, in both cases. $f(d_1 + d_2)$ has the order of $d_1 + d_2$, but $f(d_1) + f(d_2)$ need not: for the
# pairs $(d_1, d_2) = (3, 3)$ and $(5, 0)$ the sums are 6 and 5, the sums of squares 18 and 25. A mean of
# distances is a sum as well. Ranking forgives an increasing function of the *final* number only.
# ````
#
# ````{exercise} A random ranking
# :label: ex-01-2
#
# A query has $R$ relevant images in a database of $n$. The order is random. Find the expectation of P@k and
# of R@k. Check both by simulation with $n = 395$, $R = 23$, $k = 10$.
# ````

# %% [markdown]
# ````{solution-start} ex-01-2
# :class: dropdown
# ````
#
# By symmetry each rank is relevant with probability $R / n$, so $\E P_k = R / n$ by linearity, although the
# ranks depend on each other. R@k fails if all of the first $k$ come from the $n - R$ others:
# $\E R@k = 1 - \binom{n-R}{k} / \binom{n}{k}$.

# %% tags=["hide-cell"]
from math import comb

n_others, n_relevant, k = 395, 23, 10
labels = (torch.arange(n_others) < n_relevant).long()
generator = torch.Generator().manual_seed(seed)
order = torch.rand(20_000, n_others, generator=generator).argsort(dim=1)
shuffled, queries = labels[order], torch.ones(20_000, dtype=torch.long)
simulated = [float(precision_at_k(shuffled, queries, k).mean())]
simulated.append(float(recall_at_k(shuffled, queries, k).mean()))
missed_all = comb(n_others - n_relevant, k) / comb(n_others, k)
exact = [n_relevant / n_others, 1 - missed_all]
assert np.allclose(simulated, exact, atol=0.015)
print(f"P@10: {simulated[0]:.4f} simulated, {exact[0]:.4f} exact")
print(f"R@10: {simulated[1]:.4f} simulated, {exact[1]:.4f} exact")

# %% [markdown]
# A random order finds something among its ten nearest in nearly half of the cases: R@10 flatters.
#
# ````{solution-end}
# ````

# %% [markdown]
# ````{exercise} Hits or misses
# :label: ex-01-3
#
# Find a ranking of length 3 for which "hits" is larger than P@3, and one for which it is smaller. Then show
# that "k" is never larger than P@k as long as $k \le R$.
# ````
#
# ````{solution} ex-01-3
# :class: dropdown
#
# For $1, 0, 0$ hits is 1 and P@3 is $1/3$. For $0, 1, 1$ hits is $(1/2 + 2/3)/2 = 7/12$, and P@3 is $2/3$.
# With $k \le R$ the convention "k" is $\frac1k \sum_{i \le k} P_i r_i$, and every $P_i \le 1$, so it is at
# most $\frac1k \sum_{i \le k} r_i = P_k$.
# ````
#
# ````{exercise} How many queries?
# :label: ex-01-4
#
# How many queries does it take to tell a true Top-1 of 0.62 from 0.59, so that the expected gap is 1.96
# standard errors, if the answers are independent? And if they correlate with $\rho = 0.5$?
# ````
#
# ````{solution} ex-01-4
# :class: dropdown
#
# Set the gap $\delta = 0.03$ equal to 1.96 times the root of {eq}`eq-01-paired` and solve for $n$,
#
# $$n = \left(\frac{1.96}{\delta}\right)^2 \left(\sigma_a^2 + \sigma_b^2 - 2 \rho\, \sigma_a \sigma_b\right),$$
#
# with $\sigma_a^2 = 0.62 \cdot 0.38$ and $\sigma_b^2 = 0.59 \cdot 0.41$. That is a little over 2,000 for
# $\rho = 0$ and half of it for $\rho = 0.5$. And even then the gap is seen in every second experiment only,
# because its own estimate scatters by one standard error around 1.96 of them.
# ````
#
# ````{exercise} Two of each class
# :label: ex-01-5
#
# Classes have success rates $p_1, \dots, p_C$. Compare the variance of Top-1 for $2C$ queries drawn from the
# whole set with that for two queries from each class (with replacement, to keep it simple). Which is smaller,
# and by how much? Compute both standard errors for our first retrieval.
# ````

# %% [markdown]
# ````{solution-start} ex-01-5
# :class: dropdown
# ````
#
# Let $\bar p$ be the mean of the $p_c$. Drawn from the whole set (classes of equal size), a query succeeds
# with probability $\bar p$, and the variance of the mean is $\bar p (1 - \bar p) / 2C$. With two per class it
# is $\sum_c 2 p_c (1 - p_c) / (2C)^2 = \frac{1}{2C} \cdot \frac1C \sum_c p_c (1 - p_c)$. Because
# $\frac1C \sum p_c (1 - p_c) = \bar p (1 - \bar p) - \frac1C \sum (p_c - \bar p)^2$, the second is smaller by
# the variance between classes over $2C$.

# %% tags=["hide-cell"]
rates = np.array([float(top1[group].mean()) for group in members])
whole = np.sqrt(rates.mean() * (1 - rates.mean()) / (2 * len(rates)))
stratified = np.sqrt((rates * (1 - rates)).mean() / (2 * len(rates)))
assert stratified < whole
print(f"standard error of {2 * len(rates)} queries at random: {whole:.3f}")
print(f"and of as many, two from each class:   {stratified:.3f}")

# %% [markdown]
# So the paper's protocol is a little better than 94 queries at random, if one cares about the 47 attributes
# of DTD and no others. How much better depends on how different its classes are, which Table 1 does not say.
#
# ````{solution-end}
# ````
#
# ## References
#
# ```{bibliography}
# :filter: docname in docnames
# :keyprefix: c01-
# ```

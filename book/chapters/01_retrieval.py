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
# Some text {cite:p}`qian2017differential` and {numref}`fig-x`.
#
# ```{math}
# :label: eq-x
# \norm{x}_2 = \sqrt{\tr\left(x x^\top\right)} \in \R
# ```
#
# Equation {eq}`eq-x`.

# %% tags=["parameters"]
profile = "quick"
data_root = "data"
device = "cpu"
seed = 0

# %% mystnb={"figure": {"caption": "A line.", "name": "fig-x"}, "image": {"alt": "a line"}}
import matplotlib.pyplot as plt

figure, axis = plt.subplots()
axis.plot([1, 2, 3]);

# %% [markdown]
# ```{bibliography}
# :filter: docname in docnames
# ```

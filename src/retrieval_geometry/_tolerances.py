"""Every tolerance of the package, with its reason.

Those of compiled loops stand in ``distances/_entropic_kernels.py``, ``image_models/_smt_kernels.py``: numba
keeps a loop by its own file, and would not notice a number that changes here.
"""

import torch

F32, F64 = torch.float32, torch.float64

# What is taken. Beyond these, squares, products or inverses leave the range or the digits of the dtype.
COORDINATES = {F32: (1e-12, 1e15), F64: (1e-140, 1e150)}
"""The largest coordinate, or 0, where squares of differences are summed."""
VARIANCES = {F32: (1e-30, 1e32), F64: (1e-140, 1e140)}
"""The mean variance of an image: products of two are numbers."""
DESCRIPTORS = (1e-130, 1e130)
"""Descriptors of a Gaussian: fourth powers, and their ratios, are numbers of float64."""
SQUARES = (1e-280, 1e300)
"""Squares of float64 between these keep all their digits, and so does their sum."""
TINY = 1e-300
"""A positive float64 without meaning: what is divided by it, or below it, is 0 or stays a number."""
CONDITION = 1e12
"""Largest condition of a correlation matrix: beyond, float64 has too few digits for an inverse."""
SINGULAR_SPAN = 1e-10
"""Smallest singular value over the largest: below, float64 has too few digits for its logarithm."""
COST_SPAN = 1e12
"""Largest (max cost - min cost) / epsilon: beyond, epsilon is lost in the rounding of the costs."""
LARGE_EPSILON = 1e7
"""Epsilon over the span of the costs from which on the bounds of the value say more than its logarithms."""
ASYMMETRY = 1e-4
"""Of the largest entry: more than sums in float32 differ by in another order, less than a real asymmetry."""
UNIT_SUM = 1e-3
"""Masses may miss 1 by less, as typed ones do; they are divided by their sum."""
FACTOR_TRACE = 1e-3
"""Trace of a factor against that of its covariance: rounding in float32 and no more."""
ZERO_LENGTH = 1e-12
"""Shorter vectors have no direction: the eps of torch's own normalisation."""

# What rounding may do, and what is computed again more exactly.
BATCH = {F32: 1e-3, F64: 1e-6}
"""Relative error that the other images of a batch may cause."""
BATCH_NATS = 1e-9
"""Error in nats that no pair is computed again for: the divergence of a mixture from itself is 0."""
SQUARING_LOSS = 1e-12
"""Eigenvalues of a Gram matrix below this share of the largest have fewer than four digits."""
EIGENVALUE_LOSS = 1e-8
"""An eigenvalue below this share of the largest has half its digits; the factor's singular value has all."""
CANCELLED = 1e-8
"""A squared difference below this share of the squares has half its digits when computed by a product."""
EQUAL_POINTS = 1e-14
"""What a product leaves of the squared distance of equal points; its root would be a distance."""
STEADY_PIVOT = 1e-3
"""A pivot of float32 is good to 1e-7 over its size; smaller ones are left to float64."""
UNDERFLOW = 1e-12
"""A squared distance below this share of the traces is rounding, and is no loss."""
SMALL_TRACE = 1e-25
"""Traces of which that share may be below the smallest number of float32."""
LOG_SERIES = 1e-3
"""t - log(1 + t) by four terms of its series: the next is below 1e-12 of it."""
ATANH_SERIES = 1e-4
"""atanh(t) / t by two terms of its series: the third is below rounding."""

# Search: what is taken off a lower bound.
DISTANCE_ROUNDING = 1e-8
"""Of the distance itself, relative to the size of what it is computed from. Measured, not proved: the largest
error seen, of a fidelity from a Gram matrix of condition 1e12, was 1e-10."""
SINGULAR_ROUNDING = 1e-15
"""Of a singular value or an eigenvalue, relative to the largest, over the dimension. Measured, not proved."""
SMALLEST_TRACE = 1e-140
"""Traces that are not far above it rule nothing out: the squares of the distance may underflow."""

# Iterations: when they are done.
MARGINALS = {F32: 1e-5, F64: 1e-9}
"""L1 error of the column masses: that of the value is its square, below the rounding of the dtype."""
ANNEALED = 1e-2
"""The same on the way to the last epsilon: Newton's method converges from there."""
NEWTON_RIDGE = 1e-13
"""Added to the unit diagonal of Newton's system: its rounding, so that Cholesky finds no pivot below 0."""
EXCHANGE_RIDGE = 1e-6
"""The same where two groups of points exchange no mass: it decides how they split the step."""
ARMIJO = 1e-4
"""Share of the slope that a step must gain (Nocedal and Wright 2006, section 3.1)."""
DUAL_ROUNDING = 1e-14
"""Of the value of the dual, relative: a step is not refused for less."""
ROOT_STEP = 1e-6
"""Last step of Newton's method for a threshold: the next one would be its square."""
ROOT_BRACKET = 1e-7
"""Width of the bracket that bisection ends with, over its upper end: the digits of float32."""

# Ties and equality: what counts as the same.
SAME_GAIN = 1e-6
"""Gains, and distances, of a coreset that differ by less than this share of the better one."""
SAME_LIKELIHOOD = 1e-9
"""Nats per descriptor: likelihoods that differ by no more are equal, and the first is chosen."""
SAME_POINT = 1e-12
"""Squared distances below this share of the squared lengths are rounding."""
SAME_DIRECTION = 1e-14
"""Vectors of length one that are no farther apart have one direction, but for rounding."""
SAME_VALUE = 1e-12
"""Of the largest value: a smaller difference or spread is rounding."""
SAME_DESCRIPTORS = 1e-4
"""Batch sizes and threads change descriptors by less, another network by far more."""
CONSTANT = 1e-5
"""Of the terms of a sum in float32: what varies less does not vary."""
NULL_DIRECTION = 1e-12
"""Eigenvalues below this share of the largest are rounding of a Gram matrix of lower rank."""
ALIKE = 1e-28
"""Variance over squared length: less is rounding of float64, and the vectors are all the same."""
WHOLE = 1e-9
"""A number that is above a whole one by less is that one: 0.1 * 30 is a little more than 3."""

# Edges: kept inside of an interval.
COSINE_EDGE = 1e-6
"""At a cosine of 1 the histogram loss would read past its last bin."""
DRAW_EDGE = 1e-12
"""Uniform draws stay below 1 by more than the rounding of a row's end, or would fall into the next row."""

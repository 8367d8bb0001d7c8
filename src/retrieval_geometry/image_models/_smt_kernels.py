"""Compiled loops of the sparse matrix transform: the greedy search, and replays of its rotations.

A step of the search costs O(D): each row of the matrix remembers its largest squared correlation, and after a
rotation of coordinates p and q only the rows p and q, the columns p and q, and the few rows whose largest
stood in one of these columns are looked at again. The choice is the same as that of a full search, ties
included.

All functions release the interpreter lock, so images run in parallel on ordinary threads.
"""

import numpy as np

from retrieval_geometry._compiled import EXACT_ROUNDING, Floats, Integers, compiled

NEGLIGIBLE = 1e-15  # a correlation below this is rounding: the matrix is diagonal


@compiled(EXACT_ROUNDING)
def search_row(r: Floats, row: int, best: Floats, partner: Integers) -> None:
    """Find the largest correlation of a row, without its sign, and where it stands (the first of equals)."""
    entries, largest = r[row], 0.0
    for j in range(len(best)):
        largest = max(largest, abs(entries[j]))
    best[row] = largest
    for j in range(len(best)):
        if abs(entries[j]) == largest:
            partner[row] = j
            return


@compiled(EXACT_ROUNDING)
def refresh_rows(r: Floats, p: int, q: int, best: Floats, partner: Integers) -> None:
    """Bring the largest correlations up to date after a rotation of coordinates p and q."""
    for k in range(len(best)):
        with_p, with_q = abs(r[p, k]), abs(r[q, k])
        larger, where = (with_q, q) if with_q > with_p else (with_p, p)
        # Only the columns p and q of a row have changed: a larger entry wins, a lost maximum is searched
        # anew.
        if larger > best[k]:
            best[k], partner[k] = larger, where
        elif partner[k] == p or partner[k] == q:
            search_row(r, k, best, partner)
        elif larger == best[k] and where < partner[k]:
            partner[k] = where
    search_row(r, p, best, partner)
    search_row(r, q, best, partner)


@compiled(EXACT_ROUNDING)
def rotate_correlations(r: Floats, p: int, q: int, theta: float, before: Floats, after: Floats) -> None:
    """Rotate coordinates p and q of correlations, given the two standard deviations before and after."""
    # Covariances rotate by (cos, -sin; sin, cos), eq. 4; correlations also change their units.
    cosine, sine = np.cos(theta), np.sin(theta)
    pp, pq = cosine * before[0] / after[0], -sine * before[1] / after[0]
    qp, qq = sine * before[0] / after[1], cosine * before[1] / after[1]
    row_p, row_q = r[p], r[q]
    for k in range(len(row_p)):
        with_p, with_q = row_p[k], row_q[k]
        row_p[k] = pp * with_p + pq * with_q
        row_q[k] = qp * with_p + qq * with_q
    row_p[p], row_p[q], row_q[p], row_q[q] = 0.0, 0.0, 0.0, 0.0
    for k in range(len(r)):
        r[k, p], r[k, q] = row_p[k], row_q[k]


@compiled(EXACT_ROUNDING)
def greedy_rotations(
    r: Floats, variances: Floats, floor: float, pairs: Integers, angles: Floats, changed: Floats
) -> int:
    """Greedy rotations of the most correlated pair of coordinates ([geometric] eq. 5, erratum 0.5).

    The search works on correlations: a rotation mixes two rows of them by constants, whatever the other
    coordinates' variances are, and the largest squared correlation is the largest entry.

    Args:
        r: ``(D, D)`` correlations with zeros for their diagonal; overwritten by those of the rotated
            coordinates.
        variances: ``(D,)`` variances, at least ``floor``; overwritten.
        floor: least variance; a direction that falls to it is constant, and correlated with nothing.
        pairs: ``(K, 2)``, filled with the rotated coordinates, p < q.
        angles: ``(K,)``, filled with the angles.
        changed: ``(K, 2)``, filled with the variances of p and q after each step.

    Returns:
        The number of rotations: K, or fewer where the matrix became diagonal before.
    """
    dim = len(variances)
    best, partner = np.empty(dim), np.empty(dim, dtype=np.int64)
    for row in range(dim):
        search_row(r, row, best, partner)
    for step in range(len(angles)):
        # Eq. 5: the pair that maximises S_ij^2 / (S_ii S_jj).
        row = int(np.argmax(best))
        p, q = min(row, int(partner[row])), max(row, int(partner[row]))
        if not best[row] > NEGLIGIBLE:
            return step
        before = np.sqrt(variances[np.array([p, q])])
        difference, twice = variances[p] - variances[q], -2 * r[p, q] * before[0] * before[1]
        angles[step] = 0.5 * np.arctan2(twice, difference)  # the angle that makes the pair uncorrelated
        # Eigenvalues of the 2 x 2 block; the smaller by the determinant, which does not cancel.
        determinant = variances[p] * variances[q] * (1 - best[row] ** 2)
        larger = 0.5 * (variances[p] + variances[q] + np.hypot(twice, difference))
        variances[p], variances[q] = larger, max(determinant / larger, floor)
        still_alive = variances[q] > floor  # a constant direction is correlated with nothing
        pairs[step, 0], pairs[step, 1] = p, q
        changed[step, 0], changed[step, 1] = variances[p], variances[q]
        rotate_correlations(r, p, q, angles[step], before, np.sqrt(changed[step]))
        if not still_alive:
            r[q, :], r[:, q] = 0.0, 0.0
        refresh_rows(r, p, q, best, partner)
    return len(angles)


@compiled(EXACT_ROUNDING)
def rotate_rows(y: Floats, pairs: Integers, angles: Floats) -> None:
    """Replace ``y (D, n)`` by ``E^T y``, with E the product of the rotations."""
    for step in range(len(angles)):
        cosine, sine = np.cos(angles[step]), np.sin(angles[step])
        p, q = pairs[step]
        for k in range(y.shape[1]):
            with_p, with_q = y[p, k], y[q, k]
            y[p, k] = cosine * with_p - sine * with_q
            y[q, k] = sine * with_p + cosine * with_q


@compiled(EXACT_ROUNDING)
def held_out_curve(
    y: Floats, variances: Floats, pairs: Integers, angles: Floats, changed: Floats, curve: Floats
) -> None:
    """Fill ``curve (K + 1,)`` with the mean Gaussian log-likelihood of ``y``'s columns after each rotation.

    Args:
        y: ``(D, n)`` held-out points, centred as the training points were; overwritten by their rotation.
        variances: ``(D,)`` training variances before the first rotation; overwritten by those after the last.
        pairs: ``(k, 2)`` rotated coordinates, k <= K; beyond k the curve is level.
        angles: ``(k,)``.
        changed: ``(k, 2)`` training variances of the pair after each rotation.
        curve: the result, in nats per point.
    """
    value = 0.0
    for d in range(len(y)):
        value -= 0.5 * (np.log(2 * np.pi * variances[d]) + np.mean(y[d] ** 2) / variances[d])
    curve[0] = value
    for step in range(len(angles)):
        # A rotation changes two terms of the sum: they are taken out, and put back after it.
        for side in range(2):
            d = pairs[step, side]
            value += 0.5 * (np.log(variances[d]) + np.mean(y[d] ** 2) / variances[d])
            variances[d] = changed[step, side]
        rotate_rows(y, pairs[step : step + 1], angles[step : step + 1])
        for side in range(2):
            d = pairs[step, side]
            value -= 0.5 * (np.log(variances[d]) + np.mean(y[d] ** 2) / variances[d])
        curve[step + 1] = value
    curve[len(angles) + 1 :] = value

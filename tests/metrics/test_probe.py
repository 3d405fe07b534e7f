"""Probes, read-outs, neighbours and shares of variance: scikit-learn, loops and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from talkforge.core.errors import InputError
from talkforge.metrics.probe import linear_probe, neighbour_agreement, read_out, variance_share

RNG = np.random.default_rng(0)
LABELS = np.repeat(["a", "b", "c"], 20)
ROWS = RNG.normal(size=(60, 5)) * (1, 2, 0.5, 1, 3) + 1.5 * np.eye(5)[np.repeat([0, 1, 2], 20)]


@pytest.mark.parametrize("penalty", [0.3, 1.0, 20.0])
def test_a_probe_is_scikit_learns_logistic_regression(penalty: float) -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    standard = (ROWS - ROWS.mean(0)) / ROWS.std(0)
    theirs = linear.LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=2000).fit(standard, LABELS)
    ours = linear_probe(ROWS, LABELS, penalty=penalty)
    np.testing.assert_allclose(ours.weights, theirs.coef_.T, atol=2e-5)
    # Biases are free: only their differences mean something.
    bias = theirs.intercept_ - theirs.intercept_.mean()
    np.testing.assert_allclose(ours.bias - ours.bias.mean(), bias, atol=2e-5)
    new = RNG.normal(size=(40, 5))
    assert (ours.predict(new) == theirs.predict((new - ROWS.mean(0)) / ROWS.std(0))).all()


def test_a_probe_tells_what_a_line_can_tell_and_no_more() -> None:
    apart = np.c_[np.repeat([-1.0, 1.0], 10), RNG.normal(size=20)]
    sides = np.repeat(["left", "right"], 10)
    assert linear_probe(apart, sides).accuracy(apart, sides) == 1.0
    corners = np.array([[0, 0], [1, 1], [0, 1], [1, 0]], float).repeat(5, axis=0)
    exclusive = np.repeat(["same", "other"], 10)
    assert linear_probe(corners, exclusive).accuracy(corners, exclusive) <= 0.75


def test_columns_that_do_not_vary_and_scales_do_not_matter() -> None:
    flat = np.c_[ROWS, np.full(60, 7.0)]
    probe, plain = linear_probe(flat, LABELS), linear_probe(ROWS * (1, 1e3, 1e-3, 1, 1), LABELS)
    np.testing.assert_allclose(probe.weights[:5], linear_probe(ROWS, LABELS).weights, atol=1e-4)
    np.testing.assert_allclose(plain.weights, linear_probe(ROWS, LABELS).weights, atol=1e-4)
    assert not probe.weights[5].any()


def test_what_a_probe_refuses() -> None:
    for rows, labels in ((ROWS, LABELS[:5]), (ROWS * np.nan, LABELS), (ROWS, ["a"] * 60)):
        with pytest.raises(InputError):
            linear_probe(rows, labels)
    with pytest.raises(InputError):
        linear_probe(ROWS, LABELS).accuracy(ROWS[:0], [])


def test_a_read_out_is_scikit_learns_kernel_ridge() -> None:
    kernel = pytest.importorskip("sklearn.kernel_ridge", reason="scikit-learn is not installed")
    targets, width = RNG.normal(size=(60, 2)), 1.7
    theirs = kernel.KernelRidge(alpha=0.1, kernel="rbf", gamma=1 / (2 * width**2)).fit(ROWS, targets - targets.mean(0))
    new = RNG.normal(size=(10, 5))
    ours = read_out(ROWS, targets, width=width)
    np.testing.assert_allclose(ours(new), theirs.predict(new) + targets.mean(0), atol=1e-9)


def test_a_read_out_says_the_mean_far_away_and_follows_what_it_was_fitted_on() -> None:
    x = np.linspace(-2, 2, 41)[:, None]
    reader = read_out(x, np.c_[np.sin(x), x**2], penalty=1e-3)
    assert reader.width == pytest.approx(1.2, abs=0.1)  # the median distance
    np.testing.assert_allclose(reader(np.array([[0.55]]))[0], [np.sin(0.55), 0.55**2], atol=0.02)
    np.testing.assert_allclose(reader(np.array([[1e3]]))[0], [0.0, (x**2).mean()], atol=1e-9)
    assert reader.explained(x, np.c_[np.sin(x), x**2]) > 0.99
    shuffled = RNG.permutation(np.c_[np.sin(x), x**2])
    assert reader.explained(x, shuffled) < 0
    with pytest.raises(InputError):
        read_out(np.ones((4, 2)), np.ones((4, 1)))


def test_neighbours_are_counted_as_by_hand() -> None:
    rows = np.array([[0.0], [1.0], [3.0], [10.0], [11.0], [13.0]])
    labels = ["x", "x", "y", "y", "y", "x"]
    # Nearest of 0: 1; of 1: 0; of 3: 1; of 10: 11; of 11: 10; of 13: 11.
    value, chance = neighbour_agreement(rows, labels, k=1)
    assert value == pytest.approx(4 / 6) and chance == pytest.approx(2 / 5)
    # Only neighbours of one's own half: of 3 it is 1, of 13 it is 11.
    within, chance = neighbour_agreement(rows, labels, within=list("lllrrr"), k=2)
    assert within == chance == pytest.approx((0.5 + 0.5 + 0 + 0.5 + 0.5 + 0) / 6)  # two neighbours are all there are
    with pytest.raises(InputError):
        neighbour_agreement(rows, labels, within=list("abcdef"))


def test_share_of_variance() -> None:
    rows = np.array([[0.0], [2.0], [4.0], [6.0]])
    assert variance_share(rows, list("aabb")) == pytest.approx(16 / 20)
    assert variance_share(rows, list("abba")) == 0.0
    assert variance_share(rows, list("abcd")) == pytest.approx(1.0)
    with pytest.raises(InputError):
        variance_share(np.ones((3, 2)), list("aab"))

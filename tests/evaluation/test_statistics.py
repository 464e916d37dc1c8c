"""Comparisons: known values, coverage of the intervals, and what pairing is worth."""

from __future__ import annotations

import numpy as np
import pytest

from agent.evaluation.statistics import estimate, iqm, probability_of_improvement


def test_iqm_by_hand():
    assert iqm(np.array([9.0, 1.0, 2.0, 3.0])) == pytest.approx(2.5)
    assert iqm(np.array([5.0])) == pytest.approx(5)
    assert iqm(np.array([1.0, 2.0, 30.0])) == pytest.approx((1 / 12 * 1 + 1 / 3 * 2 + 1 / 12 * 30) / 0.5)
    assert np.allclose(iqm(np.arange(16.0).reshape(2, 8)), [3.5, 11.5])


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng, covered, width = np.random.default_rng(0), 0, []
    for i in range(60):
        found = estimate(rng.random((5, 40)) < 0.7, seed=i)
        assert found.low <= found.value <= found.high
        covered += found.low <= 0.7 <= found.high
        width.append(found.high - found.low)
    assert covered >= 52, "95 % of 60, less what chance and five seeds take"
    assert np.mean(width) < 0.25, "and not by being wide: a binomial interval of 200 has 0.13"


def test_a_paired_difference_is_sharper_than_two_intervals():
    rng = np.random.default_rng(1)
    easy = rng.random((1, 200)) < 0.5  # what succeeds is a matter of the task, hardly of the variant
    full = easy ^ (rng.random((3, 200)) < 0.02)
    worse = full & (rng.random((3, 200)) > 0.1)
    paired, alone = estimate(worse, full), estimate(full)
    assert paired.value < 0 and paired.high < 0
    assert paired.high - paired.low < 0.7 * (alone.high - alone.low)
    same = estimate(full, full)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_probability_of_improvement_counts_seeds_and_ties():
    good, bad = np.ones((3, 4)), np.zeros((2, 4))
    assert probability_of_improvement(good, bad) == 1 and probability_of_improvement(bad, good) == 0
    assert probability_of_improvement(good, good) == 0.5


@pytest.mark.parametrize("shape", [(3,), (0, 5), (2, 0)])
def test_no_table_no_estimate(shape):
    with pytest.raises(ValueError, match="tables"):
        estimate(np.zeros(shape))
    with pytest.raises(ValueError, match="one shape"):
        estimate(np.zeros((2, 3)), np.zeros((2, 4)))


def test_the_interval_covers_the_truth_when_tasks_differ_and_are_common_to_all_seeds():
    """The luck of the task list does not average out over seeds."""
    rng, covered, width = np.random.default_rng(2), 0, []
    for i in range(60):
        difficulty = rng.beta(0.4, 0.2, 60)  # most tasks are nearly always, or nearly never, solved; 2/3 on average
        found = estimate(rng.random((5, 60)) < difficulty, seed=i)
        covered += found.low <= 2 / 3 <= found.high
        width.append(found.high - found.low)
    assert covered >= 52 and np.mean(width) < 0.3

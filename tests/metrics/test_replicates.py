"""Student's interval over repetitions: SciPy's own, and its coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from talkforge.core.errors import InputError
from talkforge.metrics.replicates import repeated


def test_the_interval_is_students() -> None:
    values = [2.0, 3.5, 2.5, 4.0, 3.1]
    found = repeated(values)
    theirs = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found.mean == pytest.approx(3.02) and found.values == tuple(values)
    assert found.ci95 == pytest.approx((theirs.low, theirs.high))
    assert found.established and not repeated([-1.0, 1.0, 0.5]).established


def test_it_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [repeated(rng.normal(1.0, 2.0, 5)).ci95 for _ in range(2000)]
    held = np.mean([interval is not None and interval[0] <= 1.0 <= interval[1] for interval in found])
    assert 0.935 < held < 0.965


def test_one_repetition_has_no_interval() -> None:
    assert repeated([2.0]).ci95 is None and not repeated([2.0]).established
    for bad in ([], [np.nan], [[1.0]]):
        with pytest.raises(InputError):
            repeated(bad)

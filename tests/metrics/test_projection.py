"""t-SNE by scikit-learn: neighbourhoods survive, and it is asked for what it can do."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from talkforge.core.errors import InputError, MissingPackage
from talkforge.metrics.probe import neighbour_agreement
from talkforge.metrics.projection import t_sne

RNG = np.random.default_rng(0)
ROWS = np.concatenate([RNG.normal(size=(25, 10)) + 6 * np.eye(10)[k] for k in range(4)])
LABELS = np.repeat(list("abcd"), 25)


def test_neighbourhoods_survive() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    places = t_sne(ROWS)
    assert places.shape == (100, 2) and np.isfinite(places).all()
    assert neighbour_agreement(places, LABELS)[0] > 0.98
    assert np.array_equal(places, t_sne(ROWS))


def test_few_rows_have_fewer_neighbours() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    assert t_sne(ROWS[:6]).shape == (6, 2)
    for bad in (ROWS[:3], ROWS[0], ROWS * np.nan):
        with pytest.raises(InputError):
            t_sne(bad)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(MissingPackage, match="scikit-learn"):
        t_sne(ROWS)

"""What codes are used for: closed forms, and the quantiser's own counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from talkforge.core.errors import InputError
from talkforge.metrics.code_usage import agreement, class_similarity, code_shares, perplexity, shared_codes
from talkforge.models.dice_talk.emotion_bank import CodeUsage

INDICES, LABELS = np.array([0, 0, 1, 3, 1, 1]), ["a", "a", "a", "a", "b", "b"]


def test_shares_and_what_is_shared() -> None:
    classes, shares = code_shares(INDICES, LABELS, 5)
    assert classes == ["a", "b"]
    np.testing.assert_allclose(shares, [[0.5, 0.25, 0, 0.25, 0], [0, 1, 0, 0, 0]])
    np.testing.assert_allclose(shared_codes(shares), [[1, 0.25], [0.25, 1]])
    for indices, labels in ((INDICES, LABELS[:3]), (INDICES + 3, LABELS), (INDICES - 1, LABELS)):
        with pytest.raises(InputError):
            code_shares(indices, labels, 5)


def test_perplexity_is_the_banks_own() -> None:
    assert perplexity(np.array([1.0, 0.0])) == pytest.approx(1.0)
    assert perplexity(np.full(8, 1 / 8)) == pytest.approx(8.0)
    usage = CodeUsage(5)
    usage.update(torch.from_numpy(INDICES))
    assert perplexity(np.bincount(INDICES, minlength=5) / len(INDICES)) == pytest.approx(usage.perplexity())


def test_likeness_of_classes() -> None:
    rows = np.array([[1.0, 0], [3, 0], [-1, 1], [-1, -1], [-1.0, 0]])
    names, cosines = class_similarity(rows + 7, list("aabbc"))  # a common part does not count
    assert names == ["a", "b", "c"]
    np.testing.assert_allclose(cosines, [[1, -1, -1], [-1, 1, 1], [-1, 1, 1]], atol=1e-12)


def test_agreement_of_two_likenesses() -> None:
    a = np.array([[1, 0.9, 0.1], [0.9, 1, 0.5], [0.1, 0.5, 1]])
    assert agreement(a, a**3) == pytest.approx(1.0)  # ranks only
    assert agreement(a, -a) == pytest.approx(-1.0)
    assert agreement(a, np.eye(3)) is None

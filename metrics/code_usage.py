"""What a vector quantiser's codes are used for: how many live, which classes share them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from ..core.errors import InputError


def code_shares(indices: np.ndarray, labels: Sequence[str] | np.ndarray, codes: int) -> tuple[list[str], np.ndarray]:
    """Of each class, which part of its rows goes to each code.

    Args:
        indices: int (N,), the code of each row.
        labels: (N,).
        codes: K.

    Returns:
        Class names in order, and (C, K) whose rows add up to 1.

    Raises:
        InputError: unequal lengths, or an index beyond the codes.
    """
    found, names = np.asarray(indices), np.asarray(labels)
    if found.shape != names.shape or found.ndim != 1 or not len(found) or found.min() < 0 or found.max() >= codes:
        raise InputError(f"a code below {codes} and a label for each row are needed")
    classes = np.unique(names)
    counts = np.stack([np.bincount(found[names == name], minlength=codes) for name in classes])
    return [str(name) for name in classes], counts / counts.sum(axis=1, keepdims=True)


def perplexity(shares: np.ndarray) -> float:
    """exp of the entropy of shares (K,) that add up to 1: 1 for one code, K for all alike."""
    used = shares[shares > 0]
    return float(np.exp(-(used * np.log(used)).sum()))


def shared_codes(shares: np.ndarray) -> np.ndarray:
    """Overlap of classes' shares, sum over codes of the smaller one: 1 on the same codes alike, 0 on none; (C, C)."""
    return np.minimum(shares[:, None], shares[None]).sum(axis=2)


def class_similarity(rows: np.ndarray, labels: Sequence[str] | np.ndarray) -> tuple[list[str], np.ndarray]:
    """Cosines of the classes' means, taken from the mean of those means.

    Returns:
        Class names in order, and (C, C).
    """
    names = np.asarray(labels)
    classes = np.unique(names)
    means = np.stack([np.asarray(rows, np.float64)[names == name].mean(axis=0) for name in classes])
    return [str(name) for name in classes], 1 - cdist(means - means.mean(axis=0), means - means.mean(axis=0), "cosine")


def agreement(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's correlation of two similarity matrices (C, C) over the pairs of classes; None where one is flat.

    The comparison of representations by their similarities (N. Kriegeskorte et al., 2008).
    """
    above = np.triu_indices(len(a), 1)
    left, right = a[above], b[above]
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    return float(np.asarray(spearmanr(left, right))[0])

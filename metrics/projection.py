"""Vectors in two dimensions, to be looked at: t-SNE (L. van der Maaten and G. Hinton, JMLR 2008)."""

from __future__ import annotations

import numpy as np

from ..core.errors import InputError, MissingPackage, extra_hint

LEAST = 4  # rows


def t_sne(rows: np.ndarray, *, perplexity: float = 30.0, seed: int = 0) -> np.ndarray:
    """Places of vectors in the plane, float64 (N, 2), by scikit-learn. Neighbourhoods mean something, distances do not.

    Args:
        rows: (N, D).
        perplexity: about how many neighbours a row has; cut down to a third of the rows.
        seed: of the optimisation. It begins from the first two principal components, so that the seed matters little.

    Raises:
        MissingPackage: scikit-learn is not installed.
        InputError: fewer than 4 rows, or rows that are not finite.
    """
    given = np.asarray(rows, dtype=np.float64)
    if given.ndim != 2 or len(given) < LEAST or not np.isfinite(given).all():
        raise InputError(f"t-SNE takes {LEAST} finite rows (N, D) or more, not {given.shape}")
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise MissingPackage("t-SNE needs scikit-learn", hint=extra_hint("analysis")) from error
    cut = min(perplexity, (len(given) - 1) / 3)
    return TSNE(2, perplexity=cut, init="pca", random_state=seed).fit_transform(given).astype(np.float64)

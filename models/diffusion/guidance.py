"""Classifier-free guidance with three branches, and which of them a pair of weights needs.

    out = u + g_ref (r - u) + g_cond (f - r)

u has no condition, r the reference portrait alone, f all of them. The scales are DICE-Talk's released ones; Sonic
(X. Ji et al., 2024) guides the same way. Written as a weighted sum, (1 - g_ref) u + (g_ref - g_cond) r + g_cond f, so
that a branch of weight 0 is not computed at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch

from .config import GuidanceConfig

Branch = Literal["none", "reference", "full"]
BRANCHES: tuple[Branch, ...] = get_args(Branch)


def branch_weights(config: GuidanceConfig) -> dict[Branch, float]:
    """Weight of each branch that has one; they sum to 1."""
    weights: dict[Branch, float] = {
        "none": 1 - config.reference,
        "reference": config.reference - config.conditions,
        "full": config.conditions,
    }
    return {branch: weight for branch, weight in weights.items() if weight != 0}


def guided(predict: Callable[[Branch], torch.Tensor], config: GuidanceConfig) -> torch.Tensor:
    """The guided prediction; `predict` is called once for each branch that counts."""
    parts = [weight * predict(branch) for branch, weight in branch_weights(config).items()]
    return torch.stack(parts).sum(0)

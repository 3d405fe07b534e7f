"""Optimisers, learning rates and the clipping of gradients.

The rate is a function of the step alone, so that a training that goes on needs no scheduler state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from ...core.errors import ConfigError
from .config import OptimiserConfig, ScheduleConfig


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter, of those that take a gradient, in the model's order."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def build_optimiser(config: OptimiserConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over all trainable parameters, as one group in the model's order.

    Raises:
        ConfigError: nothing is trainable.
    """
    parameters = list(trainable(model).values())
    if not parameters:
        raise ConfigError(f"{type(model).__name__} has no trainable parameter")
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(parameters, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay)


def rate_factor(config: ScheduleConfig, step: int, steps: int) -> float:
    """The learning rate of a step as a factor of its peak.

    Warm-up over w steps rises as step / w, so that step 1 already moves and step w has the peak. Then, with
    t = (step - w) / (steps - w) from 0 to 1: constant 1; linear 1 - t; cosine (1 + cos(pi t)) / 2; the last two go to
    `final` instead of 0.

    Args:
        step: from 1 on.
        steps: of the whole training.
    """
    if step <= config.warmup:
        return step / config.warmup
    if config.name == "constant":
        return 1.0
    t = min(1.0, (step - config.warmup) / max(1, steps - config.warmup))
    falling = 1 - t if config.name == "linear" else (1 + math.cos(math.pi * t)) / 2
    return config.final + (1 - config.final) * falling


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of all groups."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def clip_gradients(parameters: Iterable[nn.Parameter], most: float | None) -> float:
    """Scales all gradients together down to the L2 norm `most`; None leaves them.

    Returns:
        Their norm before, non-finite where any gradient is.
    """
    norm = torch.nn.utils.clip_grad_norm_(list(parameters), math.inf if most is None else most)
    return float(norm)

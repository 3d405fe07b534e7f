"""An exponential moving average of a model's weights, which samples better than the weights of the last step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from .config import EmaConfig
from .optimiser import trainable


class Ema:
    """Averages a = d a + (1 - d) p of all trainable parameters, in float32 on their device.

    With warm-up, update t (from 1 on) has d = min(decay, (1 + t) / (10 + t)), so that the first weights, which are
    random, are soon forgotten.

    Args:
        model: whose present parameters are the first averages.
    """

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        self.config = config
        self.updates = 0
        self.averages = {name: value.detach().clone().float() for name, value in trainable(model).items()}

    def decay(self) -> float:
        """The decay of the next update."""
        t = self.updates + 1
        return min(self.config.decay, (1 + t) / (10 + t)) if self.config.warmup else self.config.decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes the model's present parameters in."""
        weight = 1 - self.decay()
        values = [value.detach().float() for value in trainable(model).values()]
        torch._foreach_lerp_(list(self.averages.values()), values, weight)  # pyright: ignore[reportPrivateImportUsage]
        self.updates += 1

    def state(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """The model's whole state dict with averages for parameters, so that it loads like the model's own."""
        return {
            name: self.averages[name].to(value.dtype) if name in self.averages else value
            for name, value in model.state_dict().items()
        }

    def load(self, state: Mapping[str, torch.Tensor], updates: int) -> None:
        """Takes averages from what `state` gave; names and shapes are those of this model."""
        for name, average in self.averages.items():
            average.copy_(state[name])
        self.updates = updates

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Puts the averages into the model meanwhile."""
        own = {name: value.detach().clone() for name, value in trainable(model).items()}
        _put(model, self.averages)
        try:
            yield
        finally:
            _put(model, own)


@torch.no_grad()
def _put(model: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    for name, parameter in trainable(model).items():
        parameter.copy_(values[name])

"""What the training command knows about a system before any of its code is imported. Free of torch.

A module of `tasks/` declares `SYSTEMS = (SystemSpec(...), ...)`; `flows.train` finds it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ...core.config import read_yaml
from ...core.errors import ConfigError
from ...core.registry import did_you_mean, resolve
from .config import TrainConfig

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn


class Loss(NamedTuple):
    """A batch's loss: the scalar that is minimised, and named parts of it for the log."""

    total: torch.Tensor
    parts: Mapping[str, torch.Tensor | float]


class Batches(Protocol):
    """Batches of one epoch after the other, with a place that can be stored: `loader.Loader`, or anything like it.

    `datasets.batches.BatchSampler` says what the methods mean; `state_dict` is JSON-ready.
    """

    def __iter__(self) -> Iterator[Any]: ...

    def set_epoch(self, epoch: int) -> None: ...

    def state_dict(self, batches_done: int) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


# (model, batch on the device) -> the loss. With several processes the model is wrapped: call it, do not reach inside.
LossFn = Callable[["nn.Module", Any], "Loss | torch.Tensor"]
# (model with averaged weights in eval mode, step) -> uint8 RGB (H, W, 3)
SampleFn = Callable[["nn.Module", int], "np.ndarray"]
# (model with averaged weights in eval mode) -> a score, lower is better; names the best checkpoint
ValidateFn = Callable[["nn.Module"], float]


@dataclass(frozen=True)
class TrainParts:
    """What a system gives to the loop.

    Attributes:
        model: what is trained and stored. Frozen networks belong into `loss_fn`, else each checkpoint carries them.
        names: a batch's clip ids, for messages; None takes `batch["clip_id"]`.
    """

    model: nn.Module
    loss_fn: LossFn
    batches: Batches
    sample: SampleFn | None = None
    validate: ValidateFn | None = None
    names: Callable[[Any], Sequence[str]] | None = None


@dataclass(frozen=True)
class SystemSpec:
    """A trainable system by name; its parts are "module:attribute" texts, imported when needed.

    Attributes:
        id: name on the command line.
        what: one line for people.
        config: names a subclass of `TrainConfig`.
        build: names a function (config, data folder, rank, world_size) -> `TrainParts`. The seed is set before it.
        parameters: names a function (config) -> {module: number of parameters}, which allocates nothing; see
            `counting.count_parameters`.
        presets: name -> values that differ from the config's own, or a YAML file with them.
    """

    id: str
    what: str
    config: str
    build: str
    parameters: str
    presets: Mapping[str, Mapping[str, Any] | Path]

    def settings(self, preset: str, overrides: Iterable[str] = ()) -> TrainConfig:
        """The preset with `key=value` texts applied. Raises ConfigError for an unknown preset, key or value."""
        if preset not in self.presets:
            hint = did_you_mean(preset, self.presets) or f"known: {', '.join(self.presets)}"
            raise ConfigError(f"{self.id} has no preset '{preset}'", hint=hint)
        values = self.presets[preset]
        data = read_yaml(values) if isinstance(values, Path) else dict(values)
        nulls = [f"{key}=null" for key, value in data.items() if value is None]  # `load` takes None for "not given"
        return resolve(self.config).load(None, [*nulls, *overrides], **data)

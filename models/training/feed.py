"""Batches without end, and where the training stands in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ...core.errors import InputError
from .system import Batches


class Feed:
    """Epoch after epoch of `batches`.

    Attributes:
        epoch: of the last batch given, and how many of that epoch are `done`.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.epoch, self.done = 0, 0
        self._iterator: Iterator[Any] | None = None

    def next(self) -> Any:
        """The next batch. Raises InputError where an epoch has none."""
        if self._iterator is None:
            self.batches.set_epoch(self.epoch)
            self._iterator = iter(self.batches)
        for batch in self._iterator:
            self.done += 1
            return batch
        if not self.done:
            raise InputError("there is no batch to train on", hint="fewer clips a batch, or more clips")
        self.epoch, self.done, self._iterator = self.epoch + 1, 0, None
        return self.next()

    def state(self, place: tuple[int, int]) -> dict[str, Any]:
        """JSON-ready, for (epoch, batches done of it)."""
        epoch, done = place
        self.batches.set_epoch(epoch)  # a step that failed may have begun another one
        return {"epoch": epoch, "batches_done": done, "sampler": self.batches.state_dict(done)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on where the state was taken. Raises ConfigError where it is of other clips or settings."""
        self.batches.load_state_dict(state["sampler"])
        self.epoch, self.done, self._iterator = state["epoch"], state["batches_done"], None

    def rest(self) -> None:
        """Lets go of what reads ahead; the next batch is the one that it would have been."""
        if self._iterator is not None:
            self.load(self.state((self.epoch, self.done)))


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors and numeric numpy arrays as tensors on the device, also within mappings and sequences; others stay."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = torch.from_numpy(value)
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {name: to_device(one, device) for name, one in value.items()}
    if isinstance(value, list | tuple):
        moved = [to_device(one, device) for one in value]
        return tuple(moved) if isinstance(value, tuple) else moved
    return value

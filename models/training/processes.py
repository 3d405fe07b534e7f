"""One process, or one of several that train one model together through `accelerate`.

Several are started from outside, with `accelerate launch` or `torchrun`, and known by the variables that these set.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn

from ...core.errors import ConfigError, MissingPackage, extra_hint

T = TypeVar("T")


class Processes:
    """This process alone.

    Attributes:
        rank, world_size: which of how many.
        device: where this one computes.
    """

    rank, world_size = 0, 1

    def __init__(self, device: str) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device cuda: there is no GPU that torch can use", hint="give --set device=cpu")
        chosen = "cuda" if device == "auto" and torch.cuda.is_available() else device
        self.device = torch.device("cpu" if chosen == "auto" else chosen)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with its gradients shared."""
        return model

    def local(self, model: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
        """A block whose gradients stay here, where wanted: batches before the last one of a step."""
        return nullcontext()

    def mean(self, values: Sequence[float]) -> list[float]:
        """Means over all processes, which give equally many values."""
        return list(values)

    def gather(self, value: T) -> list[T]:
        """Every process's value, in their order."""
        return [value]

    def wait(self) -> None:
        """Returns when all processes are here."""

    def close(self) -> None:
        """Parts from the others, when all are done."""


class Accelerated(Processes):
    """One of several processes. Gradients are averaged, so `accelerate` decides where and how they travel."""

    def __init__(self, device: str) -> None:
        try:
            from accelerate import Accelerator, DistributedDataParallelKwargs
        except ImportError as error:
            hint = f"start one process, or {extra_hint('train')}"
            raise MissingPackage("several processes need the package accelerate", hint=hint) from error
        # Some steps train a part of the network only, such as a VAE that comes first.
        partly = DistributedDataParallelKwargs(find_unused_parameters=True)
        self._accelerator = Accelerator(cpu=device == "cpu", kwargs_handlers=[partly])
        self.rank, self.world_size = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device

    def wrap(self, model: nn.Module) -> nn.Module:
        return self._accelerator.prepare_model(model)

    def local(self, model: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
        return self._accelerator.no_sync(model) if wanted else nullcontext()

    def mean(self, values: Sequence[float]) -> list[float]:
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        total: Any = self._accelerator.reduce(mine, "sum")
        return (total / self.world_size).tolist()

    def gather(self, value: T) -> list[T]:
        from accelerate.utils import gather_object

        return gather_object([value])

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        self.wait()  # a process that leaves while another still talks to it aborts
        torch.distributed.destroy_process_group()


def start_processes(device: str) -> Processes:
    """This process among those it was started with.

    Args:
        device: "auto", "cpu" or "cuda".

    Raises:
        ConfigError: there is no such device.
        MissingPackage: several processes without `accelerate`.
    """
    return Accelerated(device) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else Processes(device)

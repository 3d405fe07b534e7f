"""A public UNet under a system's own parts: its weights, how many there are, and how often it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ...core.errors import WeightsError
from ...core.weights import weights_store
from ..loading import load_strict


def read_base(name: str) -> dict[str, torch.Tensor]:
    """Tensors of a file in the weights store. Raises WeightsMissing where it is not there, and as `read_tensors`."""
    return read_tensors(weights_store().path(name))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file; halves, as in published files, as float32. Raises WeightsError."""
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}


def load_base(unet: nn.Module, state: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Fills the base from its published state dict; what learns, and the mode, stay as they are.

    Raises:
        WeightsError: names or shapes are not exactly those of the UNet.
    """
    learns, training = [parameter.requires_grad for parameter in unet.parameters()], unet.training
    load_strict(unet, state, source=source).train(training)
    for parameter, before in zip(unet.parameters(), learns, strict=True):
        parameter.requires_grad_(before)


def parameter_count(*modules: nn.Module | None) -> int:
    """Parameters of all these modules; None has none."""
    return sum(parameter.numel() for module in modules if module is not None for parameter in module.parameters())


@contextmanager
def counted(model: Any, tick: Callable[[], object]) -> Iterator[None]:
    """Calls `tick` at each evaluation of the denoiser meanwhile."""

    def hook(*_: object) -> None:  # what a hook returns would stand for the output
        tick()

    handle = model.denoiser.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()

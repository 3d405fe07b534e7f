"""A public UNet under a system's own parts: its weights, and how many there are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ...core.errors import WeightsError
from ...core.weights import weights_store
from ..loading import load_strict


def read_base(name: str) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file in the weights store as float32; published files may be float16.

    Raises:
        WeightsMissing: it is not there.
        WeightsError: it cannot be read.
    """
    path = weights_store().path(name)
    try:
        return {key: value.float() for key, value in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


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

"""State dicts from `torch.save` files, into networks that keep their authors' names."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from ..core.errors import WeightsError
from .loading import load_strict

if TYPE_CHECKING:
    from pathlib import Path

M = TypeVar("M", bound=nn.Module)


def read_tensors(path: Path, *, source: str) -> Any:
    """What `torch.save` wrote, as long as it is tensors and plain values. Raises WeightsError for anything else.

    Bytes that are no such file fail in the reader in several ways, whatever its documentation says.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, IndexError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{source}: {path.name} cannot be read as tensors alone") from error


def checked_state(state: object, path: Path, *, source: str) -> dict[str, torch.Tensor]:
    """What a file held, as a state dict. Raises WeightsError if it is none."""
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{source}: {path.name} is no state dict")
    return dict(state)


def read_state_dict(network: M, path: Path, *, source: str) -> M:
    """Fills `network` from a file that is one state dict, in PyTorch's present or older format.

    Files saved before PyTorch counted batches in its normalisations lack `num_batches_tracked`, which inference never
    reads. It is the one name that may be absent.

    Args:
        network: of exactly the file's names and shapes.
        path: the file; only tensors are read from it.
        source: name of the weights, for messages.

    Returns:
        The network in eval mode, frozen.

    Raises:
        WeightsError: no state dict, or its names or shapes are not exactly those of the network.
    """
    state = checked_state(read_tensors(path, source=source), path, source=source)
    counts = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    return load_strict(network, counts | state, source=source)

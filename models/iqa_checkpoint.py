"""State dicts of image quality networks as the toolbox pyiqa publishes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from torch import nn

from .checkpoints import checked_state, read_tensors
from .loading import load_strict

if TYPE_CHECKING:
    from pathlib import Path

M = TypeVar("M", bound=nn.Module)
WRAPPER = "params"  # key of the state dict in files that hold more
PARALLEL = "module."  # what training on several devices puts before each name


def read_iqa_checkpoint(network: M, path: Path, *, source: str) -> M:
    """Fills `network` from a state dict, plain or under "params", whose names may begin with "module.".

    Args:
        network: of exactly the file's names and shapes.
        path: the file; only tensors are read from it.
        source: name of the weights, for messages.

    Returns:
        The network in eval mode, frozen.

    Raises:
        WeightsError: no state dict, or its names or shapes are not exactly those of the network.
    """
    state = read_tensors(path, source=source)
    state = checked_state(state.get(WRAPPER, state) if isinstance(state, dict) else None, path, source=source)
    return load_strict(network, {name.removeprefix(PARALLEL): value for name, value in state.items()}, source=source)

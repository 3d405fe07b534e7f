"""Filling networks from state dicts, strictly: each tensor of the file is used, each of the network filled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..core.errors import WeightsError

M = TypeVar("M", bound=nn.Module)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def load_strict(module: M, state: Mapping[str, torch.Tensor], *, source: str) -> M:
    """Copies `state` into `module` and returns the module in eval mode, its parameters frozen.

    Args:
        module: the network.
        state: exactly the names and shapes of `module.state_dict()`.
        source: what the state was read from, for messages.

    Raises:
        WeightsError: a name is missing or left over, or a shape differs. The module is then unchanged.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if missing := sorted(wanted.keys() - given.keys()):
        raise WeightsError(f"{source}: no {_some(missing)} for {type(module).__name__}")
    if extra := sorted(given.keys() - wanted.keys()):
        raise WeightsError(f"{source}: {type(module).__name__} has no {_some(extra)}")
    if wrong := [f"{name} is {given[name]}, not {wanted[name]}" for name in wanted if given[name] != wanted[name]]:
        raise WeightsError(f"{source}: {_some(wrong)}")
    module.load_state_dict(dict(state), strict=True)
    return module.eval().requires_grad_(False)


def fold_norms(module: M) -> M:
    """Folds every batch normalisation that follows a convolution within a `Sequential` into it, for inference.

    Works in place on a network in eval mode and returns it. Outputs stay the same up to float32 rounding; the state
    dict does not: fold after loading.
    """
    for block in [child for child in module.modules() if isinstance(child, nn.Sequential)]:
        for i in range(len(block) - 1):
            conv, norm = block[i], block[i + 1]
            if isinstance(conv, nn.Conv2d | nn.Conv3d) and isinstance(norm, _BatchNorm):
                block[i], block[i + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return module

"""How large a network is, without making it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn


def count_parameters(modules: Mapping[str, Callable[[], nn.Module]]) -> dict[str, int]:
    """Parameters of each module; shared ones count once a module.

    Args:
        modules: name -> what builds it. It is built on torch's meta device, where tensors have a shape and no memory.
    """
    with torch.device("meta"):
        return {name: sum(value.numel() for value in build().parameters()) for name, build in modules.items()}

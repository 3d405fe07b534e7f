"""Operations of a real forward pass, counted where layers and attention are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class _Attention(TorchFunctionMode):
    """Two products of queries (..., L, d) with keys (..., S, d), and with values, for each call."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            query, key = (
                args[place] if len(args) > place else kwargs[name] for place, name in enumerate(["query", "key"])
            )
            self.operations += 4 * query.numel() * key.shape[-2]
        return func(*args, **(kwargs or {}))


def operations_by_hand(model: nn.Module, work: Callable[[], object]) -> int:
    """Two operations a weight and output place of every convolution and linear layer of `model`, and attention's."""
    total = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module.weight, torch.Tensor)
        total += 2 * module.weight.numel() * (output.numel() // module.weight.shape[0])

    hooks = [part.register_forward_hook(count) for part in model.modules() if isinstance(part, LAYERS)]
    try:
        with torch.no_grad(), _Attention() as attention:
            work()
    finally:
        for hook in hooks:
            hook.remove()
    return total + attention.operations

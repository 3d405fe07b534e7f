"""TensorFlow's padding "same" for networks that were trained with it: ceil(size / stride), the odd pixel at the end."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after one axis of that size."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: torch.Tensor, kernel: int, stride: int, value: float = 0.0) -> torch.Tensor:
    """(B, C, H, W) padded so that an unpadded kernel x kernel step gives ceil(H / stride) x ceil(W / stride)."""
    height, width = x.shape[2:]
    return F.pad(x, [*same_pads(width, kernel, stride), *same_pads(height, kernel, stride)], value=value)


class Conv2dSame(nn.Conv2d):
    """Square convolution with that padding, which PyTorch's own cannot have when it is strided."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(pad_same(input, self.kernel_size[0], self.stride[0]))

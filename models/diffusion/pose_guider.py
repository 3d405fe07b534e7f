"""The face mask to features that are added after the UNet's first convolution.

Widths 16, 32, 96, 256, then the UNet's first width; three convolutions of stride 2 bring pictures to the size of
latents; the last one starts at zero, so that an untrained guider changes nothing (released DICE-Talk; the network is
ControlNet's condition embedding, L. Zhang et al., 2023).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ...core.errors import InputError
from .config import PoseGuiderConfig


def face_mask(
    box: tuple[float, float, float, float], height: int, width: int, config: PoseGuiderConfig
) -> torch.Tensor:
    """The mask of a face, float32 (1, height, width): 1 within its box grown about its centre, 0 elsewhere.

    Args:
        box: x0, y0, x1, y1 in pixels of the picture; what grows beyond it is cut.

    Raises:
        InputError: the box has no area, or none within the picture.
    """
    x0, y0, x1, y1 = box
    grow_x, grow_y = (config.box_scale - 1) / 2 * (x1 - x0), (config.box_scale - 1) / 2 * (y1 - y0)
    left, right = max(0, round(x0 - grow_x)), min(width, round(x1 + grow_x))
    top, bottom = max(0, round(y0 - grow_y)), min(height, round(y1 + grow_y))
    if left >= right or top >= bottom:
        raise InputError(f"face box {box} covers nothing of a {width} x {height} picture")
    mask = torch.zeros(1, height, width)
    mask[:, top:bottom, left:right] = 1
    return mask


class PoseGuider(nn.Module):
    """Masks (N, 1, H, W), in 0..1, to (N, outputs, H / 2^k, W / 2^k) with k = len(channels) - 1."""

    def __init__(self, config: PoseGuiderConfig, outputs: int) -> None:
        super().__init__()
        self.inputs = config.in_channels
        self.first = nn.Conv2d(config.in_channels, config.channels[0], 3, padding=1)
        self.steps = nn.ModuleList()
        for width, after in zip(config.channels[:-1], config.channels[1:], strict=True):
            self.steps.append(nn.Conv2d(width, width, 3, padding=1))
            self.steps.append(nn.Conv2d(width, after, 3, stride=2, padding=1))
        self.last = nn.Conv2d(config.channels[-1], outputs, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, mask: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.first(mask.expand(-1, self.inputs, -1, -1)))
        for step in self.steps:
            x = F.silu(step(x))
        return self.last(x)

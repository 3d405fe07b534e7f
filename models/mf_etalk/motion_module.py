"""The motion module: attention over time at each site (Y. Guo et al., "AnimateDiff", 2023, version 2; as in Hallo).

Frames f = 1 ... F of features z, and before them the features of m motion frames. For each site the m + F vectors form
a sequence; with P sinusoidal positions and N group and layer norms:

    u   = W_in N(z)
    u  <- u + Attn(P + N(u))        twice
    u  <- u + FF(N(u))
    out = z + W_out u               W_out starts at zero; the first m are dropped

The group norm is over each frame by itself (Hallo, AnimateDiff; diffusers' own module takes all frames together).
"""

from __future__ import annotations

import torch
from torch import nn

from ...core.errors import InputError
from ..diffusers_import import import_extra
from .config import NORM_GROUPS, MotionConfig


class MotionModule(nn.Module):
    """Features (B x F, C, h, w) to the same. Raises MissingPackage without diffusers."""

    def __init__(self, channels: int, config: MotionConfig) -> None:
        super().__init__()
        block = import_extra("diffusers.models.attention").BasicTransformerBlock
        self.most = config.max_frames
        self.norm = nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.blocks = nn.ModuleList(
            block(
                channels,
                config.heads,
                channels // config.heads,
                activation_fn="geglu",
                double_self_attention=True,
                positional_embeddings="sinusoidal",
                num_positional_embeddings=config.max_frames,
            )
            for _ in range(config.blocks)
        )
        for parameter in self.proj_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor, frames: int, before: torch.Tensor | None = None) -> torch.Tensor:
        """One pass.

        Args:
            x: (B x F, C, h, w).
            frames: F.
            before: features of motion frames, (B, m, C, h, w).

        Raises:
            InputError: more frames than there are positions.
        """
        z = x.unflatten(0, (-1, frames))
        if before is not None:
            z = torch.cat([before, z], 1)
        if z.shape[1] > self.most:
            raise InputError(f"{z.shape[1]} frames at once, and motion modules have {self.most} positions")
        batch, count, _, height, width = z.shape
        normed = self.norm(z.flatten(0, 1)).unflatten(0, (batch, count))
        u = self.proj_in(normed.permute(0, 3, 4, 1, 2).reshape(batch * height * width, count, -1))
        for block in self.blocks:
            u = block(u)
        u = self.proj_out(u[:, -frames:]).reshape(batch, height, width, frames, -1).permute(0, 3, 4, 1, 2)
        return x + u.flatten(0, 1)

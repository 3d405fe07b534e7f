"""Hierarchical audio-visual cross-attention (M. Xu et al., "Hallo", 2024, as its code has it).

After each spatial transformer of the UNet stands another one, with z its features, N norms, t the audio tokens of the
frame, M_r the mask of region r in {pose, face, lip} on the level's grid, and w_r weights that sampling may change:

    u   = W_in N(z)
    u  <- u + Attn(N(u))
    u  <- u + sum over r of w_r Z_r( M_r A_r(N(u), t) )        Z_r: 1 x 1 convolutions that start at zero
    u  <- u + FF(N(u))
    out = z + W_out u

Grids are 64, 32, 16 and 8 for latents of 64. With fusion on, A_r is what `fusion` makes of it.

Its inner width is that of the block's input (below) or skip connection (above) and not always that of z: an oddity of
the published code, which its weights have.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from ..diffusers_import import import_extra
from .config import NORM_GROUPS, MfEtalkConfig
from .contexts import BRANCHES, Pass
from .fusion import BranchFusion, streams_of


def inner_width(place: str, channels: tuple[int, ...]) -> int:
    """Inner width at a place such as "down_blocks.1.attentions.0", as published."""
    kind, *numbers = place.replace("attentions.", "").split(".")
    if kind == "mid_block":
        return channels[-1]
    block, layer = int(numbers[0]), int(numbers[1])
    if kind == "up_blocks":
        return channels[::-1][min(block + 1, len(channels) - 1)]
    return channels[block - 1] if layer == 0 and block > 0 else channels[block]


class AudioBranch(nn.Module):
    """Z_r( M_r A_r(x, t) ) of one region."""

    def __init__(self, branch: str, width: int, channels: int, config: MfEtalkConfig) -> None:
        super().__init__()
        attention = import_extra("diffusers.models.attention_processor").Attention
        heads = config.unet.heads
        self.attention = attention(width, config.audio.width, heads=heads, dim_head=width // heads)
        self.zero = nn.Conv1d(width, width, 1)
        for parameter in self.zero.parameters():
            nn.init.zeros_(parameter)
        self.fusion = None
        if config.fusion.on:
            names = streams_of(branch, config.au, motion=config.motion.motion_frames > 0)
            contexts = {name: channels if name == "motion" else config.au.width for name in names}
            self.fusion = BranchFusion(width, heads, contexts, config.fusion)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """x (N, sites, C), mask (N, sites, 1), tokens by stream (N, n, D)."""
        found = self.attention(x, encoder_hidden_states=tokens["audio"])
        if self.fusion is not None:
            found = self.fusion(found, x, tokens)
        return self.zero((found * mask.to(found.dtype)).transpose(1, 2)).transpose(1, 2)


class HierarchicalAttention(nn.Module):
    """Features (B x F, C, h, w) to the same. Raises MissingPackage without diffusers."""

    def __init__(self, place: str, channels: int, config: MfEtalkConfig) -> None:
        super().__init__()
        attention = import_extra("diffusers.models.attention_processor").Attention
        width, heads = inner_width(place, config.unet.channels), config.unet.heads
        self.place, self.config = place, config.fusion
        self.norm = nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)
        self.proj_in, self.proj_out = nn.Conv2d(channels, width, 1), nn.Conv2d(width, channels, 1)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.attention = attention(width, heads=heads, dim_head=width // heads)
        self.branches = nn.ModuleDict({branch: AudioBranch(branch, width, channels, config) for branch in BRANCHES})
        self.ff = import_extra("diffusers.models.attention").FeedForward(width, activation_fn="geglu")

    def forward(self, z: torch.Tensor, given: Pass) -> torch.Tensor:
        size = z.shape[-2:]
        u = self.proj_in(self.norm(z)).flatten(2).transpose(1, 2)
        u = u + self.attention(self.norm1(u))
        u = u + self._heard(self.norm2(u), self._tokens(given, size), given)
        u = u + self.ff(self.norm3(u))
        return z + self.proj_out(u.transpose(1, 2).unflatten(2, tuple(size)))

    def _heard(self, x: torch.Tensor, tokens: dict[str, torch.Tensor], given: Pass) -> torch.Tensor:
        parts = []
        for name, branch in self.branches.items():
            mask = given.regions[name].site_mask(x.shape[1])
            assert mask is not None
            parts.append(given.weights.get(name, 1.0) * branch(x, mask, tokens))
        return torch.stack(parts).sum(0)

    def _tokens(self, given: Pass, size: torch.Size) -> dict[str, torch.Tensor]:
        """Tokens a frame by stream, (B x F, n, D)."""
        tokens = {name: value.flatten(0, 1) for name, value in given.tokens.items()}
        before = given.motion(self.place, size)
        if self.config.on and before is not None:
            grid = F.adaptive_avg_pool2d(before.flatten(0, 1), self.config.motion_grid)
            pooled = grid.flatten(2).transpose(1, 2).unflatten(0, before.shape[:2]).flatten(1, 2)
            tokens["motion"] = pooled.repeat_interleave(given.frames, 0)
        return tokens

"""Swin-B (windows of 12, 384x384 pixels) as a feature extractor of four levels.

Z. Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021. Names of parameters
and buffers follow timm before its version 0.9, which checkpoints of TOPIQ keep: a stage ends with its own merging of
patches, index and mask of the windows are stored, and so is a classifier that nothing here reads.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

SIZE, PATCH, WINDOW = 384, 4, 12
WIDTH, DEPTHS, HEADS = 128, (2, 2, 18, 2), (4, 8, 16, 32)
CLASSES = 1000
APART = -100.0  # added to attention between parts of a window that do not touch in the picture
CHANNELS = (256, 512, 1024, 1024)  # of the features: merged already, but for the last stage's


def split_windows(x: torch.Tensor) -> torch.Tensor:
    """(B, S, S, C) to (B, windows, 144, C)."""
    count = x.shape[1] // WINDOW
    x = x.unflatten(2, (count, WINDOW)).unflatten(1, (count, WINDOW))  # B, down, rows, across, columns, C
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def join_windows(x: torch.Tensor, side: int) -> torch.Tensor:
    """The way back, to (B, side, side, C)."""
    count = side // WINDOW
    x = x.unflatten(2, (WINDOW, WINDOW)).unflatten(1, (count, count))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def relative_index() -> torch.Tensor:
    """Which entry of the table of 23x23 offsets belongs to each pair of a window's places, int64 (144, 144)."""
    place = torch.arange(WINDOW * WINDOW)
    row, column = place // WINDOW, place % WINDOW
    down, across = row[:, None] - row + WINDOW - 1, column[:, None] - column + WINDOW - 1
    return down * (2 * WINDOW - 1) + across


def shift_mask(side: int, shift: int) -> torch.Tensor:
    """What is added to attention in windows that were shifted across the edges, float32 (windows, 144, 144)."""
    place = torch.arange(side)
    band = (place >= side - WINDOW).long() + (place >= side - shift).long()
    region = split_windows((3 * band[:, None] + band)[None, :, :, None])[0, :, :, 0]
    return APART * (region[:, :, None] != region[:, None]).float()


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learnt bias for each offset."""

    relative_position_index: torch.Tensor

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_index())
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """(B, windows, 144, C) to the same."""
        query, key, value = self.qkv(x).unflatten(3, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        bias = bias if mask is None else bias + mask[:, None]
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(y.transpose(2, 3).flatten(3))


class Mlp(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention in windows, shifted by half a window or not, and two layers.

    Args:
        side: places along each side of the picture at this stage.
        width, heads: of the attention.
        shift: places by which the windows are shifted.
    """

    attn_mask: torch.Tensor | None

    def __init__(self, side: int, width: int, heads: int, shift: int) -> None:
        super().__init__()
        self.side, self.shift = side, shift
        self.norm1, self.attn = nn.LayerNorm(width), WindowAttention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width)
        self.register_buffer("attn_mask", shift_mask(side, shift) if shift else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S, S, C) to the same."""
        y = self.norm1(x).roll((-self.shift, -self.shift), dims=(1, 2))
        y = join_windows(self.attn(split_windows(y), self.attn_mask), self.side)
        x = x + y.roll((self.shift, self.shift), dims=(1, 2))
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Four neighbours to one place of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        four = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(four, dim=3)))


class Stage(nn.Module):
    """Blocks of one resolution, then the merging where another stage follows."""

    def __init__(self, number: int) -> None:
        super().__init__()
        side, width = SIZE // PATCH >> number, WIDTH << number
        shift = WINDOW // 2 if side > WINDOW else 0  # one window alone has nowhere to go
        self.blocks = nn.Sequential(
            *(Block(side, width, HEADS[number], shift if k % 2 else 0) for k in range(DEPTHS[number]))
        )
        self.downsample = PatchMerging(width) if number + 1 < len(DEPTHS) else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(x)
        return x if self.downsample is None else self.downsample(x)


class PatchEmbed(nn.Module):
    """4x4 pixels to a token."""

    def __init__(self) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(3, WIDTH, PATCH, PATCH), nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class SwinFeatures(nn.Module):
    """Swin-B without its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed()
        self.layers = nn.Sequential(*(Stage(number) for number in range(len(DEPTHS))))
        self.norm = nn.LayerNorm(CHANNELS[-1])  # with the classifier in the checkpoint only
        self.head = nn.Linear(CHANNELS[-1], CLASSES)

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, 384, 384) normalised RGB to four features (B, C, S, S), S 48, 24, 12, 12, C as `CHANNELS` has it."""
        x, found = self.patch_embed(x), []
        for stage in self.layers:
            x = stage(x)
            found.append(x.permute(0, 3, 1, 2))
        return found

"""MUSIQ: a picture of any size and shape to its quality, by a transformer over patches of three scales.

J. Ke et al., "MUSIQ: Multi-scale Image Quality Transformer", ICCV 2021; trained on KonIQ-10k, scores about 0..100.
Names of parameters follow pyiqa's port of the authors' checkpoint (`musiq_koniq_ckpt-e95806b9.pth`), which loads
strictly.

The picture itself and its copies whose longer sides are 224 and 384 (bicubic, not antialiased, as in the port) are cut
into 32x32 patches, the last ones padded by grey. A patch knows its scale and its place, hashed to a 10x10 grid. The
port fills the tokens of the two copies up to 49 and 144 and masks what it filled; nothing of that reaches the score,
so here a picture has only its own patches, and pictures of different shapes go through the network together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ..core.errors import InputError
from ..core.weights import weights_store
from .iqa_checkpoint import read_iqa_checkpoint
from .same_padding import Conv2dSame, pad_same

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.asset_store import AssetStore

WEIGHTS = "musiq-koniq"
PATCH = 32
LONGER_SIDES = (224, 384)
GRID = 10
WIDTH, HEADS, LAYERS, HIDDEN = 384, 6, 14, 1152
STEM, STEM_OUT = 64, 256


@dataclass(frozen=True)
class Patches:
    """What the network takes of B pictures, T patches in all.

    Attributes:
        pixels: float (T, 3, 32, 32) in [-1, 1].
        places: int64 (T,), row x 10 + column on the hashed grid.
        scales: int64 (T,), 0 and 1 for the copies, 2 for the picture itself.
        lengths: B numbers of patches.
    """

    pixels: torch.Tensor
    places: torch.Tensor
    scales: torch.Tensor
    lengths: tuple[int, ...]

    def to(self, device: str) -> Self:
        """The same on a device."""
        return type(self)(self.pixels.to(device), self.places.to(device), self.scales.to(device), self.lengths)


def hashed_places(rows: int, columns: int) -> torch.Tensor:
    """Places of a grid of patches on the 10x10 grid, int64 (rows * columns,)."""
    # By the interpolation itself, whose rounding at whole numbers a formula would have to repeat.
    line = torch.arange(GRID, dtype=torch.float32)[None, None]
    down, across = (F.interpolate(line, count, mode="nearest")[0, 0].long() for count in (rows, columns))
    return (down[:, None] * GRID + across).flatten()


def cut_patches(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(3, H, W) to its patches (N, 3, 32, 32) and their places (N,)."""
    padded = pad_same(picture[None], PATCH, PATCH)
    rows, columns = (size // PATCH for size in padded.shape[2:])
    flat = F.unfold(padded, PATCH, stride=PATCH)[0].T
    return flat.reshape(-1, 3, PATCH, PATCH), hashed_places(rows, columns)


def _scaled(picture: torch.Tensor, longer_side: int) -> torch.Tensor:
    height, width = picture.shape[1:]
    ratio = longer_side / max(height, width)
    size = max(round(height * ratio), 1), max(round(width * ratio), 1)
    return F.interpolate(picture[None], size, mode="bicubic", align_corners=False)[0]


def prepare(pictures: Sequence[np.ndarray]) -> Patches:
    """uint8 (H, W, 3) RGB pictures of any sizes to patches. Raises InputError for another type or shape, or none."""
    if not pictures or any(one.dtype != np.uint8 or one.ndim != 3 or one.shape[2] != 3 for one in pictures):
        raise InputError("pictures are uint8 (H, W, 3), at least one")
    pixels, places, scales, lengths = [], [], [], []
    for one in pictures:
        picture = torch.from_numpy(np.ascontiguousarray(one.transpose(2, 0, 1))).float() / 255 * 2 - 1
        cuts = [cut_patches(part) for part in (*(_scaled(picture, side) for side in LONGER_SIDES), picture)]
        pixels += [cut for cut, _ in cuts]
        places += [place for _, place in cuts]
        scales += [torch.full((len(cut),), number) for number, (cut, _) in enumerate(cuts)]
        lengths.append(sum(len(cut) for cut, _ in cuts))
    return Patches(torch.cat(pixels), torch.cat(places), torch.cat(scales), tuple(lengths))


class StandardConv(Conv2dSame):
    """Convolution without bias whose filters have mean 0 and deviation 1, with TensorFlow's padding."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, bias=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        spread, mean = torch.std_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        padded = pad_same(input, self.kernel_size[0], self.stride[0])
        return F.conv2d(padded, (self.weight - mean) / (spread + 1e-5), None, self.stride)


def group_norm(channels: int, epsilon: float = 1e-4) -> nn.GroupNorm:
    """Normalisation in 32 groups."""
    return nn.GroupNorm(32, channels, eps=epsilon)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a projected shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.gn1 = StandardConv(inputs, inputs), group_norm(inputs)
        self.conv2, self.gn2 = StandardConv(inputs, inputs, 3), group_norm(inputs)
        self.conv3, self.gn3 = StandardConv(inputs, outputs), group_norm(outputs)
        self.conv_proj, self.gn_proj = StandardConv(inputs, outputs), group_norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.gn1(self.conv1(x)).relu()
        y = self.gn2(self.conv2(y)).relu()
        return (self.gn3(self.conv3(y)) + self.gn_proj(self.conv_proj(x))).relu()


class Attention(nn.Module):
    """Self-attention of several heads."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part(x).unflatten(2, (HEADS, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=real[:, None, None])
        return self.out(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and two layers, each on the normalised input and added to it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(WIDTH, eps=1e-6), Attention()
        self.norm2, self.mlp = nn.LayerNorm(WIDTH, eps=1e-6), Mlp()

    def forward(self, x: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x), real)
        return x + self.mlp(self.norm2(x))


class Table(nn.Module):
    """A learnt vector for each number, under the name that the checkpoint gives it."""

    def __init__(self, name: str, *shape: int) -> None:
        super().__init__()
        self.name = name
        self.register_parameter(name, nn.Parameter(torch.zeros(*shape)))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.get_parameter(self.name).flatten(0, -2)[numbers]


class Encoder(nn.Module):
    """Tokens with their places and scales, and one more that gathers the score."""

    def __init__(self) -> None:
        super().__init__()
        self.posembed_input = Table("position_emb", 1, GRID * GRID, WIDTH)
        self.scaleembed_input = Table("scale_emb", len(LONGER_SIDES) + 1, WIDTH)
        self.cls = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.encoder_norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.transformer = nn.ModuleDict({f"encoderblock_{number}": Block() for number in range(LAYERS)})

    def forward(self, tokens: torch.Tensor, patches: Patches) -> torch.Tensor:
        """(T, 384) tokens of all pictures to (B, 384)."""
        tokens = tokens + self.posembed_input(patches.places) + self.scaleembed_input(patches.scales)
        x = pad_sequence(list(tokens.split(patches.lengths)), batch_first=True)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        lengths = torch.tensor(patches.lengths, device=x.device)
        real = torch.arange(x.shape[1], device=x.device) <= lengths[:, None]  # the first token, then the picture's own
        for block in self.transformer.values():
            x = block(x, real)
        return self.encoder_norm(x[:, 0])


class Musiq(nn.Module):
    """Patches of B pictures (see `prepare`) to (B,) scores."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_root, self.gn_root = StandardConv(3, STEM, 7, 2), group_norm(STEM, 1e-6)
        self.block1 = Bottleneck(STEM, STEM_OUT)
        self.embedding = nn.Linear(STEM_OUT * (PATCH // 4) ** 2, WIDTH)
        self.transformer_encoder = Encoder()
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, patches: Patches) -> torch.Tensor:
        x = self.gn_root(self.conv_root(patches.pixels)).relu()
        x = self.block1(F.max_pool2d(pad_same(x, 3, 2), 3, 2))
        tokens = self.embedding(x.permute(0, 2, 3, 1).flatten(1))  # channels last, as TensorFlow had them
        return self.head(self.transformer_encoder(tokens, patches))[:, 0]


def read_musiq(path: Path) -> Musiq:
    """The network of one state dict.

    Raises:
        WeightsError: no state dict, or its names or shapes are not exactly those of the network.
    """
    return read_iqa_checkpoint(Musiq(), path, source=WEIGHTS)


def load_musiq(store: AssetStore | None = None) -> Musiq:
    """The network in eval mode on the CPU, frozen.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt: see `AssetStore.path`.
        WeightsError: see `read_musiq`.
    """
    return read_musiq((store or weights_store()).path(WEIGHTS))

"""TOPIQ without a reference: CFANet, which reads quality from the coarse features of a backbone down to the fine ones.

C. Chen et al., "TOPIQ: A Top-down Approach from Semantics to Distortions for Image Quality Assessment", IEEE TIP 2024.
Two variants: `face`, ResNet-50 at 512x512 trained on CGFIQA-40k (aligned faces, about 0..1), and `iaa`, Swin-B at
384x384 trained on AVA (aesthetics, the mean of a distribution over 1..10). Names of parameters follow pyiqa's
`topiq_nr_cgfiqa_res50-0a8b8e4f.pth` and `cfanet_iaa_ava_swin-393b41b4.pth`, which load strictly; they hold attentions
and a classifier that inference does not use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..core.errors import InputError
from ..core.weights import weights_store
from . import swin
from .deep3d import STAGES, Backbone
from .iqa_checkpoint import read_iqa_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.asset_store import AssetStore

WEIGHTS = {"face": "topiq-face-cgfiqa", "iaa": "topiq-iaa-ava"}
SIZES = {"face": 512, "iaa": swin.SIZE}
RESNET_CHANNELS = (64, 256, 512, 1024, 2048)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POSITIONS = 32  # side of the learnt grid of positions, which is resized to the coarsest feature


class ResNetFeatures(Backbone):
    """ResNet-50 with what it finds on the way."""

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, S, S) normalised RGB to five features (B, C, S', S'), S' from S / 2 to S / 32."""
        found = [self.bn1(self.conv1(x)).relu()]
        x = F.max_pool2d(found[0], 3, 2, 1)
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
            found.append(x)
        return found


class GatedConv(nn.Module):
    """Features weighted by a map that three convolutions make of their other half."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.splitconv = nn.Conv2d(channels, 2 * channels, 1)
        self.weight_blk = nn.Sequential(
            *(nn.Conv2d(channels, 64, 1), nn.GELU()),
            *(nn.Conv2d(64, 64, 3, padding=1), nn.GELU()),
            *(nn.Conv2d(64, 1, 3, padding=1), nn.Sigmoid()),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shown, weighing = self.splitconv(x).chunk(2, dim=1)
        return F.gelu(shown) * self.weight_blk(weighing)


class SelfLayer(nn.Module):
    """Self-attention and two layers, each on the normalised tokens (B, N, C) and added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        hidden = min(4 * width, 2048)
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        x = x + self.self_attn(y, y, y, need_weights=False)[0]
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))


class CrossLayer(nn.Module):
    """Tokens (B, N, C) that ask those of a finer level, and two layers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        hidden = min(4 * width, 2048)
        self.self_attn = nn.MultiheadAttention(width, heads)  # in the checkpoint only
        self.multihead_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: torch.Tensor, finer: torch.Tensor) -> torch.Tensor:
        finer = self.norm2(finer)
        x = x + self.multihead_attn(self.norm1(x), finer, finer, need_weights=False)[0]
        return x + self.linear2(F.gelu(self.linear1(self.norm3(x))))


def _layers(layer: nn.Module) -> nn.Module:
    """One layer under the name that a stack of them has."""
    return nn.ModuleDict({"layers": nn.ModuleList([layer])})


class CFANet(nn.Module):
    """(B, 3, S, S) RGB in [0, 1] to (B,) scores.

    Args:
        backbone: normalised pictures to features, the finest first.
        channels: of the features.
        size: S.
        width, heads: of the attentions.
        classes: scores 1, 2, ... whose distribution is predicted; 1 predicts the score itself.
    """

    semantic_model: ResNetFeatures | swin.SwinFeatures

    def __init__(
        self,
        backbone: ResNetFeatures | swin.SwinFeatures,
        channels: tuple[int, ...],
        size: int,
        width: int,
        heads: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.size = size
        self.semantic_model = backbone
        self.weight_pool = nn.ModuleList(GatedConv(count) for count in channels)
        self.dim_reduce = nn.ModuleList(nn.Sequential(nn.Conv2d(count, width, 1), nn.GELU()) for count in channels)
        self.sa_attn_blks = nn.ModuleList(_layers(SelfLayer(width, heads)) for _ in channels)
        self.attn_blks = nn.ModuleList(_layers(CrossLayer(width, heads)) for _ in channels[1:])
        self.attn_pool = SelfLayer(width, heads)
        self.score_linear = nn.Sequential(
            *(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU()),
            *(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU()),
            nn.Linear(width, classes),
        )
        self.h_emb = nn.Parameter(torch.zeros(1, width // 2, POSITIONS, 1))
        self.w_emb = nn.Parameter(torch.zeros(1, width // 2, 1, POSITIONS))

    def _positions(self, side: int) -> torch.Tensor:
        """(1, width, side, side)."""
        whole = self.h_emb.expand(-1, -1, -1, POSITIONS), self.w_emb.expand(-1, -1, POSITIONS, -1)
        return F.interpolate(torch.cat(whole, dim=1), (side, side), mode="bicubic", align_corners=False)

    def _tokens(self, level: int, features: torch.Tensor, side: int) -> torch.Tensor:
        """One level's tokens (B, side * side, width)."""
        x = self.weight_pool[level](features)
        x = F.adaptive_avg_pool2d(x, side) if x.shape[2] > side else x
        x = self.dim_reduce[level](x) + self._positions(side)
        return self.sa_attn_blks[level].get_submodule("layers.0")(x.flatten(2).transpose(1, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4 or x.shape[1:] != (3, self.size, self.size) or not x.is_floating_point():
            raise InputError(f"TOPIQ takes floats (B, 3, {self.size}, {self.size}), not {x.dtype} {tuple(x.shape)}")
        features = self.semantic_model.features(
            (x - x.new_tensor(MEAN).view(3, 1, 1)) / x.new_tensor(STD).view(3, 1, 1)
        )
        side = features[-1].shape[2]
        coarse, *finer = (self._tokens(k, features[k], side) for k in reversed(range(len(features))))
        for block, tokens in zip(self.attn_blks, finer, strict=True):
            coarse = block.get_submodule("layers.0")(coarse, tokens)
        scores = self.score_linear(self.attn_pool(coarse).mean(dim=1))
        if scores.shape[1] == 1:
            return scores[:, 0]
        return scores.softmax(dim=1) @ torch.arange(1, scores.shape[1] + 1).to(scores)


def topiq(variant: str) -> CFANet:
    """The network "face" or "iaa", without weights."""
    if variant == "face":
        return CFANet(ResNetFeatures(), RESNET_CHANNELS, SIZES["face"], 256, 4, 1)
    return CFANet(swin.SwinFeatures(), swin.CHANNELS, SIZES["iaa"], 512, 8, 10)


def prepare(pictures: np.ndarray, size: int) -> torch.Tensor:
    """uint8 or float32 (B, H, W, 3) RGB in 0..255 to float32 (B, 3, size, size) in [0, 1], resized where it has to be.

    The shape is not kept, the interpolation is bilinear and antialiased, as torchvision's for tensors.

    Raises:
        InputError: another type or shape.
    """
    if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype not in (np.uint8, np.float32):
        raise InputError(f"pictures are uint8 or float32 (B, H, W, 3), not {pictures.dtype} {pictures.shape}")
    x = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float() / 255
    if x.shape[2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=True)


def read_topiq(path: Path, variant: str) -> CFANet:
    """The network "face" or "iaa" of one checkpoint.

    Raises:
        WeightsError: no state dict, or its names or shapes are not exactly those of the network.
    """
    return read_iqa_checkpoint(topiq(variant), path, source=WEIGHTS[variant])


def load_topiq_face(store: AssetStore | None = None) -> CFANet:
    """The network of faces in eval mode on the CPU, frozen.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt: see `AssetStore.path`.
        WeightsError: see `read_topiq`.
    """
    return read_topiq((store or weights_store()).path(WEIGHTS["face"]), "face")


def load_topiq_iaa(store: AssetStore | None = None) -> CFANet:
    """The network of aesthetics, likewise."""
    return read_topiq((store or weights_store()).path(WEIGHTS["iaa"]), "iaa")

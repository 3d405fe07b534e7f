"""Deep3DFaceRecon's network: ResNet-50, a 224x224 aligned face to 257 coefficients of a morphable model.

Y. Deng et al., "Accurate 3D Face Reconstruction with Weakly-Supervised Learning", CVPR Workshops 2019; backbone K. He
et al., CVPR 2016, with the stride in the 3x3 convolutions. Names of parameters follow `net_recon` of
Deep3DFaceRecon_pytorch, which loads strictly: `backbone` without its classifier, and one 1x1 convolution for each group
of coefficients in `final_layers`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..core.errors import InputError, WeightsError
from ..core.weights import weights_store
from .checkpoints import read_tensors
from .loading import load_strict

if TYPE_CHECKING:
    from ..core.asset_store import AssetStore

WEIGHTS = "deep3d-epoch20"
SIZE = 224
COEFFICIENTS = 257
# Width of each head; the two last are the translation's x, y and z.
HEADS = (80, 64, 80, 3, 27, 2, 1)
# Channels inside a block, blocks, stride of the first.
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
PARTS = {
    "identity": slice(0, 80),
    "expression": slice(80, 144),
    "texture": slice(144, 224),
    "angle": slice(224, 227),
    "gamma": slice(227, 254),
    "translation": slice(254, 257),
}


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut; the shortcut is projected where the shape changes."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * inner
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return (self.bn3(self.conv3(x)) + shortcut).relu()


class Backbone(nn.Module):
    """ResNet-50 up to its pooled features, (B, 3, 224, 224) to (B, 2048, 1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for number, (inner, blocks, stride) in enumerate(STAGES, 1):
            stage = [
                Bottleneck(channels if k == 0 else 4 * inner, inner, stride if k == 0 else 1) for k in range(blocks)
            ]
            self.add_module(f"layer{number}", nn.Sequential(*stage))
            channels = 4 * inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean(dim=(2, 3), keepdim=True)


class Deep3D(nn.Module):
    """(B, 3, 224, 224) RGB in [0, 1] to (B, 257) coefficients; `PARTS` names them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.final_layers = nn.ModuleList(nn.Conv2d(2048, width, 1) for width in HEADS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4 or x.shape[1:] != (3, SIZE, SIZE) or not x.is_floating_point():
            raise InputError(f"Deep3D takes floats (B, 3, {SIZE}, {SIZE}), not {x.dtype} {tuple(x.shape)}")
        features = self.backbone(x)
        return torch.cat([head(features) for head in self.final_layers], dim=1).flatten(1)


def prepare(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (B, 224, 224, 3) RGB to float32 (B, 3, 224, 224) in [0, 1]. Raises InputError for another type or shape."""
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[1:] != (SIZE, SIZE, 3):
        raise InputError(f"pictures are uint8 (B, {SIZE}, {SIZE}, 3), not {pictures.dtype} {pictures.shape}")
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float() / 255.0


def split_coefficients(coefficients: np.ndarray) -> dict[str, np.ndarray]:
    """The 257 by name: identity 80, expression 64, texture 80, angle 3, gamma 27, translation 3.

    Args:
        coefficients: (..., 257).

    Raises:
        InputError: another width.
    """
    if coefficients.shape[-1] != COEFFICIENTS:
        raise InputError(f"there are {COEFFICIENTS} coefficients, not {coefficients.shape[-1]}")
    return {name: coefficients[..., part] for name, part in PARTS.items()}


def read_deep3d(path: Path) -> Deep3D:
    """The network of a training checkpoint or of its `net_recon` part.

    Raises:
        WeightsError: the file holds more than tensors and plain values, or other names or shapes.
    """
    checkpoint = read_tensors(path, source=WEIGHTS)
    state = checkpoint.get("net_recon", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise WeightsError(f"{WEIGHTS}: {path.name} is no checkpoint")
    return load_strict(Deep3D(), state, source=WEIGHTS)


def load_deep3d(store: AssetStore | None = None) -> Deep3D:
    """The network in eval mode on the CPU, frozen.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt: see `AssetStore.path`.
        WeightsError: see `read_deep3d`.
    """
    return read_deep3d((store or weights_store()).path(WEIGHTS))

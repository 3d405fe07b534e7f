"""MobileNetV2 trained on ImageNet, the feature network of `fd:mobilenet-v2`.

Architecture: M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, width 1.0. Names
of parameters follow torchvision's state dict `mobilenet_v2-b0353104.pth`, which loads strictly.

It stands in where the Inception network of the FID is not at hand. Its distances are no FID and are never called so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ..core.errors import InputError
from ..core.weights import weights_store
from .checkpoints import read_state_dict
from .loading import fold_norms
from .pictures import SIZE, centre_224

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.asset_store import AssetStore

WEIGHTS = "mobilenet-v2-imagenet"
FEATURES = 1280
CLASSES = 1000
# Pictures in one pass on CPU. More leave the cache: 16 at once take twice the time a picture.
AT_ONCE_CPU = 4
# RGB / 255, then these channel statistics of ImageNet.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# Per stage: expansion, output channels, blocks, stride of the first block.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def conv_norm(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, batch normalisation, ReLU6."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel by 3x3, project by a linear 1x1; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        expand = [] if expansion == 1 else [conv_norm(inputs, hidden)]
        self.conv = nn.Sequential(
            *expand,
            conv_norm(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """(B, 3, 224, 224) normalised RGB (see `prepare_frames`) to (B, 1000) ImageNet logits."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(3, 32, 3, 2)]
        channels = 32
        for expansion, width, blocks, stride in STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(channels, width, stride if block == 0 else 1, expansion))
                channels = width
        self.features = nn.Sequential(*layers, conv_norm(channels, FEATURES))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(FEATURES, CLASSES))

    def features_1280(self, x: torch.Tensor) -> torch.Tensor:
        """The last feature map averaged over space, (B, 1280)."""
        if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
            raise InputError(f"MobileNetV2 takes floats (B, 3, {SIZE}, {SIZE}), not {x.dtype} {tuple(x.shape)}")
        parts = x.split(AT_ONCE_CPU if x.device.type == "cpu" else max(len(x), 1))
        return torch.cat([self.features(part).mean(dim=(2, 3)) for part in parts])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, 1000)."""
        return self.classifier(self.features_1280(x))


def prepare_frames(pictures: np.ndarray) -> torch.Tensor:
    """Pictures as the network wants them: shorter side to 224 (antialiased bilinear), centre crop, normalised.

    Args:
        pictures: uint8 (B, H, W, 3) RGB.

    Returns:
        float32 (B, 3, 224, 224).

    Raises:
        InputError: another type or shape.
    """
    x = centre_224(pictures, antialias=True)
    return (x - x.new_tensor(MEAN).view(3, 1, 1)) / x.new_tensor(STD).view(3, 1, 1)


def read_mobilenet_v2(path: Path) -> MobileNetV2:
    """The network of one state dict in torchvision's layout, as it stands.

    Raises:
        WeightsError: no state dict, or its names or shapes are not exactly those of the network.
    """
    return read_state_dict(MobileNetV2(), path, source=WEIGHTS)


def load_mobilenet_v2(store: AssetStore | None = None) -> MobileNetV2:
    """The ImageNet network in eval mode on the CPU, frozen, its normalisations folded into the convolutions.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt: not in the store, or another file under that name.
        WeightsError: the file's names or shapes are not exactly those of the network.
    """
    return fold_norms(read_mobilenet_v2((store or weights_store()).path(WEIGHTS)))

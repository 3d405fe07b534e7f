"""EmoAffectNet's static network: ResNet-50, a 224x224 face to 7 emotions.

E. Ryumina, D. Dresvyanskiy, A. Karpov, "In search of a robust facial expressions recognition model: a large-scale
visual cross-corpus study", Neurocomputing 2022. A port from Keras: the stem has TensorFlow's padding and the pooling
after it none, strides sit in the first 1x1 convolution of a block, normalisations add 1e-3. Names of parameters follow
`FER_static_ResNet50_AffectNet.pt`, which loads strictly.

Classes: neutral, happiness, sadness, surprise, fear, disgust, anger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..core.errors import InputError
from ..core.weights import weights_store
from .checkpoints import read_state_dict
from .same_padding import Conv2dSame

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.asset_store import AssetStore

WEIGHTS = "emoaffectnet-resnet50"
SIZE = 224
CLASSES = 7
FEATURES = 512
EPSILON = 1e-3
MEAN_BGR = (91.4953, 103.8827, 131.0912)  # of VGGFace2, in 0..255
# Channels inside a block, blocks, stride of the first.
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with Keras' epsilon."""
    return nn.BatchNorm2d(channels, eps=EPSILON)


class Bottleneck(nn.Module):
    """1x1 (strided), 3x3, 1x1 with a shortcut; the shortcut is projected where the shape changes."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * inner
        self.conv1, self.batch_norm1 = nn.Conv2d(inputs, inner, 1, stride, bias=False), norm(inner)
        self.conv2, self.batch_norm2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False), norm(inner)
        self.conv3, self.batch_norm3 = nn.Conv2d(inner, outputs, 1, bias=False), norm(outputs)
        self.i_downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.i_downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.i_downsample is None else self.i_downsample(x)
        x = self.batch_norm1(self.conv1(x)).relu()
        x = self.batch_norm2(self.conv2(x)).relu()
        return (self.batch_norm3(self.conv3(x)) + shortcut).relu()


class EmoAffectNet(nn.Module):
    """(B, 3, 224, 224) BGR minus `MEAN_BGR` (see `prepare`) to (B, 7) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_layer_s2_same = Conv2dSame(3, 64, 7, 2, bias=False)
        self.batch_norm1 = norm(64)
        channels = 64
        for number, (inner, count, stride) in enumerate(STAGES, 1):
            blocks = [Bottleneck(channels, inner, stride)] + [Bottleneck(4 * inner, inner, 1) for _ in range(count - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            channels = 4 * inner
        self.fc1 = nn.Linear(channels, FEATURES)
        self.fc2 = nn.Linear(FEATURES, CLASSES)

    def features_512(self, x: torch.Tensor) -> torch.Tensor:
        """What feeds the authors' temporal models, before its ReLU, (B, 512)."""
        if x.ndim != 4 or x.shape[1:] != (3, SIZE, SIZE) or not x.is_floating_point():
            raise InputError(f"EmoAffectNet takes floats (B, 3, {SIZE}, {SIZE}), not {x.dtype} {tuple(x.shape)}")
        x = F.max_pool2d(self.batch_norm1(self.conv_layer_s2_same(x)).relu(), 3, 2)
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.fc1(x.mean(dim=(2, 3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, 7)."""
        return self.fc2(self.features_512(x).relu())


def prepare(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (B, 224, 224, 3) RGB to float32 (B, 3, 224, 224), BGR minus the means. Raises InputError otherwise."""
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[1:] != (SIZE, SIZE, 3):
        raise InputError(f"pictures are uint8 (B, {SIZE}, {SIZE}, 3), not {pictures.dtype} {pictures.shape}")
    x = torch.from_numpy(np.ascontiguousarray(pictures[..., ::-1].transpose(0, 3, 1, 2))).float()
    return x - x.new_tensor(MEAN_BGR).view(3, 1, 1)


def read_emoaffectnet(path: Path) -> EmoAffectNet:
    """The network of one state dict.

    Raises:
        WeightsError: no state dict, or its names or shapes are not exactly those of the network.
    """
    return read_state_dict(EmoAffectNet(), path, source=WEIGHTS)


def load_emoaffectnet(store: AssetStore | None = None) -> EmoAffectNet:
    """The network in eval mode on the CPU, frozen.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt: see `AssetStore.path`.
        WeightsError: see `read_emoaffectnet`.
    """
    return read_emoaffectnet((store or weights_store()).path(WEIGHTS))

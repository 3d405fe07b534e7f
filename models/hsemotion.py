"""HSEmotion: EfficientNet-B0 (224 pixels) and B2 (260 pixels) trained on faces and then on AffectNet's emotions.

A. V. Savchenko, "Facial expression and attributes recognition based on multi-task learning of lightweight neural
networks", SISY 2021; architecture M. Tan and Q. V. Le, "EfficientNet", ICML 2019, as timm's `tf_efficientnet_b0_ns` and
`tf_efficientnet_b2_ns` have it (TensorFlow's padding, normalisations that add 1e-3). Names of parameters are timm's.

The published files are whole pickled networks. Only their tensors are read (`pickled_module`); a plain state dict of
the same names is taken as well. Eight classes are anger, contempt, disgust, fear, happiness, neutral, sadness and
surprise in this order, seven are these without contempt.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..core.errors import InputError, WeightsError
from ..core.weights import weights_store
from .checkpoints import checked_state
from .loading import load_strict
from .pickled_module import read_pickled_module
from .same_padding import Conv2dSame

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.asset_store import AssetStore

WEIGHTS = {"b0": "hsemotion-enet-b0-8-best-vgaf", "b2": "hsemotion-enet-b2-8"}
SIZES = {"b0": 224, "b2": 260}
SCALES = {"b0": (1.0, 1.0), "b2": (1.1, 1.2)}  # width, depth
CLASS_COUNTS = (7, 8)
EPSILON = 1e-3
# RGB / 255, then these channel statistics of ImageNet.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Per stage: kernel, stride of the first block, expansion, channels, blocks; of B0.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def scaled_width(channels: int, factor: float) -> int:
    """Channels times the factor, to the nearest multiple of 8 that is not more than a tenth below."""
    wanted = channels * factor
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Convolution without bias and with TensorFlow's padding."""
    return Conv2dSame(inputs, outputs, kernel, stride, groups=groups, bias=False)


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with TensorFlow's epsilon."""
    return nn.BatchNorm2d(channels, eps=EPSILON)


def swish(x: torch.Tensor) -> torch.Tensor:
    """x sigmoid(x)."""
    return nn.functional.silu(x)


class SqueezeExcite(nn.Module):
    """Scales each channel by what two 1x1 convolutions make of the channels' means."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.conv_expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * self.conv_expand(swish(self.conv_reduce(means))).sigmoid()


class SeparableBlock(nn.Module):
    """The first stage's block, which does not expand: filter each channel, excite, project."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.shortcut = stride == 1 and inputs == outputs
        self.conv_dw, self.bn1 = conv(inputs, inputs, kernel, stride, groups=inputs), norm(inputs)
        self.se = SqueezeExcite(inputs, inputs // 4)
        self.conv_pw, self.bn2 = conv(inputs, outputs), norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv_pw(self.se(swish(self.bn1(self.conv_dw(x))))))
        return x + y if self.shortcut else y


class InvertedBlock(nn.Module):
    """Expand by 1x1, filter each channel, excite, project; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        self.conv_pw, self.bn1 = conv(inputs, hidden), norm(hidden)
        self.conv_dw, self.bn2 = conv(hidden, hidden, kernel, stride, groups=hidden), norm(hidden)
        self.se = SqueezeExcite(hidden, inputs // 4)
        self.conv_pwl, self.bn3 = conv(hidden, outputs), norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = swish(self.bn2(self.conv_dw(swish(self.bn1(self.conv_pw(x))))))
        y = self.bn3(self.conv_pwl(self.se(y)))
        return x + y if self.shortcut else y


class HSEmotion(nn.Module):
    """(B, 3, S, S) normalised RGB (see `prepare`) to (B, classes) logits.

    Args:
        variant: "b0" or "b2".
        classes: 8, or 7 without contempt.
    """

    def __init__(self, variant: str, classes: int = 8) -> None:
        super().__init__()
        width, depth = SCALES[variant]
        self.size = SIZES[variant]
        channels = scaled_width(32, width)
        self.conv_stem, self.bn1 = conv(3, channels, 3, 2), norm(channels)
        stages: list[nn.Module] = []
        for kernel, stride, expansion, base, count in STAGES:
            outputs, blocks = scaled_width(base, width), []
            for number in range(int(np.ceil(count * depth))):
                step = stride if number == 0 else 1
                blocks.append(_block(channels, outputs, kernel, step, expansion))
                channels = outputs
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        features = scaled_width(1280, width)
        self.conv_head, self.bn2 = conv(channels, features), norm(features)
        self.classifier = nn.Linear(features, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4 or x.shape[1:] != (3, self.size, self.size) or not x.is_floating_point():
            raise InputError(f"HSEmotion takes floats (B, 3, {self.size}, {self.size}), not {x.dtype} {tuple(x.shape)}")
        x = self.blocks(swish(self.bn1(self.conv_stem(x))))
        return self.classifier(swish(self.bn2(self.conv_head(x))).mean(dim=(2, 3)))


def _block(inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> nn.Module:
    if expansion == 1:
        return SeparableBlock(inputs, outputs, kernel, stride)
    return InvertedBlock(inputs, outputs, kernel, stride, expansion)


def prepare(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (B, S, S, 3) RGB to float32 (B, 3, S, S), normalised. Raises InputError for another type or shape."""
    square = pictures.ndim == 4 and pictures.shape[1] == pictures.shape[2] in SIZES.values() and pictures.shape[3] == 3
    if pictures.dtype != np.uint8 or not square:
        raise InputError(f"pictures are uint8 (B, S, S, 3), S 224 or 260, not {pictures.dtype} {pictures.shape}")
    x = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float() / 255.0
    return (x - x.new_tensor(MEAN).view(3, 1, 1)) / x.new_tensor(STD).view(3, 1, 1)


def read_hsemotion(path: Path, variant: str) -> HSEmotion:
    """The network of a published file (a pickled module) or of a plain state dict, with 7 or 8 classes.

    Raises:
        WeightsError: neither of these, or its names or shapes are not exactly those of the network.
    """
    source = WEIGHTS[variant]
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        state = read_pickled_module(path)
    state = checked_state(state, path, source=source)
    # The authors wrapped the last layer in a Sequential in some files and not in others.
    state = {name.replace("classifier.0.", "classifier."): value for name, value in state.items()}
    head = state.get("classifier.bias")
    classes = 8 if head is None else len(head)
    if classes not in CLASS_COUNTS:
        raise WeightsError(f"{source}: {path.name} has {classes} outputs, not 7 or 8")
    return load_strict(HSEmotion(variant, classes), state, source=source)


def _load(variant: str, store: AssetStore | None) -> HSEmotion:
    network = read_hsemotion((store or weights_store()).path(WEIGHTS[variant]), variant)
    if network.classifier.out_features != 8:
        raise WeightsError(f"{WEIGHTS[variant]}: the file in the store has 7 classes, not 8")
    return network


def load_hsemotion_b0(store: AssetStore | None = None) -> HSEmotion:
    """The B0 network with 8 classes in eval mode on the CPU, frozen.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt: see `AssetStore.path`.
        WeightsError: see `read_hsemotion`.
    """
    return _load("b0", store)


def load_hsemotion_b2(store: AssetStore | None = None) -> HSEmotion:
    """The same for B2."""
    return _load("b2", store)

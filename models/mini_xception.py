"""mini-Xception trained on FER2013: a 64x64 grey face to 7 emotions.

O. Arriaga et al., "Real-time Convolutional Neural Networks for Emotion and Gender Classification", 2017. The network is
rebuilt from the graph that the published Keras 2.0 file describes, with Keras' meaning of its layers: padding "same"
puts the odd row and column at the bottom and right, normalisations add 1e-3 to the variance, convolutions before them
have no bias.

`CLASSES` is the file's own order. It is neither alphabetical nor that of any other network here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..core.errors import InputError, MissingPackage, WeightsError, extra_hint
from ..core.weights import weights_store
from .loading import load_strict
from .same_padding import pad_same

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.asset_store import AssetStore

WEIGHTS = "fer-mini-xception"
SIZE = 64
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
EPSILON = 1e-3
WIDTHS = (16, 32, 64, 128)  # channels of the four residual blocks
# Keras' name of each tensor, the present one, and the axes that take one's shape to the other's.
TENSORS = {
    "kernel": ("weight", (3, 2, 0, 1)),
    "depthwise_kernel": ("depthwise.weight", (2, 3, 0, 1)),
    "pointwise_kernel": ("pointwise.weight", (3, 2, 0, 1)),
    "bias": ("bias", (0,)),
    "gamma": ("weight", (0,)),
    "beta": ("bias", (0,)),
    "moving_mean": ("running_mean", (0,)),
    "moving_variance": ("running_var", (0,)),
}


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with Keras' epsilon."""
    return nn.BatchNorm2d(channels, eps=EPSILON)


class Separable(nn.Module):
    """3x3 filter of each channel, then a 1x1 convolution; the picture keeps its size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise(self.depthwise(x))


class Block(nn.Module):
    """Two separable convolutions and a pooling, beside a strided 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.separable1, self.norm1 = Separable(inputs, outputs), norm(outputs)
        self.separable2, self.norm2 = Separable(outputs, outputs), norm(outputs)
        self.shortcut, self.shortcut_norm = nn.Conv2d(inputs, outputs, 1, 2, bias=False), norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        main = self.norm2(self.separable2(self.norm1(self.separable1(x)).relu()))
        pooled = F.max_pool2d(pad_same(main, 3, 2, value=float("-inf")), 3, 2)
        return pooled + self.shortcut_norm(self.shortcut(x))


class MiniXception(nn.Module):
    """(B, 1, 64, 64) grey in [-1, 1] to (B, 7) logits in the order of `CLASSES`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 8, 3, bias=False), norm(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, bias=False), norm(8)
        pairs = zip((8, *WIDTHS[:-1]), WIDTHS, strict=True)
        self.blocks = nn.ModuleList(Block(inputs, outputs) for inputs, outputs in pairs)
        self.head = nn.Conv2d(WIDTHS[-1], len(CLASSES), 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4 or x.shape[1:] != (1, SIZE, SIZE) or not x.is_floating_point():
            raise InputError(f"mini-Xception takes floats (B, 1, {SIZE}, {SIZE}), not {x.dtype} {tuple(x.shape)}")
        x = self.norm1(self.conv1(x)).relu()
        x = self.norm2(self.conv2(x)).relu()
        for block in self.blocks:
            x = block(x)
        return self.head(x).mean(dim=(2, 3))


def prepare(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (B, 64, 64) grey to float32 (B, 1, 64, 64) in [-1, 1]. Raises InputError for another type or shape."""
    if pictures.dtype != np.uint8 or pictures.ndim != 3 or pictures.shape[1:] != (SIZE, SIZE):
        raise InputError(f"pictures are uint8 (B, {SIZE}, {SIZE}), not {pictures.dtype} {pictures.shape}")
    return (torch.from_numpy(np.ascontiguousarray(pictures))[:, None].float() / 255.0 - 0.5) * 2.0


def _keras_layers() -> Iterator[tuple[str, str]]:
    """The file's layers and the modules that they become; Keras numbers a block's shortcut before its main way."""
    for number in (1, 2):
        yield f"conv2d_{number}", f"conv{number}"
        yield f"batch_normalization_{number}", f"norm{number}"
    for block in range(len(WIDTHS)):
        name = f"blocks.{block}"
        yield f"conv2d_{block + 3}", f"{name}.shortcut"
        yield f"batch_normalization_{3 * block + 3}", f"{name}.shortcut_norm"
        for number in (1, 2):
            yield f"separable_conv2d_{2 * block + number}", f"{name}.separable{number}"
            yield f"batch_normalization_{3 * block + 3 + number}", f"{name}.norm{number}"
    yield f"conv2d_{len(WIDTHS) + 3}", "head"


def _tensors(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a Keras file as "layer/tensor"."""
    try:
        import h5py
    except ImportError as error:
        raise MissingPackage("h5py is not installed", hint=extra_hint("emotion")) from error

    found: dict[str, np.ndarray] = {}

    def take(name: str, item: object) -> None:
        """Called for "layer/layer_1/tensor:0"."""
        if isinstance(item, h5py.Dataset):
            layer, *_, tensor = name.split("/")
            found[f"{layer}/{tensor.split(':')[0]}"] = item[()]

    try:
        with h5py.File(path) as file:
            group = file.get("model_weights")
            if not isinstance(group, h5py.Group):
                raise WeightsError(f"{WEIGHTS}: {path.name} is no file of Keras weights")
            group.visititems(take)
    except OSError as error:
        raise WeightsError(f"{WEIGHTS}: {path.name} is no HDF5 file") from error
    return found


def read_mini_xception(path: Path) -> MiniXception:
    """The network of a Keras HDF5 file.

    Raises:
        MissingPackage: h5py is not installed.
        WeightsError: no such file, or its layers or shapes are not exactly those of the network.
    """
    network, modules, state = MiniXception(), dict(_keras_layers()), {}
    for name, array in _tensors(path).items():
        layer, tensor = name.split("/")
        ours, axes = TENSORS.get(tensor, (tensor, range(array.ndim)))
        if len(axes) != array.ndim:
            raise WeightsError(f"{WEIGHTS}: {name} has {array.ndim} dimensions, not {len(axes)}")
        state[f"{modules.get(layer, layer)}.{ours}"] = torch.from_numpy(np.ascontiguousarray(array.transpose(axes)))
    counts = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    return load_strict(network, counts | state, source=WEIGHTS)


def load_mini_xception(store: AssetStore | None = None) -> MiniXception:
    """The network in eval mode on the CPU, frozen.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt: see `AssetStore.path`.
        MissingPackage, WeightsError: see `read_mini_xception`.
    """
    return read_mini_xception((store or weights_store()).path(WEIGHTS))

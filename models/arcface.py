"""ArcFace's IResNet-50: an aligned 112x112 face to 512 numbers whose direction is the person's identity.

J. Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019. Identities are compared by
the cosine of the angle between two embeddings; their lengths carry no identity.

Two published trainings of it are read, both strictly: `backbone.pth` of InsightFace's arcface_torch (MS1MV3), whose
names of parameters are used here, and `w600k_r50.onnx` of InsightFace's buffalo_l (WebFace600K). The latter is this
network as PyTorch exports it: normalisations that follow a convolution are folded into it. They are unfolded as ones
that only add the convolution's offset.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ..core.errors import InputError, WeightsError
from ..core.weights import weights_store
from .checkpoints import read_state_dict
from .loading import load_strict
from .onnx_tensors import Step, read_onnx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..core.asset_store import AssetStore

WEBFACE600K, MS1MV3 = "arcface-r50", "arcface-r50-ms1mv3"
SIZE = 112
WIDTH = 512
EPSILON = 1e-5  # of its normalisations, PyTorch's default
# Channels and blocks; the first block of each stage halves the picture.
STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))


class Block(nn.Module):
    """Normalisation, 3x3, PReLU, 3x3 (strided) and a shortcut, with nothing after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        y = self.bn3(self.conv2(y))
        return y + (x if self.downsample is None else self.downsample(x))


class ArcFace(nn.Module):
    """(B, 3, 112, 112) RGB in [-1, 1] (see `prepare`) to (B, 512) embeddings, not normalised."""

    def __init__(self) -> None:
        super().__init__()
        channels = STAGES[0][0]
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(channels), nn.PReLU(channels)
        for number, (outputs, count) in enumerate(STAGES, 1):
            blocks = [Block(channels, outputs, 2)] + [Block(outputs, outputs, 1) for _ in range(count - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            channels = outputs
        self.bn2 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels * (SIZE // 16) ** 2, WIDTH)
        self.features = nn.BatchNorm1d(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4 or x.shape[1:] != (3, SIZE, SIZE) or not x.is_floating_point():
            raise InputError(f"ArcFace takes floats (B, 3, {SIZE}, {SIZE}), not {x.dtype} {tuple(x.shape)}")
        x = self.prelu(self.bn1(self.conv1(x)))
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))


def prepare(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (B, 112, 112, 3) RGB to float32 (B, 3, 112, 112), (x - 127.5) / 127.5. Raises InputError otherwise."""
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[1:] != (SIZE, SIZE, 3):
        raise InputError(f"pictures are uint8 (B, {SIZE}, {SIZE}, 3), not {pictures.dtype} {pictures.shape}")
    return (torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float() - 127.5) / 127.5


def read_arcface(path: Path) -> ArcFace:
    """The network of one state dict, in single or half precision.

    Raises:
        WeightsError: no state dict, or its names or shapes are not exactly those of the network.
    """
    return read_state_dict(ArcFace(), path, source=MS1MV3)


def _exported() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The operators of PyTorch's export in order, and the modules that each holds the tensors of."""
    yield "Conv", ("conv1", "bn1")
    yield "PRelu", ("prelu",)
    for layer, (_, count) in enumerate(STAGES, 1):
        for block in range(count):
            at = f"layer{layer}.{block}"
            yield "BatchNormalization", (f"{at}.bn1",)
            yield "Conv", (f"{at}.conv1", f"{at}.bn2")
            yield "PRelu", (f"{at}.prelu",)
            yield "Conv", (f"{at}.conv2", f"{at}.bn3")
            if block == 0:
                yield "Conv", (f"{at}.downsample.0", f"{at}.downsample.1")
            yield "Add", ()
    yield "BatchNormalization", ("bn2",)
    yield "Flatten", ()
    yield "Gemm", ("fc",)
    yield "BatchNormalization", ("features",)


def _tensors(step: Step, modules: tuple[str, ...]) -> Iterator[tuple[str, torch.Tensor]]:
    values = [torch.from_numpy(step.constants[place].copy()) for place in sorted(step.constants)]
    if step.operator == "Conv":
        weight, offset = values
        conv, norm = modules
        yield f"{conv}.weight", weight
        yield f"{norm}.weight", torch.ones_like(offset)
        yield f"{norm}.bias", offset
        yield f"{norm}.running_mean", torch.zeros_like(offset)
        yield f"{norm}.running_var", torch.full_like(offset, 1 - EPSILON)
    elif step.operator == "PRelu":
        yield f"{modules[0]}.weight", values[0].flatten()
    elif modules:
        parts = ("weight", "bias", "running_mean", "running_var")[: len(values)]
        yield from ((f"{modules[0]}.{part}", value) for part, value in zip(parts, values, strict=True))


def read_arcface_onnx(path: Path) -> ArcFace:
    """The network of an ONNX file that PyTorch made of it, with the normalisations folded.

    Raises:
        WeightsError: no ONNX file, or another network.
    """
    steps, expected, network = read_onnx(path), list(_exported()), ArcFace()
    if [step.operator for step in steps] != [operator for operator, _ in expected]:
        raise WeightsError(f"{WEBFACE600K}: {path.name} is another network than IResNet-50")
    counts = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    try:
        state = dict(chain.from_iterable(map(_tensors, steps, (modules for _, modules in expected))))
    except (ValueError, IndexError) as error:
        raise WeightsError(f"{WEBFACE600K}: {path.name} lacks tensors of IResNet-50") from error
    return load_strict(network, counts | state, source=WEBFACE600K)


def load_arcface(store: AssetStore | None = None) -> ArcFace:
    """The network trained on WebFace600K in eval mode on the CPU, frozen.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt: see `AssetStore.path`.
        WeightsError: see `read_arcface_onnx`.
    """
    return read_arcface_onnx((store or weights_store()).path(WEBFACE600K))


def load_arcface_ms1mv3(store: AssetStore | None = None) -> ArcFace:
    """The same trained on MS1MV3. Raises as `load_arcface` and `read_arcface` do."""
    return read_arcface((store or weights_store()).path(MS1MV3))

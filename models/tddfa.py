"""3DDFA_V2's small network: MobileNet of half width, a 120x120 face to 62 coefficients of a morphable model.

J. Guo et al., "Towards Fast, Accurate and Stable 3D Dense Face Alignment", ECCV 2020; layers as A. Howard et al.,
"MobileNets", 2017. Names of parameters follow the published checkpoint `mb05_120x120.pth`, which loads strictly,
including a second head for 68 landmarks that served its training only.

The 62 are 12 of pose, 40 of shape, 10 of expression, all with respect to the Basel Face Model in 3DDFA's order. Pose is
a 3x4 matrix in rows: scaled rotation, then the shift in the 120x120 crop, y up. The model's own scale (micrometres)
makes the rotation's scale about 5e-4.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ..core.errors import InputError, WeightsError
from ..core.weights import weights_store
from .loading import load_strict

if TYPE_CHECKING:
    from ..core.asset_store import AssetStore

WEIGHTS, STATISTICS = "tddfa-v2-mb05", "tddfa-v2-mean-std"
SIZE = 120
PARAMETERS = 62
POSE, SHAPE, EXPRESSION = slice(0, 12), slice(12, 52), slice(52, 62)

# Name, channels in and out, stride of each depthwise-separable block (width 0.5).
BLOCKS = (
    ("dw2_1", 16, 32, 1),
    ("dw2_2", 32, 64, 2),
    ("dw3_1", 64, 64, 1),
    ("dw3_2", 64, 128, 2),
    ("dw4_1", 128, 128, 1),
    ("dw4_2", 128, 256, 2),
    *((f"dw5_{k}", 256, 256, 1) for k in range(1, 6)),
    ("dw5_6", 256, 512, 2),
    ("dw6", 512, 512, 1),
)


class SeparableBlock(nn.Module):
    """Depthwise 3x3, then pointwise 1x1, each with normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        self.bn_dw = nn.BatchNorm2d(inputs)
        self.conv_sep = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn_sep = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn_sep(self.conv_sep(self.bn_dw(self.conv_dw(x)).relu())).relu()


class TDDFA(nn.Module):
    """(B, 3, 120, 120) from `prepare` to (B, 62) coefficients in the model's units."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for name, inputs, outputs, stride in BLOCKS:
            self.add_module(name, SeparableBlock(inputs, outputs, stride))
        self.fc_param = nn.Linear(512, PARAMETERS)
        self.fc_lm = nn.Linear(512, 136)
        # Statistics of the training set come in a file of their own, so they are no part of the state dict.
        self.register_buffer("mean", torch.zeros(PARAMETERS), persistent=False)
        self.register_buffer("std", torch.ones(PARAMETERS), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4 or x.shape[1:] != (3, SIZE, SIZE) or not x.is_floating_point():
            raise InputError(f"TDDFA takes floats (B, 3, {SIZE}, {SIZE}), not {x.dtype} {tuple(x.shape)}")
        x = self.bn1(self.conv1(x)).relu()
        for name, *_ in BLOCKS:
            x = self.get_submodule(name)(x)
        return self.fc_param(x.mean(dim=(2, 3))) * self.std + self.mean


def prepare(pictures: np.ndarray) -> torch.Tensor:
    """Pictures as the network wants them: BGR, (x - 127.5) / 128.

    Args:
        pictures: uint8 (B, 120, 120, 3) RGB.

    Returns:
        float32 (B, 3, 120, 120).

    Raises:
        InputError: another type or shape.
    """
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[1:] != (SIZE, SIZE, 3):
        raise InputError(f"pictures are uint8 (B, {SIZE}, {SIZE}, 3), not {pictures.dtype} {pictures.shape}")
    bgr = np.ascontiguousarray(pictures[..., ::-1].transpose(0, 3, 1, 2))
    return (torch.from_numpy(bgr).float() - 127.5) / 128.0


def read_statistics(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the 62, float32.

    Raises:
        WeightsError: the file holds other arrays.
    """
    with np.load(path, allow_pickle=False) as arrays:
        found = [arrays[name] for name in ("mean", "std") if name in arrays]
    if len(found) != 2 or any(array.shape != (PARAMETERS,) for array in found):
        raise WeightsError(f"{STATISTICS}: mean and std are not two arrays of {PARAMETERS}")
    return torch.from_numpy(found[0].astype(np.float32)), torch.from_numpy(found[1].astype(np.float32))


def load_tddfa(store: AssetStore | None = None) -> TDDFA:
    """The network in eval mode on the CPU, frozen, with its statistics.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt: see `AssetStore.path`.
        WeightsError: a file's names or shapes are not exactly those of the network.
    """
    store = store or weights_store()
    checkpoint = torch.load(store.path(WEIGHTS), map_location="cpu", weights_only=True)
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise WeightsError(f"{WEIGHTS}: the checkpoint has no state_dict")
    # The published file was saved from a multi-GPU wrapper, which puts "module." before every name.
    network = load_strict(
        TDDFA(), {name.removeprefix("module."): value for name, value in state.items()}, source=WEIGHTS
    )
    mean, std = read_statistics(store.path(STATISTICS))
    network.mean.copy_(mean)
    network.std.copy_(std)
    return network

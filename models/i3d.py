"""Inflated 3D Inception v1 (I3D), the network of the Fréchet video distance.

Architecture: J. Carreira and A. Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset",
CVPR 2017, the RGB stream trained on Kinetics-400. All convolutions and max pools use TensorFlow's "SAME" padding: the
output has ceil(n / stride) places and an odd surplus goes behind, so a 7-wide kernel of stride 2 pads 224 by 2 and 3.
Batch normalisation has no scale and eps 1e-3; at load it is folded into the convolutions in float64. Logits (about 10
in size) then lie within 3e-5 of a float64 run, where the unfolded float32 network lies within 1.2e-5. Tensors run
channels-last: the pools are an order of magnitude faster that way on CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from ..core.errors import InputError, TooShort, WeightsError
from ..core.weights import weights_store
from .loading import load_strict
from .pictures import SIZE, centre_224

if TYPE_CHECKING:
    from ..core.asset_store import AssetStore

WEIGHTS = "i3d-k400"
CLASSES = 400
# Three stages halve the time, and the average pool still needs 2 steps: ceil(9 / 8) = 2.
MIN_FRAMES = 9
BN_EPS = 1e-3

# Output channels in each block: branch 0 | reduce, 3x3x3 of branch 1 | the same of branch 2 | pool projection.
BLOCKS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}

Triple = tuple[int, int, int]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME" rule along one axis: the places added before and after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _conv3d(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
    """`F.conv3d`; float32 on CPU goes through oneDNN whatever the size.

    With one thread and small batches `F.conv3d` picks an older kernel instead, which also drops the channels-last
    layout and so makes every pool after it slow: together a third of the network's time.
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return torch.mkldnn_convolution(x, weight, bias, (padding,) * 3, (stride,) * 3, (1,) * 3, 1)
    return F.conv3d(x, weight, bias, stride, padding)


class Unit(nn.Module):
    """Convolution with "SAME" padding, its batch normalisation folded in, then ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        shape = (outputs, inputs, kernel, kernel, kernel)
        self.weight = nn.Parameter(torch.empty(shape, memory_format=torch.channels_last_3d))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride == 1:
            return _conv3d(x, self.weight, self.bias, 1, self.kernel // 2).relu_()
        pads = [side for size in reversed(x.shape[2:]) for side in same_padding(size, self.kernel, self.stride)]
        return _conv3d(F.pad(x, pads), self.weight, self.bias, self.stride, 0).relu_()


def max_pool(x: torch.Tensor, kernel: Triple, stride: Triple) -> torch.Tensor:
    """Max pooling with "SAME" padding by -inf.

    The pool's own padding is symmetric; where "SAME" adds one more place behind, ceil mode opens that last window.
    """
    before = [same_padding(size, k, s)[0] for size, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    return F.max_pool3d(x, kernel, stride, before, ceil_mode=True)


class Inception(nn.Module):
    """Four branches side by side: 1x1x1 | 1x1x1, 3x3x3 | 1x1x1, 3x3x3 | max pool, 1x1x1."""

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, reduce1, three1, reduce2, three2, pool = widths
        self.Branch_0 = nn.ModuleDict({"Conv3d_0a_1x1": Unit(inputs, one)})
        self.Branch_1 = nn.ModuleDict(
            {"Conv3d_0a_1x1": Unit(inputs, reduce1), "Conv3d_0b_3x3": Unit(reduce1, three1, 3)}
        )
        self.Branch_2 = nn.ModuleDict(
            {"Conv3d_0a_1x1": Unit(inputs, reduce2), "Conv3d_0b_3x3": Unit(reduce2, three2, 3)}
        )
        self.Branch_3 = nn.ModuleDict({"Conv3d_0b_1x1": Unit(inputs, pool)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = max_pool(x, (3, 3, 3), (1, 1, 1))
        branches = [
            self.Branch_0["Conv3d_0a_1x1"](x),
            self.Branch_1["Conv3d_0b_3x3"](self.Branch_1["Conv3d_0a_1x1"](x)),
            self.Branch_2["Conv3d_0b_3x3"](self.Branch_2["Conv3d_0a_1x1"](x)),
            self.Branch_3["Conv3d_0b_1x1"](pooled),
        ]
        return torch.cat(branches, dim=1)


def _check(x: torch.Tensor) -> None:
    if x.ndim != 5 or x.shape[1] != 3 or tuple(x.shape[3:]) != (SIZE, SIZE):
        raise InputError(f"I3D takes (B, 3, T, {SIZE}, {SIZE}), not {tuple(x.shape)}")
    if not x.is_floating_point():
        raise InputError(f"I3D takes floats in [-1, 1], not {x.dtype}")
    if x.shape[2] < MIN_FRAMES:
        raise TooShort(f"I3D needs at least {MIN_FRAMES} frames, not {x.shape[2]}")


class I3D(nn.Module):
    """I3D for RGB clips: (B, 3, T, 224, 224) in [-1, 1], T >= 9, to (B, 400) Kinetics logits (before any softmax).

    Submodules carry the names of the original variables; `Unit` holds convolutions with the normalisation folded in.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        channels = 192
        for name, widths in BLOCKS.items():
            self.add_module(name, Inception(channels, widths))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.Logits = nn.ModuleDict({"Conv3d_0c_1x1": nn.Conv3d(channels, CLASSES, 1)})

    def _blocks(self, x: torch.Tensor, stage: str) -> torch.Tensor:
        for name in BLOCKS:
            if name.startswith(f"Mixed_{stage}"):
                x = self.get_submodule(name)(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, 400), the mean over the time steps that remain.

        Raises:
            InputError: another shape or an integer tensor.
            TooShort: T < 9.
        """
        _check(x)
        with _full_float32():
            return self._logits(x)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        x = self.Conv3d_1a_7x7(x.contiguous(memory_format=torch.channels_last_3d))
        x = self.Conv3d_2b_1x1(max_pool(x, (1, 3, 3), (1, 2, 2)))
        x = max_pool(self.Conv3d_2c_3x3(x), (1, 3, 3), (1, 2, 2))
        x = max_pool(self._blocks(x, "3"), (3, 3, 3), (2, 2, 2))
        x = max_pool(self._blocks(x, "4"), (2, 2, 2), (2, 2, 2))
        x = F.avg_pool3d(self._blocks(x, "5"), (2, 7, 7), stride=1)
        return self.Logits["Conv3d_0c_1x1"](x).mean(dim=(2, 3, 4))

    @torch.inference_mode()
    def window_logits(self, windows: np.ndarray | torch.Tensor, *, batch: int | None = None) -> np.ndarray:
        """Logits of many windows, `batch` at a time, on the device that holds the network.

        Args:
            windows: (B, 3, T, 224, 224) in [-1, 1].
            batch: windows in one forward. By default 1 on CPU, where more only leaves the cache sooner, and 8 on CUDA.

        Returns:
            float32 (B, 400).
        """
        device = self.Conv3d_1a_7x7.weight.device
        parts = torch.as_tensor(windows).split(batch or (1 if device.type == "cpu" else 8))
        return torch.cat([self(part.to(device, torch.float32)).cpu() for part in parts]).numpy()


def _full_float32() -> AbstractContextManager[None]:
    """cuDNN without TF32, whose 10-bit mantissa moves the logits in the third digit. No effect on CPU."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def prepare_frames(frames: np.ndarray) -> torch.Tensor:
    """Frames as FVD implementations give them to the network: shorter side to 224 by bilinear interpolation without
    antialiasing (longer side rounded up), centre crop, [0, 255] to [-1, 1].

    Args:
        frames: uint8 (N, H, W, 3) RGB.

    Returns:
        float32 (N, 3, 224, 224).

    Raises:
        InputError: another type or shape.
    """
    return (centre_224(frames, antialias=False) * 2 - 1).contiguous()


def _unit_state(flax: dict[str, torch.Tensor], path: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of one unit with (x - mean) / sqrt(var + eps) + bias folded in; pops what it uses."""
    kernel = flax.pop(f"params/{path}/Conv_0/kernel").double()
    shift = flax.pop(f"params/{path}/BatchNorm_0/bias").double()
    mean = flax.pop(f"batch_stats/{path}/BatchNorm_0/mean").double().flatten()
    deviation = (flax.pop(f"batch_stats/{path}/BatchNorm_0/var").double().flatten() + BN_EPS).sqrt()
    if not kernel.shape[-1:] == shift.shape == mean.shape == deviation.shape:
        raise WeightsError(f"{WEIGHTS}: variables of {path} do not fit together")
    return (kernel / deviation).permute(4, 3, 0, 1, 2).float(), (shift - mean / deviation).float()


def folded_state(flax: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The Flax variables of the Kinetics-400 checkpoint as a state dict of `I3D`.

    Args:
        flax: "params/<layer>/Conv_0/kernel" (kt, kh, kw, in, out) and so on, every name of the checkpoint.

    Raises:
        WeightsError: a variable is missing or left over, or shapes of one layer differ.
    """
    left, state = dict(flax), {}
    logits = "Logits/Conv3d_0c_1x1"
    with torch.device("meta"):
        units = [name for name, module in I3D().named_modules() if isinstance(module, Unit)]
    try:
        for unit in units:
            weight, bias = _unit_state(left, unit.replace(".", "/"))
            state |= {f"{unit}.weight": weight, f"{unit}.bias": bias}
        state["Logits.Conv3d_0c_1x1.weight"] = left.pop(f"params/{logits}/Conv_0/kernel").permute(4, 3, 0, 1, 2)
        state["Logits.Conv3d_0c_1x1.bias"] = left.pop(f"params/{logits}/Conv_0/bias")
    except KeyError as error:
        raise WeightsError(f"{WEIGHTS}: no variable {error}") from error
    if left:
        raise WeightsError(f"{WEIGHTS}: unused variables: {', '.join(sorted(left)[:3])}")
    return state


def load_i3d(store: AssetStore | None = None) -> I3D:
    """The Kinetics-400 network in eval mode on the CPU, its parameters frozen.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt: not in the store, or another file under that name.
        WeightsError: the file's variables are not exactly those of the network.
    """
    path = (store or weights_store()).converted(WEIGHTS)
    return load_strict(I3D(), folded_state(load_file(path)), source=WEIGHTS)

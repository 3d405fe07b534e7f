"""Inception v3 as the FID uses it: the network of 2015-12-05, 2048 pooled features and 1008 logits.

Architecture: C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016. The FID (M.
Heusel et al., 2017) fixes one trained graph of TensorFlow's; names of parameters follow its PyTorch port
`pt_inception-2015-12-05-6726825d.pth` (github.com/mseitzer/pytorch-fid), which loads strictly. That graph differs from
the usual Inception v3: average pools leave the padding out of the mean, the last block pools by maximum, and there are
1008 classes. Neither the weights nor the pools of the usual one give a FID.

The number also depends on how a picture gets to 299 x 299, so the way has a name and belongs to the metric's variant:

- "pytorch-fid": bilinear without antialiasing, pixel centres at half (what pytorch-fid does), then 2 x / 255 - 1;
- "clean-fid": Pillow's antialiased bicubic in float, clipped to [0, 255] and not rounded, then (x - 128) / 128 (G.
  Parmar et al., "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", CVPR 2022).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from ..core.errors import InputError
from ..core.weights import weights_store
from .checkpoints import read_state_dict
from .loading import fold_norms

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.asset_store import AssetStore

WEIGHTS = "inception-2015-12-05"
FEATURES = 2048
CLASSES = 1008
SIZE = 299
# Pictures in one pass on CPU. More leave the cache and gain nothing.
AT_ONCE_CPU = 4

Resize = Literal["pytorch-fid", "clean-fid"]
Pair = int | tuple[int, int]


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Pair, stride: int = 1, padding: Pair = 0) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        norm = nn.BatchNorm2d(outputs, eps=1e-3)
        super().__init__(OrderedDict(conv=conv, bn=norm, relu=nn.ReLU(inplace=True)))


def row(inputs: int, outputs: int) -> ConvNorm:
    """1 x 7, the height and width kept."""
    return ConvNorm(inputs, outputs, (1, 7), padding=(0, 3))


def column(inputs: int, outputs: int) -> ConvNorm:
    """7 x 1, the height and width kept."""
    return ConvNorm(inputs, outputs, (7, 1), padding=(3, 0))


def average(x: torch.Tensor) -> torch.Tensor:
    """Mean over 3 x 3 of what lies within the picture."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class InceptionA(nn.Module):
    """At 35 x 35: 1 x 1, 5 x 5, twice 3 x 3, and an average pool of `pooled` channels."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(inputs, 64, 1)
        self.branch5x5_1 = ConvNorm(inputs, 48, 1)
        self.branch5x5_2 = ConvNorm(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvNorm(inputs, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, padding=1)
        self.branch_pool = ConvNorm(inputs, pooled, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(average(x))], dim=1)


class InceptionB(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNorm(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvNorm(inputs, 64, 1)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, stride=2)], dim=1)


class InceptionC(nn.Module):
    """At 17 x 17: 7 x 7 written as rows and columns of `width` channels."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(inputs, 192, 1)
        self.branch7x7_1 = ConvNorm(inputs, width, 1)
        self.branch7x7_2 = row(width, width)
        self.branch7x7_3 = column(width, 192)
        self.branch7x7dbl_1 = ConvNorm(inputs, width, 1)
        self.branch7x7dbl_2 = column(width, width)
        self.branch7x7dbl_3 = row(width, width)
        self.branch7x7dbl_4 = column(width, width)
        self.branch7x7dbl_5 = row(width, 192)
        self.branch_pool = ConvNorm(inputs, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(average(x))], dim=1)


class InceptionD(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNorm(inputs, 192, 1)
        self.branch3x3_2 = ConvNorm(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvNorm(inputs, 192, 1)
        self.branch7x7x3_2 = row(192, 192)
        self.branch7x7x3_3 = column(192, 192)
        self.branch7x7x3_4 = ConvNorm(192, 192, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        three = self.branch3x3_2(self.branch3x3_1(x))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, stride=2)], dim=1)


class InceptionE(nn.Module):
    """At 8 x 8: branches that end in a 1 x 3 beside a 3 x 1; the last of the two blocks pools by maximum."""

    def __init__(self, inputs: int, *, by_maximum: bool) -> None:
        super().__init__()
        self.by_maximum = by_maximum
        self.branch1x1 = ConvNorm(inputs, 320, 1)
        self.branch3x3_1 = ConvNorm(inputs, 384, 1)
        self.branch3x3_2a = ConvNorm(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = ConvNorm(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = ConvNorm(inputs, 448, 1)
        self.branch3x3dbl_2 = ConvNorm(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = ConvNorm(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = ConvNorm(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = ConvNorm(inputs, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.by_maximum else average(x)
        branches = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
        branches += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(pooled)]
        return torch.cat(branches, dim=1)


class FIDInception(nn.Module):
    """Pictures (B, 3, H, W), uint8 or floats in [0, 1], RGB, to (B, 2048) features after the last average pool.

    Args:
        resize: how a picture gets to 299 x 299; see above.
    """

    def __init__(self, resize: Resize = "pytorch-fid") -> None:
        super().__init__()
        if resize not in get_args(Resize):
            raise InputError(f"unknown resize '{resize}'", hint=f"known: {', '.join(get_args(Resize))}")
        self.resize: Resize = resize
        self.Conv2d_1a_3x3 = ConvNorm(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = InceptionA(192, 32), InceptionA(256, 64), InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b, self.Mixed_6c = InceptionC(768, 128), InceptionC(768, 160)
        self.Mixed_6d, self.Mixed_6e = InceptionC(768, 160), InceptionC(768, 192)
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280, by_maximum=False)
        self.Mixed_7c = InceptionE(FEATURES, by_maximum=True)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pooled features (B, 2048).

        Raises:
            InputError: another shape, or integers that are not uint8.
        """
        _check(x)
        parts = x.split(AT_ONCE_CPU if x.device.type == "cpu" else max(len(x), 1))
        return torch.cat([self._features(RESIZE[self.resize](part).to(self.fc.weight.dtype)) for part in parts])

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, 1008), classes in the order of the 2015 graph; arguments as for `forward`."""
        return self.fc(self(x))

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.Conv2d_1a_3x3(x.contiguous(memory_format=torch.channels_last))
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(x)), 3, stride=2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)
        for name, block in self.named_children():
            if name.startswith("Mixed_"):
                x = block(x)
        return x.mean(dim=(2, 3))


def _check(x: torch.Tensor) -> None:
    if x.ndim != 4 or x.shape[1] != 3 or 0 in x.shape[2:]:
        raise InputError(f"Inception takes pictures (B, 3, H, W), not {tuple(x.shape)}")
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise InputError(f"Inception takes uint8 or floats in [0, 1], not {x.dtype}")


def resize_pytorch_fid(x: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W), uint8 or floats in [0, 1], to (B, 3, 299, 299) in [-1, 1], as pytorch-fid does it."""
    x = x / 255 if x.dtype == torch.uint8 else x
    return 2 * F.interpolate(x, size=(SIZE, SIZE), mode="bilinear", align_corners=False) - 1


def resize_clean_fid(x: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W), uint8 or floats in [0, 1], to float32 (B, 3, 299, 299) in [-1, 1), as clean-fid does it."""
    levels = (x if x.dtype == torch.uint8 else x * 255).cpu().numpy().astype(np.float32)
    resized = [[_bicubic(channel) for channel in picture] for picture in levels]
    y = torch.from_numpy(np.array(resized, dtype=np.float32).reshape(-1, 3, SIZE, SIZE)).to(x.device)
    return (y - 128) / 128


def _bicubic(channel: np.ndarray) -> np.ndarray:
    """One float32 channel (H, W) to (299, 299) in [0, 255]."""
    resized = Image.fromarray(channel).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(resized).clip(0, 255)


RESIZE = {"pytorch-fid": resize_pytorch_fid, "clean-fid": resize_clean_fid}


def read_fid_inception(path: Path, *, resize: Resize = "pytorch-fid") -> FIDInception:
    """The network of one state dict in the port's layout, as it stands.

    Raises:
        InputError: unknown resize.
        WeightsError: no state dict, or its names or shapes are not exactly those of the network.
    """
    return read_state_dict(FIDInception(resize), path, source=WEIGHTS)


def load_fid_inception(store: AssetStore | None = None, *, resize: Resize = "pytorch-fid") -> FIDInception:
    """The FID's network in eval mode on the CPU, frozen, its normalisations folded into the convolutions.

    Args:
        store: where the weights are; the user's store by default.
        resize: how a picture gets to 299 x 299.

    Raises:
        WeightsMissing, WeightsCorrupt: not in the store, or another file under that name.
        InputError, WeightsError: see `read_fid_inception`.
    """
    return fold_norms(read_fid_inception((store or weights_store()).path(WEIGHTS), resize=resize))

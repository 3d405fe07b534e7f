"""SyncNet v2: 0.2 s of sound and 5 frames of a face to vectors whose distance says how well the two fit in time.

J. S. Chung and A. Zisserman, "Out of time: automated lip sync in the wild", ACCV Workshops 2016. Layers and names of
parameters follow network `S` of the authors' code (github.com/joonson/syncnet_python), whose `syncnet_v2.model` loads
strictly. Scores from the vectors: `metrics.lse`; the sound's features: `models.mfcc`.

Pictures are BGR with levels 0 to 255 as they are, because the authors trained on what OpenCV reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..core.errors import InputError, TooShort
from ..core.weights import weights_store
from .checkpoints import read_state_dict
from .loading import fold_norms
from .mfcc import CEPSTRA, STEPS

if TYPE_CHECKING:
    from pathlib import Path

    from ..core.asset_store import AssetStore

WEIGHTS = "syncnet-v2"
FEATURES = 1024
SIZE = 224
# Frames in one look, 0.2 s.
FRAMES = 5
# Windows in one pass on CPU. More leave the cache and gain nothing.
AT_ONCE_CPU = 4


def sound_step(inputs: int, outputs: int) -> list[nn.Module]:
    """3 x 3 over bands and time, the size kept; batch normalisation, ReLU."""
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def lip_step(inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, frames: int = 1) -> list:
    """k x k over the picture and `frames` over time, batch normalisation, ReLU."""
    size, by, edge = (frames, kernel, kernel), (1, stride, stride), (0, padding, padding)
    return [nn.Conv3d(inputs, outputs, size, by, edge), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]


def lip_pool(padding: int = 0) -> nn.MaxPool3d:
    """Maximum over 3 x 3 of each frame, every second."""
    return nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, padding, padding))


def head() -> nn.Sequential:
    """512 to the common space."""
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, FEATURES))


class SyncNet(nn.Module):
    """The network as published; `forward_aud` for sound, `forward_lip` for pictures, both to (B, 1024)."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *sound_step(1, 64),
            nn.MaxPool2d(1, 1),
            *sound_step(64, 192),
            nn.MaxPool2d(3, (1, 2)),
            *sound_step(192, 384),
            *sound_step(384, 256),
            *sound_step(256, 256),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(256, 512, (5, 4)),
            nn.BatchNorm2d(512),
            nn.ReLU(),
        )
        self.netfcaud, self.netfclip = head(), head()
        self.netcnnlip = nn.Sequential(
            *lip_step(3, 96, 7, stride=2, frames=FRAMES),
            lip_pool(),
            *lip_step(96, 256, 5, stride=2, padding=1),
            lip_pool(padding=1),
            *lip_step(256, 256, 3, padding=1),
            *lip_step(256, 256, 3, padding=1),
            *lip_step(256, 256, 3, padding=1),
            lip_pool(),
            *lip_step(256, 512, 6),
        )

    def forward_aud(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, 13, 20) windows of MFCC (see `mfcc.mfcc_windows`) to (B, 1024).

        Raises:
            InputError: another shape or an integer tensor.
        """
        _check(x, (1, CEPSTRA, STEPS), "sound")
        return self.netfcaud(self.netcnnaud(x).flatten(1))

    def forward_lip(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, 5, 224, 224) BGR floats in [0, 255] (see `lip_windows`) to (B, 1024).

        Raises:
            InputError: another shape or an integer tensor.
        """
        _check(x, (3, FRAMES, SIZE, SIZE), "pictures")
        return self.netfclip(self.netcnnlip(x).flatten(1))

    def forward(self, pictures: torch.Tensor, sound: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of the pictures and of the sound; see `forward_lip` and `forward_aud`."""
        return self.forward_lip(pictures), self.forward_aud(sound)


def _check(x: torch.Tensor, shape: tuple[int, ...], name: str) -> None:
    if tuple(x.shape[1:]) != shape or not x.is_floating_point():
        wanted = ", ".join(map(str, shape))
        raise InputError(f"SyncNet takes {name} as floats (B, {wanted}), not {x.dtype} {tuple(x.shape)}")


class FoldedSyncNet(SyncNet):
    """The same function with less work: normalisations folded in, the lip branch in two dimensions, channels last.

    The first lip layer spans all 5 frames, so its 3-D kernel is a 2-D kernel over 15 channels; time has gone after it.
    Equal to `SyncNet` up to float32 rounding. Its state dict is another: fold after loading.
    """

    def __init__(self, network: SyncNet) -> None:
        super().__init__()
        self.to(next(network.parameters()).dtype).load_state_dict(network.state_dict())
        fold_norms(self.eval().requires_grad_(False))
        self.netcnnlip = nn.Sequential(*(_flat(layer) for layer in self.netcnnlip))

    def forward_lip(self, x: torch.Tensor) -> torch.Tensor:
        """See `SyncNet.forward_lip`; on CPU a few windows at a time."""
        _check(x, (3, FRAMES, SIZE, SIZE), "pictures")
        parts = x.split(AT_ONCE_CPU if x.device.type == "cpu" else max(len(x), 1))
        return torch.cat([self.netfclip(self._pictures(part).flatten(1)) for part in parts])

    def _pictures(self, x: torch.Tensor) -> torch.Tensor:
        return self.netcnnlip(x.flatten(1, 2).contiguous(memory_format=torch.channels_last))


def _flat(layer: nn.Module) -> nn.Module:
    """The layer for (B, C * T, H, W) of one that works on (B, C, T, H, W) and takes all T frames at once."""
    if isinstance(layer, nn.MaxPool3d):
        return nn.MaxPool2d(_plane(layer.kernel_size), _plane(layer.stride), _plane(layer.padding))
    if not isinstance(layer, nn.Conv3d):
        return layer
    weight = layer.weight.detach().flatten(1, 2)
    outputs, inputs, height, width = weight.shape
    conv = nn.Conv2d(inputs, outputs, (height, width), _plane(layer.stride), _plane(layer.padding))
    conv.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
    conv.bias = layer.bias
    return conv


def _plane(size: Any) -> tuple[int, int]:
    """Height and width of (time, height, width)."""
    _, height, width = size
    return height, width


def lip_windows(frames: np.ndarray) -> torch.Tensor:
    """All looks of 5 frames, one a frame, as a view on one float copy of the frames.

    The published chain scores N - 5 looks of N frames; the last of these N - 4 is then left out.

    Args:
        frames: uint8 (N, 224, 224, 3) RGB face crops at 25 fps.

    Returns:
        float32 (N - 4, 3, 5, 224, 224) BGR in [0, 255]. Materialise it a few looks at a time.

    Raises:
        InputError: another type or shape.
        TooShort: fewer than 5 frames.
    """
    if frames.dtype != np.uint8 or frames.shape[1:] != (SIZE, SIZE, 3):
        raise InputError(f"face crops are uint8 (N, {SIZE}, {SIZE}, 3), not {frames.dtype} {frames.shape}")
    if len(frames) < FRAMES:
        raise TooShort(f"SyncNet looks at {FRAMES} frames at once; there are {len(frames)}")
    pictures = torch.from_numpy(np.ascontiguousarray(frames[..., ::-1])).permute(0, 3, 1, 2).float()
    return pictures.unfold(0, FRAMES, 1).permute(0, 1, 4, 2, 3)


def read_syncnet(path: Path) -> SyncNet:
    """The network of one state dict in the authors' layout, as it stands.

    Raises:
        WeightsError: no state dict, or its names or shapes are not exactly those of the network.
    """
    return read_state_dict(SyncNet(), path, source=WEIGHTS)


def load_syncnet(store: AssetStore | None = None) -> FoldedSyncNet:
    """SyncNet v2 in eval mode on the CPU, frozen, in its fast form.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt: not in the store, or another file under that name.
        WeightsError: the file's names or shapes are not exactly those of the network.
    """
    return FoldedSyncNet(read_syncnet((store or weights_store()).path(WEIGHTS)))

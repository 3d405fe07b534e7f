"""S3FD, the face detector of SyncNet's pipeline: VGG-16 with boxes of one size at each of six strides.

S. Zhang et al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017. Names of parameters are those of the
file `sfd_face.pth` of SyncNet's authors, which loads strictly. At each place of the six maps there is one prior square,
four times as large as the map's stride; the network says how the face's box differs from it (centres by 0.1 of its
size, logarithms of sizes by 0.2) and how probable a face is. On the finest map the background is the largest of three
background scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..core.errors import InputError
from ..core.weights import weights_store
from .checkpoints import read_state_dict

if TYPE_CHECKING:
    from ..core.asset_store import AssetStore

WEIGHTS = "s3fd-syncnet"
STRIDES = (4, 8, 16, 32, 64, 128)
PRIOR = 4  # side of a prior square in strides
VARIANCES = (0.1, 0.2)  # of centres and of logarithms of sizes
MEAN_RGB = (123.0, 117.0, 104.0)
# Overlaps of the two rounds of suppression, most boxes of the first.
FIRST_OVERLAP, SECOND_OVERLAP, MOST = 0.3, 0.1, 750
MOST_CANDIDATES = 5000
LEAST_SIDE = 32  # pixels; below it the coarsest maps are empty


class ScaledNorm(nn.Module):
    """Each place's vector brought to length one, then scaled channel by channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same."""
        return x / (x.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-10) * self.weight[:, None, None]


def _vgg() -> nn.ModuleList:
    """VGG-16 up to conv5_3, then its first two dense layers as convolutions."""
    layers: list[nn.Module] = []
    inputs = 3
    for step, (outputs, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        for _ in range(depth):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = outputs
        layers.append(nn.MaxPool2d(2, 2, ceil_mode=step == 2))
    layers += [nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(1024, 1024, 1), nn.ReLU(inplace=True)]
    return nn.ModuleList(layers)


class S3FD(nn.Module):
    """The network as published."""

    def __init__(self) -> None:
        super().__init__()
        self.vgg = _vgg()
        self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3 = ScaledNorm(256), ScaledNorm(512), ScaledNorm(512)
        self.extras = nn.ModuleList(
            [
                nn.Conv2d(1024, 256, 1),
                nn.Conv2d(256, 512, 3, stride=2, padding=1),
                nn.Conv2d(512, 128, 1),
                nn.Conv2d(128, 256, 3, stride=2, padding=1),
            ]
        )
        widths = (256, 512, 512, 1024, 512, 256)
        self.loc = nn.ModuleList(nn.Conv2d(width, 4, 3, padding=1) for width in widths)
        self.conf = nn.ModuleList(nn.Conv2d(width, 2 if k else 4, 3, padding=1) for k, width in enumerate(widths))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes and probabilities at every place of every map.

        Args:
            x: (B, 3, H, W) RGB levels less `MEAN_RGB`, see `prepare`; sides of at least 32 pixels.

        Returns:
            (B, P, 4) left, top, right, bottom as fractions of the picture, and (B, P) probabilities of a face.

        Raises:
            InputError: another shape.
        """
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < LEAST_SIDE:
            raise InputError(f"S3FD takes (B, 3, H, W) of at least {LEAST_SIDE} pixels a side, not {tuple(x.shape)}")
        boxes, faces = [], []
        for k, features in enumerate(self._maps(x)):
            scores = self.conf[k](features)
            if k == 0:
                scores = torch.cat([scores[:, :3].amax(dim=1, keepdim=True), scores[:, 3:]], dim=1)
            faces.append(scores.softmax(dim=1)[:, 1].flatten(1))
            offsets = self.loc[k](features).permute(0, 2, 3, 1).flatten(1, 2)
            boxes.append(_decoded(offsets, _priors(features, STRIDES[k], x)))
        return torch.cat(boxes, dim=1), torch.cat(faces, dim=1)

    def _maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The six maps that faces are looked for on, finest first."""
        maps: list[torch.Tensor] = []
        norms = {15: self.L2Norm3_3, 22: self.L2Norm4_3, 29: self.L2Norm5_3}
        for k, layer in enumerate(self.vgg):
            x = layer(x)
            if k in norms:
                maps.append(norms[k](x))
        maps.append(x)
        for k, layer in enumerate(self.extras):
            x = functional.relu(layer(x))
            if k % 2:
                maps.append(x)
        return maps


def _priors(features: torch.Tensor, stride: int, picture: torch.Tensor) -> torch.Tensor:
    """(P, 4) centre x, centre y, width, height of a map's prior squares as fractions of the picture, by rows."""
    (rows, columns), (height, width) = features.shape[2:], picture.shape[2:]
    y = (torch.arange(rows, device=features.device) + 0.5) * (stride / height)
    x = (torch.arange(columns, device=features.device) + 0.5) * (stride / width)
    priors = torch.empty(rows, columns, 4, device=features.device)
    priors[..., 0], priors[..., 1] = x[None, :], y[:, None]
    priors[..., 2], priors[..., 3] = PRIOR * stride / width, PRIOR * stride / height
    return priors.flatten(0, 1)


def _decoded(offsets: torch.Tensor, priors: torch.Tensor) -> torch.Tensor:
    """Corners of boxes (..., 4) that differ from their priors (..., 4) by the network's numbers."""
    middle = priors[..., :2] + offsets[..., :2] * VARIANCES[0] * priors[..., 2:]
    size = priors[..., 2:] * torch.exp(offsets[..., 2:] * VARIANCES[1])
    low = middle - size / 2
    return torch.cat([low, low + size], dim=-1)


def suppress(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> np.ndarray:
    """Indices of the boxes (N, 4) to keep, best first: none overlaps a better kept one by more than `overlap` (IoU)."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        order = order[shared / (area[best] + area[order] - shared) <= overlap]
    return np.array(kept, dtype=int)


def prepare(picture: np.ndarray) -> torch.Tensor:
    """uint8 (H, W, 3) RGB to what the network takes, float32 (1, 3, H, W)."""
    levels = picture.astype(np.float32) - np.array(MEAN_RGB, np.float32)
    return torch.from_numpy(np.ascontiguousarray(levels.transpose(2, 0, 1)))[None]


def detect(network: S3FD, picture: np.ndarray, threshold: float) -> np.ndarray:
    """Faces in one picture.

    Args:
        network: in eval mode.
        picture: uint8 (H, W, 3) RGB, at the scale at which to look.
        threshold: least probability, above 0.05.

    Returns:
        float64 (N, 5): left, top, right, bottom as fractions of the picture, probability; best first.
    """
    device = next(network.parameters()).device
    with torch.inference_mode():
        boxes, faces = (one[0].float().cpu().numpy() for one in network(prepare(picture).to(device)))
    # Suppression goes from the best down, so what is below the threshold suppresses nothing above it.
    found = np.flatnonzero(faces > threshold)
    found = found[np.argsort(-faces[found], kind="stable")][:MOST_CANDIDATES]
    found = found[suppress(boxes[found], faces[found], FIRST_OVERLAP)[:MOST]]
    found = found[suppress(boxes[found], faces[found], SECOND_OVERLAP)]
    return np.column_stack([boxes[found], faces[found]]).astype(np.float64)


def load_s3fd(store: AssetStore | None = None) -> S3FD:
    """S3FD as SyncNet's authors publish it, in eval mode on the CPU, frozen.

    Args:
        store: where the weights are; the user's store by default.

    Raises:
        WeightsMissing, WeightsCorrupt: not in the store, or another file under that name.
        WeightsError: the file's names or shapes are not exactly those of the network.
    """
    return read_state_dict(S3FD(), (store or weights_store()).path(WEIGHTS), source=WEIGHTS)

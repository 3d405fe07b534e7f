"""Extractors of the FID network's 2048 pooled features, for every frame with a picture.

The number depends on how a picture gets to 299 x 299 and onto the network's scale, so each chain has its own name:

- `inception-2015`: as the original (M. Heusel et al. 2017), whose graph of 2015-12-05 begins with TensorFlow 1's
  bilinear resize: no antialiasing, and pixel i of the result lies at i (size / 299) of the source, without the half
  pixel that puts centres upon centres; then (x - 128) / 128;
- `inception-2015-pytorch-fid`: as pytorch-fid, `F.interpolate(mode="bilinear", align_corners=False)`: no antialiasing,
  pixel centres at half; then x / 127.5 - 1. Most published FIDs of talking heads were made this way;
- `inception-2015-clean`: as clean-fid (G. Parmar et al. 2022), Pillow's antialiased bicubic in float, not rounded; then
  (x - 128) / 128.

Features are stored as float16: 1 MB for 10 s in place of 2. Rounding is relative (2^-11 at most) and differs from
number to number, so it averages out: between two samples of 1500 non-negative rows of 2048 the Fréchet distance, about
400, moved by 0.001, and the kernel distance, 0.053, by 3e-7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from .extractor import ExtractorSpec, series, vectors
from .frame_network import FrameNetwork

WIDTH = 2048
SIZE = 299  # pixels, side of the network's input
PICTURES_PER_FORWARD = 8
NETWORK = "talkforge.models.inception:load_fid_inception"
CLEAN_NETWORK = "talkforge.tasks.extract_inception:load_clean_inception"


def _declare(chain: str, name: str, how: str) -> ExtractorSpec:
    return ExtractorSpec(
        id=f"inception-2015{chain}",
        version=1,
        target=f"talkforge.tasks.extract_inception:{name}",
        columns={"features": vectors(WIDTH, pa.float16()), "frame": series(pa.int32()), "n_frames": pa.int32()},
        what=f"Pooled features of the FID's Inception for every frame, {how}",
        picture=True,
        weights=("inception-2015-12-05",),
        params={"frames": "all", "resize": how},
    )


ORIGINAL = _declare("", "OriginalFeatures", "resized by TensorFlow 1's bilinear rule")
PYTORCH_FID = _declare("-pytorch-fid", "PytorchFidFeatures", "resized as pytorch-fid does")
CLEAN = _declare("-clean", "CleanFeatures", "resized as clean-fid does")
EXTRACTORS = (ORIGINAL, PYTORCH_FID, CLEAN)


def load_clean_inception() -> Any:
    """The network that resizes as clean-fid does."""
    from ..models.inception import load_fid_inception

    return load_fid_inception(resize="clean-fid")


def resize_tf1(pictures: np.ndarray) -> np.ndarray:
    """Bilinear resize as TensorFlow 1's `resize_bilinear` with its defaults (no half pixel, corners not aligned).

    Args:
        pictures: (B, H, W, 3).

    Returns:
        float32 (B, 299, 299, 3) in the pictures' own units, not rounded.
    """
    x = pictures.astype(np.float32)
    (top, bottom, down), (left, right, across) = (_places(size) for size in x.shape[1:3])
    # Along the rows first, and every step in float32, as TensorFlow does it.
    x = x[:, :, left] + (x[:, :, right] - x[:, :, left]) * across[:, None]
    return x[:, top] + (x[:, bottom] - x[:, top]) * down[:, None, None]


def _places(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pixel of the result the two source pixels that it lies between, and how far past the first, (299,)."""
    at = np.arange(SIZE, dtype=np.float32) * np.float32(size / SIZE)
    low = np.floor(at).astype(np.int64)
    return low, np.minimum(low + 1, size - 1), at - low.astype(np.float32)


def original_input(pictures: np.ndarray) -> np.ndarray:
    """uint8 (B, H, W, 3) as float32 (B, 3, 299, 299), which the network doubles and lowers by 1: (x - 128) / 128.

    Of that size it resizes nothing. Halving and doubling lose no digit, so it is the original's scale exactly.
    """
    return np.ascontiguousarray((resize_tf1(pictures) / 256).transpose(0, 3, 1, 2))


def as_they_are(pictures: np.ndarray) -> np.ndarray:
    """uint8 (B, H, W, 3) as uint8 (B, 3, H, W), for a network that resizes by itself."""
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))


class OriginalFeatures(FrameNetwork):
    """Features of one clip's frames by the original chain; the other chains differ in the two attributes."""

    network: ClassVar[str] = NETWORK
    prepare: ClassVar[Callable[[np.ndarray], np.ndarray]] = staticmethod(original_input)

    at_once = PICTURES_PER_FORWARD
    counted_as = "inception-2015"

    def forward(self, pictures: np.ndarray) -> np.ndarray:
        """float16 (B, 2048)."""
        import torch

        network = self.context.network(self.network)
        with torch.inference_mode():
            features = network(torch.from_numpy(type(self).prepare(pictures)).to(self.context.device))
        return features.float().cpu().numpy().astype(np.float16)


class PytorchFidFeatures(OriginalFeatures):
    """By pytorch-fid's chain."""

    prepare = staticmethod(as_they_are)


class CleanFeatures(OriginalFeatures):
    """By clean-fid's chain."""

    network = CLEAN_NETWORK
    prepare = staticmethod(as_they_are)

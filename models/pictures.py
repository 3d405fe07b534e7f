"""Pictures cut to what networks for 224 x 224 pixels take."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from ..core.errors import InputError

SIZE = 224


def centre_224(pictures: np.ndarray, *, antialias: bool) -> torch.Tensor:
    """Shorter side to 224 by bilinear interpolation (longer side rounded up), centre crop, values to [0, 1].

    Args:
        pictures: uint8 (N, H, W, 3) RGB.
        antialias: widen the filter when shrinking; whether to is part of a metric's definition.

    Returns:
        float32 (N, 3, 224, 224).

    Raises:
        InputError: another type or shape.
    """
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3 or 0 in pictures.shape:
        raise InputError(f"pictures are uint8 (N, H, W, 3), not {pictures.dtype} {pictures.shape}")
    height, width = pictures.shape[1:3]
    shorter = min(height, width)
    # In whole numbers: the ceiling of a float product would make some squares 225 wide.
    size = (-(-height * SIZE // shorter), -(-width * SIZE // shorter))
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    x = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=antialias)
    top, left = (size[0] - SIZE) // 2, (size[1] - SIZE) // 2
    return x[:, :, top : top + SIZE, left : left + SIZE]

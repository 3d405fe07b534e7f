"""The region masks of Hallo's three branches, from a clip's face and lip boxes.

Boxes, over all frames of a clip, are grown about their centres, drawn white, brought to 64 x 64, blurred, and stretched
to 0..1 (Hallo's code):

    F = blur_51(face box x 1.2)     L = blur_31(lip box x 2)

    pose = 1 - F        face = max(F - L, 0)        lip = L

The kernels are Gaussians with OpenCV's sigma for their width k, 0.3 ((k - 1) / 2 - 1) + 0.8, and mirrored borders.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ...core.errors import InputError
from .config import FaceConfig

Box = tuple[float, float, float, float]


def grown(box: Box, scale: float, height: int, width: int) -> tuple[int, int, int, int]:
    """A box x0, y0, x1, y1 grown about its centre; what leaves the picture on one side is added on the other.

    Raises:
        InputError: it covers nothing of the picture.
    """
    x0, x1 = _grown(box[0], box[2], scale, width)
    y0, y1 = _grown(box[1], box[3], scale, height)
    if x0 >= x1 or y0 >= y1:
        raise InputError(f"box {box} covers nothing of a {width} x {height} picture")
    return x0, y0, x1, y1


def _grown(low: float, high: float, scale: float, most: int) -> tuple[int, int]:
    centre, half = (low + high) / 2, (high - low) * scale / 2
    low, high = centre - half, centre + half
    if low < 0:
        high -= low
    if high > most:
        low -= high - most
    return max(0, round(low)), min(most, round(high))


def gaussian_kernel(width: int) -> torch.Tensor:
    """(width,), summing to 1, with the sigma that OpenCV takes for this width."""
    sigma = 0.3 * ((width - 1) / 2 - 1) + 0.8
    place = torch.arange(width) - (width - 1) / 2
    weights = torch.exp(-(place**2) / (2 * sigma**2))
    return weights / weights.sum()


def blurred(mask: torch.Tensor, width: int) -> torch.Tensor:
    """A mask (h, w) after a separable Gaussian blur, stretched to 0..1 if it is not flat."""
    kernel, half = gaussian_kernel(width).to(mask), width // 2
    padded = F.pad(mask[None, None], (half, half, half, half), mode="reflect")
    rows = F.conv2d(padded, kernel.reshape(1, 1, 1, -1))
    found = F.conv2d(rows, kernel.reshape(1, 1, -1, 1))[0, 0]
    low, high = found.min(), found.max()
    return (found - low) / (high - low) if high > low else found


def region_masks(face: Box, lip: Box, height: int, width: int, config: FaceConfig) -> torch.Tensor:
    """Masks (3, g, g) of pose, face and lip, in 0..1, g = `mask_grid`.

    Args:
        face, lip: x0, y0, x1, y1 in pixels, around all of a clip's landmarks of the face's outline and of the lips.

    Raises:
        InputError: a box covers nothing of the picture.
    """
    soft = []
    for box, scale, blur in ((face, config.face_scale, config.face_blur), (lip, config.lip_scale, config.lip_blur)):
        x0, y0, x1, y1 = grown(box, scale, height, width)
        white = torch.zeros(height, width)
        white[y0:y1, x0:x1] = 1
        grid = (config.mask_grid, config.mask_grid)
        small = F.interpolate(white[None, None], grid, mode="bilinear", align_corners=False)[0, 0]
        soft.append(blurred(small, blur))
    whole, lips = soft
    return torch.stack([1 - whole, (whole - lips).clamp_min(0), lips])

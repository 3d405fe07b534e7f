"""Videos longer than the network sees at once: clips one after another, chained by motion frames (Hallo).

A video of L frames is made of clips of F frames. The ReferenceNet reads, beside the portrait, the m last frames of the
clip before, and for the first clip the portrait in their place (or zeros). Hallo leaves out what is left of L beyond
whole clips and encodes its decoded frames anew; here the last clip is as short as it has to be, and latents are handed
on as they are (ours).
"""

from __future__ import annotations

import torch

from ...core.errors import InputError
from .config import MotionConfig


def clip_bounds(length: int, frames: int) -> list[tuple[int, int]]:
    """First frame and end of each clip. Raises InputError for a length below 1."""
    if length < 1:
        raise InputError("a video of no frames has no clips")
    return [(start, min(start + frames, length)) for start in range(0, length, frames)]


def first_motion(reference: torch.Tensor, config: MotionConfig) -> torch.Tensor:
    """Motion latents (B, m, 4, h, w) of a video's first clip, from the portrait's latent (B, 4, h, w)."""
    repeated = reference[:, None].expand(-1, config.motion_frames, -1, -1, -1)
    return torch.zeros_like(repeated) if config.first == "zeros" else repeated


def next_motion(motion: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """The last m of what was made until now, (B, m, 4, h, w)."""
    count = motion.shape[1]
    return torch.cat([motion, made], 1)[:, -count:] if count else motion

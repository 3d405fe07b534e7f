"""Arithmetic of a diffusion system, counted on torch's meta device: floating-point operations, two a multiply-add.

Counted are matrix products, convolutions and attention, as `torch.utils.flop_counter` sees them; norms and pointwise
work are not, and take time all the same. So `seconds_at` is a bound at the utilisation that one grants. Networks that
give features from outside (speech, faces, action units, the image encoder) are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

H200_DENSE = 989.5e12  # bfloat16 operations a second without sparsity, NVIDIA's data sheet
UTILISATION = 0.4  # of that peak


@dataclass(frozen=True)
class Cost:
    """Operations of one system, whose videos are made window by window.

    Attributes:
        conditions: by part, what each branch of guidance needs of a window once, before its passes.
        denoise: one pass of the denoiser over one window.
        encode: one picture to its latent, the portrait's once a video. No part of `second`.
        decode: one latent to its picture.
        frames: latents of a window.
        rate: latents a second of video.
        branches: of guidance.
        steps: of sampling.
    """

    conditions: Mapping[str, int]
    denoise: int
    encode: int
    decode: int
    frames: int
    rate: float
    branches: int
    steps: int

    @property
    def passes(self) -> int:
        """Of the denoiser for each window of a video."""
        return self.steps * self.branches

    @property
    def denoise_frame(self) -> float:
        """Operations of one pass for one latent."""
        return self.denoise / self.frames

    @property
    def window(self) -> int:
        """Operations of one window of a video, before its latents are decoded."""
        return self.passes * self.denoise + self.branches * sum(self.conditions.values())

    @property
    def second(self) -> float:
        """Operations of one generated second of a long video, which is whole windows."""
        return self.rate / self.frames * self.window + self.rate * self.decode

    def seconds_at(self, peak: float = H200_DENSE, utilisation: float = UTILISATION) -> float:
        """Seconds that a generated second takes on a machine of `peak` operations a second."""
        return self.second / (peak * utilisation)


def operations(work: Callable[[], Any]) -> int:
    """What the counter sees while `work` runs, without gradients."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()

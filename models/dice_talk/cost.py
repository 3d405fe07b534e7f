"""Arithmetic of DICE-Talk, counted on torch's meta device: floating-point operations, two a multiply-add.

Counted are matrix products, convolutions and attention, as `torch.utils.flop_counter` sees them; norms and pointwise
work are not, and take time all the same. So `seconds_at` is a bound at the utilisation that one grants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..diffusion.guidance import branch_weights
from .denoiser_config import DiceTalkConfig
from .parameters import on_meta

LATENT_RATE = 12.5  # latents a second of video
H200_DENSE = 989.5e12  # bfloat16 operations a second without sparsity, NVIDIA's data sheet


@dataclass(frozen=True)
class Cost:
    """Operations of one system.

    Attributes:
        conditions: tokens of audio and emotion for one window, once a video and branch.
        denoise: one pass of the denoiser over one window.
        decode: one latent to its picture.
        frames: of a window.
        branches: of guidance.
        passes: of the denoiser for each window of a video: steps times branches.
    """

    conditions: int
    denoise: int
    decode: int
    frames: int
    branches: int
    passes: int

    @property
    def denoise_frame(self) -> float:
        """Operations of one pass for one latent."""
        return self.denoise / self.frames

    @property
    def second(self) -> float:
        """Operations of one generated second of video."""
        windows = LATENT_RATE / self.frames
        return windows * (self.passes * self.denoise + self.branches * self.conditions) + LATENT_RATE * self.decode

    def seconds_at(self, peak: float = H200_DENSE, utilisation: float = 0.4) -> float:
        """Seconds that a generated second takes on a machine of `peak` operations a second."""
        return self.second / (peak * utilisation)


def count_cost(config: DiceTalkConfig) -> Cost:
    """Counts one window of `config.windows.frames` latents. Raises MissingPackage without diffusers."""
    model, encoders = on_meta(config)
    for part in (model, encoders):
        part.requires_grad_(False)
    decode: Callable[[torch.Tensor], Any] = encoders.decode  # pyright: ignore[reportAssignmentType]
    given, side, frames = _window(config), config.latent_size, config.windows.frames
    chunk = config.windows.decode_chunk
    latents = torch.zeros(1, frames, config.unet.out_channels, side, side, device="meta")
    conditions = _operations(lambda: model._branch_inputs(given, "full"))
    inputs = model._branch_inputs(given, "full")
    denoise = _operations(lambda: model._predict(latents, torch.ones((), device="meta"), inputs))
    decoded = _operations(lambda: decode(latents[0, :1].expand(chunk, -1, -1, -1)))
    branches = len(branch_weights(config.guidance))
    return Cost(conditions, denoise, decoded // chunk, frames, branches, config.diffusion.steps * branches)


def _window(config: DiceTalkConfig) -> dict[str, torch.Tensor]:
    """Conditions of one window, without memory."""
    audio, frames, side = config.audio, config.windows.frames, config.latent_size
    shapes: dict[str, tuple[int, ...]] = {
        "reference": (1, config.unet.out_channels, side, side),
        "image": (1, config.unet.cross_attention_dim),
        "audio": (1, frames, audio.window, audio.states, audio.state_width),
        "mu": (1, config.bank.prior_width),
        "mask": (1, 1, 1, config.size, config.size),
    }
    return {name: torch.zeros(shape, device="meta") for name, shape in shapes.items()}


def _operations(work: Callable[[], Any]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()

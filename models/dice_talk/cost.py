"""Arithmetic of DICE-Talk, counted on torch's meta device; see `diffusion.cost`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..diffusion.cost import Cost, operations
from ..diffusion.guidance import branch_weights
from .denoiser_config import DiceTalkConfig
from .parameters import on_meta

LATENT_RATE = 12.5  # latents a second of video


def count_cost(config: DiceTalkConfig) -> Cost:
    """Counts one window of `config.windows.frames` latents. Raises MissingPackage without diffusers."""
    model, encoders = on_meta(config)
    for part in (model, encoders):
        part.requires_grad_(False)
    encode: Callable[[torch.Tensor], Any] = encoders.encode  # pyright: ignore[reportAssignmentType]
    decode: Callable[[torch.Tensor], Any] = encoders.decode  # pyright: ignore[reportAssignmentType]
    given, side, frames = _window(config), config.latent_size, config.windows.frames
    chunk = config.windows.decode_chunk
    picture = torch.zeros(1, 3, config.size, config.size, device="meta")
    latents = torch.zeros(1, frames, config.unet.out_channels, side, side, device="meta")
    inputs = model._branch_inputs(given, "full")
    return Cost(
        conditions={"audio and emotion tokens": operations(lambda: model._branch_inputs(given, "full"))},
        denoise=operations(lambda: model._predict(latents, torch.ones((), device="meta"), inputs)),
        encode=operations(lambda: encode(picture)),
        decode=operations(lambda: decode(latents[0, :1].expand(chunk, -1, -1, -1))) // chunk,
        frames=frames,
        rate=LATENT_RATE,
        branches=len(branch_weights(config.guidance)),
        steps=config.diffusion.steps,
    )


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

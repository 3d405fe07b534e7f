"""Arithmetic of MF-ETalk, counted on torch's meta device; see `diffusion.cost`.

A window is a clip of `motion.frames` frames. Each branch of guidance runs the ReferenceNet once a clip, over the
portrait and the motion frames, and the denoiser at every step. Fusion is a part of the denoiser's passes: what it costs
is the difference to row a of the ablation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..diffusion.cost import Cost, operations
from ..diffusion.guidance import branch_weights
from .au_guidance import AuTokens
from .config import LOWER_AUS, UPPER_AUS, MfEtalkConfig
from .denoiser import MfInputs
from .model import MfEtalk
from .parameters import on_meta

FRAME_RATE = 25.0  # latents a second of video: all of its frames
Work = Callable[[], Any]


def count_cost(config: MfEtalkConfig) -> Cost:
    """Counts one clip of the temporal stage. Raises MissingPackage without diffusers."""
    model, encoders = on_meta(config)
    for part in (model, encoders):
        part.requires_grad_(False)
    encode: Callable[[torch.Tensor], Any] = encoders.encode  # pyright: ignore[reportAssignmentType]
    decode: Callable[[torch.Tensor], Any] = encoders.decode  # pyright: ignore[reportAssignmentType]
    clip = _Clip(model, config)
    return Cost(
        conditions={name: operations(work) for name, work in clip.conditions().items()},
        denoise=operations(clip.denoise()),
        encode=operations(lambda: encode(_meta(1, 3, config.size, config.size))),
        decode=operations(lambda: decode(clip.latents[0, :1])),
        frames=config.motion.frames,
        rate=FRAME_RATE,
        branches=len(branch_weights(config.guidance)),
        steps=config.diffusion.sample_steps,
    )


class _Clip:
    """One clip without memory, and the work that there is on it."""

    def __init__(self, model: MfEtalk, config: MfEtalkConfig) -> None:
        self.model, self.config = model, config
        channels, side = config.unet.latent_channels, config.latent_size
        self.latents = _meta(1, config.motion.frames, channels, side, side)
        self.still = _meta(1, 1 + config.motion.motion_frames, channels, side, side)  # portrait and motion frames

    def conditions(self) -> Mapping[str, Work]:
        """What one branch needs once."""
        identity = self._identity()
        return {
            "reference_net": lambda: self.model.reference(self.still, identity),
            "identity_tokens": self._identity,
            "audio_tokens": self._audio,
            "au_tokens": self._aus,
        }

    def denoise(self) -> Work:
        """A pass of the denoiser."""
        identity, grid, size = self._identity(), self.config.face.mask_grid, self.config.size
        inputs = MfInputs(
            references=self.model.reference(self.still, identity),
            seen=_meta(1),
            identity=identity,
            mask=_meta(1, 1, 1, size, size),
            audio=self._audio(),
            aus=self._aus(),
            regions=_meta(1, 1, 3, grid, grid),
        )
        step = torch.zeros(1, dtype=torch.int64, device="meta")
        return lambda: self.model.denoiser(self.latents, step, inputs, temporal=True)

    def _identity(self) -> torch.Tensor:
        return self.model.identity(_meta(1, self.config.face.embedding))

    def _audio(self) -> torch.Tensor:
        audio = self.config.audio.layers
        return self.model.audio(_meta(1, self.config.motion.frames, audio.window, audio.states, audio.state_width))

    def _aus(self) -> AuTokens | None:
        """Each half by itself: the guidance as a whole looks at values, of which there are none."""
        guidance, frames = self.model.aus, self.config.motion.frames
        if guidance is None:
            return None
        return AuTokens(
            guidance.upper(_meta(1, frames, len(UPPER_AUS))), guidance.lower(_meta(1, frames, len(LOWER_AUS)))
        )


def _meta(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, device="meta")

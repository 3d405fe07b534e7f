"""From a portrait, a voice and a track of action units to pictures: latents of the whole sound, then a few pictures
at a time.

Latents and conditions of the whole sound are held at once; pictures, which are far larger, only `DECODED` of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ...core.errors import InputError
from ..diffusion.audio_tokens import whisper_windows
from ..diffusion.batch import Encoders
from ..diffusion.config import GuidanceConfig
from ..diffusion.guidance import branch_weights
from .batch import prepare
from .chaining import clip_bounds
from .config import MfEtalkConfig, au_columns
from .model import MfEtalk

DECODED = 14  # latents that are decoded at once


@dataclass(frozen=True)
class Portrayed:
    """What one video is made from.

    Attributes:
        portrait: uint8 (size, size, 3) RGB, cut as the training's pictures are.
        mask: (1, 1, size, size), face mask in 0..1.
        regions: (1, 3, g, g), masks of pose, face and lip (`masks.region_masks`).
        states: (S, 5, 384), Whisper's hidden states of the sound.
        aus: (F, 17), intensities of each frame of the video.
        neutral: (17,), intensities that count as a neutral face.
        identity: (D,), ArcFace embedding of the portrait; None for a model that makes its own.
    """

    portrait: np.ndarray
    mask: np.ndarray
    regions: np.ndarray
    states: np.ndarray
    aus: np.ndarray
    neutral: np.ndarray
    identity: np.ndarray | None = None

    @property
    def frames(self) -> int:
        """Of the video, 25 a second."""
        return len(self.aus)

    def batch(self, config: MfEtalkConfig, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
        """A batch of one for `MfEtalk.sample`.

        Raises:
            InputError: a part of another shape than the configuration's.
        """
        size = config.size
        if self.portrait.shape != (size, size, 3) or self.mask.shape != (1, 1, size, size):
            raise InputError(f"the model's pictures are {size} x {size}, not {self.portrait.shape} {self.mask.shape}")
        if self.aus.ndim != 2 or self.aus.shape[1] != len(au_columns()) or not self.frames:
            raise InputError(f"a track of action units is (frames, {len(au_columns())}), not {self.aus.shape}")
        windows = whisper_windows(_tensor(self.states), range(self.frames), config.audio.layers)
        given = {
            "portrait": torch.tensor(self.portrait).movedim(-1, 0).float() / 127.5 - 1,
            "mask": _tensor(self.mask),
            "regions": _tensor(self.regions),
            "audio": windows,
            "aus": _tensor(self.aus),
            "au_neutral": _tensor(self.neutral),
        }
        if self.identity is not None:
            given["identity"] = _tensor(self.identity)
        return {name: value[None].to(device) for name, value in given.items()}


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def evaluations(frames: int, config: MfEtalkConfig, steps: int | None, guidance: GuidanceConfig | None) -> int:
    """How often the denoiser runs for a video."""
    clips = len(clip_bounds(frames, config.motion.frames))
    return (steps or config.diffusion.sample_steps) * clips * len(branch_weights(guidance or config.guidance))


def latents_of(
    model: MfEtalk,
    given: Portrayed,
    encoders: Encoders | None = None,
    *,
    seed: int = 0,
    steps: int | None = None,
    guidance: GuidanceConfig | None = None,
) -> torch.Tensor:
    """Latents (F, 4, h, w) of a video, on the model's device; the noise is the same on any device.

    Args:
        model: of the temporal stage, in eval mode.
        given: the conditions.
        encoders: of a model that has none itself.
        seed: of the noise.
        steps, guidance: other than configured.

    Raises:
        InputError: a model of the image stage, or conditions that do not fit.
    """
    if model.config.stage != "temporal":
        raise InputError("a model of the image stage makes single pictures, not videos", hint="train stage motion")
    place = next(model.parameters()).device
    draws = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        batch = prepare(given.batch(model.config, place), encoders or model.encoders)
        return model.sample(batch, draws, steps=steps, guidance=guidance)[0]


def pictures(model: MfEtalk, latents: torch.Tensor, encoders: Encoders | None = None) -> Iterator[np.ndarray]:
    """Pictures of a video in order, uint8 RGB (n, size, size, 3), a few at a time.

    Args:
        latents: (F, 4, h, w), scaled.
        encoders: of a model that has none itself.
    """
    for chunk in latents.split(DECODED):
        with torch.inference_mode():
            yield model.render(chunk[None], encoders)[0].cpu().numpy()

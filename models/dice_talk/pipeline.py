"""From a portrait, a voice and an emotion prior to pictures: latents of the whole sound, then pictures a few at a time.

The denoiser makes every second picture of 25 a second; those between are blends of their neighbours
(`diffusion.windows.double_rate`), unless the configuration says none. Latents of the whole sound are held at once, for
windows move over all of it; pictures, which are far larger, only `windows.decode_chunk` of them and the last before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from ...core.errors import InputError
from ..diffusion.audio_tokens import whisper_windows
from ..diffusion.batch import Encoders
from ..diffusion.config import GuidanceConfig, WindowsConfig
from ..diffusion.guidance import branch_weights
from ..diffusion.windows import double_rate, window_indices
from .denoiser_config import DiceTalkConfig
from .edm import schedule
from .model import DiceTalk

FPS = 25
STRIDE = 2  # frames from one latent to the next


@dataclass(frozen=True)
class Portrayed:
    """What one video is made from.

    Attributes:
        portrait: uint8 (size, size, 3) RGB, cut as the training's pictures are.
        states: (S, 5, 384), Whisper's hidden states of the sound.
        mu: (1, d) or (d,), prior of the emotion.
        mask: (1 or latents, 1, size, size), face mask in 0..1.
        frames: of the video at 25 a second.
    """

    portrait: np.ndarray
    states: np.ndarray
    mu: np.ndarray
    mask: np.ndarray
    frames: int

    def batch(self, config: DiceTalkConfig, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
        """A batch of one for `DiceTalk.sample`.

        Raises:
            InputError: a part of another shape than the configuration's.
        """
        size, width = config.size, config.bank.prior_width
        if self.portrait.shape != (size, size, 3) or self.mask.shape[1:] != (1, size, size):
            raise InputError(f"the model's pictures are {size} x {size}, not {self.portrait.shape} {self.mask.shape}")
        if self.mu.size != width:
            raise InputError(f"the emotion prior has {self.mu.size} numbers, and the model reads {width}")
        latents = latent_count(self.frames, config.windows)
        states = torch.from_numpy(np.asarray(self.states, np.float32))
        given = {
            "portrait": torch.tensor(self.portrait).movedim(-1, 0)[None].float() / 127.5 - 1,
            "audio": whisper_windows(states, range(0, STRIDE * latents, STRIDE), config.audio)[None],
            "mu": torch.from_numpy(np.asarray(self.mu, np.float32)).reshape(1, width),
            "mask": torch.from_numpy(np.asarray(self.mask, np.float32))[None],
        }
        return {name: value.to(device) for name, value in given.items()}


def latent_count(frames: int, config: WindowsConfig) -> int:
    """Latents that `frames` pictures at 25 a second need: blends need one at or after the end.

    Raises:
        InputError: frames below 1.
    """
    if frames < 1:
        raise InputError("a video needs a frame")
    return frames // STRIDE + 1 if config.interpolation == "linear" else -(-frames // STRIDE)


def frame_rate(config: WindowsConfig) -> Fraction:
    """Pictures a second that `pictures` gives."""
    return Fraction(FPS) if config.interpolation == "linear" else Fraction(FPS, STRIDE)


def picture_count(frames: int, config: WindowsConfig) -> int:
    """Pictures that `pictures` gives for `frames` at 25 a second."""
    return frames if config.interpolation == "linear" else latent_count(frames, config)


def evaluations(latents: int, config: DiceTalkConfig, steps: int | None, guidance: GuidanceConfig | None) -> int:
    """How often the denoiser runs for a video."""
    windows = len(window_indices(latents, 0, config.windows))
    return (len(schedule(config.diffusion, steps)) - 1) * windows * len(branch_weights(guidance or config.guidance))


def latents_of(
    model: DiceTalk,
    given: Portrayed,
    encoders: Encoders | None = None,
    *,
    seed: int = 0,
    steps: int | None = None,
    guidance: GuidanceConfig | None = None,
) -> torch.Tensor:
    """Latents (F, 4, h, w) of a video, on the model's device; the noise is the same on any device.

    Args:
        model: in eval mode.
        given: the conditions.
        encoders: of a model that has none itself.
        seed: of the starting noise.
        steps, guidance: other than configured.
    """
    place = next(model.parameters()).device
    batch = given.batch(model.config, place)
    if encoders is not None:
        portrait = batch.pop("portrait")
        scaled = model.config.vae.scaled_reference
        batch |= {"reference": encoders.encode(portrait, scaled=scaled), "image": encoders.embed(portrait)}
    draws = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        return model.sample(batch, draws, steps=steps, guidance=guidance)[0]


def pictures(
    model: DiceTalk, latents: torch.Tensor, frames: int, encoders: Encoders | None = None
) -> Iterator[np.ndarray]:
    """Pictures of a video in order, uint8 RGB (n, size, size, 3), a few at a time; as `DiceTalk.render` makes them.

    Args:
        latents: (F, 4, h, w), scaled.
        frames: of the video at 25 a second; one that the last latent gives beyond them is left out.
        encoders: of a model that has none itself.
    """
    windows, chosen = model.config.windows, encoders or model.encoders
    if chosen is None:
        raise InputError("decoding needs encoders", hint="official.FrozenEncoders, filled with the base's weights")
    left = picture_count(frames, windows)
    before: torch.Tensor | None = None
    for chunk in latents.split(windows.decode_chunk):
        with torch.inference_mode():
            decoded = chosen.decode(chunk)
            joined = decoded if before is None else torch.cat([before, decoded])
            made = double_rate(joined, windows)[0 if before is None else 1 :][:left]
            shown = ((made.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
        before, left = decoded[-1:], left - len(shown)
        if len(shown):
            yield shown

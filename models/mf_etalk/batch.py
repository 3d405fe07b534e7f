"""What a batch of MF-ETalk holds, and how it is made ready.

A batch is a mapping of tensors, for B clips of F frames at 25 a second and m motion frames right before them:

    pictures    (B, F, 3, H, W)      RGB in [-1, 1]; or `latents` (B, F, 4, h, w), scaled, already encoded
    portrait    (B, 3, H, W)         the reference; or `reference` (B, 4, h, w), already encoded
    identity    (B, D)               ArcFace embedding of the portrait; preset tiny makes its own of `portrait`
    mask        (B, F or 1, 1, H, W) face mask in 0..1
    motion      (B, m, 3, H, W)      the motion frames; or `motion_latents` (B, m, 4, h, w)
    audio       (B, F, W, L, D)      speech features around each frame (`diffusion.audio_tokens.whisper_windows`)
    regions     (B, F or 1, 3, g, g) masks of pose, face and lip (`masks.region_masks`)
    aus         (B, F, 17)           AU intensities in the order of `config.au_columns`
    au_neutral  (B, 17)              the identity's neutral intensities (`au_guidance.identity_neutral`)

The image stage reads the first four; rows without fusion read no AUs. Sampling reads neither pictures nor motion.
"""

from __future__ import annotations

from typing import Any

from ..diffusion import batch as shared
from ..diffusion.batch import Batch, Encoders
from .config import MfEtalkConfig

SYSTEM = "MF-ETalk"


def prepare(batch: Batch, encoders: Encoders | None) -> dict[str, Any]:
    """The batch with `latents`, `motion_latents`, `reference` and `identity`; see `diffusion.batch.prepare`."""
    return shared.prepare(batch, encoders, system=SYSTEM, embedding="identity")


def need(batch: Batch, *keys: str) -> None:
    """Raises InputError if a key is missing."""
    shared.need(SYSTEM, batch, *keys)


def conditions_of(config: MfEtalkConfig) -> tuple[str, ...]:
    """Keys of a prepared batch that every pass of this stage and ablation reads."""
    if config.stage == "image":
        return ("reference", "identity", "mask")
    aus = ("aus", *(["au_neutral"] if config.au.neutral == "identity" else [])) if config.fusion.on else ()
    return ("reference", "identity", "mask", "audio", "regions", *aus)

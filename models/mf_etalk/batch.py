"""What a batch of MF-ETalk holds, and how it is made ready.

A batch is a mapping of tensors, for B clips of F frames at 25 a second and m motion frames right before them:

    pictures    (B, F, 3, H, W)      RGB in [-1, 1]; or `latents` (B, F, 4, h, w), scaled, already encoded
    portrait    (B, 3, H, W)         the reference; or `reference` (B, 4, h, w), already encoded
    identity    (B, D)               ArcFace embedding of the portrait; preset tiny makes its own of `portrait`
    mask        (B, F or 1, 1, H, W) face mask in 0..1
    motion      (B, m, 3, H, W)      the motion frames; or `motion_latents` (B, m, 4, h, w)
    audio       (B, F, W, L, D)      speech features around each frame (`dice_talk.audio_tokens.whisper_windows`)
    regions     (B, F or 1, 3, g, g) masks of pose, face and lip (`masks.region_masks`)
    aus         (B, F, 17)           AU intensities in the order of `config.au_columns`
    au_neutral  (B, 17)              the identity's neutral intensities (`au_guidance.identity_neutral`)

The image stage reads the first four; rows without fusion read no AUs. Sampling reads neither pictures nor motion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.errors import InputError
from .config import MfEtalkConfig
from .official import Encoders

Batch = Mapping[str, Any]
SOURCES = {"latents": "pictures", "motion_latents": "motion", "reference": "portrait", "identity": "portrait"}


def prepare(batch: Batch, encoders: Encoders | None) -> dict[str, Any]:
    """The batch with `latents`, `motion_latents`, `reference` and `identity`; what is there already stays.

    Raises:
        InputError: something has to be encoded and there are no encoders, or its source is missing.
    """
    done = dict(batch)
    for key, source in SOURCES.items():
        optional = key in {"latents", "motion_latents"}
        if key in done or (optional and source not in done):
            continue
        if encoders is None or source not in done:
            raise InputError(f"a batch of MF-ETalk needs '{key}', or '{source}' and encoders")
        if key == "identity":
            done[key] = encoders.embed(done[source])
        elif optional:
            done[key] = encoders.encode(done[source].flatten(0, 1)).unflatten(0, done[source].shape[:2])
        else:
            done[key] = encoders.encode(done[source])
    return done


def need(batch: Batch, *keys: str) -> None:
    """Raises InputError if a key is missing."""
    if missing := [key for key in keys if key not in batch]:
        raise InputError(f"a batch of MF-ETalk lacks {', '.join(missing)}")


def conditions_of(config: MfEtalkConfig) -> tuple[str, ...]:
    """Keys of a prepared batch that every pass of this stage and ablation reads."""
    if config.stage == "image":
        return ("reference", "identity", "mask")
    aus = ("aus", *(["au_neutral"] if config.au.neutral == "identity" else [])) if config.fusion.on else ()
    return ("reference", "identity", "mask", "audio", "regions", *aus)

"""Batches of talking clips: pictures to latents on the way in, latents to pictures on the way out.

Where a key is there already, what it is made of is not looked at:

    latents         (B, F, 4, h, w)   of `pictures` (B, F, 3, H, W), RGB in [-1, 1]
    motion_latents  (B, m, 4, h, w)   of `motion` (B, m, 3, H, W), frames from before the clip
    reference       (B, 4, h, w)      of `portrait` (B, 3, H, W)
    an embedding    (B, D)            of `portrait`, under the name that the system has for it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from ...core.errors import InputError
from .config import WindowsConfig
from .windows import decode_chunks, double_rate

Batch = Mapping[str, Any]
Parts = dict[str, torch.Tensor | float | None]
FRAMES = {"latents": "pictures", "motion_latents": "motion"}


class Encoders(Protocol):
    """Pictures to latents and back: a system's `FrozenEncoders`, or `tiny_vae.TinyEncoders`."""

    def encode(self, pictures: torch.Tensor, *, scaled: bool = True) -> torch.Tensor: ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor: ...

    def embed(self, pictures: torch.Tensor) -> torch.Tensor: ...


def prepare(
    batch: Batch, encoders: Encoders | None, *, system: str, embedding: str, scaled_reference: bool = True
) -> dict[str, Any]:
    """The batch with latents of the frames that it has, and with `reference` and the portrait's embedding.

    Args:
        encoders: None: the batch is encoded already.
        system: for messages.
        embedding: the key of the embedding.
        scaled_reference: scale the reference's latent as the others.

    Raises:
        InputError: something has to be encoded and there are no encoders, or its source is missing.
    """
    done = dict(batch)
    for key, source in FRAMES.items():
        if key not in done and source in done:
            frames = done[source]
            used = _encoders(encoders, batch, system, key, source)
            done[key] = used.encode(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
    if "reference" not in done:
        used = _encoders(encoders, batch, system, "reference", "portrait")
        done["reference"] = used.encode(done["portrait"], scaled=scaled_reference)
    if embedding not in done:
        done[embedding] = _encoders(encoders, batch, system, embedding, "portrait").embed(done["portrait"])
    return done


def _encoders(encoders: Encoders | None, batch: Batch, system: str, key: str, source: str) -> Encoders:
    if encoders is None or source not in batch:
        raise InputError(f"a batch of {system} needs '{key}', or '{source}' and encoders")
    return encoders


def need(system: str, batch: Batch, *keys: str) -> None:
    """Raises InputError if a key is missing."""
    if missing := [key for key in keys if key not in batch]:
        raise InputError(f"a batch of {system} lacks {', '.join(missing)}")


@torch.no_grad()
def render(latents: torch.Tensor, encoders: Encoders | None, windows: WindowsConfig) -> torch.Tensor:
    """Latents (B, F, 4, h, w) to uint8 RGB (B, T, H, W, 3); T is 2F - 1 where `windows` interpolates, else F.

    Raises:
        InputError: there are no encoders.
    """
    if encoders is None:
        raise InputError("decoding needs encoders", hint="official.FrozenEncoders, filled with the base's weights")
    videos = torch.stack([double_rate(decode_chunks(encoders.decode, clip, windows), windows) for clip in latents])
    return ((videos.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(2, -1)

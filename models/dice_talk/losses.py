"""One step of the embedder's training: a batch of clips to the contrastive loss of eq. 8, and what to log."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ...core.errors import InputError
from .embedder import Contrast, EmotionEmbedder, Prior, draw_keep, info_nce


def group_of(item: Mapping[str, Any]) -> Hashable:
    """What a clip shares with its positives: identity and emotion, or the video where no emotion is stated.

    Paper, section 4.1: "same identity and emotion in MEAD", "segments from the same video in HDTF".

    Raises:
        InputError: it has neither.
    """
    if item.get("identity") is not None and item.get("emotion") is not None:
        return "emotion", item["identity"], item["emotion"]
    if item.get("video") is not None:
        return "video", item["video"]
    raise InputError("a clip for contrastive training needs identity and emotion, or the video it is cut from")


def shard_clip(
    row: Mapping[str, Any], *, states: int, expression: str = "arkit52_blendshapes", audio: str = "whisper_tiny_states"
) -> dict[str, Any]:
    """A row of `datasets.shards.ClipShards` as an item of `embedder_batch`.

    Args:
        row: with the columns `expression` (T, C) and `audio` (steps x T, states x D), `clip_id`, and where there are
            any `identity` and `emotion`; `video` where its clips are cut from longer ones.
        states: L + 1, hidden states in a row of `audio`.
    """
    labels = {name: row.get(name) for name in ("clip_id", "identity", "emotion", "intensity", "video")}
    heard = row[audio]
    return {**labels, "expression": row[expression], "audio": heard.reshape(len(heard), states, -1)}


def embedder_batch(items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Pads clips to one batch on the CPU.

    Args:
        items: each with `expression` (T, C), `audio` (steps x T, L, D), and what `group_of` needs. NaN frames, which
            had no face, are masked.

    Returns:
        `expression` float32 (B, T, C), `audio` float32 (B, steps x T, L, D), `mask` bool (B, T), `group` int64 (B,),
        numbered within this batch.

    Raises:
        InputError: the clips have not the same number of audio steps for each frame.
    """
    frames = max(len(item["expression"]) for item in items)
    seen = [np.isfinite(item["expression"]).all(1) for item in items]
    numbers = {group: k for k, group in enumerate(dict.fromkeys(map(group_of, items)))}
    steps = len(items[0]["audio"]) // len(items[0]["expression"])
    if odd := [item for item in items if len(item["audio"]) != steps * len(item["expression"])]:
        sizes = f"{len(odd[0]['audio'])} audio steps to {len(odd[0]['expression'])} frames"
        raise InputError(f"{odd[0].get('clip_id', 'a clip')} has {sizes}, not {steps} to each")
    return {
        "expression": _padded([item["expression"] for item in items], frames),
        "audio": _padded([item["audio"] for item in items], frames * steps),
        "mask": _padded(seen, frames).bool(),
        "group": torch.tensor([numbers[group_of(item)] for item in items]),
    }


def _padded(arrays: Sequence[np.ndarray], length: int) -> torch.Tensor:
    """Float32 (B, length, ...), zeros behind the end of each."""
    padded = np.zeros((len(arrays), length, *arrays[0].shape[1:]), np.float32)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(padded)


def embedder_loss(
    model: EmotionEmbedder, batch: Mapping[str, torch.Tensor], generator: torch.Generator | None = None
) -> tuple[torch.Tensor, dict[str, float | None]]:
    """Eq. 8 on a batch, with modality dropout in training mode.

    Args:
        model: its mode decides on dropouts; a sample of eq. 6 is drawn in either mode, unless it is deterministic.
        batch: as `embedder_batch` makes it, on the model's device. Clips without a positive serve as negatives.
        generator: on the CPU; of modality dropout and eps. (Layers' dropout takes torch's global generator.)

    Returns:
        The loss with its graph, and numbers to log; None for what the batch does not have. `negative_cosine` needs two
        groups; `nearest` is the part of anchors whose nearest other prior is of their group.

    Raises:
        InputError: no two clips of the batch belong together.
    """
    probability = model.config.drop_probability if model.training else 0.0
    keep = draw_keep(len(batch["expression"]), probability, generator).to(batch["expression"].device)
    prior = model(batch["expression"], batch["audio"], batch["mask"], keep=keep)
    contrast = info_nce(
        model.draw(prior, generator),
        batch["group"],
        temperature=model.config.temperature,
        constant=model.config.similarity_constant,
    )
    return contrast.loss, _numbers(contrast, prior, keep)


def _numbers(contrast: Contrast, prior: Prior, keep: torch.Tensor) -> dict[str, float | None]:
    numbers = {
        "loss": contrast.loss.detach(),
        "positive_cosine": contrast.positive,
        "negative_cosine": contrast.negative,
        "nearest": contrast.nearest,
        "sigma": prior.sigma.detach().mean(),
        "mu_norm": prior.mu.detach().norm(dim=1).mean(),
        "video_kept": keep[:, 0].float().mean(),
        "audio_kept": keep[:, 1].float().mean(),
    }
    values = {name: float(value) for name, value in numbers.items()}
    if values["negative_cosine"] != values["negative_cosine"]:  # NaN: there was no other group
        return values | {"negative_cosine": None, "anchors": contrast.anchors, "pairs": contrast.pairs}
    return values | {"anchors": contrast.anchors, "pairs": contrast.pairs}

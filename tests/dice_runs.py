"""Trainings that never took place, with random weights, for the tests of generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from talkforge.models.dice_talk.config import EmbedderConfig
from talkforge.models.dice_talk.denoiser_config import DiceTalkConfig
from talkforge.models.dice_talk.embedder import EmotionEmbedder
from talkforge.models.dice_talk.model import DiceTalk
from talkforge.models.training.rng import rng_state
from talkforge.models.training.state import Checkpoint, save_checkpoint
from torch import nn

STATES = "whisper_tiny_en_states"


def dice_config(**changes: Any) -> DiceTalkConfig:
    """Pictures of 32 pixels."""
    return DiceTalkConfig.tiny(size=32, **changes)


def write_run(
    folder: Path,
    *,
    embedder: Path | None = None,
    data: Path | str = "nowhere",
    config: DiceTalkConfig | None = None,
    weights: nn.Module | None = None,
    seed: int = 0,
    step: int = 3,
) -> Path:
    """A training of dice-talk."""
    torch.manual_seed(seed)
    config = config or dice_config()
    model = weights or DiceTalk(config)
    settings = {"model": asdict(config), "audio_column": STATES, "embedder": str(embedder) if embedder else None}
    return write_training(folder, "dice-talk", data, settings, model, step)


def write_embedder(folder: Path, *, data: Path | str = "nowhere", column: str = STATES, **sizes: Any) -> Path:
    """A training of dice-embedder."""
    torch.manual_seed(1)
    config = EmbedderConfig.tiny(**sizes)
    settings = {"model": asdict(config), "audio_column": column}
    return write_training(folder, "dice-embedder", data, settings, EmotionEmbedder(config), 1)


def write_training(
    folder: Path, system: str, data: Path | str, settings: Mapping[str, Any], model: nn.Module, step: int
) -> Path:
    """A training of any system with these weights."""
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({"system": system, "data": str(data), "settings": _plain(settings)})
    (folder / "config.yaml").write_text(text)
    state, rng = model.state_dict(), [rng_state(torch.device("cpu"))]
    # Averages are what generation has to take: the other weights are of no use to it.
    zeros = {name: torch.zeros_like(value) for name, value in state.items()}
    facts = {"feed": {}, "ema_updates": step, "score": None}
    save_checkpoint(folder / "checkpoints", Checkpoint(step, zeros, state, {}, rng, facts))
    return folder


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML knows."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value

"""What the trainings of talking heads share: settings, clips and their batches, validation, and pictures to look at."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from ..core.errors import InputError
from ..datasets.shards import ClipShards, read_info
from ..models.diffusion.config import AudioTokensConfig
from ..models.training.config import TrainConfig
from .extractor import ExtractorSpec, extractors
from .recipe import column_name
from .talking_batches import TalkingClips, TalkingWindows, collate, open_clips
from .talking_groups import partners_of

if TYPE_CHECKING:
    import torch
    from torch import nn

VALIDATION_SEED = SAMPLE_SEED = 0
SHOWN = 2  # clips of a sample
MIB = 1 << 20

# (model, batch on the device, draws) -> the loss that validation goes by
Score = Callable[["nn.Module", Mapping[str, Any], "torch.Generator"], "torch.Tensor | float"]
# the same arguments -> pictures (B, F, 3, H, W) in [-1, 1]
Draw = Callable[["nn.Module", Mapping[str, Any], "torch.Generator"], "torch.Tensor"]


class TalkingTrainConfig(TrainConfig):
    """Settings of every such training.

    Attributes:
        audio_column: all hidden states of a network that hears: Whisper's, or wav2vec2's where the model says so.
        batch_size: clips of a batch.
        portraits: which frame of the clip that gives it is a portrait: any, or the first, as where a clip is animated
            from its first frame.
        picture_cache_mb: MiB of resized pictures that each loading process keeps; 0 decodes every window anew.
        validation_batches: of the split val, at each checkpoint; 0 does without.
    """

    audio_column: str = "whisper_tiny_states"
    batch_size: PositiveInt = 2
    portraits: Literal["any", "first"] = "any"
    picture_cache_mb: NonNegativeInt = 0
    validation_batches: NonNegativeInt = 8


@dataclass(frozen=True)
class Talking:
    """A split's clips, their groups, and where their windows may begin; `pinned`: see `talking_batches`."""

    rows: TalkingClips
    groups: Sequence[str | None]
    starts: Sequence[np.ndarray]
    pinned: Mapping[str, str] = field(default_factory=dict)

    def loader(
        self,
        config: TalkingTrainConfig,
        *,
        seed: int,
        batch_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> Any:
        """Their batches. Raises InputError where the batch size cannot be shared out among the groups."""
        from ..models.training.loader import Loader

        sampler = TalkingWindows(
            self.groups,
            partners_of(self.rows.shards, self.groups),
            batch_size or config.batch_size,
            lengths=self.rows.shards.lengths,
            window=self.rows.window,
            starts=self.starts,
            first_portraits=config.portraits == "first",
            pinned=self.pinned,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        return Loader(self.rows, sampler, collate, workers=config.workers, seed=seed)


def pinned_by(checkpoint: Path) -> dict[str, str]:
    """What a training is bound to, sha256 by name, as its checkpoint says; nothing where an older one does not.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    path = checkpoint / "state.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}", hint="the checkpoint is damaged; take another") from error
    return facts["feed"].get("sampler", {}).get("pinned", {})


def resolved(path: Path | None) -> Path | None:
    """A folder that settings name, as it is found from anywhere."""
    return None if path is None else path.expanduser().resolve()


def open_split(data: Path, split: str, columns: Mapping[str, str]) -> ClipShards:
    """A split with the columns that settings name.

    Args:
        columns: by setting, the column.

    Raises:
        InputError: the build lacks a column, or has no clips in the split.
    """
    there = read_info(data)["columns"]
    for option, column in columns.items():
        if column not in there:
            raise InputError(f"the build has no column '{column}'", hint=way_out(option, column, there))
    shards = open_clips(data, split, list(columns.values()))
    if not len(shards):
        raise InputError(f"the build's split {split} has no clips", hint="build it with --split none, say")
    return shards


def way_out(option: str, column: str, there: Mapping[str, str]) -> str:
    """The extractor that makes the column, and columns of the same kind that the build does have."""
    maker = maker_id(column)
    kind = column.rpartition("_")[2]
    alike = [name for name in there if name.endswith(f"_{kind}")] if option == "audio_column" else []
    hints = [f"build it with the extractor {maker}"] if maker else []
    return ", or ".join([*hints, *(f"give --set {option}={name}" for name in alike)]) or f"see --set {option}=..."


def maker_id(column: str) -> str | None:
    """The extractor that makes a column of a build."""
    makers = [spec.id for spec in extractors.all() if column in {column_name(spec, name) for name in spec.columns}]
    return makers[0] if makers else None


def check_audio(shards: ClipShards, column: str, audio: AudioTokensConfig, groups: Sequence[str | None]) -> None:
    """Raises InputError where the sound's features are not those that the model reads; it names who makes these."""
    first = next(k for k, group in enumerate(groups) if group is not None)
    found = shards.window(first, 0, 1)[column].shape
    wanted = (audio.steps_per_frame, audio.states * audio.state_width)
    if found == wanted:
        return
    makers = makers_of_steps(*wanted)
    there = [name for name in makers if name in shards.info["columns"]]
    ways = [f"give --set audio_column={name}" for name in there] or [
        f"build with the extractor {spec.id} and give --set audio_column={name}" for name, spec in makers.items()
    ]
    text = (
        f"audio_column {column} has {found[0]} x {found[1]} numbers a frame (steps x numbers), "
        f"the model reads {wanted[0]} x {wanted[1]}"
    )
    raise InputError(text, hint=", or ".join([*ways, "see the sizes in model.audio"]))


def makers_of_steps(steps: int, numbers: int) -> dict[str, ExtractorSpec]:
    """Columns that have so many steps of so many numbers for each frame of sound, and who makes them."""
    return {
        column_name(spec, name): spec
        for spec in extractors.all()
        for name, kind in spec.columns.items()
        if spec.audio and getattr(getattr(kind, "value_type", None), "list_size", None) == numbers
        if spec.steps.get(name, 1) == steps
    }


def heard(states: np.ndarray, places: Sequence[int], audio: AudioTokensConfig) -> np.ndarray:
    """What frames hear, float32 (len(places), W, L, D).

    Args:
        states: (steps, L x D), a clip's column.
        places: frames of 25 a second.
    """
    import torch

    from ..models.diffusion.audio_tokens import whisper_windows

    given = torch.from_numpy(np.nan_to_num(states)).unflatten(-1, (audio.states, audio.state_width))
    return whisper_windows(given, places, audio).float().numpy()


def calm(config: TalkingTrainConfig) -> TalkingTrainConfig:
    """Settings for a few batches beside the training."""
    return config.model_copy(update={"workers": 0})


def validation(config: TalkingTrainConfig, talking: Talking, score: Score) -> Callable[[nn.Module], float]:
    """Mean score over the same windows and draws each time."""

    def validate(model: nn.Module) -> float:
        import torch

        from ..models.training.feed import to_device

        draws = torch.Generator().manual_seed(VALIDATION_SEED)
        place = next(model.parameters()).device
        batches = islice(talking.loader(calm(config), seed=VALIDATION_SEED), config.validation_batches)
        found = [float(score(model, to_device(batch, place), draws)) for batch in batches]
        return sum(found) / len(found)

    return validate


def validated(config: TalkingTrainConfig, data: Path) -> bool:
    """Whether the split val is to be looked at, and has clips."""
    return bool(config.validation_batches and read_info(data)["shards"].get("val"))


@dataclass(frozen=True)
class TalkingSampler:
    """Draws two clips: above the portrait and what was filmed, below the mask and what is made of the portrait."""

    config: TalkingTrainConfig
    talking: Talking
    draw: Draw

    def __call__(self, model: nn.Module, step: int) -> np.ndarray:
        """uint8 RGB; the same windows and noise at every step."""
        import torch

        from ..models.training.feed import to_device

        loader = self.talking.loader(calm(self.config), seed=SAMPLE_SEED, batch_size=SHOWN)
        batch = to_device(next(iter(loader)), next(model.parameters()).device)
        made = self.draw(model, batch, torch.Generator().manual_seed(SAMPLE_SEED))
        mask = batch["mask"].expand(-1, -1, 3, -1, -1) * 2 - 1
        real = torch.cat([batch["portrait"][:, None], batch["pictures"][:, : made.shape[1]]], 1)
        return grid(torch.stack([real, torch.cat([mask, made.to(mask)], 1)], 1).flatten(0, 1))


def grid(pictures: torch.Tensor) -> np.ndarray:
    """(rows, columns, 3, H, W) in [-1, 1] to one uint8 picture."""
    shown = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
    rows, columns, _, height, width = shown.shape
    return np.ascontiguousarray(shown.transpose(0, 3, 1, 4, 2)).reshape(rows * height, columns * width, 3)

"""The system dice-talk: DICE-Talk's diffusion model, trained with eq. 15 on a build and a trained embedder.

Half of a batch's clips have an emotion label and half have none, where the build has both (paper, section 4.1:
emotional to ordinary data 1 : 1). The embedder is frozen; priors are made along with the batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import PositiveInt, field_validator

from ..core.errors import ConfigError, InputError
from ..datasets.shards import ClipShards
from ..models.dice_talk.denoiser_config import DiceTalkConfig
from ..models.diffusion.config import AudioTokensConfig
from ..models.training.system import Loss, SystemSpec, TrainParts
from .clip_prior import ClipPriors, Source, nearby
from .model_settings import only_fields_of
from .talking_batches import STRIDE, TalkingClip, TalkingClips, span
from .talking_groups import narrowed, usable_groups
from .talking_training import (
    MIB,
    Talking,
    TalkingSampler,
    TalkingTrainConfig,
    check_audio,
    heard,
    open_split,
    resolved,
    validated,
    validation,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..models.dice_talk.model import DiceTalk
    from ..models.dice_talk.official import FrozenEncoders

HERE = "talkforge.tasks.train_dice_talk"
EMBEDDER = "embedder"  # what checkpoints say the sha256 of


class DiceTalkTrainConfig(TalkingTrainConfig):
    """Settings of the training; `model` is the diffusion part with its emotion bank.

    Attributes:
        embedder: folder of a training of dice-embedder.
        prior_from: what the embedder reads.
        prior_of: the clip (as much of it as the embedder takes, around the window), or the window alone.
        frames: pictures of a window, 12.5 a second.
    """

    model: Annotated[DiceTalkConfig, only_fields_of(DiceTalkConfig)] = DiceTalkConfig()
    embedder: Path | None = None
    prior_from: Source = "both"
    prior_of: Literal["clip", "window"] = "clip"
    frames: PositiveInt = 25

    @field_validator("embedder")
    @classmethod
    def _from_anywhere(cls, embedder: Path | None) -> Path | None:
        return resolved(embedder)


@dataclass(frozen=True)
class DiceExtras:
    """What DICE-Talk reads of a window beside its pictures: `audio` (F, 10, 5, 384), `mu` and `sigma` (d,)."""

    audio_column: str
    audio: AudioTokensConfig
    frames: int
    priors: ClipPriors
    prior_of: Literal["clip", "window"]

    def __call__(self, clip: TalkingClip, start: int) -> Mapping[str, np.ndarray]:
        """Raises InputError where the clip has no frame that the embedder can read."""
        mu, sigma = self._prior(clip, start)
        places = range(start, start + span(self.frames), STRIDE)
        return {"audio": heard(clip.columns[self.audio_column], places, self.audio), "mu": mu, "sigma": sigma}

    def _prior(self, clip: TalkingClip, start: int) -> tuple[np.ndarray, np.ndarray]:
        for part in self._parts(clip, start):
            found = self.priors(self._cut(clip, self.priors.expression, part), self._heard(clip, part))
            if found is not None:
                return found
        raise InputError(f"{clip.clip_id} has no frame that the embedder can read")

    def _parts(self, clip: TalkingClip, start: int) -> Iterator[slice]:
        """What the prior is of; then more around it, and what lies around the nearest frame that can be read."""
        most, window = self.priors.settings.model.max_frames, span(self.frames)
        frames = min(most, clip.frames if self.prior_of == "clip" else window)
        yield nearby(start, min(frames, window), clip.frames, frames)
        yield nearby(start, min(most, window), clip.frames, most)
        every = slice(0, clip.frames)
        seen = self.priors.readable(self._cut(clip, self.priors.expression, every), self._heard(clip, every))
        if seen.any():
            middle = start + window // 2
            nearest = min(np.flatnonzero(seen), key=lambda frame: abs(int(frame) - middle))
            yield nearby(int(nearest), 1, clip.frames, most)

    def _cut(self, clip: TalkingClip, column: str | None, part: slice) -> np.ndarray | None:
        return None if column is None else clip.columns[column][part]

    def _heard(self, clip: TalkingClip, part: slice) -> np.ndarray | None:
        steps = self.audio.steps_per_frame
        return self._cut(clip, self.priors.audio, slice(part.start * steps, part.stop * steps))


def build(config: DiceTalkTrainConfig, data: Path, rank: int, world_size: int) -> TrainParts:
    """The parts of a training on a build's split train, with validation on val if that has clips.

    Raises:
        InputError: the build lacks a column, none of its clips can be used, or the embedder does not fit.
        ConfigError: no embedder given, unknown settings, or some that several processes cannot share.
        WeightsMissing: the base's weights are not there (`model.vae.kind` svd).
    """
    from ..models.dice_talk.model import DiceTalk

    if world_size > 1 and config.model.bank.mode == "bank" and config.model.bank.dead_codes == "reseed":
        raise ConfigError(
            "several processes would reseed dead codes each by its own clips, and train different models",
            hint="give --set model.bank.dead_codes=off, or start one process",
        )
    priors = _priors(config)
    talking = _clips(config, priors, data, "train")
    encoders = _encoders(config)
    model = DiceTalk(config.model)
    if encoders is not None:
        _fill_base(model)
    batches = talking.loader(config, seed=config.seed, rank=rank, world_size=world_size)

    def loss_fn(net: nn.Module, batch: Mapping[str, Any]) -> Loss:
        total, parts = net(_encoded(batch, encoders, config))
        return Loss(total, {name: value for name, value in parts.items() if value is not None})

    def score(net: nn.Module, batch: Mapping[str, Any], draws: torch.Generator) -> torch.Tensor:
        return net(_encoded(batch, encoders, config), draws)[1]["denoise"]

    def draw(net: Any, batch: Mapping[str, Any], draws: torch.Generator) -> torch.Tensor:
        import torch

        latents = net.sample(_encoded(batch, encoders, config), draws)
        return torch.stack([(encoders or net.encoders).decode(clip) for clip in latents])

    watched = _clips(config, priors, data, "val") if validated(config, data) else None
    return TrainParts(
        model,
        loss_fn,
        batches,
        sample=TalkingSampler(config, talking, draw),
        validate=None if watched is None else validation(config, watched, score),
    )


def parameters(config: DiceTalkTrainConfig) -> dict[str, int]:
    """See `models.dice_talk.parameters.count_parameters`. Raises MissingPackage without diffusers (extra train)."""
    from ..models.dice_talk.parameters import count_parameters

    return count_parameters(config.model)


def _priors(config: DiceTalkTrainConfig) -> ClipPriors:
    """The embedder, where it fits."""
    if config.embedder is None:
        raise ConfigError(
            "dice-talk needs emotion priors, and so a trained embedder",
            hint="train dice-embedder first, then give --set embedder=FOLDER",
        )
    priors = ClipPriors.load(config.embedder, config.prior_from)
    wanted = config.model.bank.prior_width
    if priors.width != wanted:
        text = f"the embedder of {config.embedder} makes priors of {priors.width} numbers, the model reads {wanted}"
        raise InputError(text, hint=f"give --set model.bank.prior_width={priors.width}, or another embedder")
    return priors


def _clips(config: DiceTalkTrainConfig, priors: ClipPriors, data: Path, split: str) -> Talking:
    """The split's clips."""
    columns = {"audio_column": config.audio_column}
    if priors.expression is not None:
        columns["embedder"] = priors.expression
    if priors.audio is not None and priors.audio != config.audio_column:
        text = f"the embedder was trained on {priors.audio}, and the model hears {config.audio_column}"
        raise InputError(text, hint="give --set prior_from=video, or an embedder of the same column")
    shards = open_split(data, split, columns)
    groups, starts = usable_groups(shards, config.frames, list(columns.values()))
    groups = _with_priors(shards, groups, priors)
    check_audio(shards, config.audio_column, config.model.audio, groups)
    extras = DiceExtras(config.audio_column, config.model.audio, config.frames, priors, config.prior_of)
    rows = TalkingClips(
        shards,
        frames=config.frames,
        size=config.model.size,
        box_scale=config.model.pose.box_scale,
        extras=extras,
        picture_cache=config.picture_cache_mb * MIB,
    )
    return Talking(rows, groups, starts, {EMBEDDER: priors.sha256})


def _with_priors(shards: ClipShards, groups: Sequence[str | None], priors: ClipPriors) -> list[str | None]:
    """Groups without clips of which the embedder can read no frame. Raises InputError where none is left."""
    face, heard = priors.expression, priors.audio
    if face is None:
        return list(groups)  # clips without sound are out already
    faces = narrowed(shards, face)
    both = faces if heard is None else narrowed(shards, face, heard)

    def readable(clip: int) -> bool:
        if np.isfinite(faces[clip][face]).all():
            return True
        row = both[clip]  # sound is much to read, and only needed here
        return bool(priors.readable(row[face], None if heard is None else row[heard]).any())

    found = [group if group is not None and readable(clip) else None for clip, group in enumerate(groups)]
    if not any(found):
        raise InputError("no clip that is long enough has a frame that the embedder can read")
    return found


def _encoders(config: DiceTalkTrainConfig) -> FrozenEncoders | None:
    """Frozen ones of the base, which stand outside of the model; None where the model has its own."""
    if config.model.vae.kind == "tiny":
        return None
    from ..models.dice_talk.base_weights import load_encoders

    return load_encoders(config.model)


def _fill_base(model: DiceTalk) -> None:
    from ..models.dice_talk.base_weights import fill_denoiser

    fill_denoiser(model.denoiser)


def _encoded(
    batch: Mapping[str, Any], encoders: FrozenEncoders | None, config: DiceTalkTrainConfig
) -> Mapping[str, Any]:
    """The batch with what frozen encoders make of it."""
    if encoders is None:
        return batch
    from ..models.dice_talk.model import prepare

    return prepare(batch, encoders.to(batch["pictures"].device), config.model)


# A VAE that changes moves the target of the denoiser, and costs as much again: so it comes first, and then stays.
_VAE_FIRST = replace(DiceTalkConfig.tiny().vae, alone_steps=300, joint=False)
_TINY = {
    "model": asdict(DiceTalkConfig.tiny(vae=_VAE_FIRST)),
    "prior_of": "window",
    "frames": 8,
    "batch_size": 4,
    "picture_cache_mb": 512,
    "steps": 4000,
    "checkpoint_every": 500,
    "sample_every": 250,
    "optimiser": {"lr": 1e-3},
    "schedule": {"name": "cosine", "warmup": 50, "final": 0.05},
    "ema": {"decay": 0.995},
}
_FULL = {"steps": 100_000, "optimiser": {"name": "adam", "lr": 1e-5}, "sample_every": 2000}

SYSTEMS = (
    SystemSpec(
        id="dice-talk",
        what="DICE-Talk's diffusion model: portrait, voice and emotion prior to a talking head",
        config=f"{HERE}:DiceTalkTrainConfig",
        build=f"{HERE}:build",
        parameters=f"{HERE}:parameters",
        presets={"tiny": _TINY, "full": _FULL},
    ),
)

"""The system dice-talk: DICE-Talk's diffusion model, trained with eq. 15 on a build and a trained embedder.

Half of a batch's clips have an emotion label and half have none, where the build has both (paper, section 4.1:
emotional to ordinary data 1 : 1). The embedder is frozen; priors are made along with the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from ..core.errors import ConfigError, InputError
from ..datasets.shards import ClipShards, read_info
from ..models.dice_talk.denoiser_config import AudioTokensConfig, DiceTalkConfig
from ..models.training.config import TrainConfig
from ..models.training.system import Loss, SystemSpec, TrainParts
from .clip_prior import ClipPriors, Source, nearby
from .extractor import extractors
from .model_settings import only_fields_of
from .recipe import column_name
from .talking_batches import (
    STRIDE,
    TalkingClip,
    TalkingClips,
    TalkingWindows,
    collate,
    open_clips,
    partners_of,
    span,
    usable_groups,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..models.dice_talk.model import DiceTalk
    from ..models.dice_talk.official import FrozenEncoders

HERE = "talkforge.tasks.train_dice_talk"
VALIDATION_SEED = SAMPLE_SEED = 0
SHOWN = 2  # clips of a sample
MIB = 1 << 20


class DiceTalkTrainConfig(TrainConfig):
    """Settings of the training; `model` is the diffusion part with its emotion bank.

    Attributes:
        embedder: folder of a training of dice-embedder.
        prior_from: what the embedder reads.
        prior_of: the clip (as much of it as the embedder takes, around the window), or the window alone.
        audio_column: Whisper-tiny's hidden states, all of them.
        frames: pictures of a window, 12.5 a second.
        batch_size: clips of a batch.
        picture_cache_mb: MiB of resized pictures that each loading process keeps; 0 decodes every window anew.
        validation_batches: of the split val, at each checkpoint; 0 does without.
    """

    model: Annotated[DiceTalkConfig, only_fields_of(DiceTalkConfig)] = DiceTalkConfig()
    embedder: Path | None = None
    prior_from: Source = "both"
    prior_of: Literal["clip", "window"] = "clip"
    audio_column: str = "whisper_tiny_states"
    frames: PositiveInt = 25
    batch_size: PositiveInt = 2
    picture_cache_mb: NonNegativeInt = 0
    validation_batches: NonNegativeInt = 8


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
        return {"audio": self._windows(clip, start), "mu": mu, "sigma": sigma}

    def _windows(self, clip: TalkingClip, start: int) -> np.ndarray:
        import torch

        from ..models.dice_talk.audio_tokens import whisper_windows

        states = torch.from_numpy(np.nan_to_num(clip.columns[self.audio_column]))
        states = states.unflatten(-1, (self.audio.states, self.audio.state_width))
        places = range(start, start + span(self.frames), STRIDE)
        return whisper_windows(states, places, self.audio).float().numpy()

    def _prior(self, clip: TalkingClip, start: int) -> tuple[np.ndarray, np.ndarray]:
        most = self.priors.settings.model.max_frames
        whole = min(most, clip.frames) if self.prior_of == "clip" else min(span(self.frames), most)
        seen = np.flatnonzero(clip.shown)[:1]
        for first, frames in ((start, whole), (start, most), (int(seen[0]) if len(seen) else 0, most)):
            part = nearby(first, min(frames, span(self.frames)), clip.frames, frames)
            found = self.priors(self._cut(clip, self.priors.expression, part), self._heard(clip, part))
            if found is not None:
                return found
        raise InputError(f"{clip.clip_id} has no frame that the embedder can read")

    def _cut(self, clip: TalkingClip, column: str | None, part: slice) -> np.ndarray | None:
        return None if column is None else clip.columns[column][part]

    def _heard(self, clip: TalkingClip, part: slice) -> np.ndarray | None:
        steps = self.audio.steps_per_frame
        return self._cut(clip, self.priors.audio, slice(part.start * steps, part.stop * steps))


def build(config: DiceTalkTrainConfig, data: Path, rank: int, world_size: int) -> TrainParts:
    """The parts of a training on a build's split train, with validation on val if that has clips.

    Raises:
        InputError: the build lacks a column, none of its clips can be used, or the embedder does not fit.
        ConfigError: no embedder given, or unknown settings.
        WeightsMissing: the base's weights are not there (`model.vae.kind` svd).
    """
    from ..models.dice_talk.model import DiceTalk

    priors = _priors(config)
    rows, groups = _clips(config, priors, data, "train")
    encoders = _encoders(config)
    model = DiceTalk(config.model)
    if encoders is not None:
        _fill_base(model)
    batches = _loader(config, rows, groups, seed=config.seed, rank=rank, world_size=world_size)

    def loss_fn(net: nn.Module, batch: Mapping[str, Any]) -> Loss:
        total, parts = net(_encoded(batch, encoders, config))
        return Loss(total, {name: value for name, value in parts.items() if value is not None})

    return TrainParts(
        model,
        loss_fn,
        batches,
        sample=_Sampler(config, rows, groups, encoders),
        validate=_validation(config, priors, data, encoders),
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


def _clips(
    config: DiceTalkTrainConfig, priors: ClipPriors, data: Path, split: str
) -> tuple[TalkingClips, list[str | None]]:
    """The split's clips, and the group of each."""
    info = read_info(data)
    columns = {"audio_column": config.audio_column}
    if priors.expression is not None:
        columns["embedder"] = priors.expression
    if priors.audio is not None and priors.audio != config.audio_column:
        text = f"the embedder was trained on {priors.audio}, and the model hears {config.audio_column}"
        raise InputError(text, hint="give --set prior_from=video, or an embedder of the same column")
    for option, column in columns.items():
        if column not in info["columns"]:
            raise InputError(f"the build has no column '{column}'", hint=_way_out(option, column, info["columns"]))
    shards = open_clips(data, split, list(columns.values()))
    if not len(shards):
        raise InputError(f"the build's split {split} has no clips", hint="build it with --split none, say")
    groups = usable_groups(shards, config.frames, list(columns.values()))
    _check_audio(shards, config, groups)
    extras = DiceExtras(config.audio_column, config.model.audio, config.frames, priors, config.prior_of)
    rows = TalkingClips(
        shards,
        frames=config.frames,
        size=config.model.size,
        box_scale=config.model.pose.box_scale,
        extras=extras,
        picture_cache=config.picture_cache_mb * MIB,
    )
    return rows, groups


def _way_out(option: str, column: str, there: Mapping[str, str]) -> str:
    """The extractor that makes the column, and columns of the same kind that the build does have."""
    makers = [spec.id for spec in extractors.all() if column in {column_name(spec, name) for name in spec.columns}]
    kind = column.rpartition("_")[2]
    alike = [name for name in there if name.endswith(f"_{kind}")] if option == "audio_column" else []
    hints = [f"build it with the extractor {maker}" for maker in makers[:1]]
    return ", or ".join([*hints, *(f"give --set {option}={name}" for name in alike)]) or f"see --set {option}=..."


def _check_audio(shards: ClipShards, config: DiceTalkTrainConfig, groups: list[str | None]) -> None:
    first = next(k for k, group in enumerate(groups) if group is not None)
    audio = config.model.audio
    found = shards.window(first, 0, 1)[config.audio_column].shape
    wanted = (audio.steps_per_frame, audio.states * audio.state_width)
    if found != wanted:
        text = f"{config.audio_column}: {found[0]} steps of {found[1]} numbers a frame, the model reads {wanted}"
        raise InputError(text, hint="see model.audio.states and model.audio.state_width")


def _loader(
    config: DiceTalkTrainConfig,
    rows: TalkingClips,
    groups: list[str | None],
    *,
    seed: int,
    batch_size: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Any:
    from ..models.training.loader import Loader

    sampler = TalkingWindows(
        groups,
        partners_of(rows.shards, groups),
        batch_size or config.batch_size,
        lengths=rows.shards.lengths,
        window=span(config.frames),
        seed=seed,
        rank=rank,
        world_size=world_size,
    )
    return Loader(rows, sampler, collate, workers=config.workers, seed=seed)


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


def _calm(config: DiceTalkTrainConfig) -> DiceTalkTrainConfig:
    return config.model_copy(update={"workers": 0})


def _validation(
    config: DiceTalkTrainConfig, priors: ClipPriors, data: Path, encoders: FrozenEncoders | None
) -> Callable[[nn.Module], float] | None:
    """Mean denoising loss over the same windows and draws each time; None where val has no clips."""
    if not config.validation_batches or not read_info(data)["shards"].get("val"):
        return None
    rows, groups = _clips(config, priors, data, "val")

    def validate(model: nn.Module) -> float:
        import torch

        from ..models.training.feed import to_device

        draws = torch.Generator().manual_seed(VALIDATION_SEED)
        place = next(model.parameters()).device
        batches = islice(_loader(_calm(config), rows, groups, seed=VALIDATION_SEED), config.validation_batches)
        found = [model(_encoded(to_device(batch, place), encoders, config), draws)[1]["denoise"] for batch in batches]
        return sum(map(float, found)) / len(found)

    return validate


class _Sampler:
    """Draws two clips: above the portrait and what was filmed, below the mask and what is made of the portrait."""

    def __init__(
        self, config: DiceTalkTrainConfig, rows: TalkingClips, groups: list[str | None], encoders: FrozenEncoders | None
    ) -> None:
        self._config, self._rows, self._groups, self._encoders = config, rows, groups, encoders

    def __call__(self, model: nn.Module, step: int) -> np.ndarray:
        """uint8 RGB; the same windows and noise at every step."""
        import torch

        from ..models.training.feed import to_device

        config = self._config
        place = next(model.parameters()).device
        loader = _loader(_calm(config), self._rows, self._groups, seed=SAMPLE_SEED, batch_size=SHOWN)
        batch = to_device(next(iter(loader)), place)
        draws = torch.Generator().manual_seed(SAMPLE_SEED)
        talking: Any = model
        latents = talking.sample(_encoded(batch, self._encoders, config), draws)
        own = self._encoders or talking.encoders
        made = torch.stack([own.decode(clip) for clip in latents])
        mask = batch["mask"].expand(-1, -1, 3, -1, -1) * 2 - 1
        real = torch.cat([batch["portrait"][:, None], batch["pictures"]], 1)
        return _grid(torch.stack([real, torch.cat([mask, made.to(mask)], 1)], 1).flatten(0, 1))


def _grid(pictures: torch.Tensor) -> np.ndarray:
    """(rows, columns, 3, H, W) in [-1, 1] to one uint8 picture."""
    shown = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
    rows, columns, _, height, width = shown.shape
    return np.ascontiguousarray(shown.transpose(0, 3, 1, 4, 2)).reshape(rows * height, columns * width, 3)


# A VAE that changes moves the target of the denoiser, and costs as much again: so it comes first, and then stays.
_VAE_FIRST = replace(DiceTalkConfig.tiny().vae, alone_steps=800, joint=False)
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

"""The system mf-etalk: MF-ETalk, trained in two stages on a build.

    stage image    portraits and frames, each frame by itself: appearance, identity and place of the face
    stage motion   clips with their motion frames, sound and action units, from an image stage's weights (`init`)

Ablations a, b and c of the paper's Table 3 are `ablation`. What the model reads is documented in `models.mf_etalk`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveInt, ValidationInfo, field_validator

from ..core.errors import ConfigError, InputError
from ..core.terminal import say
from ..core.weights import weights_store
from ..models.mf_etalk.config import MfEtalkConfig
from ..models.training.system import Loss, SystemSpec, TrainParts
from .model_settings import only_fields_of
from .talking_aus import Neutrals, Source, check_columns, filled, intensities, neutral_faces, unit_columns
from .talking_batches import TalkingClip, TalkingClips, seen_boxes
from .talking_groups import usable_groups
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
from .trained import settings_of, weights_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..models.diffusion.batch import Encoders
    from ..models.mf_etalk.emotion_loss import ExpressionJudge
    from ..models.mf_etalk.model import MfEtalk

HERE = "talkforge.tasks.train_mf_etalk"
STRIDE = 1  # all of the build's 25 frames a second
# The outer line of the lips in MediaPipe's mesh.
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)


class MfEtalkTrainConfig(TalkingTrainConfig):
    """Settings of the training.

    Attributes:
        stage: image first, then motion.
        ablation: a: Hallo as it is; b: with action units and fusion; c: with the emotion loss too.
        model: the network; `stage` and `ablation` decide what they decide of it.
        init: folder of a training that the motion stage starts from: an image stage, or a motion stage to go on from
            with other settings.
        aus: extractor of the action units.
        identity_column: ArcFace embeddings, for models that do not make their own (`model.vae` sd).
        frames: pictures of a window, 25 a second; None takes `model.motion.frames`.
    """

    stage: Literal["image", "motion"] = "motion"
    ablation: Literal["a", "b", "c"] | None = None
    model: Annotated[MfEtalkConfig, only_fields_of(MfEtalkConfig)] = Field(MfEtalkConfig(), validate_default=True)
    init: Path | None = None
    aus: Source = "au-blendshape-proxy"
    identity_column: str = "identity_arcface_r50_embedding"
    frames: PositiveInt | None = None

    @field_validator("model")
    @classmethod
    def _as_staged(cls, model: MfEtalkConfig, info: ValidationInfo) -> MfEtalkConfig:
        ablation = info.data.get("ablation")
        model = model if ablation is None else model.ablated(ablation)
        return replace(model, stage="image" if info.data.get("stage") == "image" else "temporal")

    @field_validator("init")
    @classmethod
    def _from_anywhere(cls, init: Path | None) -> Path | None:
        return resolved(init)

    @property
    def pictures(self) -> int:
        """Of a window, without motion frames."""
        return self.frames or self.model.motion.frames

    @property
    def before(self) -> int:
        """Motion frames."""
        return self.model.motion.motion_frames if self.stage == "motion" else 0

    @property
    def guided(self) -> bool:
        """Whether action units are read."""
        return self.stage == "motion" and self.model.fusion.on


@dataclass(frozen=True)
class MfExtras:
    """What MF-ETalk reads of a window beside its pictures, see `models.mf_etalk.batch`."""

    config: MfEtalkTrainConfig
    neutrals: Neutrals | None

    def __call__(self, clip: TalkingClip, start: int) -> Mapping[str, np.ndarray]:
        """Raises InputError where a mask cannot be made or the clip has no identity embedding."""
        found = {} if self.config.model.vae == "tiny" else {"identity": self._identity(clip)}
        if self.config.stage == "image":
            return found
        places = range(start, start + self.config.pictures)
        audio = heard(clip.columns[self.config.audio_column], places, self.config.model.audio.layers)
        return found | {"audio": audio, "regions": self._regions(clip, start), **self._aus(clip, start)}

    def _aus(self, clip: TalkingClip, start: int) -> dict[str, np.ndarray]:
        neutral = None if self.neutrals is None else self.neutrals.of_clip[clip.clip_id]
        if neutral is None:
            return {}
        track = filled(intensities(clip.columns, self.config.aus))
        return {"aus": track[start : start + self.config.pictures], "au_neutral": neutral}

    def _regions(self, clip: TalkingClip, start: int) -> np.ndarray:
        """Masks (1, 3, g, g) from the boxes around face and lips in the window."""
        from ..models.mf_etalk.masks import region_masks

        side = int(clip.columns["crop_size"])
        face, lip = (
            around(seen_boxes(boxes, start, self.config.pictures)) for boxes in (clip.boxes, clip.parts["lips"])
        )
        return region_masks(face, lip, side, side, self.config.model.face).numpy()[None]

    def _identity(self, clip: TalkingClip) -> np.ndarray:
        """The mean of the clip's embeddings, (D,); those of the portrait's person."""
        found = clip.columns[self.config.identity_column]
        seen: np.ndarray = np.logical_and.reduce(np.isfinite(found), axis=1)
        if not seen.any():
            raise InputError(f"{clip.clip_id} has no identity embedding in {self.config.identity_column}")
        return found[seen].mean(0).astype(np.float32)


def around(boxes: np.ndarray) -> tuple[float, float, float, float]:
    """The box around boxes (n, 4)."""
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


@dataclass(frozen=True)
class Outside:
    """The frozen networks that stand outside of the model, and how a batch goes through it with them."""

    encoders: Encoders | None
    judge: ExpressionJudge | None

    def loss(self, net: Any, batch: Mapping[str, Any], draws: torch.Generator | None = None) -> tuple[Any, Any]:
        """The model's loss and its parts."""
        self._to(batch["pictures"].device)
        return net(batch, draws, judge=self.judge, encoders=self.encoders)

    def draw(self, net: Any, batch: Mapping[str, Any], draws: torch.Generator) -> torch.Tensor:
        """Pictures (B, F, 3, H, W)."""
        import torch

        from ..models.mf_etalk.batch import prepare

        self._to(batch["pictures"].device)
        known = {key: value for key, value in batch.items() if key not in {"pictures", "motion"}}
        encoders = self.encoders or net.encoders
        assert encoders is not None
        latents = net.sample(prepare(known, encoders), draws)
        return torch.stack([encoders.decode(clip) for clip in latents])

    def _to(self, place: torch.device) -> None:
        for network in (self.encoders, self.judge):
            if network is not None:
                network.to(place)  # type: ignore[attr-defined]  # frozen encoders are modules


def build(config: MfEtalkTrainConfig, data: Path, rank: int, world_size: int) -> TrainParts:
    """The parts of a training on a build's split train, with validation on val if that has clips.

    Raises:
        InputError: the build lacks a column or action units, none of its clips can be used, or `init` does not fit.
        ConfigError: settings that cannot be trained.
        WeightsMissing: the weights of the base (`model.vae` sd) or of the emotion loss's network are not there.
    """
    check(config)
    talking = clips_of(config, data, "train", told=rank == 0)
    outside = _outside(config)
    model = _model(config)
    talking = replace(talking, pinned=_pinned(config, outside))
    batches = talking.loader(config, seed=config.seed, rank=rank, world_size=world_size)

    def loss_fn(net: nn.Module, batch: Mapping[str, Any]) -> Loss:
        total, parts = outside.loss(net, batch)
        return Loss(total, {name: value for name, value in parts.items() if value is not None})

    def score(net: nn.Module, batch: Mapping[str, Any], draws: torch.Generator) -> torch.Tensor:
        return outside.loss(net, batch, draws)[1]["denoise"]

    watched = clips_of(config, data, "val") if validated(config, data) else None
    return TrainParts(
        model,
        loss_fn,
        batches,
        sample=TalkingSampler(config, talking, outside.draw),
        validate=None if watched is None else validation(config, watched, score),
    )


def parameters(config: MfEtalkTrainConfig) -> dict[str, int]:
    """See `models.mf_etalk.parameters.count_parameters`. Raises MissingPackage without diffusers (extra train)."""
    from ..models.mf_etalk.parameters import count_parameters

    return count_parameters(config.model)


def check(config: MfEtalkTrainConfig) -> None:
    """Raises ConfigError for settings that can be counted but not trained, InputError where `init` is no training."""
    model = config.model
    if config.pictures + config.before > model.motion.max_frames:
        raise ConfigError(f"frames {config.pictures} and {config.before} motion frames exceed model.motion.max_frames")
    if config.stage == "image" and config.init is not None:
        raise ConfigError("stage image starts from the base", hint="init belongs to stage motion")
    if config.init is not None:
        if not config.init.is_dir():
            raise InputError(f"init: there is no folder {config.init}")
        settings_of(config.init, "mf-etalk", MfEtalkTrainConfig)  # refuses what is no training of it
    if config.stage == "motion" and config.init is None and model.temporal_trains == "new":
        raise ConfigError(
            "stage motion trains only what it adds (model.temporal_trains new), and so needs a trained image stage",
            hint="train with --set stage=image first, then give --set init=FOLDER",
        )


def clips_of(config: MfEtalkTrainConfig, data: Path, split: str, *, told: bool = False) -> Talking:
    """The split's clips. Raises InputError where columns or values are missing."""
    columns = {} if config.model.vae == "tiny" else {"identity_column": config.identity_column}
    if config.stage == "motion":
        columns["audio_column"] = config.audio_column
    if config.guided:
        check_columns(data, config.aus)
        columns |= {f"aus {unit}": column for unit, column in unit_columns(config.aus).items()}
    shards = open_split(data, split, columns)
    groups, starts = usable_groups(shards, config.before + config.pictures, list(columns.values()), STRIDE)
    if config.stage == "motion":
        check_audio(shards, config.audio_column, config.model.audio.layers, groups)
    neutrals = _neutrals(config, data, split, told=told) if config.guided else None
    if neutrals is not None:
        groups = _with_aus(shards.clip_ids, groups, neutrals)
    rows = TalkingClips(
        shards,
        frames=config.pictures,
        size=config.model.size,
        box_scale=config.model.face.face_scale,
        extras=MfExtras(config, neutrals),
        picture_cache=config.picture_cache_mb * MIB,
        stride=STRIDE,
        before=config.before,
        parts={"lips": LIPS} if config.stage == "motion" else None,
    )
    return Talking(rows, groups, starts)


def _neutrals(config: MfEtalkTrainConfig, data: Path, split: str, *, told: bool) -> Neutrals:
    found = neutral_faces(data, split, config.aus)
    if told and found.estimated:
        say(
            f"neutral faces: {found.labelled} people have clips that are labelled neutral; of {found.estimated} others "
            "the median of all their frames is taken"
        )
    return found


def _with_aus(clip_ids: list[str], groups: list[str | None], neutrals: Neutrals) -> list[str | None]:
    """Groups without clips that have no action units."""
    found = [None if neutrals.of_clip[c] is None else group for c, group in zip(clip_ids, groups, strict=True)]
    if not any(found):
        raise InputError("no clip that is long enough has action units", hint="give fewer frames, or other clips")
    return found


def _outside(config: MfEtalkTrainConfig) -> Outside:
    encoders = judge = None
    if config.model.vae == "sd":
        from ..models.mf_etalk.base_weights import load_encoders

        encoders = load_encoders()
    if config.stage == "motion" and config.model.emotion.weight:
        from ..models.mf_etalk.emotion_loss import load_judge

        judge = load_judge(config.model.emotion)
    return Outside(encoders, judge)


def _pinned(config: MfEtalkTrainConfig, outside: Outside) -> dict[str, str]:
    """What the training must not be given another one of when it goes on, sha256 by name."""
    found = {} if config.init is None else {"init": weights_of(config.init).sha256}
    if outside.judge is not None:
        found["network of the emotion loss"] = weights_store().sha256(outside.judge.weights)
    return found


def _model(config: MfEtalkTrainConfig) -> MfEtalk:
    """The network as its stage begins."""
    from ..models.mf_etalk.model import MfEtalk

    model = MfEtalk(config.model)
    if config.init is not None:
        from ..models.mf_etalk.stages import start_from

        before = settings_of(config.init, "mf-etalk", MfEtalkTrainConfig)
        start_from(model, weights_of(config.init).weights, before.model.stage)
    elif config.model.vae == "sd":
        from ..models.mf_etalk.base_weights import fill

        fill(model)
    return model


# As in dice-talk: the VAE comes first and then stays, for one that changes moves the target of the denoiser.
_VAE_FIRST = replace(MfEtalkConfig.tiny().tiny_vae, alone_steps=300, joint=False)
_TINY = {
    "model": asdict(MfEtalkConfig.tiny(tiny_vae=_VAE_FIRST)),
    "batch_size": 4,
    # A ReferenceNet finds places by what is there, and pure noise shows nothing: how a face differs from any frame was
    # not learnt in 2,000 batches, how from the first one in 500.
    "portraits": "first",
    "picture_cache_mb": 512,
    "steps": 4000,
    "checkpoint_every": 500,
    "sample_every": 250,
    "optimiser": {"lr": 1e-3},
    "schedule": {"name": "cosine", "warmup": 50, "final": 0.05},
    "ema": {"decay": 0.995},
}
# Hallo's two stages have 30 000 steps each.
_FULL = {"steps": 30_000, "optimiser": {"lr": 1e-5}, "sample_every": 2000, "audio_column": "wav2vec2_base_960h_states"}

SYSTEMS = (
    SystemSpec(
        id="mf-etalk",
        what="MF-ETalk: portrait, voice and action units to a talking head",
        config=f"{HERE}:MfEtalkTrainConfig",
        build=f"{HERE}:build",
        parameters=f"{HERE}:parameters",
        presets={"tiny": _TINY, "full": _FULL},
    ),
)

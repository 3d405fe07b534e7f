"""The system dice-embedder: DICE-Talk's disentangled emotion embedder, trained with eq. 8 on a build.

A batch has a few clips of each of a few groups; clips of one group are each other's positives. A group is an identity
with an emotion, or, where a clip has no such labels, the file that it is cut from (paper, section 4.1: "same identity
and emotion in MEAD", "segments from the same video in HDTF"). Of each clip comes a random window. With several
processes each contrasts the clips of its own batches only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from ..core.errors import ConfigError, InputError
from ..datasets.pairs import GroupPairs, paired_groups
from ..datasets.shards import ClipShards, read_info
from ..models.dice_talk.config import EmbedderConfig
from ..models.training.config import TrainConfig
from ..models.training.system import Loss, SystemSpec, TrainParts
from .extractor import extractors
from .model_settings import only_fields_of
from .recipe import column_name

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..models.dice_talk.embedder import EmotionEmbedder

HERE = "talkforge.tasks.train_dice_embedder"
# Of each kind of coefficients: the column, its numbers a frame, and which of them are the expression.
EXPRESSIONS = {
    "arkit52": ("arkit52_blendshapes", 52, slice(0, 52)),
    "deep3d": ("deep3d_coefficients", 257, slice(80, 144)),
}
LABELS = ("identity", "emotion", "source")  # the columns that say which clips belong together
VALIDATION_SEED = 0


class DiceEmbedderConfig(TrainConfig):
    """Settings of the training.

    Attributes:
        model: the network and its objective.
        expression_column: coefficients of the face; None takes the column that belongs to `model.expression`.
        audio_column: Whisper's hidden states, all of them.
        groups_per_batch, clips_per_group: see `datasets.pairs.GroupPairs`.
        window: frames of a clip that are taken; shorter clips come whole.
        validation_batches: of the split val, at each checkpoint; 0 does without.
    """

    model: Annotated[EmbedderConfig, only_fields_of(EmbedderConfig)] = EmbedderConfig()
    expression_column: str | None = None
    audio_column: str = "whisper_tiny_states"
    groups_per_batch: int = Field(default=32, ge=2)
    clips_per_group: int = Field(default=4, ge=2)
    window: PositiveInt = 128
    validation_batches: NonNegativeInt = 20

    @property
    def expression(self) -> str:
        """The column of the coefficients."""
        return self.expression_column or EXPRESSIONS[self.model.expression][0]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.window > self.model.max_frames:
            text = f"window is {self.window} frames, and the embedder takes {self.model.max_frames}"
            raise ConfigError(text, hint="a smaller window, or a larger model.max_frames")
        return self


@dataclass(frozen=True)
class Collate:
    """Rows of a build to a batch of the embedder, with `clip_id`. Where either modality has no value neither counts.

    Attributes:
        expression, audio: columns.
        states: L + 1, hidden states in a row of `audio`.
        part: which numbers of `expression` are the expression.
    """

    expression: str
    audio: str
    states: int
    part: slice

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Clips without a frame that counts are left out. Raises InputError if that leaves none."""
        from ..models.dice_talk.losses import embedder_batch

        items = [item for item in map(self._item, rows) if np.isfinite(item["expression"]).all(1).any()]
        if not items:
            raise InputError(f"no frame of {', '.join(row['clip_id'] for row in rows)} has both a face and sound")
        return {**embedder_batch(items), "clip_id": [item["clip_id"] for item in items]}

    def _item(self, row: Mapping[str, Any]) -> dict[str, Any]:
        from ..models.dice_talk.losses import shard_clip

        named = {**row, "video": row.get("source")}
        item = shard_clip(named, states=self.states, expression=self.expression, audio=self.audio)
        frames = len(item["expression"])
        heard = np.isfinite(item["audio"]).reshape(frames, -1).all(1)
        return item | {"expression": np.where(heard[:, None], item["expression"][:, self.part], np.nan)}


def build(config: DiceEmbedderConfig, data: Path, rank: int, world_size: int) -> TrainParts:
    """The parts of a training on a build's split train, and on val if that has groups too.

    Raises:
        InputError: the build lacks a column, its columns have other widths, or no two groups have two clips each.
        ConfigError: unknown settings.
    """
    from ..models.dice_talk.embedder import EmotionEmbedder
    from ..models.dice_talk.losses import embedder_loss

    shards = _open(config, data, "train")
    groups = groups_of(shards, config)
    _check_groups(shards, groups)
    model = EmotionEmbedder(config.model)
    batches = _loader(config, shards, groups, seed=config.seed, rank=rank, world_size=world_size)

    def loss_fn(net: nn.Module, batch: Mapping[str, torch.Tensor]) -> Loss:
        total, parts = embedder_loss(_Seen(net, model), batch)  # pyright: ignore[reportArgumentType]
        known = {name: value for name, value in parts.items() if value is not None and name != "loss"}
        return Loss(total, known)

    return TrainParts(model, loss_fn, batches, validate=_validation(config, data))


def parameters(config: DiceEmbedderConfig) -> dict[str, int]:
    """Parameters of each part of the embedder, on the meta device."""
    import torch

    from ..models.dice_talk.embedder import EmotionEmbedder

    with torch.device("meta"):
        model = EmotionEmbedder(config.model)
    parts = {name: sum(value.numel() for value in part.parameters()) for name, part in model.named_children()}
    return {"embedder": sum(parts.values()), **parts}


def groups_of(shards: ClipShards, config: DiceEmbedderConfig) -> list[tuple[str, ...] | None]:
    """Each clip's group; None where it has no labels, or where one of its features could not be had."""
    known = {name: shards.values(name) for name in LABELS if name in shards.info["columns"]}
    absent = [None] * len(shards)
    labels = zip(*(known.get(name, absent) for name in LABELS), strict=True)
    reasons = [_reason_column(column) for column in (config.expression, config.audio_column)]
    failures = [shards.values(name) for name in reasons if name in shards.info["columns"]]
    failed = [any(reason is not None for reason in clip) for clip in zip(*failures, strict=True)] or absent
    return [None if bad else _group(*label) for bad, label in zip(failed, labels, strict=True)]


def _group(identity: str | None, emotion: str | None, source: str | None) -> tuple[str, ...] | None:
    if identity is not None and emotion is not None:
        return "emotion", identity, emotion
    return ("video", source) if source is not None else None


def _reason_column(column: str) -> str:
    """Where a build says why an extractor's columns are null for a clip."""
    return column.rpartition("_")[0] + "_reason"


def _open(config: DiceEmbedderConfig, data: Path, split: str) -> ClipShards:
    """The split with the columns of the training. Raises InputError if it lacks one, or one has another width."""
    info = read_info(data)
    for option, column in (("expression_column", config.expression), ("audio_column", config.audio_column)):
        if column not in info["columns"]:
            raise InputError(f"the build has no column '{column}'", hint=_way_out(option, column, info["columns"]))
    labels = [name for name in LABELS if name in info["columns"]]
    shards = ClipShards(data, split, columns=[config.expression, config.audio_column, *labels])
    if len(shards):
        _check_widths(shards, config)
    return shards


def _way_out(option: str, column: str, there: Mapping[str, str]) -> str:
    """The extractor that makes the column, and columns of the same kind that the build does have."""
    makers = [spec.id for spec in extractors.all() if column in {column_name(spec, name) for name in spec.columns}]
    hints = [f"build it with the extractor {makers[0]}"] if makers else []
    kind = column.rpartition("_")[2]
    alike = [name for name in there if name.endswith(f"_{kind}")]
    return ", or ".join([*hints, *(f"give --set {option}={name}" for name in alike)]) or f"give --set {option}=NAME"


def _check_widths(shards: ClipShards, config: DiceEmbedderConfig) -> None:
    row, model = shards.window(0, 0, 1), config.model
    steps = shards.info.get("steps_per_frame", {}).get(config.audio_column, 1)
    expression, audio = row[config.expression], row[config.audio_column]
    found = (expression.shape[1:], audio.shape[1:], steps)
    wanted = ((EXPRESSIONS[model.expression][1],), (model.audio_states * model.audio_width,), model.steps_per_frame)
    names = (f"{config.expression}: numbers a frame", f"{config.audio_column}: numbers a step", "audio steps a frame")
    for name, here, there in zip(names, found, wanted, strict=True):
        if here != there:
            hint = "see model.expression, model.audio_states, model.audio_width and model.steps_per_frame"
            raise InputError(f"{name}: {_text(here)} in the build, {_text(there)} in the model", hint=hint)


def _text(size: tuple[int, ...] | int) -> str:
    return str(size) if isinstance(size, int) else " x ".join(map(str, size)) or "1"


def _check_groups(shards: ClipShards, groups: Sequence[tuple[str, ...] | None]) -> None:
    """Raises InputError where there is nothing to contrast."""
    pairs = len(paired_groups(groups))
    if pairs > 1:
        return
    known = {group for group in groups if group is not None}
    text = f"{pairs} of {len(known)} groups of the split train ({len(shards)} clips) have two clips or more"
    if any(kind == "emotion" for kind, *_ in known):
        raise InputError(f"{text}; contrast needs two such groups", hint="a group is an identity with an emotion")
    hint = "a folder's labels come from its --annotations when it is built"
    raise InputError(f"no usable clip has both identity and emotion, and by source {text}", hint=hint)


def _loader(
    config: DiceEmbedderConfig,
    shards: ClipShards,
    groups: Sequence[tuple[str, ...] | None],
    *,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
) -> Any:
    from ..models.training.loader import Loader

    sampler = GroupPairs(
        groups,
        config.groups_per_batch,
        config.clips_per_group,
        lengths=shards.lengths,
        window=config.window,
        seed=seed,
        rank=rank,
        world_size=world_size,
    )
    _, _, part = EXPRESSIONS[config.model.expression]
    collate = Collate(config.expression, config.audio_column, config.model.audio_states, part)
    return Loader(shards, sampler, collate, workers=config.workers, seed=seed)


def _validation(config: DiceEmbedderConfig, data: Path) -> Callable[[nn.Module], float] | None:
    """Mean loss over the same batches and draws each time; None where the split val has nothing to contrast."""
    if not config.validation_batches or not read_info(data)["shards"].get("val"):
        return None
    shards = _open(config, data, "val")
    groups = groups_of(shards, config)
    if len(paired_groups(groups)) < 2:
        return None
    calm = config.model_copy(update={"workers": 0})

    def validate(model: nn.Module) -> float:
        import torch

        from ..models.dice_talk.losses import embedder_loss
        from ..models.training.feed import to_device

        draws = torch.Generator().manual_seed(VALIDATION_SEED)
        place = next(model.parameters()).device
        batches = islice(_loader(calm, shards, groups, seed=VALIDATION_SEED), config.validation_batches)
        found = [embedder_loss(model, to_device(batch, place), draws)[0].item() for batch in batches]  # pyright: ignore[reportArgumentType]
        return sum(found) / len(found)

    return validate


class _Seen:
    """Calls go to the network as the loop wraps it for several processes, which hides its attributes; else its own."""

    def __init__(self, wrapped: nn.Module, own: EmotionEmbedder) -> None:
        self._wrapped, self._own = wrapped, own

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self._wrapped(*given, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)


_TINY = {
    "model": asdict(EmbedderConfig.tiny()),
    "steps": 400,
    "groups_per_batch": 8,
    "clips_per_group": 2,
    "window": 48,
    "validation_batches": 4,
    "checkpoint_every": 100,
    "optimiser": {"lr": 1e-3},
    "ema": {"decay": 0.99},
}
# Deep3D's coefficients, which the released system reads, need weights that one has to ask for; ARKit's do not.
_FULL = {"model": {"expression": "arkit52"}, "steps": 100_000, "schedule": {"warmup": 1000}, "checkpoint_every": 2000}

SYSTEMS = (
    SystemSpec(
        id="dice-embedder",
        what="DICE-Talk's emotion embedder: a clip's expression and voice to a Gaussian over emotion priors",
        config=f"{HERE}:DiceEmbedderConfig",
        build=f"{HERE}:build",
        parameters=f"{HERE}:parameters",
        presets={"tiny": _TINY, "full": _FULL},
    ),
)

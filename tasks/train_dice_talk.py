"""The system dice-talk: DICE-Talk's diffusion model. Its size and settings are known; builds do not feed it yet."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from ..core.errors import ConfigError
from ..models.dice_talk.denoiser_config import DiceTalkConfig
from ..models.training.config import TrainConfig
from ..models.training.system import SystemSpec, TrainParts
from .model_settings import only_fields_of

HERE = "talkforge.tasks.train_dice_talk"


class DiceTalkTrainConfig(TrainConfig):
    """Settings of the training; `model` is the diffusion part with its emotion bank."""

    model: Annotated[DiceTalkConfig, only_fields_of(DiceTalkConfig)] = DiceTalkConfig()


def build(config: DiceTalkTrainConfig, data: Path, rank: int, world_size: int) -> TrainParts:
    """Raises ConfigError: a build's clips cannot be made into this model's batches yet."""
    raise ConfigError(
        "dice-talk cannot be trained on a build yet: nothing makes its pictures, priors and face masks of one",
        hint="--dry-run shows its size and settings; dice-embedder can be trained",
    )


def parameters(config: DiceTalkTrainConfig) -> dict[str, int]:
    """See `models.dice_talk.parameters.count_parameters`. Raises MissingPackage without diffusers (extra train)."""
    from ..models.dice_talk.parameters import count_parameters

    return count_parameters(config.model)


SYSTEMS = (
    SystemSpec(
        id="dice-talk",
        what="DICE-Talk's diffusion model: portrait, voice and emotion prior to a talking head",
        config=f"{HERE}:DiceTalkTrainConfig",
        build=f"{HERE}:build",
        parameters=f"{HERE}:parameters",
        presets={"tiny": {"model": asdict(DiceTalkConfig.tiny())}, "full": {}},
    ),
)

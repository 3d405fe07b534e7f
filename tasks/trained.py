"""A training's folder as those see it who use what was trained: system, settings, data, and which weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import yaml

from ..core.config import read_yaml, validate
from ..core.errors import ConfigError, InputError
from ..core.hashing import file_sha256
from ..models.training.config import TrainConfig

if TYPE_CHECKING:
    import torch

C = TypeVar("C", bound=TrainConfig)


@dataclass(frozen=True)
class Trained:
    """Which training's which weights.

    Attributes:
        run: the training's folder.
        data: the build that it was trained on, as its configuration names it.
        checkpoint: folder of the chosen one.
        weights: file of its averaged weights.
        sha256: of that file.
    """

    run: Path
    data: Path
    checkpoint: Path
    weights: Path
    sha256: str


def system_of(run: Path) -> str:
    """The system that a folder is a training of. Raises InputError if it is none."""
    path = run / "config.yaml"
    if not path.is_file():
        raise InputError(f"{run} is no training", hint="give the --out of a talkforge train command")
    found = read_yaml(path)
    if not {"system", "data", "settings"} <= found.keys():
        raise InputError(f"{path} is not the configuration of a training", hint="give the --out of talkforge train")
    return str(found["system"])


def settings_of(run: Path, system: str, kind: type[C]) -> C:
    """The training's settings.

    Raises:
        InputError: no training there, or of another system.
        ConfigError: settings that are not this version's.
    """
    there = system_of(run)
    if there != system:
        raise InputError(f"{run} is a training of {there}, and one of {system} is needed")
    path = run / "config.yaml"
    try:
        return validate(kind, read_yaml(path)["settings"], where=str(path))
    except (ConfigError, yaml.YAMLError) as error:
        hint = "train it again, or use the talkforge_version that its train.json names"
        raise ConfigError(f"{path} does not fit this version of talkforge: {error}", hint=hint) from error


def weights_of(run: Path, which: str | int = "last") -> Trained:
    """The weights to use. Raises InputError where there is no such checkpoint."""
    from ..models.training.weights import choose_checkpoint, weights_file

    checkpoint = choose_checkpoint(run, which)
    path = weights_file(checkpoint)
    if not path.is_file():
        raise InputError(f"{checkpoint} holds no weights", hint="the checkpoint is damaged; take another")
    return Trained(run, Path(str(read_yaml(run / "config.yaml")["data"])), checkpoint, path, file_sha256(path))


def device_of(name: str) -> torch.device:
    """ "auto" takes a GPU where there is one. Raises ConfigError for one that is not there."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda: there is no GPU that torch can use", hint="give --set device=cpu")
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))

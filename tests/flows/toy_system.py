"""A system for the tests of the command train, declared as those of `tasks` are."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
from talkforge.models.training.config import TrainConfig
from talkforge.models.training.counting import count_parameters
from talkforge.models.training.system import SystemSpec, TrainParts
from talkforge.tests.models.toy_training import Clips, Net, loader, loss_fn

HERE = __name__


class ToyConfig(TrainConfig):
    """Beside the usual: width, clips that hold infinities, and a step at which the process is told to end."""

    hidden: int = 8
    bad: tuple[int, ...] = ()


def build(config: ToyConfig, data: Path, rank: int, world_size: int) -> TrainParts:
    def loss(model: Any, batch: Any) -> Any:
        if (data / "stop").exists():
            (data / "stop").unlink()
            os.kill(os.getpid(), signal.SIGTERM)
        return loss_fn(model, batch)

    def sample(model: Any, step: int) -> np.ndarray:
        return np.full((8, 8, 3), step % 256, np.uint8)

    return TrainParts(Net(config.hidden), loss, loader(Clips(bad=config.bad), seed=config.seed), sample=sample)


def parameters(config: ToyConfig) -> dict[str, int]:
    return count_parameters({"net": lambda: Net(config.hidden)})


TINY = {"steps": 30, "tensorboard": False, "device": "cpu", "sample_every": 10, "checkpoint_every": 10}
TOY = SystemSpec(
    "toy", "a toy", f"{HERE}:ToyConfig", f"{HERE}:build", f"{HERE}:parameters", {"tiny": TINY, "full": {"hidden": 999}}
)

"""A small system for the tests of training: two layers with dropout and running means, over made-up clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from talkforge.datasets.batches import LengthBuckets
from talkforge.datasets.shards import stack
from talkforge.models.training.config import TrainConfig
from talkforge.models.training.loader import Loader
from talkforge.models.training.loop import Trainer
from talkforge.models.training.rng import seed_everything
from talkforge.models.training.system import Loss
from torch import nn

WIDTH = 6
FAST = {"log_every": 1, "tensorboard": False, "device": "cpu", "checkpoint_every": 1000}


class Net(nn.Module):
    """Frames (B, T, 6) to one number a clip."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(hidden, 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(torch.tanh(self.norm(self.first(frames.mean(1))))))[:, 0]


class Clips:
    """Clips of 5 to 30 frames, made from their number; `bad` ones hold an infinity."""

    def __init__(self, count: int = 23, bad: Sequence[int] = ()) -> None:
        self.lengths = np.random.default_rng(5).integers(5, 30, count)
        self.bad = set(bad)

    def __getitem__(self, key: Any) -> dict[str, Any]:
        clip, start, frames = key
        rng = np.random.default_rng([7, clip])
        whole = rng.normal(size=(30, WIDTH)).astype(np.float32)[start : start + frames]
        if clip in self.bad:
            whole[0, 0] = np.inf
        return {"clip_id": f"toy/{clip}", "n_frames": frames, "frames": whole, "target": float(whole[:, 0].mean())}


class Draws:
    """A number of torch's own generator for each key: what a worker draws by itself."""

    def __getitem__(self, key: Any) -> torch.Tensor:
        return torch.randn(1)


def loader(clips: Clips | None = None, *, workers: int = 0, seed: int = 0, size: int = 4) -> Loader:
    """Random windows of equal length."""
    clips = clips or Clips()
    return Loader(clips, LengthBuckets(clips.lengths, size, window=5, seed=seed), stack, workers=workers)


def loss_fn(model: nn.Module, batch: Mapping[str, Any]) -> Loss:
    """Squared distance, with noise from torch and numpy so that both generators matter."""
    frames = batch["frames"] + 0.01 * torch.randn(batch["frames"].shape) + 0.01 * float(np.random.normal())
    error = (model(frames).float() - batch["target"].float()).square().mean()
    decay = sum(value.square().sum() for value in model.parameters())
    return Loss(error + 1e-4 * decay, {"error": error, "decay": decay})


def trainer(
    out: Path, *, clips: Clips | None = None, batches: Any = None, net: Net | None = None, **how: Any
) -> Trainer:
    """Ready to fit. Keyword values that `Trainer` knows go there, the others are settings."""
    own = {name: how.pop(name) for name in ("sample", "validate", "names", "on_checkpoint") if name in how}
    loss = how.pop("loss", loss_fn)
    config = TrainConfig.model_validate({"steps": 40, **FAST, **how})
    seed_everything(config.seed)
    given = batches or loader(clips, workers=config.workers)
    return Trainer(config, net or Net(), loss, given, out, **own)


class Endless:
    """Batches from a list, for tests without clips."""

    def __init__(self, batches: Sequence[Any]) -> None:
        self.batches, self._start, self._epoch = list(batches), 0, 0

    def __iter__(self) -> Iterator[Any]:
        start, self._start = self._start, 0
        return iter(self.batches[start:])

    def set_epoch(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._epoch, self._start = epoch, 0

    def state_dict(self, batches_done: int) -> dict[str, Any]:
        return {"epoch": self._epoch, "batches_done": batches_done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._epoch, self._start = state["epoch"], state["batches_done"]

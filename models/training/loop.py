"""The training loop that all systems share.

What it promises:

- A training that was stopped and goes on gives the same losses, to the bit, as one that was not: on a CPU, and on a
  GPU with `deterministic`. Model, average, optimiser, every random generator and the place in the data are stored.
- SIGTERM and Ctrl-C end the step that is under way, store it and raise `Interrupted` (exit code 3). A kill at any
  moment leaves the last checkpoint whole.
- A loss, part of it or gradient that is not finite never reaches the weights: the state before that step is stored, and
  the error names the step and its clips.
- Samples and validation leave no trace in what is learned.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn, cast

import torch
from PIL import Image
from torch import nn

from ...core.errors import ConfigError, InputError, Interrupted, TalkForgeError
from ...core.progress import track
from ...core.shards import atomic_path
from .config import TrainConfig
from .ema import Ema
from .feed import Feed, to_device
from .log import StepLog
from .optimiser import build_optimiser, clip_gradients, rate_factor, set_rate, trainable
from .processes import Processes, start_processes
from .rng import rng_state, set_rng_state, untouched
from .state import (
    Checkpoint,
    check_fit,
    checkpoints_in,
    clear_temporary,
    load_optimiser,
    optimiser_tensors,
    prune,
    read_checkpoint,
    save_checkpoint,
)
from .stop import StopWish
from .system import Batches, Loss, LossFn, SampleFn, ValidateFn

MOST_CLIPS = 20  # named in one message


class NotFinite(TalkForgeError):
    """A loss or gradient is infinite or not a number."""

    reason: ClassVar[str] = "not_finite"


@dataclass(frozen=True)
class _Moment:
    """What a step changes before it is known to be good; the weights are not among it."""

    place: tuple[int, int]
    rng: tuple[dict[str, torch.Tensor], dict[str, Any]]
    buffers: dict[str, torch.Tensor]


def mean_parts(found: Iterable[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Each part's mean over the batches of all processes that have it.

    Args:
        found: of each process, by name, a value for each such batch.
    """
    every: dict[str, list[float]] = {}
    for own in found:
        for name, values in own.items():
            every.setdefault(name, []).extend(values)
    return {name: sum(values) / len(values) for name, values in every.items()}


def clip_ids(batch: Any) -> Sequence[str]:
    """A batch's `clip_id`; empty where it has none."""
    return [str(name) for name in batch.get("clip_id", ())] if isinstance(batch, Mapping) else []


class Trainer:
    """Trains a model; `resume` first where a checkpoint shall be gone on from, then `fit`.

    Args:
        config: the settings. The caller has seeded (`rng.seed_everything`) before the model was made.
        model: its modules stay in the modes they are in; float32.
        loss_fn: (model, batch on the device) -> scalar loss, or `Loss` with parts for the log.
        batches: see `system.Batches`.
        out: gets `checkpoints/`, `log.jsonl` and `samples/`.
        sample: draws a picture every `sample_every` steps and at the end.
        validate: gives a score at each checkpoint, lower is better; the best checkpoint is kept.
        names: a batch's clip ids; `clip_ids` when None.
        on_checkpoint: called with each checkpoint's folder.
        processes: found out when None.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        loss_fn: LossFn,
        batches: Batches,
        out: Path,
        *,
        sample: SampleFn | None = None,
        validate: ValidateFn | None = None,
        names: Callable[[Any], Sequence[str]] | None = None,
        on_checkpoint: Callable[[Path], None] | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.config, self.loss_fn, self.out = config, loss_fn, out
        self.processes = processes or start_processes(config.device)
        self.device = self.processes.device
        self.model = model.to(self.device)
        if config.gradient_checkpointing:
            _recompute(model)
        self._wrapped = self.processes.wrap(self.model)
        self.optimiser = build_optimiser(config.optimiser, self.model)
        self.ema = Ema(self.model, config.ema) if config.ema else None
        self.feed = Feed(batches)
        self.step = 0
        self._sample, self._validate, self._on_checkpoint = sample, validate, on_checkpoint
        self._names = names or clip_ids
        self._stop = StopWish()
        self._log: StepLog | None = None
        self._stored: int | None = None

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.out / "checkpoints"

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.processes.rank == 0

    def resume(self, path: Path | None = None) -> int:
        """Takes a checkpoint up, the last one when None, and returns its step. Of no use after an error.

        Raises:
            InputError: there is no checkpoint.
            WeightsError: it is of a model of other sizes; names the tensors and both shapes.
            ConfigError: it is of other clips, batches or processes.
        """
        path = path or next(reversed(checkpoints_in(self.checkpoints)), None)
        if path is None:
            raise InputError(f"there is no checkpoint in {self.checkpoints}")
        found = read_checkpoint(path)
        self._check(found, path)
        self.feed.load(found.facts["feed"])
        load_optimiser(self.optimiser, self.model, found.optimiser, source=f"{path.name}/optimiser.safetensors")
        self.model.load_state_dict(dict(found.model), strict=True)
        if self.ema and found.ema is not None:
            self.ema.load(found.ema, found.facts["ema_updates"])
        self.step = self._stored = found.step
        set_rng_state(*found.rng[self.processes.rank], self.device)
        return self.step

    def fit(self) -> None:
        """Trains up to `config.steps`, with a checkpoint at the end.

        Raises:
            Interrupted: SIGTERM or SIGINT came; all is stored.
            NotFinite: a loss or gradient is not finite; the state before it is stored.
        """
        if self.leads:
            clear_temporary(self.checkpoints)
            self._log = StepLog(self.out, self.step, self.config.tensorboard)
        left = range(self.step, self.config.steps)
        steps = cast(Generator[int], track(left, "training") if self.leads else (step for step in left))
        with self._stop.listening(), _deterministic(self.config.deterministic), closing(steps):
            try:
                for _ in steps:
                    stopping = self._one()
                    if stopping and self.step < self.config.steps:
                        self._interrupted()
            finally:
                self.feed.rest()
                if self._log:
                    self._log.close()

    def train_step(self) -> dict[str, Any]:
        """One optimiser step. Returns the log's line, with `stopping`: whether any process was told to stop.

        Raises:
            NotFinite: as for `fit`.
        """
        began, before = time.perf_counter(), self._moment()
        self.optimiser.zero_grad(set_to_none=True)
        parts, names, suspects = self._gradients()
        norm = clip_gradients(trainable(self.model).values(), self.config.optimiser.clip)
        values = {**parts, "grad_norm": [norm]}
        bad = [name for name, found in values.items() if not all(map(math.isfinite, found))]
        facts = [float(bool(bad)), float(self._stop.name is not None), len(names)]
        failed, stopping, clips = self.processes.mean(facts)
        if failed:
            self._fail(before, bad, suspects, names)
        rate = self._update()
        means = mean_parts(self.processes.gather(parts))  # processes need not have the same parts
        seconds = time.perf_counter() - began
        return {
            "step": self.step,
            "epoch": self.feed.epoch,
            "loss": means.pop("loss"),
            "parts": means,
            "lr": rate,
            "grad_norm": norm,
            "seconds": seconds,
            "clips_per_s": clips * self.processes.world_size / seconds if clips else None,
            "memory_bytes": _memory(self.device),
            "stopping": bool(stopping),
        }

    def save(self, score: float | None = None) -> None:
        """Stores the present state, unless it is stored already."""
        if self._stored != self.step:
            self._store(self.feed.state((self.feed.epoch, self.feed.done)), rng_state(self.device), score)

    def _one(self) -> bool:
        """A step and what is due after it. Returns whether to stop."""
        row = self.train_step()
        stopping = row.pop("stopping")
        end = self.step == self.config.steps
        if self._log and (end or self.step % self.config.log_every == 0):
            self._log.write(row)
        if self._sample and self.config.sample_every and (end or self.step % self.config.sample_every == 0):
            self._draw(self._sample)
        if end or self.step % self.config.checkpoint_every == 0:
            self.save(self._score())
        return stopping

    def _gradients(self) -> tuple[dict[str, list[float]], list[str], list[str]]:
        """Gathers a step's gradients.

        Returns:
            The loss and its parts, of each batch that has them; clips; and clips of batches whose loss or part of it is
            not finite.
        """
        parts: dict[str, list[float]] = {}
        names: list[str] = []
        suspects: list[str] = []
        for k in range(self.config.accumulate):
            batch = self.feed.next()
            values = self._backward(batch, last=k == self.config.accumulate - 1)
            names += self._names(batch)
            suspects += [] if all(map(math.isfinite, values.values())) else self._names(batch)
            for name, value in values.items():
                parts.setdefault(name, []).append(value)
        return parts, names, suspects

    def _backward(self, batch: Any, *, last: bool) -> dict[str, float]:
        """Adds a batch's gradients. Returns the loss and its parts."""
        batch = to_device(batch, self.device)
        with self.processes.local(self._wrapped, not last):
            with self._autocast():
                found = self.loss_fn(self._wrapped, batch)
            total, parts = found if isinstance(found, Loss) else (found, {})
            (total / self.config.accumulate).backward()
        return {"loss": total.item(), **{name: float(torch.as_tensor(value).detach()) for name, value in parts.items()}}

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def _update(self) -> float:
        """Applies the gradients. Returns the learning rate."""
        self.step += 1
        rate = self.config.optimiser.lr * rate_factor(self.config.schedule, self.step, self.config.steps)
        set_rate(self.optimiser, rate)
        self.optimiser.step()
        if self.ema:
            self.ema.update(self.model)
        return rate

    def _moment(self) -> _Moment:
        buffers = {name: value.detach().clone() for name, value in self.model.named_buffers()}
        return _Moment((self.feed.epoch, self.feed.done), rng_state(self.device), buffers)

    def _fail(self, before: _Moment, bad: list[str], suspects: list[str], names: list[str]) -> NoReturn:
        """Stores the state before the step, which still has its weights, and says which clips were in it.

        Those of batches whose own loss was not finite; of the whole step where only the gradient is not.
        """
        own = dict(self.model.named_buffers())
        for name, value in before.buffers.items():
            own[name].copy_(value)
        if self._stored != self.step:
            self._store(self.feed.state(before.place), before.rng, None)
        found = self.processes.gather((bad, suspects, names))
        what = sorted({name for wrong, _, _ in found for name in wrong}, key=lambda name: (name != "loss", name))
        clips = [name for _, some, _ in found for name in some] or [name for _, _, every in found for name in every]
        shown = ", ".join(clips[:MOST_CLIPS]) + (f" and {len(clips) - MOST_CLIPS} more" if clips[MOST_CLIPS:] else "")
        raise NotFinite(
            f"step {self.step + 1}: {', '.join(what)} not finite; clips: {shown or 'the batch names none'}",
            hint=f"the state before it is in checkpoints/step-{self.step:08d}; look at these clips, or lower the rate",
        )

    def _interrupted(self) -> NoReturn:
        self.save()
        name = self._stop.name or "another process"
        raise Interrupted(
            f"{name} ended the training at step {self.step} of {self.config.steps}",
            hint="the same command with --resume goes on",
        )

    def _store(self, feed: dict[str, Any], rng: tuple[dict[str, torch.Tensor], Any], score: float | None) -> None:
        states = self.processes.gather(rng)
        if self.leads:
            if self._log:
                self._log.sync()
            facts = {"feed": feed, "ema_updates": self.ema.updates if self.ema else None, "score": score}
            average = self.ema.state(self.model) if self.ema else None
            slots = optimiser_tensors(self.optimiser, self.model)
            made = Checkpoint(self.step, self.model.state_dict(), average, slots, states, facts)
            path = save_checkpoint(self.checkpoints, made)
            prune(self.checkpoints, self.config.keep)
            if self._on_checkpoint:
                self._on_checkpoint(path)
        self._stored = self.step
        self.processes.wait()

    def _check(self, found: Checkpoint, path: Path) -> None:
        check_fit(self.model.state_dict(), found.model, source=f"{path.name}/model.safetensors")
        if (self.ema is None) != (found.ema is None):
            raise ConfigError(
                f"{path.name} was made {'with' if found.ema else 'without'} ema", hint="set ema as it was"
            )
        if found.ema is not None:
            check_fit(self.model.state_dict(), found.ema, source=f"{path.name}/ema.safetensors")
        if len(found.rng) != self.processes.world_size:
            raise ConfigError(f"{path.name} is of {len(found.rng)} processes, not {self.processes.world_size}")

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """The model as users get it: averaged weights, eval mode; draws and modes are put back."""
        modes = {module: module.training for module in self.model.modules()}
        self.model.eval()
        try:
            average = self.ema.applied(self.model) if self.ema else nullcontext()
            with untouched(self.device), torch.no_grad(), average:
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode

    def _draw(self, sample: SampleFn) -> None:
        if self.leads:
            with self._shown(), atomic_path(self.out / "samples" / f"step-{self.step:08d}.png") as path:
                Image.fromarray(sample(self.model, self.step)).save(path)

    def _score(self) -> float | None:
        """A score that is not finite is none: it must not win, nor stop the training."""
        if self._validate is None or not self.leads:
            return None
        with self._shown():
            score = float(self._validate(self.model))
        return score if math.isfinite(score) else None


def _recompute(model: nn.Module) -> None:
    enable = getattr(model, "enable_gradient_checkpointing", None)
    if enable is None:
        raise ConfigError(f"{type(model).__name__} cannot recompute", hint="give --set gradient_checkpointing=false")
    enable()


@contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    """Only kernels that repeat themselves; cuBLAS also needs CUBLAS_WORKSPACE_CONFIG=:4096:8 and says so."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _memory(device: torch.device) -> int:
    """Peak bytes: of tensors on a GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

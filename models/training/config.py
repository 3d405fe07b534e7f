"""What a training can be told, whatever it trains. Systems add their own groups in a subclass of `TrainConfig`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ...core.config import Config

# Settings that do not touch what is learned, and those that a training may change when it goes on.
OUTWARD = frozenset({"log_every", "checkpoint_every", "sample_every", "keep", "device", "workers", "tensorboard"})
CHANGEABLE = OUTWARD | {"steps", "optimiser", "schedule"}


class OptimiserConfig(Config):
    """Adam or AdamW, and the clipping of gradients.

    Attributes:
        name: "adamw" decays weights apart from the gradient (Loshchilov and Hutter, 2019), "adam" within it.
        lr: peak learning rate.
        clip: greatest L2 norm of all gradients together; None leaves them as they are.
    """

    name: Literal["adam", "adamw"] = "adamw"
    lr: PositiveFloat = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.01
    clip: PositiveFloat | None = 1.0


class ScheduleConfig(Config):
    """The learning rate over the steps, as a factor of its peak: see `optimiser.rate_factor`.

    Attributes:
        name: what happens after the warm-up.
        warmup: steps of a linear rise to the peak.
        final: factor that is reached at the last step, for "linear" and "cosine".
    """

    name: Literal["constant", "linear", "cosine"] = "constant"
    warmup: NonNegativeInt = 0
    final: float = Field(default=0.0, ge=0, le=1)


class EmaConfig(Config):
    """The moving average of the weights, see `ema.Ema`."""

    decay: float = Field(default=0.9999, ge=0, lt=1)
    warmup: bool = True


class TrainConfig(Config):
    """Settings of `loop.Trainer`.

    Attributes:
        steps: optimiser steps of the whole training.
        seed: of every draw.
        accumulate: batches whose gradients make one step.
        precision: "bf16" runs forward passes in bfloat16 autocast; weights and optimiser stay float32.
        device: "auto" takes a GPU where there is one.
        deterministic: only kernels that give the same bits each time; slower on a GPU, an error where there is none.
        gradient_checkpointing: recompute activations in the backward pass, for models that can.
        log_every, checkpoint_every, sample_every: steps between them; 0 never samples.
        keep: last checkpoints that stay, beside the best one.
        workers: processes that load batches; 0 loads them in this one.
        tensorboard: also write its event files. None: if it is installed.
    """

    steps: PositiveInt = 1000
    seed: NonNegativeInt = 0
    accumulate: PositiveInt = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    deterministic: bool = False
    gradient_checkpointing: bool = False
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    ema: EmaConfig | None = EmaConfig()
    log_every: PositiveInt = 1
    checkpoint_every: PositiveInt = 1000
    sample_every: NonNegativeInt = 0
    keep: PositiveInt = 3
    workers: NonNegativeInt = 0
    tensorboard: bool | None = None

"""A checkpoint's weights for use after training: the averaged ones where there are any, without the optimiser's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ...core.errors import InputError, WeightsError
from .state import best_checkpoint, check_fit, checkpoints_in

M = TypeVar("M", bound=nn.Module)


def choose_checkpoint(run: Path, which: str | int = "last") -> Path:
    """A training's checkpoint: "last", "best" (lowest score), or the number of a step.

    Raises:
        InputError: there is no such checkpoint.
    """
    folder = run / "checkpoints"
    found = checkpoints_in(folder)
    if not found:
        raise InputError(f"{run} has no checkpoint", hint="train it, or wait for its first one (checkpoint_every)")
    if which == "last":
        return found[-1]
    chosen = best_checkpoint(folder) if which == "best" else folder / f"step-{int(which):08d}"
    if chosen is None or chosen not in found:
        reason = "nothing was validated" if chosen is None else f"it has {', '.join(path.name for path in found)}"
        raise InputError(f"{run} has no checkpoint '{which}': {reason}")
    return chosen


def weights_file(checkpoint: Path) -> Path:
    """The file with averaged weights, or the model's own where training kept no average."""
    average = checkpoint / "ema.safetensors"
    return average if average.is_file() else checkpoint / "model.safetensors"


def load_for_use(make: Callable[[], M], path: Path, device: torch.device | str = "cpu") -> M:
    """A model with the weights of a file, in eval mode, frozen.

    Args:
        make: builds it as the training did.
        path: from `weights_file`.

    Raises:
        WeightsError: the file cannot be read, or names or shapes are not those of the model.
    """
    try:
        given = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    model = make()
    check_fit(model.state_dict(), given, source=f"{path.parent.name}/{path.name}")
    model.load_state_dict(given)
    return model.eval().requires_grad_(False).to(device)

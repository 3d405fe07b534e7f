"""Checkpoints: tensors as safetensors, the rest as JSON, never a pickle.

    checkpoints/step-00001000/
        model.safetensors      the model's state dict
        ema.safetensors        the same names with averaged weights, if there is an average
        optimiser.safetensors  <slot>.<parameter>, such as exp_avg.head.weight
        rng.safetensors        <rank>.torch, <rank>.cuda
        state.json             step, place in the data, Python's and numpy's generators, score

A folder is written under another name, flushed to the disk and renamed: what is called step-... is whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ...core.errors import InputError, WeightsError
from ...core.shards import TEMP_PREFIX, atomic_folder, fsync_folder, write_json
from .optimiser import trainable

VERSION = 1
MOST_NAMED = 3  # tensors in one message
_NAME = re.compile(r"step-(\d{8,})")
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """All that a training needs to go on.

    Attributes:
        step: optimiser steps done.
        model, ema, optimiser: tensors by name; `ema` None without an average.
        rng: one rank after the other, as `rng.rng_state` gives it.
        facts: JSON-ready: `feed` (place in the data), `ema_updates`, `score` (None where nothing was validated).
    """

    step: int
    model: Tensors
    ema: Tensors | None
    optimiser: Tensors
    rng: list[tuple[dict[str, torch.Tensor], dict[str, Any]]]
    facts: dict[str, Any]


def save_checkpoint(checkpoints: Path, made: Checkpoint) -> Path:
    """Writes a checkpoint below `checkpoints`, whole or not at all, and returns its folder."""
    path = checkpoints / f"step-{made.step:08d}"
    with atomic_folder(path) as folder:
        _write(folder / "model.safetensors", made.model)
        if made.ema is not None:
            _write(folder / "ema.safetensors", made.ema)
        _write(folder / "optimiser.safetensors", made.optimiser)
        states = {f"{rank}.{name}": value for rank, (own, _) in enumerate(made.rng) for name, value in own.items()}
        _write(folder / "rng.safetensors", states)
        data = {"version": VERSION, "step": made.step, **made.facts, "rng": [data for _, data in made.rng]}
        write_json(folder / "state.json", data)
        fsync_folder(folder)
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads what `save_checkpoint` wrote.

    Raises:
        InputError: no checkpoint there, or one of another version.
        WeightsError: a file that cannot be read.
    """
    facts = _facts(path)
    step, data = facts.pop("step"), facts.pop("rng")
    states: list[dict[str, torch.Tensor]] = [{} for _ in data]
    for name, value in _read(path / "rng.safetensors").items():
        rank, _, kind = name.partition(".")
        states[int(rank)][kind] = value
    average = path / "ema.safetensors"
    return Checkpoint(
        step=step,
        model=_read(path / "model.safetensors"),
        ema=_read(average) if average.is_file() else None,
        optimiser=_read(path / "optimiser.safetensors"),
        rng=list(zip(states, data, strict=True)),
        facts=facts,
    )


def checkpoints_in(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    found = [(int(match[1]), path) for path in folder.glob("step-*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def best_checkpoint(folder: Path) -> Path | None:
    """The one with the lowest score, the older of equal ones; None where nothing was validated."""
    scored = [(score, path) for path in checkpoints_in(folder) if (score := _facts(path)["score"]) is not None]
    return min(scored)[1] if scored else None


def prune(folder: Path, keep: int) -> None:
    """Removes all but the last `keep` checkpoints and the best one."""
    spared = {*checkpoints_in(folder)[-keep:], best_checkpoint(folder)}
    for path in checkpoints_in(folder):
        if path not in spared:
            going = path.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex[:8]}-{path.name}")
            path.replace(going)  # a kill in the middle of removing must not leave half a checkpoint
            shutil.rmtree(going)


def clear_temporary(folder: Path) -> None:
    """Removes what killed runs left half written. Only for the owner of the training's folder."""
    for path in folder.glob(f"{TEMP_PREFIX}*"):
        shutil.rmtree(path)


def check_fit(wanted: Tensors, given: Tensors, *, source: str) -> None:
    """Refuses tensors of other names or shapes than wanted.

    Raises:
        WeightsError: names the tensors, with both shapes.
    """
    wrong = [
        f"{name} is {tuple(given[name].shape)} in the checkpoint and {tuple(value.shape)} in the model"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    wrong += [f"no {name} in the checkpoint" for name in wanted if name not in given]
    wrong += [f"no {name} in the model" for name in given if name not in wanted]
    if wrong:
        more = f"; and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise WeightsError(
            f"{source}: {'; '.join(wrong[:MOST_NAMED])}{more}", hint="the checkpoint is of a model of other sizes"
        )


def optimiser_tensors(optimiser: torch.optim.Optimizer, model: nn.Module) -> dict[str, torch.Tensor]:
    """The state of an optimiser that was built over `trainable(model)`, by slot and parameter name."""
    names, state = list(trainable(model)), optimiser.state_dict()["state"]
    return {f"{slot}.{names[k]}": torch.as_tensor(value) for k, own in state.items() for slot, value in own.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, model: nn.Module, given: Tensors, *, source: str) -> None:
    """Inverse of `optimiser_tensors`. A parameter that never had a gradient has no state.

    Raises:
        WeightsError: state for a parameter that the model does not have, or of another shape.
    """
    parameters = trainable(model)
    order = {name: k for k, name in enumerate(parameters)}
    state: dict[int, dict[str, torch.Tensor]] = {}
    wanted: dict[str, torch.Tensor] = {}
    for name, value in given.items():
        slot, _, parameter = name.partition(".")
        if parameter in order:
            wanted[name] = value if slot == "step" else parameters[parameter]
            state.setdefault(order[parameter], {})[slot] = value
    check_fit(wanted, given, source=source)
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no checkpoint: {error}") from error
    if facts.pop("version", None) != VERSION:
        raise InputError(f"{path} is a checkpoint of another version of talkforge")
    return facts


def _write(path: Path, tensors: Tensors) -> None:
    """Flushes to the disk too. Tensors that share memory, as tied weights do, are stored each for itself."""
    seen: set[int] = set()
    stored = {}
    for name, value in tensors.items():
        whole = value.detach().cpu().contiguous()
        place = whole.untyped_storage().data_ptr()
        stored[name] = whole.clone() if place in seen else whole
        seen.add(place)
    save_file(stored, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error

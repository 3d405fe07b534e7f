"""One training from settings to `train.html`, as often as it takes: it goes on where it stopped.

out/config.yaml    system, data and settings, written first
out/checkpoints/   see `models.training.state`
out/log.jsonl      a line a step
out/samples/       pictures
out/train.html     curves and pictures, at each checkpoint
out/train.json     written last: what is finished
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..core.config import Config, digest
from ..core.errors import ConfigError, InputError
from ..core.lock import owned
from ..core.provenance import environment, now, version
from ..core.registry import Registry, resolve
from ..core.shards import write_json, write_text
from ..models.training.config import CHANGEABLE, OUTWARD, TrainConfig
from ..models.training.log import read_log
from ..models.training.system import SystemSpec, TrainParts
from .engine import run

systems: Registry[SystemSpec] = Registry("system")
systems.discover("talkforge.tasks", "SYSTEMS", key=lambda spec: spec.id)


class TrainRun(Config):
    """What a training is of, as `config.yaml` keeps it."""

    system: str
    data: str
    settings: dict[str, Any]

    def identity(self, without: frozenset[str]) -> dict[str, Any]:
        """What two runs must share, leaving out some settings, as dotted keys."""
        kept = {key: value for key, value in self.settings.items() if key not in without}
        return {"system": self.system, "data": self.data, **_dotted(kept)}


@dataclass(frozen=True)
class Trained:
    """A finished training: its folder, the steps it has, and whether any was made now."""

    out: Path
    steps: int
    fresh: bool


def train(
    system: str,
    data: Path,
    out: Path,
    preset: str = "full",
    overrides: Iterable[str] = (),
    *,
    resume: bool = False,
    use_prefect: bool = False,
) -> Trained:
    """Trains a system on a build. A training that is finished is left as it is.

    Args:
        system: a registered name.
        data: the build's folder.
        out: the training's folder.
        preset: of the system.
        overrides: `key=value` texts.
        resume: go on where an unfinished training in `out` stopped; begins one where there is none.
        use_prefect: show it as a flow run.

    Raises:
        ConfigError: unknown names or values; other settings than those of the training that goes on.
        InputError: no such data; `out` holds something else, or a training and `resume` is not given.
        OutputBusy: another process trains there.
        Interrupted, NotFinite: see `models.training.loop.Trainer.fit`.
    """
    spec = systems.get(system)
    settings = spec.settings(preset, overrides)
    if not data.is_dir():
        raise InputError(f"{data} is not a folder")
    wanted = TrainRun(system=spec.id, data=str(data.resolve()), settings=settings.model_dump(mode="json"))
    leads = _rank() == 0

    def body(engine: Any) -> Trained:
        with owned(out) if leads else nullcontext():
            return _train(spec, settings, wanted, out, resume=resume)

    return run("train", body, workers=1, use_prefect=use_prefect and leads)


def describe(system: str, preset: str = "full", overrides: Iterable[str] = ()) -> dict[str, Any]:
    """What a training would be, JSON-ready: settings, and parameters of each module without allocating them."""
    spec = systems.get(system)
    settings = spec.settings(preset, overrides)
    return {
        "system": spec.id,
        "what": spec.what,
        "preset": preset,
        "parameters": resolve(spec.parameters)(settings),
        "config_digest": settings.digest(),
        "settings": settings.model_dump(mode="json"),
    }


def _train(spec: SystemSpec, settings: TrainConfig, wanted: TrainRun, out: Path, *, resume: bool) -> Trained:
    done = _finished(out, wanted)
    if done is not None:
        return Trained(out, done, fresh=False)
    if _rank() == 0:
        _prepare(out, wanted, resume=resume)
    steps = _fit(spec, settings, wanted, out)
    if _rank() == 0:
        rows = read_log(out / "log.jsonl")
        write_page(out)
        facts = {"system": spec.id, "steps": steps, "digest": digest(wanted.identity(OUTWARD)), "ended": now()}
        loss = rows[-1]["loss"] if rows else None
        made = {"talkforge_version": version(), "environment": environment()}
        write_json(out / "train.json", {**facts, "loss": loss, **made})
    return Trained(out, steps, fresh=True)


def _fit(spec: SystemSpec, settings: TrainConfig, wanted: TrainRun, out: Path) -> int:
    from ..models.training.loop import Trainer
    from ..models.training.processes import start_processes
    from ..models.training.rng import seed_everything
    from ..models.training.state import checkpoints_in

    processes = start_processes(settings.device)
    seed_everything(settings.seed, processes.rank)
    parts: TrainParts = resolve(spec.build)(settings, Path(wanted.data), processes.rank, processes.world_size)
    trainer = Trainer(
        settings,
        parts.model,
        parts.loss_fn,
        parts.batches,
        out,
        sample=parts.sample,
        validate=parts.validate,
        names=parts.names,
        on_checkpoint=lambda _: write_page(out),
        processes=processes,
    )
    if checkpoints_in(trainer.checkpoints):
        trainer.resume()
    trainer.fit()
    processes.close()
    return trainer.step


def _prepare(out: Path, wanted: TrainRun, *, resume: bool) -> None:
    """Checks what is in `out`, and writes what will be."""
    path = out / "config.yaml"
    if path.is_file() and _begun(out):
        before = TrainRun.load(path)
        if not resume:
            raise InputError(f"{out} holds a training already", hint="go on with --resume, or give another --out")
        _check_same(before, wanted)
    elif out.is_dir() and any(entry != path for entry in out.iterdir()):
        raise InputError(f"{out} holds other files", hint="give an --out that is empty or new")
    (out / "train.json").unlink(missing_ok=True)
    write_text(path, yaml.safe_dump(wanted.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def _begun(out: Path) -> bool:
    """Whether a step was made here: settings alone are left by a training that could not be set up."""
    return (out / "log.jsonl").is_file() or any((out / "checkpoints").glob("*"))


def _check_same(before: TrainRun, wanted: TrainRun) -> None:
    old, new = before.identity(CHANGEABLE), wanted.identity(CHANGEABLE)
    other = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if other:
        shown = "; ".join(f"{key} was {old.get(key)!r} and is {new.get(key)!r}" for key in other[:3])
        hint = f"while it goes on only these may change: {', '.join(sorted(CHANGEABLE))}"
        raise ConfigError(f"the training was begun with other settings: {shown}", hint=hint)


def _finished(out: Path, wanted: TrainRun) -> int | None:
    """Steps of the finished training of exactly that kind, None where there is none."""
    path = out / "train.json"
    if not path.is_file():
        return None
    done = json.loads(path.read_text(encoding="utf-8"))
    return done["steps"] if done["digest"] == digest(wanted.identity(OUTWARD)) else None


def write_page(out: Path) -> None:
    """Writes `train.html` from what the training's folder holds now."""
    from ..reports.training import TrainingView, render_training

    made = TrainRun.load(out / "config.yaml")
    rows = read_log(out / "log.jsonl")
    pictures = [(int(path.stem.removeprefix("step-")), path) for path in sorted((out / "samples").glob("step-*.png"))]
    step, total = rows[-1]["step"] if rows else 0, made.settings["steps"]
    facts = {"step": f"{step} of {total}", "data": Path(made.data).name, "version": version(), "written": now()}
    view = TrainingView(made.system, facts, made.settings, rows, [(at, path.read_bytes()) for at, path in pictures])
    write_text(out / "train.html", render_training(view))


def _rank() -> int:
    """Of this process among those that were started together."""
    return int(os.environ.get("RANK", "0"))


def _dotted(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found

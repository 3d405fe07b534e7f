"""Stages a test item for another program: its own view of the checkout, portrait, sound, clip and files, plain names.

Everything lies below one new folder of the item, so that two items never meet and a video that is left over from
before is never taken for a new one.
"""

from __future__ import annotations

import os
import shutil
import wave
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from ..core.config import read_yaml
from ..core.errors import InputError
from ..core.registry import did_you_mean
from ..datasets.audio import SAMPLE_RATE, SAMPLES_PER_FRAME, read_audio
from ..datasets.encode import Scaler, VideoWriter
from ..datasets.video import FPS, open_video, resample
from .adapter_setup import Setup
from .adapters import Adapter, Clip, Portrait, fill
from .methods import TestItem, read_portrait

SKIPPED = {".git", ".venv", "venv", "__pycache__", ".ipynb_checkpoints"}
MOST_FILES = 50_000  # links that are made for an item


@dataclass(frozen=True)
class Staged:
    """An item that is ready.

    Attributes:
        values: of the placeholders.
        samples: float32 (S,) at 16 kHz, the sound of the video.
        frames: that the video is to have, at 25 a second.
    """

    values: Mapping[str, str]
    samples: np.ndarray
    frames: int


def emotion_of(adapter: Adapter, item: TestItem) -> str | None:
    """The program's word for the item's emotion; None where it is told none.

    Raises:
        InputError: the item has none, or one that the method does not know.
    """
    if not adapter.wants_emotion:
        return None
    known = list(adapter.emotions)
    if item.emotion is None:
        raise InputError(f"{item.id}: no emotion is given", hint=f"it takes {', '.join(known)}")
    if item.emotion not in known:
        hint = did_you_mean(item.emotion, known) or f"it takes {', '.join(known)}"
        raise InputError(f"{item.id}: unknown emotion '{item.emotion}'", hint=hint)
    return adapter.emotions[item.emotion]


def clip_of(wanted: Clip, item: TestItem) -> Path:
    """The item's clip that is handed over. Raises InputError when it has none."""
    found = {"video": item.video, "emotion_video": item.emotion_video, "either": item.emotion_video or item.video}
    if (path := found[wanted.of]) is None:
        name = "an emotion_video or a real clip" if wanted.of == "either" else wanted.of
        raise InputError(f"{item.id}: the method needs {name}", hint="give it in the test set, or --emotion-video")
    return path


def file_of(adapter: Adapter, name: str, item: TestItem, setup: Setup) -> Path:
    """The file of numbers for an item; see `adapters.Extra`. Raises InputError when there is none."""
    wanted, folder = adapter.files[name], setup.local.files.get(name)
    if folder is not None:
        for stem in (item.id, item.emotion, "default"):
            if stem and (found := folder / f"{stem}{wanted.suffix}").is_file():
                return found
    if wanted.default is not None:
        found = setup.checkout / fill(wanted.default, {"emotion": emotion_of(adapter, item) or ""})
        if found.is_file():
            return found
        raise InputError(f"{item.id}: {found} is not there")
    hint = f"put {item.id}{wanted.suffix} into a folder, and name it as files.{name} in {setup.source}"
    raise InputError(f"{item.id}: no {name} file ({wanted.what})", hint=hint)


def check_item(adapter: Adapter, item: TestItem, setup: Setup) -> None:
    """What can be seen to be missing before anything is staged. Raises InputError."""
    emotion_of(adapter, item)
    if adapter.inputs.clip:
        clip_of(adapter.inputs.clip, item)
    for name in adapter.files:
        file_of(adapter, name, item, setup)


def stage(
    adapter: Adapter, item: TestItem, setup: Setup, room: Path, sound: tuple[np.ndarray, int], seed: int
) -> Staged:
    """Fills the item's folder `room`.

    Args:
        sound: of `read_sound`.
        seed: for {seed}.

    Raises:
        InputError, NotMedia, NoFace, MediaError: something of the item cannot be used.
    """
    frames = sound[1]
    samples = sound[0][: frames * SAMPLES_PER_FRAME]
    for name in ("inputs", "result", "tmp"):
        (room / name).mkdir()
    mirror(setup.checkout, room / "work", adapter.work.own, adapter.work.link)
    portrait = _portrait(adapter.inputs.portrait, item.portrait, room)
    audio = _audio(_free(room, adapter.inputs.audio.file), adapter.inputs.audio.rate, samples, portrait)
    values = {
        "python": setup.python,
        "checkout": str(setup.checkout),
        "scratch": str(room),
        **{name: str(room / name) for name in ("work", "inputs", "result")},
        "portrait": str(portrait),
        "audio": str(audio),
        "emotion": emotion_of(adapter, item) or "",
        "seed": str(seed),
        "frames": str(frames),
        "seconds": f"{frames / FPS:g}",
    }
    if adapter.inputs.clip:
        values["clip"] = str(_clip(adapter.inputs.clip, item, room, samples, frames))
    for name in adapter.files:
        found = file_of(adapter, name, item, setup)
        values[f"file.{name}"] = str(shutil.copyfile(found, room / "inputs" / f"{name}{found.suffix}"))
    for name, settings in adapter.configs.items():
        base = read_yaml(setup.checkout / settings.base) if settings.base else {}
        path = room / "inputs" / f"{name}.yaml"
        path.write_text(yaml.safe_dump(base | fill(settings.set, values), sort_keys=False), encoding="utf-8")
        values[f"config.{name}"] = str(path)
    return Staged(values, samples, frames)


def mirror(checkout: Path, work: Path, own: Iterable[str] = (), link: Iterable[str] = ()) -> None:
    """The checkout's tree in new folders, its files as links; `own` folders empty, `link` ones linked whole.

    Folders are real, so that `..` leads where the program thinks, and what it writes anew lies in `work`.

    Raises:
        InputError: more than `MOST_FILES` files.
    """
    empty, whole = {PurePosixPath(name) for name in own}, {PurePosixPath(name) for name in link}
    count = 0
    work.mkdir(parents=True)
    for place, folders, names in os.walk(checkout):
        here = Path(place).relative_to(checkout)
        for name in list(folders):
            inner = PurePosixPath((here / name).as_posix())
            target = work / inner
            linked = inner in whole or (Path(place, name).is_symlink() and inner not in empty)
            if name in SKIPPED or linked or inner in empty:
                folders.remove(name)
            if linked:
                target.symlink_to(checkout / inner)
            elif name not in SKIPPED:
                target.mkdir(exist_ok=True)
        count += len(names)
        if count > MOST_FILES:
            raise InputError(
                f"{checkout} holds more than {MOST_FILES} files", hint="name large folders in the adapter's work.link"
            )
        for name in names:
            (work / here / name).symlink_to(Path(place, name))
    for name in empty:
        (work / name).mkdir(parents=True, exist_ok=True)


def _free(room: Path, name: str) -> Path:
    """Where a staged file goes. A link to a file of the checkout that has the name gives way, and is not written to."""
    path = room / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return path


def _portrait(wanted: Portrait, source: Path, room: Path) -> Path:
    from PIL import Image

    frame = read_portrait(source)
    if wanted.crop and wanted.size:
        from .portrait import cut_of, face_in

        frame = cut_of(frame, face_in(frame, source.name)[0], wanted.crop).picture(frame, wanted.size)
    elif wanted.size:
        factor = wanted.size / min(frame.shape[:2])
        width, height = (max(2, round(side * factor)) for side in frame.shape[1::-1])
        frame = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))
    path = _free(room, wanted.file)
    options: dict[str, Any] = {"quality": 98, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(frame).save(path, **options)
    return path


def _audio(path: Path, rate: int, samples: np.ndarray, portrait: Path) -> Path:
    if path.suffix == ".mp4":
        frame = read_portrait(portrait)
        with VideoWriter(path, frame.shape[1], frame.shape[0], audio=samples) as writer:
            for _ in range(len(samples) // SAMPLES_PER_FRAME):
                writer.write(frame)
        return path
    if rate != SAMPLE_RATE:
        import soxr

        samples = soxr.resample(samples, SAMPLE_RATE, rate, quality="HQ")
    pcm = np.clip(np.round(np.asarray(samples, np.float64) * 32768), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, rate, len(pcm), "NONE", ""))
        out.writeframes(pcm.tobytes())
    return path


def _clip(wanted: Clip, item: TestItem, room: Path, samples: np.ndarray, frames: int) -> Path:
    source, path = clip_of(wanted, item), _free(room, wanted.file)
    own = {"own": lambda: read_audio(source), "item": lambda: samples, "none": lambda: None}[wanted.sound]
    with open_video(source) as stream:
        width, height = wanted.size or (stream.info.width // 2 * 2, stream.info.height // 2 * 2)
        fit = Scaler(width, height) if wanted.size else None
        with VideoWriter(path, width, height, audio=own(), crf=12) as writer:
            for index, _, frame in resample(stream):
                if index >= frames:
                    break
                writer.write(fit(frame) if fit else frame[:height, :width])
    return path

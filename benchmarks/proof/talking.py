"""What the proofs of trained talking heads share: clips of a build as the model sees them, sets of videos, numbers.

Each clip's crop video is scaled to the model's pictures and enlarged again, so that all sets have the same number of
pixels, and every video has the clip's own sound.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from talkforge.core.counters import Counters
from talkforge.core.errors import InputError, NoFace
from talkforge.core.shards import write_json
from talkforge.datasets.encode import VideoWriter
from talkforge.datasets.shards import ClipShards
from talkforge.datasets.video import FPS, open_video, resample
from talkforge.flows.evaluate import EvalConfig, evaluate
from talkforge.metrics.paired import paired_mean
from talkforge.models.diffusion.config import GuidanceConfig
from talkforge.models.training.log import read_log
from talkforge.tasks.dice_priors import features_of
from talkforge.tasks.extract import ClipFile
from talkforge.tasks.extract_arkit import ARKIT, BLENDSHAPE_NAMES
from talkforge.tasks.extract_emotion import FER
from talkforge.tasks.portrait import enlarged
from talkforge.tasks.talking_batches import TalkingClips

LEAST_PIXELS = 256  # side of a video, as generation has it
STRIP = 10  # pictures of a strip
# What is looked at in ARKit's coefficients, as means of left and right.
LOOKS = {
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "frown": ("mouthFrownLeft", "mouthFrownRight"),
    "brows up": ("browInnerUp",),
}
Frames = tuple[np.ndarray, Any]  # uint8 (T, size, size, 3), and how many there are a second


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


@dataclass
class Clips:
    """Clips of a build at a model's size.

    Attributes:
        shards: the clips.
        pictures: of them.
        size: side of the model's pictures.
        limit: frames that are looked at, 25 a second.
    """

    shards: ClipShards
    pictures: TalkingClips
    size: int
    limit: int

    @classmethod
    def of(cls, shards: ClipShards, settings: Any, *, box_scale: float, limit: int, **more: Any) -> Clips:
        """Of a training's settings."""
        size = settings.model.size
        pictures = TalkingClips(
            shards, frames=8, size=size, box_scale=box_scale, extras=lambda clip, start: {}, picture_cache=0, **more
        )
        return cls(shards, pictures, size, limit)

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def factor(self) -> int:
        """By which pictures are enlarged."""
        return -(-LEAST_PIXELS // self.size)

    @property
    def names(self) -> list[str]:
        """Of the clips' files."""
        return [name.replace("/", "_") for name in self.shards.clip_ids]

    def label(self, column: str) -> list[Any]:
        """Each clip's label; None where the build has none."""
        there = column in self.shards.info["columns"]
        return list(self.shards.values(column)) if there else [None] * len(self)

    def count(self, clip: int) -> int:
        """Frames that are looked at."""
        return min(self.limit, int(self.shards.lengths[clip]))

    def filmed(self, clip: int) -> np.ndarray:
        """uint8 (T, size, size, 3) at 25 a second."""
        return self.pictures.pictures(clip, 0, self.count(clip))

    def still(self, clip: int) -> np.ndarray:
        """The first picture all the time."""
        return np.repeat(self.filmed(clip)[:1], self.count(clip), 0)

    def states(self, clip: int, column: str, states: int, width: int) -> np.ndarray:
        """Whisper's states of the clip's sound, (S, states, width); silence where there are none."""
        found = np.nan_to_num(self.pictures.clip(clip).columns[column]).astype(np.float32)
        return found.reshape(len(found), states, width)

    def write(self, path: Path, clip: int, frames: np.ndarray, fps: Any = FPS) -> None:
        """A video with the clip's sound."""
        path.parent.mkdir(parents=True, exist_ok=True)
        side = self.size * self.factor
        with VideoWriter(path, side, side, fps=fps, audio=self.shards.sound(clip, 0, self.count(clip))) as writer:
            for frame in frames:
                writer.write(enlarged(frame, self.factor))

    def lay(
        self, folder: Path, made: Mapping[str, Callable[[int], Frames]], clips: Sequence[int] | None = None
    ) -> None:
        """Sets of videos below `folder`; those that are there stay."""
        for clip in range(len(self)) if clips is None else clips:
            for kind, frames in made.items():
                path = folder / kind / f"{self.names[clip]}.mp4"
                if not path.is_file():
                    say(f"{kind}: {self.names[clip]}")
                    self.write(path, clip, *frames(clip))


def weighted(own: GuidanceConfig, conditions: float | None) -> GuidanceConfig:
    """A training's guidance, or with another weight of what moves the face."""
    return own if conditions is None else replace(own, conditions=conditions)


def check_made(out: Path, made: Mapping[str, Any]) -> None:
    """Raises InputError where videos of other weights or settings lie below `out`."""
    path = out / "made.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != made:
        raise InputError(f"{out} holds videos of other weights or settings", hint="give another --out")
    write_json(path, made)


def measure_loss(run: Path) -> dict[str, Any]:
    """Denoising loss of the first and the last fiftieth of the denoiser's steps, and their ratio."""
    losses = [row["parts"]["denoise"] for row in read_log(run / "log.jsonl") if "denoise" in row["parts"]]
    part = max(1, len(losses) // 50)
    first, last = float(np.mean(losses[:part])), float(np.mean(losses[-part:]))
    return {"steps": len(losses), "first": first, "last": last, "factor": first / last}


def scored(real: Path, made: Path, out: Path, metrics: Sequence[str], against: Path | None = None) -> dict[str, Any]:
    """A set's results against another one, and their difference from a finished run's."""
    say(f"evaluate {made.name} against {real.name}")
    config = EvalConfig(
        real=real,
        generated=made,
        out=out,
        method=made.name,
        metrics=list(metrics),
        crop="none",
        against=against,
        workers=1,
        prefect=False,
    )
    results = evaluate(config).results
    return {"results": results["results"], "against": results.get("against")}


def look(video: Path) -> dict[str, float]:
    """Means over a video's frames: ARKit's smile and frown, mini-Xception's probabilities."""
    rows = features_of(ClipFile(video, video), [ARKIT, FER])
    shapes, classes = rows[ARKIT.id].array("blendshapes"), rows[FER.id].array("probabilities")
    places = {what: [BLENDSHAPE_NAMES.index(name) for name in sides] for what, sides in LOOKS.items()}
    seen = {what: float(np.nanmean(shapes[:, columns])) for what, columns in places.items()}
    means = np.nanmean(classes, axis=0)
    return seen | {f"fer {name}": float(p) for name, p in zip(FER.params["classes"], means, strict=True)}


def looked(folder: Path, names: Sequence[str]) -> list[dict[str, float] | None]:
    """What is seen in each video of a set; None where it shows no face."""
    found: list[dict[str, float] | None] = []
    for name in names:
        try:
            found.append(look(folder / f"{name}.mp4"))
        except NoFace:
            say(f"no face in {folder.name}/{name}.mp4")
            found.append(None)
    return found


def difference(pairs: Sequence[tuple[float, float]], unit: str = "clips", *, reason: str = "no_face") -> dict[str, Any]:
    """The mean difference of pairs, its interval over them, and each one; without pairs None with the reason."""
    if not pairs:
        return {"difference": None, "reason": reason, unit: 0}
    table = np.array(pairs)
    paired = paired_mean(table[:, 0], table[:, 1])
    each = (table[:, 0] - table[:, 1]).tolist()
    return {"difference": paired.value, "ci95": paired.ci95, "p_value": paired.p_value, unit: len(table), "each": each}


def shown(video: Path) -> Iterator[np.ndarray]:
    """Evenly spaced pictures of a video."""
    with open_video(video, counters=Counters()) as stream:
        frames = [frame for _, _, frame in resample(stream)]
    for place in np.linspace(0, len(frames) - 1, STRIP).round().astype(int):
        yield frames[place]


def draw_strips(sets: Path, kinds: Sequence[str], names: Sequence[str], out: Path) -> None:
    """A picture a clip: its sets below each other."""
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        there = [path for kind in kinds if (path := sets / kind / f"{name}.mp4").is_file()]
        picture = Image.fromarray(np.vstack([np.hstack(list(shown(path))) for path in there]))
        halved = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
        halved.save(out / f"{name}.png")


def cell(result: Mapping[str, Any]) -> str:
    """A value with its interval."""
    if result["value"] is None:
        return f"none ({result['reason']})"
    low, high = result["ci95"] or (None, None)
    return f"{result['value']:.4g}" + (f" [{low:.4g}, {high:.4g}]" if low is not None else "")


def told(one: Mapping[str, Any], unit: str = "clips") -> str:
    """A difference with its interval, p and how many pairs it is of, as cells of a Markdown table."""
    if one["difference"] is None:
        return f"none ({one['reason']}) | | 0"
    ci = "[{:+.3f}, {:+.3f}]".format(*one["ci95"]) if one["ci95"] else ""
    p_value = "none" if one["p_value"] is None else f"{one['p_value']:.3g}"
    return f"{one['difference']:+.3f} {ci} | {p_value} | {one[unit]}"

"""What a small training of dice-talk learnt, on the clips that it was trained on.

    python benchmarks/proof/dice_talk.py --run RUN --data BUILD --out DIR [--frames 70] [--seeds 2] [--steps 12]

Each clip's crop video is scaled to the model's pictures and enlarged again: `real`. Beside it stand, from its first
frame and its own sound, `still` (nothing moves), `dice-talk` (what is generated, with the clip's own emotion prior) and
`vae` (the real pictures through the model's VAE at 12.5 a second and back: no generation can be sharper). All have the
same number of pixels. Fréchet distances see a small VAE's blur, which a still picture has none of; so there is a second
reference, `vae`, against which `still-vae`, the first frame through the VAE, stands beside what is generated.

(a) loss: how far the denoising loss fell;
(b) videos: FVD, FD, mouth sync of each set against `real`, and dice-talk against still, clip by clip;
(c) emotions: the same portraits and sounds with the mean prior of each emotion that the build has; what ARKit's
    blendshapes and mini-Xception see in them, as differences between two emotions over clips and seeds.

Clips of the training are no test of what generalises; with a handful of clips nothing could be. Sets and runs are kept
below DIR and not made again. Writes results.json, table.md and strips/*.png.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from talkforge.core.counters import Counters
from talkforge.core.emotions import MEAD_EMOTIONS
from talkforge.core.errors import InputError, NoFace
from talkforge.core.provenance import environment, now, version
from talkforge.core.shards import write_json, write_text
from talkforge.datasets.encode import VideoWriter
from talkforge.datasets.video import FPS, open_video, resample
from talkforge.flows.evaluate import EvalConfig, evaluate
from talkforge.metrics.paired import paired_mean
from talkforge.models.dice_talk.model import DiceTalk
from talkforge.models.dice_talk.pipeline import Portrayed, frame_rate, latents_of, pictures
from talkforge.models.diffusion.config import GuidanceConfig
from talkforge.models.training.log import read_log
from talkforge.models.training.weights import load_for_use
from talkforge.tasks.clip_prior import ClipPriors
from talkforge.tasks.dice_priors import build_priors, features_of, middle_prior
from talkforge.tasks.extract import ClipFile
from talkforge.tasks.extract_arkit import ARKIT, BLENDSHAPE_NAMES
from talkforge.tasks.extract_emotion import FER
from talkforge.tasks.portrait import enlarged
from talkforge.tasks.talking_batches import STRIDE, TalkingClips, open_clips
from talkforge.tasks.train_dice_talk import DiceTalkTrainConfig
from talkforge.tasks.trained import settings_of, weights_of

METRICS = ["fvd:i3d-k400-16f", "fd:mobilenet-v2", "av_sync:mouth-envelope", "e_fid:arkit52", "lip_dynamics:mp-tasks"]
SETS = ("vae", "dice-talk", "still")  # of the strips
# By reference: what is scored against it; the last one is what the others are compared with.
REFERENCES = {"real": ("vae", "dice-talk", "still"), "vae": ("dice-talk", "still-vae")}
LEAST_PIXELS = 256  # side of a video, as generation has it
STRIP = 10  # pictures of a strip
# What is looked at in ARKit's coefficients, as means of left and right.
LOOKS = {"smile": ("mouthSmileLeft", "mouthSmileRight"), "frown": ("mouthFrownLeft", "mouthFrownRight")}


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


@dataclass
class Study:
    """A training and the clips that it saw."""

    run: Path
    data: Path
    out: Path
    frames: int
    steps: int | None
    conditions: float | None

    def __post_init__(self) -> None:
        self.settings = settings_of(self.run, "dice-talk", DiceTalkTrainConfig)
        self.trained = weights_of(self.run)
        assert self.settings.embedder is not None
        self.priors = ClipPriors.load(self.settings.embedder, self.settings.prior_from)
        columns = [self.settings.audio_column, self.priors.expression, self.priors.audio]
        self.shards = open_clips(self.data, "train", [name for name in columns if name is not None])
        model = self.settings.model
        self.clips = TalkingClips(
            self.shards,
            frames=self.settings.frames,
            size=model.size,
            box_scale=model.pose.box_scale,
            extras=lambda clip, start: {},
            picture_cache=0,
        )

    @property
    def factor(self) -> int:
        """By which pictures are enlarged."""
        return -(-LEAST_PIXELS // self.settings.model.size)

    @property
    def guidance(self) -> GuidanceConfig:
        """The training's, or with another weight of sound and emotion."""
        own = self.settings.model.guidance
        return own if self.conditions is None else replace(own, conditions=self.conditions)

    @cached_property
    def model(self) -> DiceTalk:
        """With averaged weights."""
        return load_for_use(lambda: DiceTalk(self.settings.model), self.trained.weights)

    def name(self, clip: int) -> str:
        """Of the clip's files."""
        return self.shards.clip_ids[clip].replace("/", "_")

    def count(self, clip: int) -> int:
        """Frames that are looked at."""
        return min(self.frames, int(self.shards.lengths[clip]))

    def filmed(self, clip: int) -> np.ndarray:
        """uint8 (T, size, size, 3) at 25 a second."""
        return self.clips.pictures(clip, 0, self.count(clip))

    def own_prior(self, clip: int) -> np.ndarray:
        """The clip's own prior, (1, d)."""
        columns, known = self.clips.clip(clip).columns, (self.priors.expression, self.priors.audio)
        face, heard = (None if name is None else columns[name] for name in known)
        found = middle_prior(self.priors, face, heard, int(self.shards.lengths[clip]))
        assert found is not None, f"{self.name(clip)} has no frame that the embedder can read"
        return found

    def generated(self, clip: int, mu: np.ndarray, seed: int) -> np.ndarray:
        """Pictures of the clip's first frame animated by its sound, at `frame_rate`."""
        model, whole = self.settings.model, self.clips.clip(clip)
        states = np.nan_to_num(whole.columns[self.settings.audio_column]).astype(np.float32)
        states = states.reshape(len(states), model.audio.states, model.audio.state_width)
        mask = self.clips.mask(whole, 0)
        given = Portrayed(self.filmed(clip)[0], states, mu, mask, self.count(clip))
        latents = latents_of(self.model, given, seed=seed, steps=self.steps, guidance=self.guidance)
        return np.concatenate(list(pictures(self.model, latents, self.count(clip))))

    def through_vae(self, clip: int, *, still: bool = False) -> np.ndarray:
        """The filmed pictures that a latent stands for, or the first one all the time, encoded and decoded."""
        filmed = self.filmed(clip)[::STRIDE]
        filmed = np.repeat(filmed[:1], len(filmed), 0) if still else filmed
        shown = torch.from_numpy(np.ascontiguousarray(filmed)).movedim(-1, 1).float() / 127.5 - 1
        with torch.inference_mode():
            latents = self.model.encoders.encode(shown)  # pyright: ignore[reportOptionalMemberAccess]
            return np.concatenate(list(pictures(self.model, latents, self.count(clip))))

    def check(self) -> None:
        """Raises InputError where videos of other weights or settings lie below `out`."""
        made = {
            "weights": self.trained.sha256,
            "embedder": self.priors.sha256,
            "frames": self.frames,
            "steps": self.steps,
            "conditions": self.conditions,
        }
        path = self.out / "made.json"
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != made:
            raise InputError(f"{self.out} holds videos of other weights or settings", hint="give another --out")
        write_json(path, made)

    def write(self, path: Path, clip: int, frames: np.ndarray, fps: Any = FPS) -> None:
        """A video with the clip's sound, unless it is there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        side = self.settings.model.size * self.factor
        with VideoWriter(path, side, side, fps=fps, audio=self.shards.sound(clip, 0, self.count(clip))) as writer:
            for frame in frames:
                writer.write(enlarged(frame, self.factor))

    def lay(self) -> None:
        """The sets that need no other emotion."""
        rate = frame_rate(self.settings.model.windows)
        for clip in range(len(self.shards)):
            made = {
                "real": lambda k=clip: (self.filmed(k), FPS),
                "still": lambda k=clip: (np.repeat(self.filmed(k)[:1], self.count(k), 0), FPS),
                "vae": lambda k=clip: (self.through_vae(k), rate),
                "still-vae": lambda k=clip: (self.through_vae(k, still=True), rate),
                "dice-talk": lambda k=clip: (self.generated(k, self.own_prior(k), 0), rate),
            }
            for kind, frames in made.items():
                path = self.out / "sets" / kind / f"{self.name(clip)}.mp4"
                if not path.is_file():
                    say(f"{kind}: {self.name(clip)}")
                    self.write(path, clip, *frames())


def measure_loss(study: Study) -> dict[str, Any]:
    """Denoising loss of the first and the last fiftieth of the denoiser's steps, and their ratio."""
    losses = [row["parts"]["denoise"] for row in read_log(study.run / "log.jsonl") if "denoise" in row["parts"]]
    part = max(1, len(losses) // 50)
    first, last = float(np.mean(losses[:part])), float(np.mean(losses[-part:]))
    return {"steps": len(losses), "first": first, "last": last, "factor": first / last}


def measure_videos(study: Study) -> dict[str, Any]:
    """Values of each set by reference, and differences from the reference's still set, over clips."""
    found: dict[str, Any] = {}
    for reference, kinds in REFERENCES.items():
        found[reference], runs = {}, study.out / "runs" / reference
        for kind in reversed(kinds):
            say(f"evaluate {kind} against {reference}")
            config = EvalConfig(
                real=study.out / "sets" / reference,
                generated=study.out / "sets" / kind,
                out=runs / kind,
                method=kind,
                metrics=METRICS,
                crop="none",
                against=None if kind == kinds[-1] else runs / kinds[-1],
                workers=1,
                prefect=False,
            )
            results = evaluate(config).results
            found[reference][kind] = {"results": results["results"], "against": results.get("against")}
    return found


def look(video: Path) -> dict[str, float]:
    """Means over a video's frames: ARKit's smile and frown, mini-Xception's probabilities."""
    rows = features_of(ClipFile(video, video), [ARKIT, FER])
    shapes, classes = rows[ARKIT.id].array("blendshapes"), rows[FER.id].array("probabilities")
    places = {what: [BLENDSHAPE_NAMES.index(name) for name in sides] for what, sides in LOOKS.items()}
    seen = {what: float(np.nanmean(shapes[:, columns])) for what, columns in places.items()}
    means = np.nanmean(classes, axis=0)
    return seen | {f"fer {name}": float(p) for name, p in zip(FER.params["classes"], means, strict=True)}


def measure_emotions(study: Study, seeds: int) -> dict[str, Any]:
    """What is seen in the same portraits and sounds under each emotion's mean prior."""
    known, counts = build_priors(study.priors, study.data)
    chosen = {name: mu for name, mu in known.items() if name in MEAD_EMOTIONS}
    rate, seen = frame_rate(study.settings.model.windows), {}
    for emotion, mu in chosen.items():
        for seed in range(seeds):
            for clip in range(len(study.shards)):
                path = study.out / "sets" / f"as-{emotion}-{seed}" / f"{study.name(clip)}.mp4"
                if not path.is_file():
                    say(f"{emotion}, seed {seed}: {study.name(clip)}")
                    study.write(path, clip, study.generated(clip, mu, seed), rate)
                try:
                    seen[emotion, seed, clip] = look(path)
                except NoFace:
                    say(f"no face in {path.name} as {emotion}")
    names = [study.name(clip) for clip in range(len(study.shards))]
    filmed = {name: look(study.out / "sets" / "real" / f"{name}.mp4") for name in names}
    pairs = {f"{a} - {b}": compared(seen, a, b, seeds, len(names)) for a, b in combinations(chosen, 2)}
    return {"clips behind each prior": counts, "differences": pairs, "filmed": filmed}


def compared(seen: Mapping[Any, dict[str, float]], a: str, b: str, seeds: int, clips: int) -> dict[str, Any]:
    """Differences of what is seen, each clip's mean over seeds, with the interval over clips."""
    found: dict[str, Any] = {}
    for what in next(iter(seen.values()), {}):
        sides = []
        for clip in range(clips):
            both = [[seen.get((name, seed, clip)) for seed in range(seeds)] for name in (a, b)]
            if all(one is not None for side in both for one in side):
                sides.append([float(np.mean([one[what] for one in side if one])) for side in both])
        if not sides:
            found[what] = {"difference": None, "reason": "no_face", "clips": 0}
            continue
        table = np.array(sides)
        paired = paired_mean(table[:, 0], table[:, 1])
        found[what] = {"difference": paired.value, "ci95": paired.ci95, "p_value": paired.p_value, "clips": len(table)}
    return found


def shown(video: Path) -> Iterator[np.ndarray]:
    """Evenly spaced pictures of a video."""
    with open_video(video, counters=Counters()) as stream:
        frames = [frame for _, _, frame in resample(stream)]
    for place in np.linspace(0, len(frames) - 1, STRIP).round().astype(int):
        yield frames[place]


def draw_strips(study: Study) -> None:
    """A picture a clip: its sets below each other, then the emotions."""
    sets = ["real", *SETS, *sorted(path.name for path in (study.out / "sets").glob("as-*-0"))]
    folder = study.out / "strips"
    folder.mkdir(exist_ok=True)
    for clip in range(len(study.shards)):
        rows = [np.hstack(list(shown(study.out / "sets" / kind / f"{study.name(clip)}.mp4"))) for kind in sets]
        picture = Image.fromarray(np.vstack(rows))
        picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX).save(
            folder / f"{study.name(clip)}.png"
        )


def cell(result: Mapping[str, Any]) -> str:
    """A value with its interval."""
    if result["value"] is None:
        return f"none ({result['reason']})"
    low, high = result["ci95"] or (None, None)
    return f"{result['value']:.4g}" + (f" [{low:.4g}, {high:.4g}]" if low is not None else "")


def table(found: Mapping[str, Any]) -> str:
    """The videos' numbers and the emotions' differences in Markdown."""
    lines = [f"denoising loss {found['loss']['first']:.3f} to {found['loss']['last']:.3f}"]
    for reference, kinds in REFERENCES.items():
        sides, first = found["videos"][reference], kinds[-1]
        heads = ["metric", *kinds, f"dice-talk - {first} [95 %], p"]
        lines += ["", f"against {reference}:", "", f"| {' | '.join(heads)} |", "|---|" + "---|" * (len(kinds) + 1)]
        gaps = sides["dice-talk"]["against"]["results"]
        for metric in METRICS:
            cells = [cell(sides[kind]["results"][metric]) for kind in kinds]
            gap = gaps[metric]
            told = cell({"value": gap["difference"], "ci95": gap["ci95"], "reason": gap["reason"]})
            p = "" if gap["p_value"] is None else f", {gap['p_value']:.3g}"
            lines.append(f"| {metric} | {' | '.join(cells)} | {told}{p} |")
    lines += ["", "| emotions | seen | difference [95 %] | p | clips |", "|---|---|---|---|---|"]
    for names, differences in found["emotions"]["differences"].items():
        for what, one in differences.items():
            if one["difference"] is None:
                lines.append(f"| {names} | {what} | none ({one['reason']}) | | 0 |")
                continue
            ci = one["ci95"] and "[{:+.3f}, {:+.3f}]".format(*one["ci95"])
            lines.append(f"| {names} | {what} | {one['difference']:+.3f} {ci} | {one['p_value']} | {one['clips']} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a talkforge train dice-talk command")
    parser.add_argument("--data", type=Path, required=True, help="the build that it was trained on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=70, help="of each clip, 25 a second")
    parser.add_argument("--seeds", type=int, default=2, help="starting noises of each emotion's videos")
    parser.add_argument("--steps", type=int, help="of denoising; the training's by default")
    parser.add_argument("--conditions", type=float, help="guidance weight; the training's by default")
    options = parser.parse_args(arguments)
    study = Study(options.run, options.data, options.out, options.frames, options.steps, options.conditions)
    study.check()
    study.lay()
    found = {
        "made": now(),
        "talkforge_version": version(),
        "environment": environment(),
        "checkpoint": study.trained.checkpoint.name,
        "weights_sha256": study.trained.sha256,
        "denoising_steps": study.steps or study.settings.model.diffusion.steps,
        "guidance": asdict(study.guidance),
        "clips": [study.name(k) for k in range(len(study.shards))],
        "loss": measure_loss(study),
        "videos": measure_videos(study),
        "emotions": measure_emotions(study, options.seeds),
    }
    draw_strips(study)
    write_json(options.out / "results.json", found)
    write_text(options.out / "table.md", table(found))
    print(table(found))


if __name__ == "__main__":
    main()

"""What a small training of dice-talk learnt, on the clips that it was trained on.

    python benchmarks/proof/dice_talk.py --run RUN --data BUILD --out DIR [--frames 50] [--seeds 2] [--steps 12]

Beside a clip's pictures (`real`) stand, from its first frame and its own sound, `still` (nothing moves), `dice-talk`
(what is generated, with the clip's own emotion prior) and `vae` (the real pictures through the model's VAE at 12.5 a
second and back: no generation can be sharper). Fréchet distances see a small VAE's blur, which a still picture has none
of; so there is a second reference, `vae`, against which `still-vae`, the first frame through the VAE, stands beside
what is generated.

(a) loss: how far the denoising loss fell;
(b) videos: FVD, FD, mouth sync of each set against `real`, and dice-talk against still, clip by clip;
(c) emotions: the same portraits and sounds with the mean prior of each emotion; what ARKit's blendshapes and
    mini-Xception see in them, as differences between two emotions over clips, each the mean over seeds: over all
    clips, and apart for people who are labelled with several emotions and for all others. A training whose clips have
    no labels (their portraits then come from the same clip) takes the priors of a labelled build, `--emotional`.

Clips of the training are no test of what generalises; with a handful of clips nothing could be. Sets and runs are kept
below DIR and not made again. Writes results.json, table.md and strips/*.png.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from talkforge.benchmarks.proof import talking
from talkforge.core.emotions import MEAD_EMOTIONS
from talkforge.core.provenance import environment, now, version
from talkforge.core.shards import write_json, write_text
from talkforge.datasets.shards import ClipShards
from talkforge.datasets.video import FPS
from talkforge.models.dice_talk.model import DiceTalk
from talkforge.models.dice_talk.pipeline import Portrayed, frame_rate, latents_of, pictures
from talkforge.models.diffusion.config import GuidanceConfig
from talkforge.models.training.weights import load_for_use
from talkforge.tasks.clip_prior import ClipPriors
from talkforge.tasks.dice_priors import build_priors, middle_prior
from talkforge.tasks.generate_dice_talk import Retrieval, retrieving
from talkforge.tasks.generate_talking import sampled
from talkforge.tasks.talking_batches import STRIDE, open_clips
from talkforge.tasks.train_dice_talk import DiceTalkTrainConfig
from talkforge.tasks.trained import settings_of, weights_of

METRICS = ["fvd:i3d-k400-16f", "fd:mobilenet-v2", "av_sync:mouth-envelope", "e_fid:arkit52", "lip_dynamics:mp-tasks"]
# By reference: what is scored against it; the last one is what the others are compared with.
REFERENCES = {"real": ("vae", "dice-talk", "still"), "vae": ("dice-talk", "still-vae")}
GROUPS = ("all", "several emotions", "others")


@dataclass
class Study:
    """A training and the clips that it saw."""

    run: Path
    data: Path
    out: Path
    frames: int
    steps: int | None
    conditions: float | None
    temperature: float | None
    sigma_max: float | None
    retrieval: Retrieval | None
    emotional: Path

    def __post_init__(self) -> None:
        self.settings = settings_of(self.run, "dice-talk", DiceTalkTrainConfig)
        self.trained = weights_of(self.run)
        assert self.settings.embedder is not None
        self.priors = ClipPriors.load(self.settings.embedder, self.settings.prior_from)
        columns = [self.settings.audio_column, self.priors.expression, self.priors.audio]
        shards = open_clips(self.data, "train", [name for name in columns if name is not None])
        model = sampled(self.settings.model, temperature=self.temperature, sigma_max=self.sigma_max)
        self.config = retrieving(model, self.retrieval)
        box_scale = self.config.pose.box_scale
        self.clips = talking.Clips.of(shards, self.settings, box_scale=box_scale, limit=self.frames)

    @property
    def sets(self) -> Path:
        """Where the videos lie."""
        return self.out / "sets"

    @property
    def guidance(self) -> GuidanceConfig:
        """Of sampling."""
        return talking.weighted(self.config.guidance, self.conditions)

    @property
    def made(self) -> dict[str, Any]:
        """What the videos depend on."""
        return {
            "weights": self.trained.sha256,
            "embedder": self.priors.sha256,
            "frames": self.frames,
            "steps": self.steps,
            "conditions": self.conditions,
            "temperature": self.temperature,
            "sigma_max": self.sigma_max,
            "retrieval": self.retrieval,
        }

    @cached_property
    def model(self) -> DiceTalk:
        """With averaged weights."""
        return load_for_use(lambda: DiceTalk(self.config), self.trained.weights)

    def own_prior(self, clip: int) -> np.ndarray:
        """The clip's own prior, (1, d)."""
        columns, known = self.clips.pictures.clip(clip).columns, (self.priors.expression, self.priors.audio)
        face, heard = (None if name is None else columns[name] for name in known)
        found = middle_prior(self.priors, face, heard, int(self.clips.shards.lengths[clip]))
        assert found is not None, f"{self.clips.names[clip]} has no frame that the embedder can read"
        return found

    def generated(self, clip: int, mu: np.ndarray, seed: int) -> talking.Frames:
        """Pictures of the clip's first frame animated by its sound."""
        model, count = self.config, self.clips.count(clip)
        states = self.clips.states(clip, self.settings.audio_column, model.audio.states, model.audio.state_width)
        mask = self.clips.pictures.mask(self.clips.pictures.clip(clip), 0)
        given = Portrayed(self.clips.filmed(clip)[0], states, mu, mask, count)
        latents = latents_of(self.model, given, seed=seed, steps=self.steps, guidance=self.guidance)
        return np.concatenate(list(pictures(self.model, latents, count))), frame_rate(model.windows)

    def through_vae(self, clip: int, filmed: np.ndarray) -> talking.Frames:
        """The filmed pictures that a latent stands for, encoded and decoded."""
        shown = torch.from_numpy(np.ascontiguousarray(filmed[::STRIDE])).movedim(-1, 1).float() / 127.5 - 1
        with torch.inference_mode():
            latents = self.model.encoders.encode(shown)  # pyright: ignore[reportOptionalMemberAccess]
            found = np.concatenate(list(pictures(self.model, latents, self.clips.count(clip))))
        return found, frame_rate(self.config.windows)

    def lay(self) -> None:
        """The sets that need no other emotion."""
        clips = self.clips
        made = {
            "real": lambda k: (clips.filmed(k), FPS),
            "still": lambda k: (clips.still(k), FPS),
            "vae": lambda k: self.through_vae(k, clips.filmed(k)),
            "still-vae": lambda k: self.through_vae(k, clips.still(k)),
            "dice-talk": lambda k: self.generated(k, self.own_prior(k), 0),
        }
        clips.lay(self.sets, made)


def measure_videos(study: Study) -> dict[str, Any]:
    """Values of each set by reference, and differences from the reference's still set, over clips."""
    found: dict[str, Any] = {}
    for reference, kinds in REFERENCES.items():
        runs, still = study.out / "runs" / reference, kinds[-1]
        found[reference] = {
            kind: talking.scored(
                study.sets / reference, study.sets / kind, runs / kind, METRICS, None if kind == still else runs / still
            )
            for kind in reversed(kinds)
        }
    return found


def measure_emotions(study: Study, seeds: int, asked: Sequence[str] | None) -> dict[str, Any]:
    """What is seen in the same portraits and sounds under each emotion's mean prior."""
    known, counts = build_priors(study.priors, study.emotional)
    chosen = {name: mu for name, mu in known.items() if name in (asked or MEAD_EMOTIONS)}
    made = {
        f"as-{emotion}-{seed}": lambda k, mu=mu, seed=seed: study.generated(k, mu, seed)
        for emotion, mu in chosen.items()
        for seed in range(seeds)
    }
    study.clips.lay(study.sets, made)
    names = study.clips.names
    seen = {kind: talking.looked(study.sets / kind, names) for kind in made}
    groups = grouped(study)
    pairs = {f"{a} - {b}": compared(seen, a, b, seeds, groups) for a, b in combinations(chosen, 2)}
    filmed = dict(zip(names, talking.looked(study.sets / "real", names), strict=True))
    return {"clips behind each prior": counts, "groups": groups, "differences": pairs, "filmed": filmed}


def grouped(study: Study) -> dict[str, list[int]]:
    """Clips by whether their person is labelled with several emotions."""
    labelled, emotions = ClipShards(study.emotional, "train", columns=[]), defaultdict(set)
    for person, emotion in zip(labelled.values("identity"), labelled.values("emotion"), strict=True):
        emotions[person] |= {emotion} - {None}
    who = study.clips.label("identity")
    several = [k for k, person in enumerate(who) if person is not None and len(emotions[person]) > 1]
    others = [k for k in range(len(who)) if k not in several]
    return dict(zip(GROUPS, ([*range(len(who))], several, others), strict=True))


def compared(
    seen: Mapping[str, Sequence[dict[str, float] | None]],
    a: str,
    b: str,
    seeds: int,
    groups: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """Differences of what is seen, each clip's mean over seeds, with the interval over clips, by group."""
    sides = [[seen[f"as-{name}-{seed}"] for seed in range(seeds)] for name in (a, b)]
    every = [one for side in sides for videos in side for one in videos if one is not None]
    found: dict[str, Any] = {}
    for what in every[0] if every else ():
        found[what] = {}
        for group, clips in groups.items():
            both = [[[videos[k] for videos in side] for side in sides] for k in clips]
            whole = [pair for pair in both if all(one is not None for side in pair for one in side)]
            means = [tuple(float(np.mean([one[what] for one in side if one])) for side in pair) for pair in whole]
            found[what][group] = talking.difference(means)
    return found


def table(found: Mapping[str, Any]) -> str:
    """The videos' numbers and the emotions' differences in Markdown."""
    lines = [f"denoising loss {found['loss']['first']:.3f} to {found['loss']['last']:.3f}"]
    for reference, kinds in REFERENCES.items():
        sides, first = found["videos"][reference], kinds[-1]
        heads = ["metric", *kinds, f"dice-talk - {first} [95 %], p"]
        lines += ["", f"against {reference}:", "", f"| {' | '.join(heads)} |", "|---|" + "---|" * (len(kinds) + 1)]
        gaps = sides["dice-talk"]["against"]["results"]
        for metric in METRICS:
            cells = [talking.cell(sides[kind]["results"][metric]) for kind in kinds]
            gap = gaps[metric]
            said = talking.cell({"value": gap["difference"], "ci95": gap["ci95"], "reason": gap["reason"]})
            p = "" if gap["p_value"] is None else f", {gap['p_value']:.3g}"
            lines.append(f"| {metric} | {' | '.join(cells)} | {said}{p} |")
    lines += ["", "| emotions | seen | people | difference [95 %] | p | clips |", "|---|---|---|---|---|---|"]
    for names, differences in found["emotions"]["differences"].items():
        for what, groups in differences.items():
            lines += [f"| {names} | {what} | {group} | {talking.told(one)} |" for group, one in groups.items()]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a talkforge train dice-talk command")
    parser.add_argument("--data", type=Path, required=True, help="the build that it was trained on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=50, help="of each clip, 25 a second")
    parser.add_argument("--seeds", type=int, default=2, help="starting noises of each emotion's videos")
    parser.add_argument("--steps", type=int, help="of denoising; the training's by default")
    parser.add_argument("--conditions", type=float, help="guidance weight; the training's by default")
    parser.add_argument("--temperature", type=float, help="of the starting noise; the training's by default")
    parser.add_argument("--sigma-max", type=float, help="noise level at the start; the training's by default")
    parser.add_argument("--retrieval", choices=["all", "nearest"], help="from the bank; the training's by default")
    parser.add_argument("--emotional", type=Path, help="build whose labelled clips give the priors; DATA by default")
    parser.add_argument("--emotions", help="comma-separated; all that the build has by default")
    options = parser.parse_args(arguments)
    study = Study(
        options.run,
        options.data,
        options.out,
        options.frames,
        options.steps,
        options.conditions,
        options.temperature,
        options.sigma_max,
        options.retrieval,
        options.emotional or options.data,
    )
    talking.check_made(study.out, study.made)
    study.lay()
    found = {
        "made": now(),
        "talkforge_version": version(),
        "environment": environment(),
        "checkpoint": study.trained.checkpoint.name,
        "weights_sha256": study.trained.sha256,
        "denoising_steps": study.steps or study.config.diffusion.steps,
        "sampling": asdict(study.config.diffusion),
        "retrieval": study.config.bank.retrieval,
        "guidance": asdict(study.guidance),
        "clips": study.clips.names,
        "loss": talking.measure_loss(study.run),
        "videos": measure_videos(study),
        "emotions": measure_emotions(study, options.seeds, options.emotions and options.emotions.split(",")),
    }
    emotions = sorted(path.name for path in study.sets.glob("as-*-0"))
    talking.draw_strips(study.sets, ["real", "vae", "dice-talk", *emotions], study.clips.names, study.out / "strips")
    write_json(options.out / "results.json", found)
    write_text(options.out / "table.md", table(found))
    print(table(found))


if __name__ == "__main__":
    main()

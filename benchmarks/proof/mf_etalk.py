"""What small trainings of mf-etalk learnt: rows a, b and c of the paper's Table 3 over seeds, and edits of units.

    python benchmarks/proof/mf_etalk.py --data BUILD --out DIR --runs a=RUN a=RUN b=RUN b=RUN c=RUN c=RUN --edit RUN
    python benchmarks/proof/mf_etalk.py --data BUILD --out DIR --edit RUN --conditions 2

(a) loss: how far the denoising loss of each training fell;
(b) rows: each clip's first frame, sound and action units to a video (row a reads no action units); FD, mouth sync and
    E-FID against the filmed clips, and how much of mini-Xception's mean probabilities the video shares with the filmed
    clip. Values are means over seeds with Student's interval over them; rows are compared seed by seed;
(c) smile: the same videos with AU12 raised, and videos with AU12 held at 0, 0.25 and 0.5 and all other units at the
    person's neutral; what ARKit's coefficients and mini-Xception see of it clip by clip, and what sync does;
(d) swap: each clip with the action units of another person's clip: whether the smile and the brows that are seen follow
    the one or the other, clip by clip in their means, and what mouth sync does. Who gives the units to whom there is a
    cycle over clips by their smile, half of the clips apart. And frame by frame, with the units of each other clip.

Without --runs there are (c), (d) and the loss of the edited training. Clips of the training are no test of what
generalises. Sets and runs are kept below DIR and not made again. Writes results.json, table.md and strips/*.png.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from talkforge.benchmarks.proof import talking, unit_tracks
from talkforge.core.errors import InputError
from talkforge.core.provenance import environment, now, version
from talkforge.core.shards import write_json, write_text
from talkforge.datasets.shards import read_info
from talkforge.datasets.video import FPS
from talkforge.models.mf_etalk.config import au_column, au_columns
from talkforge.models.mf_etalk.masks import region_masks
from talkforge.models.mf_etalk.model import MfEtalk
from talkforge.models.mf_etalk.pipeline import Portrayed, latents_of, pictures
from talkforge.models.training.weights import load_for_use
from talkforge.tasks.generate_talking import sampled
from talkforge.tasks.talking_aus import Neutrals, filled, intensities, neutral_faces, unit_columns
from talkforge.tasks.talking_batches import open_clips, seen_boxes
from talkforge.tasks.train_mf_etalk import LIPS, STRIDE, MfEtalkTrainConfig, around
from talkforge.tasks.trained import settings_of, weights_of

METRICS = ["fd:mobilenet-v2", "av_sync:mouth-envelope", "e_fid:arkit52"]
SYNC = METRICS[1:2]
SHARED = "fer2013 overlap"  # of mean probabilities, 1: the same
UNITS = au_columns()
SMILE = UNITS.index("AU12")
RAISED = (0.25, 0.5)
CLIP_SPREAD = 0.95


@dataclass
class Study:
    """One training and the clips that it saw.

    Attributes:
        name: row and number of the training, say "a-0".
    """

    name: str
    run: Path
    data: Path
    out: Path
    frames: int
    steps: int | None
    conditions: float | None
    temperature: float | None

    def __post_init__(self) -> None:
        self.settings = settings_of(self.run, "mf-etalk", MfEtalkTrainConfig)
        self.trained = weights_of(self.run)
        self.config = sampled(self.settings.model, temperature=self.temperature)
        model, units = self.config, unit_columns(self.settings.aus)
        shards = open_clips(self.data, "train", [self.settings.audio_column, *units.values()])
        scale = model.face.face_scale
        self.clips = talking.Clips.of(
            shards, self.settings, box_scale=scale, limit=self.frames, stride=STRIDE, parts={"lips": LIPS}
        )

    @property
    def sets(self) -> Path:
        """Where the videos lie."""
        return self.out / "sets"

    @property
    def made(self) -> dict[str, Any]:
        """What the videos depend on."""
        return {
            "weights": self.trained.sha256,
            "build": read_info(self.data)["digest"],
            "frames": self.frames,
            "steps": self.steps,
            "conditions": self.conditions,
            "temperature": self.temperature,
        }

    @cached_property
    def model(self) -> MfEtalk:
        """With averaged weights."""
        return load_for_use(lambda: MfEtalk(self.config), self.trained.weights)

    @cached_property
    def neutrals(self) -> Neutrals:
        """Of the build's people."""
        return neutral_faces(self.data, "train", self.settings.aus)

    def neutral(self, clip: int) -> np.ndarray:
        """What counts as the neutral face of the clip's person, (17,)."""
        found = self.neutrals.of_clip[self.clips.shards.clip_ids[clip]]
        if found is None:
            raise InputError(f"{self.clips.names[clip]} has no action units", hint="leave it out of the build")
        return found

    def track(self, clip: int) -> np.ndarray:
        """The clip's own action units, (T, 17)."""
        return filled(intensities(self.clips.pictures.clip(clip).columns, self.settings.aus))[: self.clips.count(clip)]

    def driven(self, clip: int, other: int) -> np.ndarray:
        """The other clip's departure from its person's neutral face, on this one's, as long as this clip."""
        moved = self.track(other) - self.neutral(other)
        places = np.minimum(np.arange(self.clips.count(clip)), len(moved) - 1)
        return np.clip(moved[places] + self.neutral(clip), 0, self.config.au.most)

    def generated(self, clip: int, track: np.ndarray, seed: int = 0) -> talking.Frames:
        """Pictures of the clip's first frame animated by its sound and a track of action units."""
        model, whole = self.config, self.clips.pictures.clip(clip)
        layers = model.audio.layers
        states = self.clips.states(clip, self.settings.audio_column, layers.states, layers.state_width)
        face, lip = (around(seen_boxes(boxes, 0, 1)[:1]) for boxes in (whole.boxes, whole.parts["lips"]))
        side = int(whole.columns["crop_size"])
        regions = region_masks(face, lip, side, side, model.face).numpy()[None]
        mask = self.clips.pictures.mask(whole, 0)
        portrait = self.clips.filmed(clip)[0]
        given = Portrayed(portrait, mask, regions, states, track.astype(np.float32), self.neutral(clip))
        guidance = talking.weighted(model.guidance, self.conditions)
        latents = latents_of(self.model, given, seed=seed, steps=self.steps, guidance=guidance)
        return np.concatenate(list(pictures(self.model, latents))), FPS


def overlap(one: Mapping[str, float] | None, other: Mapping[str, float] | None) -> float | None:
    """How much two mean distributions over emotions share, 0..1."""
    if one is None or other is None:
        return None
    return float(sum(min(one[name], other[name]) for name in one if name.startswith("fer ")))


def measure_row(study: Study, real: Sequence[dict[str, float] | None]) -> dict[str, float | None]:
    """Numbers of a training's own videos."""
    study.clips.lay(study.sets, {study.name: lambda k: study.generated(k, study.track(k))})
    run = study.out / "runs" / study.name
    results = talking.scored(study.sets / "real", study.sets / study.name, run, METRICS)["results"]
    seen = talking.looked(study.sets / study.name, study.clips.names)
    shared = [value for pair in zip(seen, real, strict=True) if (value := overlap(*pair)) is not None]
    return {metric: results[metric]["value"] for metric in METRICS} | {
        SHARED: float(np.mean(shared)) if shared else None
    }


def over_seeds(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and Student's 95 % interval of one value a seed."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return {"value": None, "ci95": None, "reason": "a seed has no value", "seeds": values}
    mean, spread = float(np.mean(known)), None
    if len(known) > 1:
        half = stats.t.ppf((1 + CLIP_SPREAD) / 2, len(known) - 1) * np.std(known, ddof=1) / len(known) ** 0.5
        spread = (mean - float(half), mean + float(half))
    return {"value": mean, "ci95": spread, "reason": None, "seeds": known}


def measure_rows(studies: Mapping[str, Sequence[Study]]) -> dict[str, Any]:
    """Each row over its seeds, and each row less the one before, seed by seed."""
    first = next(iter(studies.values()))[0]
    first.clips.lay(first.sets, {"real": lambda k: (first.clips.filmed(k), FPS)})
    real = talking.looked(first.sets / "real", first.clips.names)
    values: dict[str, dict[str, list[Any]]] = {}
    losses: dict[str, list[Any]] = defaultdict(list)
    for row, seeds in studies.items():
        rows = [measure_row(study, real) for study in seeds]
        values[row] = {metric: [one[metric] for one in rows] for metric in (*METRICS, SHARED)}
        losses[row] = [talking.measure_loss(study.run) for study in seeds]
    found: dict[str, Any] = {row: {m: over_seeds(v) for m, v in own.items()} for row, own in values.items()}
    for before, after in zip(values, list(values)[1:], strict=False):
        pairs = {m: zip(values[after][m], values[before][m], strict=True) for m in values[after]}
        gaps = {m: [None if None in pair else pair[0] - pair[1] for pair in two] for m, two in pairs.items()}
        found[f"{after} - {before}"] = {metric: over_seeds(gap) for metric, gap in gaps.items()}
    return {"rows": found, "losses": losses}


def measure_smile(study: Study) -> dict[str, Any]:
    """Videos with AU12 raised against the same with their own action units."""

    def raised(clip: int, by: float) -> talking.Frames:
        track = study.track(clip)
        track[:, SMILE] = np.clip(track[:, SMILE] + by, 0, study.config.au.most)
        return study.generated(clip, track)

    made = {f"smile-{by}": lambda k, by=by: raised(k, by) for by in RAISED}
    study.clips.lay(study.sets, {"own": lambda k: study.generated(k, study.track(k)), **made})
    return compared(study, list(made), "own")


def measure_smile_from_rest(study: Study) -> dict[str, Any]:
    """Videos with AU12 at so much against the same with none; all other units at the person's neutral throughout."""

    def held(clip: int, at: float) -> talking.Frames:
        track = np.repeat(study.neutral(clip)[None], study.clips.count(clip), 0)
        track[:, SMILE] = at
        return study.generated(clip, track)

    made = {f"AU12-{at}": lambda k, at=at: held(k, at) for at in (0, *RAISED)}
    study.clips.lay(study.sets, made)
    return compared(study, list(made)[1:], "AU12-0")


def compared(study: Study, kinds: Sequence[str], before: str) -> dict[str, Any]:
    """By set of videos: what is seen clip by clip, and mouth sync, less the same of the set `before`."""
    names, real = study.clips.names, study.sets / "real"
    first, run = talking.looked(study.sets / before, names), study.out / "runs" / before
    talking.scored(real, study.sets / before, run, SYNC)
    found: dict[str, Any] = {}
    for kind in kinds:
        seen = talking.looked(study.sets / kind, names)
        both = [(a, b) for a, b in zip(seen, first, strict=True) if a is not None and b is not None]
        looks = {
            what: talking.difference([(a[what], b[what]) for a, b in both]) for what in (both[0][0] if both else ())
        }
        sync = talking.scored(real, study.sets / kind, study.out / "runs" / kind, SYNC, run)
        found[kind] = {"looks": looks, "sync": sync["against"]["results"]}
    return found


def cycle(smiles: Sequence[float]) -> list[int]:
    """Whose action units each clip gets: the clip half of the order by smile further on."""
    order = np.argsort(smiles)
    given = np.empty(len(order), int)
    given[order] = np.roll(order, len(order) // 2)
    return [int(k) for k in given]


def measure_swap(study: Study) -> dict[str, Any]:
    """Videos with another person's action units against the same with their own ones."""
    clips = study.clips
    donors = cycle([float(study.track(k)[:, SMILE].mean()) for k in range(len(clips))])
    clips.lay(study.sets, {"swapped": lambda k: study.generated(k, study.driven(k, donors[k]))})
    own, seen = (talking.looked(study.sets / kind, clips.names) for kind in ("own", "swapped"))
    asked, came = defaultdict(list), defaultdict(list)
    for clip, (before, after) in enumerate(zip(own, seen, strict=True)):
        if before is None or after is None:
            continue
        change = study.driven(clip, donors[clip]).mean(0) - study.track(clip).mean(0)
        for what, name in (("smile", "AU12"), ("brows up", "AU01")):
            asked[what].append(float(change[UNITS.index(name)]))
            came[what].append(after[what] - before[what])
    sync = talking.scored(
        study.sets / "real", study.sets / "swapped", study.out / "runs" / "swapped", SYNC, study.out / "runs" / "own"
    )
    follow = {what: followed(asked[what], came[what]) for what in asked}
    return {
        "donors": [clips.names[k] for k in donors],
        "follows": follow,
        "tracks": measure_tracks(study),
        "sync": sync["against"]["results"],
    }


def measure_tracks(study: Study) -> dict[str, Any]:
    """How the units that are seen go with those asked for, see `unit_tracks`: own ones, and the change by each swap.

    Each clip has the units of every other clip in turn and counts once, by its mean. Clips without a face in one of
    their videos are named, and count in no value.
    """
    unread = set(map(au_column, study.config.au.unread))
    read = [place for place in unit_tracks.QUIET if UNITS[place] not in unread]
    looks = {"all units": unit_tracks.QUIET, "units read": read, "AU12": unit_tracks.SMILE}
    values: dict[str, list[float | None]] = defaultdict(list)
    faceless: list[str] = []
    for clip, name in enumerate(study.clips.names):
        changes = [change_by_swap(study, clip, donor) for donor in range(len(study.clips)) if donor != clip]
        own = unit_tracks.seen_units(study.sets / "own" / f"{name}.mp4", study.settings.aus)
        pairs = [(asked, seen - own) for asked, seen in changes if seen is not None and own is not None]
        if own is None or len(pairs) < len(changes):
            faceless.append(name)
            continue
        for what, units in looks.items():
            values[f"own, {what}"].append(unit_tracks.over_time(study.track(clip), own, units))
            found = [value for pair in pairs if (value := unit_tracks.over_time(*pair, units)) is not None]
            values[f"swapped less own, {what}"].append(float(np.mean(found)) if found else None)
    return {"no_face": faceless, "values": {what: unit_tracks.mean_over_clips(each) for what, each in values.items()}}


def change_by_swap(study: Study, clip: int, donor: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The change of units (T, 17) that another clip's units ask for, and those seen then; None without a face."""
    kind, track = f"units-of-{study.clips.names[donor]}", study.driven(clip, donor)
    study.clips.lay(study.sets, {kind: lambda k: study.generated(k, track)}, [clip])
    video = study.sets / kind / f"{study.clips.names[clip]}.mp4"
    return track - study.track(clip), unit_tracks.seen_units(video, study.settings.aus)


def followed(asked: Sequence[float], came: Sequence[float]) -> dict[str, Any]:
    """Spearman's correlation between the change that was asked for and the one that is seen, over clips.

    None with a reason for fewer than three clips, and where all changes are the same.
    """
    known = {"asked": asked, "came": came}
    if len(asked) < 3 or len(set(asked)) == 1 or len(set(came)) == 1:
        return known | {"spearman": None, "p_value": None, "reason": "fewer than three clips, or no change differs"}
    found = stats.spearmanr(asked, came)
    return known | {"spearman": float(found.statistic), "p_value": float(found.pvalue), "reason": None}


def table_of_rows(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines of the ablations and their losses."""
    heads = [*METRICS, SHARED]
    yield f"| row | {' | '.join(heads)} |"
    yield "|---|" + "---|" * len(heads)
    for row, values in found["rows"].items():
        yield f"| {row} | {' | '.join(talking.cell(values[metric]) for metric in heads)} |"
    yield from ("", "denoising loss, first to last of each seed:", "")
    for row, losses in found["losses"].items():
        yield f"- {row}: " + ", ".join(f"{one['first']:.3f} to {one['last']:.3f}" for one in losses)
    yield ""


def table(found: Mapping[str, Any]) -> str:
    """All of it in Markdown."""
    lines = [*table_of_rows(found["ablations"])] if "ablations" in found else []
    lines += [f"denoising loss of the edited training: {found['loss']['first']:.3f} to {found['loss']['last']:.3f}"]
    lines += ["", "| AU12 | seen | difference [95 %] | p | clips |", "|---|---|---|---|---|"]
    for kind, one in {**found["smile"], **found["smile_from_rest"]}.items():
        lines += [f"| {kind} | {what} | {talking.told(value)} |" for what, value in one["looks"].items()]
    lines += ["", "mouth sync less that of the clips' own action units, and of AU12 at 0:", ""]
    for kind, one in {**found["smile"], "swapped": found["swap"], **found["smile_from_rest"]}.items():
        gap = one["sync"][SYNC[0]]
        said = talking.cell({"value": gap["difference"], "ci95": gap["ci95"], "reason": gap["reason"]})
        lines.append(f"- {kind}: {said}, p {gap['p_value']}")
    lines += ["", "swapped action units, asked against seen over clips:", ""]
    for what, one in found["swap"]["follows"].items():
        told = one["reason"] or f"Spearman {one['spearman']:.2f}, p {one['p_value']:.3g}"
        lines.append(f"- {what}: {told}, {len(one['came'])} clips")
    tracks = found["swap"]["tracks"]
    lines += ["", *unit_tracks.told(tracks["values"]), "", f"no face in: {', '.join(tracks['no_face']) or 'none'}"]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the build that they were trained on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", default=[], help="ROW=FOLDER of talkforge train mf-etalk, one a seed")
    parser.add_argument("--edit", type=Path, required=True, help="the training whose action units are edited")
    parser.add_argument("--frames", type=int, default=48, help="of each clip, 25 a second")
    parser.add_argument("--steps", type=int, help="of denoising; the training's by default")
    parser.add_argument("--conditions", type=float, help="guidance weight; the training's by default")
    parser.add_argument("--temperature", type=float, help="of the starting noise; the training's by default")
    options = parser.parse_args(arguments)
    rest = (options.frames, options.steps, options.conditions, options.temperature)
    studies: dict[str, list[Study]] = defaultdict(list)
    for text in options.runs:
        row, _, folder = text.partition("=")
        name = f"{row}-{len(studies[row])}"
        studies[row].append(Study(name, Path(folder), options.data, options.out / "rows", *rest))
    edited = Study("edit", options.edit, options.data, options.out / "edit", *rest)
    everyone = [*(study for row in studies.values() for study in row), edited]
    talking.check_made(options.out, {study.name: study.made for study in everyone})
    for clip in range(len(edited.clips)):
        edited.neutral(clip)  # refuses a clip without action units before anything is made
    edited.clips.lay(edited.sets, {"real": lambda k: (edited.clips.filmed(k), FPS)})
    found = {
        "made": now(),
        "talkforge_version": version(),
        "environment": environment(),
        "sampling": asdict(edited.config.diffusion),
        "guidance": asdict(talking.weighted(edited.settings.model.guidance, options.conditions)),
        "clips": edited.clips.names,
        **({"ablations": measure_rows(studies)} if studies else {}),
        "loss": talking.measure_loss(edited.run),
        "smile": measure_smile(edited),
        "smile_from_rest": measure_smile_from_rest(edited),
        "swap": measure_swap(edited),
    }
    kinds = ["real", "own", *(f"smile-{by}" for by in RAISED), "swapped", *(f"AU12-{at}" for at in (0, *RAISED))]
    talking.draw_strips(edited.sets, kinds, edited.clips.names, options.out / "strips")
    write_json(options.out / "results.json", found)
    write_text(options.out / "table.md", table(found))
    print(table(found))


if __name__ == "__main__":
    main()

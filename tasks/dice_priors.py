"""Emotion priors of clips by a trained embedder, and the mean prior of each emotion over a build.

A clip's prior is mu of eq. 4 over the frames around its middle, as many as the embedder takes; frames without a face or
without sound do not count. The mean over many clips of an emotion is its prompt (paper, section 4.1).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ..core.counters import Counters
from ..core.errors import ConfigError, InputError, MediaError, NoFace, TalkForgeError
from ..core.progress import track
from ..datasets.audio import find_audio, has_audio
from ..datasets.shards import ClipShards
from ..models.dice_talk.priors import mean_prior, write_priors
from .clip_prior import ClipPriors, nearby
from .extract import ClipFile, extract_clip
from .extractor import ExtractorSpec, extractors
from .features import FeatureRow, FeatureStore
from .recipe import column_name
from .talking_batches import check_pinned
from .talking_training import pinned_by
from .train_dice_talk import EMBEDDER, DiceTalkTrainConfig
from .trained import settings_of, system_of, weights_of

PRIORS = "priors.npz"  # in a training's folder
OWN_FILE = "give --out FILE.npz, then generate --priors FILE.npz"
By = Literal["emotion", "clip"]


def open_priors(run: Path) -> ClipPriors:
    """The embedder of a training of dice-embedder, or the one that a training of dice-talk was given.

    Raises:
        InputError: no such training, or its embedder is not here.
        ConfigError, WeightsError: see `trained`.
    """
    if system_of(run) == "dice-embedder":
        return ClipPriors.load(run)
    found = ClipPriors.load(embedder_run(run), settings_of(run, "dice-talk", DiceTalkTrainConfig).prior_from)
    check_pinned(pinned_by(weights_of(run).checkpoint), {EMBEDDER: found.sha256})
    return found


def embedder_run(run: Path) -> Path:
    """The embedder's folder behind a training of dice-talk. Raises InputError if it is not here."""
    found = settings_of(run, "dice-talk", DiceTalkTrainConfig).embedder
    if found is None:
        raise InputError(f"{run} was trained without an embedder")
    if not found.is_dir():
        raise InputError(f"{found}, the embedder of {run}, is not here", hint="bring it to that place")
    return found


def middle_prior(
    priors: ClipPriors, face: np.ndarray | None, heard: np.ndarray | None, frames: int
) -> np.ndarray | None:
    """mu of the middle of a clip, (1, d); None where no frame of it counts.

    Args:
        face: (frames, C), the column that the embedder reads.
        heard: (steps x frames, states x D) likewise.
    """
    model = priors.settings.model
    part = nearby(frames // 2, 0, frames, model.max_frames)
    steps = slice(part.start * model.steps_per_frame, part.stop * model.steps_per_frame)
    found = priors(None if face is None else face[part], None if heard is None else heard[steps])
    return None if found is None else found[0][None]


def build_priors(
    priors: ClipPriors, build: Path, *, split: str = "train", by: By = "emotion"
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Mean priors of a build's clips by emotion, or each clip's own by its id; and how many clips each is of.

    Raises:
        InputError, ConfigError: no such build, split or column; no clip with a label, or none that can be read.
    """
    columns = [column for column in (priors.expression, priors.audio) if column is not None]
    shards = ClipShards(build, split, columns=columns)
    if not len(shards):
        raise InputError(f"{build} has no clip in split {split}")
    names = _names(shards, by)
    groups: dict[str, list[np.ndarray]] = defaultdict(list)
    for k in track([k for k, name in enumerate(names) if name is not None], "priors"):
        row = shards[k]
        face, heard = (None if column is None else row[column] for column in (priors.expression, priors.audio))
        mu = middle_prior(priors, face, heard, row["n_frames"])
        if mu is not None:
            groups[str(names[k])].append(mu)
    if not groups:
        raise InputError(f"no clip of {build}, split {split}, has a frame that the embedder can read")
    ordered = dict(sorted(groups.items()))
    return {name: mean_prior(found) for name, found in ordered.items()}, {n: len(f) for n, f in ordered.items()}


def _names(shards: ClipShards, by: By) -> Sequence[str | None]:
    if by == "clip":
        return shards.clip_ids
    there = "emotion" in shards.info["columns"]
    names: list[str | None] = shards.values("emotion") if there else []
    if not any(names):
        raise InputError(
            f"no clip of {shards.folder} says its emotion", hint="--by clip --out FILE.npz: each clip's own"
        )
    return names


def write_run_priors(
    run: Path, build: Path | None = None, out: Path | None = None, *, split: str = "train", by: By = "emotion"
) -> tuple[Path, dict[str, int]]:
    """Writes the priors that a training's embedder gives for a build.

    Args:
        run: of dice-talk or of dice-embedder.
        build: None takes the one that `run` was trained on.
        out: None writes `priors.npz` into `run`, where generation looks for named emotions by a training of dice-talk.

    Returns:
        The file, and the number of clips behind each prior.

    Raises:
        InputError: no `out` for what generation does not look for in `run`.
        What `open_priors` and `build_priors` raise.
    """
    if out is None:
        _check_kept_in(run, by)
    priors = open_priors(run)
    found, counts = build_priors(priors, build or weights_of(run).data, split=split, by=by)
    path = out or run / PRIORS
    path.parent.mkdir(parents=True, exist_ok=True)
    write_priors(path, found, width=priors.width)
    return path, counts


def _check_kept_in(run: Path, by: By) -> None:
    """Only the named emotions of a training of dice-talk are kept in it."""
    if by == "clip":
        raise InputError("priors of clips would replace those of emotions in the run", hint=OWN_FILE)
    if system_of(run) == "dice-embedder":
        raise InputError(f"{run} is a training of dice-embedder, where generation reads no priors", hint=OWN_FILE)


def prior_of_clip(priors: ClipPriors, clip: Path, cache: Path | None = None) -> np.ndarray:
    """The prior of a video's emotion, float32 (1, d); its features come from the cache where they are there.

    Raises:
        NoFace, MediaError: the clip shows no face, has no sound, or cannot be read.
        WeightsError: a network that reads it is not here.
    """
    if not clip.is_file():
        raise InputError(f"there is no file {clip}")
    makers = [None if column is None else maker_of(column) for column in (priors.expression, priors.audio)]
    sound = clip if has_audio(clip) else find_audio(clip) or clip
    rows = features_of(ClipFile(clip, sound), [maker[0] for maker in makers if maker], cache)
    face, heard = (None if maker is None else rows[maker[0].id].array(maker[1]) for maker in makers)
    steps = priors.settings.model.steps_per_frame
    frames = min(len(part) // k for part, k in ((face, 1), (heard, steps)) if part is not None)
    mu = middle_prior(priors, *_cut(face, heard, frames, steps), frames) if frames else None
    if mu is None:
        raise NoFace(f"nothing around the middle of {clip.name} shows a face with sound", hint="give another clip")
    return mu


def _cut(
    face: np.ndarray | None, heard: np.ndarray | None, frames: int, steps: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    return None if face is None else face[:frames], None if heard is None else heard[: frames * steps]


def maker_of(column: str) -> tuple[ExtractorSpec, str]:
    """The extractor of a build's column, and its own name of it. Raises ConfigError if there is none."""
    for spec in extractors.all():
        for name in spec.columns:
            if column_name(spec, name) == column:
                return spec, name
    raise ConfigError(f"no extractor makes the column '{column}' that the training read")


def features_of(clip: ClipFile, specs: Sequence[ExtractorSpec], cache: Path | None = None) -> dict[str, FeatureRow]:
    """Rows of a clip by extractor id, made where they are not stored yet.

    Raises:
        MediaError, NoFace: what is wrong with the clip; its `reason` is the stored one.
        WeightsError: a network is not here.
    """
    store, content = FeatureStore(cache, "face"), clip.content()
    extract_clip(clip, content, specs, store, Counters())
    rows = {spec.id: row for spec in specs if (row := store.find(spec, content)) is not None}
    for row in rows.values():
        if row.reason is not None:
            raise _error(row)
    return rows


def _error(row: FeatureRow) -> TalkForgeError:
    kinds = {kind.reason: kind for kind in _kinds(MediaError)} | {NoFace.reason: NoFace}
    return kinds.get(str(row.reason), InputError)(row.message)


def _kinds(kind: type[TalkForgeError]) -> Iterator[type[TalkForgeError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)

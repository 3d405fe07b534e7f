"""Lip-sync scores from SyncNet's vectors: offset, LSE-D (distance) and LSE-C (confidence).

With v_i the vector of the look at frame i and a_k that of the sound at frame k, every look is compared with the sound
up to s = `vshift` frames earlier and later:

    D[i, j] = |v_i - a_(i + j - s) + 1e-6|, j = 0 .. 2 s,     m_j = mean over i of D[i, j]
    LSE-D = min_j m_j,     LSE-C = median_j m_j - LSE-D,     offset = s - argmin_j m_j

(J. S. Chung and A. Zisserman, "Out of time: automated lip sync in the wild", 2016; named LSE by K. R. Prajwal et al.,
"A Lip Sync Expert Is All You Need for Speech to Lip Generation In the Wild", 2020; the arithmetic is that of the
published code, where 1e-6 comes from PyTorch's `pairwise_distance`.)

Sound beyond either end of the clip counts as the zero vector there. That adds terms |v_i| to m_j that have nothing to
do with the sound, the more the shorter the clip. `sync_scores` keeps it, because published numbers contain it;
`valid_sync_scores` averages real pairs only and is another quantity.

As metrics: each track of a clip is scored for itself, as published. A clip's LSE-C and LSE-D are the means over its
tracks, each counted once; its offset is that of the track with the most looks. The set's value is the mean over clips,
of the offset's absolute value. (A common port takes the largest confidence and the smallest distance over tracks, and 0
for both where there is no track, which as a distance is perfect; here such a clip has no value and a reason.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import ref

import numpy as np

from ..core.errors import InputError, TalkForgeError, TooShort
from ..core.sync_scores import VSHIFT, SyncScores, distances, scores
from .base import ClipScore, Features, MetricSpec, Pair, Row, Score, Settings, main_reason, usable
from .frechet import as_rows
from .intervals import bootstrap_mean


def sync_scores(video_feats: np.ndarray, audio_feats: np.ndarray, *, vshift: int = VSHIFT) -> SyncScores:
    """Scores as published, with zeros for the sound beyond the ends.

    Args:
        video_feats: (N, D) vectors of the looks, N at least 1; D is 1024 for SyncNet.
        audio_feats: (M, D) vectors of the sound, M at least 1. The published chain has M = N.
        vshift: largest shift tried, in frames.

    Returns:
        (offset, distance, confidence).

    Raises:
        InputError: other shapes, NaN or infinity, or a vshift below 1.
        TooShort: no look or no sound.
    """
    video, audio = _checked(video_feats, audio_feats, vshift)
    return scores(video, audio, vshift)


def valid_sync_scores(video_feats: np.ndarray, audio_feats: np.ndarray, *, vshift: int = VSHIFT) -> SyncScores:
    """Scores from pairs that exist: m_j is the mean over the looks that have sound at shift j.

    Arguments and result as for `sync_scores`.

    Raises:
        InputError: as `sync_scores`.
        TooShort: a side has no more than vshift vectors, so that some shift has no pair.
    """
    video, audio = _checked(video_feats, audio_feats, vshift)
    if (shortest := min(len(video), len(audio))) <= vshift:
        raise TooShort(f"shifts of up to {vshift} frames need more than {vshift} windows, not {shortest}")
    return scores(video, audio, vshift, valid=True)


def frame_distances(video_feats: np.ndarray, audio_feats: np.ndarray, offset: int = 0) -> np.ndarray:
    """D of every look at one offset, zeros for the sound beyond the ends: which frames fit and which do not.

    Args:
        video_feats, audio_feats: (N, D) and (M, D).
        offset: as `sync_scores` gives it.

    Returns:
        float64 (N,).

    Raises:
        InputError, TooShort: as `sync_scores`.
    """
    return distances(*_checked(video_feats, audio_feats), -offset)


def at_edge(offset: int, *, vshift: int = VSHIFT) -> bool:
    """Whether an offset lies at the border of what was tried (14 and 15 of 15): the true one may lie beyond."""
    return abs(offset) >= vshift - 1


def _checked(video: np.ndarray, audio: np.ndarray, vshift: int = VSHIFT) -> tuple[np.ndarray, np.ndarray]:
    video, audio = as_rows(video, "video_feats"), as_rows(audio, "audio_feats")
    if video.shape[1] != audio.shape[1]:
        raise InputError(f"vectors of {video.shape[1]} and {audio.shape[1]} dimensions")
    if vshift < 1:
        raise InputError(f"vshift is at least 1 frame, not {vshift}")
    if not len(video) or not len(audio):
        raise TooShort(f"{len(video)} windows of pictures and {len(audio)} of sound: nothing to compare")
    return video, audio


def track_scores(row: Row, *, valid: bool = False) -> list[tuple[int, SyncScores]]:
    """Number of looks and scores of each track of a clip.

    Args:
        row: of a SyncNet extractor: `video` and `audio` (W, 1024), `track` (W,).
        valid: pairs that exist only, see `valid_sync_scores`.

    Raises:
        InputError, TooShort: as the scores.
    """
    video, audio, tracks = row.array("video"), row.array("audio"), row.array("track")
    score = valid_sync_scores if valid else sync_scores
    chosen = [tracks == number for number in np.unique(tracks)]
    if not chosen:
        raise TooShort("the row holds no look")
    return [(int(these.sum()), score(video[these], audio[these])) for these in chosen]


def clip_scores(row: Row, *, valid: bool = False) -> SyncScores:
    """A clip's scores: mean distance and confidence of its tracks, offset of the longest. As `track_scores`."""
    found = track_scores(row, valid=valid)
    longest = max(found, key=lambda one: one[0])[1]
    distance = float(np.mean([one.distance for _, one in found]))
    return SyncScores(longest.offset, distance, float(np.mean([one.confidence for _, one in found])))


# The three metrics of a variant ask for the same scores; a row's go when the row does.
_KNOWN: dict[tuple[int, bool], tuple[ref[Row], SyncScores]] = {}


def _remembered(row: Row, valid: bool) -> SyncScores:
    """`clip_scores`, computed once as long as the row lives."""
    key = id(row), valid
    known = _KNOWN.get(key)
    if known is not None and known[0]() is row:
        return known[1]
    found = clip_scores(row, valid=valid)
    _KNOWN[key] = ref(row, lambda _: _KNOWN.pop(key, None)), found
    return found


@dataclass(frozen=True)
class SyncMetric:
    """One of the three scores over a set of clips.

    Attributes:
        spec: the declaration; wants one SyncNet extractor of the generated clip.
        score_name: "distance", "confidence" or "offset".
        valid: pairs that exist only.
    """

    spec: MetricSpec
    score_name: str
    valid: bool = False

    def score(self, pairs: Sequence[Pair], settings: Settings) -> Score:
        """Mean over clips (of offsets: of absolute values), bootstrap over clips, and the real clips' own mean."""
        clips = [self._clip(pair, pair.generated) for pair in pairs]
        values = self._values(clips)
        if not len(values):
            return Score(None, None, None, clips, reason=main_reason(clips))
        interval = bootstrap_mean(values, n=settings.bootstrap, seed=settings.seed)
        scored = [pair for pair, clip in zip(pairs, clips, strict=True) if clip.value is not None]
        real = self._values([self._clip(pair, pair.real) for pair in scored])
        return Score(
            float(values.mean()), interval, float(real.mean()) if len(real) else None, clips, notes=_note(clips)
        )

    def _values(self, clips: Sequence[ClipScore]) -> np.ndarray:
        values = np.array([clip.value for clip in clips if clip.value is not None], float)
        return np.abs(values) if self.score_name == "offset" else values

    def _clip(self, pair: Pair, features: Features | None) -> ClipScore:
        rejected = usable(replace(pair, generated=features), self.spec)
        if rejected or features is None:
            return rejected or ClipScore(pair.clip_id, None, "no_features", "the clip was not extracted")
        row = features[self.spec.generated[0]]
        try:
            found = _remembered(row, self.valid)
        except TalkForgeError as error:
            return ClipScore(pair.clip_id, None, error.reason, error.message)
        message = _EDGE.format(found.offset, VSHIFT) if at_edge(found.offset) else ""
        return ClipScore(pair.clip_id, float(getattr(found, self.score_name)), message=message)


_EDGE = "offset {} of at most {} either way: at the edge of what was tried, the true one may lie beyond"


def _note(clips: Sequence[ClipScore]) -> tuple[str, ...]:
    scored = [clip for clip in clips if clip.value is not None]
    edge = sum(bool(clip.message) for clip in scored)
    if not edge:
        return ()
    return (
        f"{edge} of {len(scored)} clips have their offset at the edge of what was tried ({VSHIFT - 1} frames or more "
        "either way): their sound may be shifted further, or not belong to the picture",
    )


@dataclass(frozen=True)
class _Variant:
    """What one extractor's metrics have in common."""

    extractor: str
    label: str
    min_track: str
    chain: str
    comparable: bool
    why: str


_DIRECT = _Variant(
    extractor="syncnet-v2-direct",
    label="direct",
    min_track="21 frames",
    chain="decoded once, cropped in memory around MediaPipe's boxes, nothing lossy on the way",
    comparable=False,
    why="published numbers contain the losses of their chain and another detector's boxes; compare with numbers of "
    "this id only",
)
_COMPAT = _Variant(
    extractor="syncnet-v2-compat",
    label="as published",
    min_track="more than 100 frames",
    chain="S3FD at a quarter of the size, MPEG-4 and JPEG at q 2, MP3, the crop as MPEG-4 and JPEG again",
    comparable=True,
    why="detector, tracks, crop and lossy steps of the published chain in effect; see the extractor for what differs",
)
_COMPAT_50 = replace(
    _COMPAT,
    extractor="syncnet-v2-compat-min50",
    label="as published, tracks over 50",
    min_track="more than 50 frames",
    why="as syncnet-v2-compat, with the shorter tracks that LatentSync and syncnet-python take; compare with theirs",
)


_VALID_WHY = "averages over pairs that exist, where published numbers count zeros beyond the ends"


def _spec(name: str, variant: _Variant, *, valid: bool, facts: dict) -> MetricSpec:
    label = f"{variant.label}, valid pairs" if valid else variant.label
    return MetricSpec(
        id=f"{name}:{variant.extractor}" + ("-valid" if valid else ""),
        title=f"{facts['title']} ({label})",
        unit=facts["unit"],
        higher_is_better=name == "lse_c",
        what=facts["what"],
        formula=facts["formula"],
        source="Chung & Zisserman 2016 (SyncNet); Prajwal et al. 2020 (LSE)",
        generated=(variant.extractor,),
        real=(),
        comparable_with_papers=variant.comparable and not valid and name != "sync_offset",
        measures=("sync",),
        why="averages over pairs that exist, where published numbers count zeros beyond the ends"
        if valid
        else variant.why,
        protocol={
            "network": "syncnet-v2",
            "shifts": f"-{VSHIFT}..{VSHIFT} frames",
            "beyond the ends": "left out" if valid else "zero vectors",
            "min_track": variant.min_track,
            "chain": variant.chain,
            "tracks of a clip": facts["tracks"],
            "clips": facts["clips"],
        },
        default=False,
        clip_title="own signed offset" if name == "sync_offset" else "",
    )


_MEAN = {"tracks": "mean, each counted once", "clips": "mean"}
_FACTS = {
    "lse_c": _MEAN
    | {
        "title": "LSE-C",
        "unit": "",
        "what": "How much better mouth and voice fit at the best shift than at the others, in SyncNet's distances.",
        "formula": "median_j m_j - min_j m_j, m_j = mean_i |v_i - a_(i+j-15) + 1e-6|, j = 0..30",
    },
    "lse_d": _MEAN
    | {
        "title": "LSE-D",
        "unit": "",
        "what": "SyncNet's distance of mouth and voice at the best shift.",
        "formula": "min_j m_j, m_j = mean_i |v_i - a_(i+j-15) + 1e-6|, j = 0..30",
    },
    "sync_offset": {
        "title": "Sync offset",
        "unit": "frames",
        "what": "How many 25 fps frames mouth and voice lie apart at the best shift; up to 15 either way are tried.",
        "formula": "mean over clips of |15 - argmin_j m_j|, m_j = mean_i |v_i - a_(i+j-15) + 1e-6|, j = 0..30",
        "tracks": "the one with the most looks",
        "clips": "mean of absolute values",
    },
}
_SCORES = {"lse_c": "confidence", "lse_d": "distance", "sync_offset": "offset"}
_KINDS = ((_DIRECT, False), (_DIRECT, True), (_COMPAT, False), (_COMPAT, True), (_COMPAT_50, False))
METRICS = tuple(
    SyncMetric(_spec(name, variant, valid=valid, facts=_FACTS[name]), _SCORES[name], valid)
    for variant, valid in _KINDS
    for name in _FACTS
)

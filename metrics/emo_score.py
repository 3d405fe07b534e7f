"""Emo-Score: whether generated faces show the emotion that they are meant to show, as an emotion network sees it.

    emo_score      = (s_neutral + s_happy + s_surprised + s_angry) / 4
    emo_neutral    = s_neutral
    emo_nonneutral = (s_happy + s_surprised + s_angry) / 3

so emo_score = (emo_neutral + 3 emo_nonneutral) / 4. DICE-Talk (W. Tan et al., 2025) chose the four emotions and names
EmoAffectNet as its judge, but does not say what s_e is. Three rules stand here, and each variant names its own:

`frame-accuracy`: share of a clip's frames whose most probable class is the clip's emotion.
`clip-accuracy`: 1 when the most probable class of the clip's mean probabilities is its emotion, else 0.
`mean-probability`: mean over frames of the probability of the clip's emotion.

s_e is the mean of that over the clips labelled e: clips weigh alike, however long they are, and the three non-neutral
emotions weigh alike, however many clips they have. A class competes with all classes of its network, whose sets differ
(contempt is in HSEmotion's alone). An emotion without a scored clip leaves the score null: a mean over fewer would be
another number. Intervals draw clips again within each emotion; where an emotion has a single clip there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.emotions import ORDERS
from .base import ClipScore, Features, MetricSpec, Pair, Score, Settings, main_reason, problem
from .frame_pairs import seen
from .intervals import LEVELS, MIN_CLIPS, Interval

EMOTIONS = ("neutral", "happy", "surprised", "angry")
COLUMN = "probabilities"
Rule = Callable[[np.ndarray, int], float]
Strata = Mapping[str, np.ndarray]  # emotion -> its clips' values


def frame_accuracy(rows: np.ndarray, column: int) -> float:
    """Share of frames whose most probable class is `column`; rows are (K, classes) probabilities."""
    return float((rows.argmax(axis=1) == column).mean())


def clip_accuracy(rows: np.ndarray, column: int) -> float:
    """1 when `column` is the most probable class of the mean over frames, else 0."""
    return float(rows.mean(axis=0).argmax() == column)


def mean_probability(rows: np.ndarray, column: int) -> float:
    """Mean over frames of the probability of class `column`."""
    return float(rows[:, column].mean())


def mean_of_emotions(strata: Strata) -> float | None:
    """Mean over emotions of the mean over clips, None when an emotion has no clip."""
    if any(len(values) == 0 for values in strata.values()):
        return None
    return float(np.mean([values.mean() for values in strata.values()]))


def stratified_interval(strata: Strata, settings: Settings) -> Interval | None:
    """Percentile bootstrap of `mean_of_emotions`, clips drawn within each emotion; None where one has a single clip."""
    if min(map(len, strata.values())) < MIN_CLIPS:
        return None
    rng, means = np.random.default_rng(settings.seed), np.zeros(settings.bootstrap)
    for values in strata.values():
        means += [values[rng.integers(0, len(values), len(values))].mean() for _ in range(settings.bootstrap)]
    low, _, high = np.quantile(means / len(strata), LEVELS)
    return float(low), float(high)


@dataclass(frozen=True)
class EmotionMetric:
    """How well labelled emotions are recognised.

    Attributes:
        spec: the declaration; wants one extractor of probabilities on the generated side.
        emotions: which emotions are averaged.
        classes: the network's classes by MEAD name, in the order of its columns.
        rule: from the (K, classes) rows of a clip's frames with a face, and the emotion's column, to [0, 1].
    """

    spec: MetricSpec
    emotions: tuple[str, ...]
    classes: tuple[str, ...]
    rule: Rule

    def score(self, pairs: Sequence[Pair], settings: Settings) -> Score:
        """Mean over emotions of the mean over clips, its interval, and what the scored pairs' real clips score."""
        clips = [self._clip(pair, pair.generated) for pair in pairs]
        scored = [pair for pair, clip in zip(pairs, clips, strict=True) if clip.value is not None]
        if not scored:
            return Score(None, None, None, clips, reason=main_reason(clips))
        strata = self._strata(pairs, clips)
        value, notes = mean_of_emotions(strata), (_by_emotion(strata), *self._faceless(scored))
        if value is None:
            return Score(None, None, None, clips, reason="emotion_without_clips", notes=notes)
        real = mean_of_emotions(self._strata(scored, [self._clip(pair, pair.real) for pair in scored]))
        return Score(value, stratified_interval(strata, settings), real, clips, notes=notes)

    def _strata(self, pairs: Sequence[Pair], clips: Sequence[ClipScore]) -> Strata:
        found = [(pair.emotion, clip.value) for pair, clip in zip(pairs, clips, strict=True) if clip.value is not None]
        return {emotion: np.array([value for label, value in found if label == emotion]) for emotion in self.emotions}

    def _clip(self, pair: Pair, features: Features | None) -> ClipScore:
        rejected = self._rejected(pair, features)
        if rejected:
            return ClipScore(pair.clip_id, None, *rejected)
        rows = self._rows(features)
        rows = rows[seen(rows)]
        if len(rows) == 0:
            return ClipScore(pair.clip_id, None, "no_face", "no frame shows a face")
        taken = self.classes[int(rows.mean(axis=0).argmax())]
        value = self.rule(rows, self.classes.index(str(pair.emotion)))
        message = f"labelled {pair.emotion}, on the whole taken for {taken}"
        return ClipScore(pair.clip_id, value, message=message, samples=len(rows))

    def _rejected(self, pair: Pair, features: Features | None) -> tuple[str, str] | None:
        if pair.reason:
            return pair.reason, pair.message
        if pair.emotion is None:
            return "no_label", "neither a manifest nor the clip's path names its emotion"
        if pair.emotion not in self.emotions:
            return "other_emotion", f"{pair.emotion} is not among {', '.join(self.emotions)}"
        missing = problem(features, self.spec.generated)
        return (missing[0], f"generated: {missing[1]}") if missing else None

    def _rows(self, features: Features | None) -> np.ndarray:
        return (features or {})[self.spec.generated[0]].array(COLUMN).astype(np.float64)

    def _faceless(self, scored: Sequence[Pair]) -> list[str]:
        """A note on frames without a face, none when there are none."""
        known = [seen(self._rows(pair.generated)) for pair in scored]
        frames, faces = sum(map(len, known)), sum(int(one.sum()) for one in known)
        return [f"left out: {frames - faces} of {frames} frames, which show no face"] if faces < frames else []


def _by_emotion(strata: Strata) -> str:
    parts = [f"{name} {v.mean():.4f} ({len(v)})" if len(v) else f"{name} none" for name, v in strata.items()]
    return f"by emotion (clips): {', '.join(parts)}"


@dataclass(frozen=True)
class _Rule:
    name: str
    of: Rule
    words: str  # what a clip's value is


@dataclass(frozen=True)
class _Net:
    name: str
    title: str
    order: str  # key of `ORDERS`
    why: str


@dataclass(frozen=True)
class _Measure:
    family: str
    title: str
    emotions: tuple[str, ...]
    what: str


UNDEFINED = "the paper does not define an emotion's score"
RULES = (
    _Rule("frame-accuracy", frame_accuracy, "share of frames whose most probable class is the clip's emotion"),
    _Rule("clip-accuracy", clip_accuracy, "1 if the clip's emotion is the most probable class of its mean, else 0"),
    _Rule("mean-probability", mean_probability, "mean over frames of the probability of the clip's emotion"),
)
NETS = (
    _Net("fer2013", "FER2013", "fer2013", f"another network than the paper's EmoAffectNet, and {UNDEFINED}"),
    _Net("hsemotion-b0", "HSEmotion B0", "hsemotion-8", f"another network than EmoAffectNet, and {UNDEFINED}"),
    _Net("hsemotion-b2", "HSEmotion B2", "hsemotion-8", f"another network than EmoAffectNet, and {UNDEFINED}"),
    _Net("emoaffectnet", "EmoAffectNet", "emoaffectnet", f"the paper's network, but {UNDEFINED}; faces are cut anew"),
)
MEASURES = (
    _Measure("emo_score", "Emo-Score", EMOTIONS, "How well the network recognises the four emotions meant"),
    _Measure("emo_neutral", "Neutral", EMOTIONS[:1], "How well the network recognises clips meant to be neutral"),
    _Measure("emo_nonneutral", "Non-neutral", EMOTIONS[1:], "How well the network recognises the three emotions meant"),
)


def _declare(measure: _Measure, net: _Net, rule: _Rule) -> EmotionMetric:
    classes = ORDERS[net.order]
    spec = MetricSpec(
        id=f"{measure.family}:{net.name}-{rule.name}",
        title=f"{measure.title} ({net.title}, {rule.name.replace('-', ' ')})",
        unit="",
        higher_is_better=True,
        what=f"{measure.what}: {', '.join(measure.emotions)}.",
        formula=f"mean over emotions of the mean over clips of: {rule.words}",
        source="Tan et al. 2025 (DICE-Talk) for the emotions and their mean; the rule is named by the variant",
        generated=(f"emotion-{net.name}",),
        real=(),
        comparable_with_papers=False,
        measures=("expression",),
        why=net.why,
        protocol={
            "emotions": ", ".join(measure.emotions),
            "rule": rule.name,
            "classes compared": ", ".join(classes),
            "label": "the manifest's, else a part of the clip's path",
            "no face": "frames without a face are left out and counted",
        },
        default=False,
        clip_title="of the clip's own emotion",
    )
    return EmotionMetric(spec, measure.emotions, classes, rule.of)


METRICS = tuple(_declare(measure, net, rule) for measure in MEASURES for net in NETS for rule in RULES)

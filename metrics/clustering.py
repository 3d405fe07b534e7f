"""Clustering strength: how far the emotions of one speaker lie apart, beside how far clips of one emotion do.

    d_cls(e) = d_inter(e) / d_intra(e)

DICE-Talk (2025) takes the emotions of one identity for classes, its embedder's priors for vectors, and does not define
the two distances. Each variant names its own, all Euclidean:

intra `pairs`: mean distance of two different clips of e. intra `centroid`: mean distance of e's clips to their mean.
inter `centroids`: mean distance of e's mean to the other emotions' means. inter `clips`: mean over the other emotions
of the mean distance of e's mean to their clips.

A clip's vector is its mean over frames with a face: of FER2013's seven probabilities, or of 51 ARKit coefficients. The
set's value is the mean over speakers of the mean over their emotions. An emotion of which a speaker has fewer than two
clips is left out, and then a speaker with fewer than two emotions. Few clips lie closer to their own mean than many do,
and their means farther apart, so that strength is biased upward: numbers compare at equal numbers of clips only,
beginning with the real clips' own.

Intervals draw clips again within each emotion of each speaker (a draw of one clip alone is drawn again; two draws of
one clip are no pair) and are recentred about the value: they speak of the spread at this number of clips, not of that
bias. They need three clips in each class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from ..core.errors import InputError, NoFace
from .base import ClipScore, Features, MetricSpec, Pair, Row, Score, Settings, main_reason, problem
from .expression_pose import arkit_expression
from .frame_pairs import seen
from .intervals import LEVELS, Interval

FEWEST, FEWEST_TO_DRAW = 2, 3  # clips of a class
DISTINCT = 2  # clips of a class in every draw: one alone has no spread
MIN_CLASSES = 2
TINY = 1e-9  # of the distance between classes: one within them below that is rounding of equal vectors

Found = np.ndarray | tuple[str, str]  # a clip's vector, or (reason, message)
Place = tuple[str | None, str | None]  # identity, emotion
Weights = Mapping[Place, np.ndarray]  # how often each clip of a class counts


@dataclass(frozen=True)
class Cluster:
    """One class: its vectors (n, D) and their distances from each other (n, n)."""

    rows: np.ndarray
    distances: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Cluster:
        """With its distances."""
        return cls(rows, cdist(rows, rows))

    def centre(self, weights: np.ndarray) -> np.ndarray:
        """Weighted mean vector, (D,)."""
        return weights @ self.rows / weights.sum()

    def distance_to(self, point: np.ndarray, weights: np.ndarray) -> float:
        """Weighted mean distance of the vectors to a point."""
        return float(weights @ np.linalg.norm(self.rows - point, axis=1) / weights.sum())


def pair_distance(cluster: Cluster, weights: np.ndarray) -> float:
    """Mean distance of two different vectors; one that is drawn twice is no pair with itself."""
    pairs = weights.sum() ** 2 - (weights**2).sum()
    return float(weights @ cluster.distances @ weights / pairs)


def centroid_distance(cluster: Cluster, weights: np.ndarray) -> float:
    """Mean distance of the vectors to their mean."""
    return cluster.distance_to(cluster.centre(weights), weights)


def between_centroids(centre: np.ndarray, other: Cluster, weights: np.ndarray) -> float:
    """Distance of a mean to another class's mean."""
    return float(np.linalg.norm(centre - other.centre(weights)))


def to_clips(centre: np.ndarray, other: Cluster, weights: np.ndarray) -> float:
    """Mean distance of a mean to another class's vectors."""
    return other.distance_to(centre, weights)


INTRA = {"pairs": pair_distance, "centroid": centroid_distance}
INTER = {"centroids": between_centroids, "clips": to_clips}


@dataclass(frozen=True)
class Definition:
    """Which distances are set against each other: keys of `INTRA` and `INTER`."""

    intra: str
    inter: str

    def strengths(self, clusters: Sequence[Cluster], weights: Sequence[np.ndarray]) -> np.ndarray:
        """inter / intra of each class, (C,); NaN where its vectors are all one."""
        within = np.array([INTRA[self.intra](*one) for one in zip(clusters, weights, strict=True)])
        between = np.array([self._between(k, clusters, weights) for k in range(len(clusters))])
        return between / np.where(within > TINY * between, within, np.nan)

    def _between(self, k: int, clusters: Sequence[Cluster], weights: Sequence[np.ndarray]) -> float:
        centre, distance = clusters[k].centre(weights[k]), INTER[self.inter]
        return float(np.mean([distance(centre, clusters[j], weights[j]) for j in range(len(clusters)) if j != k]))


def clustering_strength(
    vectors: np.ndarray, labels: Sequence[str], *, intra: str = "pairs", inter: str = "centroids"
) -> dict[str, float]:
    """inter / intra distance of each class; see the module for what the names mean.

    Args:
        vectors: (N, D).
        labels: the class of each vector.
        intra: "pairs" or "centroid".
        inter: "centroids" or "clips".

    Returns:
        By label, in the order of their names.

    Raises:
        InputError: an unknown definition, unequal lengths, vectors that are not finite, fewer than two classes, or a
            class with fewer than two vectors or with equal ones alone.
    """
    rows, names = np.asarray(vectors, dtype=np.float64), np.asarray(labels)
    if intra not in INTRA or inter not in INTER:
        raise InputError(f"no definition {intra}/{inter}", hint=f"intra: {', '.join(INTRA)}; inter: {', '.join(INTER)}")
    if rows.ndim != 2 or names.shape != rows.shape[:1] or not np.isfinite(rows).all():
        raise InputError(f"vectors are finite and (N, D), a label each, not {rows.shape} with {names.shape}")
    classes, counts = np.unique(names, return_counts=True)
    if len(classes) < MIN_CLASSES or counts.min() < FEWEST:
        raise InputError(f"{len(classes)} classes of {counts.tolist()} vectors; two classes of two are the least")
    clusters = [Cluster.of(rows[names == name]) for name in classes]
    found = Definition(intra, inter).strengths(clusters, [np.ones(count) for count in counts])
    if np.isnan(found).any():
        raise InputError("the vectors of a class are equal, so its strength is undefined")
    return dict(zip(map(str, classes), map(float, found), strict=True))


Speaker = dict[str, Cluster]  # emotion -> its clips


@dataclass(frozen=True)
class Speakers:
    """All speakers' classes, each large enough."""

    by_name: Mapping[str, Speaker]
    definition: Definition

    def sizes(self) -> dict[Place, int]:
        """Number of clips of each class."""
        return {(name, e): len(one.rows) for name, classes in self.by_name.items() for e, one in classes.items()}

    @property
    def drawable(self) -> bool:
        """Whether every class is large enough to be drawn again."""
        return min(self.sizes().values(), default=0) >= FEWEST_TO_DRAW

    def drawn(self, rng: np.random.Generator) -> Weights:
        """How often each clip is drawn, within its class."""
        return {place: _draw(count, rng) for place, count in self.sizes().items()}

    def strengths(self, weights: Weights | None = None) -> list[tuple[str, str, float]]:
        """(speaker, emotion, strength) of all clips, or of clips that count as often as `weights` says."""
        if weights is None:
            weights = {place: np.ones(count) for place, count in self.sizes().items()}
        found = []
        for name, classes in self.by_name.items():
            strengths = self.definition.strengths([*classes.values()], [weights[name, e] for e in classes])
            found += [(name, emotion, float(s)) for emotion, s in zip(classes, strengths, strict=True)]
        return found

    def value(self, weights: Weights | None = None) -> float:
        """Mean over speakers of the mean over emotions, NaN where one is undefined."""
        per_speaker: dict[str, list[float]] = defaultdict(list)
        for name, _, strength in self.strengths(weights):
            per_speaker[name].append(strength)
        return float(np.mean([np.mean(own) for own in per_speaker.values()]))

    def interval(self, settings: Settings) -> Interval | None:
        """Recentred bootstrap over clips within their classes; as dear as a Fréchet distance's, with as many draws."""
        if not self.drawable:
            return None
        rng, value = np.random.default_rng(settings.seed), self.value()
        drawn = np.array([self.value(self.drawn(rng)) for _ in range(settings.frechet_bootstrap)])
        drawn = drawn[~np.isnan(drawn)]
        if 2 * len(drawn) < settings.frechet_bootstrap:  # classes of nearly equal clips
            return None
        low, middle, high = np.quantile(drawn, LEVELS)
        return max(0.0, float(min(value + low - middle, value))), float(max(value + high - middle, value))


def _draw(count: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `count` clips is drawn."""
    while True:
        weights = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        if (weights > 0).sum() >= DISTINCT:
            return weights


@dataclass(frozen=True)
class ClusteringMetric:
    """Clustering strength of a set of labelled clips.

    Attributes:
        spec: the declaration; wants one extractor on the generated side.
        read: from its row to (N, D) vectors of frames, NaN without a face.
        definition: which distances.
    """

    spec: MetricSpec
    read: Callable[[Row], np.ndarray]
    definition: Definition

    def score(self, pairs: Sequence[Pair], settings: Settings) -> Score:
        """The strength, its interval, and what the same pairs' real clips score."""
        found = {pair.clip_id: self._vector(pair, pair.generated) for pair in pairs}
        speakers, centres = self._speakers(pairs, found)
        clips = [_clip(pair, found[pair.clip_id], centres) for pair in pairs]
        if not speakers.by_name:
            return Score(None, None, None, clips, reason=main_reason(clips))
        value, notes = speakers.value(), (_by_emotion(speakers),)
        if np.isnan(value):
            return Score(None, None, None, clips, reason="undetermined", notes=notes)
        scored = [pair for pair, clip in zip(pairs, clips, strict=True) if clip.value is not None]
        return Score(value, speakers.interval(settings), self._real_level(scored), clips, notes=notes)

    def speakers(self, pairs: Sequence[Pair]) -> Speakers:
        """The classes of the generated clips that are large enough; a class's clips are in the order of `pairs`."""
        return self._speakers(pairs, {pair.clip_id: self._vector(pair, pair.generated) for pair in pairs})[0]

    def _real_level(self, pairs: Sequence[Pair]) -> float | None:
        """The real clips' own, when all of them have one."""
        vectors = {pair.clip_id: self._vector(pair, pair.real) for pair in pairs}
        if any(isinstance(vector, tuple) for vector in vectors.values()):
            return None
        value = self._speakers(pairs, vectors)[0].value()
        return None if np.isnan(value) else value

    def _vector(self, pair: Pair, features: Features | None) -> Found:
        """The clip's mean vector, or (reason, message)."""
        if pair.reason:
            return pair.reason, pair.message
        if pair.emotion is None or pair.identity is None:
            return "no_label", "neither a manifest nor the clip's path names both its emotion and its identity"
        missing = problem(features, self.spec.generated)
        if missing:
            return missing[0], f"generated: {missing[1]}"
        rows = self.read((features or {})[self.spec.generated[0]]).astype(np.float64)
        rows = rows[seen(rows)]
        return rows.mean(axis=0) if len(rows) else (NoFace.reason, "no frame shows a face")

    def _speakers(self, pairs: Sequence[Pair], found: Mapping[str, Found]) -> tuple[Speakers, dict[Place, np.ndarray]]:
        """The classes that are large enough, and the mean of each."""
        rows: dict[str, dict[str, list[np.ndarray]]] = defaultdict(lambda: defaultdict(list))
        for pair in pairs:
            vector = found[pair.clip_id]
            if not isinstance(vector, tuple):
                rows[str(pair.identity)][str(pair.emotion)].append(vector)
        by_name = {}
        for name in sorted(rows):
            large = {emotion: own for emotion, own in sorted(rows[name].items()) if len(own) >= FEWEST}
            if len(large) >= MIN_CLASSES:
                by_name[name] = {emotion: Cluster.of(np.stack(own)) for emotion, own in large.items()}
        centres = {(n, e): one.rows.mean(axis=0) for n, classes in by_name.items() for e, one in classes.items()}
        return Speakers(by_name, self.definition), centres


def _clip(pair: Pair, vector: Found, centres: Mapping[Place, np.ndarray]) -> ClipScore:
    """The clip's distance from its class's mean."""
    if isinstance(vector, tuple):
        return ClipScore(pair.clip_id, None, *vector)
    centre = centres.get((pair.identity, pair.emotion))
    if centre is None:
        message = f"{pair.identity}, {pair.emotion}: strength takes two clips of each of two emotions"
        return ClipScore(pair.clip_id, None, "too_few_clips", message)
    return ClipScore(pair.clip_id, float(np.linalg.norm(vector - centre)), message=f"{pair.identity}, {pair.emotion}")


def _by_emotion(speakers: Speakers) -> str:
    """The mean strength of each emotion over speakers, and the clips behind it."""
    strengths: dict[str, list[float]] = defaultdict(list)
    for _, emotion, strength in speakers.strengths():
        strengths[emotion].append(strength)
    sizes = {e: sum(len(own[e].rows) for own in speakers.by_name.values() if e in own) for e in strengths}
    parts = [f"{emotion} {np.mean(own):.3f} ({sizes[emotion]})" for emotion, own in sorted(strengths.items())]
    return f"{len(speakers.by_name)} speakers; by emotion (clips): {', '.join(parts)}"


@dataclass(frozen=True)
class _Vectors:
    name: str
    title: str
    extractor: str
    read: Callable[[Row], np.ndarray]
    what: str


VECTORS = (
    _Vectors(
        "fer2013",
        "FER2013",
        "emotion-fer2013",
        lambda row: row.array("probabilities"),
        "probabilities of seven emotions",
    ),
    _Vectors("arkit52", "ARKit", "arkit52", arkit_expression, "51 ARKit expression coefficients"),
)
INTRA_WORDS = {"pairs": "mean distance of two clips of e", "centroid": "mean distance of e's clips to their mean"}
INTER_WORDS = {"centroids": "the other emotions' means", "clips": "the other emotions' clips"}


def _declare(vectors: _Vectors, definition: Definition) -> ClusteringMetric:
    intra, inter = definition.intra, definition.inter
    spec = MetricSpec(
        id=f"clustering:{vectors.name}-{intra}-{inter}",
        title=f"Clustering strength ({vectors.title}, {inter} / {intra})",
        unit="",
        higher_is_better=True,
        what=f"How far one speaker's emotions lie apart beside the spread within an emotion, in {vectors.what}.",
        formula=f"mean over speakers and emotions e of: mean distance of e's mean to {INTER_WORDS[inter]} / "
        f"{INTRA_WORDS[intra]}",
        source="Tan et al. 2025 (DICE-Talk) for the ratio; the distances are named by the variant",
        generated=(vectors.extractor,),
        real=(),
        comparable_with_papers=False,
        measures=("expression",),
        why="the paper's vectors are its embedder's emotion priors, and its two distances are not defined",
        protocol={
            "vector": f"mean over frames with a face of {vectors.what}",
            "classes": "emotions of one identity, at least two clips each",
            "labels": "the manifest's, else parts of the clip's path",
        },
        default=False,
        clip_title="distance to the emotion's mean",
    )
    return ClusteringMetric(spec, vectors.read, definition)


DEFINITIONS = tuple(Definition(intra, inter) for intra in INTRA for inter in INTER)
METRICS = tuple(_declare(vectors, definition) for vectors in VECTORS for definition in DEFINITIONS)

"""Every kind of metric compared between two methods: against the metric's own score, and what cannot be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from talkforge.metrics import clustering
from talkforge.metrics.av_sync import AV_OFFSET, FACES, SPEECH, OffsetMetric
from talkforge.metrics.base import ClipMetric, ClipScore, FrechetMetric, MetricSpec, Pair, Score, Settings
from talkforge.metrics.companions import ExtrapolatedMetric, KernelMetric
from talkforge.metrics.compare import Difference, compare, verdict
from talkforge.metrics.emo_score import EmotionMetric, mean_probability
from talkforge.metrics.paired import PairedDifference, paired_frechet, paired_mean, paired_statistic
from talkforge.metrics.theval import Component
from talkforge.metrics.theval_quality import QUALITY
from talkforge.metrics.theval_score import EIGHT, ClosenessMetric
from talkforge.tests.metrics.rows import HeldRow, faces_with, speech_with

SETTINGS = Settings(bootstrap=200, frechet_bootstrap=60, seed=3)
SPEC = MetricSpec("m:v", "M", "", True, "", "", "", ("x",), ("x",), False, "")


def with_values(values: list[float | None], side: str = "generated") -> list[Pair]:
    rows = [HeldRow({"v": value}) if value is not None else HeldRow(reason="no_face") for value in values]
    return [Pair(f"c{k}", {"x": row}, {"x": HeldRow({"v": 0.0})}) for k, row in enumerate(rows)]


MEAN = ClipMetric(SPEC, lambda generated, real: generated["x"].value("v"))


def told(metric, a: list[Pair], b: list[Pair]) -> Difference:
    return compare(metric, a, b, SETTINGS, metric.score(a, SETTINGS))


def test_a_mean_is_compared_over_clips_with_a_value_in_both() -> None:
    a = [1.0, None, 3.0, 5.0, 2.0, 7.0, 4.0, 9.0]
    b = [0.5, 8.0, None, 4.0, 1.0, 6.5, 3.0, 8.8]
    found = told(MEAN, with_values(a), with_values(b))
    common = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    wanted = paired_mean(*map(list, zip(*common, strict=True)), 200, 3)
    assert (found.n_common, found.difference, found.ci95) == (6, wanted.value, wanted.ci95)
    assert (found.value, found.other) == (pytest.approx(28 / 6), pytest.approx(23.8 / 6))
    assert found.verdict == "better"


def test_clips_belong_together_by_name_and_not_by_place() -> None:
    a = with_values([1.0, 2.0, 3.0])
    assert told(MEAN, a, [*reversed(a), Pair("more", {}, {})]).difference == 0.0
    assert told(MEAN, a, [*reversed(a), Pair("more", {}, {})]).p_value == 1.0


@pytest.mark.parametrize(
    ("higher", "real_is_best", "words"), [(True, False, "better"), (False, False, "worse"), (True, True, "larger")]
)
def test_the_verdict_knows_what_is_good(higher: bool, real_is_best: bool, words: str) -> None:
    spec = replace(SPEC, higher_is_better=higher, best_is_real=real_is_best)
    opposite = {"better": "worse", "worse": "better", "larger": "smaller"}[words]
    assert verdict(spec, PairedDifference(2.0, (1.0, 3.0), 0.01, 20)) == words
    assert verdict(spec, PairedDifference(-2.0, (-3.0, -1.0), 0.01, 20)) == opposite
    assert verdict(spec, PairedDifference(2.0, (-1.0, 3.0), 0.2, 20)) == "not established"
    assert verdict(spec, PairedDifference(2.0, (1.0, 3.0), 0.0625, 5)) == "not established"
    assert verdict(spec, PairedDifference(2.0, None, None, 1)) == "not established"


def test_no_common_clip_is_null_with_a_reason() -> None:
    a, b = with_values([1.0, None]), with_values([None, 1.0])
    found = told(MEAN, a, b)
    assert (found.difference, found.verdict, found.reason, found.n_common) == (None, None, "no_common_clips", 0)
    assert told(MEAN, a, [Pair("else", {}, {})]).reason == "no_common_clips"
    missing = [replace(pair, reason="unmatched_real") for pair in b]
    assert told(MEAN, a, missing).reason == "no_common_clips"


def test_a_side_without_any_value_gives_its_reason() -> None:
    found = told(MEAN, with_values([1.0, 2.0]), with_values([None, None]))
    assert (found.reason, found.message) == ("no_face", "the other run has no value")


@dataclass(frozen=True)
class Unsigned:
    """Reports signed values and takes the mean without signs, as sync offsets do."""

    spec: MetricSpec

    def score(self, pairs: list[Pair], settings: Settings) -> Score:
        clips = MEAN.score(pairs, settings).clips
        return Score(float(np.mean([abs(clip.value) for clip in clips])), None, None, clips)


def test_a_mean_of_absolute_values_is_one() -> None:
    found = told(Unsigned(SPEC), with_values([-3.0, 2.0, -1.0]), with_values([1.0, 1.0, 1.0]))
    assert (found.value, found.other, found.difference) == (2.0, 1.0, 1.0)
    assert found.ci95 == paired_mean([3.0, 2.0, 1.0], [1.0, 1.0, 1.0], 200, 3).ci95


@dataclass(frozen=True)
class Median:
    """A metric of a kind that nothing is known about."""

    spec: MetricSpec

    def score(self, pairs: list[Pair], settings: Settings) -> Score:
        values = [pair.generated["x"].value("v") for pair in pairs]
        clips = [ClipScore(pair.clip_id, value) for pair, value in zip(pairs, values, strict=True)]
        return Score(float(np.median(values)), None, None, clips)


def test_an_unknown_kind_is_scored_anew() -> None:
    rng = np.random.default_rng(0)
    values = rng.gamma(1.0, size=15)
    found = told(Median(SPEC), with_values((values + 5).tolist()), with_values(values.tolist()))
    assert found.difference == pytest.approx(5.0)
    assert found.ci95 == pytest.approx((5.0, 5.0))
    assert (found.n_common, found.verdict) == (15, "better")


def test_an_unknown_kind_of_many_clips_is_null_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talkforge.metrics.compare.RESCORED", 1000)
    found = told(Median(SPEC), with_values([1.0, 5.0, 2.5] * 20), with_values([1.0, 5.0, 2.0] * 20))
    assert (found.difference, found.reason) == (None, "not_drawn_again")


def with_rows(seed: int, shift: float, count: int = 10) -> list[Pair]:
    """The same real clips for every method."""
    rng, noise = np.random.default_rng(0), np.random.default_rng(seed)
    real = [rng.normal(size=(4, 3)) + rng.normal(size=3) for _ in range(count)]
    made = [rows + noise.normal(0, 0.3, rows.shape) + shift for rows in real]
    return [
        Pair(f"c{k}", {"x": HeldRow({"f": a})}, {"x": HeldRow({"f": b})})
        for k, (a, b) in enumerate(zip(made, real, strict=True))
    ]


SETS: list[Callable[[MetricSpec, str], FrechetMetric]] = [FrechetMetric, KernelMetric]


@pytest.mark.parametrize("kind", SETS)
def test_distances_are_the_scores_over_common_clips(kind: type[FrechetMetric]) -> None:
    metric = kind(replace(SPEC, higher_is_better=False), "f")
    a, b = with_rows(1, 0.0), with_rows(2, 1.0)
    b[3] = Pair("c3", {"x": HeldRow(reason="no_face")}, b[3].real)
    found = told(metric, a, b)
    values = [metric.score(side[:3] + side[4:], SETTINGS).value for side in (a, b)]
    assert (found.value, found.other) == (pytest.approx(values[0]), pytest.approx(values[1]))
    assert found.difference == pytest.approx(values[0] - values[1])
    assert (found.n_common, found.verdict) == (9, "better")
    assert found.ci95[0] < found.difference < found.ci95[1] < 0
    back = told(metric, b, a)
    assert (back.difference, back.p_value, back.verdict) == (-found.difference, found.p_value, "worse")


def test_a_frechet_distance_is_drawn_as_its_own_interval_is() -> None:
    metric, a, b = FrechetMetric(SPEC, "f"), with_rows(1, 0.0), with_rows(2, 0.2)
    real, first, second = (
        [pair.real["x"].array("f") for pair in a],
        *([pair.generated["x"].array("f") for pair in side] for side in (a, b)),
    )
    wanted = paired_frechet(real, first, second, 60, 3)
    assert (told(metric, a, b).ci95, told(metric, a, b).p_value) == (wanted.ci95, wanted.p_value)


def test_an_extrapolation_is_null_with_a_reason() -> None:
    found = told(ExtrapolatedMetric(SPEC, "f"), with_rows(1, 0.0), with_rows(2, 1.0))
    assert (found.difference, found.reason) == (None, "not_drawn_again")


@pytest.mark.parametrize("kind", SETS)
def test_too_few_samples_are_null_with_a_reason(kind: type[FrechetMetric]) -> None:
    one = [Pair("c", {"x": HeldRow({"f": np.ones((1, 3))})}, {"x": HeldRow({"f": np.zeros((1, 3))})})]
    assert told(kind(SPEC, "f"), one, one).reason == "too_few_samples"


def speaking(lag: int, count: int = 8) -> list[Pair]:
    """Mouths that move, to and fro, as fast as the voice was loud `lag` frames ago."""
    pairs = []
    for k in range(count):
        level = np.repeat(np.random.default_rng(k).uniform(-35, 0, 40), 3)
        speed = np.roll((level + 40) / 400, lag) * np.where(np.arange(120) % 24 < 12, 1, -1)
        mouth = 1 + np.cumsum(speed)
        features = {FACES: faces_with(mouth), SPEECH: speech_with(level)}
        pairs.append(Pair(f"c{k}", features, None))
    return pairs


def test_offsets_are_those_of_the_mean_curves() -> None:
    metric, late, near = OffsetMetric(AV_OFFSET), speaking(7), speaking(2)
    found = told(metric, late, near)
    values = [metric.score(side, SETTINGS).value for side in (late, near)]
    assert (found.value, found.other, found.difference) == (*values, values[0] - values[1])
    assert found.difference == pytest.approx(5, abs=1)  # frames
    assert (found.n_common, found.verdict) == (8, "worse")
    still = [replace(pair, generated={**pair.generated, FACES: faces_with(np.full(120, 0.2))}) for pair in near]
    assert told(metric, late, still).reason == "no_common_clips"


def test_a_mean_over_emotions_stays_one_over_the_common_clips() -> None:
    """Six happy clips and two sad ones: the mean over clips would be another number."""
    rng = np.random.default_rng(0)
    emotions = ["happy"] * 6 + ["sad"] * 3

    def side(shift: float) -> list[Pair]:
        rows = [rng.dirichlet([1, 1], 20) * (1 - shift) + shift * np.eye(2)[int(e == "sad")] for e in emotions]
        features = [{"x": HeldRow({"probabilities": one})} for one in rows]
        return [Pair(f"c{k}", f, f, emotion=emotions[k]) for k, f in enumerate(features)]

    spec = replace(SPEC, real=())
    metric = EmotionMetric(spec, ("happy", "sad"), ("happy", "sad"), mean_probability)
    good, poor = side(0.8), side(0.1)
    poor[8] = replace(poor[8], generated={"x": HeldRow(reason="no_face")})
    found = told(metric, good, poor)
    assert found.value == pytest.approx(metric.score(good[:8], SETTINGS).value)
    assert found.other == pytest.approx(metric.score(poor, SETTINGS).value)
    assert (found.n_common, found.verdict) == (8, "better")
    one = metric.score(good, SETTINGS), [pair for pair in poor if pair.emotion == "happy"]
    assert compare(metric, good, one[1], SETTINGS, one[0]).reason == "no_common_clips"


CLUSTERS = {metric.spec.id: metric for metric in clustering.METRICS if "arkit52" in metric.spec.id}
STRENGTH = CLUSTERS["clustering:arkit52-pairs-centroids"]
CLASSES = {("M003", "happy"): 4, ("M003", "sad"): 5, ("W009", "fear"): 3, ("W009", "happy"): 6}


def labelled(seed: int, gap: float, sizes: dict[tuple[str, str], int] = CLASSES) -> list[Pair]:
    """Clips about a place for each class, `gap` from the middle, mixed up; two still frames each."""
    rng, pairs = np.random.default_rng(seed), []
    places = {place: gap * np.random.default_rng(k).normal(size=52) for k, place in enumerate(sizes)}
    for (identity, emotion), count in sizes.items():
        for k in range(count):
            clip = places[identity, emotion] + rng.normal(size=52)
            row = HeldRow({"blendshapes": np.stack([clip, clip])})
            pairs.append(Pair(f"{identity}/{emotion}/{k}", {"arkit52": row}, None, emotion=emotion, identity=identity))
    return [pairs[k] for k in np.random.default_rng(99).permutation(len(pairs))]


def strength_by_loops(pairs: list[Pair], counts: np.ndarray) -> float:
    """Mean over speakers and their emotions of inter / intra; a clip drawn twice is no pair with itself."""
    drawn: dict[str, dict[str, list[tuple[int, np.ndarray]]]] = {}
    for k, pair in enumerate(pairs):
        own = drawn.setdefault(str(pair.identity), {}).setdefault(str(pair.emotion), [])
        own += [(k, pair.generated["arkit52"].array("blendshapes")[0, 1:])] * int(counts[k])
    speakers = []
    for classes in drawn.values():
        means = {emotion: np.mean([row for _, row in own], axis=0) for emotion, own in classes.items()}
        strengths = []
        for emotion, own in classes.items():
            within = [np.linalg.norm(x - y) for i, x in own for j, y in own if i != j]
            between = [np.linalg.norm(means[emotion] - mean) for name, mean in means.items() if name != emotion]
            strengths.append(np.mean(between) / np.mean(within))
        speakers.append(np.mean(strengths))
    return float(np.mean(speakers))


def test_clusters_are_drawn_within_their_classes() -> None:
    a, b = labelled(1, 2.0), labelled(2, 0.5)
    found = told(STRENGTH, a, b)
    values = [STRENGTH.score(side, SETTINGS).value for side in (a, b)]
    assert (found.value, found.other) == pytest.approx(values) and found.n_common == sum(CLASSES.values())
    assert found.difference == found.value - found.other and found.verdict == "better"
    wanted = paired_statistic(
        found.difference,
        lambda counts: strength_by_loops(a, counts),
        lambda counts: strength_by_loops(b, counts),
        len(a),
        SETTINGS.frechet_bootstrap,
        SETTINGS.seed,
        recentred=True,
        strata=[f"{pair.identity} {pair.emotion}" for pair in a],
        distinct=2,
    )
    assert found.ci95 == pytest.approx(wanted.ci95, rel=1e-9) and found.p_value == wanted.p_value


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_strength_of_clusters_has_a_sign_and_none_against_itself(name: str) -> None:
    a, b = labelled(3, 2.0), labelled(4, 0.5)
    one, other, same = (told(CLUSTERS[name], *sides) for sides in ((a, b), (b, a), (a, a)))
    assert (one.verdict, other.verdict, same.verdict) == ("better", "worse", "not established")
    assert one.difference == -other.difference and one.p_value == other.p_value
    assert (same.difference, same.ci95, same.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_clusters_are_those_of_the_clips_that_both_have() -> None:
    """One clip of W009's three of fear has no face in the other run: two are left, a strength without an interval.
    With two less the emotion is none, and its speaker without a second one neither."""
    a, b = labelled(5, 0.5), labelled(6, 0.4)

    def without(count: int) -> list[Pair]:
        gone = [f"W009/fear/{k}" for k in range(count)]
        failed = {"arkit52": HeldRow(reason="no_face")}
        return [replace(pair, generated=failed) if pair.clip_id in gone else pair for pair in b]

    fewer = told(STRENGTH, a, without(1))
    kept = [pair for pair in a if pair.clip_id != "W009/fear/0"]
    assert fewer.value == pytest.approx(STRENGTH.score(kept, SETTINGS).value)
    assert (fewer.n_common, fewer.ci95, fewer.verdict) == (17, None, "not established")
    alone = told(STRENGTH, a, without(2))
    assert alone.value == pytest.approx(STRENGTH.score([p for p in a if p.identity == "M003"], SETTINGS).value)
    assert alone.n_common == 9 and alone.ci95 is not None


def test_clusters_without_a_common_class_are_null_with_a_reason() -> None:
    a = labelled(7, 0.5)
    faceless = [replace(pair, generated={"arkit52": HeldRow(reason="no_face")}) for pair in a]
    assert (told(STRENGTH, a, faceless).reason, told(STRENGTH, a, faceless).verdict) == ("no_face", None)
    otherwise = [replace(pair, emotion=f"not {pair.emotion}") for pair in a]
    found = told(STRENGTH, a, otherwise)
    assert (found.difference, found.reason) == (None, "no_common_clips") and "two emotions" in found.message


@pytest.mark.parametrize("paper", [True, False])
@pytest.mark.parametrize("further", [(), QUALITY], ids=["five", "eight"])
def test_a_score_of_means_counts_a_measure_where_both_have_it(
    paper: bool, further: tuple[Component, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measures of made-up numbers: what is drawn is the table, wherever its numbers are from."""
    rng = np.random.default_rng(1)
    truth = rng.uniform(1, 2, (12, len(EIGHT)))
    tables = {"real": truth, "near": truth + rng.normal(0, 0.05, truth.shape), "far": truth * 1.6}
    tables["near"][2, 1] = np.nan

    def values_of(features, components) -> list:
        side, k = features["at"]
        values = [tables[side][k][EIGHT.index(one)] for one in components]
        return [("no_face", "") if np.isnan(value) else value for value in values]

    monkeypatch.setattr("talkforge.metrics.theval_score.values_of", values_of)
    near, far = ([Pair(f"c{k}", {"at": (n, k)}, {"at": ("real", k)}) for k in range(12)] for n in ("near", "far"))
    metric = ClosenessMetric(SPEC, paper=paper, further=further)
    found = told(metric, near, far)
    assert told(metric, far, near).difference == -found.difference
    assert found.value == pytest.approx(metric.score(near, SETTINGS).value)
    tables["far"][2, 1] = np.nan
    assert found.other == pytest.approx(metric.score(far, SETTINGS).value)
    assert found.n_common == 12
    if not paper:
        assert found.verdict == "better"

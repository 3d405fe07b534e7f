"""The score over five measures: its formula, which clips count, and what makes it null."""

from __future__ import annotations

import numpy as np
import pytest
from talkforge.metrics import theval_score
from talkforge.metrics.base import Pair, Settings
from talkforge.metrics.theval import COMPONENTS, FACES, POSE, SPEECH, VAD
from talkforge.metrics.theval_quality import FACE_ROW, MOUTH_ROW, PICTURE_ROW, QUALITY
from talkforge.metrics.theval_score import EIGHT, METRICS, PUBLISHED, Table, closeness, measures
from talkforge.tests.metrics.rows import HeldRow
from talkforge.tests.metrics.test_theval import faces, head, vad

QUICK = Settings(bootstrap=300)
OWN, PAPER, OWN_8, PAPER_8 = METRICS


def clip(seed: int, *, size: float = 1.0, silent: bool = True, sound: bool = True) -> dict[str, HeldRow]:
    """A clip of 50 frames whose face moves at random, by `size`, that speaks in its middle or throughout."""
    rng = np.random.default_rng(seed)
    points = head(50) + size * rng.normal(size=(50, 478, 2))
    mute = HeldRow(reason="no_audio", message="mute")
    return {
        FACES: faces(points),
        POSE: HeldRow({"rotation": size * rng.normal(size=(50, 3))}),
        SPEECH: HeldRow({"level_db": rng.uniform(-40, -10, 50)}) if sound else mute,
        VAD: (vad((0.6, 1.4)) if silent else vad((0.0, 2.0))) if sound else mute,
    }


def pairs_of(count: int = 4, **settings: float) -> list[Pair]:
    return [Pair(str(k), clip(k, **settings), clip(50 + k)) for k in range(count)]


def test_the_formula() -> None:
    assert closeness(np.array([1.5, 0.0, 4.0, 2.0]), np.array([1.0, 1.0, 1.0, -2.0])).tolist() == [0.5, 0, -2, -1]
    assert np.isnan(closeness(np.array([1.0, np.nan]), np.array([0.0, 1.0]))).all()
    table = Table(np.array([[1.0, 2, 3, 4, 6], [3, 2, 3, 4, 4]]), np.array([[4.0, 2, 3, 4, 10], [4, 2, 3, 4, 10]]))
    assert table.of(np.arange(2)) == pytest.approx((0.5 + 1 + 1 + 1 + 0.5) / 5), "means first, then closeness"


def test_the_scores_parts_are_the_five_metrics_own_means() -> None:
    from talkforge.metrics.theval import METRICS as FIVE

    pairs = pairs_of()
    scores = [metric.score(pairs, QUICK) for metric in FIVE]
    expected = np.mean([1 - abs(s.value - s.real_vs_real) / s.real_vs_real for s in scores])
    assert OWN.score(pairs, QUICK).value == pytest.approx(expected)
    papers = np.mean([1 - abs(s.value - gt) / gt for s, gt in zip(scores, PUBLISHED[:5], strict=True)])
    assert PAPER.score(pairs, QUICK).value == pytest.approx(papers)


def test_the_papers_ground_truth() -> None:
    """The row that the published code ships; a method that equals it scores 1."""
    truth = {component.name: component.published for component in EIGHT}
    assert truth == {
        "lip_dynamics": 1.716603,
        "eyebrow_dynamics": 0.006777,
        "head_motion_dynamics": 18.46757,
        "silent_lip_stability": 0.0263,
        "lip_sync": 0.2528,
        "mouth_quality": 23.835,
        "face_quality": 0.4425,
        "global_aesthetic": 4.6842,
    }
    assert Table(np.tile(PUBLISHED[:5], (3, 1)), None).of(np.arange(3)) == pytest.approx(1)
    assert Table(np.tile(PUBLISHED, (3, 1)), None).of(np.arange(3)) == pytest.approx(1)


def test_a_copy_scores_one_and_a_still_face_less() -> None:
    same = [Pair(str(k), clip(k), clip(k)) for k in range(3)]
    score = OWN.score(same, QUICK)
    assert score.value == 1 and score.ci95 == (1, 1) and score.notes == ()
    assert [entry.value for entry in score.clips] == [1, 1, 1] and score.clips[0].samples == 5
    quiet = OWN.score(pairs_of(size=0.05), QUICK)
    assert quiet.value is not None and quiet.value < 0.5
    assert quiet.ci95 is not None and quiet.ci95[0] <= quiet.value <= quiet.ci95[1] <= 1


def test_the_real_clips_own_level_is_that_of_the_papers_truth() -> None:
    pairs = pairs_of()
    swapped = [Pair(pair.clip_id, pair.real, pair.generated) for pair in pairs]
    assert PAPER.score(pairs, QUICK).real_vs_real == pytest.approx(PAPER.score(swapped, QUICK).value)
    assert OWN.score(pairs, QUICK).real_vs_real is None


def test_a_measure_counts_the_pairs_where_both_sides_have_it() -> None:
    pairs = pairs_of()
    restless = Pair("x", clip(9), clip(59, silent=False))
    mute = Pair("y", clip(10, sound=False), clip(60))
    score = OWN.score([*pairs, restless, mute], QUICK)
    note = "of 6 clips the score rests for silent_lip_stability on 4, lip_sync on 5"
    assert score.notes == (note,) and score.n_scored == 6
    assert [entry.samples for entry in score.clips] == [5, 5, 5, 5, 4, 3]
    silence = [c.name for c in COMPONENTS].index("silent_lip_stability")
    own = np.array([[measures(side)[silence] for side in (p.generated, p.real)] for p in pairs]).mean(axis=0)
    counted = theval_score._numbers([measures(pair.generated) for pair in [*pairs, mute]], 5)
    assert np.isfinite(own).all() and np.isnan(counted[-1, silence])


def test_a_measure_that_no_clip_has_makes_the_score_null() -> None:
    """A mean over four is another number."""
    score = OWN.score(pairs_of(sound=False), QUICK)
    assert (score.value, score.ci95, score.reason, score.n_scored) == (None, None, "no_audio", 4)
    restless = OWN.score(pairs_of(silent=False), QUICK)
    assert (restless.value, restless.reason) == (None, "undetermined")


def test_a_measure_on_one_clip_gives_a_value_and_no_interval() -> None:
    pairs = [pairs_of(1)[0], *(Pair(f"s{k}", clip(20 + k, silent=False), clip(70 + k)) for k in range(3))]
    score = OWN.score(pairs, QUICK)
    assert score.value is not None and score.ci95 is None


def test_pairs_that_cannot_be_scored_keep_their_reason() -> None:
    failed = HeldRow(reason="no_face", message="nobody")
    lost = Pair("x", {**clip(1), FACES: failed, VAD: failed}, clip(2))
    score = OWN.score([*pairs_of(), lost, Pair("y", None, None, "unmatched_real", "gone")], QUICK)
    assert score.rejects == {"no_face": 1, "unmatched_real": 1} and score.n_scored == 4
    nothing = OWN.score([Pair("y", None, None, "unmatched_real", "gone")], QUICK)
    assert (nothing.value, nothing.reason) == (None, "unmatched_real")
    assert OWN.score([], QUICK).value is None


def test_a_ground_truth_of_zero_divides_nothing() -> None:
    frozen = clip(1, size=0.0)
    score = OWN.score([Pair(str(k), clip(k), frozen) for k in range(3)], QUICK)
    assert score.value is None and score.reason == "undetermined"


def test_the_interval_holds_the_score_and_repeats() -> None:
    pairs = pairs_of(8, size=1.3)
    score = OWN.score(pairs, QUICK)
    assert score.ci95 is not None and score.ci95[0] < score.value < score.ci95[1]
    assert OWN.score(pairs, QUICK) == score


def test_the_interval_is_recentred() -> None:
    """Both sides are the same clips in another order: the score is 1, and every replicate lies below it."""
    clips = [clip(k) for k in range(8)]
    pairs = [Pair(str(k), clips[k], clips[k - 1]) for k in range(8)]
    values = np.array([[measures(side) for side in (pair.generated, pair.real)] for pair in pairs])
    rng, drawn = np.random.default_rng(99), []
    for _ in range(3000):
        m, gt = values[rng.integers(0, 8, 8)].mean(axis=0)
        drawn.append(np.mean(1 - np.abs(m - gt) / gt))
    low, middle, high = np.quantile(drawn, [0.025, 0.5, 0.975])
    score = OWN.score(pairs, Settings(bootstrap=3000))
    assert score.value == pytest.approx(1) and high < 0.999
    assert score.ci95 == pytest.approx((1 + low - middle, 1), abs=0.01)


# --- the score of eight ----------------------------------------------------------------------------------------------


def whole(seed: int, mouth: float, face: float, picture: float) -> dict[str, HeldRow]:
    """That clip with scores of picture quality: frame by frame half below and half above, and one frame without."""
    values = {MOUTH_ROW: mouth, FACE_ROW: face, PICTURE_ROW: picture}
    rows = {name: HeldRow({"score": [np.nan, 0.5 * value, 1.5 * value]}) for name, value in values.items()}
    return clip(seed) | rows


def test_the_score_of_eight_in_closed_form() -> None:
    """Movement and sound are equal, so those five give 1; a mouth at 0.8, a face at 0.5, a picture at 1.1 of the real.

    Means over two clips first: (16 + 24) / 2 of (20 + 30) / 2, and so on.
    """
    pairs = [
        Pair("a", whole(1, 16.0, 0.3, 4.4), whole(1, 20.0, 0.5, 4.0)),
        Pair("b", whole(2, 24.0, 0.2, 6.6), whole(2, 30.0, 0.5, 6.0)),
    ]
    score = OWN_8.score(pairs, QUICK)
    assert score.value == pytest.approx((5 * 1 + 0.8 + 0.5 + 0.9) / 8)
    assert [entry.samples for entry in score.clips] == [8, 8]
    assert score.clips[0].value == pytest.approx((5 * 1 + 0.8 + 0.6 + 0.9) / 8)
    assert OWN.score(pairs, QUICK).value == 1, "the score of five does not see the picture"


def test_the_score_of_eight_against_the_papers_row() -> None:
    """The five as they are, and three measures of twice the published size, which are worth 0."""
    pairs = [Pair("a", whole(1, 2 * 23.835, 2 * 0.4425, 2 * 4.6842), clip(2))]
    five = PAPER.score(pairs, QUICK).value
    assert five is not None
    score = PAPER_8.score(pairs, QUICK)
    assert score.value == pytest.approx(five * 5 / 8)
    assert score.real_vs_real is None, "the real clip has no scores of its picture"


def test_the_score_of_eight_is_null_where_a_measure_is_missing() -> None:
    """Where the networks were not there, where one says why not, and where the real clip lacks one."""
    good = whole(1, 20.0, 0.5, 4.0)
    faceless = good | {FACE_ROW: HeldRow(reason="no_face", message="nobody")}
    blank = good | {MOUTH_ROW: HeldRow({"score": [np.nan, np.nan]})}
    for generated, real, reason in (
        (clip(1), clip(1), "no_features"),
        (faceless, good, "no_face"),
        (good, faceless, "no_face"),
        (blank, good, "undetermined"),
    ):
        score = OWN_8.score([Pair("a", generated, real)], QUICK)
        assert (score.value, score.reason, score.n_scored) == (None, reason, 1)
        assert OWN.score([Pair("a", generated, real)], QUICK).value == 1
    lost = OWN_8.score([Pair("y", None, None, "unmatched_real", "gone")], QUICK)
    assert (lost.value, lost.reason) == (None, "unmatched_real")


def test_a_measure_of_eight_that_rests_on_fewer_clips_is_noted() -> None:
    pairs = [Pair(str(k), whole(k, 20.0, 0.5, 4.0), whole(k, 20.0, 0.5, 4.0)) for k in range(4)]
    pairs.append(Pair("x", clip(9), clip(9)))
    score = OWN_8.score(pairs, QUICK)
    assert score.value == pytest.approx(1) and score.ci95 == pytest.approx((1, 1))
    (note,) = score.notes
    assert note.endswith("mouth_quality on 4, face_quality on 4, global_aesthetic on 4")


def test_the_names_cannot_be_taken_for_each_other() -> None:
    for metric in (OWN, PAPER):
        assert "5of8" in metric.spec.id and "5 of 8" in metric.spec.title
        assert "mouth_quality" in metric.spec.protocol["left out"] and not metric.further
    for metric in (OWN_8, PAPER_8):
        assert "5" not in metric.spec.id and "5" not in metric.spec.title and "left out" not in metric.spec.protocol
        assert metric.further == QUALITY and "picture" in metric.spec.measures
        assert {MOUTH_ROW, FACE_ROW, PICTURE_ROW} <= set(metric.spec.generated)
    assert not any(metric.spec.comparable_with_papers for metric in METRICS)
    assert [metric.spec.default for metric in METRICS] == [True, False, False, False]

"""Emo-Score: the three rules in closed form, which clips count, and what an emotion without clips does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from talkforge.core.emotions import ORDERS
from talkforge.metrics import emo_score
from talkforge.metrics.base import Pair, Score, Settings, select
from talkforge.metrics.emo_score import EMOTIONS, EmotionMetric, clip_accuracy, frame_accuracy, mean_probability
from talkforge.tasks.extractor import extractors
from talkforge.tests.metrics.rows import HeldRow

QUICK = Settings(bootstrap=300)
BY_ID = {metric.spec.id: metric for metric in emo_score.METRICS}
RULES = ("frame-accuracy", "clip-accuracy", "mean-probability")
NETS = ("fer2013", "hsemotion-b0", "hsemotion-b2", "emoaffectnet")
ORDER = ORDERS["fer2013"]


def probabilities(seed: int, frames: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(len(ORDER)), frames)


def clip(name: str, emotion: str | None, rows: np.ndarray, real: np.ndarray | None = None) -> Pair:
    sides = [
        None if one is None else {"emotion-fer2013": HeldRow({"probabilities": one.astype(np.float32)})}
        for one in (rows, real)
    ]
    return Pair(name, *sides, emotion=emotion, identity="M003")


def sure_of(*emotions: str, p: float = 1.0) -> np.ndarray:
    """Frames whose probability is p for these emotions in turn, the rest shared alike."""
    rows = np.full((len(emotions), len(ORDER)), (1 - p) / (len(ORDER) - 1))
    rows[np.arange(len(emotions)), [ORDER.index(emotion) for emotion in emotions]] = p
    return rows


def score(name: str, pairs: list[Pair]) -> Score:
    return BY_ID[name].score(pairs, QUICK)


def one_of_each(**more: int) -> list[Pair]:
    """Random clips, one of each of the four emotions and as many more as said."""
    labels = [*EMOTIONS, *(emotion for emotion, count in more.items() for _ in range(count))]
    return [clip(str(k), emotion, probabilities(k), probabilities(100 + k)) for k, emotion in enumerate(labels)]


# --- the rules -------------------------------------------------------------------------------------------------------


def test_the_rules_in_closed_form() -> None:
    """Happy leads in three of four frames, but the fourth is so surely sad that sad leads in the mean."""
    rows = sure_of("happy", "happy", "happy", "sad", p=0.3)
    rows[3] = sure_of("sad")
    happy, sad = ORDER.index("happy"), ORDER.index("sad")
    assert frame_accuracy(rows, happy) == 0.75
    assert mean_probability(rows, happy) == pytest.approx(0.9 / 4)
    assert (clip_accuracy(rows, happy), clip_accuracy(rows, sad)) == (0, 1)


def test_the_column_is_the_networks_own() -> None:
    """Column 3 is happy in one network, fear in another, surprised in a third."""
    for net in NETS:
        metric = BY_ID[f"emo_score:{net}-mean-probability"]
        assert metric.classes == tuple(extractors.get(metric.spec.generated[0]).params["classes"])
        pairs = []
        for emotion in EMOTIONS:
            row = np.eye(len(metric.classes))[[metric.classes.index(emotion)] * 3]
            pairs.append(Pair(emotion, {f"emotion-{net}": HeldRow({"probabilities": row})}, None, emotion=emotion))
        assert metric.score(pairs, QUICK).value == 1
        shifted = [replace(p, emotion=EMOTIONS[(k + 1) % 4]) for k, p in enumerate(pairs)]
        assert metric.score(shifted, QUICK).value == 0


def clip_value(rule: str, rows: np.ndarray, column: int) -> float:
    """The rule in plain loops."""
    sums = [sum(float(row[c]) for row in rows) for c in range(len(ORDER))]
    hits = [sum(row[c] >= row[column] for c in range(len(ORDER))) == 1 for row in rows]
    return {
        "frame-accuracy": sum(hits) / len(rows),
        "clip-accuracy": float(max(sums) == sums[column]),
        "mean-probability": sums[column] / len(rows),
    }[rule]


@pytest.mark.parametrize("rule", RULES)
def test_a_score_against_plain_loops(rule: str) -> None:
    labels = [*EMOTIONS, "happy", "happy", "neutral"]
    rows = [probabilities(k) for k in range(len(labels))]
    pairs = [clip(str(k), labels[k], rows[k]) for k in range(len(labels))]
    expected = 0.0
    for emotion in EMOTIONS:
        own = [r for label, r in zip(labels, rows, strict=True) if label == emotion]
        expected += sum(clip_value(rule, r, ORDER.index(emotion)) for r in own) / len(own) / 4
    assert score(f"emo_score:fer2013-{rule}", pairs).value == pytest.approx(expected)


@pytest.mark.parametrize("rule", RULES)
def test_the_score_is_a_quarter_neutral_and_three_quarters_not(rule: str) -> None:
    """The papers' tables keep this; numbers of clips differ, since they must not matter."""
    pairs = one_of_each(happy=5, neutral=3, angry=1)
    whole, neutral, other = (
        score(f"{family}:fer2013-{rule}", pairs).value for family in ("emo_score", "emo_neutral", "emo_nonneutral")
    )
    assert whole is not None and neutral is not None and other is not None and neutral != other
    assert abs(whole - (neutral + 3 * other) / 4) < 1e-12


def test_clips_weigh_alike_and_emotions_weigh_alike() -> None:
    long, short = sure_of(*["happy"] * 90), sure_of(*["sad"] * 10)
    rest = [clip(emotion, emotion, sure_of(emotion)) for emotion in ("neutral", "surprised", "angry")]
    pairs = [clip("a", "happy", long), clip("b", "happy", short), *rest]
    assert score("emo_score:fer2013-frame-accuracy", pairs).value == (0.5 + 3) / 4


# --- which clips count -----------------------------------------------------------------------------------------------


def test_an_emotion_without_clips_leaves_the_score_null() -> None:
    pairs = [pair for pair in one_of_each(happy=2) if pair.emotion != "surprised"]
    for family in ("emo_score", "emo_nonneutral"):
        found = score(f"{family}:fer2013-frame-accuracy", pairs)
        assert (found.value, found.ci95, found.real_vs_real) == (None, None, None)
        assert found.reason == "emotion_without_clips"
        assert "surprised none" in found.notes[0] and "(3)" in found.notes[0]
    neutral = score("emo_neutral:fer2013-frame-accuracy", pairs)
    assert neutral.value is not None and neutral.n_scored == 1 and neutral.rejects == {"other_emotion": 4}


def test_each_clip_has_a_value_or_a_reason() -> None:
    faceless = np.full((4, 7), np.nan)
    failed = Pair("f", {"emotion-fer2013": HeldRow(reason="no_face", message="none")}, None, emotion="happy")
    pairs = [
        *one_of_each(),
        clip("unlabelled", None, probabilities(9)),
        clip("sad", "sad", probabilities(9)),
        clip("faceless", "happy", faceless),
        failed,
        Pair("absent", {}, None, emotion="happy"),
        Pair("alone", None, None, "unmatched_real", "no generated file", emotion="happy"),
    ]
    found = score("emo_score:fer2013-mean-probability", pairs)
    assert [entry.clip_id for entry in found.clips] == [pair.clip_id for pair in pairs]
    assert found.n_scored == 4 and found.value == score("emo_score:fer2013-mean-probability", pairs[:4]).value
    assert found.rejects == {"no_features": 1, "no_face": 2, "no_label": 1, "other_emotion": 1, "unmatched_real": 1}
    assert all(entry.message for entry in found.clips)


def test_no_label_at_all_is_the_reason() -> None:
    found = score("emo_score:fer2013-mean-probability", [clip("a", None, probabilities(0))])
    assert (found.value, found.reason, found.n_scored) == (None, "no_label", 0)


def test_frames_without_a_face_are_left_out_and_counted() -> None:
    pairs = one_of_each()
    rows = np.concatenate([np.full((3, 7), np.nan), sure_of("neutral", "sad")])
    found = score("emo_score:fer2013-frame-accuracy", [clip("0", "neutral", rows), *pairs[1:]])
    assert found.clips[0].value == 0.5 and found.clips[0].samples == 2
    assert found.notes[1] == "left out: 3 of 35 frames, which show no face"
    assert len(score("emo_score:fer2013-frame-accuracy", pairs).notes) == 1


def test_the_real_clips_own_level() -> None:
    pairs = [clip(e, e, sure_of("sad"), sure_of(e, p=0.4)) for e in EMOTIONS]
    found = score("emo_score:fer2013-mean-probability", pairs)
    assert found.value == 0 and found.real_vs_real == pytest.approx(0.4)
    blind = [*pairs[:3], clip("angry", "angry", sure_of("sad"), np.full((2, 7), np.nan))]
    assert score("emo_score:fer2013-mean-probability", blind).real_vs_real is None


# --- intervals -------------------------------------------------------------------------------------------------------


def test_the_interval_draws_within_emotions() -> None:
    """A mean of four means: its variance is the mean of theirs over 4, whatever lies between the emotions."""
    rng, count = np.random.default_rng(1), 25
    levels = dict(zip(EMOTIONS, (0.1, 0.3, 0.5, 0.8), strict=True))
    values = {e: np.clip(level + 0.05 * rng.normal(size=count), 0, 1) for e, level in levels.items()}
    pairs = [clip(f"{e}{k}", e, sure_of(e, p=float(v))) for e, own in values.items() for k, v in enumerate(own)]
    found = BY_ID["emo_score:fer2013-mean-probability"].score(pairs, Settings(bootstrap=4000))
    spread = np.sqrt(sum(own.var() / count for own in values.values())) / 4
    assert found.ci95 is not None and found.value is not None
    assert found.ci95 == pytest.approx((found.value - 1.96 * spread, found.value + 1.96 * spread), abs=0.1 * spread)


def test_one_clip_of_an_emotion_gives_no_interval() -> None:
    pairs = one_of_each(happy=1, neutral=1, surprised=1)
    assert score("emo_score:fer2013-mean-probability", pairs).ci95 is None
    assert score("emo_neutral:fer2013-mean-probability", pairs).ci95 is not None


# --- declarations ----------------------------------------------------------------------------------------------------


def test_every_net_and_rule_is_there_and_none_is_a_papers_number() -> None:
    assert len(BY_ID) == len(emo_score.METRICS) == 36
    wanted = {f"{net}-{rule}" for net in NETS for rule in RULES}
    for family in ("emo_score", "emo_neutral", "emo_nonneutral"):
        assert {metric.spec.id for metric in select([family])} == {f"{family}:{variant}" for variant in wanted}
    for metric in emo_score.METRICS:
        assert isinstance(metric, EmotionMetric) and not metric.spec.comparable_with_papers and not metric.spec.default
        assert metric.spec.protocol["rule"] in metric.spec.id and set(metric.emotions) <= set(metric.classes)
    assert len({metric.spec.title for metric in emo_score.METRICS}) == 36

"""Blinks by hysteresis, spread of the head, and beats against onsets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from talkforge.core.errors import TooShort, Undetermined
from talkforge.metrics.base import Pair, Settings
from talkforge.metrics.blink_head import (
    EYE_BLINK,
    FACES,
    METRICS,
    POSE,
    SIGMA,
    SPEECH,
    beat_align,
    blink_rate,
    closedness,
    count_blinks,
    head_diversity,
    kinematic_beats,
    onsets,
)
from talkforge.tasks.extract_arkit import BLENDSHAPE_NAMES
from talkforge.tests.metrics.rows import HeldRow
from talkforge.tests.tasks.one_row import extract

NAN = np.nan
RATE, GAP, DIVERSITY, BEATS = METRICS
QUICK = Settings(bootstrap=200)


def eyes(closed: np.ndarray) -> HeldRow:
    shapes = np.zeros((len(closed), 52), np.float32)
    shapes[:, EYE_BLINK] = np.asarray(closed)[:, None] + (0.1, -0.1)
    return HeldRow({"blendshapes": shapes})


def lids(*runs: tuple[float, int]) -> np.ndarray:
    return np.concatenate([np.full(length, value) for value, length in runs])


# --- blinks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "blinks"),
    [
        ([(0.1, 10), (0.6, 4), (0.1, 10)], 1),
        ([(0.1, 9), (0.6, 3), (0.1, 9), (0.7, 3), (0.2, 9)], 2),
        ([(0.1, 9), (0.46, 1), (0.42, 2), (0.46, 1), (0.1, 9)], 1),  # trembles about the upper threshold
        ([(0.1, 9), (0.44, 5), (0.1, 9)], 0),  # half closed
        ([(0.1, 9), (0.6, 15), (0.1, 9)], 1),
        ([(0.1, 9), (0.6, 16), (0.1, 9)], 0),  # closed eyes are no blink
        ([(0.6, 4), (0.1, 9)], 0),  # when they closed was not seen
        ([(0.1, 9), (0.6, 4)], 0),  # nor whether they open
        ([(0.1, 9), (0.6, 2), (NAN, 1), (0.1, 9)], 0),
        ([(0.1, 9), (NAN, 1), (0.6, 2), (0.1, 9)], 0),
        ([(0.1, 9), (0.6, 3), (0.37, 30), (0.6, 3), (0.1, 9)], 2),  # lids that stay low
        ([(0.1, 30)], 0),
    ],
)
def test_blinks_are_counted_by_hysteresis(runs: list[tuple[float, int]], blinks: int) -> None:
    assert count_blinks(lids(*runs)) == blinks


def test_the_rate_is_over_the_time_that_the_face_is_seen() -> None:
    closed = lids((0.1, 20), (0.6, 3), (0.1, 27), (NAN, 100))
    assert blink_rate(eyes(closed)) == pytest.approx(60 / 2), "one blink in two seconds"
    with pytest.raises(TooShort, match="24 frames"):
        blink_rate(eyes(lids((0.1, 24), (NAN, 99))))
    assert [BLENDSHAPE_NAMES[k] for k in EYE_BLINK] == ["eyeBlinkLeft", "eyeBlinkRight"]
    assert closedness(eyes(closed))[21] == pytest.approx(0.6)


def test_the_rate_has_the_real_clips_level_and_the_gap_none() -> None:
    blinking, staring = eyes(lids((0.1, 20), (0.6, 3), (0.1, 27))), eyes(lids((0.1, 50)))
    pairs = [Pair("a", {FACES: staring}, {FACES: blinking}), Pair("b", {FACES: blinking}, {FACES: blinking})]
    rate, gap = RATE.score(pairs, QUICK), GAP.score(pairs, QUICK)
    assert rate.value == pytest.approx(15) and rate.real_vs_real == pytest.approx(30)
    assert gap.value == pytest.approx(15) and [clip.value for clip in gap.clips] == pytest.approx([30, 0])


def test_a_real_man_blinks(sample_clips: Path) -> None:
    """Looked at frame by frame: his eyes are shut in frames 15..17 and 22..31 of the first clip, else open."""
    closed = closedness(extract(FACES, sample_clips / "jwp-intro-0.mp4"))
    assert count_blinks(closed) == 2
    assert np.flatnonzero(closed > 0.4).tolist() == [*range(15, 18), *range(22, 32)]


# --- head ------------------------------------------------------------------------------------------------------------


def swinging(frames: int = 200, period: float = 20.0, size: float = 10.0) -> np.ndarray:
    """A head that shakes: yaw a cosine, which turns back (stands still) every half period from frame 0."""
    angles = np.zeros((frames, 3))
    angles[:, 0] = size * np.cos(2 * np.pi * np.arange(frames) / period)
    return angles


def test_the_spread_of_a_cosine() -> None:
    angles = swinging(size=6) + (20, -5, 3)
    assert head_diversity(angles) == pytest.approx(6 / np.sqrt(2) / 3)
    angles[50:60] = NAN
    assert head_diversity(angles) == pytest.approx(6 / np.sqrt(2) / 3, rel=0.1)
    with pytest.raises(TooShort):
        head_diversity(angles[30:54])


def test_a_shaking_heads_beats_are_where_it_turns_back() -> None:
    beats = kinematic_beats(swinging())
    assert len(beats) == 19 and np.abs(beats - 10 * np.arange(1, 20)).max() <= 0.5


def test_beats_are_not_looked_for_beside_a_gap() -> None:
    angles = swinging()
    angles[100] = NAN
    beats = kinematic_beats(angles)
    assert not ((beats > 85) & (beats < 115)).any() and len(beats) == 16


def test_a_still_head_has_no_beats_and_a_short_clip_neither() -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, (200, 3))
    with pytest.raises(Undetermined, match="no beats"):
        kinematic_beats(noise)
    with pytest.raises(TooShort):
        kinematic_beats(swinging(25))


def test_onsets_are_the_steepest_rises() -> None:
    level = np.full(60, -70.0)
    level[10:20], level[30:40] = -20, -15
    level[45:50] = -53  # 38 dB under the loudest: a rise of 2 dB above the cut
    assert onsets(level).tolist() == [10, 30]


def test_the_formula() -> None:
    kinematic, sound = np.array([10.0, 30.0, 52.5]), np.array([10.0, 31.25, 50.0, 90.0])
    expected = (1 + np.exp(-0.5 * (1.25 / SIGMA) ** 2) + np.exp(-0.5 * (2.5 / SIGMA) ** 2)) / 3
    assert SIGMA == 1.25
    assert beat_align(kinematic, sound) == pytest.approx(expected)
    assert beat_align(kinematic + 7, sound + 7) == pytest.approx(expected)
    for a, b in ((kinematic, np.empty(0)), (np.empty(0), sound)):
        with pytest.raises(Undetermined, match="nothing to align"):
            beat_align(a, b)


def test_a_head_that_moves_with_the_voice_scores_higher() -> None:
    def aligned(late: int) -> float | None:
        level = np.full(200, -70.0)
        for start in range(10 + late, 200, 10):
            level[start : start + 4] = -20
        features = {POSE: HeldRow({"rotation": swinging()}), SPEECH: HeldRow({"level_db": level})}
        return BEATS.score([Pair("a", features, features)], QUICK).value

    together, apart = aligned(0), aligned(5)
    assert together is not None and together > 0.85
    assert apart is not None and apart < 0.05
    still = {POSE: HeldRow({"rotation": np.zeros((200, 3))}), SPEECH: HeldRow({"level_db": np.zeros(200)})}
    assert BEATS.score([Pair("a", still, still)], QUICK).reason == "undetermined"
    assert DIVERSITY.score([Pair("a", still, still)], QUICK).value == 0

"""THEval's five measures against closed forms and an independent loop, what cancels in them, and which frames count."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from talkforge.core.errors import TooShort, Undetermined
from talkforge.core.landmarks import MESH_LIPS
from talkforge.metrics import theval as measures
from talkforge.metrics.base import Pair, Settings, select
from talkforge.metrics.theval import FACES, METRICS, POSE, SPEECH, VAD
from talkforge.tests.metrics.rows import HeldRow
from talkforge.tests.tasks.one_row import extract

NAN = np.nan
LIP, BROW, HEAD, SILENCE, SYNC = METRICS


def head(frames: int = 10) -> np.ndarray:
    """Points of a made-up face, (N, 478, 2): corners of the eyes 100 apart, the lips' gaps 10 high."""
    points = 100 + 20 * np.random.default_rng(0).normal(size=(478, 2))
    points[measures.UPPER_LIP, 1], points[measures.LOWER_LIP, 1] = 150, 160
    points[33], points[263] = (60, 80), (160, 80)
    return np.repeat(points[None], frames, axis=0)


def opened(gaps: np.ndarray) -> np.ndarray:
    """The same face with lips that part by these many pixels."""
    points = head(len(gaps))
    points[:, measures.LOWER_LIP, 1] = 150 + np.asarray(gaps, dtype=np.float64)[:, None]
    return points


def faces(points: np.ndarray, width: int = 256, height: int = 256) -> HeldRow:
    deep = np.concatenate([points, np.zeros((*points.shape[:2], 1))], axis=2)
    return HeldRow({"points": deep.reshape(len(points), -1), "width": width, "height": height})


def vad(*segments: tuple[float, float]) -> HeldRow:
    starts, ends = np.array(segments, dtype=np.float64).reshape(-1, 2).T
    return HeldRow({"start_s": starts, "end_s": ends})


# --- lips ------------------------------------------------------------------------------------------------------------


def test_lip_dynamics_against_a_loop() -> None:
    points = head(6) + np.random.default_rng(1).normal(size=(6, 478, 2))
    pairs = list(combinations(MESH_LIPS.tolist(), 2))
    expected = np.mean([np.std([np.hypot(*(frame[a] - frame[b])) for frame in points]) for a, b in pairs])
    assert len(set(MESH_LIPS.tolist())) == 40 and len(pairs) == 780
    assert measures.lip_dynamics(points) == pytest.approx(expected)


def test_lips_that_only_travel_have_no_dynamics() -> None:
    travelling = head() + np.arange(10)[:, None, None] * (3.0, -2.0)
    assert measures.lip_dynamics(travelling) == pytest.approx(0, abs=1e-9)
    growing = head() * np.linspace(1, 1.5, 10)[:, None, None]
    assert measures.lip_dynamics(growing) > 1, "they are measured in pixels of the picture"


def test_normalised_coordinates_cancel_the_resolution() -> None:
    points = head(6) + np.random.default_rng(1).normal(size=(6, 478, 2))
    small, wide = ({FACES: faces(points * (1, k), 256, 256 * k)} for k in (1, 3))
    values = [LIP.score([Pair("a", features, features)], Settings()).value for features in (small, wide)]
    assert values[0] == pytest.approx(values[1]) and values[0] == pytest.approx(measures.lip_dynamics(points))


def test_frames_without_a_face_are_left_out_of_lip_dynamics() -> None:
    points = head(8) + np.random.default_rng(1).normal(size=(8, 478, 2))
    kept = measures.lip_dynamics(points[[0, 1, 4, 5, 6, 7]])
    points[2:4] = NAN
    assert measures.lip_dynamics(points) == pytest.approx(kept)
    with pytest.raises(TooShort):
        measures.lip_dynamics(points[1:4])


# --- brows -----------------------------------------------------------------------------------------------------------


def test_eyebrow_dynamics_of_one_brow_that_jumps() -> None:
    """The right brow is 30 above its eye and jumps by 5 in every second frame; the eyes are 60 apart."""
    points = np.zeros((6, 478, 2))
    points[:, measures.LEFT_EYE, 0] = 60
    points[:, measures.RIGHT_BROW] = (0, -30)
    points[:, measures.LEFT_BROW] = (60, -30)
    points[1::2, measures.RIGHT_BROW, 1] -= 5
    assert measures.eyebrow_dynamics(points) == pytest.approx((5 / 60 + 0) / 2)
    assert measures.eyebrow_dynamics(3 * points + 17) == pytest.approx(5 / 120), "place and size cancel"


def test_brow_changes_do_not_bridge_a_gap() -> None:
    points = head(8)
    points[4:, measures.RIGHT_BROW, 1] -= 40
    assert measures.eyebrow_dynamics(points) > 0
    points[4] = NAN
    assert measures.eyebrow_dynamics(points) == 0
    points[1::2] = NAN
    with pytest.raises(TooShort):
        measures.eyebrow_dynamics(points)
    with pytest.raises(TooShort):
        measures.eyebrow_dynamics(head(1))


# --- head ------------------------------------------------------------------------------------------------------------


def test_head_motion_dynamics_in_numbers() -> None:
    angles = np.array([[0.0, 0, 0], [3, 0, 0], [0, 6, 0], [3, 0, 3]])
    centres = np.array([[0.0, 0], [4, 0], [0, 0], [4, 2]])
    spread = np.mean([np.std(angles[:, k]) for k in range(3)])
    changes = np.mean([np.var(np.diff(angles[:, k])) for k in range(3)])
    expected = np.sqrt(spread * changes + (np.var([0, 4, 0, 4]) + np.var([0, 0, 0, 2])) / 2)
    assert measures.head_motion_dynamics(angles, centres) == pytest.approx(expected)
    assert measures.head_motion_dynamics(np.zeros((5, 3)), np.tile([0.0, 2.0], (5, 1))) == 0
    with pytest.raises(TooShort):
        measures.head_motion_dynamics(angles[:1], centres[:1])


def test_a_steady_turn_counts_by_its_place_only() -> None:
    """Changes that are all alike have no variance."""
    angles = np.arange(12.0)[:, None] * (1.0, 2.0, -1.0)
    assert measures.head_motion_dynamics(angles, np.zeros((12, 2))) == pytest.approx(0, abs=1e-9)
    assert measures.head_motion_dynamics(angles, np.arange(12.0)[:, None] * (1, 0)) == pytest.approx(
        np.sqrt(np.var(np.arange(12)) / 2)
    )


def test_the_heads_centre_is_that_of_the_box_in_pixels() -> None:
    points = head(5)
    points[:, 0], points[:, 1] = (0, -40), (400, 300)
    points[2:] += (10, 0)
    rows = {FACES: faces(points, 640, 480), POSE: HeldRow({"rotation": np.zeros((5, 3), np.float32)})}
    assert measures.box_centres(points)[0].tolist() == [200, 130]
    expected = np.sqrt(np.var([0, 0, 10, 10, 10]) / 2)
    assert HEAD.score([Pair("a", rows, rows)], Settings()).value == pytest.approx(expected)


# --- silence ---------------------------------------------------------------------------------------------------------


def test_frames_of_speech_hold_both_ends_of_a_segment() -> None:
    spoken = measures.speech_frames(vad((0.40, 0.83), (1.5, 9.0)), 50)
    assert np.flatnonzero(spoken).tolist() == [*range(10, 21), *range(37, 50)]
    assert not measures.speech_frames(vad(), 50).any()


def test_silences_last_300_ms() -> None:
    """Frames 0..7 are 8 and count, 21..27 are 7 and do not."""
    silent = measures.silent_frames(vad((0.33, 0.83), (1.13, 1.5)), 50)
    assert np.flatnonzero(silent).tolist() == [*range(8), *range(38, 50)]
    assert measures.silent_frames(vad(), 50).all() and not measures.silent_frames(vad(), 7).any()


def test_silent_lip_stability_is_the_median_distance_from_the_mean() -> None:
    points = opened([10.0, 10, 10, 10, 60, 99, 99, 99])
    silent = np.arange(8) < 5
    assert measures.silent_lip_stability(points, silent) == pytest.approx(0.10), "mean 0.2, distances 0.1 x 4 and 0.4"
    assert measures.silent_lip_stability(points * 2 - 50, silent) == pytest.approx(0.10)
    points[1:5] = NAN
    with pytest.raises(Undetermined, match="1 frames"):
        measures.silent_lip_stability(points, silent)


# --- sync ------------------------------------------------------------------------------------------------------------


def test_lip_sync_of_a_mouth_that_opens_with_the_loudness() -> None:
    loud = np.array([0.1, 0.4, 0.2, 0.3, 0.1])
    spoken = np.ones(5, dtype=bool)
    assert measures.lip_sync(opened(5 + 100 * loud), loud, spoken) == pytest.approx(0, abs=1e-12)
    assert measures.lip_sync(opened(5 - 10 * loud), loud, spoken) == pytest.approx(
        np.mean([abs(1 - 2 * x) for x in (0, 1, 1 / 3, 2 / 3, 0)])
    )


def test_lip_sync_scales_over_speech_alone() -> None:
    loud = np.array([0.1, 0.4, 0.2, 5.0])
    gaps = np.array([10.0, 40, 20, 999])
    spoken = np.array([True, True, True, False])
    assert measures.lip_sync(opened(gaps), loud, spoken) == pytest.approx(0, abs=1e-12)
    assert measures.lip_sync(opened(gaps), loud, np.ones(4, dtype=bool)) > 0.01
    holes = opened(gaps)
    holes[1] = NAN
    assert measures.lip_sync(holes, loud, spoken) == pytest.approx(0, abs=1e-12)


def test_lip_sync_without_enough_speech_is_an_error() -> None:
    loud, gaps = np.linspace(0, 1, 40), np.linspace(5, 20, 40)
    for count, spoken in ((3, np.arange(40) < 3), (0, np.zeros(40, dtype=bool))):
        with pytest.raises(Undetermined, match=f"{count / 40:.0%}"):
            measures.lip_sync(opened(gaps), loud, spoken)
    assert measures.lip_sync(opened(gaps), loud, np.arange(40) < 4) == pytest.approx(0, abs=1e-9)
    with pytest.raises(Undetermined, match="opening is constant"):
        measures.lip_sync(opened(np.full(40, 7.0)), loud, loud >= 0)
    with pytest.raises(Undetermined, match="loudness is constant"):
        measures.lip_sync(opened(gaps), np.ones(40), loud >= 0)


def test_loudness_is_read_at_the_beginning_of_each_frame() -> None:
    level = 20 * np.log10([0.2, 0.4, 0.8])
    assert measures.loudness_at_frames(HeldRow({"level_db": level}), 5) == pytest.approx([0.2, 0.3, 0.6, 0.8, 0.8])


# --- as metrics ------------------------------------------------------------------------------------------------------


def test_the_five_are_in_the_default_set() -> None:
    chosen = {metric.spec.id for metric in select(None)}
    assert {metric.spec.id for metric in METRICS} <= chosen
    assert {metric.spec.id.split(":")[1] for metric in METRICS} == {"mp-tasks"}


def test_sound_that_is_missing_is_a_reason_for_two_of_them() -> None:
    mute = HeldRow(reason="no_audio", message="mute")
    rows = {FACES: faces(head()), POSE: HeldRow({"rotation": np.zeros((10, 3))}), SPEECH: mute, VAD: mute}
    reasons = [metric.score([Pair("a", rows, rows)], Settings()).reason for metric in METRICS]
    assert reasons == [None, None, None, "no_audio", "no_audio"]


def test_values_of_a_real_man_are_of_the_papers_size(sample_clips: Path) -> None:
    """Ground truth of the paper: 1.72, 0.0068, 18.5, 0.026, 0.253. The head's is smaller in 2 s of a man who sits."""
    clip = sample_clips / "jwp-intro-0.mp4"
    rows = {name: extract(name, clip) for name in (FACES, POSE, SPEECH, VAD)}
    values = [metric.score([Pair("a", rows, rows)], Settings()).value for metric in METRICS]
    for value, (low, high) in zip(values, [(0.5, 3), (0.002, 0.02), (1, 20), (0.005, 0.1), (0.15, 0.4)], strict=True):
        assert value is not None and low < value < high

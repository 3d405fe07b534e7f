"""Landmark distances of paired frames: closed forms, what cancels and what does not, and which frames count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from talkforge.core.errors import NoFace, Undetermined
from talkforge.core.landmarks import MEDIAPIPE_68
from talkforge.metrics.base import Pair, Settings, metrics
from talkforge.metrics.frame_pairs import compare, mean_absolute, seen
from talkforge.metrics.landmark_distance import FACES, METRICS, centred_distance
from talkforge.tests.metrics.rows import HeldRow

QUICK = Settings(bootstrap=200)
MOUTH_PX, FACE_PX, MOUTH_SCALED, FACE_SCALED, AKD = METRICS
EYES = np.array([33, 263])


def head(frames: int = 5, seed: int = 0) -> np.ndarray:
    """Points of a made-up face in a 256x256 picture, eyes exactly 50 apart, (N, 478, 3)."""
    points = 100 + 20 * np.random.default_rng(seed).normal(size=(478, 3))
    points[EYES] = [[100, 100, 0], [130, 100, 40]]
    return np.repeat(points[None], frames, axis=0)


def faces(points: np.ndarray, width: int = 256, height: int = 256) -> HeldRow:
    return HeldRow({"points": points.reshape(len(points), -1), "width": width, "height": height})


def score(metric, generated: HeldRow, real: HeldRow):
    return metric.score([Pair("a", {FACES: generated}, {FACES: real})], QUICK)


def moved(points: np.ndarray, which: np.ndarray | slice, by: tuple[float, float, float]) -> np.ndarray:
    out = points.copy()
    out[:, which] += by
    return out


# --- closed forms ----------------------------------------------------------------------------------------------------


def test_identical_faces_have_distance_zero() -> None:
    for metric in METRICS:
        assert score(metric, faces(head()), faces(head())).value == 0


def test_a_mouth_that_hangs_lower() -> None:
    """20 of 68 points move by 10: the mean moves by 10 x 20 / 68, the mouth's points by the rest, the others by it."""
    real = head()
    generated = faces(moved(real, MEDIAPIPE_68[48:68], (0, 10, 0)))
    rest = 10 * (1 - 20 / 68)
    assert score(MOUTH_PX, generated, faces(real)).value == pytest.approx(rest)
    assert score(FACE_PX, generated, faces(real)).value == pytest.approx((20 * rest + 48 * 10 * 20 / 68) / 68)
    assert score(AKD, generated, faces(real)).value == pytest.approx(10 * 20 / 136), "mean over both coordinates"
    assert score(MOUTH_SCALED, generated, faces(real)).value == pytest.approx(100 * rest / 50), "% of the eye distance"


def test_the_mean_is_over_frames() -> None:
    real = head(4)
    generated = real.copy()
    generated[1] += (8.0, -4.0, 0)
    assert score(AKD, faces(generated), faces(real)).value == pytest.approx((8 + 4) / 2 / 4)


def test_a_euclidean_distance_and_no_sum_of_coordinates() -> None:
    a = np.zeros((1, 68, 2))
    b = np.zeros((1, 68, 2))
    b[0, 0], b[0, 1] = (3, 4), (-3, -4)  # the mean stays at 0
    assert centred_distance(a, b) == pytest.approx([10 / 68])
    assert mean_absolute(a, b) == pytest.approx([14 / 136])


# --- what cancels ----------------------------------------------------------------------------------------------------


def test_a_face_elsewhere_counts_for_akd_only() -> None:
    real, shifted = faces(head()), faces(head() + (12.0, 0, 0))
    for metric in (MOUTH_PX, FACE_PX, MOUTH_SCALED, FACE_SCALED):
        assert score(metric, shifted, real).value == pytest.approx(0, abs=1e-9)
    assert score(AKD, shifted, real).value == pytest.approx(6)


def test_size_and_crop_cancel_in_the_scaled_variants_only() -> None:
    real, other = faces(head(seed=1)), head(seed=1) * 1.7 + (30, -20, 0)
    for metric in (MOUTH_SCALED, FACE_SCALED):
        assert score(metric, faces(other, 512, 512), real).value == pytest.approx(0, abs=1e-9)
    assert score(FACE_PX, faces(other, 512, 512), real).value > 1


def test_the_pictures_resolution_cancels_in_all() -> None:
    real, other = head(), moved(head(), MEDIAPIPE_68[:17], (5, 5, 0))
    for metric in METRICS:
        double = score(metric, faces(2 * other, 512, 512), faces(real)).value
        assert double == pytest.approx(score(metric, faces(other), faces(real)).value) and double > 0.1
    wide = score(AKD, faces(other * (2, 1, 1), 512, 256), faces(real * (4, 2, 1), 1024, 512)).value
    assert wide == pytest.approx(score(AKD, faces(other), faces(real)).value)


def test_the_scale_is_one_of_the_clip_and_not_of_the_frame() -> None:
    """A face that comes nearer in one frame is another one there. A unit of each frame, or of the nearest, hides it."""
    real, near = head(), head()
    near[2] *= 1.5
    centred = real[2, MEDIAPIPE_68, :2] - real[2, MEDIAPIPE_68, :2].mean(axis=0)
    expected = 100 / 50 * np.linalg.norm(0.5 * centred, axis=1).mean() / 5
    assert score(FACE_SCALED, faces(near), faces(real)).value == pytest.approx(expected)


def test_pictures_of_different_shape_are_rejected_unless_scaled() -> None:
    generated, real = faces(head()), faces(head(), 640, 480)
    rejected = score(AKD, generated, real)
    assert (rejected.value, rejected.reason) == (None, "undetermined")
    assert "256x256 and 640x480" in rejected.clips[0].message
    assert score(FACE_PX, faces(head(), 400, 398), faces(head(), 400, 400)).value is not None, "half a percent"
    assert score(FACE_SCALED, generated, real).value == 0


def test_eyes_in_one_place_are_no_unit() -> None:
    flat = head()
    flat[:, EYES[1]] = flat[:, EYES[0]]
    assert score(FACE_SCALED, faces(flat), faces(head())).reason == "undetermined"


# --- which frames count ----------------------------------------------------------------------------------------------


def test_frames_without_a_face_or_a_partner_are_left_out_and_counted() -> None:
    real, generated = head(6), head(9) + (4.0, 0, 0)
    real[1] = np.nan
    generated[2:4] = np.nan
    generated[8] += 1000
    result = score(AKD, faces(generated), faces(real))
    assert result.value == pytest.approx(2) and result.clips[0].samples == 3
    assert result.notes == (
        "left out: 3 of 6 paired frames, of which a side shows no face",
        "left out: 3 frames without a partner, in 1 pairs of unequal length",
    )
    shorter = score(AKD, faces(generated[:5]), faces(head(9)))
    assert shorter.value == pytest.approx(2) and shorter.clips[0].samples == 3 and len(shorter.notes) == 2
    assert score(AKD, faces(head()), faces(head())).notes == ()


def test_no_common_frame_is_a_reason_and_no_zero() -> None:
    real, generated = head(4), head(4)
    real[:2], generated[2:] = np.nan, np.nan
    result = score(AKD, faces(generated), faces(real))
    assert (result.value, result.ci95, result.reason) == (None, None, "no_face")
    with pytest.raises(NoFace, match="none of 4"):
        compare((real, generated), mean_absolute)


def test_rejected_pairs_and_the_interval_over_clips() -> None:
    shifts = [2.0, 4.0, 6.0, 12.0]
    pairs = [Pair(str(k), {FACES: faces(head() + (x, 0, 0))}, {FACES: faces(head())}) for k, x in enumerate(shifts)]
    failed = HeldRow(reason="no_face", message="no face in any of 5 frames")
    pairs += [Pair("x", {FACES: failed}, {FACES: faces(head())}), Pair("y", None, None, "unmatched_real", "gone")]
    result = AKD.score(pairs, QUICK)
    assert result.value == pytest.approx(np.mean(shifts) / 2) and result.n_scored == 4
    assert result.rejects == {"no_face": 1, "unmatched_real": 1}
    assert result.ci95 is not None and 1 <= result.ci95[0] < result.value < result.ci95[1] <= 6
    assert result.clips[4].message.startswith("generated: ")
    nothing = AKD.score(pairs[4:5], QUICK)
    assert (nothing.value, nothing.reason) == (None, "no_face")


def test_seen_takes_any_shape() -> None:
    rows = np.zeros((3, 2, 2))
    rows[1, 0, 1] = np.nan
    assert seen(rows).tolist() == [True, False, True]
    assert seen(np.empty((0, 2))).shape == (0,)


def test_declarations() -> None:
    assert {metric.spec.id for metric in METRICS} <= set(metrics.names())
    assert all("common frame" in metric.spec.protocol and not metric.spec.comparable_with_papers for metric in METRICS)
    assert replace(MOUTH_PX.spec, id="x").real == (FACES,)
    with pytest.raises(Undetermined):
        AKD.sides({FACES: faces(head(), 10, 20)}, {FACES: faces(head())})

"""AED, APD and E-FID: which coefficients, closed forms, and frames without a face."""

from __future__ import annotations

import numpy as np
import pytest
from talkforge.metrics import e_fid, expression_pose
from talkforge.metrics.base import Pair, Settings, metrics
from talkforge.metrics.expression_pose import angle_distance
from talkforge.metrics.frechet import frechet_distance
from talkforge.models.tddfa import EXPRESSION
from talkforge.tasks.extract_arkit import BLENDSHAPE_NAMES
from talkforge.tasks.extractor import extractors
from talkforge.tests.metrics.rows import HeldRow

QUICK = Settings(bootstrap=200, frechet_bootstrap=50)
BY_ID = {metric.spec.id: metric for metric in (*expression_pose.METRICS, *e_fid.METRICS)}
PAIRED = [("aed:arkit52", 1, 52), ("aed:deep3d-exp64", 80, 144), ("aed:tddfa-exp10", 52, 62)]


def row(name: str, values: np.ndarray) -> HeldRow:
    """A row of the extractor that a metric wants, `values` (N, D) in its first column."""
    column = next(iter(extractors.get(BY_ID[name].spec.generated[0]).columns))
    return HeldRow({column: values.astype(np.float32)})


def pair(name: str, generated: np.ndarray, real: np.ndarray, clip: str = "a") -> Pair:
    extractor = BY_ID[name].spec.generated[0]
    return Pair(clip, {extractor: row(name, generated)}, {extractor: row(name, real)})


def width(name: str) -> int:
    return next(iter(extractors.get(BY_ID[name].spec.generated[0]).columns.values())).value_type.list_size


# --- AED -------------------------------------------------------------------------------------------------------------


def test_the_slices_are_those_of_the_models() -> None:
    assert BLENDSHAPE_NAMES[0] == "_neutral" and len(BLENDSHAPE_NAMES[expression_pose.ARKIT_EXPRESSION]) == 51
    assert expression_pose.TDDFA_EXPRESSION == EXPRESSION
    assert width("aed:deep3d-exp64") == 257 and width("aed:tddfa-exp10") == 62


@pytest.mark.parametrize(("name", "first", "last"), PAIRED)
def test_only_expression_counts_and_each_coefficient_alike(name: str, first: int, last: int) -> None:
    real = np.random.default_rng(0).normal(size=(7, width(name)))
    other = real.copy()
    other[:, :first] += 9
    other[:, last:] -= 9
    assert BY_ID[name].score([pair(name, other, real)], QUICK).value == pytest.approx(0, abs=1e-6)
    other[3, first] += 2
    other[5, last - 1] -= 5
    assert BY_ID[name].score([pair(name, other, real)], QUICK).value == pytest.approx(7 / 7 / (last - first), rel=1e-5)


def test_a_frame_without_a_face_is_left_out() -> None:
    real, generated = np.zeros((4, 52)), np.ones((4, 52))
    generated[0] = np.nan
    result = BY_ID["aed:arkit52"].score([pair("aed:arkit52", generated, real)], QUICK)
    assert result.value == 1 and result.clips[0].samples == 3 and len(result.notes) == 1


# --- APD -------------------------------------------------------------------------------------------------------------


def pose_pair(**columns: tuple[np.ndarray, np.ndarray]) -> Pair:
    generated, real = ({name: sides[k] for name, sides in columns.items()} for k in (0, 1))
    return Pair("a", {"arkit52": HeldRow(generated)}, {"arkit52": HeldRow(real)})


def test_pose_distances() -> None:
    zero = np.zeros((2, 3))
    angles, place = np.array([[3.0, -6, 0], [0, 0, 0]]), np.array([[0, 0, -9.0], [3, 0, 0]])
    both = pose_pair(rotation=(angles, zero), translation=(place, zero))
    assert BY_ID["apd:arkit52-rotation"].score([both], QUICK).value == pytest.approx((3 + 0) / 2)
    assert BY_ID["apd:arkit52-translation"].score([both], QUICK).value == pytest.approx((3 + 1) / 2)


def test_angles_are_compared_the_shorter_way_round() -> None:
    a, b = np.array([[179.0, -178, 10], [0, 180, 0]]), np.array([[-179.0, 178, 350], [0, -180, 0]])
    assert angle_distance(a, b) == pytest.approx([(2 + 4 + 20) / 3, 0])
    assert angle_distance(b, a) == pytest.approx(angle_distance(a, b))


# --- E-FID -----------------------------------------------------------------------------------------------------------


def clips(name: str, seed: int, shift: float = 0.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(shift, 1, (30, width(name))) for _ in range(4)]


@pytest.mark.parametrize(("name", "first", "last"), [(n.replace("aed", "e_fid"), a, b) for n, a, b in PAIRED])
def test_the_distance_is_over_all_frames_expressions(name: str, first: int, last: int) -> None:
    generated, real = clips(name, 0, 0.5), clips(name, 1)
    pairs = [pair(name, g, r, str(k)) for k, (g, r) in enumerate(zip(generated, real, strict=True))]
    score = BY_ID[name].score(pairs, QUICK)
    x, y = (np.concatenate(side)[:, first:last].astype(np.float32) for side in (generated, real))
    assert score.value == pytest.approx(frechet_distance(x, y), rel=1e-5)
    assert score.ci95[0] <= score.value <= score.ci95[1] and score.real_vs_real is not None
    assert [clip.samples for clip in score.clips] == [30] * 4


def test_frames_without_a_face_are_no_samples_and_are_counted() -> None:
    name = "e_fid:arkit52"
    generated, real = clips(name, 0), clips(name, 1)
    whole = [pair(name, g[2:], r, str(k)) for k, (g, r) in enumerate(zip(generated, real, strict=True))]
    for side in generated:
        side[:2] = np.nan
    gaps = [pair(name, g, r, str(k)) for k, (g, r) in enumerate(zip(generated, real, strict=True))]
    score = BY_ID[name].score(gaps, QUICK)
    assert score.value == pytest.approx(BY_ID[name].score(whole, QUICK).value)
    assert score.notes[-1] == "left out: 8 of 120 generated frames, which show no face"
    assert [clip.samples for clip in score.clips] == [28] * 4


def test_a_copy_has_distance_zero_and_a_shift_its_square() -> None:
    name = "e_fid:tddfa-exp10"
    real = clips(name, 2)
    same = [pair(name, r, r, str(k)) for k, r in enumerate(real)]
    moved = [pair(name, r + 3, r, str(k)) for k, r in enumerate(real)]
    assert BY_ID[name].score(same, QUICK).value == pytest.approx(0, abs=1e-6)
    assert BY_ID[name].score(moved, QUICK).value == pytest.approx(10 * 9, rel=1e-5)


def test_no_pair_is_null_with_its_reason() -> None:
    failed = HeldRow(reason="no_face", message="nobody")
    for metric in BY_ID.values():
        extractor = metric.spec.generated[0]
        score = metric.score([Pair("a", {extractor: failed}, {extractor: failed})], QUICK)
        assert (score.value, score.reason, score.rejects) == (None, "no_face", {"no_face": 1})


def test_all_variants_are_declared() -> None:
    assert set(BY_ID) <= set(metrics.names())
    assert BY_ID["aed:deep3d-exp64"].spec.extractors == ("deep3d",)

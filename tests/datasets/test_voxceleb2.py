"""VoxCeleb2: three trees, part names, track files, and a walk that is as lazy as a million files want."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from talkforge.core.errors import InputError
from talkforge.datasets import reader
from talkforge.datasets.reader import read_dataset
from talkforge.datasets.voxceleb2 import clips_below, read, read_meta, read_track
from talkforge.tests.datasets.trees import META, TRACK, Stock, write_texts

KEYS = ("21Uxsk56VDQ", "_raOc3-IRsw", "-2DXrBOtJ7k")


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return Stock(tmp_path_factory.mktemp("stock"))


def lay(stock, root, part, identity, *, sound=True):
    stock.lay(root, stock.mute, [f"{part}/mp4/{identity}/{key}/00001.mp4" for key in KEYS])
    if sound:
        stock.lay(root, stock.sound, [f"{part}/aac/{identity}/{key}/00001.m4a" for key in KEYS])
    for key in KEYS:
        write_texts(root / part / "txt" / identity / key, {"00001.txt": TRACK})
    return root


def test_three_trees(stock, tmp_path):
    root = lay(stock, lay(stock, tmp_path / "vox céleb", "dev", "id00012"), "test", "id00017")
    listing = read_dataset("voxceleb2", root)
    assert listing.rejects == []
    assert [clip.clip_id for clip in listing.clips] == sorted(
        f"voxceleb2/{identity}/{key}/00001" for identity in ("id00012", "id00017") for key in KEYS
    )
    assert {(clip.identity, clip.split) for clip in listing.clips} == {("id00012", "train"), ("id00017", "test")}
    last = listing.clips[-1]
    assert last.audio == root.resolve() / "test/aac/id00017/_raOc3-IRsw/00001.m4a"
    assert (last.emotion, last.crop, last.start_s) == (None, None, None)


@pytest.mark.parametrize("root", ["dev", "dev/mp4"])
def test_roots_inside_the_tree(stock, tmp_path, root):
    lay(stock, tmp_path, "dev", "id00012")
    listing = read(tmp_path / root)
    assert [(clip.split, clip.audio is not None) for clip in listing.clips] == [("train", True)] * 3


def test_missing_sound(stock, tmp_path):
    lay(stock, tmp_path, "dev", "id00012", sound=False)
    (tmp_path / "dev/mp4/id00012/21Uxsk56VDQ/00001.mp4").unlink()
    stock.lay(tmp_path, stock.video, ["dev/mp4/id00012/21Uxsk56VDQ/00001.mp4"])
    listing = read(tmp_path)
    [own] = listing.clips
    assert own.audio == own.video
    assert [(item.clip_id, item.reason) for item in listing.rejects] == [
        (f"voxceleb2/id00012/{key}/00001", "no_audio") for key in sorted(KEYS[1:])
    ]
    assert [clip.audio is None for clip in read(tmp_path, missing_audio="keep").clips] == [True, False, True]


def test_the_part_from_the_meta_file(stock, tmp_path):
    names = [f"mp4/{identity}/{KEYS[0]}/00001.mp4" for identity in ("id00012", "id00017", "id99999")]
    stock.lay(tmp_path, stock.video, names)
    # This test's own folder has "test" in its name, which says nothing about the part.
    assert {clip.split for clip in read(tmp_path).clips} == {None}
    write_texts(tmp_path, {"vox2_meta.csv": META})
    assert [clip.split for clip in read(tmp_path).clips] == ["train", "test", None]
    assert [clip.split for clip in read(tmp_path, annotations=tmp_path / "vox2_meta.csv").clips][:2] == [
        "train",
        "test",
    ]


def test_a_folder_that_contradicts_the_meta_file(stock, tmp_path):
    lay(stock, tmp_path, "dev", "id00017")
    write_texts(tmp_path, {"vox2_meta.csv": META})
    listing = read(tmp_path)
    assert {clip.split for clip in listing.clips} == {"train"}
    assert "in another part than the meta file says: id00017" in listing.notes


def test_unexpected_paths_and_other_folders(stock, tmp_path):
    lay(stock, tmp_path, "dev", "id00012")
    odd = ["dev/mp4/id00012/short/00001.mp4", f"dev/mp4/id0012/{KEYS[0]}/00001.mp4", "extra.mp4"]
    stock.lay(tmp_path, stock.video, odd)
    listing = read(tmp_path)
    assert len(listing.clips) == 3
    assert [item.reason for item in listing.rejects] == ["unexpected_path"] * 3
    mead = stock.lay(tmp_path / "m", stock.video, ["M003/video/front/sad/level_1/001.mp4"])
    with pytest.raises(InputError, match=r"nothing of voxceleb2: expected dev/mp4/.*\(this looks like mead\)"):
        read(mead)


def test_the_walk_is_lazy_and_in_order(stock, tmp_path, monkeypatch):
    for number in range(30):
        stock.lay(tmp_path, stock.video, [f"dev/mp4/id{number:05d}/{KEYS[0]}/{k:05d}.mp4" for k in (2, 1)])
        stock.lay(tmp_path, stock.sound, [f"dev/aac/id{number:05d}/{KEYS[0]}/{k:05d}.m4a" for k in (2, 1)])
    entered = []
    listing = reader._listing
    monkeypatch.setattr(reader, "_listing", lambda path: entered.append(path.name) or listing(path))
    first = list(islice(clips_below(tmp_path, []), 3))
    assert [clip.clip_id[10:17] + clip.clip_id[-6:] for clip in first] == [
        "id00000/00001",
        "id00000/00002",
        "id00001/00001",
    ]
    # Root, dev, mp4, two identities with a video each; neither the sound tree nor any later identity.
    assert len(entered) == 7
    assert "aac" not in entered
    stopped = read(tmp_path, limit=5)
    assert len(stopped.clips) == 5
    assert stopped.notes == ["stopped after 5 clips on request"]


def test_real_meta_file(media):
    parts = read_meta(media / "annotations" / "voxceleb2" / "vox2_meta.head.csv")
    assert (len(parts), parts["id00017"], parts["id00022"]) == (7, "test", "dev")


def test_meta_file(tmp_path):
    path = write_texts(tmp_path, {"vox2_meta.csv": META}) / "vox2_meta.csv"
    assert read_meta(path) == {"id00012": "dev", "id00017": "test"}
    path.write_text("name,age\na,1\n", encoding="utf-8")
    with pytest.raises(InputError, match="no columns id and Set"):
        read_meta(path)


def test_track_file(tmp_path):
    track = read_track(write_texts(tmp_path, {"00001.txt": TRACK}) / "00001.txt")
    assert (track.identity, track.reference, track.offset) == ("id00012", "_raOc3-IRsw", -2)
    assert (track.face_confidence, track.speaker_confidence) == (20.23, 2.765)
    assert track.frames.tolist() == [349, 350]
    np.testing.assert_array_equal(track.boxes[1], [0.32, 0.067, 0.424, 0.753])
    assert track.range_s == pytest.approx((13.96, 14.04))


def test_real_track_file(media):
    track = read_track(media / "annotations" / "voxceleb2" / "00001.sample.txt")
    assert (track.reference, track.offset, track.frames[0]) == ("_raOc3-IRsw", 2, 349)
    assert track.boxes.shape == (2, 4)


@pytest.mark.parametrize(
    "text",
    ["", TRACK.replace("FRAME", "FRAMES"), TRACK.replace("0.319", "x"), TRACK[: TRACK.index("000349")], TRACK[20:]],
)
def test_broken_track_files(tmp_path, text):
    path = write_texts(tmp_path, {"t.txt": text}) / "t.txt"
    with pytest.raises(InputError, match="is no track file"):
        read_track(path)

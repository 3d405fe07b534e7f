"""MEAD's tree: names to labels, sounds of their own tree, and what public downloads lack."""

from __future__ import annotations

import os

import pytest
from talkforge.core.errors import ConfigError, InputError
from talkforge.datasets.mead import read
from talkforge.datasets.reader import read_dataset
from talkforge.tests.datasets.trees import Stock, mead_names

TAKES = {("neutral", 1): [1, 2], ("angry", 1): [1], ("angry", 3): [30]}


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return Stock(tmp_path_factory.mktemp("stock"))


def reasons(listing):
    return {item.clip_id: item.reason for item in listing.rejects}


def test_labels_come_from_names_and_one_sound_serves_all_views(stock, tmp_path):
    root = tmp_path / "MÉAD 2020"
    stock.lay(root, stock.mute, mead_names("M003", TAKES, views=["front", "left_30"], suffix=".mp4"))
    stock.lay(root, stock.sound, mead_names("M003", TAKES, views=None, suffix=".m4a"))
    listing = read_dataset("mead", root)
    assert listing.rejects == []
    assert [clip.clip_id for clip in listing.clips] == sorted(
        f"mead/M003/{view}/{emotion}/level_{level}/{number:03d}"
        for view in ("front", "left_30")
        for (emotion, level), numbers in TAKES.items()
        for number in numbers
    )
    clip = next(clip for clip in listing.clips if clip.clip_id == "mead/M003/left_30/angry/level_3/030")
    assert (clip.identity, clip.emotion, clip.intensity, clip.view) == ("M003", "angry", 3, "left_30")
    assert clip.audio == root / "M003/audio/angry/level_3/030.m4a"
    assert clip.video == root / "M003/video/left_30/angry/level_3/030.mp4"
    assert any("M003" in note and "same sentences" in note for note in listing.notes)
    assert any(note.startswith("M003 has no clip of contempt, disgusted") for note in listing.notes)


@pytest.mark.parametrize(
    ("video", "audio"),
    [
        ("W009/video-001/front", "W009/audio-001"),
        ("W009/video-001/video/front", "W009/audio/audio"),
        ("video-001/W009/video/front", "audio-001/W009/audio"),
        ("part 0/W009/video (1)/Front", "part 0/W009/audio"),
    ],
)
def test_wrapping_folders(stock, tmp_path, video, audio):
    stock.lay(tmp_path, stock.mute, [f"{video}/happy/level_2/007.mp4"])
    stock.lay(tmp_path, stock.sound, [f"{audio}/happy/level_2/007.m4a"])
    [clip] = read(tmp_path).clips
    assert clip.clip_id == "mead/W009/front/happy/level_2/007"
    assert clip.audio == tmp_path / audio / "happy/level_2/007.m4a"


def test_an_actors_folder_is_a_root_too(stock, tmp_path):
    stock.lay(tmp_path, stock.video, ["M030/video/top/sad/level_1/004.mp4"])
    [clip] = read(tmp_path / "M030").clips
    assert clip.clip_id == "mead/M030/top/sad/level_1/004"


def test_of_two_formats_the_lossless_one(stock, tmp_path):
    stock.lay(tmp_path, stock.mute, ["W011/video/front/fear/level_1/001.mp4"])
    stock.lay(tmp_path, stock.sound, [f"W011/audio/fear/level_1/001.{suffix}" for suffix in ("m4a", "wav", "aac")])
    [clip] = read(tmp_path).clips
    assert clip.audio == tmp_path / "W011/audio/fear/level_1/001.wav"


def test_missing_sound_file(stock, tmp_path):
    stock.lay(tmp_path, stock.video, ["W011/video/front/fear/level_1/001.mp4"])
    stock.lay(tmp_path, stock.mute, ["W011/video/front/fear/level_1/002.mp4"])
    listing = read(tmp_path)
    [own] = listing.clips
    assert own.audio == own.video
    assert reasons(listing) == {"mead/W011/front/fear/level_1/002": "no_audio"}
    kept = read(tmp_path, missing_audio="keep")
    assert [clip.audio for clip in kept.clips] == [own.video, None]
    assert kept.rejects == []
    assert any("1 clips have no sound" in note for note in kept.notes)


def test_the_header_is_read_only_where_no_sound_file_is(stock, tmp_path):
    stock.lay(tmp_path, stock.text, [f"W011/video/front/fear/level_1/00{k}.mp4" for k in (1, 2)])
    stock.lay(tmp_path, stock.sound, ["W011/audio/fear/level_1/001.m4a"])
    listing = read(tmp_path)
    assert [clip.clip_id[-3:] for clip in listing.clips] == ["001"]
    [item] = listing.rejects
    assert (item.clip_id, item.stage, item.reason) == ("mead/W011/front/fear/level_1/002", "read", "not_a_video")
    assert str(tmp_path) not in item.message


def test_every_foreign_name_is_a_reject_with_a_way_out(stock, tmp_path):
    good = "M003/video/front/angry/level_1/001.mp4"
    foreign = {
        "M003/video/front/anger/level_1/001.mp4": ("unknown_emotion", "did you mean angry?"),
        "M003/video/front/0/level_1/001.mp4": ("unknown_emotion", "known: angry"),
        "M003/video/left30/angry/level_1/001.mp4": ("unknown_view", "did you mean left_30"),
        "M003/video/front/angry/level_4/001.mp4": ("unknown_level", "level_3"),
        "M003/video/front/neutral/level_2/001.mp4": ("unknown_level", "level_1 only"),
        "M003/video/front/angry/level_1/001 copy.mp4": ("unexpected_name", "<nnn>.mp4"),
        "M003/front/angry/level_1/001.mp4": ("unexpected_path", "<ID>/video"),
        "Bob/video/front/angry/level_1/001.mp4": ("unexpected_path", "<ID>/video"),
        "M003/audio/angry/level_1/002.mp4": ("unexpected_path", "<ID>/video"),
        "überblick.mp4": ("unexpected_path", "<ID>/video"),
    }
    stock.lay(tmp_path, stock.video, [good, *foreign])
    listing = read(tmp_path)
    assert len(listing.clips) == 1
    assert sorted(item.reason for item in listing.rejects) == sorted(reason for reason, _ in foreign.values())
    for reason, text in foreign.values():
        assert any(item.reason == reason and text in item.message for item in listing.rejects), text
    assert all(item.clip_id.isascii() for item in listing.rejects)


def test_a_clip_that_is_there_twice(stock, tmp_path):
    names = [f"M003/{tree}/front/sad/level_1/001.mp4" for tree in ("video", "video-001")]
    stock.lay(tmp_path, stock.video, names)
    listing = read(tmp_path)
    assert [clip.video for clip in listing.clips] == [tmp_path / names[0]]
    assert reasons(listing) == {"mead/M003/front/sad/level_1/001": "duplicate_clip"}


def test_chosen_views(stock, tmp_path):
    stock.lay(tmp_path, stock.video, mead_names("M003", {("sad", 1): [1]}, views=["front", "down"], suffix=".mp4"))
    listing = read_dataset("mead", tmp_path, views="front")
    assert [clip.view for clip in listing.clips] == ["front"]
    assert "1 videos of the view down left out on request" in listing.notes
    with pytest.raises(ConfigError, match="did you mean front"):
        read(tmp_path, views="frontal")


def test_other_folders_are_one_clear_error(stock, tmp_path):
    hdtf = stock.lay(tmp_path / "h", stock.video, ["WDA_AnnaOne0_000.mp4", "RD_Radio1_000.mp4"])
    with pytest.raises(InputError, match=r"nothing of mead: expected <ID>/video/.* \(this looks like hdtf\)"):
        read(hdtf)
    vox = stock.lay(tmp_path / "v", stock.video, ["dev/mp4/id00012/21Uxsk56VDQ/00001.mp4"])
    with pytest.raises(InputError, match="this looks like voxceleb2"):
        read(vox)
    other = stock.lay(tmp_path / "o", stock.video, ["a b.mp4"])
    with pytest.raises(InputError, match="this looks like folder"):
        read(other)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no video") as caught:
        read(tmp_path / "empty")
    assert caught.value.hint is None
    sounds = stock.lay(tmp_path / "s", stock.sound, ["M003/audio/sad/level_1/001.m4a"])
    with pytest.raises(InputError, match="holds no video") as caught:
        read(sounds)
    assert caught.value.hint is None  # it does look like mead, which helps nobody
    with pytest.raises(InputError, match="is not a folder"):
        read(tmp_path / "nowhere")


def test_options_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="did you mean missing_audio"):
        read_dataset("mead", tmp_path, missing_sound="keep")
    with pytest.raises(ConfigError, match="one of: reject, keep"):
        read_dataset("mead", tmp_path, missing_audio="drop")
    with pytest.raises(ConfigError, match="did you mean mead"):
        read_dataset("maed", tmp_path)


def test_names_that_are_no_text_and_links_in_circles(stock, tmp_path):
    stock.lay(tmp_path, stock.video, ["M003/video/front/sad/level_1/001.mp4"])
    os.link(stock.video, os.fsencode(tmp_path) + b"/M003/video/front/sad/level_1/\xff.mp4")
    (tmp_path / "M003" / "again").symlink_to(tmp_path, target_is_directory=True)
    listing = read(tmp_path)
    assert [clip.clip_id for clip in listing.clips] == ["mead/M003/front/sad/level_1/001"]
    [item] = listing.rejects
    assert item.reason == "undecodable_name"
    item.message.encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any folder")
def test_a_folder_that_cannot_be_read_is_a_reject(stock, tmp_path):
    stock.lay(tmp_path, stock.video, ["M003/video/front/sad/level_1/001.mp4", "M005/video/front/sad/level_1/001.mp4"])
    (tmp_path / "M005").chmod(0)
    try:
        listing = read(tmp_path)
    finally:
        (tmp_path / "M005").chmod(0o755)
    assert len(listing.clips) == 1
    assert reasons(listing) == {"mead/M005": "unreadable_folder"}

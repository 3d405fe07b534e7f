"""HDTF: annotation files with their traps, segments, windows and scales, cut clips, speakers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from talkforge.core.errors import InputError
from talkforge.datasets.hdtf import WHOLE, read, window_crop
from talkforge.datasets.hdtf_annotations import Segment, Window, identities, read_annotations
from talkforge.datasets.reader import read_dataset
from talkforge.tests.datasets.trees import HDTF_FILES, Stock, write_texts


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    return Stock(tmp_path_factory.mktemp("stock"))


@pytest.fixture
def notes_folder(tmp_path):
    return write_texts(tmp_path / "annotations of HDTF", HDTF_FILES)


def clips_of(listing):
    return {clip.clip_id: clip for clip in listing.clips}


def test_annotation_files(notes_folder):
    videos = read_annotations(notes_folder)
    assert sorted(videos) == [
        "RD_Radio1",
        "RD_Radio2",
        "WDA_AnnaOne0",
        "WDA_AnnaOne1",
        "WDA_Bea-Two",
        "WDA_MsOne",
        "WRA_CarlThree",
    ]
    assert videos["RD_Radio1"].segments[1] == Segment(1, 60.0, 130.0, Window(480, 8, 400, 400))
    assert videos["RD_Radio2"].segments == ()
    assert videos["WDA_MsOne"].resolution is None
    assert videos["WDA_Bea-Two"].segments[1].end_s == 300.0
    assert videos["WRA_CarlThree"].segments[1].window is None


def test_one_recording_under_two_names_is_one_speaker(notes_folder):
    videos = read_annotations(notes_folder)
    assert {videos[f"WDA_{name}"].identity for name in ("AnnaOne0", "AnnaOne1", "MsOne")} == {"AnnaOne"}


def test_speakers_by_letters():
    names = ["VeronicaEscobar0", "VeronicaEscobar1", "TomUdall", "TomUdall2", "Bea-Two"]
    assert identities(names) == {
        "VeronicaEscobar0": "VeronicaEscobar",
        "VeronicaEscobar1": "VeronicaEscobar",
        "TomUdall": "TomUdall",
        "TomUdall2": "TomUdall",
        "Bea-Two": "Bea-Two",
    }


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("RD_annotion_time.txt", "Radio1.mp4 0:5\n", "'0:5' is no time range"),
        ("RD_annotion_time.txt", "Radio1.mp4 01:10-00:20\n", "'01:10-00:20' is no time range"),
        ("RD_crop_wh.txt", "Radio1_0.mp4 483 390 0\n", "Radio1_0: expected left, width, top, height"),
    ],
)
def test_a_broken_line_is_named(tmp_path, file, text, said):
    folder = write_texts(tmp_path, HDTF_FILES | {file: text})
    with pytest.raises(InputError, match=re.escape(said)):
        read_annotations(folder)


def test_raw_videos_become_their_segments(stock, tmp_path, notes_folder):
    root = tmp_path / "raw"
    stock.lay(root, stock.long, ["Radio1.mp4", "_videos_raw/WDA_Bea-Two.mp4", "CarlThree.mp4", "Radio2.mp4"])
    listing = read_dataset("hdtf", root, annotations=notes_folder)
    clips = clips_of(listing)
    assert sorted(clips) == [
        "hdtf/Bea-Two/WDA_Bea-Two_000",
        "hdtf/Bea-Two/WDA_Bea-Two_001",
        "hdtf/CarlThree/WRA_CarlThree_000",
        "hdtf/CarlThree/WRA_CarlThree_001",
        "hdtf/Radio/RD_Radio1_000",
        "hdtf/Radio/RD_Radio1_001",
    ]
    first = clips["hdtf/Radio/RD_Radio1_000"]
    assert (first.start_s, first.end_s, first.identity, first.audio) == (5.0, 35.0, "Radio", root / "Radio1.mp4")
    # The file of 320x180 stands for one of 1280x720: left / 1280, top / 720, ...
    assert first.crop == pytest.approx((483 / 1280, 0, 390 / 1280, 390 / 720), abs=1e-12)
    assert clips["hdtf/Bea-Two/WDA_Bea-Two_001"].end_s == pytest.approx(180)  # annotated to 300 s
    assert clips["hdtf/CarlThree/WRA_CarlThree_001"].crop is None
    assert {item.clip_id: item.reason for item in listing.rejects} == {"hdtf/Radio2.mp4": "no_segments"}
    assert listing.notes[0] == "annotation: 9 segments of 7 videos, 7 with a face window"
    assert any(note.startswith("WRA_CarlThree: annotated segments overlap") for note in listing.notes)
    assert any("one identity, Radio" in note for note in listing.notes)


def test_doubtful_scales_give_no_window(stock, tmp_path, notes_folder):
    root = stock.lay(tmp_path / "raw", stock.long, ["AnnaOne0.mp4", "AnnaOne1.mp4", "MsOne.mp4"])
    listing = read(root, annotations=notes_folder)
    assert [clip.crop for clip in listing.clips] == [None, None, None]
    assert any(note.startswith("3 clips without a usable face window") for note in listing.notes)
    assert {clip.identity for clip in listing.clips} == {"AnnaOne"}


def test_window_scale():
    segment = Segment(0, 0.0, 1.0, Window(600, 120, 480, 480))
    assert window_crop(segment, 720, 1280, 720) == pytest.approx((0.46875, 1 / 6, 0.375, 2 / 3))
    assert window_crop(segment, 720, 1920, 1080) == window_crop(segment, 720, 1280, 720)
    # At 1080 the same numbers are a smaller part of the picture.
    assert window_crop(segment, 1080, 1920, 1080) == pytest.approx((0.3125, 1 / 9, 0.25, 4 / 9))
    assert window_crop(segment, 720, 960, 720) is None  # 4:3: the window would leave the picture
    low = Segment(0, 0.0, 1.0, Window(0, 120, 480, 480))
    assert window_crop(low, 600, 1280, 720) is not None
    assert window_crop(low, 599, 1280, 720) is None  # taller than the picture it refers to
    assert window_crop(segment, None, 1280, 720) is None
    assert window_crop(None, 720, 1280, 720) is None


def test_windows_are_square_in_pixels(media):
    videos = read_annotations(media / "annotations" / "hdtf")
    for video in videos.values():
        for segment in video.segments:
            crop = window_crop(segment, video.resolution, 1920, 1080)
            if crop is not None:
                left, top, width, height = crop
                assert width * 1920 == pytest.approx(height * 1080, abs=1e-6)
                assert min(left, top) >= 0
                assert max(left + width, top + height) <= 1 + 1e-12


def test_a_picture_without_sound_is_refused_segment_by_segment(stock, tmp_path, notes_folder):
    root = stock.lay(tmp_path / "raw", stock.long_mute, ["Radio1.mp4", "AnnaOne1.mp4"])
    stock.lay(root, stock.sound, ["AnnaOne1.m4a"])
    listing = read(root, annotations=notes_folder)
    assert [(clip.clip_id, clip.audio) for clip in listing.clips] == [
        ("hdtf/AnnaOne/WDA_AnnaOne1_000", root / "AnnaOne1.m4a")
    ]
    assert [(item.clip_id, item.reason) for item in listing.rejects] == [
        ("hdtf/Radio/RD_Radio1_000", "no_audio"),
        ("hdtf/Radio/RD_Radio1_001", "no_audio"),
    ]
    assert all("download script" in item.message for item in listing.rejects)


def test_segments_outside_the_file(stock, tmp_path, notes_folder):
    files = {"RD_annotion_time.txt": "Radio1.mp4 00:05-00:35 03:10-04:00\n"}
    folder = write_texts(notes_folder, files)
    root = stock.lay(tmp_path / "raw", stock.long, ["Radio1.mp4"])
    listing = read(root, annotations=folder)
    assert [clip.clip_id for clip in listing.clips] == ["hdtf/Radio/RD_Radio1_000"]
    assert [item.reason for item in listing.rejects] == ["segment_outside"]


def test_cut_clips_need_no_annotation(stock, tmp_path):
    names = ["WDA_AnnaOne0_000.mp4", "RD_Radio10_0_clip_0.mp4", "RD_Radio10_0_clip_1.mp4", "sub/Radio11_1.mp4"]
    stock.lay(tmp_path, stock.square, names)
    clips = clips_of(read(tmp_path))
    assert sorted(clips) == [
        "hdtf/AnnaOne/WDA_AnnaOne0_000",
        "hdtf/Radio/RD_Radio10_000_clip_000",
        "hdtf/Radio/RD_Radio10_000_clip_001",
        "hdtf/Radio/Radio11_001",
    ]
    assert {clip.crop for clip in clips.values()} == {WHOLE}
    assert all(clip.start_s is None for clip in clips.values())


def test_a_cut_clip_that_is_not_cropped_gets_its_window(stock, tmp_path, notes_folder):
    root = stock.lay(tmp_path / "cut", stock.long, ["Radio1_1.mp4"])
    [clip] = read(root, annotations=notes_folder).clips
    assert clip.clip_id == "hdtf/Radio/RD_Radio1_001"
    assert clip.crop == pytest.approx((480 / 1280, 8 / 720, 400 / 1280, 400 / 720), abs=1e-12)
    assert clip.start_s is None


def test_copies_of_a_segment(stock, tmp_path, notes_folder):
    root = stock.lay(tmp_path / "all", stock.long, ["_videos_raw/RD_Radio1.mp4"])
    stock.lay(root, stock.square, ["RD_Radio1_000.mp4", "RD_Radio1_1_clip_0.mp4"])
    listing = read(root, annotations=notes_folder)
    assert {clip.video.name for clip in listing.clips} == {"RD_Radio1.mp4"}
    assert [(item.clip_id, item.reason) for item in listing.rejects] == [
        ("hdtf/Radio/RD_Radio1_000", "duplicate_clip"),
        ("hdtf/Radio/RD_Radio1_001_clip_000", "duplicate_clip"),
    ]


def test_unknown_names_and_broken_files(stock, tmp_path, notes_folder):
    root = stock.lay(tmp_path / "raw", stock.long, ["CarlThre.mp4", "AnnaOne1.mp4"])
    stock.lay(root, stock.text, ["Radio1.mp4"])
    listing = read(root, annotations=notes_folder)
    found = {item.clip_id: item for item in listing.rejects}
    assert found["hdtf/CarlThre.mp4"].reason == "not_annotated"
    assert "did you mean CarlThree" in found["hdtf/CarlThre.mp4"].message
    assert [found[f"hdtf/Radio/RD_Radio1_00{k}"].reason for k in (0, 1)] == ["not_a_video"] * 2
    assert len(listing.clips) == 1


def test_annotations_are_found_in_the_root(stock, tmp_path):
    write_texts(tmp_path / "HDTF_dataset", HDTF_FILES)
    stock.lay(tmp_path, stock.long, ["AnnaOne1.mp4"])
    assert len(read(tmp_path).clips) == 1


def test_clear_errors(stock, tmp_path):
    raw = stock.lay(tmp_path / "raw", stock.long, ["WDA_AnnaOne1.mp4"])
    with pytest.raises(InputError, match=r"no annotation files.*--annotations"):
        read(raw)
    with pytest.raises(InputError, match="holds no annotation of HDTF"):
        read(raw, annotations=tmp_path)
    mead = stock.lay(tmp_path / "m", stock.video, ["M003/video/front/sad/level_1/001.mp4"])
    with pytest.raises(InputError, match="this looks like mead"):
        read(mead)
    with pytest.raises(InputError, match="this looks like mead"):
        read(mead, annotations=write_texts(tmp_path / "notes", HDTF_FILES))


def real_tree(stock: Stock, media: Path, root: Path) -> Path:
    names = [video.name for video in read_annotations(media / "annotations" / "hdtf").values()]
    return stock.lay(root, stock.long, [f"{name}.mp4" for name in names])


def test_the_public_annotation_whole(stock, media, tmp_path):
    """The counts are those of awk and sort over the files."""
    folder = media / "annotations" / "hdtf"
    videos = read_annotations(folder)
    segments = [segment for video in videos.values() for segment in video.segments]
    assert (len(videos), sum(bool(video.segments) for video in videos.values())) == (370, 369)
    assert (len(segments), sum(segment.window is not None for segment in segments)) == (436, 421)
    assert len({re.sub(r"\d", "", video.name) for video in videos.values()}) == 221
    assert len({video.identity for video in videos.values()}) == 220
    assert {v.name for v in videos.values() if v.identity == "JamesClyburn"} == {
        "JamesClyburn",
        "JamesClyburn1",
        "WhipJimClyburn",
    }
    assert videos["WDA_CarolynMaloney2"].segments  # the first line, behind the byte-order mark
    assert videos["WRA_KevinMcCarthy1"].resolution is None
    listing = read(real_tree(stock, media, tmp_path / "raw"), annotations=folder)
    # Some segments begin after the 180 s of these stand-ins.
    assert len(listing.clips) + sum(item.reason == "segment_outside" for item in listing.rejects) == 436
    assert {item.reason for item in listing.rejects} == {"segment_outside", "no_segments"}
    assert [item.clip_id for item in listing.rejects if item.reason == "no_segments"] == ["hdtf/Radio24.mp4"]


def test_windows_without_a_scale(media):
    videos = read_annotations(media / "annotations" / "hdtf")
    doubtful = [
        f"{video.name}_{segment.number}"
        for video in videos.values()
        for segment in video.segments
        if segment.window and window_crop(segment, video.resolution, 1280, 720) is None
    ]
    assert sorted(doubtful) == [
        "KevinMcCarthy1_0",
        "KevinMcCarthy1_1",
        "MaggieHassan_0",
        "MazieHirono1_0",
        "PeterKing_0",
    ]


def test_a_published_clip(media, tmp_path):
    source = media / "sadtalker" / "WDA_AlexandriaOcasioCortez_000.mp4"
    (tmp_path / source.name).write_bytes(source.read_bytes())
    [clip] = read(tmp_path).clips
    assert clip.clip_id == "hdtf/AlexandriaOcasioCortez/WDA_AlexandriaOcasioCortez_000"
    assert (clip.crop, clip.audio) == (WHOLE, clip.video)

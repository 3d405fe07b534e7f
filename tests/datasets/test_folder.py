"""Which files of a folder are videos, under which names, in which order; and what is said about the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from talkforge.core.errors import InputError
from talkforge.datasets.folder import MediaFile, scan_folder


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_videos_in_the_order_of_their_stems(tmp_path):
    make(tmp_path, "b.mp4", "a.MOV", "c/z.mkv", "c/a.avi", "notes.txt", "x.wav", "B.mp4", "a-1.mp4")
    scan = scan_folder(tmp_path)
    assert [item.stem for item in scan.files] == ["B", "a", "a-1", "b", "c/a", "c/z"]
    assert [item.path for item in scan.files if item.stem == "c/z"] == [tmp_path / "c" / "z.mkv"]
    assert scan.problems == []


def test_only_the_top_on_request(tmp_path):
    make(tmp_path, "a.mp4", "c/z.mkv")
    assert [item.stem for item in scan_folder(str(tmp_path), recursive=False).files] == ["a"]


def test_sound_beside(tmp_path):
    make(tmp_path, "a.mp4", "a.m4a", "a.wav", "b.mp4", "b.FLAC", "c/a.mp4", "d.e.mp4", "d.wav")
    sounds = {item.stem: item.audio_path for item in scan_folder(tmp_path).files}
    assert sounds == {"a": tmp_path / "a.wav", "b": tmp_path / "b.FLAC", "c/a": None, "d.e": None}


def test_hidden_is_left_out_and_odd_names_are_not(tmp_path):
    make(tmp_path, ".a.mp4", ".tmp-1.mp4", ".git/b.mp4", "-c.mp4", "d e.mp4", "é漢.mp4", "f\ng.mp4", "concat:h.mp4")
    assert sorted(item.stem for item in scan_folder(tmp_path).files) == sorted(["-c", "d e", "é漢", "f\ng", "concat:h"])


def test_two_files_of_one_stem_are_both_named(tmp_path):
    make(tmp_path, "a.mp4", "a.mov", "b.mp4", "c/a.mp4")
    scan = scan_folder(tmp_path)
    assert [item.stem for item in scan.files] == ["b", "c/a"]
    [(name, reason, message)] = scan.problems
    assert (name, reason) == ("a", "duplicate_stem")
    assert "a.mov" in message and "a.mp4" in message


def test_one_name_in_two_unicode_forms_is_one_stem(tmp_path):
    composed, decomposed = "\u00e9.mp4", "e\u0301.mp4"
    make(tmp_path, decomposed)
    assert scan_folder(tmp_path).files[0] == MediaFile("\u00e9", tmp_path / decomposed, None)
    make(tmp_path, composed)
    if len(list(tmp_path.iterdir())) == 2:  # some file systems hold them for one
        assert [reason for _, reason, _ in scan_folder(tmp_path).problems] == ["duplicate_stem"]


def test_broken_videos_and_dead_links_are_listed(tmp_path):
    make(tmp_path, "empty.mp4")
    (tmp_path / "dead.mp4").symlink_to(tmp_path / "nothing")
    assert [item.stem for item in scan_folder(tmp_path).files] == ["dead", "empty"]


def test_a_folder_named_like_a_video_is_a_folder(tmp_path):
    make(tmp_path, "a.mp4/b.mp4")
    assert [item.stem for item in scan_folder(tmp_path).files] == ["a.mp4/b"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    make(tmp_path, "a/x.mp4", "b/y.mp4")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to-a").symlink_to(tmp_path / "a")
    stems = [item.stem for item in scan_folder(tmp_path).files]
    assert stems == ["a/x", "b/to-a/x", "b/y", "c/to-a/x", "c/y"]


def test_undecodable_names_are_reported(tmp_path):
    make(tmp_path, "a.mp4")
    (tmp_path / os.fsdecode(b"\xff\xfe.mp4")).touch()
    scan = scan_folder(tmp_path)
    assert [item.stem for item in scan.files] == ["a"]
    assert [reason for _, reason, _ in scan.problems] == ["undecodable_name"]
    scan.problems[0][0].encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_an_unreadable_folder_is_reported(tmp_path):
    make(tmp_path, "a.mp4", "b/c.mp4")
    (tmp_path / "b").chmod(0)
    try:
        assert [reason for _, reason, _ in scan_folder(tmp_path).problems] == ["unreadable_folder"]
    finally:
        (tmp_path / "b").chmod(0o700)


def test_empty_or_missing_folder_is_an_input_error(tmp_path):
    with pytest.raises(InputError) as caught:
        scan_folder(tmp_path)
    assert str(tmp_path) in str(caught.value) and ".mp4" in str(caught.value) and ".webm" in str(caught.value)
    make(tmp_path, "a.mp4")
    for path in (tmp_path / "no", tmp_path / "a.mp4"):
        with pytest.raises(InputError, match="is not a folder"):
            scan_folder(path)

"""The optional decord backend: same contract, same pictures, and never a file that the package refuses."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from talkforge.core import errors
from talkforge.core.counters import Counters
from talkforge.datasets.video import open_video, resample
from talkforge.tests.media_factory import read_number, write_clip


@pytest.fixture
def decord():
    return pytest.importorskip("decord", reason="the extra 'decord' is not installed")


def test_same_frames_and_times(decord, tmp_path):
    path = write_clip(tmp_path / "a.mp4", 40, rate=30)
    counters = Counters()
    with open_video(path, backend="decord", counters=counters) as stream:
        theirs = list(stream)
    with open_video(path) as reference:
        ours = list(reference)
    assert [t for t, _ in theirs] == pytest.approx([t for t, _ in ours], abs=1e-6)
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(theirs, ours, strict=True))
    assert all(f.dtype == np.uint8 and f.flags["C_CONTIGUOUS"] for _, f in theirs)
    assert (counters.decodes, counters.frames_decoded) == (1, 40)
    assert stream.info == reference.info


def test_it_resamples_alike(decord, tmp_path):
    path = write_clip(tmp_path / "a.mp4", 60, rate=30)
    with open_video(path, backend="decord") as stream:
        numbers = [read_number(frame) for _, _, frame in resample(stream)]
    assert numbers == [min(-((-(2 * k + 1) * 30) // 50) - 1, 59) for k in range(50)]


def test_what_is_refused_never_reaches_it(decord, tmp_path, monkeypatch):
    def never(*_args, **_kwargs):
        raise AssertionError("decord was given a refused file")

    monkeypatch.setattr(decord, "VideoReader", never)
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "list.mp4").write_text("#EXTM3U\nother.ts\n")
    cases = {
        "text.mp4": errors.NotMedia,
        "list.mp4": errors.PlaylistRefused,
        "none.mp4": errors.MediaNotFound,
    }
    for name, error in cases.items():
        with pytest.raises(error):
            open_video(tmp_path / name, backend="decord")
    write_clip(tmp_path / "turned.mp4", 3, rotation=90)
    with pytest.raises(errors.CorruptMedia, match="turned"):
        open_video(tmp_path / "turned.mp4", backend="decord")


def test_without_the_package_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(errors.MissingPackage) as caught:
        open_video(write_clip(tmp_path / "a.mp4", 3), backend="decord")
    assert "-e '.[decord]'" in str(caught.value)

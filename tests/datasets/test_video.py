"""The stream's contract: exact times, pixels, orientation, repairs, counters, life cycle."""

from __future__ import annotations

import gc
from fractions import Fraction

import av
import numpy as np
import pytest
from talkforge.core.counters import Counters
from talkforge.core.errors import ConfigError, CorruptMedia
from talkforge.datasets.pyav_backend import RgbConverter
from talkforge.datasets.source import Source, TimedPicture
from talkforge.datasets.video import VideoInfo, VideoStream, open_video, probe
from talkforge.tests.media_factory import numbered, read_number, tone, write_clip


def frames_of(path, **options):
    with open_video(path, **options) as stream:
        return list(stream)


def test_every_frame_once_in_order_with_its_time(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 40, rate=Fraction(30000, 1001))
    items = frames_of(path)
    assert [read_number(frame) for _, frame in items] == list(range(40))
    assert [t for t, _ in items] == [float(i * Fraction(1001, 30000)) for i in range(40)]
    for _, frame in items:
        assert frame.dtype == np.uint8 and frame.shape == (64, 96, 3) and frame.flags["C_CONTIGUOUS"]


def test_frames_own_their_memory(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 6)
    items = frames_of(path)
    items[0][1][:] = 7
    assert [read_number(frame) for _, frame in items[1:]] == [1, 2, 3, 4, 5]


def test_probe_tells_the_header(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 50, audio=tone(2))
    info = probe(path)
    assert info == VideoInfo(path, "mov", "h264", 96, 64, 0, 25.0, 2.0, 0.0, 50, True)


def test_time_starts_at_the_first_frame(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 10, ticks=range(5, 15), audio=tone(1))
    assert probe(path).start_s == pytest.approx(0.2)
    items = frames_of(path)
    assert items[0][0] == 0.0 and items[-1][0] == pytest.approx(0.36)


def test_exact_time_and_end_are_kept(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 7, rate=Fraction(24000, 1001))
    with open_video(path) as stream:
        for index, _ in enumerate(stream):
            assert stream.pts == index * Fraction(1001, 24000)
        assert stream.end == 7 * Fraction(1001, 24000)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("hflip", [False, True])
def test_turned_pictures_come_upright(degrees, hflip, tmp_path, ffmpeg_frames):
    path = write_clip(tmp_path / "a.mp4", 3, rotation=degrees, hflip=hflip)
    width, height = (64, 96) if degrees % 180 else (96, 64)
    info = probe(path)
    assert (info.width, info.height) == (width, height)
    assert info.rotation == -degrees % 360
    with open_video(path) as stream:
        ours = np.stack([frame for _, frame in stream])
    assert stream.repairs["rotated"] == (3 if degrees or hflip else 0)
    # The reference turns by the display matrix on its own.
    assert np.array_equal(ours, ffmpeg_frames(path, width, height))


def solid(luma, cb, cr, colorspace, color_range):
    frame = av.VideoFrame(64, 48, "yuv420p")
    for plane, value in zip(frame.planes, (luma, cb, cr), strict=True):
        plane.update(np.full(plane.buffer_size, value, np.uint8).tobytes())
    frame.colorspace, frame.color_range = colorspace, color_range
    return RgbConverter()(frame)[20, 30].tolist()


MATRICES = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 2: (0.299, 0.114), 9: (0.2627, 0.0593)}


@pytest.mark.parametrize("colorspace", MATRICES)
@pytest.mark.parametrize("color_range", [0, 1, 2])
def test_colour_matrix_and_range(colorspace, color_range):
    """Against the definition: R = Y' + 2 (1 - Kr) Cr, B = Y' + 2 (1 - Kb) Cb, Y' = Kr R + Kg G + Kb B."""
    kr, kb = MATRICES[colorspace]
    low, span, chroma = (0, 255, 255) if color_range == 2 else (16, 219, 224)
    for luma, cb, cr in [(90, 128, 128), (120, 100, 160), (170, 150, 110), (100, 140, 140)]:
        y, u, v = (luma - low) / span, (cb - 128) / chroma, (cr - 128) / chroma
        r, b = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
        exact = 255 * np.array([r, (y - kr * r - kb * b) / (1 - kr - kb), b])
        assert np.abs(solid(luma, cb, cr, colorspace, color_range) - exact).max() <= 3


def test_black_and_white_are_exact():
    assert solid(16, 128, 128, 1, 1) == [0, 0, 0] and solid(235, 128, 128, 1, 1) == [255, 255, 255]
    assert solid(16, 128, 128, 2, 0) == [0, 0, 0] and solid(235, 128, 128, 2, 0) == [255, 255, 255]
    assert solid(0, 128, 128, 1, 2) == [0, 0, 0] and solid(255, 128, 128, 1, 2) == [255, 255, 255]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuvj420p", "gray"])
def test_rgb_is_bit_for_bit_what_ffmpeg_gives(pix_fmt, tmp_path, ffmpeg_frames):
    rng = np.random.default_rng(3)
    pictures = [rng.integers(0, 256, (16, 24, 3), np.uint8).repeat(4, 0).repeat(4, 1) for _ in range(4)]
    codec = {"yuvj420p": "mjpeg", "gray": "ffv1"}.get(pix_fmt, "libx264")
    path = write_clip(tmp_path / "a.mkv", pictures, codec=codec, pix_fmt=pix_fmt)
    ours = np.stack([frame for _, frame in frames_of(path)])
    assert np.array_equal(ours, ffmpeg_frames(path, 96, 64))


def test_ten_bit_keeps_its_colours(tmp_path):
    picture = np.broadcast_to(np.array([200, 90, 40], np.uint8), (64, 96, 3))
    path = write_clip(tmp_path / "a.mp4", [picture] * 3, pix_fmt="yuv420p10le")
    for _, frame in frames_of(path):
        assert np.abs(frame.astype(int) - picture).max() <= 2


def test_decoding_is_repeatable(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 20)
    first, second = frames_of(path), frames_of(path)
    assert all(np.array_equal(a[1], b[1]) and a[0] == b[0] for a, b in zip(first, second, strict=True))


def test_decoded_frames_are_freed_at_once(tmp_path):
    """Without the garbage collector: a frame caught in a circle of references would wait for it, megabytes each."""
    path = write_clip(tmp_path / "a.mp4", 80, rotation=90)
    gc.collect()
    gc.disable()
    try:
        with open_video(path) as stream:
            for _ in range(75):
                next(stream)
            alive = sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())
    finally:
        gc.enable()
    assert alive < 8


def test_uneven_times_are_counted(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 6, ticks=[0, 1, 2, 5, 6, 9], audio=None)
    with open_video(path) as stream:
        assert [round(t * 25) for t, _ in stream] == [0, 1, 2, 5, 6, 9]
    assert stream.repairs == {"vfr": 2}


def test_coarse_time_stamps_are_not_uneven(tmp_path):
    path = write_clip(tmp_path / "a.mkv", 30, rate=30)  # 33, 34, 33 ms
    with open_video(path) as stream:
        assert sum(1 for _ in stream) == 30
    assert not stream.repairs


def test_missing_times_follow_the_frame_rate(tmp_path):
    path = write_clip(tmp_path / "a.m1v", 12, codec="mpeg1video", format="mpeg1video", rate=25)
    with open_video(path) as stream:
        items = list(stream)
    assert stream.repairs == {"missing_pts": 12}
    assert [read_number(frame) for _, frame in items] == list(range(12))
    assert [t for t, _ in items] == [i / 25 for i in range(12)]


def synthetic(times, fps=25.0):
    """A stream over made-up times, None for a missing one."""
    pictures = iter(TimedPicture(t, None, numbered(i)) for i, t in enumerate(times))
    info = VideoInfo("made-up", "mov", "h264", 96, 64, 0, fps, None, 0.0, None, False)
    return VideoStream(Source(info, pictures, lambda: None))


def test_repairs_of_times_are_counted_and_times_increase():
    stream = synthetic([Fraction(1), None, Fraction(27, 25), Fraction(27, 25), Fraction(28, 25)])
    times = [t for t, _ in stream]
    assert times[:3] == pytest.approx([0, 0.04, 0.08]) and times[4] == pytest.approx(0.12)
    assert times == sorted(set(times))
    assert stream.repairs["missing_pts"] == 1 and stream.repairs["non_monotonic_pts"] == 1


def test_a_clock_that_jumps_back_is_refused():
    stream = synthetic([Fraction(0), Fraction(1), Fraction(2), Fraction(0)])
    with pytest.raises(CorruptMedia, match="jumps back at frame 3"):
        list(stream)


def test_counters_count_work_that_was_done(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 9)
    counters = Counters()
    with open_video(path, counters=counters) as stream:
        assert counters.decodes == 0
        for _ in range(4):
            next(stream)
    assert (counters.decodes, counters.frames_decoded, stream.frames_decoded) == (1, 4, 4)
    frames_of(path, counters=counters)
    assert (counters.decodes, counters.frames_decoded) == (2, 13)


def test_file_is_closed_at_the_end_and_on_leaving(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 5)
    done = open_video(path)
    handle = done._source.close.__self__.handle
    assert len(list(done)) == 5 and handle.closed
    done.close()
    with open_video(path) as left:
        next(left)
    assert left._source.close.__self__.handle.closed
    with pytest.raises(StopIteration):
        next(left)


def test_unknown_backend_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="pyav, decord"):
        open_video(write_clip(tmp_path / "a.mp4", 2), backend="cv2")

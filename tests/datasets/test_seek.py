"""A stream that begins later in a file shows what a decode of the whole file shows, and decodes less."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from talkforge.core.counters import Counters
from talkforge.core.errors import CorruptMedia
from talkforge.datasets.video import FPS, open_video, resample
from talkforge.tests.media_factory import numbered, read_number, tone, write_clip

LENGTH = 200
H264 = {"codec": "libx264", "options": {"g": "25", "bf": "3", "x264-params": "scenecut=0", "crf": "12"}}
OPEN = {"codec": "libx264", "options": {"g": "25", "x264-params": "open-gop=1:bframes=3:scenecut=0", "crf": "12"}}
HEVC_OPTIONS = "keyint=25:bframes=3:open-gop=1:scenecut=0:log-level=none:pools=1"
HEVC = {"codec": "libx265", "options": {"x265-params": HEVC_OPTIONS, "crf": "12"}}
MPEG4 = {"codec": "mpeg4", "options": {"g": "12", "bf": "2", "q": "2"}}
# name -> how it is written, and whether the backend seeks in it
KINDS: dict[str, tuple[dict[str, Any], bool]] = {
    "h264.mp4": (H264, True),
    "h264.mkv": (H264, True),
    "open-gop.mp4": (OPEN, True),
    "open-gop.mkv": (OPEN, True),
    "hevc.mp4": (HEVC, True),
    "hevc.mkv": (HEVC, True),
    "mpeg4.mp4": (MPEG4, True),
    "mpeg4.avi": (MPEG4, False),
    "h264.ts": (H264, False),
    "mpeg1.mpg": ({"codec": "mpeg1video", "options": {"q": "2"}}, False),
    "fragments.mp4": (H264 | {"container_options": {"movflags": "frag_keyframe+empty_moov"}}, True),
}
SEGMENTS = ((30, 31), (60, 75), (75, 99), (101, 140), (150, 200), (195, 200), (12, 40))


def digests(path: Path, first: int, last: int, *, seek: bool, counters: Counters | None = None) -> list[int]:
    """A hash of each 25 fps frame from `first` to before `last`, with its number."""
    start = Fraction(first, FPS) if seek else 0
    with open_video(path, counters=counters, start_s=start) as stream:
        return list(_frames(resample(stream), first, last))


def _frames(slots: Iterator[tuple[int, float, np.ndarray]], first: int, last: int) -> Iterator[int]:
    for slot, _, frame in slots:
        if slot >= last:
            return
        if slot >= first:
            yield hash((slot, frame.tobytes()))


def assert_same_segment(path: Path, first: int, last: int) -> tuple[int, int]:
    """Frames decoded for the segment, with and without a seek."""
    short, whole = Counters(), Counters()
    found = digests(path, first, last, seek=True, counters=short)
    assert found == digests(path, first, last, seek=False, counters=whole), f"{path.name} [{first}, {last})"
    assert found, "the segment holds frames"
    assert short.decodes == whole.decodes == 1
    return short.frames_decoded, whole.frames_decoded


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seek")
    rng = np.random.default_rng(0)
    frames = [numbered(k) // 2 + rng.integers(0, 60, (64, 96, 3), dtype=np.uint8) for k in range(LENGTH)]
    for name, (options, _) in KINDS.items():
        sound = {"audio_codec": "mp2", "audio_rate": 16000} if name.endswith(".mpg") else {}
        write_clip(folder / name, frames, **options, **sound, audio=tone(LENGTH / 25))
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_a_segment_is_the_same_with_and_without_a_seek(name: str, clips: Path) -> None:
    for first, last in SEGMENTS:
        short, whole = assert_same_segment(clips / name, first, last)
        if not KINDS[name][1]:
            assert short == whole
        elif first >= 60:
            assert short <= last - first + 13 + 25 + 8, "half a second, a group of pictures and the decoder's delay"
            assert short < whole


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), 60, 12])
def test_other_rates_and_a_late_start(rate: Fraction | int, tmp_path: Path) -> None:
    """The file's clock begins at 3 s; slots count from its first picture."""
    ticks = [round(3000 + 1000 * k / rate) for k in range(round(8 * rate))]
    frames = len(ticks)
    path = write_clip(tmp_path / "a.mkv", frames, rate=rate, ticks=ticks, time_base=Fraction(1, 1000), **H264)
    for first, last in ((50, 60), (100, 150), (170, 190)):
        short, whole = assert_same_segment(path, first, last)
        assert short < whole or first == 50


def test_uneven_times(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    ticks = np.cumsum(rng.integers(1, 120, 150)).tolist()
    path = write_clip(tmp_path / "vfr.mp4", 150, ticks=ticks, time_base=Fraction(1, 1000), **H264)
    last = ticks[-1] * FPS // 1000
    for first in range(0, last - 5, 23):
        assert_same_segment(path, first, first + 20)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("frames", [3, 40])
def test_pictures_that_last_a_second(frames: int, codec: str, tmp_path: Path) -> None:
    """Here a picture is decoded seconds before it is shown, and three of them come out of the decoder all at once."""
    own = {"bf": "3", "x264-params": "scenecut=0:b-adapt=0"} if codec == "libx264" else {"bf": "2", "q": "2"}
    path = write_clip(tmp_path / "slow.mp4", frames, rate=1, codec=codec, options={"g": "5", **own})
    for first in range(20, 25 * frames - 12, 24):
        assert_same_segment(path, first, first + 12)


def test_turned_pictures_stay_turned(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 100, rotation=90, **H264)
    assert_same_segment(path, 80, 90)


def test_the_first_slot_shows_its_number(clips: Path) -> None:
    with open_video(clips / "h264.mp4", start_s=5) as stream:
        shown = {slot: frame for slot, _, frame in resample(stream) if slot in (125, 199)}
        assert stream.pts == Fraction(199, 25) and stream.frames_decoded < LENGTH
    assert {slot: read_number(frame // 128 * 128 * 2 | frame) for slot, frame in shown.items()}.keys() == {125, 199}


def test_damage_in_the_segment_is_still_an_error(clips: Path, tmp_path: Path) -> None:
    """A picture of the segment is overwritten; one before the place where decoding begins is not read."""
    with av.open(str(clips / "h264.mp4")) as container:
        places = [(p.pts * p.time_base, p.pos, p.size) for p in container.demux(video=0) if p.size]
    for second, fails in ((Fraction(4, 5), False), (Fraction(6), True)):
        time, at, size = min(places, key=lambda place: abs(place[0] - second))
        data = bytearray((clips / "h264.mp4").read_bytes())
        data[at + 4 : at + size] = bytes(size - 4)
        path = tmp_path / f"{float(time)}.mp4"
        path.write_bytes(data)
        if fails:
            with pytest.raises(CorruptMedia):
                digests(path, 140, 170, seek=True)
        else:
            assert digests(path, 140, 170, seek=True) == digests(clips / "h264.mp4", 140, 170, seek=False)


def test_a_file_that_breaks_off_is_still_found_out(clips: Path, tmp_path: Path) -> None:
    """The last pictures of the track are missing: a stream that began late must not end early in silence."""
    from talkforge.core.errors import MediaError

    for name in ("h264.mkv", "fragments.mp4"):
        data = (clips / name).read_bytes()
        (tmp_path / name).write_bytes(data[: int(len(data) * 0.8)])
        with pytest.raises(MediaError) as error:
            digests(tmp_path / name, 100, 400, seek=True)
        assert error.value.reason == "truncated"


def test_an_end_behind_a_seek_is_no_damage(clips: Path) -> None:
    for name in KINDS:
        assert len(digests(clips / name, 150, 10_000, seek=True)) == LENGTH - 150


REAL = (
    "latentsync/demo2_video.mp4",
    "sadtalker/WDA_AlexandriaOcasioCortez_000.mp4",
    "videoretalking/1.mp4",
    "styletalk_source/Obama_clip1.mp4",
    "pkg_psychopy/jwpIntro.mp4",
    "pkg_psychopy/testMovie.mp4",
    "pyfeat/face_noface.mov",
    "pyfeat/WolfgangLanger_Pexels.mp4",
)


@pytest.mark.parametrize("name", REAL)
def test_a_segment_of_a_real_clip(name: str, media: Path) -> None:
    """Every second or so a segment, compared with one decode of the first twelve seconds."""
    limit = 300 if "latentsync" not in name else 260
    whole = digests(media / name, 0, limit, seek=False)
    starts = range(37, len(whole) - 3, 31) if "latentsync" not in name else (252,)
    for first in starts:
        last = min(first + 3, len(whole))
        assert digests(media / name, first, last, seek=True) == whole[first:last], first


def test_a_segment_of_a_program_stream(media: Path) -> None:
    path = sorted((media / "grid_lipnet").glob("*.mpg"))[0]
    short, whole = assert_same_segment(path, 40, 60)
    assert short == whole

"""Broken and hostile files: each is an error with its own reason, never a shorter video, never another file read."""

from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from talkforge.core import errors
from talkforge.datasets import demux
from talkforge.datasets.audio import read_audio
from talkforge.datasets.video import open_video, probe
from talkforge.tests.media_factory import numbered, read_number, tone, write_clip


def count(path: Path) -> int:
    with open_video(path) as stream:
        return sum(1 for _ in stream)


def noisy(number: int) -> np.ndarray:
    """A numbered frame that is hard to compress, so that the file is made of pictures and not of headers."""
    noise = np.random.default_rng(number).integers(0, 100, (128, 192, 3))
    return (numbered(number, 192, 128) // 2 + noise).astype(np.uint8)


def noisy_clip(path: Path, **options) -> Path:
    return write_clip(path, (noisy(i) for i in range(50)), **options)


def cut(path: Path, part: float) -> Path:
    data = path.read_bytes()
    target = path.with_stem(f"cut-{path.stem}")
    target.write_bytes(data[: int(len(data) * part)])
    return target


FRONT = {"container_options": {"movflags": "+faststart"}}
CONTAINERS = {
    "a.mp4": FRONT,
    "frag.mp4": {"container_options": {"movflags": "+frag_keyframe+empty_moov"}},
    "a.mkv": {},
    "live.webm": {"codec": "libvpx", "container_options": {"live": "1"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "a.avi": {"codec": "mpeg4"},
    "a.mpg": {"codec": "mpeg1video", "format": "mpeg"},
    "a.flv": {"codec": "flv"},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none", "preset": "ultrafast"}, **FRONT},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_whole_files_decode_and_cut_ones_are_truncated(name, tmp_path):
    whole = noisy_clip(tmp_path / name, **CONTAINERS[name])
    assert count(whole) == 50
    for part in (0.35, 0.6, 0.9):
        with pytest.raises(errors.TruncatedMedia) as caught, open_video(cut(whole, part)) as stream:
            for _ in stream:
                pass
        assert caught.value.reason == "truncated"


def test_the_frames_before_the_cut_are_right(tmp_path):
    whole = noisy_clip(tmp_path / "a.mp4", **FRONT)
    seen = []
    with pytest.raises(errors.TruncatedMedia), open_video(cut(whole, 0.6)) as stream:
        for _, frame in stream:
            seen.append(read_number(frame))
    assert seen == list(range(len(seen))) and 5 < len(seen) < 45


def test_two_lost_frames_at_the_end_are_noticed(tmp_path):
    """A cut at a packet's border is within the tolerance of the header's duration; the file's own size tells."""
    whole = noisy_clip(tmp_path / "a.mp4", options={"bf": "0"}, **FRONT)
    with av.open(str(whole)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    short = tmp_path / "short.mp4"
    short.write_bytes(whole.read_bytes()[: ends[47]])
    with pytest.raises(errors.TruncatedMedia):
        count(short)


def test_a_late_start_hides_no_loss_at_the_end(tmp_path):
    whole = write_clip(tmp_path / "a.mp4", map(noisy, range(50)), ticks=range(25, 75), options={"bf": "0"}, **FRONT)
    assert count(whole) == 50
    with av.open(str(whole)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    whole.write_bytes(whole.read_bytes()[: ends[40]])
    with pytest.raises(errors.TruncatedMedia):
        count(whole)


def test_the_headers_duration_counts_where_there_are_no_sizes(tmp_path):
    """An FLV file that ends with a whole tag; only its header knows that there was more."""
    whole = noisy_clip(tmp_path / "a.flv", codec="flv")
    with av.open(str(whole)) as container:
        starts = [packet.pos for packet in container.demux(video=0) if packet.size]
    whole.write_bytes(whole.read_bytes()[: starts[45]])
    with pytest.raises(errors.TruncatedMedia, match=r"0\.\d+ s before the length in its header"):
        count(whole)


def test_a_header_without_anything_behind_it(tmp_path):
    for name, size in (("a.mkv", 300), ("a.mpg", 20)):
        whole = noisy_clip(tmp_path / name, **CONTAINERS[name])
        whole.write_bytes(whole.read_bytes()[:size])
        with pytest.raises(errors.TruncatedMedia, match="inside its header"):
            count(whole)


def test_index_missing_at_the_end(tmp_path):
    whole = noisy_clip(tmp_path / "a.mp4")
    for part in (0.3, 0.6, 0.97, 0.999):
        with pytest.raises(errors.TruncatedMedia):
            count(cut(whole, part))


@pytest.mark.parametrize("name", ["a.mp4", "frag.mp4", "a.mkv", "a.avi", "a.mpg", "a.flv"])
def test_damage_in_the_middle_is_corruption(name, tmp_path):
    data = noisy_clip(tmp_path / name, **CONTAINERS[name]).read_bytes()
    for seed in range(3):
        damaged, rng = bytearray(data), random.Random(seed)
        for _ in range(20):
            damaged[rng.randrange(len(data) * 4 // 10, len(data) * 6 // 10)] ^= 0xFF
        (tmp_path / f"bad-{name}").write_bytes(damaged)
        with pytest.raises(errors.CorruptMedia) as caught:
            count(tmp_path / f"bad-{name}")
        assert caught.value.reason == "corrupt"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_picture_lost_in_the_middle_is_corruption(name, tmp_path):
    """The decoder ignores a picture that no other one needs; the hole would look like an uneven source."""
    params = "log-level=none:bframes=2:b-adapt=0:b-pyramid=0"
    whole = noisy_clip(tmp_path / name, codec="libx265", options={"x265-params": params, "preset": "ultrafast"})
    with av.open(str(whole)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    # NAL type 0 is a trailing picture that nothing refers to; type 48 is one that decoders pass over.
    lost = next(p for p in packets[10:] if p[4] >> 1 == 0)
    data = whole.read_bytes()
    assert data.count(lost) == 1
    (tmp_path / f"bad-{name}").write_bytes(data.replace(lost, lost[:4] + bytes([48 << 1]) + lost[5:]))
    with pytest.raises(errors.CorruptMedia, match="1 pictures cannot be decoded"):
        count(tmp_path / f"bad-{name}")


@pytest.mark.parametrize("params", ["open-gop=1:keyint=20:min-keyint=20:bframes=3", "intra-refresh=1:keyint=20"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_clip_cut_without_decoding_is_no_damage(params, suffix, tmp_path, ffmpeg):
    """It begins with pictures that depend on data before the cut; players skip them, and so do we, with a note."""
    whole = noisy_clip(tmp_path / f"a.{suffix}", options={"x264-params": f"{params}:scenecut=0"})
    piece = tmp_path / f"b.{suffix}"
    command = [ffmpeg, "-v", "error", "-ss", "1.0", "-i", str(whole), "-c", "copy", "-avoid_negative_ts", "make_zero"]
    command.append(str(piece))
    subprocess.run(command, check=True)
    with open_video(piece) as stream:
        frames = [frame for _, frame in stream]
    command = [ffmpeg, "-v", "error", "-i", str(piece), "-fps_mode", "passthrough", "-f", "framecrc", "-"]
    reference = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(frames) == sum(not line.startswith("#") for line in reference)
    # Whatever was skipped stood at the start: the last picture is the source's last.
    with open_video(whole) as stream:
        last = [frame for _, frame in stream][-1]
    assert np.array_equal(frames[-1], last) and 5 < len(frames) < 50


def test_blocks_that_a_demuxer_skips_are_missed(tmp_path):
    """A Matroska block of an unknown track makes the demuxer skip to the next cluster without an error."""
    whole = noisy_clip(tmp_path / "a.mkv", codec="libvpx", container_options={"cluster_time_limit": "400"})
    data = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        block = [p.pos for p in container.demux(video=0) if p.size][22]
    header = data.index(b"\x81", block)  # the block's track number
    data[header] = 0x85
    (tmp_path / "bad.mkv").write_bytes(data)
    with pytest.raises(errors.CorruptMedia):
        count(tmp_path / "bad.mkv")


def test_zero_frames(tmp_path):
    for name, options in (("a.mp4", {"movflags": "+empty_moov+frag_keyframe"}), ("a.avi", {})):
        with av.open(str(tmp_path / name), "w", container_options=options) as out:
            video = out.add_stream("libx264", rate=25)
            video.width = video.height = 64
            video.pix_fmt = "yuv420p"
            out.start_encoding()
        with pytest.raises(errors.EmptyVideo) as caught:
            count(tmp_path / name)
        assert caught.value.reason == "zero_frames"


def test_sound_only_and_still_images_hold_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        sound = out.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(1)[None], format="fltp", layout="mono")
        frame.sample_rate = 16000
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    for call in (probe, open_video):
        with pytest.raises(errors.NoVideoStream) as caught:
            call(tmp_path / "a.mp4")
        assert caught.value.reason == "no_video_stream"
    write_clip(tmp_path / "a.png", 1, codec="png", pix_fmt="rgb24", format="image2")
    with pytest.raises(errors.NotMedia, match="still image"):
        open_video(tmp_path / "a.png")


def test_cover_art_is_no_video(tmp_path):
    cover = write_clip(tmp_path / "a.jpg", 1, codec="mjpeg", pix_fmt="yuvj420p", format="image2")
    with av.open(str(tmp_path / "a.m4a"), "w", format="mp4") as out, av.open(str(cover)) as picture:
        sound = out.add_stream("aac", rate=16000, layout="mono")
        art = out.add_stream_from_template(picture.streams.video[0])
        art.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(tone(1)[None], format="fltp", layout="mono")
        frame.sample_rate = 16000
        packet = next(picture.demux())
        packet.stream = art
        out.mux(packet)
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    with pytest.raises(errors.NoVideoStream):
        open_video(tmp_path / "a.m4a")
    assert len(read_audio(tmp_path / "a.m4a")) >= 16000


def test_one_frame(tmp_path):
    with open_video(write_clip(tmp_path / "a.mp4", 1)) as stream:
        assert [(t, read_number(frame)) for t, frame in stream] == [(0.0, 0)]
        assert stream.end == pytest.approx(0.04)


def test_a_picture_that_changes_size_is_refused(tmp_path):
    small = write_clip(tmp_path / "a.ts", 10, format="mpegts")
    large = write_clip(
        tmp_path / "b.ts", (numbered(i, 192, 128) for i in range(10)), ticks=range(10, 20), format="mpegts"
    )
    joined = tmp_path / "c.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(errors.CorruptMedia, match="midway"):
        count(joined)


ODD_NAMES = [
    "a b.mp4",
    "é漢字 🎬.mp4",
    "-i.mp4",
    "a\nb.mp4",
    "concat:a.mp4",
    "file:a.mp4",
    "%03d.mp4",
    "a|b.mp4",
    "http:",
]


@pytest.mark.parametrize("name", [*ODD_NAMES, os.fsdecode(b"\xff\xfe.mp4")])
@pytest.mark.parametrize("relative", [False, True])
def test_any_file_name_is_only_a_name(name, relative, tmp_path, monkeypatch):
    write_clip(tmp_path / "plain.mp4", 4, audio=tone(0.2)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    path = Path(name) if relative else tmp_path / name
    assert count(path) == 4
    assert probe(str(path)).declared_frames == 4
    assert len(read_audio(path)) >= 0.16 * 16000


class OpenWatch:
    """Counts how often a file is opened by anyone (inotify)."""

    IN_OPEN = 0x20

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, os.fsencode(path), self.IN_OPEN) < 0:
            pytest.skip("no inotify here")

    def __enter__(self) -> OpenWatch:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def opened(self) -> bool:
        try:
            return bool(os.read(self._fd, 4096))
        except BlockingIOError:
            return False


linux = pytest.mark.skipif(sys.platform != "linux", reason="watches file access through inotify")


@pytest.fixture
def bait(tmp_path):
    """A playlist named .mp4 and the other local file that it wants opened."""
    secret = write_clip(tmp_path / "secret.ts", 10, format="mpegts")
    playlist = tmp_path / "clip.mp4"
    playlist.write_text("ffconcat version 1.0\nfile secret.ts\n")
    return playlist, secret


@linux
def test_the_trick_works_on_an_unguarded_reader(bait):
    playlist, secret = bait
    with OpenWatch(secret) as watch, av.open(str(playlist)) as container:
        assert len(list(container.decode(video=0))) == 10
        assert watch.opened()


@linux
@pytest.mark.parametrize(
    "text", ["ffconcat version 1.0\nfile secret.ts\n", "#EXTM3U\n#EXTINF:0.4,\nsecret.ts\n#EXT-X-ENDLIST\n"]
)
def test_a_playlist_opens_no_other_file(text, bait):
    playlist, secret = bait
    playlist.write_text(text)
    with OpenWatch(secret) as watch:
        for call in (open_video, probe, read_audio, lambda p: open_video(p, backend="decord")):
            with pytest.raises(errors.PlaylistRefused):
                call(playlist)
        assert not watch.opened()


@linux
@pytest.mark.parametrize(
    ("kind", "text", "error"),
    [
        ("concat", "ffconcat version 1.0\nfile secret.ts\n", errors.CorruptMedia),
        ("hls", "#EXTM3U\n#EXTINF:0.4,\nsecret.ts\n", errors.PlaylistRefused),
    ],
)
def test_a_demuxer_that_wants_more_files_gets_none(kind, text, error, bait):
    """The second line of defence, with the first one (the content check) taken away."""
    playlist, secret = bait
    playlist.write_text(text)
    with OpenWatch(secret) as watch, playlist.open("rb", buffering=0) as handle:
        with pytest.raises(error):
            demux._open_container(handle, kind, playlist)
        assert not watch.opened()

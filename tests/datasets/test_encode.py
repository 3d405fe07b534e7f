"""Written videos: exact round trips, sound and picture together, whole or absent, same bytes for the same input."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from talkforge.core import errors
from talkforge.core.counters import Counters
from talkforge.datasets.audio import read_audio, write_wav
from talkforge.datasets.encode import VideoWriter, reencode_clip
from talkforge.datasets.video import open_video, probe
from talkforge.tests.media_factory import click, numbered, read_number, tone, write_clip


def frames_of(path):
    with open_video(path) as stream:
        return [frame for _, frame in stream]


def write(path, frames, **options):
    frames = list(frames)
    with VideoWriter(path, frames[0].shape[1], frames[0].shape[0], **options) as out:
        for frame in frames:
            out.write(frame)
    return path


def test_black_and_white_come_back_exactly(tmp_path):
    levels = [np.full((48, 64, 3), 255 * (i % 2), np.uint8) for i in range(6)]
    for wrote, read in zip(levels, frames_of(write(tmp_path / "a.mp4", levels)), strict=True):
        assert np.array_equal(wrote, read)


@pytest.mark.parametrize("rgb", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 90), (90, 160, 200)])
def test_colours_come_back(rgb, tmp_path):
    picture = np.broadcast_to(np.array(rgb, np.uint8), (48, 64, 3))
    for frame in frames_of(write(tmp_path / "a.mp4", [picture] * 3)):
        assert np.abs(frame.astype(int) - picture).max() <= 4


def test_the_file_says_how_its_colours_are_meant(tmp_path):
    path = write(tmp_path / "a.mp4", [numbered(i) for i in range(3)], audio=tone(0.12))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert context.pix_fmt == "yuv420p"
        sound = container.streams.audio[0]
        assert (sound.codec_context.name, sound.sample_rate, sound.channels) == ("aac", 16000, 1)
        assert "creation_time" not in container.metadata
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")


@pytest.mark.parametrize("fps", [25, 30, Fraction(30000, 1001), Fraction(25, 2)])
def test_rate_and_order(fps, tmp_path):
    path = write(tmp_path / "a.mp4", [numbered(i) for i in range(30)], fps=fps, audio=tone(3))
    with open_video(path) as stream:
        items = [(t, read_number(frame)) for t, frame in stream]
    assert items == [(pytest.approx(float(i / Fraction(fps))), i) for i in range(30)]
    assert not stream.repairs and stream.end == 30 / Fraction(fps)
    assert probe(path).start_s == 0


@pytest.mark.parametrize("at", [0, 7, 20, 48])
def test_flash_and_click_coincide(at, tmp_path, ffmpeg):
    frames = [np.full((64, 96, 3), 255 if i == at else 0, np.uint8) for i in range(50)]
    path = write(tmp_path / "a.mp4", frames, audio=click(2, at / 25))
    with open_video(path) as stream:
        flash = max(stream, key=lambda item: item[1].mean())[0]
    samples = np.abs(read_audio(path))
    assert np.argmax(samples > samples.max() / 3) / 16000 == pytest.approx(flash, abs=0.005)
    # And so does another decoder find it, which knows nothing of this package.
    raw = subprocess.run(
        [ffmpeg, "-v", "error", "-i", path, "-f", "f32le", "-"], capture_output=True, check=True
    ).stdout
    other = np.abs(np.frombuffer(raw, np.float32))
    assert np.argmax(other > other.max() / 3) / 16000 == pytest.approx(flash, abs=0.005)


@pytest.mark.parametrize("seconds", [0.0, 0.5, 2.0, 3.0])
def test_sound_is_as_long_as_the_picture(seconds, tmp_path):
    path = write(tmp_path / "a.mp4", [numbered(i) for i in range(50)], audio=tone(seconds) if seconds else tone(0))
    samples = read_audio(path)
    # AAC comes in blocks of 1024.
    assert 32000 <= len(samples) < 32000 + 1024
    loud = np.flatnonzero(np.abs(samples) > 0.05)
    assert (loud[-1] / 16000 if len(loud) else 0) == pytest.approx(min(seconds, 2.0), abs=0.07)


def test_no_sound_no_track(tmp_path):
    assert not probe(write(tmp_path / "a.mp4", [numbered(0)])).has_audio


def test_same_input_same_bytes(tmp_path):
    frames = [np.random.default_rng(i).integers(0, 256, (96, 128, 3), np.uint8) for i in range(12)]
    first, second = (write(tmp_path / name, frames, audio=tone(0.5)) for name in ("a.mp4", "b.mp4"))
    assert first.read_bytes() == second.read_bytes()
    # The encoder notes its settings; their number of threads would be that of the machine.
    assert b" threads=1 " in first.read_bytes()


def test_quality_follows_crf(tmp_path):
    rng = np.random.default_rng(0)
    frames = [(numbered(i, 192, 128) // 2 + rng.integers(0, 60, (128, 192, 3))).astype(np.uint8) for i in range(8)]

    def error(crf):
        back = frames_of(write(tmp_path / f"{crf}.mp4", frames, crf=crf))
        return np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(frames, back, strict=True)])

    assert error(0) < error(18) < error(40)
    assert (tmp_path / "18.mp4").stat().st_size > (tmp_path / "40.mp4").stat().st_size


@pytest.mark.parametrize("size", [(63, 64), (64, 63), (0, 64), (-2, 64)])
def test_odd_or_empty_sizes_are_refused(size, tmp_path):
    with pytest.raises(errors.ConfigError):
        VideoWriter(tmp_path / "a.mp4", *size)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("frame", [np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3), np.float32)])
def test_other_frames_are_refused_and_leave_nothing(frame, tmp_path):
    with pytest.raises(errors.ConfigError), VideoWriter(tmp_path / "a.mp4", 64, 64) as out:
        out.write(np.zeros((64, 64, 3), np.uint8))
        out.write(frame)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("written", [0, 1, 40])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_no_other(written, error, tmp_path):
    old = write(tmp_path / "a.mp4", [numbered(5)]).read_bytes()
    with pytest.raises(error), VideoWriter(tmp_path / "a.mp4", 96, 64, audio=tone(2)) as out:
        for i in range(written):
            out.write(numbered(i))
        raise error
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == old


def test_no_frame_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(errors.TooShort), VideoWriter(tmp_path / "a.mp4", 64, 64):
        pass
    assert not list(tmp_path.iterdir())


def test_nothing_shows_before_the_end(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 96, 64) as out:
        out.write(numbered(0))
        assert not (tmp_path / "a.mp4").exists()
        assert all(p.name.startswith(".") for p in tmp_path.iterdir())
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_missing_folder_is_an_input_error(tmp_path):
    with pytest.raises(errors.InputError):
        VideoWriter(tmp_path / "no" / "a.mp4", 64, 64)


@pytest.mark.parametrize("name", ["-a b.mp4", "file:é漢.mp4", "a\nb.mp4", "%d.mp4"])
def test_odd_names_are_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(name, [numbered(3)])
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_copy_keeps_every_slot_and_the_sound(tmp_path):
    source = write_clip(tmp_path / "a.mp4", 60, rate=30, audio=click(2, 1.2, 44100), audio_rate=44100)
    counters = Counters()
    assert reencode_clip(source, tmp_path / "b.mp4", counters=counters) == 50
    assert (counters.decodes, counters.frames_decoded) == (1, 60)
    numbers = [read_number(frame) for frame in frames_of(tmp_path / "b.mp4")]
    assert numbers == [min(-((-(2 * k + 1) * 30) // 50) - 1, 59) for k in range(50)]
    samples = np.abs(read_audio(tmp_path / "b.mp4"))
    assert np.argmax(samples > samples.max() / 3) / 16000 == pytest.approx(1.2, abs=0.005)


def test_a_piece_is_cut_to_the_frame_with_its_sound(tmp_path):
    source = write_clip(tmp_path / "a.mp4", 75, audio=click(3, 1.8))
    assert reencode_clip(source, tmp_path / "b.mp4", start_s=1.0, end_s=2.0) == 25
    assert [read_number(frame) for frame in frames_of(tmp_path / "b.mp4")] == list(range(25, 50))
    samples = np.abs(read_audio(tmp_path / "b.mp4"))
    assert np.argmax(samples > samples.max() / 3) / 16000 == pytest.approx(0.8, abs=0.005)


def test_sound_from_beside_and_none_at_all(tmp_path):
    source = write_clip(tmp_path / "a.mp4", 25)
    reencode_clip(source, tmp_path / "b.mp4")
    assert not probe(tmp_path / "b.mp4").has_audio
    write_wav(tmp_path / "a.wav", click(1, 0.4))
    reencode_clip(source, tmp_path / "c.mp4")
    samples = np.abs(read_audio(tmp_path / "c.mp4"))
    assert np.argmax(samples > samples.max() / 3) / 16000 == pytest.approx(0.4, abs=0.005)


def test_size_and_odd_sources(tmp_path):
    odd = write_clip(tmp_path / "a.mkv", (numbered(i, 97, 65) for i in range(5)), codec="ffv1", pix_fmt="yuv444p")
    reencode_clip(odd, tmp_path / "b.mp4")
    info = probe(tmp_path / "b.mp4")
    assert (info.width, info.height) == (96, 64)
    reencode_clip(odd, tmp_path / "c.mp4", size=(192, 128))
    assert frames_of(tmp_path / "c.mp4")[4].shape == (128, 192, 3)
    assert [read_number(frame) for frame in frames_of(tmp_path / "c.mp4")] == list(range(5))


@pytest.mark.parametrize(("start", "end"), [(-1, None), (1, 1), (0.5, 0.2)])
def test_impossible_pieces_are_refused(start, end, tmp_path):
    with pytest.raises(errors.ConfigError):
        reencode_clip(write_clip(tmp_path / "a.mp4", 25), tmp_path / "b.mp4", start_s=start, end_s=end)


def test_a_piece_behind_the_end_is_too_short(tmp_path):
    with pytest.raises(errors.TooShort):
        reencode_clip(write_clip(tmp_path / "a.mp4", 25, audio=tone(1)), tmp_path / "b.mp4", start_s=5)
    assert not (tmp_path / "b.mp4").exists()


def test_a_broken_source_leaves_nothing(tmp_path):
    source = write_clip(tmp_path / "a.mp4", (numbered(i, 192, 128) for i in range(50)))
    source.write_bytes(source.read_bytes()[:-400])
    with pytest.raises(errors.TruncatedMedia):
        reencode_clip(source, tmp_path / "b.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_the_same_pictures_give_the_same_bytes(sample_clips: Path, tmp_path: Path) -> None:
    """At a size and preset where the encoder's AVX-512 code gave up to six results."""
    with open_video(sample_clips / "test-movie-1.mp4") as stream:
        frames = [np.ascontiguousarray(frame[16:272, 128:224]) for _, frame in stream]
    found = set()
    for _ in range(6):
        with VideoWriter(tmp_path / "out.mp4", 96, 256) as out:
            for frame in frames:
                out.write(frame)
        found.add((tmp_path / "out.mp4").read_bytes())
    assert len(found) == 1

"""Sound at 16 kHz on the picture's clock: where a click lands, loudness, channels, lengths, failures."""

from __future__ import annotations

import wave

import av
import numpy as np
import pytest
from talkforge.core import errors
from talkforge.datasets.audio import (
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    find_audio,
    has_audio,
    is_silent,
    read_audio,
    write_wav,
)
from talkforge.datasets.video import open_video
from talkforge.tests.media_factory import click, tone, write_clip, write_sound


def onset(samples: np.ndarray) -> float:
    """Seconds at which the signal first reaches a third of its peak."""
    level = np.abs(samples)
    return float(np.argmax(level > level.max() / 3)) / SAMPLE_RATE


def test_frame_and_sample_clocks_fit():
    assert SAMPLES_PER_FRAME == 640 and SAMPLES_PER_FRAME * 25 == SAMPLE_RATE


LOSSLESS = [("a.wav", "pcm_s16le"), ("a.flac", "flac")]
LOSSY = [("a.m4a", "aac"), ("a.mp3", "libmp3lame"), ("a.opus", "libopus")]


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize(("name", "codec"), LOSSLESS)
def test_a_click_stays_in_its_place(name, codec, rate, tmp_path):
    path = write_sound(tmp_path / name, click(2, 0.75, rate), rate=rate, codec=codec)
    samples = read_audio(path)
    assert samples.dtype == np.float32 and samples.ndim == 1 and len(samples) == pytest.approx(2 * SAMPLE_RATE, abs=2)
    assert onset(samples) == pytest.approx(0.75, abs=0.001)


@pytest.mark.parametrize(("name", "codec"), LOSSY)
def test_encoder_delay_is_taken_off(name, codec, tmp_path):
    rate = 48000
    path = write_sound(tmp_path / name, click(2, 0.75, rate), rate=rate, codec=codec)
    assert onset(read_audio(path)) == pytest.approx(0.75, abs=0.005)


def test_a_bare_aac_stream_keeps_its_encoders_delay(tmp_path):
    """ADTS has no place to say how long the delay is; the usual one is a block of 1024."""
    path = write_sound(tmp_path / "a.aac", click(2, 0.75, 48000), rate=48000, codec="aac")
    assert onset(read_audio(path)) == pytest.approx(0.75 + 1024 / 48000, abs=0.005)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("a.mkv", {}),
        ("a.ts", {"format": "mpegts"}),
        ("a.flv", {"codec": "flv"}),
        ("a.avi", {"codec": "mpeg4", "audio_codec": "pcm_s16le"}),
        ("a.mpg", {"codec": "mpeg1video", "format": "mpeg", "audio_codec": "mp2"}),
        ("a.webm", {"codec": "libvpx", "audio_codec": "libopus"}),
    ],
)
def test_flash_and_click_coincide_in_every_container(name, options, tmp_path):
    frames = [np.full((64, 96, 3), 255 if i == 20 else 0, np.uint8) for i in range(50)]
    path = write_clip(tmp_path / name, frames, audio=click(2, 0.8, 48000), audio_rate=48000, **options)
    with open_video(path) as stream:
        flash = max(stream, key=lambda item: item[1].mean())[0]
    assert flash == pytest.approx(0.8, abs=0.001)
    assert onset(read_audio(path)) == pytest.approx(flash, abs=0.005)


@pytest.mark.parametrize("offset", [3, 25])
def test_sound_before_the_first_picture_is_cut_off(offset, tmp_path):
    path = write_clip(tmp_path / "a.mkv", 50, ticks=range(offset, 50 + offset), audio=click(3, 1.5))
    assert onset(read_audio(path)) == pytest.approx(1.5 - offset / 25, abs=0.005)
    assert onset(read_audio(path, align_to_video=False)) == pytest.approx(1.5, abs=0.005)


def test_a_later_start_of_the_sound_is_silence(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 50, audio=click(1, 0.3), audio_start=0.7)
    samples = read_audio(path)
    assert onset(samples) == pytest.approx(1.0, abs=0.005)
    assert not samples[: int(0.6 * SAMPLE_RATE)].any()
    # Unaligned, the encoder's delay of 1024 samples stays: an edit list that starts later has no room for it.
    assert onset(read_audio(path, align_to_video=False)) == pytest.approx(0.3, abs=0.07)


def test_a_hole_in_the_sound_keeps_its_length(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as out:
        sound = out.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for at in (0, 16000, 48000, 64000):  # nothing from 2 s to 3 s
            frame = av.AudioFrame.from_ndarray((tone(1) * 30000).astype(np.int16)[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = SAMPLE_RATE, at
            out.mux(sound.encode(frame))
    samples = read_audio(path)
    assert len(samples) == 5 * SAMPLE_RATE
    assert not samples[2 * SAMPLE_RATE + 1 : 3 * SAMPLE_RATE - 1].any() and samples[3 * SAMPLE_RATE + 10] != 0


def test_level_is_kept_and_channels_are_averaged(tmp_path):
    wave_form = tone(1, level=0.5)
    mono = read_audio(write_sound(tmp_path / "a.wav", wave_form, codec="pcm_s16le"))
    assert np.abs(mono - wave_form).max() < 2 / 32768
    stereo = np.stack([wave_form, np.zeros_like(wave_form)])
    assert np.abs(read_audio(write_sound(tmp_path / "b.wav", stereo, codec="pcm_s16le")) - wave_form / 2).max() < 1e-4
    six = np.stack([wave_form] + [np.zeros_like(wave_form)] * 5)
    assert np.abs(read_audio(write_sound(tmp_path / "c.wav", six, codec="pcm_s16le")) - wave_form / 6).max() < 1e-4


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_alaw"])
def test_sample_formats(codec, tmp_path):
    wave_form = tone(0.5, level=0.5)
    samples = read_audio(write_sound(tmp_path / "a.wav", wave_form, codec=codec))
    assert np.abs(samples - wave_form).max() < {"pcm_u8": 1 / 100, "pcm_alaw": 1 / 40}.get(codec, 1 / 32768)


def test_resampling_keeps_the_tone_and_removes_what_does_not_fit(tmp_path):
    rate = 48000
    keep, lose = tone(2, rate, 1000, 0.4), tone(2, rate, 12000, 0.4)
    path = write_sound(tmp_path / "a.wav", keep + lose, rate=rate, codec="pcm_s16le")
    samples = read_audio(path)[SAMPLE_RATE // 4 : -SAMPLE_RATE // 4]
    expected = tone(2, SAMPLE_RATE, 1000, 0.4)[SAMPLE_RATE // 4 : -SAMPLE_RATE // 4]
    assert np.abs(samples - expected).max() < 1e-3


def test_no_track_is_not_silence(tmp_path):
    mute = write_clip(tmp_path / "mute.mp4", 10)
    silent = write_clip(tmp_path / "silent.mp4", 10, audio=np.zeros(6400, np.float32))
    assert not has_audio(mute) and has_audio(silent)
    with pytest.raises(errors.NoAudioTrack) as caught:
        read_audio(mute)
    assert caught.value.reason == "no_audio"
    assert is_silent(read_audio(silent))


@pytest.mark.parametrize("decibel", [-50.0, -59.0, -61.0, -80.0])
def test_silence_threshold_is_in_rms_of_full_scale(decibel):
    level = np.sqrt(2) * 10 ** (decibel / 20)
    assert is_silent(tone(1, level=level)) == (decibel < -60)
    assert is_silent(tone(1, level=level), threshold_db=-55) == (decibel < -55)


def test_one_word_is_not_silence_and_one_sample_is():
    word = np.zeros(160_000, np.float32)
    word[80_000:81_600] = 0.01
    assert not is_silent(word)
    dot = np.zeros(160_001, np.float32)
    dot[-1] = 0.02
    assert is_silent(dot)
    assert is_silent(np.zeros(0, np.float32)) and is_silent(np.zeros(100, np.float32))


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.m4a"])
def test_cut_sound_is_truncated(name, tmp_path):
    codec = {"a.wav": "pcm_s16le", "a.flac": "flac", "a.m4a": "aac"}[name]
    path = write_sound(tmp_path / name, np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32), codec=codec)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises((errors.TruncatedMedia, errors.CorruptMedia)):
        read_audio(path)


def test_sound_that_ends_at_a_packets_border_is_truncated(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32)
    path = write_clip(tmp_path / "a.mp4", 10, audio=noise, container_options={"movflags": "+faststart"})
    with av.open(str(path)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(audio=0) if packet.size]
    path.write_bytes(path.read_bytes()[: ends[-5]])
    with pytest.raises(errors.TruncatedMedia, match="its header says"):
        read_audio(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"#EXTM3U\n", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_what_is_no_sound(content, tmp_path):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(errors.MediaError):
        read_audio(tmp_path / "a.wav")


def test_wav_round_trip_is_exact(tmp_path):
    samples = (np.arange(-32768, 32768) / 32768).astype(np.float32)
    write_wav(tmp_path / "a.wav", samples)
    assert np.array_equal(read_audio(tmp_path / "a.wav"), samples)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SAMPLE_RATE)
    write_wav(tmp_path / "b.wav", np.array([2.0, -2.0, 1.0]))
    assert read_audio(tmp_path / "b.wav").tolist() == pytest.approx([32767 / 32768, -1, 32767 / 32768])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "b.wav"]


def test_wav_is_whole_or_absent(tmp_path):
    write_wav(tmp_path / "a.wav", tone(0.1))
    before = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(ValueError, match="could not convert"):
        write_wav(tmp_path / "a.wav", ["no number"])
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"] and (tmp_path / "a.wav").read_bytes() == before


def test_sound_beside_the_video(tmp_path):
    video = tmp_path / "a.b.mp4"
    assert find_audio(video) is None
    for name in ("a.b.m4a", "a.b.WAV", "a.wav", "ab.wav", "a.b.txt"):
        (tmp_path / name).touch()
    assert find_audio(video) == tmp_path / "a.b.WAV"
    (tmp_path / "a.b.WAV").unlink()
    assert find_audio(str(video)) == tmp_path / "a.b.m4a"

"""Speech by Silero VAD: parity with the package, closed forms of frames and segments, and what has no speech."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from talkforge.core.counters import Counters
from talkforge.core.errors import MissingPackage, NoAudioTrack, TooShort, WeightsCorrupt
from talkforge.datasets.audio import read_audio
from talkforge.tasks import extract_vad
from talkforge.tasks.extract_vad import (
    VAD,
    VoiceActivity,
    frame_probabilities,
    load_silero,
    speech_segments,
    window_probabilities,
)
from talkforge.tasks.extractor import Context
from talkforge.tests.tasks.one_row import extract, extract_counted, sample

WINDOW = 512


def need_package() -> None:
    pytest.importorskip("silero_vad", reason="needs the package silero-vad")


def speech_of(audio: np.ndarray) -> tuple[dict, Counters]:
    need_package()
    context = Context("cpu", Counters(), audio)
    return VoiceActivity(VAD, context).finish(), context.counters


CLIPS = (
    "whisper/jfk.flac",
    "sadtalker/RD_Radio31_000.wav",
    "videoretalking/1.mp4",
    "pkg_psychopy/testMovie.mp4",
    "pyfeat/single_face.mp4",
    "latentsync/demo2_video.mp4",
)


@pytest.mark.parametrize("name", CLIPS)
def test_probabilities_and_segments_are_the_packages(media: Path, name: str) -> None:
    """The package's own loop over its own wrapper of the network, and its own segmentation."""
    need_package()
    import silero_vad
    import torch

    audio = read_audio(media / name)[: 12 * 16000 + 77]
    reference = silero_vad.load_silero_vad()
    wanted = silero_vad.get_speech_timestamps(torch.from_numpy(audio), reference, sampling_rate=16000)
    windows = window_probabilities(load_silero(), audio)
    assert speech_segments(windows, len(audio)).tolist() == [[one["start"], one["end"]] for one in wanted]

    reference.reset_states()
    padded = np.pad(audio, (0, -len(audio) % WINDOW)).reshape(-1, WINDOW)
    with torch.inference_mode():
        probabilities = [reference(torch.from_numpy(window), 16000).item() for window in padded]
    np.testing.assert_allclose(windows, probabilities, atol=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_any_probabilities_are_cut_as_the_package_cuts_them(seed: int) -> None:
    """Speech and pauses of all lengths, also at both ends, with values between the two thresholds."""
    need_package()
    from silero_vad import get_speech_timestamps_from_probs

    rng = np.random.default_rng(seed)
    runs = rng.integers(1, 3 + 4 * (seed % 4), 60)
    windows = np.repeat(rng.choice([0.1, 0.349, 0.35, 0.45, 0.5, 0.9], 60), runs)
    n_samples = len(windows) * WINDOW - int(rng.integers(0, WINDOW))
    wanted = get_speech_timestamps_from_probs(windows.tolist(), audio_length_samples=n_samples)
    found = speech_segments(windows, n_samples)
    assert found.tolist() == [[one["start"], one["end"]] for one in wanted]


def test_a_segment_by_hand() -> None:
    """Windows 10..19 speak: samples 5120..10240, 30 ms more on both sides."""
    windows = np.zeros(40)
    windows[10:20] = 0.9
    assert speech_segments(windows, 40 * WINDOW).tolist() == [[5120 - 480, 10240 + 480]]
    windows[17:20] = 0.0  # 7 windows are 224 ms, not more than 250
    assert speech_segments(windows, 40 * WINDOW).tolist() == []
    assert speech_segments(np.zeros(40), 40 * WINDOW).shape == (0, 2)


def test_a_frame_is_the_mean_over_its_40_ms() -> None:
    """Window k covers k * 32 ms, frame k k * 40 ms: frame 0 is 32 of window 0 and 8 of window 1."""
    windows = np.array([1.0, 0.0, 0.5, 0.25, 0.75])
    wanted = [32 / 40, (0 * 24 + 0.5 * 16) / 40, (0.5 * 16 + 0.25 * 24) / 40, (0.25 * 8 + 0.75 * 32) / 40]
    found = frame_probabilities(windows, 5 * WINDOW)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-7)
    assert frame_probabilities(windows, 5 * WINDOW - 1).shape == (3,), "only whole frames"
    np.testing.assert_allclose(frame_probabilities(np.full(40, 0.3), 40 * WINDOW), 0.3, atol=1e-7)


def test_a_speech_is_speech_and_its_pauses_are_none(media: Path) -> None:
    row, counters = speech_of(read_audio(media / "whisper/jfk.flac"))
    assert counters.forwards == {"vad-silero": -(-row["n_samples"] // WINDOW)}
    assert len(row["probability"]) == 275
    spoken = (row["end_s"] - row["start_s"]).sum() / 11
    assert 0.6 < spoken < 0.9
    frames = np.arange(275) / 25 + 0.02
    inside = ((frames[:, None] > row["start_s"]) & (frames[:, None] < row["end_s"])).any(axis=1)
    assert row["probability"][inside].mean() > 0.85 > 0.25 > row["probability"][~inside].mean()


def test_a_tone_noise_and_silence_are_no_speech() -> None:
    seconds = np.arange(3 * 16000) / 16000
    tone = (0.3 * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 0.05, len(tone)).astype(np.float32)
    for audio in (tone, noise, np.zeros_like(tone)):
        row, _ = speech_of(audio)
        assert row["start_s"].shape == row["end_s"].shape == (0,)
        assert row["probability"].max() < 0.5


def test_a_clip_answers_the_same_whatever_was_heard_before(media: Path) -> None:
    audio = read_audio(media / "whisper/jfk.flac")[: 3 * 16000]
    first, _ = speech_of(audio)
    speech_of(read_audio(media / "sadtalker/RD_Radio31_000.wav")[: 2 * 16000])
    again, _ = speech_of(audio)
    np.testing.assert_array_equal(first["probability"], again["probability"])


def test_rows_are_stored_and_a_silent_track_has_no_speech() -> None:
    need_package()
    row, work = extract_counted("vad-silero", sample("jfk"))
    assert row.reason is None and work.frames_decoded == 0
    assert row.array("end_s")[-1] <= row.value("n_samples") / 16000
    silent = extract("vad-silero", sample("wolfgang-langer"))
    assert silent.reason is None, "silence is known to hold no speech"
    assert silent.array("start_s").shape == (0,)
    assert silent.array("probability").max() < 0.1


def test_without_sound_there_is_no_row() -> None:
    with pytest.raises(TooShort):
        speech_of(np.zeros(639, np.float32))
    error = NoAudioTrack("a.mp4 has no sound")
    with pytest.raises(NoAudioTrack) as caught:
        VoiceActivity(VAD, Context("cpu", Counters(), error)).finish()
    assert caught.value is error


def test_an_absent_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_vad, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="silero-vad is not installed") as caught:
        load_silero()
    assert caught.value.hint == "pip install silero-vad==6.2.3"


def test_another_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    need_package()
    monkeypatch.setattr(extract_vad, "MODEL_SHA256", "0" * 64)
    with pytest.raises(WeightsCorrupt, match="another model"):
        load_silero()


def test_the_package_itself_is_not_imported(media: Path) -> None:
    """It would set torch's threads for the whole process, and may want torchaudio."""
    need_package()
    code = "import sys; from talkforge.tasks.extract_vad import load_silero; load_silero(); "
    code += "sys.exit(bool({'silero_vad', 'torchaudio'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

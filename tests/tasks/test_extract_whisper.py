"""Whisper rows: length, blocks, float16 layout, and what happens without sound."""

from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.errors import WeightsMissing
from talkforge.datasets.audio import read_audio, write_wav
from talkforge.models.whisper_encoder import AudioEncoder, blocks_of, load_tiny_en, log_mel
from talkforge.tasks.extractor import extractors
from talkforge.tests.tasks.one_row import extract, extract_counted, sample

TINY = "whisper-tiny-en"


@pytest.fixture(scope="module")
def tiny() -> AudioEncoder:
    try:
        return load_tiny_en()
    except WeightsMissing as error:
        pytest.skip(str(error))


def words(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(7)
    t = np.arange(round(seconds * 16000)) / 16000
    return (0.2 * np.sin(2 * np.pi * (200 + 100 * np.sin(t)) * t) + 0.01 * rng.standard_normal(len(t))).astype("f4")


def test_a_real_clip_has_two_steps_a_frame_as_the_network_gives_them(tiny: AudioEncoder) -> None:
    speech = sample("jfk")
    row, counters = extract_counted(TINY, speech)
    samples = read_audio(speech)
    states = row.array("states")
    assert states.dtype == np.float16
    assert states.shape == (2 * (len(samples) // 640), 5 * 384) == (550, 1920)
    assert row.value("n_frames") == 275
    assert counters.forwards == {TINY: 1}
    with torch.inference_mode():
        whole = tiny(log_mel(torch.from_numpy(blocks_of(samples, 1))))[0].numpy()
    error = np.abs(states.reshape(550, 5, 384).astype(np.float32) - whole[:550])
    assert (error <= 0.0006 * np.abs(whole[:550]) + 1e-3).all()  # half a step of float16


@pytest.mark.parametrize(("seconds", "steps", "blocks"), [(1.0, 50, 1), (30.0, 1500, 1), (30.02, 1500, 1)])
def test_length_and_blocks(seconds: float, steps: int, blocks: int, tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", words(seconds))
    row, counters = extract_counted(TINY, tmp_path / "a.wav")
    assert row.reason is None
    assert row.array("states").shape == (steps, 1920)
    assert counters.forwards[TINY] == blocks


def test_each_block_of_a_long_clip_is_encoded_on_its_own(tmp_path: Path) -> None:
    long = words(65.0)
    write_wav(tmp_path / "long.wav", long)
    write_wav(tmp_path / "end.wav", long[60 * 16000 :])
    row, counters = extract_counted(TINY, tmp_path / "long.wav")
    states = row.array("states").astype(np.float32)
    assert states.shape == (3250, 1920)
    assert counters.forwards[TINY] == 3
    end = extract(TINY, tmp_path / "end.wav").array("states").astype(np.float32)
    assert np.abs(states[3000:] - end).max() < 0.02


def test_silence_is_sound(tmp_path: Path) -> None:
    write_wav(tmp_path / "still.wav", np.zeros(16000, np.float32))
    row = extract(TINY, tmp_path / "still.wav")
    assert row.reason is None
    assert np.isfinite(row.array("states")).all()


def test_no_sound_has_a_reason(tmp_path: Path) -> None:
    write_wav(tmp_path / "short.wav", words(0.03))
    assert extract(TINY, tmp_path / "short.wav").reason == "too_short"
    row = extract(TINY, sample("carphone"))
    assert row.reason == "no_audio"


def test_width_and_model_are_part_of_the_rows_identity() -> None:
    for name, width in (("whisper-tiny-en", 5 * 384), ("whisper-tiny", 5 * 384), ("whisper-base", 7 * 512)):
        spec = extractors.get(name)
        assert spec.columns["states"].value_type.list_size == width
        assert spec.params["states"] * spec.params["width"] == width
        assert spec.params["model"] == name
        assert len(spec.weights) == 1


def test_base_is_wider() -> None:
    assert extract("whisper-base", sample("jfk")).array("states").shape == (550, 7 * 512)

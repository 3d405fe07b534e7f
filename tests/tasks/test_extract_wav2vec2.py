"""wav2vec2 rows by the base network with random weights out of the store: length, numbers, no sound, generation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from talkforge.core.errors import WeightsError, WeightsMissing
from talkforge.core.hashing import file_sha256
from talkforge.core.weights import CONFIGS, weights_store
from talkforge.datasets.audio import write_wav
from talkforge.datasets.video import open_video
from talkforge.flows.generate import generate_one, open_method
from talkforge.models.mf_etalk.config import AudioConfig
from talkforge.models.mf_etalk.model import MfEtalk
from talkforge.models.wav2vec2 import BASE_960H, Wav2Vec2, load_base_960h, normalised
from talkforge.tasks import extractor
from talkforge.tasks.extract_wav2vec2 import NAME
from talkforge.tasks.faces import LANDMARKER
from talkforge.tasks.generate_mf_etalk import MfEtalkMaker
from talkforge.tasks.recipe import column_name
from talkforge.tests.dice_runs import write_training
from talkforge.tests.media_factory import write_clip
from talkforge.tests.models.dice_talk_cases import needs_diffusers
from talkforge.tests.models.test_mf_cases import awake, small
from talkforge.tests.tasks.one_row import extract_counted

WIDTH = 12 * 768


def forget_networks() -> None:
    """Networks that the process keeps; the random one must not be taken for the published one, or the reverse."""
    extractor._loaded.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with random weights under the published file's names, placed by hand and declared by their own hash."""
    folder = tmp_path_factory.mktemp("store")
    path = folder / weights_store().spec(BASE_960H).file
    path.parent.mkdir(parents=True)
    save_file(random_file(), path)
    text = (CONFIGS / "weights.yaml").read_text(encoding="utf-8")
    declared = text.replace(weights_store().sha256(BASE_960H), file_sha256(path))
    (folder / "weights.yaml").write_text(declared, encoding="utf-8")
    (folder / "samples.yaml").write_bytes((CONFIGS / "samples.yaml").read_bytes())
    try:
        landmarker = weights_store().path(LANDMARKER)
        there = folder / weights_store().spec(LANDMARKER).file
        there.parent.mkdir()
        there.write_bytes(landmarker.read_bytes())
    except WeightsError:
        pass  # the test that needs it skips
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("talkforge.core.weights.CONFIGS", folder)
        patch.setenv("TALKFORGE_WEIGHTS", str(folder))
        patch.setenv("TALKFORGE_CACHE", str(folder / "cache"))
        forget_networks()
        yield folder
        forget_networks()
    path.unlink()  # 189 MB, which pytest would keep


def random_file() -> dict[str, torch.Tensor]:
    """Halves under the published names, with the head for letters and the mask."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Wav2Vec2().state_dict().items()}
    draw = torch.Generator().manual_seed(2)
    state = {}
    for name, shape in shapes.items():
        bound = 0.1 if len(shape) == 1 else (3 / shape[1:].numel()) ** 0.5
        drawn = torch.empty(shape).uniform_(-bound, bound, generator=draw)
        state[f"wav2vec2.{name}"] = (drawn + name.endswith("norm.weight")).half()
    return state | {"lm_head.weight": torch.zeros(32, 768), "wav2vec2.masked_spec_embed": torch.zeros(768)}


def words(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(7)
    t = np.arange(round(seconds * 16000)) / 16000
    return (0.2 * np.sin(2 * np.pi * (200 + 100 * np.sin(t)) * t) + 0.01 * rng.standard_normal(len(t))).astype("f4")


def test_a_frame_has_twelve_states_as_the_network_gives_them(tmp_path: Path) -> None:
    """1.05 s are 26 whole frames; the rest is not heard."""
    samples = np.round(words(1.05) * 32767).astype(np.int16).astype(np.float32) / 32768  # as a wav file holds it
    write_wav(tmp_path / "a.wav", samples)
    row, counters = extract_counted(NAME, tmp_path / "a.wav", fresh=tmp_path)
    states = row.array("states")
    assert (states.dtype, states.shape, row.value("n_frames")) == (np.float16, (26, WIDTH), 26)
    assert counters.forwards == {NAME: 1}
    with torch.inference_mode():
        wanted = load_base_960h()(torch.from_numpy(normalised(samples[: 26 * 640]))[None], 26)[0].numpy()
    error = np.abs(states.reshape(26, 12, 768).astype(np.float32) - wanted)
    assert (error <= 0.0006 * np.abs(wanted) + 3e-3).all()  # half a step of float16, and the file's own rounding
    assert wanted.std() > 0.3 and np.abs(np.diff(wanted, axis=0)).mean() > 0.01


def test_loudness_is_not_heard(tmp_path: Path) -> None:
    rows = []
    for level in (1.0, 0.1):
        write_wav(tmp_path / f"{level}.wav", level * words(0.4))
        rows.append(extract_counted(NAME, tmp_path / f"{level}.wav", fresh=tmp_path)[0].array("states").astype("f4"))
    assert np.abs(rows[0] - rows[1]).mean() < 0.02 * rows[0].std()


def test_silence_is_sound(tmp_path: Path) -> None:
    write_wav(tmp_path / "still.wav", np.zeros(3200, np.float32))
    row, _ = extract_counted(NAME, tmp_path / "still.wav", fresh=tmp_path)
    assert row.reason is None and row.array("states").shape == (5, WIDTH)
    assert np.isfinite(row.array("states")).all()


def test_no_sound_has_a_reason(tmp_path: Path) -> None:
    write_wav(tmp_path / "short.wav", words(0.03))
    assert extract_counted(NAME, tmp_path / "short.wav", fresh=tmp_path)[0].reason == "too_short"
    mute = write_clip(tmp_path / "mute.mp4", 5)
    assert extract_counted(NAME, mute, fresh=tmp_path)[0].reason == "no_audio"


def test_weights_that_are_not_there_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALKFORGE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissing, match=f"{BASE_960H} is not in the store") as caught:
        load_base_960h()
    assert caught.value.reason == "weights_missing"
    assert caught.value.hint == f"get it with: talkforge weights pull {BASE_960H}"


@needs_diffusers
def test_a_training_that_heard_it_makes_a_video(portrait: Path, tmp_path: Path) -> None:
    try:
        weights_store().path(LANDMARKER)
    except WeightsError as error:
        pytest.skip(str(error))
    column = column_name(extractor.extractors.get(NAME), "states")
    config = replace(small(), audio=AudioConfig(kind="wav2vec2", hidden=16, tokens=4, width=64))
    torch.manual_seed(0)
    settings: dict[str, Any] = {"model": asdict(config), "audio_column": column, "stage": "motion"}
    run = write_training(tmp_path / "run", "mf-etalk", "nowhere", settings, awake(MfEtalk(config)), 3)
    given = ("steps=2", "guidance.reference=1", "guidance.conditions=1", "crop=dice-square", "device=cpu")
    write_wav(tmp_path / "a.wav", words(0.54))
    ready = open_method("mf-etalk", [*given, "neutral=zero"], run=run)
    assert isinstance(ready.make, MfEtalkMaker)
    states = ready.make.states_of(tmp_path / "a.wav", 13)
    row, _ = extract_counted(NAME, tmp_path / "a.wav", fresh=tmp_path)
    assert states.shape == (13, 12, 768) and np.array_equal(states.reshape(13, WIDTH), row.array("states"))
    generate_one("mf-etalk", tmp_path / "a.mp4", portrait, tmp_path / "a.wav", None, opened=ready)
    with open_video(tmp_path / "a.mp4") as stream:
        assert np.stack([frame for _, frame in stream]).shape == (13, 256, 256, 3)
    assert ready.identity["networks"][BASE_960H] == weights_store().sha256(BASE_960H)

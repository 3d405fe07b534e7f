"""Whisper's encoder and log-mel against openai-whisper on the same weights, and against numbers it once gave."""

import json
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from talkforge.core.errors import InputError, WeightsError, WeightsMissing
from talkforge.core.weights import weights_store
from talkforge.models.ctranslate2 import read_ctranslate2
from talkforge.models.whisper_encoder import (
    AudioEncoder,
    blocks_of,
    load_encoder,
    log_mel,
    mel_filters,
    read_encoder,
    state_of_ctranslate2,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "whisper.json").read_text(encoding="utf-8"))
TINY, BASE = "whisper-tiny-en-ct2", "whisper-base-ct2"
needs_whisper = pytest.mark.skipif(find_spec("whisper") is None, reason="openai-whisper is not installed")


def load(name: str) -> AudioEncoder:
    try:
        return load_encoder(name)
    except WeightsMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def tiny() -> AudioEncoder:
    return load(TINY)


def chirp(seconds: float) -> np.ndarray:
    """What the golden numbers were made from: a rising tone and, after a second, a high one."""
    t = np.arange(round(16000 * seconds)) / 16000
    high = 0.1 * np.sin(2 * np.pi * 3000 * t) * (t > 1)
    return (0.3 * np.sin(2 * np.pi * (120 * t + 400 * t**2)) + high).astype(np.float32)


def speechlike(seconds: float) -> np.ndarray:
    """Noise whose loudness and colour change several times a second."""
    rng = np.random.default_rng(3)
    t = np.arange(round(16000 * seconds)) / 16000
    voice = sum(np.sin(2 * np.pi * k * 110 * t + np.sin(2 * np.pi * 0.7 * t)) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 2.3 * t), 0, 1) * np.clip(np.sin(2 * np.pi * 0.31 * t) + 0.5, 0, 1)
    return (0.1 * voice * syllables + 0.003 * rng.standard_normal(len(t))).astype(np.float32)


def mel_of(samples: np.ndarray, steps: int) -> torch.Tensor:
    return log_mel(torch.from_numpy(blocks_of(samples, steps)))


class Theirs:
    """openai-whisper's own encoder, filled with our tensors; its blocks are watched by hooks."""

    def __init__(self, ours: AudioEncoder, dtype: torch.dtype = torch.float32) -> None:
        from whisper.model import AudioEncoder as Official

        heads = ours.width // 64
        self.network = Official(80, 1500, ours.width, heads, ours.layers).eval()
        self.network.load_state_dict(ours.state_dict(), strict=True)
        self.network.to(dtype)
        for module in self.network.modules():
            if isinstance(module, torch.nn.LayerNorm):  # theirs always computes in float32
                module.__class__ = torch.nn.LayerNorm

    def __call__(self, mel: torch.Tensor) -> torch.Tensor:
        states: list[torch.Tensor] = []
        first = self.network.blocks[0].register_forward_pre_hook(lambda _, given: states.append(given[0]))
        hooks = [block.register_forward_hook(lambda _, __, out: states.append(out)) for block in self.network.blocks]
        end = self.network(mel)
        for hook in (first, *hooks):
            hook.remove()
        return torch.stack([*states[:-1], end], dim=2)


class TestAgainstOpenaiWhisper:
    @needs_whisper
    def test_mel_filters(self) -> None:
        from whisper.audio import mel_filters as theirs

        assert (mel_filters() - theirs("cpu", 80)).abs().max() < 1e-7

    @needs_whisper
    @pytest.mark.parametrize("seconds", [1.0, 30.0, 65.0])
    def test_log_mel(self, seconds: float) -> None:
        from whisper.audio import log_mel_spectrogram, pad_or_trim

        samples = speechlike(seconds)
        ours = mel_of(samples, round(seconds * 50))
        for k, mel in enumerate(ours):
            block = pad_or_trim(torch.from_numpy(samples[k * 480000 : (k + 1) * 480000]))
            assert (mel - log_mel_spectrogram(block)).abs().max() < 1e-5

    @needs_whisper
    def test_every_hidden_state_in_double_precision(self, tiny: AudioEncoder) -> None:
        """Where rounding plays no part the two are the same function."""
        mel = mel_of(speechlike(4.0), 200).double()
        double = AudioEncoder(4, 384).double().eval()
        double.load_state_dict(tiny.state_dict())
        with torch.inference_mode():
            assert (double(mel) - Theirs(tiny, torch.float64)(mel)).abs().max() < 1e-9

    @needs_whisper
    @pytest.mark.parametrize("name", [TINY, BASE])
    def test_sound_to_every_hidden_state_in_single_precision(self, name: str) -> None:
        """Front end and encoder of each. Given the same mel the two encoders agree to the bit here; the mels differ by
        1e-7, and massive activations (600 and more) in the last block make the last state ill-conditioned: either one
        is up to 3e-3 from its own float64 run there, less than float16 can tell."""
        from whisper.audio import log_mel_spectrogram

        ours, samples = load(name), speechlike(30.0)
        with torch.inference_mode():
            theirs = Theirs(ours)(log_mel_spectrogram(torch.from_numpy(samples))[None])
            difference = (ours(mel_of(samples, 1500)) - theirs).abs().amax(dim=(0, 1, 3))
        largest = theirs.abs().amax(dim=(0, 1, 3))  # up to 500 in base
        assert difference[:3].max() < 1e-4
        assert (difference / largest).max() < 5e-4


class TestAgainstGoldenNumbers:
    def test_mel(self) -> None:
        mel = mel_of(chirp(2.0), 100)[0]
        for band, frame, value in GOLDEN["mel"]["values"]:
            assert mel[band, frame] == pytest.approx(value, abs=GOLDEN["mel"]["tolerance"])

    def test_states(self, tiny: AudioEncoder) -> None:
        with torch.inference_mode():
            states = tiny(mel_of(chirp(2.0), 100))[0]
        assert states.shape == (1500, 5, 384)
        for step, state, channel, value in GOLDEN["states"]["values"]:
            assert states[step, state, channel] == pytest.approx(value, abs=GOLDEN["states"]["tolerance"])


class TestBlocks:
    @pytest.mark.parametrize(
        ("seconds", "count"), [(0.04, 1), (1.0, 1), (30.0, 1), (30.02, 1), (30.04, 2), (60.0, 2), (65.0, 3)]
    )
    def test_there_are_as_many_as_whole_frames_need(self, seconds: float, count: int) -> None:
        samples = np.ones(round(seconds * 16000), np.float32)
        blocks = blocks_of(samples, 2 * (len(samples) // 640))
        assert blocks.shape == (count, 480000)
        assert blocks.sum() == min(len(samples), count * 480000)

    def test_sound_stays_in_order(self) -> None:
        samples = np.arange(700000, dtype=np.float32)
        assert (blocks_of(samples, 2186).ravel()[:700000] == samples).all()

    def test_blocks_do_not_hear_each_other(self) -> None:
        loud_first = np.concatenate([np.ones(480000, np.float32), speechlike(30.0) * 0.01])
        both = mel_of(loud_first, 3000)
        alone = mel_of(loud_first[480000:], 1500)
        assert (both[1] - alone[0]).abs().max() < 1e-6


def test_a_tone_lights_the_band_it_belongs_to() -> None:
    """The filters' centres are the mel scale itself: 1 kHz is mel 15 of 0..45.2, in 81 steps the 26th band."""
    t = np.arange(16000) / 16000
    mel = mel_of(np.sin(2 * np.pi * 1000 * t).astype(np.float32), 50)[0]
    assert int(mel[:, 50].argmax()) == round(15 / (15 + 27 * np.log(8) / np.log(6.4)) * 81) - 1


def test_another_length_is_refused(tiny: AudioEncoder) -> None:
    with pytest.raises(InputError, match="3000"):
        tiny(torch.zeros(1, 80, 100))


class TestReadingModelFiles:
    def write(self, path: Path, variables: dict[str, np.ndarray], version: int = 6) -> Path:
        def text(name: str) -> bytes:
            return struct.pack("<H", len(name) + 1) + name.encode() + b"\0"

        codes = {"<f4": 0, "|i1": 1, "<i2": 2, "<i4": 3, "<f2": 4}
        body = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
        for name, array in variables.items():
            body += text(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
            body += struct.pack("<BI", codes[array.dtype.str], array.nbytes) + array.tobytes()
        path.write_bytes(body)
        return path

    def variables(self, width: int = 64) -> dict[str, np.ndarray]:
        """A one-block encoder in CTranslate2's names, every number another."""
        rng = np.random.default_rng(1)
        shapes = {"position_encodings/encodings": (1500, width), "conv1/weight": (width, 80, 3)}
        shapes |= {"conv1/bias": (width,), "conv2/weight": (width, width, 3), "conv2/bias": (width,)}
        for norm in ("layer_norm", "layer_0/ffn/layer_norm", "layer_0/self_attention/layer_norm"):
            shapes |= {f"{norm}/gamma": (width,), f"{norm}/beta": (width,)}
        for layer, rows, columns in (
            ("ffn/linear_0", 4 * width, width),
            ("ffn/linear_1", width, 4 * width),
            ("self_attention/linear_0", 3 * width, width),
            ("self_attention/linear_1", width, width),
        ):
            shapes |= {f"layer_0/{layer}/weight": (rows, columns), f"layer_0/{layer}/bias": (rows,)}
        made = {name: rng.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}
        made["layer_0/self_attention/linear_0/bias"][width : 2 * width] = 0
        return made

    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        arrays = {"encoder/a": np.arange(6, dtype="<f4").reshape(2, 3), "encoder/b": np.int8([[1], [-1]])}
        path = self.write(tmp_path / "model.bin", arrays | {"decoder/c": np.zeros(3, "<f2")})
        spec, read = read_ctranslate2(path, "encoder/")
        assert spec == "WhisperSpec"
        assert read.keys() == {"a", "b"}
        assert all((read[name[8:]] == array).all() for name, array in arrays.items())

    def test_encoder_from_both_file_forms_is_the_same(self, tmp_path: Path) -> None:
        variables = {f"encoder/{name}": array for name, array in self.variables().items()}
        ours = read_encoder(self.write(tmp_path / "model.bin", variables))
        state = {f"encoder.{name}": value.half() for name, value in ours.state_dict().items()}
        state["decoder.ln.weight"] = torch.ones(3)
        torch.save({"dims": {"n_mels": 80}, "model_state_dict": state}, tmp_path / "tiny.pt")
        again = read_encoder(tmp_path / "tiny.pt")
        assert (ours.layers, ours.width) == (1, 64)
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in ours.state_dict().items())
        query, value = self.variables()["layer_0/self_attention/linear_0/weight"].reshape(3, 64, 64)[[0, 2]]
        assert (ours.blocks[0].attn.query.weight.numpy() == query).all()
        assert (ours.blocks[0].attn.value.weight.numpy() == value).all()

    def test_a_cut_file_is_refused(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "model.bin", {"encoder/a": np.zeros(100, "<f4")})
        for size in (5, 20, 45, path.stat().st_size - 1):
            (tmp_path / "cut.bin").write_bytes(path.read_bytes()[:size])
            with pytest.raises(WeightsError, match=r"missing|no CTranslate2"):
                read_ctranslate2(tmp_path / "cut.bin")

    def test_another_file_is_refused(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "old.bin", {}, version=2)
        with pytest.raises(WeightsError, match="version"):
            read_ctranslate2(path)
        torch.save({"x": torch.ones(1)}, tmp_path / "other.pt")
        with pytest.raises(WeightsError, match="model_state_dict"):
            read_encoder(tmp_path / "other.pt")

    @pytest.mark.parametrize("fault", ["key bias", "quantised", "absent"])
    def test_an_encoder_that_is_none_is_refused(self, fault: str) -> None:
        variables = self.variables()
        if fault == "key bias":
            variables["layer_0/self_attention/linear_0/bias"][70] = 1
        elif fault == "quantised":
            variables["conv2/weight"] = variables["conv2/weight"].astype(np.int8)
        else:
            del variables["layer_0/ffn/linear_1/bias"]
        with pytest.raises(WeightsError, match=r"without bias|quantised|has no layer_0/ffn"):
            state_of_ctranslate2(variables)


def test_official_files_are_declared_beside_the_converted_ones() -> None:
    assert {TINY, BASE, "whisper-tiny-en", "whisper-tiny", "whisper-base"} <= set(weights_store().names())

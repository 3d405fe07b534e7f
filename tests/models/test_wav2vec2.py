"""wav2vec2 against Hugging Face's on the same random weights, and against numbers it once gave."""

import json
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from talkforge.core.errors import InputError, WeightsError
from talkforge.core.weights import weights_store
from talkforge.models.diffusers_import import import_extra
from talkforge.models.diffusion.base import read_tensors
from talkforge.models.loading import load_strict
from talkforge.models.wav2vec2 import BASE_960H, Wav2Vec2, normalised, resampled, state_of
from talkforge.tests.models.dice_talk_cases import one_thread
from talkforge.tests.models.reference import random_state

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "wav2vec2.json").read_text(encoding="utf-8"))
SMALL = {"layers": 3, "width": 128, "channels": 32}
needs_transformers = pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    with one_thread():
        yield


@cache
def small() -> Wav2Vec2:
    return load_strict(Wav2Vec2(**SMALL), random_state(Wav2Vec2(**SMALL), 5), source="random")


def sound(seconds: float) -> np.ndarray:
    """A voice that glides and pauses, a hum, and an offset: loudness and mean are those of no published input."""
    t = np.arange(round(16000 * seconds)) / 16000
    voice = sum(np.sin(2 * np.pi * k * (110 * t + 9 * np.sin(t))) / k for k in range(1, 12))
    return (0.1 * voice * np.clip(np.sin(7 * t), 0, 1) + 0.02 * np.sin(2 * np.pi * 50 * t) + 0.01).astype(np.float32)


def given(seconds: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(normalised(sound(seconds)))[None].to(dtype)


def theirs(ours: Wav2Vec2) -> Any:
    """Hugging Face's own network of the same sizes, filled with our tensors under its published names."""
    package = import_extra("transformers")
    state = ours.state_dict()
    width = state["encoder.layer_norm.weight"].numel()
    config = package.Wav2Vec2Config(
        hidden_size=width,
        num_hidden_layers=len(ours.encoder.layers),
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        conv_dim=[state["feature_projection.layer_norm.weight"].numel()] * 7,
    )
    network = package.Wav2Vec2Model(config).eval()
    renamed = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): value
        for name, value in state.items()
    }
    left = network.load_state_dict(renamed, strict=False)
    assert (left.missing_keys, left.unexpected_keys) == (["masked_spec_embed"], [])
    return network.to(next(ours.parameters()).dtype)


def states_of(network: Any, samples: torch.Tensor) -> torch.Tensor:
    """(B, N, L, D) of Hugging Face's."""
    return torch.stack(network(samples, output_hidden_states=True).hidden_states[1:], dim=2)


def states_at(network: Any, samples: torch.Tensor, frames: int) -> torch.Tensor:
    """The same at so many frames, (1, frames, L, D): Hugging Face's own modules, and NumPy's interpolation between."""
    steps = network.feature_extractor(samples)[0].numpy()
    places = np.linspace(0, steps.shape[1] - 1, frames)
    brought = np.stack([np.interp(places, np.arange(steps.shape[1]), channel) for channel in steps], 1)
    hidden, _ = network.feature_projection(torch.from_numpy(brought[None]).to(samples.dtype))
    states: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, out: states.append(out if torch.is_tensor(out) else out[0]))
        for layer in network.encoder.layers
    ]
    network.encoder(hidden)
    for hook in hooks:
        hook.remove()
    return torch.stack(states, dim=2)


class TestAgainstHuggingFace:
    @needs_transformers
    @pytest.mark.parametrize("seconds", [0.025, 0.04, 1.0, 21.3])
    def test_every_hidden_state_in_double_precision(self, seconds: float) -> None:
        """Where rounding plays little part the two are the same function, also of sound that is run in pieces. The
        statistics of the first layer are of float64 sums on both sides."""
        ours = Wav2Vec2(**SMALL).double().eval()
        ours.load_state_dict(small().state_dict())
        samples = given(seconds, torch.float64)
        with torch.inference_mode():
            made, wanted = ours(samples), states_of(theirs(ours), samples)
        assert made.shape == wanted.shape == (1, (round(16000 * seconds) - 400) // 320 + 1, 3, 128)
        assert (made - wanted).abs().max() < 1e-12

    @needs_transformers
    @pytest.mark.parametrize(("seconds", "frames"), [(1.0, 25), (1.013, 26), (21.3, 533), (0.04, 1), (0.5, 40)])
    def test_every_hidden_state_at_the_frame_rate(self, seconds: float, frames: int) -> None:
        """Fewer steps than the network makes, one, and more."""
        ours = Wav2Vec2(**SMALL).double().eval()
        ours.load_state_dict(small().state_dict())
        samples = given(seconds, torch.float64)
        with torch.inference_mode():
            made, wanted = ours(samples, frames), states_at(theirs(ours), samples, frames)
        assert made.shape == wanted.shape == (1, frames, 3, 128)
        assert (made - wanted).abs().max() < 1e-12

    @needs_transformers
    def test_the_base_networks_widths_in_single_precision(self) -> None:
        """All of the base but ten of its layers, which are alike."""
        ours = load_strict(Wav2Vec2(layers=2), random_state(Wav2Vec2(layers=2), 1), source="random")
        reference, samples = theirs(ours), given(1.0)
        assert sum(value.numel() for value in ours.parameters()) == reference.num_parameters() - 768  # their mask
        with torch.inference_mode():
            assert (ours(samples) - states_of(reference, samples)).abs().max() < 5e-5
            assert (ours(samples, 25) - states_at(reference, samples, 25)).abs().max() < 5e-5

    @needs_transformers
    def test_sound_is_normalised_as_published(self) -> None:
        published = import_extra("transformers").Wav2Vec2FeatureExtractor(do_normalize=True)
        for samples in (sound(2.0), np.zeros(640, np.float32), 1e-4 * sound(0.5)):
            wanted = published(samples, sampling_rate=16000).input_values[0]
            np.testing.assert_allclose(normalised(samples), wanted, atol=2e-5)


def test_states_are_the_golden_numbers() -> None:
    with torch.inference_mode():
        for frames, found in ((None, GOLDEN["steps"]), (25, GOLDEN["frames"])):
            states = small()(given(1.0), frames)[0]
            assert list(states.shape) == found["shape"]
            for step, layer, channel, value in found["values"]:
                assert states[step, layer, channel] == pytest.approx(value, abs=found["tolerance"])


def test_clips_of_a_batch_do_not_hear_each_other() -> None:
    one, other = given(1.0), given(1.0).flip(1)
    with torch.inference_mode():
        both = small()(torch.cat([one, other]), 25)
        assert (both[1] - small()(other, 25)[0]).abs().max() < 1e-5


@pytest.mark.parametrize("frames", [1, 2, 25, 250, 251, 800])
def test_frames_of_whole_sound_take_every_second_step(frames: int) -> None:
    """640 F samples make 2 F - 1 steps, and F places from the first to the last are two steps apart."""
    with torch.inference_mode():
        steps = small().feature_extractor(torch.from_numpy(sound(frames * 0.04))[None])
    assert steps.shape[1] == 2 * frames - 1
    assert (resampled(steps, frames) - steps[:, ::2]).abs().max() < 1e-4


def test_silence_is_finite() -> None:
    silent = normalised(np.zeros(6400, np.float32))
    assert not silent.any()
    with torch.inference_mode():
        assert torch.isfinite(small()(torch.from_numpy(silent)[None], 10)).all()


def test_too_little_sound_is_refused() -> None:
    with pytest.raises(InputError, match="at least 400"):
        small()(torch.zeros(1, 399))
    with pytest.raises(InputError, match=r"\(B, S\)"):
        small()(torch.zeros(1, 1, 640))


class TestPublishedFiles:
    def published(self, prefix: str = "wav2vec2.", *, newer: bool = False) -> dict[str, torch.Tensor]:
        """The small network as it is published: with a head for letters, and halves."""
        state = {prefix + name: value.half() for name, value in small().state_dict().items()}
        if newer:
            at = f"{prefix}encoder.pos_conv_embed.conv."
            for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
                state[f"{at}parametrizations.weight.{new}"] = state.pop(at + old)
        return state | {
            "lm_head.weight": torch.zeros(32, 128),
            "lm_head.bias": torch.zeros(32),
            f"{prefix}masked_spec_embed": torch.zeros(128),
        }

    @pytest.mark.parametrize("newer", [False, True])
    @pytest.mark.parametrize("prefix", ["wav2vec2.", ""])
    def test_each_form_gives_the_same_network(self, tmp_path: Path, prefix: str, newer: bool) -> None:
        save_file(self.published(prefix, newer=newer), tmp_path / "model.safetensors")
        read = load_strict(Wav2Vec2(**SMALL), state_of(read_tensors(tmp_path / "model.safetensors")), source="file")
        assert all(torch.equal(v, small().state_dict()[n].half().float()) for n, v in read.state_dict().items())

    def test_a_file_that_is_another_is_refused(self) -> None:
        for change, message in (
            ({"wav2vec2.adapter.proj.weight": torch.zeros(1)}, "has no adapter"),
            ({"wav2vec2.encoder.layers.0.layer_norm.weight": torch.zeros(7)}, "layer_norm.weight is"),
        ):
            with pytest.raises(WeightsError, match=message):
                load_strict(Wav2Vec2(**SMALL), state_of(self.published() | change), source="file")
        lacking = self.published()
        del lacking["wav2vec2.encoder.pos_conv_embed.conv.weight_g"]
        with pytest.raises(WeightsError, match=r"no encoder\.pos_conv_embed\.conv\.weight_g"):
            load_strict(Wav2Vec2(**SMALL), state_of(lacking), source="file")

    def test_the_base_has_the_published_names_and_sizes(self) -> None:
        """Its file has, beside 4 bytes for each number, a head of 32 letters, the mask of 768, and a header of JSON."""
        with torch.device("meta"):
            state = Wav2Vec2().state_dict()
        numbers = sum(value.numel() for value in state.values()) + 768 + 32 * 769
        assert 0 < (weights_store().spec(BASE_960H).bytes or 0) - 4 * numbers < 32_000
        assert len(state) == 210 and all(one != other for one, other in pairwise(sorted(state)))

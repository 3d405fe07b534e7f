"""Streamed generation against the model's own sampling and rendering of a whole video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from talkforge.core.errors import InputError
from talkforge.models.dice_talk.denoiser_config import DiceTalkConfig
from talkforge.models.dice_talk.model import DiceTalk
from talkforge.models.dice_talk.pipeline import (
    Portrayed,
    evaluations,
    frame_rate,
    latent_count,
    latents_of,
    picture_count,
    pictures,
)
from talkforge.models.diffusion.base import counted
from talkforge.models.diffusion.config import GuidanceConfig, WindowsConfig
from talkforge.tests.models.dice_talk_cases import SIZE, build, one_thread, small


@pytest.fixture(autouse=True)
def calm() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def model() -> DiceTalk:
    with one_thread():
        return build(small()).eval()


def given(config: DiceTalkConfig, frames: int, seed: int = 0) -> Portrayed:
    rng, audio = np.random.default_rng(seed), config.audio
    mask = np.zeros((1, 1, SIZE, SIZE), np.float32)
    mask[..., 8:24, 8:24] = 1
    return Portrayed(
        rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8),
        rng.normal(size=(2 * frames, audio.states, audio.state_width)).astype(np.float16),
        rng.normal(size=(1, config.bank.prior_width)).astype(np.float32),
        mask,
        frames,
    )


def with_windows(model: DiceTalk, **changes: object) -> DiceTalk:
    """The same weights under other settings of windows."""
    other = DiceTalk(replace(model.config, windows=replace(model.config.windows, **changes)))  # pyright: ignore
    other.load_state_dict(model.state_dict())
    return other.eval()


@pytest.mark.parametrize("interpolation", ["linear", "none"])
@pytest.mark.parametrize(("frames", "chunk"), [(1, 3), (2, 3), (11, 3), (12, 2), (12, 14), (13, 7)])
def test_parts_are_the_whole_video(model: DiceTalk, frames: int, chunk: int, interpolation: str) -> None:
    """Decoded a few at a time and cut to the sound, they are `render`'s pictures of the same latents."""
    other = with_windows(model, decode_chunk=chunk, interpolation=interpolation)
    latents = torch.randn(
        latent_count(frames, other.config.windows), 4, 8, 8, generator=torch.Generator().manual_seed(1)
    )
    parts = list(pictures(other, latents, frames))
    whole = other.render(latents[None])[0].numpy()
    count = picture_count(frames, other.config.windows)
    assert count == (frames if interpolation == "linear" else (frames + 1) // 2)
    assert len(whole) - count in (0, 1), "one picture at most lies behind the sound's end"
    made = np.concatenate(parts)
    assert made.dtype == np.uint8 and made.shape == (count, SIZE, SIZE, 3)
    np.testing.assert_array_equal(made, whole[:count])
    assert max(map(len, parts)) <= 2 * chunk, "no more is in memory than a chunk with what lies between"


def test_latents_are_the_models_own(model: DiceTalk) -> None:
    """One call on a short input, made by hand from the definition of the windows of sound."""
    case = given(model.config, 5)
    padded = np.concatenate([np.zeros((4, 5, 384)), case.states, np.zeros((6, 5, 384))]).astype(np.float32)
    batch = {
        "portrait": torch.from_numpy(case.portrait.astype(np.float32).transpose(2, 0, 1))[None] / 255 * 2 - 1,
        # Steps 2f - 4 to 2f + 6 of frames f = 0, 2, 4, with four zeros before the first step.
        "audio": torch.from_numpy(np.stack([padded[2 * f : 2 * f + 10] for f in (0, 2, 4)]))[None],
        "mu": torch.from_numpy(case.mu),
        "mask": torch.from_numpy(case.mask)[None],
    }
    wanted = model.sample(batch, torch.Generator().manual_seed(4), steps=3)
    found = latents_of(model, case, seed=4, steps=3)
    assert found.shape == (3, 4, 8, 8)
    torch.testing.assert_close(found, wanted[0], atol=1e-5, rtol=1e-5)
    outside = latents_of(model, case, model.encoders, seed=4, steps=3)
    torch.testing.assert_close(outside, found, atol=1e-5, rtol=1e-5)


def test_each_condition_counts(model: DiceTalk) -> None:
    case = given(model.config, 3)
    base = latents_of(model, case, steps=2)
    others = {
        "portrait": replace(case, portrait=255 - case.portrait),
        "states": replace(case, states=-case.states),
        "mu": replace(case, mu=-case.mu),
        "mask": replace(case, mask=1 - case.mask),
    }
    for name, other in others.items():
        assert (latents_of(model, other, steps=2) - base).abs().max() > 1e-5, name
    assert not torch.equal(latents_of(model, case, seed=1, steps=2), base)
    assert torch.equal(latents_of(model, case, steps=2), base)
    guided = latents_of(model, case, steps=2, guidance=GuidanceConfig(1.0, 1.0))
    assert (guided - base).abs().max() > 1e-5


@pytest.mark.parametrize(
    ("frames", "guidance"), [(5, None), (40, GuidanceConfig(1.0, 1.0)), (17, GuidanceConfig(1.0, 4.0))]
)
def test_progress_counts_every_evaluation(model: DiceTalk, frames: int, guidance: GuidanceConfig | None) -> None:
    case, calls = given(model.config, frames), []
    with counted(model, lambda: calls.append(0) or 0):
        shown = latents_of(model, case, steps=2, guidance=guidance)
    latents = latent_count(frames, model.config.windows)
    assert len(calls) == evaluations(latents, model.config, 2, guidance)
    assert torch.equal(latents_of(model, case, steps=2, guidance=guidance), shown), "watching changes nothing"
    assert len(calls) == evaluations(latents, model.config, 2, guidance), "and ends with the block"


def test_rates() -> None:
    assert frame_rate(WindowsConfig()) == 25
    assert frame_rate(WindowsConfig(interpolation="none")) == Fraction(25, 2)
    assert [latent_count(n, WindowsConfig()) for n in (1, 2, 3, 4, 275)] == [1, 2, 2, 3, 138]
    assert [latent_count(n, WindowsConfig(interpolation="none")) for n in (1, 2, 3, 4)] == [1, 1, 2, 2]
    with pytest.raises(InputError, match="needs a frame"):
        latent_count(0, WindowsConfig())


def test_what_does_not_fit_is_refused(model: DiceTalk) -> None:
    case = given(model.config, 3)
    with pytest.raises(InputError, match="prior has 5 numbers, and the model reads 64"):
        latents_of(model, replace(case, mu=np.zeros((1, 5), np.float32)))
    with pytest.raises(InputError, match="pictures are 32 x 32"):
        latents_of(model, replace(case, portrait=np.zeros((64, 64, 3), np.uint8)))
    with pytest.raises(InputError, match=r"Whisper states are \(6, 2, 384\)"):
        latents_of(model, replace(case, states=case.states[:, :2]))

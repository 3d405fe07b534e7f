"""Operations of DICE-Talk: counted parts against sums by hand, and what a generated second adds up to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from talkforge.models.dice_talk.cost import LATENT_RATE, count_cost
from talkforge.models.dice_talk.denoiser_config import DiceTalkConfig
from talkforge.models.dice_talk.model import DiceTalk
from talkforge.models.diffusion.cost import Cost
from talkforge.tests.models.by_hand import operations_by_hand
from talkforge.tests.models.dice_talk_cases import a_batch, needs_diffusers, small

pytestmark = needs_diffusers


def test_sampling_runs_what_is_counted() -> None:
    """All of it, layer by layer, in real passes over one window."""
    config = small()
    model, frames, steps = DiceTalk(config).eval(), config.windows.frames, 3
    batch = a_batch(config, clips=1, frames=frames)
    given = {key: value for key, value in batch.items() if key != "pictures"}
    assert model.encoders is not None
    given |= {"reference": torch.zeros(1, 4, 8, 8), "image": model.encoders.embed(given["portrait"]).detach()}
    done = operations_by_hand(model, lambda: model.sample(given, torch.Generator().manual_seed(0), steps=steps))
    cost = count_cost(replace(config, diffusion=replace(config.diffusion, steps=steps)))
    assert done == cost.window


def test_audio_tokens_are_counted_exactly() -> None:
    config = DiceTalkConfig.tiny()
    longer = replace(config, windows=replace(config.windows, frames=2 * config.windows.frames))
    audio = config.audio
    each = audio.inputs * audio.hidden + audio.hidden**2 + audio.hidden * audio.tokens * audio.width
    more = sum(count_cost(longer).conditions.values()) - sum(count_cost(config).conditions.values())
    assert more == 2 * config.windows.frames * each


def test_a_second_is_its_windows() -> None:
    cost = Cost(
        conditions={"one": 60, "other": 40},
        denoise=1000,
        encode=5,
        decode=7,
        frames=25,
        rate=LATENT_RATE,
        branches=3,
        steps=25,
    )
    assert cost.second == 0.5 * (75 * 1000 + 3 * 100) + LATENT_RATE * 7
    assert cost.seconds_at(peak=1e6, utilisation=0.5) == pytest.approx(cost.second / 5e5)


def test_full_size() -> None:
    """Golden: counted here; a change says that the network is another one."""
    cost = count_cost(DiceTalkConfig.full())
    assert cost.passes == 75
    assert cost.denoise == 31_917_864_222_720
    assert cost.denoise_frame == pytest.approx(1.2767e12, rel=1e-4)
    assert cost.decode == pytest.approx(3.0428e12, rel=1e-4)
    assert cost.seconds_at() == pytest.approx(3.12, abs=0.01)

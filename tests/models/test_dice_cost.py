"""Operations of DICE-Talk: counted parts against sums by hand, and what a generated second adds up to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from talkforge.models.dice_talk.cost import LATENT_RATE, Cost, count_cost
from talkforge.models.dice_talk.denoiser_config import DiceTalkConfig
from talkforge.models.dice_talk.model import DiceTalk
from torch import nn

pytest.importorskip("diffusers")


def by_hand(model: DiceTalk, config: DiceTalkConfig) -> int:
    """Two operations a weight and output place of every convolution and linear layer of one real pass."""
    total = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module.weight, torch.Tensor)
        channels = module.weight.shape[0]
        total += 2 * module.weight.numel() * (output.numel() // channels)

    kinds = (nn.Linear, nn.Conv2d, nn.Conv3d)
    hooks = [part.register_forward_hook(count) for part in model.modules() if isinstance(part, kinds)]
    side, frames, channels = config.latent_size, config.windows.frames, config.unet.out_channels
    given = {
        "reference": torch.zeros(1, channels, side, side),
        "image": torch.zeros(1, config.unet.cross_attention_dim),
        "audio": torch.zeros(1, frames, 10, 5, 384),
        "mu": torch.zeros(1, config.bank.prior_width),
        "mask": torch.zeros(1, 1, 1, config.size, config.size),
    }
    with torch.no_grad():
        inputs = model._branch_inputs(given, "full")
        total = 0
        model._predict(torch.zeros(1, frames, channels, side, side), torch.ones(()), inputs)
    for hook in hooks:
        hook.remove()
    return total


def test_a_pass_is_its_layers_and_attention() -> None:
    config = DiceTalkConfig.tiny()
    layers = by_hand(DiceTalk(config).eval(), config)
    counted = count_cost(config).denoise
    assert layers <= counted < 1.6 * layers  # the rest is attention's products of tokens with tokens


def test_audio_tokens_are_counted_exactly() -> None:
    config = DiceTalkConfig.tiny()
    longer = replace(config, windows=replace(config.windows, frames=2 * config.windows.frames))
    audio = config.audio
    each = audio.inputs * audio.hidden + audio.hidden**2 + audio.hidden * audio.tokens * audio.width
    more = count_cost(longer).conditions - count_cost(config).conditions
    assert more == 2 * config.windows.frames * each


def test_a_second_is_its_windows() -> None:
    cost = Cost(conditions=100, denoise=1000, decode=7, frames=25, branches=3, passes=75)
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

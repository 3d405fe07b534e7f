"""Small configurations, batches and conditions for the tests of DICE-Talk's diffusion part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from talkforge.models.dice_talk.denoiser import DenoiserInputs
from talkforge.models.dice_talk.denoiser_config import DiceTalkConfig
from talkforge.models.dice_talk.model import DiceTalk
from talkforge.models.diffusion.config import GuidanceConfig
from talkforge.models.diffusion.tiny_vae import TinyVae

SIZE = 32
needs_diffusers = pytest.mark.skipif(find_spec("diffusers") is None, reason="diffusers is not installed (extra train)")


@contextmanager
def one_thread() -> Iterator[None]:
    """These networks are many small operations. Threads that wait for each other at every one of them cost more than
    they bring, and beside another busy process a hundred times more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def small(**changes: Any) -> DiceTalkConfig:
    """`tiny` on smaller pictures, guided, with the base's 4 latent channels, latents denoised as in `full`."""
    tiny = DiceTalkConfig.tiny()
    own = {
        "unet": replace(tiny.unet, in_channels=8, out_channels=4),
        "vae": replace(tiny.vae, residual=False),
        "diffusion": replace(tiny.diffusion, steps=25),
        "guidance": GuidanceConfig(1.0, 2.0),
    }
    return DiceTalkConfig.tiny(size=SIZE, **own | changes)


def unzero(vae: TinyVae) -> None:
    """The small VAE's networks add something to its transform, as after a step of training."""
    for last in (vae.encoder[-1], vae.decoder[-2]):
        torch.nn.init.normal_(last.weight, std=0.02)


def build(config: DiceTalkConfig, seed: int = 0) -> DiceTalk:
    """A model whose zero-initialised convolutions are not zero any more, as after a step of training."""
    torch.manual_seed(seed)
    model = DiceTalk(config)
    torch.nn.init.normal_(model.denoiser.pose.last.weight, std=0.02)
    if model.encoders is not None:
        unzero(model.encoders.vae)
    return model


def a_batch(config: DiceTalkConfig, clips: int = 2, frames: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random clips; the first one is labelled."""
    draw, side, audio = torch.Generator().manual_seed(seed), config.size, config.audio
    mask = torch.zeros(clips, 1, 1, side, side)
    mask[..., side // 4 : -side // 4, side // 4 : -side // 4] = 1
    width = config.bank.prior_width
    return {
        "pictures": torch.rand(clips, frames, 3, side, side, generator=draw) * 2 - 1,
        "portrait": torch.rand(clips, 3, side, side, generator=draw) * 2 - 1,
        "audio": torch.randn(clips, frames, audio.window, audio.states, audio.state_width, generator=draw),
        "mu": torch.randn(clips, width, generator=draw),
        "sigma": torch.rand(clips, width, generator=draw),
        "emotion": torch.tensor([3] + [-1] * (clips - 1)),
        "mask": mask,
    }


def conditions(config: DiceTalkConfig, clips: int = 2, frames: int = 2, seed: int = 0) -> DenoiserInputs:
    """Random conditions of a denoiser, the face mask 1 everywhere."""
    draw, width, side = torch.Generator().manual_seed(seed), config.unet.cross_attention_dim, config.latent_size
    return DenoiserInputs(
        reference=torch.randn(clips, config.unet.out_channels, side, side, generator=draw),
        image=torch.randn(clips, width, generator=draw),
        audio=torch.randn(clips, frames, config.audio.tokens, width, generator=draw),
        emotion=torch.randn(clips, config.bank.tokens, width, generator=draw),
        mask=torch.ones(clips, 1, 1, config.size, config.size),
    )


def without_drops(config: DiceTalkConfig) -> DiceTalkConfig:
    """All conditions kept in training."""
    none = {"drop_audio": 0.0, "drop_image": 0.0, "drop_emotion": 0.0, "drop_all": 0.0, "drop_driving": 0.0}
    return replace(config, conditions=replace(config.conditions, **none))

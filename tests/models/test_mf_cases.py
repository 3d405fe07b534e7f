"""Small configurations, batches and models for the tests of MF-ETalk, and that they are what they claim."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from talkforge.models.diffusion.config import GuidanceConfig
from talkforge.models.mf_etalk.batch import conditions_of, prepare
from talkforge.models.mf_etalk.config import DropsConfig, MfEtalkConfig
from talkforge.models.mf_etalk.model import MfEtalk
from talkforge.tests.models.dice_talk_cases import needs_diffusers, unzero

SIZE = 32
NO_DROPS = DropsConfig(image_stage=0, image=0, audio=0, au=0, everything=0)


def small(**changes: Any) -> MfEtalkConfig:
    """`tiny` on smaller pictures, in short clips, with four heads, guided; as `full` in noise, latents and units; no
    drops, no judge.
    """
    tiny = MfEtalkConfig.tiny()
    values: dict[str, Any] = {
        "size": SIZE,
        "drops": NO_DROPS,
        "unet": replace(tiny.unet, latent_channels=4, heads=4),
        "tiny_vae": replace(tiny.tiny_vae, residual=False),
        "motion": replace(tiny.motion, heads=4, frames=4, start_probability=0.0),
        "emotion": replace(tiny.emotion, weight=0.0),
        "au": replace(tiny.au, scale=1.0, lower="face", unread=(), noise=0.0),
        "diffusion": replace(tiny.diffusion, sample_steps=20, draws=1, temperature=0.3),
        "guidance": GuidanceConfig(1.0, 2.0),
    }
    return replace(tiny, **values | changes)


@torch.no_grad()
def awake(model: MfEtalk, *, gates: bool = True) -> MfEtalk:
    """What starts at zero is zero no more, as after some training; gates too if asked."""
    draw = torch.Generator().manual_seed(9)
    ends = ("zero.weight", "proj_out.weight", "locator.last.weight", *(["gamma"] if gates else []))
    for name, parameter in model.denoiser.named_parameters():
        if name.endswith(ends) and not parameter.any():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
    if model.encoders is not None:
        unzero(model.encoders.vae)
    return model


def build(config: MfEtalkConfig, *, gates: bool = True) -> MfEtalk:
    """A model with fixed weights, awake, in eval mode."""
    torch.manual_seed(0)
    return awake(MfEtalk(config), gates=gates).eval()


@cache
def shared_model() -> MfEtalk:
    """One `small` model for all tests that change nothing in it."""
    return build(small())


def a_batch(config: MfEtalkConfig, clips: int = 2, frames: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random clips with a face in the middle."""
    draw, side, audio = torch.Generator().manual_seed(seed), config.size, config.audio.layers
    mask = torch.zeros(clips, 1, 1, side, side)
    mask[..., side // 4 : -side // 4, side // 4 : -side // 4] = 1
    return {
        "pictures": torch.rand(clips, frames, 3, side, side, generator=draw) * 2 - 1,
        "portrait": torch.rand(clips, 3, side, side, generator=draw) * 2 - 1,
        "motion": torch.rand(clips, config.motion.motion_frames, 3, side, side, generator=draw) * 2 - 1,
        "audio": torch.randn(clips, frames, audio.window, audio.states, audio.state_width, generator=draw),
        "aus": torch.rand(clips, frames, 17, generator=draw),
        "au_neutral": torch.rand(clips, 17, generator=draw) / 10,
        "regions": torch.rand(clips, 1, 3, 16, 16, generator=draw),
        "mask": mask,
    }


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@needs_diffusers
def test_the_batch_has_what_every_stage_reads() -> None:
    config = small()
    made = prepare(a_batch(config), shared_model().encoders)
    for stage in ("image", "temporal"):
        assert set(conditions_of(replace(config, stage=stage))) <= made.keys()
    assert made["latents"].shape == (2, 3, 4, 8, 8) and made["motion_latents"].shape == (2, 2, 4, 8, 8)


@needs_diffusers
def test_an_awake_model_has_no_silent_tensor() -> None:
    silent = [name for name, value in shared_model().denoiser.named_parameters() if not value.any()]
    assert [name for name in silent if not name.endswith("bias")] == []

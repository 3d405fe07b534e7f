"""The full preset's size and shapes, on torch's meta device, against Stable Video Diffusion as published."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from talkforge.core.errors import ConfigError
from talkforge.models.dice_talk.config import EmbedderConfig
from talkforge.models.dice_talk.denoiser_config import ABLATIONS, DiceTalkConfig
from talkforge.models.dice_talk.official import FrozenEncoders
from talkforge.models.dice_talk.parameters import count_parameters, on_meta, tensor_shapes
from talkforge.models.diffusion.config import PoseGuiderConfig
from talkforge.tests.models.dice_talk_cases import conditions, needs_diffusers, small

FULL = DiceTalkConfig.full()
# stable-video-diffusion-img2vid-xt-1-1: numbers of parameters of the published unet, vae and image_encoder files.
PUBLISHED = {"unet_base": 1_524_623_082, "vae": 97_742_847, "image_encoder": 632_076_800}


@needs_diffusers
def test_the_base_is_as_large_as_published() -> None:
    found = count_parameters(FULL)
    assert {name: found[name] for name in PUBLISHED} == PUBLISHED


@needs_diffusers
def test_added_modules_are_as_large_as_their_equations_say() -> None:
    found = count_parameters(FULL)
    # Two blocks at each attending level below, three above, one in the middle; each spatial and temporal; keys, values.
    layers = {320: 5, 640: 5, 1280: 5 + 1}
    attention = sum(2 * count * 2 * 1024 * width for width, count in layers.items())
    assert found["cross_attention_audio"] == found["cross_attention_emotion"] == attention
    linear = [(19200, 1024), (1024, 1024), (1024, 32 * 1024)]
    assert found["audio_tokens"] == sum((inputs + 1) * outputs for inputs, outputs in linear) + 2 * 1024
    widths = [(3, 16), (16, 16), (16, 32), (32, 32), (32, 96), (96, 96), (96, 256), (256, 320)]
    assert found["pose_guider"] == sum((9 * inputs + 1) * outputs for inputs, outputs in widths)
    assert found["emotion_head"] == sum((a + 1) * b for a, b in [(1280, 512), (512, 256), (256, 8)])


@needs_diffusers
def test_names_and_shapes_are_the_bases() -> None:
    """Some tensors of the published UNet file."""
    shapes = tensor_shapes(FULL)
    block = "down_blocks.0.attentions.0"
    published = {
        "conv_in.weight": (320, 8, 3, 3),
        "time_embedding.linear_1.weight": (1280, 320),
        "add_embedding.linear_1.weight": (1280, 768),
        f"{block}.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
        f"{block}.temporal_transformer_blocks.0.attn2.to_v.weight": (320, 1024),
        f"{block}.time_mixer.mix_factor": (1,),
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight": (1280, 1024),
        "up_blocks.3.resnets.2.temporal_res_block.conv1.weight": (320, 320, 3, 1, 1),
        "conv_out.weight": (4, 320, 3, 3),
    }
    assert {name: shapes[f"denoiser.unet.{name}"] for name in published} == published
    assert shapes["denoiser.pose.last.weight"] == (320, 256, 3, 3)
    assert shapes["audio.first.weight"] == (1024, 19200)
    assert sum(".extras." in name for name in shapes) == 32 * 4


@needs_diffusers
def test_a_full_pass_has_the_stated_shapes() -> None:
    model, _ = on_meta(FULL)
    given = conditions(replace(FULL, size=8), clips=1, frames=25)  # the small tensors are only looked at for dtypes
    shapes = {"reference": (1, 4, 64, 64), "mask": (1, 1, 1, 512, 512)}
    tensors = {f.name: getattr(given, f.name) for f in fields(given)}
    meta = {name: torch.empty(shapes.get(name, value.shape), device="meta") for name, value in tensors.items()}
    assert meta["audio"].shape == (1, 25, 32, 1024)
    latents = torch.empty(1, 25, 4, 64, 64, device="meta")
    output, features = model.denoiser(latents, torch.empty(1, device="meta"), type(given)(**meta))
    assert output.shape == (1, 25, 4, 64, 64)
    assert features.shape == (1, 25, 1280, 8, 8)


@needs_diffusers
def test_frozen_encoders_have_the_stated_shapes() -> None:
    _, encoders = on_meta(FULL)
    assert isinstance(encoders, FrozenEncoders)
    pictures = torch.empty(2, 3, 512, 512, device="meta")
    latents = encoders.encode(pictures)
    assert latents.shape == (2, 4, 64, 64)
    assert encoders.decode(latents).shape == pictures.shape
    assert encoders.embed(pictures).shape == (2, 1024)
    assert not any(parameter.requires_grad for parameter in encoders.parameters())


@needs_diffusers
def test_tiny_is_tiny_and_complete() -> None:
    found = count_parameters(DiceTalkConfig.tiny())
    assert sum(found.values()) < 4e6
    assert min(found.values()) > 0
    assert DiceTalkConfig.tiny().bank.prior_width == EmbedderConfig.tiny().width


def values_of(config: Any) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for item in fields(config):
        value = getattr(config, item.name)
        found += values_of(value) if is_dataclass(value) else [(item.name, dict(item.metadata))]
    return found


def test_every_value_has_a_source() -> None:
    found = values_of(FULL)
    assert len(found) > 60
    known = ("paper", "released", "inferred", "ours", "base", "EDM")
    assert [name for name, metadata in found if not metadata.get("source", "").startswith(known)] == []


def test_presets_and_ablations_go_by_name() -> None:
    assert DiceTalkConfig.preset("full") == FULL
    rows = [FULL.ablated(name) for name in ABLATIONS]
    assert len({repr(row) for row in [FULL, *rows]}) == 5
    assert rows[0].bank.mode == "none" and rows[1].head.weight == 0
    assert rows[2].bank.mode == "learnable_ca" and rows[3].deterministic_prior
    with pytest.raises(ConfigError, match="no preset"):
        DiceTalkConfig.preset("huge")
    with pytest.raises(ConfigError, match="no ablation"):
        FULL.ablated("without_sound")


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="as often as the VAE"):
        small(pose=PoseGuiderConfig())
    with pytest.raises(ConfigError, match="64 wide"):
        small(bank=FULL.bank)
    with pytest.raises(ConfigError, match="multiples of 32"):
        replace(FULL.unet, channels=(320, 640, 1280, 1290))
    with pytest.raises(ConfigError, match="more than 1"):
        replace(FULL.conditions, drop_all=0.9)

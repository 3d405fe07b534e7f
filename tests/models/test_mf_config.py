"""The full preset's size on torch's meta device against Stable Diffusion and Hallo as published; sources; ablations."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from talkforge.core.errors import ConfigError
from talkforge.models.dice_talk import official as dice_official
from talkforge.models.dice_talk.denoiser_config import DiceTalkConfig
from talkforge.models.diffusers_import import import_extra
from talkforge.models.diffusion.audio_tokens import whisper_windows
from talkforge.models.mf_etalk import official as mf_official
from talkforge.models.mf_etalk.au_guidance import AuTokens
from talkforge.models.mf_etalk.config import (
    ABLATIONS,
    AuConfig,
    AudioConfig,
    DropsConfig,
    FaceConfig,
    MfEtalkConfig,
    MotionConfig,
)
from talkforge.models.mf_etalk.denoiser import MfInputs
from talkforge.models.mf_etalk.official import FrozenEncoders, decode_through
from talkforge.models.mf_etalk.parameters import count_parameters, on_meta
from talkforge.tests.models.dice_talk_cases import needs_diffusers
from talkforge.tests.models.test_mf_cases import small

FULL = MfEtalkConfig.full()
# Parameters of the published files: stable-diffusion-v1-5's unet, AnimateDiff's mm_sd_v15_v2, sd-vae-ft-mse.
PUBLISHED = {"denoising_unet": 859_520_964, "motion_modules": 453_209_280, "vae": 83_653_863}


@pytest.fixture(scope="module")
def full() -> dict[str, int]:
    return count_parameters(FULL)


def audio_module(channels: int, inner: int) -> int:
    """By the equations of `hierarchical_attention`, tokens 768 wide."""
    attention = 4 * inner**2 + inner
    branch = 2 * inner**2 + 2 * inner * 768 + inner + inner**2 + inner
    feed_forward = 8 * inner**2 + 8 * inner + 4 * inner**2 + inner
    around = 2 * channels + (channels + 1) * inner + (inner + 1) * channels + 3 * 2 * inner
    return attention + 3 * branch + feed_forward + around


def fusion(channels: int, inner: int) -> int:
    """By the equations of `fusion`: one stream of motion frames, two of AUs."""
    gate = 2 * inner**2 + inner + inner
    return sum(2 * inner**2 + 2 * inner * context + gate for context in (channels, 768, 768))


# (channels, inner width) at each spatial transformer: below, in the middle, above.
PLACES = [(320, 320)] * 2 + [(640, 320), (640, 640), (1280, 640), (1280, 1280)] + [(1280, 1280)]
PLACES += [(1280, 640)] * 3 + [(640, 320)] * 3 + [(320, 320)] * 3


@needs_diffusers
def test_the_parts_are_as_large_as_published(full: dict[str, int]) -> None:
    assert {name: full[name] for name in PUBLISHED} == PUBLISHED
    # As published the ReferenceNet is the same UNet without its last norm and convolution.
    assert full["reference_net"] == full["denoising_unet"] - 2 * 320 - (320 * 4 * 9 + 4)


@needs_diffusers
def test_hallos_modules_are_as_large_as_their_equations_say(full: dict[str, int]) -> None:
    assert full["audio_modules"] == sum(audio_module(*place) for place in PLACES)
    linear = [(5 * 12 * 768, 512), (512, 512), (512, 32 * 768)]
    assert full["audio_tokens"] == sum((inputs + 1) * outputs for inputs, outputs in linear) + 2 * 768
    assert full["identity_tokens"] == (512 + 1) * 4 * 768 + 2 * 768
    widths = [(3, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 320)]
    assert full["face_locator"] == sum((9 * inputs + 1) * outputs for inputs, outputs in widths)


@needs_diffusers
def test_added_modules_are_as_large_as_their_equations_say(full: dict[str, int]) -> None:
    assert full["fusion"] == sum(fusion(*place) for place in PLACES)
    block = 2 * 256 + 2 * (256 + 1) * 256
    encoders = [(units + 1) * 256 + 2 * block + 2 * 256 + (256 + 1) * 4 * 768 + 2 * 768 for units in (8, 9)]
    assert full["au_guidance"] == sum(encoders)
    assert full["image_encoder"] == 0


@needs_diffusers
def test_tiny_is_tiny_and_row_a_adds_nothing() -> None:
    tiny = count_parameters(MfEtalkConfig.tiny())
    row_a = count_parameters(MfEtalkConfig.tiny().ablated("a"))
    assert sum(tiny.values()) < 4e6 and min(tiny.values()) > 0
    added = {"au_guidance": 0, "fusion": 0}
    assert row_a == tiny | added


@needs_diffusers
def test_a_clip_of_the_full_preset_passes() -> None:
    """Shapes alone: 14 frames with 2 motion frames, latents of 64, 4 identity, 32 audio and 2 x 4 AU tokens."""
    model, encoders = on_meta(FULL)

    def meta(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device="meta")

    identity = model.identity(meta(1, 512))
    audio = model.audio(meta(1, 14, 5, 12, 768))
    assert identity.shape == (1, 4, 768) and audio.shape == (1, 14, 32, 768)
    references = model.reference(meta(1, 3, 4, 64, 64), identity)
    assert len(references) == 16 and references["mid_block.attentions.0"].shape == (1, 3, 64, 1280)
    assert model.aus is not None
    aus = AuTokens(model.aus.upper(meta(1, 14, 8)), model.aus.lower(meta(1, 14, 9)))
    inputs = MfInputs(references, meta(1), identity, meta(1, 1, 1, 512, 512), audio, aus, meta(1, 1, 3, 64, 64))
    step = torch.zeros(1, dtype=torch.int64, device="meta")
    assert model.denoiser(meta(1, 14, 4, 64, 64), step, inputs, temporal=True).shape == (1, 14, 4, 64, 64)
    assert isinstance(encoders, FrozenEncoders)
    latents = encoders.encode(meta(2, 3, 512, 512))
    assert latents.shape == (2, 4, 64, 64) and decode_through(encoders, latents).shape == (2, 3, 512, 512)
    assert not any(parameter.requires_grad for parameter in encoders.parameters())


@needs_diffusers
@pytest.mark.parametrize("module", [mf_official, dice_official], ids=["mf-etalk", "dice-talk"])
def test_latents_are_whole_where_networks_are_half(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What noise is drawn like, added to and taken away from again; in bfloat16 it would have 8 bits."""
    small_vae = import_extra("diffusers").AutoencoderKL(norm_num_groups=2, block_out_channels=(4,))
    monkeypatch.setattr(module, "sd_vae" if module is mf_official else "svd_vae", lambda: small_vae)
    if module is dice_official:
        monkeypatch.setattr(module, "clip_image_encoder", torch.nn.Identity)
    encoders = module.FrozenEncoders() if module is mf_official else module.FrozenEncoders(DiceTalkConfig.full())
    with torch.autocast("cpu", torch.bfloat16):
        assert small_vae.encode(torch.zeros(1, 3, 8, 8)).latent_dist.mode().dtype == torch.bfloat16
        assert encoders.encode(torch.zeros(1, 3, 8, 8)).dtype == torch.float32


@needs_diffusers
def test_published_names_are_the_networks() -> None:
    """Some tensors of the published UNet file, on the tiny preset's depth but by the full one's rule."""
    model, _ = on_meta(small())
    names = dict(model.denoiser.unet.named_parameters())
    block = "down_blocks.0.attentions.0"
    for name in (
        "conv_in.weight",
        f"{block}.proj_in.weight",
        f"{block}.transformer_blocks.0.attn1.to_q.weight",
        f"{block}.transformer_blocks.0.attn2.to_k.weight",
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.weight",
        "up_blocks.1.resnets.1.time_emb_proj.weight",
    ):
        assert name in names
    assert "conv_norm_out.weight" not in dict(model.reference.unet.named_parameters())


def values_of(config: Any) -> list[tuple[str, dict[str, Any]]]:
    """Fields of this package's configurations, by name; those of parts that DICE-Talk owns have other sources."""
    found = []
    for item in fields(config):
        value = getattr(config, item.name)
        if not is_dataclass(value):
            found.append((item.name, dict(item.metadata)))
        elif type(value).__module__.endswith("mf_etalk.config"):
            found += values_of(value)
    return found


def test_every_value_has_a_source() -> None:
    found = values_of(FULL)
    assert len(found) > 55
    known = ("paper", "hallo", "base", "inferred", "ours")
    assert [name for name, metadata in found if not metadata.get("source", "").startswith(known)] == []
    assert all(metadata["what"] for _, metadata in found)


def test_what_the_paper_adds_is_marked_as_inferred() -> None:
    for part in (FULL.au, FULL.emotion):
        assert [item.name for item in fields(part) if item.metadata["source"].startswith("hallo")] == []
        assert sum(item.metadata["source"].startswith("inferred") for item in fields(part)) >= 3


def test_presets_and_ablations_go_by_name() -> None:
    assert MfEtalkConfig.preset("full") == FULL and MfEtalkConfig.preset("tiny") == MfEtalkConfig.tiny()
    rows = {name: FULL.ablated(name) for name in ABLATIONS}
    found = {name: (row.fusion.on, row.emotion.weight > 0) for name, row in rows.items()}
    assert found == {"a": (False, False), "b": (True, False), "c": (True, True)}
    assert rows["c"] == FULL and rows["a"].ablated("c") == FULL
    with pytest.raises(ConfigError, match="no preset"):
        MfEtalkConfig.preset("huge")
    with pytest.raises(ConfigError, match="no ablation"):
        FULL.ablated("d")


def test_published_settings_are_hallos() -> None:
    motion, drops, diffusion = FULL.motion, FULL.drops, FULL.diffusion
    assert (motion.frames, motion.motion_frames, motion.max_frames, motion.start_probability) == (14, 2, 32, 0.05)
    assert (drops.image, drops.audio, drops.au, drops.everything, drops.image_stage) == (0.05,) * 4 + (0.1,)
    assert (diffusion.snr_gamma, diffusion.noise_offset, diffusion.sample_steps) == (5.0, 0.05, 40)
    assert (FULL.guidance.reference, FULL.guidance.conditions) == (3.5, 3.5)
    assert FULL.latent_size == 64


@pytest.mark.parametrize(
    ("kind", "shape", "first"),
    [("wav2vec2", (5, 12, 768), [8, 9, 10, 11, 12]), ("whisper", (10, 5, 384), [16, 17, 18])],
)
def test_audio_windows_of_both_kinds(kind: str, shape: tuple[int, ...], first: list[int]) -> None:
    config = AudioConfig(kind=kind).layers
    states = torch.arange(60.0)[:, None, None].expand(60, *shape[1:])
    found = whisper_windows(states, [10], config)
    assert found.shape == (1, *shape)
    assert found[0, : len(first), 0, 0].tolist() == first


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="face locator"):
        small(face=FULL.face)
    with pytest.raises(ConfigError, match="AU tokens"):
        small(au=FULL.au)
    with pytest.raises(ConfigError, match="multiples of 32"):
        replace(FULL.unet, channels=(320, 650))
    with pytest.raises(ConfigError, match="too few positions"):
        MotionConfig(frames=31)
    with pytest.raises(ConfigError, match="more than 1"):
        DropsConfig(everything=0.9)
    with pytest.raises(ConfigError, match="does not divide"):
        replace(FULL, size=500)
    with pytest.raises(ConfigError, match=r"AuConfig\.unread is .* and 3 is no unit of: 1, 2, 4, 5, 6, 7, 9, 10, 12"):
        AuConfig(unread=(3, 12))
    for wrong, said in (
        (lambda: replace(FULL.diffusion, snr_gamma=-5.0), "snr_gamma is -5"),
        (lambda: replace(FULL.diffusion, temperature=float("inf")), "temperature is inf"),
        (lambda: replace(FULL.diffusion, steps=1, sample_steps=1), "steps is 1, fewer than two"),
        (lambda: MotionConfig(start_probability=7.0), "start_probability is 7"),
        (lambda: FaceConfig(lip_blur=-3), "lip_blur is -3, not above 0"),
        (lambda: replace(FULL.guidance, conditions=float("nan")), "conditions is nan, not finite"),
        (lambda: AuConfig(noise=float("nan")), "noise is nan"),
    ):
        with pytest.raises(ConfigError, match=said):
            wrong()
    with pytest.raises(ConfigError, match="face_scale"):
        FaceConfig(face_scale=0)

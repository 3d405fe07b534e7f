"""ReferenceNet, motion module and audio module: each equation written out, and what starts silent."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from talkforge.core.errors import InputError, WeightsError
from talkforge.models.diffusers_import import import_extra
from talkforge.models.diffusion.contexts import ContextSlot
from talkforge.models.mf_etalk.config import FusionConfig, MotionConfig, UNetConfig
from talkforge.models.mf_etalk.contexts import BRANCHES, Pass, region_contexts
from talkforge.models.mf_etalk.fusion import BranchFusion, GatedStream, streams_of
from talkforge.models.mf_etalk.hierarchical_attention import HierarchicalAttention, inner_width
from talkforge.models.mf_etalk.motion_module import MotionModule
from talkforge.models.mf_etalk.official import sd_unet
from talkforge.models.mf_etalk.reference_net import ReferenceNet, ReferenceProcessor, self_attentions
from talkforge.tests.models.dice_talk_cases import needs_diffusers, one_thread
from talkforge.tests.models.test_mf_cases import seeded, small

pytestmark = needs_diffusers
CONFIG = small()
UNET = UNetConfig(channels=(32, 32), heads=2, layers_per_block=1, cross_attention_dim=16)
Array = np.ndarray


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    with one_thread():
        yield


def draws(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed))


def numbers(module: torch.nn.Module) -> dict[str, Array]:
    return {name: value.detach().double().numpy() for name, value in module.named_parameters()}


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attend(q: Array, k: Array, v: Array, heads: int) -> Array:
    """(N, C), (M, C), (M, C) to (N, C)."""
    width = q.shape[1] // heads
    lanes = [slice(width * i, width * (i + 1)) for i in range(heads)]
    return np.concatenate([softmax(q[:, s] @ k[:, s].T / width**0.5) @ v[:, s] for s in lanes], 1)


def attention(p: dict[str, Array], name: str, x: Array, context: Array, heads: int) -> Array:
    """A layer of diffusers written out."""
    q, k, v = x @ p[f"{name}to_q.weight"].T, context @ p[f"{name}to_k.weight"].T, context @ p[f"{name}to_v.weight"].T
    return attend(q, k, v, heads) @ p[f"{name}to_out.0.weight"].T + p.get(f"{name}to_out.0.bias", 0)


def layer_norm(p: dict[str, Array], name: str, x: Array) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]


def group_norm(p: dict[str, Array], x: Array, groups: int = 32) -> Array:
    """(C, sites)."""
    parts = x.reshape(groups, -1)
    parts = (parts - parts.mean(1, keepdims=True)) / np.sqrt(parts.var(1, keepdims=True) + 1e-6)
    return parts.reshape(x.shape) * p["norm.weight"][:, None] + p["norm.bias"][:, None]


def feed_forward(p: dict[str, Array], name: str, x: Array) -> Array:
    """GEGLU, then a linear map."""
    value, gate = np.split(x @ p[f"{name}.net.0.proj.weight"].T + p[f"{name}.net.0.proj.bias"], 2, -1)
    gelu = torch.nn.functional.gelu(torch.from_numpy(gate)).numpy()
    return (value * gelu) @ p[f"{name}.net.2.weight"].T + p[f"{name}.net.2.bias"]


def a_pass(frames: int, size: tuple[int, int] = (2, 2), **changes: Any) -> Pass:
    regions = region_contexts(torch.ones(1, 1, 3, *size), frames, size, "area")
    values: dict[str, Any] = {
        "tokens": {},
        "mask": None,
        "frames": frames,
        "size": size,
        "resize": "area",
        "pose": torch.zeros(()),
        "references": {},
        "seen": None,
        "regions": regions,
        "temporal": True,
    }
    return Pass(**values | changes)


# The ReferenceNet and its reader.


@pytest.mark.parametrize("seen", [None, torch.tensor([1.0, 0.0])], ids=["all", "first"])
@torch.no_grad()
def test_frames_attend_to_themselves_and_the_portrait(seen: torch.Tensor | None) -> None:
    """Two clips of two frames. The second feature row is a motion frame, which self-attention does not read."""
    layer = import_extra("diffusers.models.attention_processor").Attention(32, heads=2, dim_head=16).double()
    slot, p = ContextSlot(), numbers(layer)
    layer.set_processor(ReferenceProcessor("here", slot))
    x, features = draws(4, 6, 32).double(), draws(2, 2, 6, 32, seed=2).double()
    with slot.filled(a_pass(2, references={"here": features}, seen=seen)):
        found = layer(x).numpy()
    for row in range(4):
        own, portrait = x[row].numpy(), features[row // 2, 0].numpy()
        blind = seen is not None and not seen[row // 2]
        context = own if blind else np.concatenate([own, portrait])
        np.testing.assert_allclose(found[row], attention(p, "", own, context, 2), rtol=1e-6, atol=1e-9)


@torch.no_grad()
def test_without_features_it_is_the_bases_self_attention() -> None:
    layer = import_extra("diffusers.models.attention_processor").Attention(32, heads=2, dim_head=16)
    x, slot = draws(4, 6, 32), ContextSlot()
    wanted = layer(x)
    layer.set_processor(ReferenceProcessor("here", slot))
    with slot.filled(a_pass(2)):
        torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_reference_net_hands_on_normed_inputs_of_self_attention() -> None:
    """Against a fresh UNet of diffusers with the same weights, watched from outside."""
    torch.manual_seed(0)
    network, base = ReferenceNet(UNET).eval(), sd_unet(UNET).eval()
    base.load_state_dict(network.unet.state_dict(), strict=False)
    seen: dict[str, torch.Tensor] = {}
    for place, layer in self_attentions(base).items():
        norm = base.get_submodule(f"{place}.transformer_blocks.0.norm1")
        norm.register_forward_hook(lambda module, given, output, place=place: seen.update({place: output}))
        assert layer is not None
    latents, identity = draws(2, 3, 4, 8, 8), draws(2, 3, 16, seed=2)
    base(latents.flatten(0, 1), 0, identity.repeat_interleave(3, 0))
    found = network(latents, identity)
    assert found.keys() == seen.keys() and len(found) == 1 + 1 + 2
    for place, value in found.items():
        torch.testing.assert_close(value, seen[place].unflatten(0, (2, 3)))
    assert network.kept == {}


def test_all_that_learns_in_the_reference_net_gets_a_gradient() -> None:
    torch.manual_seed(0)
    network = ReferenceNet(UNET)
    sum(value.square().mean() for value in network(draws(1, 1, 4, 8, 8), draws(1, 2, 16)).values()).backward()
    learns = {name for name, value in network.named_parameters() if value.requires_grad}
    reached = {name for name, value in network.named_parameters() if value.grad is not None and value.grad.any()}
    assert learns == reached
    assert {name.split(".")[1] for name in dict(network.named_parameters()).keys() - learns} == {"up_blocks"}


def test_the_bases_file_fills_the_reference_net_but_for_its_last_layers() -> None:
    torch.manual_seed(0)
    network, base = ReferenceNet(UNET), sd_unet(UNET)
    frozen = [value.requires_grad for value in network.parameters()]
    network.load_base(base.state_dict(), source="sd")
    assert torch.equal(network.unet.conv_in.weight, base.conv_in.weight)
    assert [value.requires_grad for value in network.parameters()] == frozen and network.training
    with pytest.raises(WeightsError, match=r"sd: no conv_in\.bias"):
        network.load_base({k: v for k, v in base.state_dict().items() if k != "conv_in.bias"}, source="sd")


def test_a_copy_keeps_its_own_features() -> None:
    torch.manual_seed(0)
    first = ReferenceNet(UNET).eval()
    second = copy.deepcopy(first)
    latents, identity = draws(1, 1, 4, 8, 8), draws(1, 2, 16)
    with torch.no_grad():
        before = first(latents, identity)
        second.unet.conv_in.weight.zero_()
        other, again = second(latents, identity), first(latents, identity)
    place = "down_blocks.0.attentions.0"
    assert torch.equal(before[place], again[place]) and not torch.equal(before[place], other[place])


# The motion module.


def a_motion_module() -> MotionModule:
    torch.manual_seed(3)
    module = MotionModule(32, MotionConfig(heads=2, frames=4, max_frames=8)).double()
    torch.nn.init.normal_(module.proj_out.weight)
    return module


def written_out(p: dict[str, Array], z: Array) -> Array:
    """The module's equations on one clip (F, C, h, w), all frames."""
    frames, channels, height, width = z.shape
    normed = np.stack([group_norm(p, frame.reshape(channels, -1)) for frame in z])  # (F, C, sites)
    place, lane = np.arange(frames)[:, None], np.arange(0, channels, 2)
    angle = place * np.exp(-np.log(10000) * lane / channels)
    position = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(frames, channels)
    out = np.empty_like(normed)
    for site in range(height * width):
        u = normed[:, :, site] @ p["proj_in.weight"].T + p["proj_in.bias"]
        for norm, layer in (("norm1", "attn1"), ("norm2", "attn2")):
            x = layer_norm(p, f"blocks.0.{norm}", u) + position
            u = u + attention(p, f"blocks.0.{layer}.", x, x, 2)
        u = u + feed_forward(p, "blocks.0.ff", layer_norm(p, "blocks.0.norm3", u))
        out[:, :, site] = u @ p["proj_out.weight"].T + p["proj_out.bias"]
    return z + out.reshape(z.shape)


@torch.no_grad()
def test_the_motion_module_is_its_equations() -> None:
    module, x, before = a_motion_module(), draws(2 * 3, 32, 2, 2).double(), draws(2, 2, 32, 2, 2, seed=2).double()
    found, p = module(x, 3, before).numpy(), numbers(module)
    for clip in range(2):
        frames = x[3 * clip : 3 * clip + 3].numpy()
        wanted = written_out(p, np.concatenate([before[clip].numpy(), frames]))[2:]
        np.testing.assert_allclose(found[3 * clip : 3 * clip + 3], wanted, rtol=1e-5, atol=1e-6)
        alone = module(x[3 * clip : 3 * clip + 3], 3).numpy()
        np.testing.assert_allclose(alone, written_out(p, frames), rtol=1e-5, atol=1e-6)


def test_a_fresh_motion_module_changes_nothing() -> None:
    module, x = MotionModule(32, MotionConfig(heads=2)), draws(4, 32, 2, 2)
    assert torch.equal(module(x, 4, draws(1, 2, 32, 2, 2)), x)


def test_more_frames_than_positions_are_refused() -> None:
    with pytest.raises(InputError, match="10 frames at once"):
        a_motion_module()(draws(8, 32, 1, 1).double(), 8, draws(1, 2, 32, 1, 1).double())


# Fusion and the hierarchical attention.


@torch.no_grad()
def test_a_gated_stream_is_its_equation() -> None:
    torch.manual_seed(4)
    stream = GatedStream(32, 2, 16, FusionConfig(gate_start=0.7)).double()
    x, tokens, p = draws(1, 5, 32).double(), draws(1, 3, 16, seed=2).double(), numbers(stream)
    a = attention(p, "attention.", x[0].numpy(), tokens[0].numpy(), 2)
    select = np.concatenate([x[0].numpy(), a], 1) @ p["select.weight"].T + p["select.bias"]
    np.testing.assert_allclose(stream(x, tokens)[0].numpy(), np.tanh(0.7) / (1 + np.exp(-select)) * a, rtol=1e-6)


@torch.no_grad()
def test_closed_gates_and_zero_tokens_add_exactly_nothing() -> None:
    torch.manual_seed(4)
    heard, x, tokens = draws(1, 5, 32), draws(1, 5, 32, seed=2), {"upper": draws(1, 3, 16), "lower": draws(1, 3, 16)}
    contexts = {"upper": 16, "lower": 16}
    assert torch.equal(BranchFusion(32, 2, contexts, FusionConfig())(heard, x, tokens), heard)
    open_ = BranchFusion(32, 2, contexts, FusionConfig(gate_start=1.0))
    assert not torch.equal(open_(heard, x, tokens), heard)
    assert torch.equal(open_(heard, x, {name: value * 0 for name, value in tokens.items()}), heard)


def test_each_branch_reads_its_streams() -> None:
    found = {branch: streams_of(branch, CONFIG.au, motion=True) for branch in BRANCHES}
    assert found == {"pose": ("motion",), "face": ("upper", "lower"), "lip": ()}
    assert streams_of("pose", CONFIG.au, motion=False) == ()
    assert streams_of("lip", replace(CONFIG.au, lower="face_and_lip"), motion=True) == ("lower",)


def an_audio_module(*, fusion: bool) -> HierarchicalAttention:
    torch.manual_seed(5)
    config = replace(CONFIG, fusion=replace(CONFIG.fusion, on=fusion, gate_start=0.5))
    module = HierarchicalAttention("down_blocks.1.attentions.0", 64, config).double()
    for branch in module.branches.values():
        torch.nn.init.normal_(branch.zero.weight)
        torch.nn.init.normal_(branch.zero.bias)
    return module


@pytest.mark.parametrize("fusion", [False, True])
@torch.no_grad()
def test_the_audio_module_is_its_equations(fusion: bool) -> None:
    """Two clips of two frames on a 2 x 2 grid; inner width 32 at a place of 64 channels, as published."""
    module = an_audio_module(fusion=fusion)
    z, masks = draws(4, 64, 2, 2).double(), torch.rand(2, 1, 3, 2, 2, generator=seeded(6)).double()
    width, motion = CONFIG.audio.width, draws(2, 3, 4, 64, seed=9).double()
    tokens = {name: draws(2, 2, 3, width, seed=i).double() for i, name in enumerate(("audio", "upper", "lower"))}
    weights = {"pose": 0.5, "lip": 2.0}
    given = a_pass(
        2,
        tokens=tokens,
        regions=region_contexts(masks, 2, (2, 2), "area"),
        references={"down_blocks.1.attentions.0": motion},
        weights=weights,
    )
    found, p = module(z, given).numpy(), numbers(module)
    for row in range(4):
        clip, frame = divmod(row, 2)
        flat = z[row].flatten(1).numpy()
        u = group_norm(p, flat).T @ p["proj_in.weight"][:, :, 0, 0].T + p["proj_in.bias"]
        assert u.shape == (4, 32)
        normed = layer_norm(p, "norm1", u)
        u = u + attention(p, "attention.", normed, normed, 4)
        x, added = layer_norm(p, "norm2", u), 0
        for number, branch in enumerate(BRANCHES):
            name = f"branches.{branch}."
            y = attention(p, f"{name}attention.", x, tokens["audio"][clip, frame].numpy(), 4)
            streams = {"upper": tokens["upper"][clip, frame], "lower": tokens["lower"][clip, frame]}
            streams["motion"] = motion[clip, 1:].flatten(0, 1)  # a 2 x 2 grid is not pooled any further
            for stream in streams_of(branch, CONFIG.au, motion=True) if fusion else ():
                key = f"{name}fusion.streams.{stream}."
                a = attention(p, f"{key}attention.", x, streams[stream].numpy(), 4)
                select = np.concatenate([x, a], 1) @ p[f"{key}select.weight"].T + p[f"{key}select.bias"]
                y = y + np.tanh(p[f"{key}gamma"]) / (1 + np.exp(-select)) * a
            masked = y * masks[clip, 0, number].reshape(4, 1).numpy()
            zero = masked @ p[f"{name}zero.weight"][:, :, 0].T + p[f"{name}zero.bias"]
            added = added + weights.get(branch, 1.0) * zero
        u = u + added
        u = u + feed_forward(p, "ff", layer_norm(p, "norm3", u))
        wanted = flat + (u @ p["proj_out.weight"][:, :, 0, 0].T + p["proj_out.bias"]).T
        np.testing.assert_allclose(found[row].reshape(64, 4), wanted, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_fresh_zero_convolutions_silence_all_tokens() -> None:
    module = HierarchicalAttention("down_blocks.0.attentions.0", 32, CONFIG)
    z, width = draws(2, 32, 2, 2), CONFIG.audio.width
    results = []
    for seed in (1, 2):
        tokens = {name: draws(1, 2, 3, width, seed=seed) for name in ("audio", "upper", "lower")}
        results.append(module(z, a_pass(2, tokens=tokens)))
    assert torch.equal(*results)


@torch.no_grad()
def test_a_branch_acts_within_its_mask_alone() -> None:
    """What AU tokens change lies, before the feed-forward mixes channels, at the sites of the face mask."""
    module = an_audio_module(fusion=True)
    masks = torch.zeros(1, 1, 3, 2, 2).double()
    masks[0, 0, 1, 0, 0] = 1  # face: the first site
    regions = region_contexts(masks, 1, (2, 2), "area")
    z, audio = draws(1, 64, 2, 2).double(), draws(1, 1, 3, CONFIG.audio.width).double()
    found = []
    for seed in (2, 3):
        aus = {name: draws(1, 1, 3, CONFIG.au.width, seed=seed).double() for name in ("upper", "lower")}
        found.append(module(z, a_pass(1, tokens={"audio": audio, **aus}, regions=regions)))
    moved = (found[0] - found[1]).abs().amax((0, 1)).flatten()
    assert moved[0] > 1e-6 and not moved[1:].any()


def test_inner_widths_are_the_published_ones() -> None:
    channels = (320, 640, 1280, 1280)
    wanted = {
        "down_blocks.0.attentions.0": 320,
        "down_blocks.1.attentions.0": 320,
        "down_blocks.1.attentions.1": 640,
        "down_blocks.2.attentions.0": 640,
        "down_blocks.2.attentions.1": 1280,
        "mid_block.attentions.0": 1280,
        "up_blocks.1.attentions.2": 640,
        "up_blocks.2.attentions.0": 320,
        "up_blocks.3.attentions.0": 320,
    }
    assert {place: inner_width(place, channels) for place in wanted} == wanted
